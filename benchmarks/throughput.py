"""Chunks a second of flow → crew → LLM → loop, beside a bare httpx + json loop on the same server.

The two take turns, and the ratio is the median of the turns' ratios: machines are noisy, and drift.
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
from rxflow.flow import start

_MODEL = "openai/gpt-4o"


@dataclass(frozen=True)
class Rate:
    """Chunks a second of one way of reading, and its median ratio to the bare loop of the same turn."""

    name: str
    chunks_per_second: float
    ratio: float


class Reading(Flow):
    """A flow of one sync method, whose crew has one task."""

    stream = True
    base_url: str

    @start()
    def read(self) -> str:
        reader = Agent(
            role="Reader", goal="Read", backstory="Reads", llm=LLM(_MODEL, base_url=self.base_url, api_key="none")
        )
        task = Task(description="Read it all", expected_output="All of it", agent=reader)
        return str(Crew(agents=[reader], tasks=[task]).kickoff())


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


def _timed(read: Callable[[str], Awaitable[int]], url: str, expected: int) -> float:
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
    ways = [bare_loop, for_loop, async_for_loop]
    rates: dict[str, list[float]] = {way.__name__: [] for way in ways}
    with provider(chunks) as url:
        for turn in range(turns + 1):
            for way in ways:
                rate = _timed(way, url, chunks)
                if turn:
                    rates[way.__name__].append(rate)
    floor = rates[bare_loop.__name__]
    return [
        Rate(name, statistics.median(those), statistics.median(a / b for a, b in zip(those, floor, strict=True)))
        for name, those in rates.items()
    ]
