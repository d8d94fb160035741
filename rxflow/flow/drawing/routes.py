"""The way of each link: down through the gaps in smooth curves, straight where it passes a rank."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from rxflow.flow.drawing.layers import Layers

Point: TypeAlias = tuple[float, float]
Step: TypeAlias = tuple[Point] | tuple[Point, Point, Point]
"""A line to a point, or a cubic curve: two control points and the end."""

_CORNER = 22.0
_PORT_SPACING = 22.0
_TURN = (14.0, 28.0)


@dataclass(frozen=True, slots=True)
class Route:
    """Where a link begins, and its steps from there. The last one leads straight down."""

    start: Point
    steps: tuple[Step, ...]

    @property
    def end(self) -> Point:
        """The tip of its arrow."""
        return self.steps[-1][-1]


@dataclass(frozen=True, slots=True)
class Stage:
    """What a route needs to know: the slots, their middles, and top and bottom of each rank."""

    layers: Layers
    xs: Sequence[float]
    bands: Sequence[tuple[float, float]]


def routes(stage: Stage) -> list[Route]:
    """A route for each link."""
    exits, entries = _ports(stage)
    return [_route(stage, place, exits[place], entries[place]) for place in range(len(stage.layers.links))]


def _route(stage: Stage, place: int, exit_x: float, entry_x: float) -> Route:
    layers, bands = stage.layers, stage.bands
    link, back = layers.links[place], place in layers.back
    source, target = layers.slots[link.source], layers.slots[link.target]
    top, bottom = bands[source.rank]
    start = (exit_x, (top + bottom + source.height) / 2)
    steps: list[Step] = [((exit_x, bottom),)]
    at = (exit_x, bottom)
    for slot in layers.passes[place]:
        x, (top, bottom) = stage.xs[slot], bands[layers.slots[slot].rank]
        enter, leave = ((x, bottom), (x, top)) if back else ((x, top), (x, bottom))
        steps += [_curve(at, enter, 1), (leave,)]
        at = leave
    top, bottom = bands[target.rank]
    steps += [_curve(at, (entry_x, top), -1), ((entry_x, (top + bottom - target.height) / 2),)]
    return Route(start, tuple(steps))


def _curve(start: Point, end: Point, turn: int) -> Step:
    """An S through a gap; between two points of the same height a U that dips (``turn`` 1) or rises (-1)."""
    (x, y), (to_x, to_y) = start, end
    if y == to_y:
        depth = min(_TURN[1], _TURN[0] + abs(to_x - x) * 0.05) * 4 / 3 * turn
        return (x, y + depth), (to_x, y + depth), end
    middle = (y + to_y) / 2
    return (x, middle), (to_x, middle), end


def _ports(stage: Stage) -> tuple[list[float], list[float]]:
    """Where on its boxes each link begins and ends: side by side, in the order in which they go on."""
    layers, xs = stage.layers, stage.xs
    leaving: dict[int, list[tuple[float, int]]] = defaultdict(list)
    arriving: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for place, link in enumerate(layers.links):
        way = [link.source, *layers.passes[place], link.target]
        leaving[link.source].append((xs[way[1]], place))
        arriving[link.target].append((xs[way[-2]], place))
    exits, entries = [0.0] * len(layers.links), [0.0] * len(layers.links)
    for sides, ports in (leaving, exits), (arriving, entries):
        for node, ends in sides.items():
            room = max(layers.slots[node].width - 2 * _CORNER, layers.slots[node].width * 0.5)
            spacing = min(_PORT_SPACING, room / max(1, len(ends) - 1))
            for number, (_, place) in enumerate(sorted(ends)):
                ports[place] = xs[node] + (number - (len(ends) - 1) / 2) * spacing
    return exits, entries
