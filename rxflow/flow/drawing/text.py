"""Text in boxes: how wide it will be, what to cut so that it fits, and what a page may hold at all."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Font:
    """A size in pixels, and whether all letters are equally wide."""

    size: float
    is_mono: bool = False


_NARROW = frozenset("iIjlft.,:;'`|!()[]{}/\\\" -")
_WIDE = frozenset("mwMW@%&—…")
_CAPITAL_LIKE = frozenset("#$+<=>?~^_")


def printable(text: str) -> str:
    """``text`` on one line, without what a page cannot hold or what would turn the text beside it around."""
    return "".join(_printable(char) for char in text)


def width_of(text: str, font: Font) -> float:
    """An estimate on the safe side: which font a viewer has is unknown."""
    return sum(_em(char, font.is_mono) for char in text) * font.size


def shortened(text: str, font: Font, limit: float) -> str:
    """``text``, or as much of its beginning as fits into ``limit`` pixels together with an ellipsis."""
    if width_of(text, font) <= limit:
        return text
    ellipsis = _em("…", font.is_mono)
    used = 0.0
    kept = 0
    for char in text:
        used += _em(char, font.is_mono)
        if (used + ellipsis) * font.size > limit:  # summed up as width_of does, so that both round alike
            break
        kept += 1
    return text[:kept].rstrip() + "…"


def wrapped(text: str, font: Font, limit: float, lines: int) -> list[str]:
    """``text`` on at most so many lines; the last one is shortened if more would be needed."""
    done: list[str] = []
    words = text.split()
    while words and len(done) < lines - 1:
        count = 1
        while count < len(words) and width_of(" ".join(words[: count + 1]), font) <= limit:
            count += 1
        done.append(shortened(" ".join(words[:count]), font, limit))
        words = words[count:]
    return [*done, shortened(" ".join(words), font, limit)] if words else done


def _printable(char: str) -> str:
    if char.isprintable() or char in "\u200c\u200d":  # the joiners of emoji and of Indic and Arabic scripts
        return char
    return " " if char.isspace() else "\ufffd"


def _em(char: str, is_mono: bool) -> float:
    if unicodedata.combining(char):
        return 0
    if ord(char) >= 0x1F000:
        return 1.4
    if unicodedata.east_asian_width(char) in "WF":
        return 1.05
    if is_mono:
        return 0.61 if char.isascii() else 0.8
    if char in _NARROW:
        return 0.36
    if char in _WIDE:
        return 0.96
    if char.isupper() or char in _CAPITAL_LIKE:
        return 0.72
    return 0.58 if char.isascii() else 0.75
