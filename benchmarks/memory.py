"""Memory: of a flow that waits for its model, and of a chunk that an output keeps; and that nothing is left after.

Each kind is measured in a process of its own, once by tracemalloc and once by what the system says. By tracemalloc for
a number of them and for twice that number: what one takes is the difference divided by the number, so that what is
paid once is not in it, and the growth says whether the second half takes as much as the first.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.provider import provider
from benchmarks.shapes import chain
from benchmarks.targets import Target, at_most, verdict
from rxflow import LLM
from rxflow.testing.leaks import assert_nothing_is_left
from rxflow.types.streaming import FlowStreamingOutput

FLOWS = 100
CHUNKS = 20_000
_PAGES = Path("/proc/self/statm")
_PAGE = 4096
_CHAINS = {is_async: chain(1, is_async=is_async, speaks=0) for is_async in (True, False)}  # two classes, many flows


@dataclass(frozen=True)
class Seen:
    """Bytes beyond those before: while so many stood, while twice as many did, and what another such round left."""

    held: int
    held_twice: int
    left: int


@dataclass(frozen=True)
class Memory:
    """Bytes that one takes: by tracemalloc, and of the process (None where the system does not say)."""

    name: str
    count: int
    traced: float
    growth: float
    """What twice as many take, of what so many take; 2 where it is linear."""
    left: float
    """Bytes of each that a second round of as many leaves: tables stay as large as they have once been."""
    resident: float | None
    target: Target | None
    is_reached: bool | None


Hold = Callable[[int], Awaitable[list[FlowStreamingOutput]]]


def _used(is_traced: bool) -> int:
    gc.collect()
    if is_traced:
        return tracemalloc.get_traced_memory()[0]
    return int(_PAGES.read_text(encoding="ascii").split()[1]) * _PAGE


async def _seen(hold: Hold, count: int, is_traced: bool) -> Seen:
    await _let_go(await hold(1))
    if is_traced:
        tracemalloc.start()
    before = _used(is_traced)
    held: dict[int, int] = {}
    left = [0]
    # When the system is asked there is one round only: it lends again what was given back.
    for many in (count, 2 * count, 2 * count) if is_traced else (2 * count,):
        outputs = await hold(many)
        held[many] = _used(is_traced) - before
        await _let_go(outputs)
        left.append(_used(is_traced) - before)
    return Seen(held.get(count, 0), held[2 * count], left[-1] - left[-2])


async def _let_go(outputs: list[FlowStreamingOutput]) -> None:
    while outputs:
        await outputs.pop().aclose()
    await asyncio.to_thread(assert_nothing_is_left)  # what has been told to stop is on its way out


async def _waiting(url: str, count: int, is_async: bool) -> list[FlowStreamingOutput]:
    """Flows that have got one chunk and get no other."""
    llm = LLM("openai/gpt-4o", base_url=url, api_key="none")
    make = _CHAINS[is_async]

    async def begin() -> FlowStreamingOutput:
        output: FlowStreamingOutput = await make(llm).kickoff_async()
        await anext(aiter(output))
        return output

    return [await begin() for _ in range(count)]


async def _kept(url: str) -> list[FlowStreamingOutput]:
    """One flow that has ended, with all of its chunks."""
    llm = LLM("openai/gpt-4o", base_url=url, api_key="none")
    output: FlowStreamingOutput = await _CHAINS[True](llm).kickoff_async()
    async for _ in output:
        pass
    return [output]


def _worker(kind: str, count: int, is_traced: bool) -> Seen:
    if kind == "chunk":
        with provider(1) as one, provider(count) as some, provider(2 * count) as twice:
            urls = {1: one, count: some, 2 * count: twice}
            return asyncio.run(_seen(lambda many: _kept(urls[many]), count, is_traced))
    with provider(2, hold_after=1) as url:
        return asyncio.run(_seen(lambda many: _waiting(url, many, kind == "async"), count, is_traced))


def _in_a_process(kind: str, count: int, *, is_traced: bool) -> Seen:
    command = [sys.executable, "-m", "benchmarks.memory", kind, str(count), *(["--traced"] if is_traced else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return Seen(**json.loads(done.stdout))


def measure(flows: int = FLOWS, chunks: int = CHUNKS) -> list[Memory]:
    """All kinds."""
    kinds = {
        "async": ("a waiting flow with an async method", flows, at_most(40_000)),
        "sync": ("a waiting flow with a sync method", flows, None),
        "chunk": ("a chunk kept", chunks, at_most(80)),
    }
    memories: list[Memory] = []
    for kind, (name, count, target) in kinds.items():
        traced = _in_a_process(kind, count, is_traced=True)
        resident = _in_a_process(kind, count, is_traced=False) if _PAGES.exists() else None
        each = (traced.held_twice - traced.held) / count
        memories.append(
            Memory(
                name,
                count,
                each,
                traced.held_twice / traced.held,
                traced.left / (2 * count),
                None if resident is None else resident.held_twice / (2 * count),
                target,
                None if target is None else target.is_reached(each),
            )
        )
    return memories


def table(memories: list[Memory]) -> str:
    """What was measured, for people."""
    lines = [f"{'memory':<44}{'bytes':>10}{'target':>10}{'reached':>9}{'RSS':>10}{'of half':>9}{'~':>4}{'left':>8}"]
    for each in memories:
        resident = "" if each.resident is None else f"{each.resident:,.0f}"
        lines.append(
            f"{each.name:<44}{each.traced:>10,.0f}{verdict(each.target, each.traced)}{resident:>10}{each.growth:>9.2f}"
            f"{2:>4}{each.left:>8,.0f}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.memory", description="One process of the benchmark.")
    parser.add_argument("kind", choices=["async", "sync", "chunk"])
    parser.add_argument("count", type=int)
    parser.add_argument("--traced", action="store_true")
    options = parser.parse_args()
    print(json.dumps(asdict(_worker(options.kind, options.count, options.traced))))


if __name__ == "__main__":
    main()
