"""Chunks a second of flow → crew → LLM → loop, beside a bare httpx + json loop on the same server, on each wire.

The ways take turns. The first figure is of programs as they are: the collector is Python's default, nothing is
collected in between, and the times of all turns are added up. The second is the median of the turns' ratios with a
collection before each turn: it leaves out what the collector costs.
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
from benchmarks.targets import Target, at_least, verdict
from benchmarks.wires import WIRES, Wire
from rxflow import LLM, Agent, Crew, Flow, Task, operators as ops
from rxflow.flow import start
from rxflow.tools import tool

Way = Callable[[str], Awaitable[int]]
"""Reads one stream at a base URL to its end, and gives the number of its chunks."""


@dataclass(frozen=True)
class Rate:
    """Chunks a second of one way of reading, and what that is of the bare loop's."""

    name: str
    chunks_per_second: float
    ratio: float
    """Of the sums over all turns, with the collector as it is."""
    collected_ratio: float
    """The median of the turns, each after a collection."""
    target: Target | None
    is_reached: bool | None


class Reading(Flow):
    """A flow of one sync method, whose crew has one task."""

    stream = True
    base_url: str
    model = "openai/gpt-4o"
    asks_first = False

    @start()
    def read(self) -> str:
        reader = Agent(
            role="Reader",
            goal="Read",
            backstory="Reads",
            llm=LLM(self.model, base_url=self.base_url, api_key="none"),
            tools=[look] if self.asks_first else [],
        )
        task = Task(name="reading", description="Read it all", expected_output="All of it", agent=reader)
        return str(Crew(agents=[reader], tasks=[task]).kickoff())


@tool
def look() -> str:
    """Look where it is."""
    return "here"


def _flow(url: str, wire: Wire | None = None) -> Reading:
    flow = Reading()
    flow.base_url = url
    if wire is not None:
        flow.model, flow.base_url = wire.model, wire.base_url(url)
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


def for_loop(wire: Wire | None = None) -> Way:
    """A plain ``for`` over a flow."""

    async def read(url: str) -> int:
        return sum(1 for _ in _flow(url, wire).kickoff())

    return read


def async_for_loop(wire: Wire | None = None) -> Way:
    """``async for`` over a flow."""

    async def read(url: str) -> int:
        return sum([1 async for _ in await _flow(url, wire).kickoff_async()])

    return read


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


WAYS: dict[str, tuple[Way, Target | None]] = {
    "bare httpx + json loop": (bare_loop, None),
    "for": (for_loop(), at_least(0.9)),
    "async for": (async_for_loop(), at_least(0.9)),
    "for, after a tool call": (with_a_tool_call, at_least(0.8)),
    "observe().pipe(only_agent(…), text())": (with_two_operators, at_least(0.8)),
}
"""The floor first; then what is held against it, with the ratio that it must reach."""


def measure(chunks: int, turns: int) -> list[Rate]:
    """All ways of reading an OpenAI-compatible server."""
    with provider(chunks) as url:
        return _compare(WAYS, url, chunks, turns)


def measure_wires(chunks: int, turns: int) -> list[Rate]:
    """``for`` and ``async for`` on each of the other wires, beside a bare loop on that wire."""
    rates: list[Rate] = []
    for wire in WIRES:
        ways: dict[str, tuple[Way, Target | None]] = {
            f"{wire.name}: bare httpx + json loop": (wire.read_bare, None),
            f"{wire.name}: for": (for_loop(wire), at_least(0.5)),
            f"{wire.name}: async for": (async_for_loop(wire), at_least(0.5)),
        }
        with provider(chunks) as url:
            rates += _compare(ways, url, chunks, turns)
    return rates


def _compare(ways: dict[str, tuple[Way, Target | None]], url: str, chunks: int, turns: int) -> list[Rate]:
    """The ways by turns, after one turn to warm up; the first of them is the floor."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    collected: dict[str, list[float]] = {name: [] for name in ways}
    for name, (way, _) in ways.items():
        _timed(name, way, url, chunks)
    for _ in range(turns):
        for name, (way, _) in ways.items():
            taken[name].append(_timed(name, way, url, chunks))
    for _ in range(turns):
        for name, (way, _) in ways.items():
            gc.collect()
            collected[name].append(_timed(name, way, url, chunks))
    floor = next(iter(ways))
    rates: list[Rate] = []
    for name, (_, target) in ways.items():
        ratio = sum(taken[floor]) / sum(taken[name])
        collected_ratio = statistics.median(
            bare / seconds for bare, seconds in zip(collected[floor], collected[name], strict=True)
        )
        is_reached = None if target is None else target.is_reached(ratio)
        rates.append(Rate(name, chunks * turns / sum(taken[name]), ratio, collected_ratio, target, is_reached))
    return rates


def _timed(name: str, way: Way, url: str, expected: int) -> float:
    """Seconds of one reading. RuntimeError if it did not read all."""

    async def measured() -> tuple[int, float]:
        begin = time.perf_counter()
        count = await way(url)
        return count, time.perf_counter() - begin

    count, seconds = asyncio.run(measured())
    if count != expected:
        raise RuntimeError(f"{name} read {count} chunks of {expected}")
    return seconds


def table(rates: list[Rate], chunks: int) -> str:
    """What was measured, for people."""
    title = f"reading a stream of {chunks:,} chunks"
    lines = [f"{title:<44}{'chunks/s':>10}{'ratio':>8}{'target':>10}{'reached':>9}{'after gc':>10}"]
    lines += [
        f"{rate.name:<44}{rate.chunks_per_second:>10,.0f}{rate.ratio:>8.2f}{verdict(rate.target, rate.ratio)}"
        f"{rate.collected_ratio:>10.2f}"
        for rate in rates
    ]
    return "\n".join(lines)
