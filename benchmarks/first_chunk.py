"""Time to the first chunk, warm: what a bare client takes, what litellm adds to it, and what rxflow adds to that.

All connections are open already and litellm has made its first calls, as in a program that has run for a while. The
ways take turns, and what is added is the median of the turns' differences.
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

from benchmarks.provider import BODY, opened_by_litellm, provider, text_of
from benchmarks.shapes import chain
from rxflow import LLM, Flow
from rxflow.llm import litellm_import

CHUNKS = 5
METHODS = 20
WARM_UP = 10

Way = Callable[[str], Awaitable[float]]
"""Reads one answer, and gives the seconds to its first text."""


@dataclass(frozen=True)
class First:
    """Milliseconds to the first chunk; what that is more than the bare loop's, and than litellm's, of the same turn."""

    name: str
    milliseconds: float
    beyond_bare: float
    beyond_litellm: float
    at_most: float | None
    """What ``beyond_litellm`` may be."""


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


async def _litellm(url: str) -> float:
    """litellm's request as rxflow makes it, and the lines of its response: its own stream wrapper takes 4 ms more."""
    litellm = await litellm_import.module()
    begin = time.perf_counter()
    stream = await opened_by_litellm(litellm, url, httpx.Timeout(60))
    try:
        return await _first_text(stream.response.aiter_lines(), begin)
    finally:
        await stream.close()


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


async def _measure(url: str, turns: int) -> list[First]:
    async with httpx.AsyncClient(timeout=60) as client:
        ways: dict[str, tuple[Way, float | None]] = {
            "bare httpx + json": (_bare(client), None),
            "litellm's request + json": (_litellm, None),
            "a flow of 1 async method": (_talking_first(True, 1), 2.0),
            f"a flow of {METHODS} async methods, the first speaks": (_talking_first(True, METHODS), 2.0),
            f"a chain of {METHODS} async methods, the last speaks": (
                _flow(chain(METHODS, is_async=True, speaks=METHODS - 1)),
                2.0,
            ),
            "a flow of 1 sync method": (_talking_first(False, 1), 2.0),
            f"a flow of {METHODS} sync methods, the first speaks": (_talking_first(False, METHODS), 2.0),
            f"a chain of {METHODS} sync methods, the last speaks": (
                _flow(chain(METHODS, is_async=False, speaks=METHODS - 1)),
                None,
            ),
        }
        taken: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(WARM_UP + turns):
            if turn == WARM_UP:
                gc.collect()
                gc.freeze()  # else one collection of litellm's half a million objects takes as long as a hundred ways
            # Each turn begins with another way: what one leaves behind must not always fall on the same next one.
            order = [*ways][turn % len(ways) :] + [*ways][: turn % len(ways)]
            for name in order:
                gc.collect(0 if turn < WARM_UP else 2)
                seconds = await ways[name][0](url)
                if not seconds:
                    raise RuntimeError(f"{name} got no chunk")
                if turn >= WARM_UP:
                    taken[name].append(seconds * 1000)
        gc.unfreeze()
        litellm = await litellm_import.module()
        await litellm.close_litellm_async_clients()  # it keeps one for each loop, and this loop ends
    bare, litellms, *_ = taken.values()
    return [
        First(name, statistics.median(taken[name]), _added(taken[name], bare), _added(taken[name], litellms), at_most)
        for name, (_, at_most) in ways.items()
    ]


def _added(those: list[float], floor: list[float]) -> float:
    return statistics.median(a - b for a, b in zip(those, floor, strict=True))


def measure(turns: int) -> list[First]:
    """All ways, turn by turn."""
    with provider(CHUNKS) as url:
        return asyncio.run(_measure(url, turns))


def table(firsts: list[First]) -> str:
    """What was measured, for people."""
    lines = [f"{'to the first chunk, warm':<48}{'ms':>8}{'+ bare':>9}{'+ litellm':>11}{'≤':>6}"]
    for first in firsts:
        target = "" if first.at_most is None else f"{first.at_most:.1f}"
        lines.append(
            f"{first.name:<48}{first.milliseconds:>8.2f}{first.beyond_bare:>9.2f}{first.beyond_litellm:>11.2f}"
            f"{target:>6}".rstrip()
        )
    return "\n".join(lines)
