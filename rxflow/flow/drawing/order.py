"""In which order the slots of a rank stand: swept up and down by barycentres, keeping what crosses least."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict

from rxflow.flow.drawing.layers import Layers

_SWEEPS = 16


def ordered(layers: Layers) -> list[list[int]]:
    """The slots of each rank, from left to right."""
    above: dict[int, list[int]] = defaultdict(list)
    below: dict[int, list[int]] = defaultdict(list)
    for upper, lower in layers.ties:
        above[lower].append(upper)
        below[upper].append(lower)
    best = _walked(layers, below)
    least = _disorder(layers, best, below)
    for side in (0.5, -0.5) if layers.beside else (0.5,):
        order = best
        for sweep in range(_SWEEPS):
            if not least:
                return best
            downwards = sweep % 2 == 0
            order = _swept(layers, order, above if downwards else below, side, downwards=downwards)
            disorder = _disorder(layers, order, below)
            if disorder < least:
                best, least = order, disorder
    return best


def _walked(layers: Layers, below: dict[int, list[int]]) -> list[list[int]]:
    """As met when walking down from the top, each branch to its end: it keeps branches apart."""
    order: list[list[int]] = [[] for _ in range(layers.depth)]
    lanes: dict[int, list[int]] = defaultdict(list)
    for lane, node in layers.beside:
        lanes[node].append(lane)
    seen: set[int] = set()
    slots = sorted(range(len(layers.slots)), key=lambda slot: (not layers.slots[slot].is_node, layers.slots[slot].rank))
    for root in slots:
        walk = [root]
        while walk:
            slot = walk.pop()
            if slot in seen:
                continue
            seen.add(slot)
            order[layers.slots[slot].rank].append(slot)
            walk += [*reversed(lanes[slot]), *reversed(below[slot])]
    return order


def _swept(
    layers: Layers, order: list[list[int]], neighbours: dict[int, list[int]], side: float, *, downwards: bool
) -> list[list[int]]:
    swept = [list(rank) for rank in order]
    beside = dict(layers.beside)
    for rank in range(len(order)) if downwards else reversed(range(len(order))):
        places = {slot: place for rank_order in swept for place, slot in enumerate(rank_order)}
        wishes: dict[int, float] = {}
        for slot in swept[rank]:
            near = neighbours[slot]
            wishes[slot] = sum(places[other] for other in near) / len(near) if near else places[slot]
        for slot in swept[rank]:
            if slot in beside and not neighbours[slot]:
                wishes[slot] = wishes[beside[slot]] + side
        swept[rank].sort(key=lambda slot: wishes[slot])
    return swept


def _disorder(layers: Layers, order: list[list[int]], below: dict[int, list[int]]) -> int:
    """How many ties cross, and how far the links that lead back turn away from their nodes."""
    places = {slot: place for rank in order for place, slot in enumerate(rank)}
    crossings = 0
    for rank in order:
        met: list[int] = []
        for slot in rank:
            ends = sorted(places[lower] for lower in below[slot])
            crossings += sum(len(met) - bisect_right(met, end) for end in ends)
            for end in ends:
                insort(met, end)
    return 2 * crossings + sum(abs(places[lane] - places[node]) - 1 for lane, node in layers.beside)
