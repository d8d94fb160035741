"""Gives each node of a drawing a rank, makes room for links that pass a rank, and orders the slots of each rank.

A rank is one row of the drawing; the top row is rank 0. A slot is the space on a rank for a node, or for a link that
passes the rank. A tie is a pair of slots on adjacent ranks: a link leads from one slot to the other.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Link:
    """A link between two nodes. ``source`` and ``target`` are the indices of the nodes.

    ``label`` is the width and height of the link's label, or None without a label.
    """

    source: int
    target: int
    label: tuple[float, float] | None = None

    @property
    def span(self) -> int:
        """The least number of ranks from ``source`` down to ``target``.

        The number is 1 without a label. With a label, the number is 2, because the label takes space on a rank in
        between. The span of a link that closes a cycle is not used, because the link leads upwards.
        """
        return 1 if self.label is None else 2


def find_back_links(count: int, links: Sequence[Link]) -> set[int]:
    """Return the indices of the links that close a cycle.

    A depth-first walk finds these links. It begins at the nodes without incoming links, and begins again at each node
    that was not reached.
    """
    leaving = _group_by_source(count, links)
    roots = sorted(range(count), key=lambda node: any(link.target == node for link in links))
    back: set[int] = set()
    seen: set[int] = set()
    for root in roots:
        if root in seen:
            continue
        seen.add(root)
        open_nodes = {root}
        walk: list[tuple[int, Iterator[int]]] = [(root, iter(leaving[root]))]
        while walk:  # an explicit stack, because a long chain would exceed the recursion limit
            node, rest = walk[-1]
            index = next(rest, None)
            if index is None:
                walk.pop()
                open_nodes.discard(node)
                continue
            target = links[index].target
            if target in open_nodes:
                back.add(index)
            elif target not in seen:
                seen.add(target)
                open_nodes.add(target)
                walk.append((target, iter(leaving[target])))
    return back


def rank_nodes(count: int, links: Sequence[Link], back: set[int]) -> list[int]:
    """Return the rank of each node: the length of the longest path that leads to the node.

    Paths do not contain the links in ``back``. The length of a link is its ``span``.
    """
    leaving = _group_by_source(count, links)
    missing = [0] * count
    for index, link in enumerate(links):
        if index not in back:
            missing[link.target] += 1
    ranks = [0] * count
    ready = [node for node in range(count) if not missing[node]]
    for node in ready:  # the loop appends to this list
        for index in leaving[node]:
            if index not in back:
                link = links[index]
                ranks[link.target] = max(ranks[link.target], ranks[node] + link.span)
                missing[link.target] -= 1
                if not missing[link.target]:
                    ready.append(link.target)
    return ranks


def _group_by_source(count: int, links: Sequence[Link]) -> list[list[int]]:
    leaving: list[list[int]] = [[] for _ in range(count)]
    for index, link in enumerate(links):
        leaving[link.source].append(index)
    return leaving


_PASSING_PX = 12.0


@dataclass(frozen=True, slots=True)
class Slot:
    """The space on a rank for a node, or for a link that passes the rank. ``is_node`` is True for a node."""

    rank: int
    width: float
    height: float
    is_node: bool


@dataclass(frozen=True, slots=True)
class Layers:
    """The slots of all ranks, and the ties between them.

    ``slots`` begins with the nodes, so that a node and its slot have the same index. ``back`` has the indices of the
    links that close a cycle. For each link, ``passes`` has the indices of the slots that the link passes, and
    ``label_slots`` has the index of the slot for its label, or None without a label. A tie is a pair of slots: first
    the upper slot, then the lower one.

    A link that closes a cycle leads upwards. It leaves its source downwards like any other link, turns up beside the
    source, and turns down again above its target. So it also passes the ranks of these two nodes. For this link,
    ``beside`` has two pairs: the first passed slot with the source, and the last passed slot with the target.
    """

    slots: list[Slot]
    links: Sequence[Link]
    back: set[int]
    passes: list[list[int]]
    label_slots: list[int | None]
    ties: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    beside: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])

    @property
    def depth(self) -> int:
        """The number of ranks."""
        return 1 + max((slot.rank for slot in self.slots), default=-1)


def build_layers(sizes: Sequence[tuple[float, float]], links: Sequence[Link]) -> Layers:
    """Return the layers of a drawing: a rank for each node, and slots for the links that pass a rank.

    ``sizes`` has the width and height of each node.
    """
    back = find_back_links(len(sizes), links)
    ranks = rank_nodes(len(sizes), links, back)
    slots = [Slot(rank, *size, is_node=True) for rank, size in zip(ranks, sizes, strict=True)]
    layers = Layers(slots, links, back, passes=[], label_slots=[])
    for index, link in enumerate(links):
        _add_passing_slots(layers, link, leads_back=index in back)
    return layers


def _add_passing_slots(layers: Layers, link: Link, *, leads_back: bool) -> None:
    source, target = layers.slots[link.source].rank, layers.slots[link.target].rank
    passed = range(source, target - 1, -1) if leads_back else range(source + 1, target)
    first = len(layers.slots)
    for rank in passed:
        width, height = _PASSING_PX, 0.0
        if link.label is not None and rank == passed[0]:
            width, height = link.label
        layers.slots.append(Slot(rank, width, height, is_node=False))
    chain = list(range(first, len(layers.slots)))
    layers.passes.append(chain)
    layers.label_slots.append(first if link.label is not None else None)
    if leads_back:
        layers.ties.extend((upper, lower) for lower, upper in pairwise(chain))
        layers.beside.extend([(chain[0], link.source), (chain[-1], link.target)])
    else:
        chain_with_ends = [link.source, *chain, link.target]
        layers.ties.extend(pairwise(chain_with_ends))


_MAX_SWEEPS = 16


def order_slots(layers: Layers) -> list[list[int]]:
    """Return the slots of each rank, ordered from left to right so that few ties cross.

    A sweep goes through all ranks, and sorts the slots of each rank by the mean position of their neighbours (the
    barycentre method). The neighbours of a slot are tied to it, and are on the rank that was sorted just before. The
    first sweep goes down, the second goes up, and so on. The best of all orders is returned.
    """
    above: dict[int, list[int]] = defaultdict(list)
    below: dict[int, list[int]] = defaultdict(list)
    for upper, lower in layers.ties:
        above[lower].append(upper)
        below[upper].append(lower)
    best = _walk_down(layers, below)
    least = _count_disorder(layers, best, below)
    for side in (0.5, -0.5) if layers.beside else (0.5,):
        order = best
        for sweep in range(_MAX_SWEEPS):
            if not least:
                return best
            downwards = sweep % 2 == 0
            order = _sweep(layers, order, above if downwards else below, side, downwards=downwards)
            disorder = _count_disorder(layers, order, below)
            if disorder < least:
                best, least = order, disorder
    return best


def _walk_down(layers: Layers, below: dict[int, list[int]]) -> list[list[int]]:
    """Return the slots of each rank in the order in which a depth-first walk from the top reaches them.

    This order keeps branches apart.
    """
    order: list[list[int]] = [[] for _ in range(layers.depth)]
    turns: dict[int, list[int]] = defaultdict(list)
    for turn, node in layers.beside:
        turns[node].append(turn)
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
            walk += [*reversed(turns[slot]), *reversed(below[slot])]
    return order


def _sweep(
    layers: Layers, order: list[list[int]], neighbours: dict[int, list[int]], side: float, *, downwards: bool
) -> list[list[int]]:
    swept = [list(rank) for rank in order]
    beside = dict(layers.beside)
    for rank in range(len(order)) if downwards else reversed(range(len(order))):
        positions = {slot: index for rank_order in swept for index, slot in enumerate(rank_order)}
        wishes: dict[int, float] = {}
        for slot in swept[rank]:
            near = neighbours[slot]
            wishes[slot] = sum(positions[other] for other in near) / len(near) if near else positions[slot]
        for slot in swept[rank]:
            if slot in beside and not neighbours[slot]:
                wishes[slot] = wishes[beside[slot]] + side
        swept[rank].sort(key=lambda slot: wishes[slot])
    return swept


def _count_disorder(layers: Layers, order: list[list[int]], below: dict[int, list[int]]) -> int:
    """Return a measure of the disorder in ``order``; 0 is the best.

    The measure is twice the number of crossings of ties. For each pair in ``layers.beside``, the number of slots
    between the two slots is added.
    """
    positions = {slot: index for rank in order for index, slot in enumerate(rank)}
    crossings = 0
    for rank in order:
        met: list[int] = []
        for slot in rank:
            ends = sorted(positions[lower] for lower in below[slot])
            crossings += sum(len(met) - bisect_right(met, end) for end in ends)
            for end in ends:
                insort(met, end)
    return 2 * crossings + sum(abs(positions[turn] - positions[node]) - 1 for turn, node in layers.beside)
