"""What runs on without branching is put on one vertical line, as far as its neighbours leave room."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import inf

from rxflow.flow.drawing.layers import Layers


def straighten(
    layers: Layers, order: Sequence[Sequence[int]], xs: list[float], apart: Callable[[int, int], float]
) -> None:
    """Move the slots of each thread in ``xs`` to common columns: few bends instead of one at each rank."""
    left: dict[int, int] = {}
    right: dict[int, int] = {}
    for rank in order:
        for one, other in pairwise(rank):
            right[one], left[other] = other, one
    for thread in _threads(layers):
        run: list[int] = []
        low, high = -inf, inf
        for slot in thread:
            lowest = xs[left[slot]] + apart(left[slot], slot) if slot in left else -inf
            highest = xs[right[slot]] - apart(slot, right[slot]) if slot in right else inf
            if max(low, lowest) > min(high, highest):
                _align(run, low, high, xs)
                run, low, high = [], -inf, inf
            run.append(slot)
            low, high = max(low, lowest), min(high, highest)
        _align(run, low, high, xs)


def _threads(layers: Layers) -> list[list[int]]:
    """The longest ways on which nothing else joins and nothing else leaves; the longest first."""
    leaving = Counter(upper for upper, _ in layers.ties)
    arriving = Counter(lower for _, lower in layers.ties)
    onward = {upper: lower for upper, lower in layers.ties if leaving[upper] == 1 == arriving[lower]}
    reached = set(onward.values())
    threads: list[list[int]] = []
    for slot in onward:
        if slot not in reached:
            thread = [slot]
            while thread[-1] in onward:
                thread.append(onward[thread[-1]])
            threads.append(thread)
    return sorted(threads, key=len, reverse=True)


def _align(run: Sequence[int], low: float, high: float, xs: list[float]) -> None:
    if run:
        middle = min(max(sum(xs[slot] for slot in run) / len(run), low), high)
        for slot in run:
            xs[slot] = middle
