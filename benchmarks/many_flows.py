"""Many flows at once in one process: the processor's time of the client, beside bare clients that do the same.

The provider runs in a process of its own and gives no stream its first chunk before all are open
(tests/loopback/chorus.py).
``python -m benchmarks.many_flows`` measures this alone.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from benchmarks.many_streams import OURS, SHARED, WAYS, Way, blocking_flows
from benchmarks.targets import Target, at_most, verdict

CHUNKS = 50
PACE = 0.02
TARGET = at_most(1.0)
_FILES_OF_ITS_OWN = 200  # descriptors that a process holds besides its streams


@dataclass(frozen=True)
class Load:
    """What one way of opening many streams took: means over the turns, with the collector as it is."""

    name: str
    cpu_seconds: float
    gc_seconds: float
    """Of these, the garbage collector's."""
    seconds: float
    ratio: float
    """Of the processor's time of bare httpx with one shared client, summed over all turns."""
    uncollected_ratio: float
    """The same without the time of the collector, in both."""
    target: Target | None
    is_reached: bool | None


@dataclass(frozen=True)
class Served:
    """What the provider counted over all turns of all ways."""

    requests: int
    most_open: int
    completed: int
    lost: int


@dataclass(frozen=True)
class Blocking:
    """Flows at once whose methods and tools block; all of them finished, or this was not made."""

    flows: int
    cpu_seconds: float
    seconds: float
    most_threads: int


def check_files(flows: int) -> None:
    """Raise RuntimeError where this process may not open so many connections; raises its soft limit where it can."""
    needed = flows + _FILES_OF_ITS_OWN
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < needed <= hard or (soft < needed and hard == resource.RLIM_INFINITY):
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    elif soft < needed:
        raise RuntimeError(
            f"{flows} connections need {needed} file descriptors; this process may have {hard} (ulimit -n)"
        )


class _Provider:
    def __init__(self, url: str) -> None:
        self._url = url
        self.served = Served(0, 0, 0, 0)

    def url(self, together: int) -> str:
        return f"{self._url}/together/{together}/v1"


@contextmanager
def _provider(chunks: int, pace: float) -> Generator[_Provider]:
    command = [sys.executable, "-m", "tests.loopback.chorus", "--chunks", str(chunks), "--pace", str(pace)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        if server.stdin is None or server.stdout is None:
            raise RuntimeError("the provider has no pipes")
        provider = _Provider(server.stdout.readline().strip())
        try:
            yield provider
        finally:
            server.stdin.close()  # it serves until then
            said = json.loads(server.stdout.readline())
            provider.served = Served(said["requests"], said["most_open"], said["completed"], said["lost"])


class _Collector:
    """The time that the garbage collector takes, in whichever thread."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began = 0.0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.thread_time()
        else:
            self.seconds += time.thread_time() - self._began

    def __enter__(self) -> Self:
        gc.callbacks.append(self)
        return self

    def __exit__(self, *error: object) -> None:
        gc.callbacks.remove(self)


def _timed(way: Way, url: str, flows: int, chunks: int) -> tuple[float, float, float]:
    """Seconds of the processor, of all threads of this process; those of the collector among them; of the clock."""

    async def measured() -> tuple[int, float, float]:
        cpu, clock = time.process_time(), time.perf_counter()
        count = await way(url, flows)
        return count, time.process_time() - cpu, time.perf_counter() - clock

    with _Collector() as collector:
        count, cpu_seconds, seconds = asyncio.run(measured())
    if count != flows * chunks:
        raise RuntimeError(f"{way.__name__} read {count} chunks of {flows * chunks}")
    return cpu_seconds, collector.seconds, seconds


def measure(
    flows: int = 1000, turns: int = 3, *, chunks: int = CHUNKS, pace: float = PACE
) -> tuple[list[Load], Served]:
    """All ways, turn by turn, after a small turn to warm up. RuntimeError if one stream of any way fails."""
    check_files(flows)
    taken: dict[str, list[tuple[float, float, float]]] = {name: [] for name in WAYS}
    with _provider(chunks, pace) as provider:
        for turn in range(turns + 1):
            many = flows if turn else min(flows, 20)
            for name, way in WAYS.items():
                cost = _timed(way, provider.url(many), many, chunks)
                if turn:
                    taken[name].append(cost)
    cpu = {name: sum(cost[0] for cost in costs) for name, costs in taken.items()}
    collector = {name: sum(cost[1] for cost in costs) for name, costs in taken.items()}
    loads: list[Load] = []
    for name, costs in taken.items():
        ratio = cpu[name] / cpu[SHARED]
        target = TARGET if name == OURS else None
        loads.append(
            Load(
                name,
                cpu_seconds=cpu[name] / turns,
                gc_seconds=collector[name] / turns,
                seconds=sum(cost[2] for cost in costs) / turns,
                ratio=ratio,
                uncollected_ratio=(cpu[name] - collector[name]) / (cpu[SHARED] - collector[SHARED]),
                target=target,
                is_reached=None if target is None else target.is_reached(ratio),
            )
        )
    return loads, provider.served


def measure_blocking(flows: int = 200, *, chunks: int = CHUNKS, pace: float = PACE) -> Blocking:
    """Once, after one flow to warm up. RuntimeError where a chunk is missing."""
    check_files(flows)
    with _provider(chunks, pace) as provider:
        asyncio.run(blocking_flows(provider.url(1), 1))
        gc.collect()
        cpu, clock = time.process_time(), time.perf_counter()
        count, threads = asyncio.run(blocking_flows(provider.url(flows), flows))
        cpu_seconds, seconds = time.process_time() - cpu, time.perf_counter() - clock
    if count != flows * chunks:
        raise RuntimeError(f"flows that block read {count} chunks of {flows * chunks}")
    return Blocking(flows, cpu_seconds, seconds, threads)


def table(loads: list[Load], served: Served, blocking: Blocking, flows: int) -> str:
    """What was measured, for people."""
    title = f"{flows:,} streams at once, {CHUNKS} chunks each"
    return "\n".join(
        [
            f"{title:<44}{'CPU s':>8}{'gc s':>8}{'s':>8}{'ratio':>8}{'target':>10}{'reached':>9}{'without gc':>12}",
            *(
                f"{load.name:<44}{load.cpu_seconds:>8.2f}{load.gc_seconds:>8.2f}{load.seconds:>8.2f}{load.ratio:>8.2f}"
                f"{verdict(load.target, load.ratio)}{load.uncollected_ratio:>12.2f}"
                for load in loads
            ),
            f"the provider saw {served.most_open:,} open at once; {served.completed:,} of {served.requests:,} ended",
            (
                f"{blocking.flows} flows at once, a sync method and a sync tool each: all finished in "
                f"{blocking.seconds:.1f} s ({blocking.cpu_seconds:.1f} of the processor), "
                f"{blocking.most_threads} threads at once"
            ),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.many_flows", description=__doc__)
    parser.add_argument("--flows", type=int, default=1000, help="streams at once")
    parser.add_argument("--turns", type=int, default=3, help="turns of each way")
    parser.add_argument("--chunks", type=int, default=CHUNKS, help="chunks of each stream")
    options = parser.parse_args()
    flows: int = options.flows
    loads, served = measure(flows, options.turns, chunks=options.chunks)
    print(table(loads, served, measure_blocking(min(flows, 200)), flows))


if __name__ == "__main__":
    main()
