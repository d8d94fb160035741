"""``stats``: measures the speed, amount and cost of a stream and of its tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow.operators._core import CallTracker, OpenCall, get_span_id, select, start_stopwatch
from rxflow.types import (
    Happened,
    LLMCancelled,
    LLMFailed,
    LLMFinished,
    ReasoningChunk,
    StreamChunk,
    TaskCancelled,
    TaskFailed,
    TaskFinished,
    TaskStarted,
)
from rxflow.types.results import BYTES_PER_TOKEN, UsageMetrics, count_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """Figures of a stream so far, or of one of its tasks. Times are in seconds.

    Attributes:
        seconds: time since the subscription. For a task: time from its first start until its last end, or until now if
            the task is running.
        first_chunk: time from the subscription, or from the first start of the task, until the first chunk; None if
            there is no chunk yet.
        chunks: number of chunks, including those of tool calls.
        chunks_per_second: number of chunks per second between the first chunk and the last, including pauses; 0 if
            there are fewer than two chunks, or if all came at the same time.
        tokens: tokens of the output, including reasoning, as reported by the providers or estimated.
        is_estimated: whether a part of ``tokens`` is estimated (one token per four bytes).
        cost: cost in US dollars of the calls that have ended and have a known price; None if there is no such call.
        tasks: the figures of each task, by the name of the task. Tasks with the same name are counted together.
    """

    seconds: float
    first_chunk: float | None
    chunks: int
    chunks_per_second: float
    tokens: int
    is_estimated: bool
    cost: float | None
    tasks: Mapping[str, Stats] = field(default_factory=dict[str, "Stats"])


def stats(*, scheduler: SchedulerBase | None = None) -> Callable[[Observable[Any]], Observable[Stats]]:
    """Measure a stream (like ``scan``). Emit figures when a call finishes, and when a task or the stream ends. ::

        events     S--a--b--{finished}---c--{finished}---F|
        stats()    ---------s---------------s------------(s|)

    If the stream fails, the last figures are emitted before the error. A stream of bare chunks does not show when calls
    and tasks end. So figures are emitted only when the stream ends, and the tokens are estimated.

    Args:
        scheduler: the clock. By default, the clock of the subscriber's scheduler is used, otherwise the clock of the
            running loop, otherwise the machine's clock.

    Example::

        flow.observe().pipe(ops.stats()).subscribe(lambda so_far: show(so_far.first_chunk, so_far.cost))
    """

    def measure(source: Observable[Any]) -> Observable[Stats]:
        def subscribe(observer: ObserverBase[Stats], subscribed: SchedulerBase | None = None) -> DisposableBase:
            meters = _Meters(observer, start_stopwatch(scheduler, subscribed))
            return source.subscribe(meters.on_next, meters.on_error, meters.on_completed, scheduler=subscribed)

        return Observable(subscribe)

    return select(measure)


class _Meter:
    """The counts of the whole stream, or of one task."""

    __slots__ = ("begun", "chunks", "cost", "ended", "estimated", "first", "last", "open", "reported")

    def __init__(self, begun: float) -> None:
        self.begun = begun
        self.open = 0  # how many of the tasks that this meter counts are running
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
            seconds=(now if self.ended is None or self.open else self.ended) - self.begun,
            first_chunk=None if first is None else first - self.begun,
            chunks=self.chunks,
            chunks_per_second=(self.chunks - 1) / spread if spread > 0 else 0.0,
            tokens=self.reported + estimated,
            is_estimated=estimated > 0,
            cost=self.cost,
            tasks=tasks,
        )


class _Call(OpenCall):
    """An open call. ``size`` is the size of its output in bytes. ``meters`` are the meters that count its output."""

    __slots__ = ("meters", "size", "task")

    def __init__(self, item: object, meters: tuple[_Meter, ...], task: str) -> None:
        super().__init__(item)
        self.meters = meters
        self.task = task
        self.size = 0

    def add(self, text: str) -> None:
        self.size += len(text) if text.isascii() else count_bytes(text)

    @property
    def estimate(self) -> int:
        return ceil(self.size / BYTES_PER_TOKEN)


class _Meters:
    """The meters of one subscription."""

    def __init__(self, observer: ObserverBase[Stats], read: Callable[[], float]) -> None:
        self._observer = observer
        self._read = read
        self._all = _Meter(0.0)
        self._tasks: dict[str, _Meter] = {}
        self._calls: CallTracker[_Call] = CallTracker()
        self._find = self._calls.get

    def on_next(self, item: Any) -> None:
        if isinstance(item, StreamChunk):
            now = self._read()
            call = self._find(get_span_id(item)) or self._begin(item, item, now)
            call.add(item.content)
            for meter in call.meters:
                meter.chunk(now)
        elif isinstance(item, ReasoningChunk):
            call = self._find(get_span_id(item)) or self._begin(item, item.origin, self._read())
            call.add(item.content)
        elif isinstance(item, Happened):
            self._on_event(item)

    def _on_event(self, event: Happened) -> None:
        ended = self._calls.find_ended(event)
        if isinstance(event, LLMFinished | LLMFailed | LLMCancelled) and not ended:
            ended = [self._begin(event, event.origin, self._read())]
        for call in ended:
            self._end(call, event)
        if isinstance(event, TaskStarted):
            self._get_meter(_get_task(event.origin), self._read()).open += 1
        elif isinstance(event, TaskFinished | TaskFailed | TaskCancelled):
            now = self._read()
            meter = self._get_meter(_get_task(event.origin), now)
            meter.open = max(0, meter.open - 1)
            meter.ended = now
        if isinstance(event, LLMFinished | TaskFinished | TaskFailed | TaskCancelled):
            self._emit_stats()

    def on_error(self, error: Exception) -> None:
        self._emit_stats()
        self._observer.on_error(error)

    def on_completed(self) -> None:
        self._emit_stats()
        self._observer.on_completed()

    def _get_meter(self, task: str, now: float) -> _Meter:
        meter = self._tasks.get(task)
        if meter is None:
            meter = self._tasks[task] = _Meter(now)
        return meter

    def _begin(self, item: object, labels: Any, now: float) -> _Call:
        task = _get_task(labels)
        meters = (self._all, self._get_meter(task, 0.0)) if task else (self._all,)
        return self._calls.add(_Call(item, meters, task))

    def _end(self, call: _Call, event: Happened) -> None:
        self._calls.remove(call)
        usage = event.usage if isinstance(event, LLMFinished) else UsageMetrics()
        # Some servers report 0 in all token fields. Such a call is treated like a call without a report.
        output = usage.completion_tokens if usage.total_tokens or usage.completion_tokens else None
        cost = event.cost if isinstance(event, LLMFinished | LLMFailed | LLMCancelled) else None
        for meter in call.meters:
            if output is None:
                meter.estimated += call.estimate
            elif usage.is_estimated:
                meter.estimated += output
            else:
                meter.reported += output
            if cost is not None:
                meter.cost = (meter.cost or 0.0) + cost

    def _emit_stats(self) -> None:
        now = self._read()
        running = list(self._calls)
        tasks = {
            name: meter.read(now, [call for call in running if call.task == name], {})
            for name, meter in self._tasks.items()
        }
        self._observer.on_next(self._all.read(now, running, tasks))


def _get_task(labels: Any) -> str:
    """Return the name of the task in ``labels``, or its id if it has no name; an empty string outside of tasks."""
    return str(labels.task_name or labels.task_id)
