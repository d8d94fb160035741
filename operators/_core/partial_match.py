"""Patterns on text that is still coming: which matches are certain, and from where on nothing is."""

from __future__ import annotations

import re
from typing import Any, Protocol, cast

from rxflow.operators._core.regexes import regex

# Where the end of what has come looks like the end of the text, these say the opposite of what they may say later.
_SEES_THE_END = re.compile(r"\\[bBZzmMXR]|\$|\(\?!")
# These do so again and again, so that looking one character further back does not help.
_FORBIDS_THE_END = re.compile(r"\\B|\(\?!(?:\\[bBZz]|\$)")
_FLAGS = ("IGNORECASE", "MULTILINE", "DOTALL", "VERBOSE", "ASCII")


class TextPattern(Protocol):
    """A compiled pattern, of ``re`` or of ``regex``."""

    @property
    def pattern(self) -> str:
        """Its text."""
        ...

    @property
    def flags(self) -> int:
        """How it was compiled."""
        ...


class PartialPattern:
    """A pattern, and its twin that finds where text may still become a match.

    ``re`` cannot tell that, the ``regex`` package can. It does the matching too: the two differ in what a letter is,
    and a match must not be certain to the one and unknown to the other.

    The twin is the pattern, and then something that never matches. So it never matches itself, but reports the first
    place where the pattern needs more than there is, before it has found its match (it is atomic: other ways to match
    do not count). What begins before that place is certain. A pattern that looks at the end of the text needs one
    character more, and is tried once more without the last one.

    Raises:
        TypeError: ``pattern`` is no text pattern.
        ValueError: it cannot be read, or matches the empty text.
    """

    def __init__(self, pattern: str | TextPattern, *, window: int) -> None:
        given, flags = _read(pattern)
        try:
            self._pattern: Any = regex().compile(given, flags)
            end = "\n" if self._pattern.flags & regex().VERBOSE else ""  # the pattern may end with a comment
            self._sees_the_end = _SEES_THE_END.search(given) is not None
            one_more = "(?s:.)" if self._sees_the_end else ""
            self._twin: Any = regex().compile(f"(?>{given}{end}){one_more}(?!)", flags)
        except regex().error as error:
            raise ValueError(f"{given!r} is no regular expression: {error}") from error
        if self._pattern.match("") is not None:
            raise ValueError(f"{given!r} matches the empty text, so it would match everywhere")
        self._window = window if _FORBIDS_THE_END.search(given) is not None else 0

    def search(self, text: str, start: int) -> re.Match[str] | None:
        """The next match that is not empty, as far as the text goes."""
        match = self._pattern.search(text, start)
        while match is not None and match.end() == match.start():
            match = self._pattern.search(text, match.end() + 1) if match.end() < len(text) else None
        return cast("re.Match[str] | None", match)

    def open_from(self, text: str, start: int) -> int:
        """The first place, from ``start`` on, whose match is not certain."""
        found = self._twin.search(text, start, partial=True)
        place = len(text) if found is None else found.start()
        if self._sees_the_end and len(text) > start:
            found = self._twin.search(text, start, len(text) - 1, partial=True)
            place = min(place, found.start())
        if self._window:
            place = min(place, max(start, len(text) - self._window))
        return place

    def is_open(self, text: str, start: int) -> bool:
        """Something in the text may still become a match."""
        found = self._twin.search(text, start, partial=True)
        return found is not None and found.start() < len(text)


def _read(pattern: str | TextPattern) -> tuple[str, int]:
    """The text of a pattern, and its flags as ``regex`` has them."""
    if isinstance(pattern, str):
        return pattern, 0
    kind = cast(object, type(pattern))
    text: object = pattern.pattern if kind in (re.Pattern, regex().Pattern) else None
    if not isinstance(text, str):
        raise TypeError(f"a pattern is a string, or one that was compiled from a string; got {pattern!r}")
    if kind is re.Pattern:
        return text, sum(getattr(regex(), name) for name in _FLAGS if pattern.flags & getattr(re, name))
    return text, pattern.flags
