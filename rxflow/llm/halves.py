"""Characters that a server has cut in two.

Servers that count in UTF-16, as those in JavaScript and Java do, may send the halves of an emoji in two events. Neither
is text: it cannot be printed, nor sent on as JSON. So the first half waits for the second.
"""

from __future__ import annotations

from collections.abc import Hashable

from rxflow.json_text import encodable

REPLACEMENT = "\ufffd"

_FIRST = ("\ud800", "\udbff")


class Halves:
    """Puts pairs together, text by text. A half without its other one becomes the replacement character."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, str] = {}

    def joined(self, which: Hashable, text: str) -> str:
        """``text`` as the next piece of the text called ``which``, without a first half at its end."""
        if text.isascii() and which not in self._waiting:
            return text
        text = self._waiting.pop(which, "") + text
        if text and _FIRST[0] <= text[-1] <= _FIRST[1]:
            self._waiting[which] = text[-1]
            text = text[:-1]
        return encodable(text)

    def left(self) -> list[Hashable]:
        """The names of the texts that ended in a first half."""
        waiting, self._waiting = self._waiting, {}
        return list(waiting)
