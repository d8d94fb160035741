"""Length: a long stream, a long chain of methods, a cycle of many turns. Twice the length must take twice the time.

Each is measured at half its length too. Its cost is the least of the turns, in the processor's time: what comes on top
of that is other programs' doing.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from benchmarks.provider import provider
from benchmarks.shapes import chain, cycle
from rxflow import LLM, Flow

CHUNKS = 100_000
METHODS = 1_000
CYCLES = 10_000


@dataclass(frozen=True)
class Length:
    """Seconds of the processor for ``length`` and for half of it; ``growth`` is 2 where time is linear."""

    name: str
    length: int
    seconds: float
    growth: float


Prepared: TypeAlias = Callable[[], None]
"""Something of some length, ready to run as often as one likes."""


@contextmanager
def streams(length: int) -> Generator[Prepared]:
    """Streams of so many chunks, read by ``for``."""
    with provider(length) as url:
        flow = chain(1, is_async=True, speaks=0)(LLM("openai/gpt-4o", base_url=url, api_key="none"))

        def read() -> None:
            count = sum(1 for _ in flow.kickoff())
            if count != length:
                raise RuntimeError(f"a stream of {length} chunks had {count}")

        yield read


@contextmanager
def chains(length: int, *, is_async: bool) -> Generator[Prepared]:
    """Flows of so many methods, one after the other."""
    flow = chain(length, is_async=is_async)(None)

    def run() -> None:
        _read(flow, is_async)
        if len(flow.method_outputs) != length:
            raise RuntimeError(f"a chain of {length} methods ran {len(flow.method_outputs)}")

    yield run


@contextmanager
def cycles(length: int, *, is_async: bool) -> Generator[Prepared]:
    """Flows whose router sends itself round so many times."""

    def run() -> None:
        flow = cycle(length, is_async=is_async)(None)
        _read(flow, is_async)
        if len(flow.method_outputs) != length + 1:
            raise RuntimeError(f"a cycle of {length} turns had {len(flow.method_outputs) - 1}")

    yield run


def _read(flow: Flow, is_async: bool) -> None:
    async def read() -> None:
        async for _ in await flow.kickoff_async():
            pass

    if is_async:
        asyncio.run(read())
    else:
        for _ in flow.kickoff():
            pass


def measure(chunks: int = CHUNKS, methods: int = METHODS, turns_of_cycle: int = CYCLES, turns: int = 3) -> list[Length]:
    """All of them, after one turn of half the length to warm up."""
    kinds: dict[str, tuple[Callable[[int], AbstractContextManager[Prepared]], int]] = {
        "chunks of a stream": (streams, chunks),
        "async methods of a chain": (partial(chains, is_async=True), methods),
        "sync methods of a chain": (partial(chains, is_async=False), methods),
        "turns of a cycle, async": (partial(cycles, is_async=True), turns_of_cycle),
        "turns of a cycle, sync": (partial(cycles, is_async=False), turns_of_cycle),
    }
    lengths: list[Length] = []
    for name, (prepare, length) in kinds.items():
        with ExitStack() as stack:
            half, whole = stack.enter_context(prepare(length // 2)), stack.enter_context(prepare(length))
            half()
            # litellm's half a million objects would be gone through whenever a full collection happens to fall due.
            gc.collect()
            gc.freeze()
            taken = [(_seconds(half), _seconds(whole)) for _ in range(turns)]
        least_half, least = (min(column) for column in zip(*taken, strict=True))
        lengths.append(Length(name, length, least, least / least_half))
    gc.unfreeze()
    return lengths


def _seconds(run: Prepared) -> float:
    gc.collect()
    begin = time.process_time()
    run()
    return time.process_time() - begin


def table(lengths: list[Length]) -> str:
    """What was measured, for people."""
    lines = [f"{'length':<44}{'CPU s':>8}{'µs each':>10}{'of half':>9}{'~':>4}"]
    lines += [
        f"{f'{each.length:,} {each.name}':<44}{each.seconds:>8.2f}{each.seconds / each.length * 1e6:>10.1f}"
        f"{each.growth:>9.2f}{2:>4}"
        for each in lengths
    ]
    return "\n".join(lines)
