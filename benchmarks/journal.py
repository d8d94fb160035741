"""What a journal costs: a flow of 100 methods that says 10,000 chunks, with its log in SQLite and without one.

The provider is on loopback. A run with a journal can go on after its process has died; see docs/people.md.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.provider import provider
from benchmarks.targets import Target, at_most, verdict
from rxflow import LLM, Flow
from rxflow.flow import listen, start
from rxflow.runs import Runs

METHODS = 100
CHUNKS = 10_000
RATIO = at_most(1.2)


@dataclass(frozen=True)
class Journal:
    """Seconds of a run, medians; ``ratio`` is the median of those of turns."""

    off: float
    on: float
    ratio: float
    target: Target
    is_reached: bool


def create_flow(url: str) -> Flow[Any]:
    """A chain of methods, each with one call."""
    llm = LLM("openai/gpt-4o", base_url=url, api_key="k", max_retries=0)

    def step(number: int) -> Any:
        async def method(self: Flow[Any]) -> str:
            return str(await llm.acall("Write"))

        method.__name__ = f"step_{number}"
        return start()(method) if number == 0 else listen(f"step_{number - 1}")(method)

    methods = {f"step_{number}": step(number) for number in range(METHODS)}
    flow: Flow[Any] = type("Chain", (Flow,), methods)()
    return flow


def measure(turns: int) -> Journal:
    """Take turns: without a journal, with one."""
    offs: list[float] = []
    ons: list[float] = []
    with provider(CHUNKS // METHODS) as url, tempfile.TemporaryDirectory() as folder:
        flow = create_flow(url)
        with Runs(f"sqlite:///{Path(folder, 'runs.db')}") as runs:
            for _ in range(turns + 1):
                begin = time.perf_counter()
                flow.kickoff()
                middle = time.perf_counter()
                runs.start(flow).result()
                ons.append(time.perf_counter() - middle)
                offs.append(middle - begin)
    off, on = statistics.median(offs[1:]), statistics.median(ons[1:])
    ratio = statistics.median(with_it / without for without, with_it in zip(offs[1:], ons[1:], strict=True))
    return Journal(off, on, ratio, RATIO, RATIO.is_reached(ratio))


def table(cost: Journal) -> str:
    """For people."""
    return "\n".join(
        [
            f"{f'journal: {METHODS} methods, {CHUNKS:,} chunks':<44}{'s':>12}{'target':>10}{'reached':>9}",
            f"{'without':<44}{cost.off:>12.3f}",
            f"{'with, in SQLite':<44}{cost.on:>12.3f}",
            f"{'ratio':<44}{cost.ratio:>12.2f}{verdict(cost.target, cost.ratio)}",
        ]
    )
