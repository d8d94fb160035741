"""Characters as people see them: surrogate halves are joined, and no grapheme (UAX #29) is cut."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from rxflow.operators._core.regexes import regex

_HALF = re.compile("[\ud800-\udfff]")


def joined(text: str) -> tuple[str, str]:
    """``text`` with its surrogate pairs joined, and the half at its end that waits for the other one. ::

    "a\\ud83d" + "\\ude00b"    →    "a", "😀b"
    """
    if _HALF.search(text) is None:
        return text, ""
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return (whole[:-1], whole[-1]) if "\ud800" <= whole[-1] <= "\udbff" else (whole, "")


@cache
def grapheme() -> Any:
    """The pattern of one character."""
    return regex().compile(r"\X")


def last_start(text: str) -> int:
    """Where the last character of ``text`` begins: what comes next may still join it."""
    end = text[-2:]
    if end.isascii():
        return len(text) - (2 if end == "\r\n" else 1) if text else 0
    start = 0
    for match in grapheme().finditer(text):
        start = match.start()
    return start


def end_after(text: str, count: int) -> int:
    """Where the character ends that holds the code point number ``count`` (from 1); the whole text may be shorter."""
    if count >= len(text):
        return len(text)
    if text.isascii():
        return count + (text[count - 1 : count + 1] == "\r\n")
    end = 0
    for match in grapheme().finditer(text):
        end = match.end()
        if end >= count:
            break
    return end


class Characters:
    """Shapes text into pieces that end where a character ends. The last character waits, as it may go on."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> Sequence[str]:
        """All but the last character."""
        text = self._held + text
        cut = last_start(text)
        self._held = text[cut:]
        return (text[:cut],) if cut else ()

    def flush(self) -> Sequence[str]:
        """The last character."""
        held, self._held = self._held, ""
        return (held,) if held else ()
