"""``retry_stream``: subscribes again after an error, and reports which output is void."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import SerialDisposable
from reactivex.typing import RelativeTime

from rxflow._loops import Once, running_loop
from rxflow._streaming import Holder, find_stamp
from rxflow.operators._core import (
    Adding,
    Attempts,
    ErrorFilter,
    add_context,
    also,
    check_choice,
    check_count,
    compile_error_filter,
    find_clock,
    set_timer,
    through,
    to_seconds,
)
from rxflow.types import Retracted


def retry_stream(
    times: int,
    *,
    retry_on: ErrorFilter = Exception,
    delay: RelativeTime | Callable[[int], RelativeTime] = 0.0,
    on_shown: Literal["retract", "error"] = "retract",
    scheduler: SchedulerBase | None = None,
) -> Adding[Retracted]:
    """Subscribe to the source again after an error (like ``retry``), at most ``times`` times.

    If the source is a run, the run begins anew. The output of the failed attempt is then void. A ``Retracted`` event
    reports this at once, before any delay. If the failed attempt had no output, no ``Retracted`` is emitted. The chunks
    of the next attempt have a higher ``attempt`` than all earlier chunks. Operators that select items, such as
    ``text``, drop the ``Retracted``. So put ``retry_stream`` after such operators. ::

        source             --a--b--#
        again              --a--b--c|
        retry_stream(1)    --a--b--R--a'-b'-c'|    (R: Retracted(attempts=(0,)); a' has attempt 1)

    The error of the last attempt is passed on. If there were several attempts, a note on the error has their number. A
    cancellation, a KeyboardInterrupt or a SystemExit is passed on at once.

    Retries multiply. If a call fails before its first chunk, the ``LLM`` itself tries again: twice, unless
    ``max_retries`` is given. So ``retry_stream(2)`` sends up to 3 × 3 = 9 requests to a provider that is down. If there
    were more requests than attempts, the note on the error also has the number of requests. Use this operator for
    streams that fail after their first chunk, and for whole crews and flows. To retry on one level only, create the
    model with ``LLM(…, max_retries=0)``.

    Args:
        times: the greatest number of attempts after the first.
        retry_on: the errors after which to try again: an exception class, a tuple of classes, or a function that gets
            an error and returns True or False.
        delay: the time before each further attempt, in seconds or as a timedelta. It may also be a function that
            gets the number of the retry (counted from 1) and returns the time.
        on_shown: what happens if the failed attempt had output. ``"retract"`` retracts the output and tries again,
            ``"error"`` passes the error on.
        scheduler: the clock for ``delay``. By default, this is the subscriber's scheduler, otherwise the event loop
            that runs at the subscription.

    Example::

        flow.observe().pipe(ops.retry_stream(3, retry_on=ConnectionError, delay=lambda n: min(2**n, 30)))

    Raises:
        RuntimeError: ``delay`` is above 0, but there is no scheduler, and no event loop was running at the
            subscription. The stream ends with this error when the delay would begin.
        ValueError: ``times`` or ``delay`` is negative, ``delay`` is infinite, or ``on_shown`` is unknown.
        TypeError: ``times`` is not an integer, ``delay`` is not a time, or ``retry_on`` is neither classes nor a
            function.
    """
    check_count(times, "retry_stream(times)", 0)
    if not callable(delay):
        _to_delay(delay)
    check_choice(on_shown, "retry_stream(on_shown=…)", "retract", "error")
    plan = _Plan(
        times=times,
        is_meant=compile_error_filter(retry_on, "retry_stream(retry_on=…)"),
        delay=delay if callable(delay) else lambda _: delay,
        may_retract=on_shown == "retract",
        scheduler=scheduler,
    )

    def operator(source: Observable[Any]) -> Observable[Any]:
        def subscribe(observer: ObserverBase[Any], subscribed: SchedulerBase | None = None) -> DisposableBase:
            retrying = _Retrying(source, observer, subscribed, plan)
            retrying.begin()
            return retrying.current

        return Observable(subscribe)

    def apply(source: Observable[Any]) -> Observable[Any]:
        return source.pipe(through(operator), also(Retracted))

    return cast("Adding[Retracted]", apply)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    times: int
    is_meant: Callable[[BaseException], bool]
    delay: Callable[[int], RelativeTime]
    may_retract: bool
    scheduler: SchedulerBase | None


class _Retrying:
    """The attempts of one subscription."""

    def __init__(
        self, source: Observable[Any], observer: ObserverBase[Any], subscribed: SchedulerBase | None, plan: _Plan
    ) -> None:
        self.current = SerialDisposable()
        self._source = source
        self._observer = observer
        self._emit = observer.on_next
        self._subscribed = subscribed
        self._plan = plan
        self._find_clock = partial(find_clock, "retry_stream(delay=…)", plan.scheduler, subscribed, running_loop())
        self._stamp = find_stamp()
        self._attempts = Attempts()
        self._number = self._attempts.number
        self._retries = 0
        self._is_due = False
        self._beginning = Once()

    def begin(self, *_: object) -> None:
        """Subscribe to the source.

        If the source fails during ``subscribe()``, the next attempt begins after ``subscribe()`` has returned.
        """
        self._is_due = True
        while self._is_due and not self.current.is_disposed and self._beginning.take():
            if self._is_due:  # False if another thread began the attempt before this thread took the token
                self._is_due = False
                attempt = Holder()
                self.current.disposable = attempt
                attempt.hold(
                    self._source.subscribe(
                        self._on_next, self._on_error, self._observer.on_completed, scheduler=self._subscribed
                    )
                )
            self._beginning.give_back()

    def _on_next(self, item: object) -> None:
        self._emit(self._number(item))

    def _on_error(self, error: Exception) -> None:
        try:
            delay = self._get_delay(error)
            scheduler = self._find_clock() if delay else None
        except Exception as raised:  # noqa: BLE001 - an error of users' functions is the stream's terminal
            add_context(raised, error)
            self._observer.on_error(raised)
            return
        if delay is None:
            self._give_up(error)
            return
        self._retries += 1
        if self._attempts.has_output:
            self._emit(self._stamp(self._attempts.retract(error)))
        self._attempts.begin_next()
        if scheduler is None:
            self.begin()
        elif not self.current.is_disposed:
            set_timer(self.current, scheduler, delay, self.begin)

    def _get_delay(self, error: BaseException) -> float | None:
        """Return the seconds until the next attempt; None if there is no further attempt."""
        if self._retries == self._plan.times or not self._plan.is_meant(error):
            return None
        if self._attempts.has_output and not self._plan.may_retract:
            return None
        return _to_delay(self._plan.delay(self._retries + 1))

    def _give_up(self, error: Exception) -> None:
        if self._retries:
            attempts = f"attempt {self._retries + 1} of {self._plan.times + 1}"
            requests = self._attempts.requests
            more = f" after {requests} requests to models" if requests > self._retries + 1 else ""
            error.add_note(f"retry_stream: {attempts} failed{more}")
        self._observer.on_error(error)


def _to_delay(delay: RelativeTime) -> float:
    return to_seconds(delay, "retry_stream(delay=…)", allow_zero=True)
