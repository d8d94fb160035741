"""Where everything goes: boxes on ranks from top to bottom, and routes between them that pass through no box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rxflow.flow.drawing.columns import columns
from rxflow.flow.drawing.layers import Layers, layers_of
from rxflow.flow.drawing.order import ordered
from rxflow.flow.drawing.ranks import Link
from rxflow.flow.drawing.routes import Point, Route, Stage, routes

_MARGIN = 24.0
_GAP = 34.0
_MORE_GAP = 50.0


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle, by its left upper corner."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> Point:
        """Its centre."""
        return self.x + self.width / 2, self.y + self.height / 2


@dataclass(frozen=True, slots=True)
class Layout:
    """A box for each node, a route for each link, and the box of the label of each link that carries one."""

    width: float
    height: float
    boxes: list[Box]
    routes: list[Route]
    label_boxes: list[Box | None]


def lay_out(sizes: Sequence[tuple[float, float]], links: Sequence[Link]) -> Layout:
    """Lay out nodes of these widths and heights."""
    layers = layers_of(sizes, links)
    xs = columns(layers, ordered(layers))
    left = min((x - slot.width / 2 for x, slot in zip(xs, layers.slots, strict=True)), default=0.0) - _MARGIN
    xs = [x - left for x in xs]
    bands = _bands(layers, xs)
    boxes: list[Box] = []
    for x, slot in zip(xs, layers.slots, strict=True):
        top, bottom = bands[slot.rank]
        boxes.append(Box(x - slot.width / 2, (top + bottom - slot.height) / 2, slot.width, slot.height))
    return Layout(
        width=max((box.x + box.width for box in boxes), default=0.0) + _MARGIN,
        height=(bands[-1][1] if bands else 0.0) + _MARGIN + _turns(layers, 0),
        boxes=boxes[: len(sizes)],
        routes=routes(Stage(layers, xs, bands)),
        label_boxes=[None if slot is None else boxes[slot] for slot in layers.label_slots],
    )


def _bands(layers: Layers, xs: Sequence[float]) -> list[tuple[float, float]]:
    """Top and bottom of each rank. The farther the links between two ranks go sideways, the wider the gap."""
    heights = [0.0] * layers.depth
    for slot in layers.slots:
        heights[slot.rank] = max(heights[slot.rank], slot.height)
    sideways = [0.0] * layers.depth
    for upper, lower in layers.ties:
        rank = layers.slots[upper].rank
        sideways[rank] = max(sideways[rank], abs(xs[upper] - xs[lower]))
    bands: list[tuple[float, float]] = []
    top = _MARGIN + _turns(layers, 1)
    for height, distance in zip(heights, sideways, strict=True):
        bands.append((top, top + height))
        top += height + _GAP + min(_MORE_GAP, distance * 0.07)
    return bands


def _turns(layers: Layers, end: int) -> float:
    """Room for the links that turn around above the first rank (``end`` 1) or below the last (``end`` 0)."""
    rank = 0 if end else layers.depth - 1
    turning = [layers.slots[layers.passes[place][-end]].rank for place in layers.back]
    return _GAP - _MARGIN / 2 if rank in turning else 0.0
