"""Cuts the texts of nodes and labels to fit, and computes the sizes of their boxes."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from rxflow.flow._drawing.sketch import Look, Node


@dataclass(frozen=True, slots=True)
class Font:
    """A font. ``size`` is in pixels. ``is_mono`` is True if all letters have the same width."""

    size: float
    is_mono: bool = False


_NARROW = frozenset("iIjlft.,:;'`|!()[]{}/\\\" -")
_WIDE = frozenset("mwMW@%&—…")
_CAPITAL_LIKE = frozenset("#$+<=>?~^_")


def clean_text(text: str) -> str:
    """Return ``text`` on one line. White space becomes spaces. Other unprintable characters become U+FFFD.

    Some unprintable characters are not allowed in a page, and some change the direction of text. Zero-width joiners and
    non-joiners stay.
    """
    return "".join(_clean_char(char) for char in text)


def measure_width(text: str, font: Font) -> float:
    """Estimate the width of ``text`` in pixels. The viewer's font is unknown, so the estimate is generous."""
    return sum(_measure_char(char, font.is_mono) for char in text) * font.size


def shorten(text: str, font: Font, limit: float) -> str:
    """Return ``text``, cut if it is wider than ``limit`` pixels. A text that was cut ends with an ellipsis."""
    if measure_width(text, font) <= limit:
        return text
    ellipsis = _measure_char("…", font.is_mono)
    used = 0.0
    kept = 0
    for char in text:
        used += _measure_char(char, font.is_mono)
        if (used + ellipsis) * font.size > limit:  # computed as in measure_width(), with the same rounding errors
            break
        kept += 1
    return text[:kept].rstrip() + "…"


def wrap(text: str, font: Font, limit: float, lines: int) -> list[str]:
    """Break ``text`` into at most ``lines`` lines. No line is wider than ``limit`` pixels.

    A word that is wider than a line is shortened. The last line is shortened if the rest of the text does not fit. A
    shortened line ends with an ellipsis.
    """
    done: list[str] = []
    words = text.split()
    while words and len(done) < lines - 1:
        count = 1
        while count < len(words) and measure_width(" ".join(words[: count + 1]), font) <= limit:
            count += 1
        done.append(shorten(" ".join(words[:count]), font, limit))
        words = words[count:]
    return [*done, shorten(" ".join(words), font, limit)] if words else done


def _clean_char(char: str) -> str:
    if char.isprintable() or char in "\u200c\u200d":  # invisible characters that emoji and some scripts need
        return char
    return " " if char.isspace() else "\ufffd"


def _measure_char(char: str, is_mono: bool) -> float:
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


_NAME_FONT = Font(13, is_mono=True)
_DOC_FONT = Font(12)
_LABEL_FONT = Font(12)

_MAX_TEXT_PX = 196.0
_MAX_DOC_LINES = 2
LINE_PX = 17.0
_PADDING_PX = 11.0
_SIDE_PX = {Look.ROUTER: 26.0, Look.STARTING_ROUTER: 26.0, Look.START: 20.0, Look.WAITING_START: 20.0}
_MAX_LABEL_PX = 180.0
_PORT_PX = 16.0


@dataclass(frozen=True, slots=True)
class NodeText:
    """The text of a node, cut to fit, and the size of the node's box in pixels."""

    name: str
    doc: list[str]
    width: float
    height: float


def fit_node(node: Node, ends: int) -> NodeText:
    """Return the text of ``node``, cut to fit, with the size of the node's box.

    The box of a join is wide enough for ``ends`` edges on one side.
    """
    if node.look in (Look.AND, Look.OR):
        return NodeText(node.text, [], max(44.0, ends * _PORT_PX + 8), 22.0)
    if node.look is Look.LABEL:
        name, width, height = fit_label(node.text)
        return NodeText(name, [], width + 8, height + 4)
    name = shorten(clean_text(node.text), _NAME_FONT, _MAX_TEXT_PX)
    doc = wrap(clean_text(node.doc), _DOC_FONT, _MAX_TEXT_PX, _MAX_DOC_LINES)
    text = max([measure_width(name, _NAME_FONT), *(measure_width(line, _DOC_FONT) for line in doc)])
    width = max(text + 2 * _SIDE_PX.get(node.look, 16.0), 104.0)
    return NodeText(name, doc, width, 2 * _PADDING_PX + LINE_PX * (1 + len(doc)))


def fit_label(label: str) -> tuple[str, float, float]:
    """Return ``label``, cut to fit, and the width and height of its box in pixels."""
    text = shorten(clean_text(label) or '""', _LABEL_FONT, _MAX_LABEL_PX)
    return text, measure_width(text, _LABEL_FONT) + 12, 20.0
