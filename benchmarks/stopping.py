"""How fast a stop is: what ``close()`` takes, and when the provider sees its connection closed.

A flow runs a crew, whose agent asks a provider on loopback, which holds. The tests show that each stop works; here it
is timed.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.targets import Target, at_most, verdict
from rxflow import LLM, Agent, Crew, Flow, Task
from rxflow.flow import start
from rxflow.types import FlowStreamingOutput
from tests.loopback import Loopback, Reply

SEEN = at_most(50)  # milliseconds until the provider sees it, in 99 of 100 stops
IN_MID_STREAM = Reply(text=["a", "b"], hold_after=1)
BEFORE_THE_HEADERS = Reply(hold_after=-1)


@dataclass(frozen=True)
class Stop:
    """Milliseconds from a stop to what the provider sees of it, and those that ``close()`` takes."""

    name: str
    median: float
    slowest_of_99: float
    """The 99th percentile."""
    close: float
    """The median of the calls of ``close()`` or ``aclose()``."""
    target: Target
    is_reached: bool


def _create_flow(url: str) -> Flow:
    writer = Agent(
        role="Writer", goal="Write", backstory="", llm=LLM("openai/gpt-4o", base_url=url, api_key="k", max_retries=0)
    )
    crew = Crew(agents=[writer], tasks=[Task(description="Write", expected_output="A line", agent=writer)])

    class Research(Flow):
        @start()
        async def research(self) -> Any:
            return await crew.kickoff_async()

    return Research()


def _stop_in_thread(provider: Loopback, flow: Flow) -> tuple[float, float]:
    """The moment of the stop, and the seconds of ``close()``."""
    output = flow.stream_chunks()
    reading = asyncio.to_thread(list[Any], output)

    async def main() -> tuple[float, float]:
        reader = asyncio.create_task(reading)
        await provider.until(lambda p: len(p.requests) > len(p.disconnects) and p.holding)
        at = time.monotonic()
        output.close()
        took = time.monotonic() - at
        await reader
        return at, took

    return asyncio.run(main())


def _stop_in_asyncio(provider: Loopback, flow: Flow) -> tuple[float, float]:
    async def main() -> tuple[float, float]:
        output = flow.stream_chunks()
        reader = asyncio.create_task(_read(output))
        await provider.until(lambda p: len(p.requests) > len(p.disconnects) and p.holding)
        at = time.monotonic()
        await output.aclose()
        took = time.monotonic() - at
        await reader
        return at, took

    return asyncio.run(main())


async def _read(output: FlowStreamingOutput) -> None:
    async for _ in output:
        pass


Way = Callable[[Loopback, Flow], tuple[float, float]]
WAYS: dict[str, tuple[Way, Reply]] = {
    "close() in mid-stream": (_stop_in_thread, IN_MID_STREAM),
    "close() before the headers": (_stop_in_thread, BEFORE_THE_HEADERS),
    "await aclose() in mid-stream": (_stop_in_asyncio, IN_MID_STREAM),
    "await aclose() before the headers": (_stop_in_asyncio, BEFORE_THE_HEADERS),
}


def _measure(name: str, way: Way, reply: Reply, times: int) -> Stop:
    seen: list[float] = []
    closing: list[float] = []
    with Loopback() as provider:
        flow = _create_flow(provider.url)
        for number in range(times + 1):  # the first is not counted: it imports and connects
            provider.script(reply)
            at, took = way(provider, flow)
            provider.wait_until(lambda p: len(p.disconnects) == len(p.requests) and not p.open_connections)
            if number > 0:
                seen.append((provider.disconnects[-1].at - at) * 1000)
                closing.append(took * 1000)
    slowest = sorted(seen)[min(len(seen) - 1, round(0.99 * len(seen)))]
    return Stop(name, statistics.median(seen), slowest, statistics.median(closing), SEEN, SEEN.is_reached(slowest))


def measure(times: int) -> list[Stop]:
    """Each way, ``times`` in a row."""
    return [_measure(name, way, reply, times) for name, (way, reply) in WAYS.items()]


def table(stops: list[Stop]) -> str:
    """What was measured, for people."""
    lines = [
        f"{'a stop, until the provider sees it':<40}{'ms':>8}{'99 %':>9}{'target':>10}{'reached':>9}{'close()':>9}"
    ]
    lines += [
        f"{stop.name:<40}{stop.median:>8.2f}{stop.slowest_of_99:>9.2f}"
        f"{verdict(stop.target, stop.slowest_of_99)}{stop.close:>9.2f}"
        for stop in stops
    ]
    return "\n".join(lines)
