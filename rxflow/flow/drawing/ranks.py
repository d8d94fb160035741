"""On which rank each node stands: under everything that leads to it, once the links that lead back are set aside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Link:
    """From one node to another, by number; ``label`` is the width and height of what it carries along."""

    source: int
    target: int
    label: tuple[float, float] | None = None

    @property
    def span(self) -> int:
        """How many ranks it needs at least: a label stands on a rank of its own."""
        return 1 if self.label is None else 2


def links_back(count: int, links: Sequence[Link]) -> set[int]:
    """The places of the links that close a cycle, as met when walking on from where nothing leads to."""
    leaving = _leaving(count, links)
    roots = sorted(range(count), key=lambda node: any(link.target == node for link in links))
    back: set[int] = set()
    seen: set[int] = set()
    for root in roots:
        if root in seen:
            continue
        seen.add(root)
        open_nodes = {root}
        walk: list[tuple[int, Iterator[int]]] = [(root, iter(leaving[root]))]
        while walk:  # a stack of its own: a long chain would exceed the interpreter's
            node, rest = walk[-1]
            place = next(rest, None)
            if place is None:
                walk.pop()
                open_nodes.discard(node)
                continue
            target = links[place].target
            if target in open_nodes:
                back.add(place)
            elif target not in seen:
                seen.add(target)
                open_nodes.add(target)
                walk.append((target, iter(leaving[target])))
    return back


def ranks_of(count: int, links: Sequence[Link], back: set[int]) -> list[int]:
    """The rank of each node: the longest way to it, not counting the links ``back``."""
    leaving = _leaving(count, links)
    missing = [0] * count
    for place, link in enumerate(links):
        if place not in back:
            missing[link.target] += 1
    ranks = [0] * count
    ready = [node for node in range(count) if not missing[node]]
    for node in ready:  # grows while it is walked
        for place in leaving[node]:
            if place not in back:
                link = links[place]
                ranks[link.target] = max(ranks[link.target], ranks[node] + link.span)
                missing[link.target] -= 1
                if not missing[link.target]:
                    ready.append(link.target)
    return ranks


def _leaving(count: int, links: Sequence[Link]) -> list[list[int]]:
    leaving: list[list[int]] = [[] for _ in range(count)]
    for place, link in enumerate(links):
        leaving[link.source].append(place)
    return leaving
