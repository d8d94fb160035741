"""Clocks and timers for operators. By default, timers use the event loop that runs when the stream is subscribed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, ClassVar, TypeAlias

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import Disposable, SerialDisposable, SingleAssignmentDisposable
from reactivex.scheduler.eventloop import AsyncIOScheduler, AsyncIOThreadSafeScheduler
from reactivex.typing import RelativeTime, ScheduledAction

from rxflow._loops import LoopScheduler, get_loop, running_loop


class StreamTimeout(TimeoutError):
    """A stream exceeded a limit of ``seconds``. ``seen`` describes the last item before the time-out."""

    _message: ClassVar[str] = "no item for {seconds:g} s; the last item: {seen}"

    def __init__(self, seconds: float, seen: str) -> None:
        super().__init__(self._message.format(seconds=seconds, seen=seen))
        self.seconds = seconds
        self.seen = seen

    def __reduce__(self) -> tuple[type[StreamTimeout], tuple[float, str]]:
        return type(self), (self.seconds, self.seen)


def find_clock(
    operator: str,
    given: SchedulerBase | None,
    subscribed: SchedulerBase | None,
    loop: asyncio.AbstractEventLoop | None,
) -> SchedulerBase:
    """Return the scheduler for one subscription: ``given``, otherwise ``subscribed``, otherwise one for ``loop``.

    ``given`` is an argument of the operator, and ``subscribed`` is the subscriber's scheduler. ``loop`` is the loop
    that was running at the subscription. The loop that runs when an item arrives would be wrong: it may belong to the
    source, and may end together with the source.

    Raises:
        RuntimeError: all three are None.
    """
    chosen = use_loop_time(given or subscribed)
    if chosen is not None:
        return chosen
    if loop is None:
        raise RuntimeError(
            f"{operator} needs a clock, and no event loop runs here: put it directly after observe() or events(), "
            "subscribe inside a coroutine, or pass scheduler=…"
        )
    return LoopScheduler(loop)


def use_loop_time(scheduler: SchedulerBase | None) -> SchedulerBase | None:
    """Replace RxPY's schedulers for asyncio by a LoopScheduler. Return any other scheduler, or None, unchanged.

    Both of RxPY's schedulers read the wall clock. RxPY uses an AsyncIOScheduler when an Observable is awaited: it
    serves only the loop's own thread. The timers of an AsyncIOThreadSafeScheduler cannot always be disposed at once: on
    another loop, ``dispose()`` waits for the timer's loop.
    """
    is_replaced = type(scheduler) in (AsyncIOScheduler, AsyncIOThreadSafeScheduler)  # a subclass may have its own time
    loop = get_loop(scheduler) if is_replaced else None
    return scheduler if loop is None else LoopScheduler(loop)


TimedSubscription: TypeAlias = Callable[[ObserverBase[Any], SchedulerBase, SchedulerBase | None], DisposableBase]
"""Subscribes an observer.

The second argument is the clock. The last argument is the subscriber's scheduler, which is passed on to the source.
"""


def create_timed(operator: str, given: SchedulerBase | None, subscribe: TimedSubscription) -> Observable[Any]:
    """Create an Observable that finds a clock for each subscription. Without a clock, it fails with a RuntimeError."""

    def subscribe_timed(observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
        try:
            clock = find_clock(operator, given, scheduler, running_loop())
        except RuntimeError as error:
            observer.on_error(error)
            return Disposable()
        return subscribe(observer, clock, scheduler)

    return Observable(subscribe_timed)


def set_timer(timer: SerialDisposable, clock: SchedulerBase, time: RelativeTime, action: ScheduledAction[Any]) -> None:
    """Call ``action`` after ``time``, unless ``timer`` gets another disposable before, or is disposed.

    ``action`` may itself give ``timer`` another disposable, such as the next timer. Some schedulers call ``action``
    before they return. So ``timer`` is filled first: otherwise the old timer would replace the new one.
    """
    pending = SingleAssignmentDisposable()
    timer.disposable = pending
    pending.disposable = clock.schedule_relative(time, action)


def start_stopwatch(given: SchedulerBase | None, subscribed: SchedulerBase | None) -> Callable[[], float]:
    """Start to measure time. Return a function that returns the seconds since then.

    The clock is that of ``given``, otherwise that of ``subscribed``, otherwise that of the running loop. Without a
    loop, the machine's clock is enough, because no timer is needed.
    """
    scheduler = use_loop_time(given or subscribed)
    if scheduler is not None:
        clock, started_at = scheduler, scheduler.now

        def read_clock() -> float:
            return (clock.now - started_at).total_seconds()

        return read_clock
    loop = running_loop()
    read = time.monotonic if loop is None else loop.time
    started = read()
    return lambda: read() - started


class SilenceWatch(DisposableBase):
    """Calls ``ring`` at regular intervals while a stream is silent.

    Each item begins a new silence. ``ring`` is called when the silence has lasted ``seconds``, twice ``seconds``, and
    so on. It gets the length of the silence in seconds. At most one timer is pending. :meth:`note_item` only records
    the time, and does not reset the timer. A timer that fires too early is set again for the rest of the time. ::

        items     a-b---------
        timer     ---|-|--|---     (seconds=3; the first timer fires too early, the others call ring)
    """

    def __init__(self, clock: SchedulerBase, seconds: float, ring: Callable[[float], None]) -> None:
        self._clock = clock
        self._limit = timedelta(seconds=seconds)
        self._ring = ring
        self._silent_since = self._rung_at = clock.now
        self._timer = SerialDisposable()
        self._is_watching = False

    def note_item(self) -> None:
        """Note an item: the silence begins again."""
        self._silent_since = self._clock.now

    def start(self) -> None:
        """Start to watch a silence that begins now."""
        self._silent_since = self._clock.now
        if not self._is_watching and not self._timer.is_disposed:
            self._is_watching = True
            self._wait(self._limit)

    def pause(self) -> None:
        """Stop watching until the next :meth:`start`."""
        if self._is_watching:
            self._is_watching = False
            self._timer.disposable = None

    def dispose(self) -> None:
        """Stop watching forever."""
        self._timer.dispose()

    def _wait(self, time: timedelta) -> None:
        set_timer(self._timer, self._clock, time, self._check)

    def _check(self, scheduler: SchedulerBase, state: object = None) -> None:
        now = self._clock.now
        rest = self._limit - (now - max(self._silent_since, self._rung_at))
        if rest > timedelta():
            self._wait(rest)
            return
        self._rung_at = now
        self._wait(self._limit)
        self._ring((now - self._silent_since).total_seconds())
