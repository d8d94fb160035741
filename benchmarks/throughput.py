"""Chunks a second of flow → crew → LLM → loop, beside a bare httpx + json loop on the same server.

The ways take turns, and a ratio is the median of the turns' ratios: machines are noisy, and drift.
"""

from __future__ import annotations

import asyncio
import gc
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx

from benchmarks.provider import provider
from rxflow import LLM, Agent, Crew, Flow, Task
from rxflow import operators as ops
from rxflow.flow import start
from rxflow.tools import tool

_MODEL = "openai/gpt-4o"


@dataclass(frozen=True)
class Rate:
    """Chunks a second of one way of reading, and its median ratio to the bare loop of the same turn."""

    name: str
    chunks_per_second: float
    ratio: float
    must_reach: float | None


class Reading(Flow):
    """A flow of one sync method, whose crew has one task."""

    stream = True
    base_url: str
    asks_first = False

    @start()
    def read(self) -> str:
        reader = Agent(
            role="Reader",
            goal="Read",
            backstory="Reads",
            llm=LLM(_MODEL, base_url=self.base_url, api_key="none"),
            tools=[look] if self.asks_first else [],
        )
        task = Task(name="reading", description="Read it all", expected_output="All of it", agent=reader)
        return str(Crew(agents=[reader], tasks=[task]).kickoff())


@tool
def look() -> str:
    """Look where it is."""
    return "here"


def _flow(url: str) -> Reading:
    flow = Reading()
    flow.base_url = url
    return flow


async def bare_loop(url: str) -> int:
    """What a program would do that has nothing but an HTTP client."""
    texts: list[str] = []
    body = {"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "Read it all"}]}
    async with (
        httpx.AsyncClient(timeout=60) as client,
        client.stream("POST", f"{url}/chat/completions", json=body) as response,
    ):
        async for line in response.aiter_lines():
            if line.startswith("data: ") and line != "data: [DONE]":
                choices = json.loads(line[6:])["choices"]
                if choices and (text := choices[0]["delta"].get("content")):
                    texts.append(text)
    return len(texts)


async def for_loop(url: str) -> int:
    """A plain ``for`` over a flow."""
    return sum(1 for _ in _flow(url).kickoff())


async def async_for_loop(url: str) -> int:
    """``async for`` over a flow."""
    count = 0
    async for _ in await _flow(url).kickoff_async():
        count += 1
    return count


async def with_a_tool_call(url: str) -> int:
    """A plain ``for``; the model calls a sync tool first, which is a request and a thread more."""
    flow = _flow(url)
    flow.asks_first = True
    return sum(1 for chunk in flow.kickoff() if chunk.tool_call is None)


async def with_two_operators(url: str) -> int:
    """A subscription behind two operators that look at each chunk."""
    count = 0
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_next(_: object) -> None:
        nonlocal count
        count += 1

    _flow(url).observe().pipe(ops.only_agent("Reader"), ops.text()).subscribe(
        on_next, ended.set_exception, lambda: ended.set_result(None)
    )
    await ended
    return count


WAYS: dict[Callable[[str], Awaitable[int]], float | None] = {
    bare_loop: None,
    for_loop: 0.9,
    async_for_loop: 0.8,
    with_a_tool_call: 0.8,
    with_two_operators: 0.8,
}
"""The floor first; then what is held against it, with the ratio that it must reach."""


def timed(read: Callable[[str], Awaitable[int]], url: str, expected: int) -> float:
    """Chunks a second of one reading. RuntimeError where it did not read all."""
    gc.collect()

    async def measured() -> tuple[int, float]:
        begin = time.perf_counter()
        count = await read(url)
        return count, time.perf_counter() - begin

    count, seconds = asyncio.run(measured())
    if count != expected:
        raise RuntimeError(f"{read.__name__} read {count} chunks of {expected}")
    return expected / seconds


def measure(chunks: int, turns: int) -> list[Rate]:
    """All ways of reading, after one turn to warm up."""
    rates: dict[str, list[float]] = {way.__name__: [] for way in WAYS}
    with provider(chunks) as url:
        for turn in range(turns + 1):
            for way in WAYS:
                rate = timed(way, url, chunks)
                if turn:
                    rates[way.__name__].append(rate)
    floor = rates[bare_loop.__name__]
    return [
        Rate(
            way.__name__,
            statistics.median(rates[way.__name__]),
            statistics.median(a / b for a, b in zip(rates[way.__name__], floor, strict=True)),
            must_reach,
        )
        for way, must_reach in WAYS.items()
    ]


def table(rates: list[Rate], chunks: int) -> str:
    """What was measured, for people."""
    lines = [f"{f'reading a stream of {chunks:,} chunks':<44}{'chunks/s':>12}{'ratio':>8}{'≥':>6}"]
    for rate in rates:
        target = "" if rate.must_reach is None else f"{rate.must_reach:.1f}"
        lines.append(f"{rate.name:<44}{rate.chunks_per_second:>12,.0f}{rate.ratio:>8.2f}{target:>6}".rstrip())
    return "\n".join(lines)
