"""``share_log``: one run for many subscribers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from threading import RLock
from typing import Any, Literal, TypeVar, cast

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import Disposable, SerialDisposable, SingleAssignmentDisposable
from reactivex.scheduler import CurrentThreadScheduler, TimeoutScheduler

from rxflow.loops import call_soon, running_loop
from rxflow.operators._core.reporting import report
from rxflow.streaming.log import Log, LogReader

T = TypeVar("T")


def share_log(
    on_zero: Literal["cancel", "detach"] | float, *, scheduler: SchedulerBase | None = None
) -> Callable[[Observable[T]], Observable[T]]:
    """One subscription of the source for any number of subscribers; each sees all of it, from its first item. ::

        source              --a--b--c--d|
        share_log(…)
          first             --a--b--c--d|
          second                 (abc)-d|           it subscribes here, at the last column of "c"
          after the end                     (abcd|)

    The first subscriber starts the source. One that comes later is given what has been, and then goes on live: each
    item exactly once and in order, from whichever thread it subscribes. Errors and completion are kept with the items,
    so whoever comes after the end still has everything, without a new run.

    ``on_zero`` says what happens when the last subscriber has left before the end:

    - ``"cancel"``: the source is disposed at once (a provider's connection closes), and its log is dropped. A new
      subscriber starts a new run.
    - ``"detach"``: the source runs on without anybody; whoever comes later still sees all.
    - a number: it runs on for so many seconds. If nobody has come by then, it is cancelled as above.

    Items are passed on in the thread in which the source emits, what has been in the subscriber's. An observer that
    raises loses its own subscription only, and the loop's exception handler is told (without a loop: the thread's). One
    that blocks in a live item holds up the emitting thread, and with it the others: give it a thread by
    :func:`overflow`.

    It stands around the run, not in it: what follows sees the shared items only. To order or measure by events after
    it, share ``flow.events()``.

    Args:
        on_zero: see above.
        scheduler: counts the seconds; else the source's loop does, or a timer thread where there is none.

    Raises:
        ValueError: ``on_zero`` is none of these.

    Example::

        shared = flow.observe().pipe(ops.share_log("cancel"))
        shared.subscribe(show)
        shared.pipe(ops.overflow(100)).subscribe(send_slowly)
    """
    if isinstance(on_zero, str):
        if on_zero not in ("cancel", "detach"):
            raise ValueError(f'on_zero is "cancel", "detach" or a number of seconds; got {on_zero!r}')
        patience = 0.0 if on_zero == "cancel" else math.inf
    else:
        patience = float(on_zero)
        if patience < 0 or math.isnan(patience):
            raise ValueError(f"on_zero in seconds cannot be negative: {on_zero!r}")

    def shared(source: Observable[T]) -> Observable[T]:
        return Observable(_Shared(source, patience, scheduler).subscribe)

    return shared


class _Shared:
    """The runs of one source, one at a time. The lock guards who comes and goes, and is never held in others' code."""

    def __init__(self, source: Observable[Any], patience: float, scheduler: SchedulerBase | None) -> None:
        self._source = source
        self._patience = patience
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

        # By way of the trampoline, so that an observer that soon has enough has its disposable by then.
        CurrentThreadScheduler.singleton().schedule(_action(reader.catch_up))
        return Disposable(reader.leave)

    def leave(self, reader: _Reader) -> None:
        """A subscriber goes; after the last one the source may have to."""
        run = reader.run
        with self._lock:
            if reader not in run.readers:
                return
            run.readers = tuple(each for each in run.readers if each is not reader)
            if run.readers or run.log.is_ended or self._patience == math.inf:
                return
            absence = run.absence = object()
            if not self._patience:
                self._forget(run)
        if not self._patience:
            run.cancel()
            return

        def give_up() -> None:
            with self._lock:
                if run.absence is not absence or run.log.is_ended:
                    return
                self._forget(run)
            run.cancel()

        run.timer.disposable = _later(self._patience, give_up, self._scheduler, run.loop)

    def _forget(self, run: _Run) -> None:
        if self._run is run:
            self._run = None


class _Run:
    """One subscription of the source, and its log."""

    def __init__(self) -> None:
        self.log: Log[Any] = Log()
        self.readers: tuple[_Reader, ...] = ()
        self.absence: object | None = None
        """Stands for the time in which nobody is there."""
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
        # Append, then look for readers; they take their turn, then look for items. So one of the two sees the other.
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
    """One subscriber, and how far it has read. Whichever thread has the turn gives it what there is."""

    __slots__ = ("_observer", "_on_leave", "_reader", "_turn", "run")

    def __init__(self, run: _Run, observer: ObserverBase[Any], on_leave: Callable[[_Reader], None]) -> None:
        self.run = run
        self._observer: ObserverBase[Any] | None = observer
        self._on_leave = on_leave
        self._reader = LogReader(run.log)
        self._turn = [True]

    def leave(self) -> None:
        """It wants no more. From any thread."""
        self._observer = None
        self._on_leave(self)

    def catch_up(self) -> None:
        """Give it all that has arrived, unless another call does so."""
        while self._observer is not None and self.run.log.has(self._reader.position):
            try:
                self._turn.pop()
            except IndexError:
                return  # who has the turn looks again after giving it back
            try:
                self._deliver()
            except Exception as error:  # noqa: BLE001 - reported; the other subscribers go on
                self.leave()
                report(error, "an observer of share_log raised; its subscription is over")
            finally:
                self._turn.append(True)

    def _deliver(self) -> None:
        log = self.run.log
        while (observer := self._observer) is not None:
            is_ended = log.is_ended  # looked at first: what came before the end is in the log by then
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


def _action(call: Callable[[], None]) -> Callable[[SchedulerBase, Any], None]:
    """As schedulers take it."""

    def act(scheduler: SchedulerBase, state: Any) -> None:
        call()

    return act


def _later(
    seconds: float,
    action: Callable[[], None],
    scheduler: SchedulerBase | None,
    loop: asyncio.AbstractEventLoop | None,
) -> DisposableBase:
    """A timer that any thread may set and stop."""
    if scheduler is not None or loop is None:
        return (scheduler or TimeoutScheduler.singleton()).schedule_relative(seconds, _action(action))
    timer = _LoopTimer(loop, seconds, action)
    if not timer.on_loop(timer.begin):
        action()  # the source has lived there
    return timer


class _LoopTimer(DisposableBase):
    """A loop's own timers are for its thread only."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, action: Callable[[], None]) -> None:
        self._loop = loop
        self._seconds = seconds
        self._action = action
        self._handle: asyncio.TimerHandle | None = None
        self._is_disposed = False

    def on_loop(self, callback: Callable[[], None]) -> bool:
        """Run it there; False where the loop has ended."""
        if running_loop() is not self._loop:
            return call_soon(self._loop, callback)
        callback()
        return True

    def begin(self) -> None:
        """On the loop's thread."""
        if not self._is_disposed:
            self._handle = self._loop.call_later(self._seconds, self._action)

    def dispose(self) -> None:
        self._is_disposed = True
        self.on_loop(self._stop)

    def _stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
