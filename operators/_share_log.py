"""``share_log``: shares one run among many subscribers. Each subscriber gets all items of the run."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from datetime import timedelta
from threading import RLock
from typing import Any, Literal, TypeVar, cast

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import Disposable, SerialDisposable
from reactivex.scheduler import CurrentThreadScheduler, TimeoutScheduler
from reactivex.typing import RelativeTime

from rxflow._loops import LoopScheduler, get_loop, report_error, running_loop
from rxflow._streaming import Holder, Log, LogReader
from rxflow.operators._core import is_number, use_loop_time

T = TypeVar("T")


def share_log(
    on_zero: Literal["cancel", "detach"] | RelativeTime, *, scheduler: SchedulerBase | None = None
) -> Callable[[Observable[T]], Observable[T]]:
    """Share one subscription to the source (like ``replay`` with ``ref_count``). Each subscriber gets all items. ::

        source              --a--b--c--d|
        share_log(…)
          first             --a--b--c--d|
          second                 (abc)-d|           (it subscribes between "c" and "d")
          after the end                     (abcd|)

    The first subscriber starts the source. A later subscriber receives all items so far, and then the live items. Each
    subscriber receives each item exactly once and in order, in whichever thread it subscribes. The error or completion
    is kept with the items. So a subscriber that comes after the end receives everything, without a new run.

    ``on_zero`` defines what happens when the last subscription is disposed before the end:

    - ``"cancel"``: the source is disposed at once, which also closes the connection to a provider. The items so far are
      dropped. The next subscriber starts a new run.
    - ``"detach"``: the source continues without subscribers. A later subscriber still gets all items.
    - a number of seconds, or a timedelta: the source continues for that time. If nobody subscribes in that time, the
      same happens as with ``"cancel"``.

    A subscriber receives the earlier items in the thread in which it subscribes, and live items in the thread in which
    the source emits. Items that arrive while the subscriber receives the earlier items may come in either thread. If an
    observer raises, only its own subscription ends. The error is reported to the exception handler of the running loop
    or, without a loop, to ``threading.excepthook``. An observer that blocks on a live item delays the emitting thread,
    and so all other observers. To avoid this, put :func:`overflow` with ``scheduler=EventLoopScheduler()`` before that
    observer. The observer then has a thread of its own.

    Operators after this one are outside the run, so they receive only the shared items. If they need the events of the
    run, as ``stats`` does, share ``flow.events()``.

    Args:
        on_zero: see above.
        scheduler: the clock, if ``on_zero`` is a time. By default, the loop of the source is used, or a timer thread if
            the source has no loop.

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

    def operator(source: Observable[T]) -> Observable[T]:
        return Observable(_Shared(source, grace_s, scheduler).subscribe)

    return operator


class _Shared:
    """Holds the current subscription to the source. If there is none, a new subscriber begins one.

    The lock guards the current subscription and its readers. It is not held while users' code or the source runs.
    """

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

        # RxPY's trampoline calls catch_up() only after subscribe() has returned. So the observer can dispose its
        # subscription when it gets the earlier items. But if the source emits while it is subscribed, _on_next() has
        # already delivered these items.
        CurrentThreadScheduler.singleton().schedule(_to_action(reader.catch_up))
        return Disposable(reader.leave)

    def leave(self, reader: _Reader) -> None:
        """Remove a subscriber. If none is left, ``on_zero`` decides whether and when the source is disposed."""
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
    """One subscription to the source, and the log of its items."""

    def __init__(self) -> None:
        self.log: Log[Any] = Log()
        self.readers: tuple[_Reader, ...] = ()
        self.absence: object | None = None
        """Identifies the last period without readers; None after a reader has joined.

        When the timer of an earlier period fires, it finds another value, and does nothing.
        """
        self.timer = SerialDisposable()
        self.loop: asyncio.AbstractEventLoop | None = None
        self._subscription = Holder()

    def begin(self, source: Observable[Any], scheduler: SchedulerBase | None) -> None:
        self.loop = running_loop()
        self._subscription.hold(
            source.subscribe(self._on_next, self._end, lambda: self._end(None), scheduler=scheduler)
        )

    def cancel(self) -> None:
        self._subscription.dispose()

    def _on_next(self, item: Any) -> None:
        # Append the item before the readers are called. If another thread is delivering to a reader, catch_up() returns
        # at once here. That thread looks for new items again when it has finished, so it finds this item.
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
    """One subscriber and its position in the log. A call must take the single ``_token`` before it delivers items."""

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
        """Deliver all items that have arrived. Return at once if another call is already delivering."""
        while self._observer is not None and self.run.log.has(self._reader.position):
            try:
                self._token.pop()
            except IndexError:
                return  # the call that has taken the token looks for items again after it has put the token back
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
            is_ended = log.is_ended  # read this before the items: a log that has ended has all items
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
    """Call ``action`` after ``seconds``, with ``scheduler``, otherwise on ``loop``, otherwise in a timer thread.

    If the loop is closed, call ``action`` now, because a timer would never fire.
    """
    clock = use_loop_time(scheduler) or (TimeoutScheduler.singleton() if loop is None else LoopScheduler(loop))
    try:
        return clock.schedule_relative(seconds, _to_action(action))
    except RuntimeError:
        timer_loop = get_loop(clock)
        if timer_loop is None or not timer_loop.is_closed():
            raise
    action()
    return Disposable()
