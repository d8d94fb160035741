"""What a page shows, read back from its text."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from xml.etree import ElementTree

from rxflow.flow._drawing.coordinates import Box
from rxflow.flow._drawing.markup import draw_page
from rxflow.flow._graph import read_graph

_SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class DrawnNode:
    """A node of a page."""

    kinds: set[str]
    name: str
    doc: str
    tip: str
    box: Box


def page_of(cls: type) -> str:
    """The page of a flow class."""
    return draw_page(read_graph(cls), cls.__name__)


def parsed(text: str) -> ElementTree.Element:
    """A page is well-formed XML too, so a strict parser may read it."""
    return ElementTree.fromstring(text)


def nodes_in(text: str) -> list[DrawnNode]:
    """All nodes of a page's drawing, without the legend's."""
    return [
        DrawnNode(
            kinds=set(group.get("class", "").split()) - {"node"},
            name=group.findtext(f"{_SVG}text", ""),
            doc=" ".join(line.text or "" for line in group.findall(f"{_SVG}text")[1:]),
            tip=group.findtext(f"{_SVG}title", ""),
            box=_box(group),
        )
        for group in _groups(text, "node")
    ]


def labels_in(text: str) -> list[str]:
    """The labels that edges carry."""
    return [group.findtext(f"{_SVG}text", "") for group in _groups(text, "carried")]


def edges_in(text: str, line: str = "") -> list[ElementTree.Element]:
    """The edges of a kind, or all."""
    return [group for group in _groups(text, "edge") if line in group.get("class", "")]


def legend_in(text: str) -> str:
    """The text of the legend."""
    return " ".join("".join(item.itertext()) for item in parsed(text).iter() if item.tag.endswith("}li"))


def overlap(one: Box, other: Box) -> bool:
    """Whether two boxes have more than a border in common."""
    return (
        one.x + one.width > other.x + 0.01
        and other.x + other.width > one.x + 0.01
        and one.y + one.height > other.y + 0.01
        and other.y + other.height > one.y + 0.01
    )


def any_overlap(boxes: list[Box]) -> bool:
    """Whether any two boxes overlap."""
    return any(overlap(one, other) for one, other in combinations(boxes, 2))


def _groups(text: str, kind: str) -> list[ElementTree.Element]:
    return [
        group
        for drawing in parsed(text).iter(f"{_SVG}svg")
        if drawing.get("role") == "img"
        for group in drawing.iter(f"{_SVG}g")
        if kind in group.get("class", "").split()
    ]


def _box(group: ElementTree.Element) -> Box:
    rect = group.find(f"{_SVG}rect")
    if rect is not None:
        return Box(*(float(rect.get(key, "nan")) for key in ("x", "y", "width", "height")))
    polygon = group.find(f"{_SVG}polygon")
    assert polygon is not None
    corners = [tuple(map(float, corner.split(","))) for corner in polygon.get("points", "").split()]
    xs, ys = [corner[0] for corner in corners], [corner[1] for corner in corners]
    return Box(min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys))
