"""Branches and runs on two Ray nodes of this machine, with their log in a Redis.

Event to reader: a flow on a worker says the time every 2 ms, and the reader subtracts it from its own. Burst: a flow
says words as fast as it can. Dispose: from ``dispose()`` here until the provider sees its connection closed, with the
call on a worker. Lost: from ``kill -9`` of a worker until the reader of a branch, or of a run in Redis, has its error.
Two workers beside one: flows that wait, as those of a model do, which are as many as the workers have places; and flows
that use the processor all the time, which says what processors this machine has left for them.
Costs are of the processor, as each process counts its own; then the same burst on 1, 2 and 4 workers stands beside what
the model of docs/scale.md says with those costs.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from reactivex import Observable

from benchmarks.queueing import Costs, Paced, simulate
from benchmarks.targets import Target, at_least, at_most, verdict
from rxflow import LLM, Flow
from rxflow.flow import start
from rxflow.runs import Run, Runs
from rxflow.types.chunks import StreamChunk
from rxflow.types.codec import encode
from rxflow.types.events import Event
from tests.loopback import Loopback, Reply
from tests.loopback.state import State
from tests.runs.redis_server import RedisServer

GAP_S = 0.002
TURNS = 5
WORK_S = 0.2
PLACES = 16


@dataclass(frozen=True)
class Figure:
    """One figure."""

    name: str
    value: float
    unit: str
    target: Target | None = None


class Steady(Flow):
    """Says the time ``inputs["count"]`` times, every 2 ms."""

    @start()
    async def speak(self) -> AsyncGenerator[str]:
        for _ in range(self.state["count"]):
            yield repr(time.time())
            await asyncio.sleep(GAP_S)


class Burst(Flow):
    """Says ``inputs["count"]`` words at once."""

    @start()
    async def speak(self) -> AsyncGenerator[str]:
        for number in range(self.state["count"]):
            yield "word "
            if number % 32 == 31:
                await asyncio.sleep(0)  # as what one read from the network brings


class Works(Flow):
    """Works for ``WORK_S`` in all, before each of 20 words, as tools and templates do."""

    @start()
    async def work(self) -> AsyncGenerator[str]:
        for _ in range(20):
            until = time.thread_time() + WORK_S / 20
            while time.thread_time() < until:
                pass
            yield "word "
            await asyncio.sleep(0)


class Short(Flow):
    """``inputs["count"]`` words, 20 a second, as a model says them."""

    @start()
    async def speak(self) -> AsyncGenerator[str]:
        for _ in range(self.state.get("count", 20)):
            yield "word "
            await asyncio.sleep(0.05)


class Standing(Flow):
    """Says the id of its process, and waits."""

    @start()
    async def stand(self) -> AsyncGenerator[str]:
        yield str(os.getpid())
        await asyncio.sleep(600)


class Calls(Flow):
    """Asks the provider at ``inputs["url"]``."""

    @start()
    async def call(self) -> Any:
        return await LLM("openai/gpt-4o", base_url=self.state["url"], api_key="k", max_retries=0).acall("Hello")


def measure(events: int, burst: int, stops: int, runs: int) -> list[Figure]:
    """All figures."""
    import ray as untyped
    from ray import cluster_utils

    from rxflow.cluster import Ray

    ray: Any = untyped
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray 2.60 makes it 15: all else here would come first
    nodes: Any = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    nodes.add_node(num_cpus=2)
    ray.init(address=nodes.address, log_to_driver=False, configure_logging=False)
    try:
        with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder)) as redis:
            url = redis.url
            with Ray(workers=1) as cluster:
                figures = _measure_branch(cluster, events, burst, stops)
                costs = _measure_costs(cluster, url, burst)
            figures += _measure_losses(url, max(2, stops // 10))
            with Ray(workers=2) as cluster:
                figures.append(Figure("200 runs at once over two nodes", _rate_runs(cluster, url, runs), "s"))
        figures += [
            Figure("an event, worker", costs.worker_s * 1e6, "µs"),
            Figure("an event, reader", costs.reader_s * 1e6, "µs"),
            Figure("an event, worker with Redis", costs.writer_s * 1e6, "µs"),
            Figure("an event, Redis", costs.redis_s * 1e6, "µs"),
            Figure("an event, on the wire", costs.wire_bytes, "bytes"),
            Figure("an event, in Redis", costs.redis_bytes, "bytes"),
            Figure("one by one, worker with Redis", costs.paced.worker_s * 1e6, "µs"),
            Figure("one by one, Redis, written", costs.paced.redis_s * 1e6, "µs"),
            Figure("one by one, Redis, each reader", costs.paced.redis_reader_s * 1e6, "µs"),
            Figure("one by one, reader", costs.paced.reader_s * 1e6, "µs"),
        ]
        rates: dict[int, float] = {}
        for workers in (1, 2, 4):
            with Ray(workers=workers, num_cpus=1) as cluster:
                rates[workers] = _rate_workers(cluster, workers, burst)
            said = simulate(workers, os.cpu_count() or 1, costs)
            figures += [
                Figure(f"throughput of {workers} workers", rates[workers], "events/s"),
                Figure(f"throughput of {workers} workers, as the model says", said, "events/s"),
            ]
        figures += _compare_two_with_one()
    finally:
        ray.shutdown()
        nodes.shutdown()
    return figures


def table(figures: list[Figure]) -> str:
    """For people."""
    head = f"{'cluster':<52}{'figure':>12}{'':>10}{'target':>10}{'reached':>9}"
    rows = (f"{each.name:<52}{each.value:>12,.2f}{each.unit:>10}{verdict(each.target, each.value)}" for each in figures)
    return "\n".join([head, *rows])


def _percentile(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


def _measure_branch(cluster: Any, events: int, burst: int, stops: int) -> list[Figure]:
    delays: list[float] = []
    _read(cluster.on(Steady).observe({"count": 10}), lambda chunk: None)  # the worker starts
    _read(
        cluster.on(Steady).observe({"count": events}),
        lambda chunk: delays.append(1000 * (time.time() - float(chunk.content))),
    )
    count = 0

    def see(_: Event) -> None:
        nonlocal count
        count += 1

    began = time.perf_counter()
    _read(cluster.on(Burst).events({"count": burst}), see)
    rate = count / (time.perf_counter() - began)
    closings = _measure_disposals(cluster, stops)
    return [
        Figure("event to reader, p50", statistics.median(delays), "ms", at_most(3)),
        Figure("event to reader, p99", _percentile(delays), "ms", at_most(15)),
        Figure("burst of a worker", rate, "events/s", at_least(20_000)),
        Figure("dispose to the provider's socket, p50", statistics.median(closings), "ms"),
        Figure("dispose to the provider's socket, p99", _percentile(closings), "ms", at_most(100)),
    ]


def _read(source: Any, on_next: Callable[[Any], None]) -> None:
    ended = threading.Event()
    errors: list[Exception] = []

    def on_error(error: Exception) -> None:
        errors.append(error)
        ended.set()

    source.subscribe(on_next, on_error, ended.set)
    ended.wait()
    if errors:
        raise errors[0]


def _measure_disposals(cluster: Any, stops: int) -> list[float]:
    closings: list[float] = []
    with Loopback() as provider:
        provider.answer(lambda request: Reply(text=["a", "b"], hold_after=1))
        for number in range(stops + 1):
            began_to_speak = threading.Event()
            source: Observable[StreamChunk] = cluster.on(Calls).observe({"url": provider.url})
            reading = source.subscribe(partial(_note_text, [], began_to_speak))
            began_to_speak.wait()
            began = time.monotonic()
            reading.dispose()
            provider.wait_until(partial(_has_seen_stops, number + 1))
            closings.append(1000 * (provider.disconnects[-1].at - began))
    return closings[1:]  # for the first, the worker may import


def _has_seen_stops(number: int, state: State) -> bool:
    return len(state.disconnects) == number


def _measure_losses(url: str, kills: int) -> list[Figure]:
    """A branch and a run on one worker, which is killed."""
    from rxflow.cluster import Ray

    took: dict[str, list[float]] = {"a branch": [], "a run in Redis": []}
    for _ in range(kills):
        with Ray(workers=1) as cluster, Runs(url, on=cluster, lease=30) as runs:
            sources = {
                "a branch": cluster.on(Standing).observe(),
                "a run in Redis": runs.start("benchmarks.cluster:Standing").observe(),
            }
            ended_at: dict[str, float] = {}
            ended: list[threading.Event] = []
            pids: list[str] = []
            for name, source in sources.items():
                began, over = threading.Event(), threading.Event()
                ended.append(over)
                source.subscribe(partial(_note_text, pids, began), partial(_note_time, ended_at, name, over))
                began.wait()
            killed = time.monotonic()
            os.kill(int(pids[0]), signal.SIGKILL)
            for over in ended:
                over.wait()
            for name, at in ended_at.items():
                took[name].append(1000 * (at - killed))
    return [
        Figure(f"worker killed to the reader of {name}, worst", max(times), "ms", at_most(1000))
        for name, times in took.items()
    ]


def _note_text(texts: list[str], began: threading.Event, chunk: StreamChunk) -> None:
    texts.append(chunk.content)
    began.set()


def _note_time(ended_at: dict[str, float], name: str, over: threading.Event, _: Exception) -> None:
    ended_at[name] = time.monotonic()
    over.set()


def _rate_runs(cluster: Any, url: str, count: int) -> float:
    _read(cluster.on(Short).observe(), _ignore)
    with Runs(url, on=cluster, lease=30) as runs, ThreadPoolExecutor(count) as pool:

        def carry_out(_: int) -> object:
            return runs.start("benchmarks.cluster:Short").result(120)

        began = time.perf_counter()
        results = list(pool.map(carry_out, range(count)))
        took = time.perf_counter() - began
    if len(results) != count:
        raise RuntimeError(f"{len(results)} of {count} runs completed")
    return took


def _ignore(_: object) -> None:
    pass


def _measure_costs(cluster: Any, url: str, burst: int) -> Costs:
    """Of each event, seconds of the processor and bytes."""
    pids: list[str] = []
    began = threading.Event()
    source: Observable[StreamChunk] = cluster.on(Standing).observe()
    standing = source.subscribe(partial(_note_text, pids, began))
    began.wait()
    standing.dispose()
    pid = int(pids[0])

    sizes: list[int] = []
    _read(cluster.on(Burst).events({"count": 1000}), lambda event: sizes.append(len(encode(event))))
    here, there = time.process_time(), _ask_processor(pid)
    _read(cluster.on(Burst).observe({"count": burst}), _ignore)
    reader, worker = time.process_time() - here, _ask_processor(pid) - there
    with Runs(url, on=cluster, lease=30) as runs:
        stood, there = _ask_redis(url), _ask_processor(pid)
        written = min(burst, 8000)  # more at once would wait than may
        runs.start("benchmarks.cluster:Burst", {"count": written}).result(60)
        stands, writer = _ask_redis(url), _ask_processor(pid) - there
        return Costs(
            worker_s=worker / burst,
            reader_s=reader / burst,
            writer_s=writer / written,
            redis_s=(stands["cpu"] - stood["cpu"]) / written,
            wire_bytes=statistics.mean(sizes),
            redis_bytes=(stands["memory"] - stood["memory"]) / written,
            paced=_measure_paced(runs, url, pid, 64, 100),
        )


def _measure_paced(runs: Runs, url: str, pid: int, count: int, words: int) -> Paced:
    """The same of events that come one by one, as those of a model do; the beginning of the runs is a part of it."""
    with ThreadPoolExecutor(count) as pool:

        def begin(_: int) -> Run:
            return runs.start("benchmarks.cluster:Short", {"count": words})

        stood, here, there = _ask_redis(url), time.process_time(), _ask_processor(pid)
        started = list(pool.map(begin, range(count)))
        unread = count * words
        list(pool.map(_finish, started))
        quiet = _ask_redis(url)
        worker = _ask_processor(pid) - there
        started = list(pool.map(begin, range(count)))
        between, here = _ask_redis(url), time.process_time()
        list(pool.map(_read, [run.observe() for run in started], [_ignore] * count))
        read = _ask_redis(url)
    written = (quiet["cpu"] - stood["cpu"]) / unread
    return Paced(
        worker_s=worker / unread,
        reader_s=(time.process_time() - here) / unread,
        redis_s=written,
        redis_reader_s=max(0.0, (read["cpu"] - between["cpu"]) / unread - written),
    )


def _finish(run: Run) -> None:
    run.result(120)


def _ask_processor(pid: int) -> float:
    """Seconds of the processor that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _ask_redis(url: str) -> dict[str, float]:
    shown = subprocess.run(["redis-cli", "-u", url, "info"], check=True, capture_output=True, text=True).stdout
    values = dict(line.split(":", 1) for line in shown.splitlines() if ":" in line)
    return {
        "cpu": float(values["used_cpu_user"]) + float(values["used_cpu_sys"]),
        "memory": float(values["used_memory_dataset"]),
    }


def _rate_workers(cluster: Any, workers: int, burst: int) -> float:
    """Events a second of twice as many branches as workers, all read here."""
    events: Observable[StreamChunk] = cluster.on(Burst).observe({"count": burst // 2})
    return workers * burst / _time_branches(events, 2 * workers)


def _compare_two_with_one() -> list[Figure]:
    from rxflow.cluster import Ray

    waiting: list[float] = []
    working: list[float] = []
    for workers in (1, 2):
        with Ray(workers=workers, num_cpus=1, runs_per_worker=PLACES) as cluster:
            flows = 2 * PLACES * workers  # half of them wait for a place
            waiting.append(flows / _time_branches(cluster.on(Short).observe(), flows))
            working.append(4 * workers / _time_branches(cluster.on(Works).observe(), 4 * workers))
    return [
        Figure("flows that wait, 1 worker", waiting[0], "flows/s"),
        Figure("flows that wait, 2 workers", waiting[1], "flows/s"),
        Figure("flows that wait, 2 workers beside 1", waiting[1] / waiting[0], "×", at_least(1.8)),
        Figure("flows that work, 1 worker", working[0], "flows/s"),
        Figure("flows that work, 2 workers", working[1], "flows/s"),
        Figure("flows that work, 2 workers beside 1", working[1] / working[0], "×", at_least(1.8)),
        Figure("processors that these flows had, 1 worker", working[0] * WORK_S, f"of {os.cpu_count()}"),
        Figure("processors that these flows had, 2 workers", working[1] * WORK_S, f"of {os.cpu_count()}"),
    ]


def _time_branches(source: Observable[StreamChunk], branches: int) -> float:
    """Seconds for so many at once; the least of the turns, as what comes on top is other programs' doing."""

    def read_all() -> float:
        began = time.perf_counter()
        list(pool.map(_read, [source] * branches, [_ignore] * branches))
        return time.perf_counter() - began

    with ThreadPoolExecutor(branches) as pool:
        read_all()  # the workers start
        return min(read_all() for _ in range(TURNS))
