"""Coordinates of a drawing: a box for each node, and for each link a route that crosses no box.

Nodes are in ranks, from top to bottom. A slot is the space on a rank for a node, or for a link that passes the rank. A
tie is a pair of slots on adjacent ranks: a link leads from one slot to the other.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import TypeAlias

from rxflow.flow._drawing.layering import Layers, Link, build_layers, order_slots

Point: TypeAlias = tuple[float, float]
Step: TypeAlias = tuple[Point] | tuple[Point, Point, Point]
"""A line to a point, or a cubic curve with two control points and an end."""

_MARGIN_PX = 24.0
_GAP_PX = 34.0
_MAX_EXTRA_GAP_PX = 50.0
_SPACING_PX = 28.0
_PASSING_SPACING_PX = 16.0
_MAX_SWEEPS = 40
_SETTLED_PX = 0.1
_CORNER_PX = 22.0
_PORT_SPACING_PX = 22.0
_TURN_DEPTHS_PX = (14.0, 28.0)


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels. ``x`` and ``y`` are the coordinates of the upper left corner."""

    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> Point:
        """The centre."""
        return self.x + self.width / 2, self.y + self.height / 2


@dataclass(frozen=True, slots=True)
class Route:
    """The path of a link: its start and its steps. The last step leads straight down."""

    start: Point
    steps: tuple[Step, ...]

    @property
    def end(self) -> Point:
        """The tip of the link's arrow."""
        return self.steps[-1][-1]


@dataclass(frozen=True, slots=True)
class Layout:
    """The boxes of the nodes, and the routes of the links.

    ``label_boxes`` has one element for each link: the box of its label, or None if the link has no label.
    """

    width: float
    height: float
    boxes: list[Box]
    routes: list[Route]
    label_boxes: list[Box | None]


def lay_out(sizes: Sequence[tuple[float, float]], links: Sequence[Link]) -> Layout:
    """Lay out nodes of these widths and heights, in ranks from top to bottom."""
    layers = build_layers(sizes, links)
    xs = place_columns(layers, order_slots(layers))
    left = min((x - slot.width / 2 for x, slot in zip(xs, layers.slots, strict=True)), default=0.0) - _MARGIN_PX
    xs = [x - left for x in xs]
    bands = _stack_ranks(layers, xs)
    boxes: list[Box] = []
    for x, slot in zip(xs, layers.slots, strict=True):
        top, bottom = bands[slot.rank]
        boxes.append(Box(x - slot.width / 2, (top + bottom - slot.height) / 2, slot.width, slot.height))
    return Layout(
        width=max((box.x + box.width for box in boxes), default=0.0) + _MARGIN_PX,
        height=(bands[-1][1] if bands else 0.0) + _MARGIN_PX + _turning_room(layers, 0),
        boxes=boxes[: len(sizes)],
        routes=route_links(Stage(layers, xs, bands)),
        label_boxes=[None if slot is None else boxes[slot] for slot in layers.label_slots],
    )


def _stack_ranks(layers: Layers, xs: Sequence[float]) -> list[tuple[float, float]]:
    """Return the top and bottom of each rank. The gap below a rank is wider if links go far sideways in the gap."""
    heights = [0.0] * layers.depth
    for slot in layers.slots:
        heights[slot.rank] = max(heights[slot.rank], slot.height)
    sideways = [0.0] * layers.depth
    for upper, lower in layers.ties:
        rank = layers.slots[upper].rank
        sideways[rank] = max(sideways[rank], abs(xs[upper] - xs[lower]))
    bands: list[tuple[float, float]] = []
    top = _MARGIN_PX + _turning_room(layers, 1)
    for height, distance in zip(heights, sideways, strict=True):
        bands.append((top, top + height))
        top += height + _GAP_PX + min(_MAX_EXTRA_GAP_PX, distance * 0.07)
    return bands


def _turning_room(layers: Layers, end: int) -> float:
    """Return the extra height for links that turn outside the ranks; 0 if there are none.

    A link that leads back upwards turns below its source and above its target. ``end`` 0 stands for the source: the
    height is below the last rank. ``end`` 1 stands for the target: the height is above the first rank.
    """
    rank = 0 if end else layers.depth - 1
    turning = [layers.slots[layers.passes[index][-end]].rank for index in layers.back]
    return _GAP_PX - _MARGIN_PX / 2 if rank in turning else 0.0


def place_columns(layers: Layers, order: Sequence[Sequence[int]]) -> list[float]:
    """Return the x of each slot's middle.

    A sweep goes through all ranks, down and up, and moves tied slots closer together. The sweeps end when the slots
    hardly move, or after ``_MAX_SWEEPS`` sweeps. Then unbranched paths are made straight.
    """
    xs = [0.0] * len(layers.slots)
    for rank in order:
        _settle_rank(rank, [(0.0, 1.0)] * len(rank), layers, xs)
    pulls = _collect_pulls(layers, order)
    for _ in range(_MAX_SWEEPS):
        moved = 0.0
        for rank in [*order, *reversed(order)]:
            wishes: list[tuple[float, float]] = []
            for slot in rank:
                weight = sum(pull for _, pull, _ in pulls[slot])
                wish = sum((xs[other] + offset) * pull for other, pull, offset in pulls[slot])
                wishes.append((wish / weight, weight) if weight else (xs[slot], 0.1))
            moved = max(moved, _settle_rank(rank, wishes, layers, xs))
        if moved < _SETTLED_PX:
            break
    for _ in range(2):  # the first pass may make room for the second
        _straighten(layers, order, xs)
    return xs


def _collect_pulls(layers: Layers, order: Sequence[Sequence[int]]) -> list[list[tuple[int, float, float]]]:
    """Return, for each slot, a list of the slots that attract it.

    Each entry is (other, weight, offset). ``other`` is the index of the slot that attracts. The attracted slot should
    be at the x of ``other`` plus ``offset``.
    """
    pulls: list[list[tuple[int, float, float]]] = [[] for _ in layers.slots]
    for upper, lower in layers.ties:
        nodes = layers.slots[upper].is_node + layers.slots[lower].is_node
        pull = (8.0, 1.0, 2.0)[nodes]  # 8.0 if neither slot is a node, so that a long link bends only near its ends
        pulls[upper].append((lower, pull, 0.0))
        pulls[lower].append((upper, pull, 0.0))
    positions = {slot: position for rank in order for position, slot in enumerate(rank)}
    for turn, node in layers.beside:
        side = 1 if positions[turn] > positions[node] else -1
        pulls[turn].append((node, 1.0, side * _min_distance(layers, turn, node)))
    return pulls


def _min_distance(layers: Layers, one: int, other: int) -> float:
    left, right = layers.slots[one], layers.slots[other]
    spacing = _SPACING_PX if left.is_node and right.is_node else _PASSING_SPACING_PX
    return (left.width + right.width) / 2 + spacing


def _settle_rank(rank: Sequence[int], wishes: Sequence[tuple[float, float]], layers: Layers, xs: list[float]) -> float:
    """Move the slots of a rank as close to their target positions as possible without overlap. Return the longest move.

    ``wishes`` has the target position and the weight of each slot. The order of the slots stays, and the weighted sum
    of squared distances to the targets becomes minimal. For this, neighbours whose targets collide form a block. The
    block is placed at the weighted mean of its targets.
    """
    blocks: list[tuple[float, float, list[int]]] = []  # each block has its mean, its weight and its slots
    shifts: dict[int, float] = {}
    shift = 0.0
    for position, slot in enumerate(rank):
        if position:
            shift += _min_distance(layers, rank[position - 1], slot)
        shifts[slot] = shift
        wish, weight = wishes[position]
        block = (wish - shift, weight, [slot])
        while blocks and blocks[-1][0] >= block[0]:
            mean, mass, slots = blocks.pop()
            total = mass + block[1]
            block = ((mean * mass + block[0] * block[1]) / total, total, slots + block[2])
        blocks.append(block)
    moved = 0.0
    for mean, _, slots in blocks:
        for slot in slots:
            moved = max(moved, abs(xs[slot] - mean - shifts[slot]))
            xs[slot] = mean + shifts[slot]
    return moved


def _straighten(layers: Layers, order: Sequence[Sequence[int]], xs: list[float]) -> None:
    """Give the slots of each unbranched path the same x, as far as their neighbours leave room.

    A path then has few bends instead of one at each rank.
    """
    left: dict[int, int] = {}
    right: dict[int, int] = {}
    for rank in order:
        for one, other in pairwise(rank):
            right[one], left[other] = other, one
    for path in _find_unbranched_paths(layers):
        run: list[int] = []
        low, high = -inf, inf
        for slot in path:
            lowest = xs[left[slot]] + _min_distance(layers, left[slot], slot) if slot in left else -inf
            highest = xs[right[slot]] - _min_distance(layers, slot, right[slot]) if slot in right else inf
            if max(low, lowest) > min(high, highest):
                _align_run(run, low, high, xs)
                run, low, high = [], -inf, inf
            run.append(slot)
            low, high = max(low, lowest), min(high, highest)
        _align_run(run, low, high, xs)


def _find_unbranched_paths(layers: Layers) -> list[list[int]]:
    """Return the paths of ties that have no branches and no joins. The longest path comes first."""
    leaving = Counter(upper for upper, _ in layers.ties)
    arriving = Counter(lower for _, lower in layers.ties)
    onward = {upper: lower for upper, lower in layers.ties if leaving[upper] == 1 == arriving[lower]}
    reached = set(onward.values())
    paths: list[list[int]] = []
    for slot in onward:
        if slot not in reached:
            path = [slot]
            while path[-1] in onward:
                path.append(onward[path[-1]])
            paths.append(path)
    return sorted(paths, key=len, reverse=True)


def _align_run(run: Sequence[int], low: float, high: float, xs: list[float]) -> None:
    if run:
        middle = min(max(sum(xs[slot] for slot in run) / len(run), low), high)
        for slot in run:
            xs[slot] = middle


@dataclass(frozen=True, slots=True)
class Stage:
    """The input of routing: the slots, the x of their middles, and the top and bottom of each rank."""

    layers: Layers
    xs: Sequence[float]
    bands: Sequence[tuple[float, float]]


def route_links(stage: Stage) -> list[Route]:
    """Return a route for each link: smooth curves between ranks, and straight lines across the passed ranks."""
    exits, entries = _spread_ports(stage)
    return [_route_link(stage, index, exits[index], entries[index]) for index in range(len(stage.layers.links))]


def _route_link(stage: Stage, index: int, exit_x: float, entry_x: float) -> Route:
    layers, bands = stage.layers, stage.bands
    link, back = layers.links[index], index in layers.back
    source, target = layers.slots[link.source], layers.slots[link.target]
    top, bottom = bands[source.rank]
    start = (exit_x, (top + bottom + source.height) / 2)
    steps: list[Step] = [((exit_x, bottom),)]
    at = (exit_x, bottom)
    for slot in layers.passes[index]:
        x, (top, bottom) = stage.xs[slot], bands[layers.slots[slot].rank]
        enter, leave = ((x, bottom), (x, top)) if back else ((x, top), (x, bottom))
        steps += [_curve(at, enter, 1), (leave,)]
        at = leave
    top, bottom = bands[target.rank]
    steps += [_curve(at, (entry_x, top), -1), ((entry_x, (top + bottom - target.height) / 2),)]
    return Route(start, tuple(steps))


def _curve(start: Point, end: Point, turn: int) -> Step:
    """Return an S-curve through the gap between two ranks.

    If both points have the same height, return a U that goes down (``turn`` 1) or up (``turn`` -1).
    """
    (x, y), (to_x, to_y) = start, end
    if y == to_y:
        depth = min(_TURN_DEPTHS_PX[1], _TURN_DEPTHS_PX[0] + abs(to_x - x) * 0.05) * 4 / 3 * turn
        return (x, y + depth), (to_x, y + depth), end
    middle = (y + to_y) / 2
    return (x, middle), (to_x, middle), end


def _spread_ports(stage: Stage) -> tuple[list[float], list[float]]:
    """Return, for each link, the x at which the link leaves its source, and the x at which it enters its target.

    The links that leave a node are side by side, ordered by the x of their next slots. The links that enter a node are
    ordered by the x of their previous slots.
    """
    layers, xs = stage.layers, stage.xs
    leaving: dict[int, list[tuple[float, int]]] = defaultdict(list)
    arriving: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for index, link in enumerate(layers.links):
        way = [link.source, *layers.passes[index], link.target]
        leaving[link.source].append((xs[way[1]], index))
        arriving[link.target].append((xs[way[-2]], index))
    exits, entries = [0.0] * len(layers.links), [0.0] * len(layers.links)
    for sides, ports in (leaving, exits), (arriving, entries):
        for node, ends in sides.items():
            room = max(layers.slots[node].width - 2 * _CORNER_PX, layers.slots[node].width * 0.5)
            spacing = min(_PORT_SPACING_PX, room / max(1, len(ends) - 1))
            for number, (_, index) in enumerate(sorted(ends)):
                ports[index] = xs[node] + (number - (len(ends) - 1) / 2) * spacing
    return exits, entries
