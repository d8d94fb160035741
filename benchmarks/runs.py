"""Runs in a store, their workers and readers in processes of their own.

Latency: a worker writes an event every 2 ms; its ``at`` is when it was made, and the reader subtracts it from the time
when it has it. Burst: the worker writes as fast as it can, from the first event made to the last one read. Cancel: from
``cancel()`` in this process until the provider sees its connection closed, with the run in another. Overhead: the CPU
time of a flow in the memory store beside the same flow without one; the ways take turns. Likewise that of a flow whose
chunks get numbers and times, beside one whose chunks get none.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.provider import provider
from benchmarks.targets import Target, at_least, at_most, verdict
from benchmarks.throughput import async_for_loop
from rxflow import LLM, Flow
from rxflow._streaming import border
from rxflow.flow import start
from rxflow.operators._core.log_reader import read_log
from rxflow.operators._core.log_writer import MAX_BATCH_EVENTS
from rxflow.operators._core.run_log import End, Writer
from rxflow.runs import Runs
from rxflow.types import Event
from rxflow.types.chunks import Origin, StreamChunk
from tests.loopback import Loopback, Reply
from tests.runs.redis_server import RedisServer

GAP_S = 0.002
RATIO_TURNS = 3
"""How many times as many turns a ratio of CPU times needs: the median of 10 ratios varies by 4 percentage points."""
ORIGIN = Origin(task_name="research", agent_role="Researcher", flow_method="plan", namespace=("Trip", "plan"))

Way: TypeAlias = Callable[[str], Coroutine[Any, Any, None]]
"""Runs a flow that asks the provider at a URL."""


@dataclass(frozen=True)
class Figure:
    """One figure of one store."""

    name: str
    store: str
    value: float
    unit: str
    target: Target
    is_reached: bool


class Calls(Flow):
    """Asks the provider at ``inputs["url"]``."""

    @start()
    async def call(self) -> Any:
        return await LLM("openai/gpt-4o", base_url=self.state["url"], api_key="k", max_retries=0).acall("Hello")


def measure(events: int, burst: int, stops: int, chunks: int, turns: int) -> list[Figure]:
    """All figures; those of Redis where redis-server is installed."""
    figures = [
        _rate_overhead(
            "a crew's numbers and times, beside none", "none", _unstamped(_read_crew), _read_crew, chunks, turns, 5
        ),
        _rate_overhead("the same, without a crew", "none", _unstamped(_read_plain), _read_plain, chunks, turns, 5),
        _rate_overhead("a run in the memory store, beside none", "memory", _run_plain, _run_stored, chunks, turns, 10),
        _rate_overhead("the same, and it is read", "memory", _read_plain, _read_stored, chunks, turns, 10),
    ]
    with tempfile.TemporaryDirectory() as folder:
        figures += _measure_store("SQLite", f"sqlite:///{folder}/runs.db", events, burst, stops)
    if shutil.which("redis-server"):
        with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder)) as redis:
            figures += _measure_store("Redis", redis.url, events, burst, stops)
    return figures


def table(figures: list[Figure]) -> str:
    """For people."""
    lines = [f"{'runs':<44}{'store':>8}{'figure':>12}{'':>10}{'target':>10}{'reached':>9}"]
    for figure in figures:
        value = f"{figure.value:>12,.1f}{figure.unit:>10}"
        lines.append(f"{figure.name:<44}{figure.store:>8}{value}{verdict(figure.target, figure.value)}")
    return "\n".join(lines)


def _measure_store(name: str, url: str, events: int, burst: int, stops: int) -> list[Figure]:
    is_redis = name == "Redis"
    delays = _measure_delays(url, events)
    closings = _measure_cancels(url, stops)
    p99 = 10.0 if is_redis else 15.0
    return [
        _figure("event to a reader, p50", name, statistics.median(delays), "ms", at_most(2.0 if is_redis else 5.0)),
        _figure("event to a reader, p99", name, _percentile(delays), "ms", at_most(p99)),
        _figure("burst", name, _measure_burst(url, burst), "events/s", at_least(10_000 if is_redis else 20_000)),
        _figure("cancel to the provider's socket, p50", name, statistics.median(closings), "ms", at_most(50)),
        _figure("cancel to the provider's socket, p99", name, _percentile(closings), "ms", at_most(50)),
    ]


def _figure(name: str, store: str, value: float, unit: str, target: Target) -> Figure:
    return Figure(name, store, value, unit, target, target.is_reached(value))


def _percentile(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


def _read(url: str, role: str, events: int) -> list[tuple[float, float]]:
    """When the events of a worker were made, and when a reader had them: each in a process of its own.

    Not in this one: a full collection of what other benchmarks have left here takes 90 ms.

    Raises:
        RuntimeError: the worker or the reader has failed.
    """
    command = [sys.executable, "-m", "benchmarks.runs", url, f"read {role}", str(events), ""]
    reader = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if reader.returncode:
        raise RuntimeError(f"the reader of {role!r} failed; its error is above")
    return [(made, came) for made, came in json.loads(reader.stdout)]


def _read_here(url: str, role: str, events: int) -> list[tuple[float, float]]:
    """:func:`_read`, in the reader's process."""
    seen: list[tuple[float, float]] = []

    async def read(runs: Runs) -> None:
        await read_log(runs.store, role, -1, lambda event: seen.append((event.at, time.time())))

    async def main(runs: Runs, worker: subprocess.Popen[str]) -> None:
        reading = asyncio.create_task(read(runs))
        if await asyncio.to_thread(worker.wait):
            reading.cancel()
            raise RuntimeError(f"the worker {role!r} failed; its error is above")
        await reading

    with Runs(url) as runs, _process(url, role, events) as worker:
        asyncio.run(main(runs, worker))
    return seen


def _measure_delays(url: str, events: int) -> list[float]:
    seen = _read(url, "steady", events)
    _, began = seen[0]  # what was made before is late because of the reader
    return [1000 * (came - made) for made, came in seen if made > began]


def _measure_burst(url: str, events: int) -> float:
    seen = _read(url, "burst", events)
    return len(seen) / (seen[-1][1] - seen[0][0])


def _measure_cancels(url: str, stops: int) -> list[float]:
    with Loopback() as asked, Runs(url) as runs:
        asked.answer(lambda request: Reply(text=["a", "b"], hold_after=1))
        with _process(url, "calls", stops, asked.url):
            return [_measure_cancel(asked, runs, number) for number in range(stops)]


def _measure_cancel(asked: Loopback, runs: Runs, number: int) -> float:
    asked.wait_until(lambda state: len(state.requests) > number and state.holding)
    began = time.monotonic()
    runs[f"call-{number}"].cancel("enough")
    asked.wait_until(lambda state: len(state.disconnects) > number)
    return 1000 * (asked.disconnects[-1].at - began)


async def _read_plain(url: str) -> None:
    async for _ in Calls().stream_chunks({"url": url}):
        pass


async def _read_stored(url: str) -> None:
    with Runs() as runs:
        run = await runs.start_async(Calls(), {"url": url})
        async for _ in run.output():
            pass


async def _run_plain(url: str) -> None:
    await Calls().kickoff_async({"url": url})


async def _run_stored(url: str) -> None:
    with Runs() as runs:
        await (await runs.start_async(Calls(), {"url": url})).result_async()


def _time(way: Way, url: str) -> float:
    gc.collect()
    began = time.process_time()
    asyncio.run(way(url))
    return time.process_time() - began


def _rate_overhead(name: str, store: str, plain: Way, costlier: Way, chunks: int, turns: int, limit: float) -> Figure:
    """In percent of the ``plain`` time; the median of the ratios of ``RATIO_TURNS`` times as many turns."""
    ratios: list[float] = []
    with provider(chunks) as url:
        for way in (plain, costlier):
            _time(way, url)  # the first call of a process imports
        for turn in range(RATIO_TURNS * turns):
            ways = (plain, costlier) if turn % 2 else (costlier, plain)
            took = {way: _time(way, url) for way in ways}
            ratios.append(100 * (took[costlier] / took[plain] - 1))
    return _figure(name, store, statistics.median(ratios), "% more", at_most(limit))


class _Unstamped(border.Passage):
    """Gives chunks neither number nor time."""

    __slots__ = ()

    def on_next(self, value: Event) -> None:
        if type(value) is StreamChunk and not self._border.holds:
            self._observer.on_next(value)
        else:
            super().on_next(value)


async def _read_crew(url: str) -> None:
    await async_for_loop()(url)


def _unstamped(way: Way) -> Way:
    async def run(url: str) -> None:
        stamped = border.Passage
        border.Passage = _Unstamped  # type: ignore[misc]
        try:
            await way(url)
        finally:
            border.Passage = stamped  # type: ignore[misc]

    return run


@contextlib.contextmanager
def _process(url: str, role: str, count: int, provider: str = "") -> Generator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.runs", url, role, str(count), provider]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        if worker.stdout is None:
            raise RuntimeError("the worker has no pipe")
        worker.stdout.readline()  # it has begun
        yield worker


def _work(url: str, role: str, count: int, provider: str) -> None:
    """Another process."""
    if role.startswith("read "):
        print(json.dumps(_read_here(url, role.removeprefix("read "), count)))
        return
    with Runs(url) as runs:
        if role == "calls":
            print("begun", flush=True)
            for number in range(count):
                run = runs.start(Calls(), {"url": provider}, run_id=f"call-{number}")
                with contextlib.suppress(RuntimeError):
                    run.result()
            return
        me = Writer(role)
        runs.store.append(me, [_say(0)]).result()
        print("begun", flush=True)
        size = 1 if role == "steady" else MAX_BATCH_EVENTS
        for first in range(1, count, size):
            if role == "steady":
                time.sleep(GAP_S)
            batch = [_say(seq) for seq in range(first, min(first + size, count))]
            runs.store.append(me, batch).result()  # as a run does, one batch after the other
        runs.store.append(me, [], End("completed")).result()


def _say(seq: int) -> StreamChunk:
    return ORIGIN.chunk("word ").with_seq(seq, time.time())


if __name__ == "__main__":
    _work(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
