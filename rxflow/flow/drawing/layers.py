"""The ranks filled: nodes, and for each link a stand-in on every rank that it passes, so that it has room there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from rxflow.flow.drawing.ranks import Link, links_back, ranks_of

_LANE = 12.0


@dataclass(frozen=True, slots=True)
class Slot:
    """Room on a rank: a node's (``is_node``), or that of a link which passes."""

    rank: int
    width: float
    height: float
    is_node: bool


@dataclass(frozen=True, slots=True)
class Layers:
    """``slots`` holds the nodes first, under their own numbers. Ties run between slots of neighbouring ranks.

    A link that leads back leaves its source downwards like any other, turns up beside it, and turns down again above
    its target. So it passes the ranks of both; ``beside`` says next to which node its first and last slots belong.
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
        """How many ranks there are."""
        return 1 + max((slot.rank for slot in self.slots), default=-1)


def layers_of(sizes: Sequence[tuple[float, float]], links: Sequence[Link]) -> Layers:
    """The layers of nodes with these widths and heights."""
    back = links_back(len(sizes), links)
    ranks = ranks_of(len(sizes), links, back)
    slots = [Slot(rank, *size, is_node=True) for rank, size in zip(ranks, sizes, strict=True)]
    layers = Layers(slots, links, back, passes=[], label_slots=[])
    for place, link in enumerate(links):
        _pass(layers, link, leads_back=place in back)
    return layers


def _pass(layers: Layers, link: Link, *, leads_back: bool) -> None:
    source, target = layers.slots[link.source].rank, layers.slots[link.target].rank
    passed = range(source, target - 1, -1) if leads_back else range(source + 1, target)
    first = len(layers.slots)
    for rank in passed:
        width, height = _LANE, 0.0
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
        whole = [link.source, *chain, link.target]
        layers.ties.extend(pairwise(whole))
