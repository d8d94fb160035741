"""``stats``: how fast, how much and how dear, per task and in all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow.operators._core.clock import stopwatch
from rxflow.operators._core.lift import select
from rxflow.operators._core.spending import BYTES_A_TOKEN, size_of
from rxflow.operators._core.texts import place_of
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import LLMFailed, LLMFinished, ReasoningChunk, TaskFailed, TaskFinished, TaskStarted


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Figures of a stream so far, or of one of its tasks. Times are in seconds.

    Attributes:
        seconds: since the subscription; of a task, from its beginning to its end.
        first_chunk: how long the first chunk took; None where there is none yet.
        chunks: how many came, pieces of tool calls among them.
        chunks_per_second: from the first chunk to the last, pauses included; 0 where that is no time.
        tokens: of what the models said, reasoning among it: as their providers counted them, or estimated.
        is_estimated: providers have not reported all of ``tokens``; four bytes of text make one.
        cost: in US dollars, of the calls that ended and whose price is known; None where there are none.
        tasks: the same for each task, by its name; tasks of one name are counted together.
    """

    seconds: float
    first_chunk: float | None
    chunks: int
    chunks_per_second: float
    tokens: int
    is_estimated: bool
    cost: float | None
    tasks: Mapping[str, Stats] = field(default_factory=dict[str, "Stats"])


def stats(scheduler: SchedulerBase | None = None) -> Callable[[Observable[Any]], Observable[Stats]]:
    """Figures so far, whenever an LLM call or a task has ended, and at the end of the stream. ::

        events     S--a--b--{call ends}--c--{call ends}--F|
        stats()    ---------s---------------s------------(s|)

    An error comes after the last figures, too. In a stream of bare chunks there are the last ones only, without tasks'
    ends, and tokens are estimated.

    Args:
        scheduler: tells the time; else the subscriber's, else the running loop, else the machine.

    Example::

        flow.observe().pipe(ops.stats()).subscribe(lambda so_far: show(so_far.first_chunk, so_far.cost))
    """

    def measured(source: Observable[Any]) -> Observable[Stats]:
        def subscribe(observer: ObserverBase[Stats], subscribed: SchedulerBase | None = None) -> DisposableBase:
            meters = _Meters(observer, stopwatch(scheduler, subscribed))
            return source.subscribe(meters.on_next, meters.on_error, meters.on_completed, scheduler=subscribed)

        return Observable(subscribe)

    return select(measured)


class _Meter:
    """Counts for all, or for one task."""

    __slots__ = ("begun", "chunks", "cost", "ended", "estimated", "first", "last", "reported")

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.ended: float | None = None
        self.first: float | None = None
        self.last = 0.0
        self.chunks = 0
        self.reported = 0
        self.estimated = 0
        self.cost: float | None = None

    def chunk(self, now: float) -> None:
        if self.first is None:
            self.first = now
        self.last = now
        self.chunks += 1

    def read(self, now: float, running: Iterable[_Call], tasks: Mapping[str, Stats]) -> Stats:
        estimated = self.estimated + sum(call.estimate for call in running)
        first = self.first
        spread = 0.0 if first is None else self.last - first
        return Stats(
            seconds=(now if self.ended is None else self.ended) - self.begun,
            first_chunk=None if first is None else first - self.begun,
            chunks=self.chunks,
            chunks_per_second=(self.chunks - 1) / spread if spread > 0 else 0.0,
            tokens=self.reported + estimated,
            is_estimated=estimated > 0,
            cost=self.cost,
            tasks=tasks,
        )


class _Call:
    """An LLM call that has not ended: how much it has said, and whose meters count that."""

    __slots__ = ("meters", "size", "task")

    def __init__(self, meters: tuple[_Meter, ...], task: str) -> None:
        self.meters = meters
        self.task = task
        self.size = 0

    def add(self, text: str) -> None:
        self.size += len(text) if text.isascii() else size_of(text)

    @property
    def estimate(self) -> int:
        return ceil(self.size / BYTES_A_TOKEN)


class _Meters:
    """The meters of one subscription."""

    def __init__(self, observer: ObserverBase[Stats], read: Callable[[], float]) -> None:
        self._observer = observer
        self._read = read
        self._all = _Meter(0.0)
        self._tasks: dict[str, _Meter] = {}
        self._calls: dict[str, _Call] = {}

    def on_next(self, item: Any) -> None:
        if isinstance(item, StreamChunk):
            now = self._read()
            call = self._calls.get(place_of(item)) or self._begin(item, item, now)
            call.add(item.content)
            for meter in call.meters:
                meter.chunk(now)
        elif isinstance(item, ReasoningChunk):
            call = self._calls.get(place_of(item)) or self._begin(item, item.origin, self._read())
            call.add(item.content)
        elif isinstance(item, TaskStarted):
            self._meter_of(_task_of(item.origin), self._read())
        elif isinstance(item, LLMFinished):
            self._end(item)
            self._show()
        elif isinstance(item, LLMFailed):
            self._end(item)
        elif isinstance(item, TaskFinished | TaskFailed):
            now = self._read()
            self._meter_of(_task_of(item.origin), now).ended = now
            self._show()

    def on_error(self, error: Exception) -> None:
        self._show()
        self._observer.on_error(error)

    def on_completed(self) -> None:
        self._show()
        self._observer.on_completed()

    def _meter_of(self, task: str, now: float) -> _Meter:
        meter = self._tasks.get(task)
        if meter is None:
            meter = self._tasks[task] = _Meter(now)
        return meter

    def _begin(self, item: object, place: Any, now: float) -> _Call:
        task = _task_of(place)
        meters = (self._all, self._meter_of(task, 0.0)) if task else (self._all,)
        call = self._calls[place_of(item)] = _Call(meters, task)
        return call

    def _end(self, event: LLMFinished | LLMFailed) -> None:
        call = self._calls.pop(place_of(event), None) or self._begin(event, event.origin, self._read())
        self._calls.pop(place_of(event), None)
        usage = event.usage if isinstance(event, LLMFinished) else None
        cost = event.cost if isinstance(event, LLMFinished) else None
        for meter in call.meters:
            if usage is not None and usage.total_tokens:
                meter.reported += usage.completion_tokens
            else:
                meter.estimated += call.estimate
            if cost is not None:
                meter.cost = (meter.cost or 0.0) + cost

    def _show(self) -> None:
        now = self._read()
        running = list(self._calls.values())
        tasks = {
            name: meter.read(now, [call for call in running if call.task == name], {})
            for name, meter in self._tasks.items()
        }
        self._observer.on_next(self._all.read(now, running, tasks))


def _task_of(place: Any) -> str:
    """The name that a task goes by; empty outside of tasks."""
    return str(place.task_name or place.task_id)
