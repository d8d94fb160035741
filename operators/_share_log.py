"""``share_log``: shares one run among many subscribers, each of which gets all its items."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from datetime import timedelta
from threading import RLock
from typing import Any, Literal, TypeVar, cast

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import Disposable, SerialDisposable, SingleAssignmentDisposable
from reactivex.scheduler import CurrentThreadScheduler, TimeoutScheduler
from reactivex.typing import RelativeTime

from rxflow._loops import call_soon, running_loop
from rxflow._streaming import Log, LogReader
from rxflow.operators._core import is_number, report_error

T = TypeVar("T")


def share_log(
    on_zero: Literal["cancel", "detach"] | RelativeTime, *, scheduler: SchedulerBase | None = None
) -> Callable[[Observable[T]], Observable[T]]:
    """Share one subscription of the source (like ``replay`` with ``ref_count``); each subscriber sees all its items. ::

        source              --a--b--c--d|
        share_log(…)
          first             --a--b--c--d|
          second                 (abc)-d|           it subscribes here, at the last column of "c"
          after the end                     (abcd|)

    The first subscriber starts the source. A later one receives all items so far, and then live items: each item
    exactly once and in order, whichever thread it subscribes in. The error or completion is kept with the items, so a
    subscriber that comes after the end receives everything without a new run.

    ``on_zero`` defines what happens when the last subscriber leaves before the end:

    - ``"cancel"``: the source is disposed at once (a provider's connection closes), and its log is dropped. A new
      subscriber starts a new run.
    - ``"detach"``: the source continues without subscribers; a later one still gets all items.
    - a number of seconds, or a timedelta: the source continues for that time. If no subscriber comes, it is cancelled
      as with ``"cancel"``.

    Live items are emitted in the thread in which the source emits, earlier items in the subscriber's thread. An
    observer that raises loses only its own subscription, and the error is reported to the loop's exception handler (or,
    without a loop, to the thread's). An observer that blocks in a live item delays the emitting thread, and so the
    other observers: give it a thread of its own with :func:`overflow`.

    The result is outside the run: operators after it receive only the shared items. To order or measure by events after
    it, share ``flow.events()``.

    Args:
        on_zero: see above.
        scheduler: the clock for the seconds; by default the source's loop, or a timer thread if there is none.

    Raises:
        TypeError: ``on_zero`` is neither a string nor a time.
        ValueError: ``on_zero`` is an unknown string, or negative.

    Example::

        shared = flow.observe().pipe(ops.share_log("cancel"))
        shared.subscribe(show)
        shared.pipe(ops.overflow(100)).subscribe(send_slowly)
    """
    if isinstance(on_zero, str):
        if on_zero not in ("cancel", "detach"):
            raise ValueError(f'share_log(on_zero) must be "cancel", "detach" or a time in seconds; got {on_zero!r}')
        grace_s = 0.0 if on_zero == "cancel" else math.inf
    else:
        grace_s = on_zero.total_seconds() if isinstance(on_zero, timedelta) else on_zero
        if not is_number(grace_s):
            raise TypeError(f'share_log(on_zero) must be "cancel", "detach" or a time in seconds; got {on_zero!r}')
        if grace_s < 0 or math.isnan(grace_s):
            raise ValueError(f"share_log(on_zero) cannot be negative: {on_zero!r}")

    def shared(source: Observable[T]) -> Observable[T]:
        return Observable(_Shared(source, grace_s, scheduler).subscribe)

    return shared


class _Shared:
    """The runs of one source, one at a time. The lock guards the readers, and is not held while other code runs."""

    def __init__(self, source: Observable[Any], grace_s: float, scheduler: SchedulerBase | None) -> None:
        self._source = source
        self._grace_s = grace_s
        self._scheduler = scheduler
        self._lock = RLock()
        self._run: _Run | None = None

    def subscribe(self, observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
        with self._lock:
            run = self._run
            is_first = run is None
            if run is None:
                run = self._run = _Run()
            reader = _Reader(run, observer, self.leave)
            run.readers = (*run.readers, reader)
            run.absence = None
        if is_first:
            run.begin(self._source, scheduler)
        else:
            run.timer.disposable = Disposable()

        # The trampoline runs this after subscribe() has returned, so that the observer can dispose at the first item.
        CurrentThreadScheduler.singleton().schedule(_to_action(reader.catch_up))
        return Disposable(reader.leave)

    def leave(self, reader: _Reader) -> None:
        """Remove a subscriber. After the last one, the source may be cancelled."""
        run = reader.run
        with self._lock:
            if reader not in run.readers:
                return
            run.readers = tuple(each for each in run.readers if each is not reader)
            if run.readers or run.log.is_ended or self._grace_s == math.inf:
                return
            absence = run.absence = object()
            if not self._grace_s:
                self._forget(run)
        if not self._grace_s:
            run.cancel()
            return

        def cancel_run() -> None:
            with self._lock:
                if run.absence is not absence or run.log.is_ended:
                    return
                self._forget(run)
            run.cancel()

        run.timer.disposable = _schedule(self._grace_s, cancel_run, self._scheduler, run.loop)

    def _forget(self, run: _Run) -> None:
        if self._run is run:
            self._run = None


class _Run:
    """One subscription to the source, and its log."""

    def __init__(self) -> None:
        self.log: Log[Any] = Log()
        self.readers: tuple[_Reader, ...] = ()
        self.absence: object | None = None
        """Identifies the current period without readers."""
        self.timer = SerialDisposable()
        self.loop: asyncio.AbstractEventLoop | None = None
        self._subscription = SingleAssignmentDisposable()

    def begin(self, source: Observable[Any], scheduler: SchedulerBase | None) -> None:
        self.loop = running_loop()
        self._subscription.disposable = source.subscribe(
            self._on_next, self._end, lambda: self._end(None), scheduler=scheduler
        )

    def cancel(self) -> None:
        self._subscription.dispose()

    def _on_next(self, item: Any) -> None:
        # Append, then look for readers. A reader takes its token, then looks for items. So one of the two sees the
        # other.
        if not len(self.log):
            self.loop = running_loop()
        self.log.append(item)
        for reader in self.readers:
            reader.catch_up()

    def _end(self, error: Exception | None) -> None:
        self.log.end(error)
        self.timer.dispose()
        for reader in self.readers:
            reader.catch_up()
        self.readers = ()


class _Reader:
    """One subscriber and its position. The thread that holds the token delivers items to it."""

    __slots__ = ("_observer", "_on_leave", "_reader", "_token", "run")

    def __init__(self, run: _Run, observer: ObserverBase[Any], on_leave: Callable[[_Reader], None]) -> None:
        self.run = run
        self._observer: ObserverBase[Any] | None = observer
        self._on_leave = on_leave
        self._reader = LogReader(run.log)
        self._token = [True]

    def leave(self) -> None:
        """End the subscription. May be called in any thread."""
        self._observer = None
        self._on_leave(self)

    def catch_up(self) -> None:
        """Deliver all items that have arrived, unless another thread is doing it."""
        while self._observer is not None and self.run.log.has(self._reader.position):
            try:
                self._token.pop()
            except IndexError:
                return  # the holder of the token looks for items again after putting the token back
            try:
                self._deliver()
            except Exception as error:  # noqa: BLE001 - reported; the other subscribers continue
                self.leave()
                report_error(error, "an observer of share_log raised; its subscription was disposed")
            finally:
                self._token.append(True)

    def _deliver(self) -> None:
        log = self.run.log
        while (observer := self._observer) is not None:
            is_ended = log.is_ended  # read first, because all items before the end are in the log by then
            if not self._reader.has_read_all():
                observer.on_next(self._reader.read())
            elif is_ended:
                self._observer = None
                if log.error is None:
                    observer.on_completed()
                else:
                    observer.on_error(cast(Exception, log.error))
            else:
                return


def _to_action(call: Callable[[], None]) -> Callable[[SchedulerBase, Any], None]:
    """Convert a function to an action for schedulers."""

    def act(scheduler: SchedulerBase, state: Any) -> None:
        call()

    return act


def _schedule(
    seconds: float,
    action: Callable[[], None],
    scheduler: SchedulerBase | None,
    loop: asyncio.AbstractEventLoop | None,
) -> DisposableBase:
    """Set a timer. It may be set and disposed in any thread."""
    if scheduler is not None or loop is None:
        return (scheduler or TimeoutScheduler.singleton()).schedule_relative(seconds, _to_action(action))
    timer = _LoopTimer(loop, seconds, action)
    if not timer.on_loop(timer.begin):
        action()  # the loop belonged to the source, and has ended
    return timer


class _LoopTimer(DisposableBase):
    """A timer on a loop that other threads may use. A loop's own timers are only for its own thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, action: Callable[[], None]) -> None:
        self._loop = loop
        self._seconds = seconds
        self._action = action
        self._handle: asyncio.TimerHandle | None = None
        self._is_disposed = False

    def on_loop(self, callback: Callable[[], None]) -> bool:
        """Run ``callback`` on the loop. Return False if the loop has ended."""
        if running_loop() is not self._loop:
            return call_soon(self._loop, callback)
        callback()
        return True

    def begin(self) -> None:
        """Set the timer. Called on the loop's thread."""
        if not self._is_disposed:
            self._handle = self._loop.call_later(self._seconds, self._action)

    def dispose(self) -> None:
        self._is_disposed = True
        self.on_loop(self._stop)

    def _stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
