"""A simulation of events that queue for processors: workers make batches, one program reads them all.

Each worker makes a batch as soon as a processor is free; the reader takes the batches in the order in which they came.
A processor carries out one batch of one process at a time. What comes out is the rate at which the last event is read.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass

BATCH = 64


@dataclass(frozen=True)
class Paced:
    """Of one event that comes alone, in a run whose log is in Redis: seconds of the processor."""

    worker_s: float
    reader_s: float
    redis_s: float
    redis_reader_s: float


@dataclass(frozen=True)
class Costs:
    """Of one event in a burst: seconds of the processor in each part, bytes on the wire and in Redis."""

    worker_s: float
    reader_s: float
    writer_s: float
    redis_s: float
    wire_bytes: float
    redis_bytes: float
    paced: Paced


def simulate(workers: int, processors: int, costs: Costs, batches: int = 400) -> float:
    """Events a second that the reader has of so many workers, on one machine of so many processors."""
    left = [batches] * workers
    ready: deque[int] = deque(range(workers))  # workers that want a processor; -1 is the reader
    arrived = 0
    is_reading = False
    free = processors
    running: list[tuple[float, int, int]] = []
    now, order, read = 0.0, 0, 0
    while read < workers * batches:
        while free and ready:
            who = ready.popleft()
            cost = costs.reader_s if who < 0 else costs.worker_s
            heapq.heappush(running, (now + BATCH * cost, order, who))
            order += 1
            free -= 1
        now, _, who = heapq.heappop(running)
        free += 1
        if who < 0:
            read += 1
            is_reading = False
        else:
            left[who] -= 1
            arrived += 1
            if left[who]:
                ready.append(who)
        if arrived > read and not is_reading:
            ready.append(-1)
            is_reading = True
    return workers * batches * BATCH / now


def plan(streams: int, costs: Costs, *, rate: float = 30.0, use: float = 0.5, run_s: float = 60.0) -> dict[str, float]:
    """What so many streams at once need, each with one reader.

    Args:
        rate: events a second of each stream.
        use: how busy processors may be, so that queues stay short.
        run_s: how long a run is, which says how much of those that live Redis holds.
    """
    events, one = streams * rate, costs.paced
    return {
        "events a second": events,
        "cores for workers": events * one.worker_s / use,
        "cores for readers": events * one.reader_s / use,
        "Redis shards": events * (one.redis_s + one.redis_reader_s) / use,
        "network, Gbit/s": 2 * events * costs.wire_bytes * 8 / 1e9,
        "Redis, GB of live runs": events * costs.redis_bytes * run_s / 2 / 1e9,
        "Redis, GB for each hour that is kept": events * costs.redis_bytes * 3600 / 1e9,
    }
