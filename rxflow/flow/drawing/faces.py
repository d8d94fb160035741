"""What stands in each node's box, and how large the box must be for it."""

from __future__ import annotations

from dataclasses import dataclass

from rxflow.flow.drawing.sketch import Look, Node
from rxflow.flow.drawing.text import Font, printable, shortened, width_of, wrapped

NAME = Font(13, is_mono=True)
DOC = Font(12)
LABEL = Font(12)
JOIN = Font(11)

_TEXT_ROOM = 196.0
_DOC_LINES = 2
_LINE = 17.0
_PADDING = 11.0
_SIDE = {Look.ROUTER: 26.0, Look.STARTING_ROUTER: 26.0, Look.START: 20.0, Look.WAITING_START: 20.0}
_LABEL_ROOM = 180.0
_PORT_ROOM = 16.0


@dataclass(frozen=True, slots=True)
class Face:
    """The text of a node as it fits, and the size of its box."""

    name: str
    doc: list[str]
    width: float
    height: float


def face_of(node: Node, ends: int) -> Face:
    """The face of ``node``, to which at most ``ends`` edges lead on one side."""
    if node.look in (Look.AND, Look.OR):
        return Face(node.text, [], max(44.0, ends * _PORT_ROOM + 8), 22.0)
    if node.look is Look.LABEL:
        name, width, height = label_of(node.text)
        return Face(name, [], width + 8, height + 4)
    name = shortened(printable(node.text), NAME, _TEXT_ROOM)
    doc = wrapped(printable(node.doc), DOC, _TEXT_ROOM, _DOC_LINES)
    text = max([width_of(name, NAME), *(width_of(line, DOC) for line in doc)])
    width = max(text + 2 * _SIDE.get(node.look, 16.0), 104.0)
    return Face(name, doc, width, 2 * _PADDING + _LINE * (1 + len(doc)))


def label_of(label: str) -> tuple[str, float, float]:
    """A label as it fits, with the width and height that it takes."""
    text = shortened(printable(label) or '""', LABEL, _LABEL_ROOM)
    return text, width_of(text, LABEL) + 12, 20.0
