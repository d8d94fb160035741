"""Time from a request to its first chunk, warm: what a bare client takes, and what rxflow adds to that.

All connections are open already, as in a program that has run for a while. The ways take turns. The first figure is of
programs as they are: the collector is Python's default, and the mean is that of all turns. The second is the median of
the turns' differences, each way after a collection and with what is old frozen.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx

from benchmarks.provider import BODY, provider, text_of
from benchmarks.shapes import chain
from benchmarks.targets import Target, at_most, verdict
from rxflow import LLM, Flow

CHUNKS = 5
METHODS = 20
WARM_UP = 10
BARE = "bare httpx + json"

Way = Callable[[str], Awaitable[float]]
"""Reads one answer, and gives the seconds to its first text."""


@dataclass(frozen=True)
class First:
    """Milliseconds to the first chunk, and how many of them are beyond the bare loop's."""

    name: str
    milliseconds: float
    beyond_bare: float
    """The difference of the means over all turns, with the collector as it is."""
    collected_beyond_bare: float
    """The median difference, each turn after a collection."""
    target: Target | None
    is_reached: bool | None


async def _first_text(lines: Any, begin: float) -> float:
    """Reads on to the end, so that the connection can be used again."""
    taken = 0.0
    async for line in lines:
        if not taken and text_of(line):
            taken = time.perf_counter() - begin
    return taken


def _bare(client: httpx.AsyncClient) -> Way:
    async def read(url: str) -> float:
        begin = time.perf_counter()
        async with client.stream("POST", f"{url}/chat/completions", json=BODY) as response:
            return await _first_text(response.aiter_lines(), begin)

    return read


def _flow(make: Callable[[LLM], Flow]) -> Way:
    async def read(url: str) -> float:
        flow = make(LLM("openai/gpt-4o", base_url=url, api_key="none"))
        taken = 0.0
        begin = time.perf_counter()
        async for _ in await flow.kickoff_async():
            taken = taken or time.perf_counter() - begin
        return taken

    return read


def _talking_first(is_async: bool, methods: int) -> Way:
    return _flow(chain(methods, is_async=is_async, speaks=0))


def _ways(client: httpx.AsyncClient) -> dict[str, tuple[Way, Target | None]]:
    last_async = _flow(chain(METHODS, is_async=True, speaks=METHODS - 1))
    last_sync = _flow(chain(METHODS, is_async=False, speaks=METHODS - 1))
    return {
        BARE: (_bare(client), None),
        "a flow of 1 async method": (_talking_first(True, 1), at_most(0.8)),
        f"a flow of {METHODS} async methods, the first speaks": (_talking_first(True, METHODS), at_most(0.8)),
        f"a chain of {METHODS} async methods, the last speaks": (last_async, None),
        "a flow of 1 sync method": (_talking_first(False, 1), None),
        f"a flow of {METHODS} sync methods, the first speaks": (_talking_first(False, METHODS), None),
        f"a chain of {METHODS} sync methods, the last speaks": (last_sync, None),
    }


async def _take_turns(ways: dict[str, Way], url: str, turns: int, *, collects: bool) -> dict[str, list[float]]:
    """Milliseconds of each way, by turns."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for turn in range(turns):
        # Each turn begins with another way: what one leaves behind must not always fall on the same next one.
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            if collects:
                gc.collect()
            seconds = await ways[name](url)
            if not seconds:
                raise RuntimeError(f"{name} got no chunk")
            taken[name].append(seconds * 1000)
    return taken


async def _measure(url: str, turns: int) -> list[First]:
    async with httpx.AsyncClient(timeout=60) as client:
        targets = {name: target for name, (_, target) in _ways(client).items()}
        ways = {name: way for name, (way, _) in _ways(client).items()}
        await _take_turns(ways, url, WARM_UP, collects=False)
        taken = await _take_turns(ways, url, turns, collects=False)
        gc.collect()
        gc.freeze()
        collected = await _take_turns(ways, url, turns, collects=True)
        gc.unfreeze()
    floor = statistics.fmean(taken[BARE])
    firsts: list[First] = []
    for name, target in targets.items():
        beyond = statistics.fmean(taken[name]) - floor
        median = statistics.median(ours - bare for ours, bare in zip(collected[name], collected[BARE], strict=True))
        is_reached = None if target is None else target.is_reached(beyond)
        firsts.append(First(name, statistics.fmean(taken[name]), beyond, median, target, is_reached))
    return firsts


def measure(turns: int) -> list[First]:
    """All ways, turn by turn."""
    with provider(CHUNKS) as url:
        return asyncio.run(_measure(url, turns))


def table(firsts: list[First]) -> str:
    """What was measured, for people."""
    lines = [f"{'request to first chunk, warm':<48}{'ms':>8}{'+ bare':>9}{'target':>10}{'reached':>9}{'after gc':>10}"]
    lines += [
        f"{first.name:<48}{first.milliseconds:>8.2f}{first.beyond_bare:>9.2f}"
        f"{verdict(first.target, first.beyond_bare)}{first.collected_beyond_bare:>10.2f}"
        for first in firsts
    ]
    return "\n".join(lines)
