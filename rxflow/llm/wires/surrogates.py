"""Characters that a server has cut in two.

Servers that count in UTF-16, for example those in JavaScript and Java, may send the halves of an emoji in two events.
Neither half is text: it can neither be printed nor sent on as JSON. So the first half waits for the second.
"""

from __future__ import annotations

from collections.abc import Hashable

from rxflow.json_text import encodable

REPLACEMENT = "\ufffd"

_FIRST_HALVES = ("\ud800", "\udbff")


class SurrogateJoiner:
    """Joins the halves of characters, text by text. A half without the other becomes the replacement character."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, str] = {}

    def join(self, text_name: Hashable, text: str) -> str:
        """``text`` as the next piece of the text called ``text_name``, without a first half at its end."""
        if text.isascii() and text_name not in self._waiting:
            return text
        text = self._waiting.pop(text_name, "") + text
        if text and _FIRST_HALVES[0] <= text[-1] <= _FIRST_HALVES[1]:
            self._waiting[text_name] = text[-1]
            text = text[:-1]
        return encodable(text)

    def take_unfinished(self) -> list[Hashable]:
        """The names of the texts that end in a first half; they are forgotten."""
        waiting, self._waiting = self._waiting, {}
        return list(waiting)
