"""How far right each slot stands: as straight above its neighbours as the order and the widths allow."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from rxflow.flow.drawing.layers import Layers
from rxflow.flow.drawing.straight import straighten

_SPACING = 28.0
_LANE_SPACING = 16.0
_SWEEPS = 40
_STILL = 0.1


def columns(layers: Layers, order: Sequence[Sequence[int]]) -> list[float]:
    """The middle of each slot. Each sweep shortens the squared length of all ties, so it settles at the least."""
    xs = [0.0] * len(layers.slots)
    for rank in order:
        _settle(rank, [(0.0, 1.0)] * len(rank), layers, xs)
    pulls = _pulls(layers, order)
    for _ in range(_SWEEPS):
        moved = 0.0
        for rank in [*order, *reversed(order)]:
            wishes: list[tuple[float, float]] = []
            for slot in rank:
                weight = sum(pull for _, pull, _ in pulls[slot])
                wish = sum((xs[other] + offset) * pull for other, pull, offset in pulls[slot])
                wishes.append((wish / weight, weight) if weight else (xs[slot], 0.1))
            moved = max(moved, _settle(rank, wishes, layers, xs))
        if moved < _STILL:
            break
    for _ in range(2):  # what has moved may have made room
        straighten(layers, order, xs, partial(_apart, layers))
    return xs


def _pulls(layers: Layers, order: Sequence[Sequence[int]]) -> list[list[tuple[int, float, float]]]:
    """What pulls at each slot: another slot, how strongly, and how far beside that it wants to be."""
    pulls: list[list[tuple[int, float, float]]] = [[] for _ in layers.slots]
    for upper, lower in layers.ties:
        nodes = layers.slots[upper].is_node + layers.slots[lower].is_node
        pull = (8.0, 1.0, 2.0)[nodes]  # a long link bends best at its ends
        pulls[upper].append((lower, pull, 0.0))
        pulls[lower].append((upper, pull, 0.0))
    places = {slot: place for rank in order for place, slot in enumerate(rank)}
    for lane, node in layers.beside:
        side = 1 if places[lane] > places[node] else -1
        pulls[lane].append((node, 1.0, side * _apart(layers, lane, node)))
    return pulls


def _apart(layers: Layers, one: int, other: int) -> float:
    left, right = layers.slots[one], layers.slots[other]
    spacing = _SPACING if left.is_node and right.is_node else _LANE_SPACING
    return (left.width + right.width) / 2 + spacing


def _settle(rank: Sequence[int], wishes: Sequence[tuple[float, float]], layers: Layers, xs: list[float]) -> float:
    """Put a rank's slots where they wish to be, as nearly as they do not overlap; the longest move.

    Least squares under an order: neighbours whose wishes collide form a block, which stands at their weighted mean.
    """
    blocks: list[tuple[float, float, list[int]]] = []  # mean, weight, slots
    shifts: dict[int, float] = {}
    shift = 0.0
    for place, slot in enumerate(rank):
        if place:
            shift += _apart(layers, rank[place - 1], slot)
        shifts[slot] = shift
        wish, weight = wishes[place]
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
