"""``log_to``: writes the events of a run to a log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import Disposable

from rxflow._loops import call_soon, running_loop
from rxflow._streaming import DEFAULT_STOP_REASON, Border, Holder, current_border
from rxflow._text import in_words
from rxflow.operators._core import add_context, through
from rxflow.operators._core.log_writer import LogWriter
from rxflow.operators._core.run_log import End, Log, Writer, check_run_id
from rxflow.types import Event, Happened, Started, StreamChunk

T = TypeVar("T")


def log_to(log: Log, run_id: str) -> Callable[[Observable[T]], Observable[T]]:
    """Write all events to a log (like ``do``). :func:`from_log` reads the log. ::

        source                --a--b----|
        log_to(log, "r")      --a--b----|
        the log               --a--b----|      (| is the end of the run: completed, paused, failed or cancelled)

    The stream is unchanged. An event is passed on at once, so a subscriber may receive the event before it is written.
    The end of the source is passed on only after it was written. But if the event loop is closed, the stream ends
    without waiting for the log. Code that must act only on written events subscribes to :func:`from_log` instead.

    Events are written in batches. A batch has the events of one step of the event loop, or the events that arrived
    while the previous batch was being written. The log of a run contains all events, even if only chunks are selected.

    If an item is not an event, or the log cannot be written, the stream ends with one of the errors below. The source
    is then disposed.

    Args:
        log: a :class:`rxflow.runs.MemoryLog`, ``SQLiteLog`` or ``RedisLog``, or a log of your own.
        run_id: the name of the run in the log. Each subscription is a run, so a second subscription is refused.

    Raises:
        TypeError: an item is not an event. Also raised at once, if ``run_id`` is not a string.
        RunExistsError: the log already has a run with this id.
        StoreError: the log cannot be written, or is too slow for the run.
        EventTooLargeError: an event is too large for the log. The events before it are written.

    Example::

        flow.events().pipe(ops.log_to(log, "trip-7")).subscribe()
    """

    check_run_id(run_id)

    def operator(source: Observable[Any]) -> Observable[Any]:
        def subscribe(observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
            return _Logged(log, run_id, observer).begin(source, scheduler)

        return Observable(subscribe)

    return through(operator)


class _Logged:
    """One subscription to the result of ``log_to``.

    When the end is written, the log reports this, perhaps in another thread. The terminal is then emitted on the loop
    that was running at the subscription. If no loop was running, the terminal is emitted in the thread of the report.
    """

    def __init__(self, log: Log, run_id: str, observer: ObserverBase[Any]) -> None:
        self._observer = observer
        self._running = Holder()
        self._loop = running_loop()
        self._is_disposed = False
        self._source_error: Exception | None = None
        self._border = current_border()
        self._writer = LogWriter(
            log,
            Writer(run_id),
            lambda error: self._on_source(self._stop, error),
            close=None if self._border is None else partial(_close_span, self._border),
        )

    def begin(self, source: Observable[Any], scheduler: SchedulerBase | None) -> DisposableBase:
        self._running.hold(
            source.subscribe(self._on_next, self._on_error, partial(self._finish, None), scheduler=scheduler)
        )
        return Disposable(self._dispose)

    def _on_next(self, event: Any) -> None:
        if not isinstance(event, Happened | StreamChunk):
            error = TypeError(f"log_to writes events and chunks; got {event!r}")
            self._writer.end(End("failed", error))
            self._stop(error)
            return
        self._writer.on_next(cast(Event, event))
        self._observer.on_next(event)

    def _on_error(self, error: Exception) -> None:
        if isinstance(error, asyncio.CancelledError):
            self._writer.end(End("cancelled", reason="its event loop was closed"))
            self._observer.on_error(error)
        else:
            self._finish(error)

    def _finish(self, error: Exception | None) -> None:
        self._source_error = error
        for event in self._close_spans(DEFAULT_STOP_REASON if error is None else in_words(error)):
            self._on_next(event)
        self._writer.end(End("completed") if error is None else End("failed", error))
        self._writer.done.add_done_callback(
            lambda done: None if done.exception() else self._on_source(self._tell_end, error)
        )

    def _close_spans(self, reason: str) -> list[Event]:
        return [] if self._border is None else self._border.close_spans(reason)

    def _on_source(self, act: Callable[[Exception | None], None], error: Exception | None) -> None:
        if self._loop is None or running_loop() is self._loop:
            act(error)
        else:
            call_soon(self._loop, partial(act, error))

    def _tell_end(self, error: Exception | None) -> None:
        if self._is_disposed:
            return
        self._is_disposed = True
        if error is None:
            self._observer.on_completed()
        else:
            self._observer.on_error(error)

    def _stop(self, error: Exception | None) -> None:
        self._running.dispose()
        if error is not None:
            add_context(error, self._source_error)
        self._tell_end(error)

    def _dispose(self) -> None:
        self._is_disposed = True
        self._running.dispose()
        self._writer.end(End("cancelled", reason="its subscription was disposed"))


def _close_span(border: Border, started: Started, reason: str) -> Event:
    """Return the event that closes the span of ``started``. The span is still open when the log ends."""
    return border.stamp(border.describe_stopped(started, reason))
