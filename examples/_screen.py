"""A screen for streamed text: a margin, line breaks between words, and colours in a terminal."""

import os
import sys
from enum import Enum

WIDTH = 74


class Ink(Enum):
    """Colours, named by their use. The values are those of terminal control codes."""

    PLAIN = "0"
    TITLE = "1"
    PHASE = "1;36"
    AGENT = "36"
    TOOL = "33"
    DONE = "1;32"
    FAINT = "2"


class Screen:
    """Prints words as they arrive."""

    def __init__(self) -> None:
        self._colourful = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._column = 0

    def line(self, text: str = "", ink: Ink = Ink.PLAIN) -> None:
        """Print a line of its own."""
        self.end_line()
        print(self._painted(text, ink), flush=True)

    def write(self, text: str, ink: Ink = Ink.PLAIN) -> None:
        """Print more text inside the margin. Start a new line if the text does not fit."""
        for number, part in enumerate(text.split("\n")):
            if number or self._column + len(part) > WIDTH:
                self.end_line()
            shown = part if self._column else part.lstrip()
            if not shown:
                continue
            if not self._column:
                print(self._painted("  │ ", Ink.FAINT), end="")
            print(self._painted(shown, ink), end="", flush=True)
            self._column += len(shown)

    def end_line(self) -> None:
        """End the current line, if there is one."""
        if self._column:
            print()
        self._column = 0

    def _painted(self, text: str, ink: Ink) -> str:
        return f"\033[{ink.value}m{text}\033[0m" if self._colourful and text else text
