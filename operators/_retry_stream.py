"""``retry_stream``: begin anew after an error, and say what of the text is void."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import SerialDisposable, SingleAssignmentDisposable

from rxflow.loops import running_loop
from rxflow.operators._core.arguments import one_of
from rxflow.operators._core.attempts import Attempts, ErrorFilter, error_filter
from rxflow.operators._core.clock import clock_on
from rxflow.operators._core.lift import Adding, also, through
from rxflow.types.events import Retracted


def retry_stream(
    times: int,
    *,
    retry_on: ErrorFilter = Exception,
    delay: float | Callable[[int], float] = 0.0,
    on_shown: Literal["retract", "error"] = "retract",
    scheduler: SchedulerBase | None = None,
) -> Adding[Retracted]:
    """Subscribe the source again after an error, ``times`` times at most: a run begins anew, from its first step.

    An ``LLM`` tries again by itself what fails before its first chunk (``max_retries``). This is for streams that
    break off later, and for whole crews and flows. What had been shown is then void, and a ``Retracted`` event says so
    at once; the chunks of the next attempt carry the next free ``attempt``. Where nothing had been said there is
    nothing to take back, and no event. Where a later operator selects anew, as ``text`` does, put this one behind
    it. ::

        source             --a--b--#
        again              --a--b--c|
        retry_stream(1)    --a--b--R--a'-b'-c'|    (R: Retracted(attempts=(0,)); a' has attempt 1)

    After the last attempt its error passes, with a note of how many there were. A cancellation, KeyboardInterrupt and
    SystemExit pass at once.

    Args:
        times: attempts after the first.
        retry_on: the errors that are worth it: classes, or a function of the error.
        delay: seconds before an attempt, or a function of its number (1 for the first retry) that gives them.
        on_shown: ``"error"`` gives up where something has been said already.
        scheduler: what waits for ``delay``; as a rule the run's loop.

    Example::

        flow.observe().pipe(ops.retry_stream(3, retry_on=ConnectionError, delay=lambda n: min(2**n, 30)))

    Raises:
        ValueError: ``times`` or ``delay`` is negative, or ``on_shown`` is another word.
        TypeError: ``retry_on`` is neither classes nor a function.
    """
    if times < 0:
        raise ValueError(f"retry_stream(times) cannot be negative: {times!r}")
    if not callable(delay) and delay < 0:
        raise ValueError(f"retry_stream(delay=…) cannot be negative: {delay!r}")
    one_of(on_shown, "retry_stream(on_shown=…)", "retract", "error")
    plan = _Plan(
        times=times,
        wanted=error_filter(retry_on, "retry_stream(retry_on=…)"),
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
    wanted: Callable[[BaseException], bool]
    delay: Callable[[int], float]
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
        self._clock = partial(clock_on, running_loop(), plan.scheduler, subscribed, "retry_stream(delay=…)")
        self._attempts = Attempts()
        self._label = self._attempts.label
        self._retries = 0
        self._is_due = False
        self._is_beginning = False

    def begin(self, *_: object) -> None:
        """Subscribe. A source that fails in there is due again once that has returned: it must not recurse."""
        self._is_due = True
        if self._is_beginning:
            return
        self._is_beginning = True
        while self._is_due and not self.current.is_disposed:
            self._is_due = False
            attempt = SingleAssignmentDisposable()
            self.current.disposable = attempt
            attempt.disposable = self._source.subscribe(
                self._on_next, self._on_error, self._observer.on_completed, scheduler=self._subscribed
            )
        self._is_beginning = False

    def _on_next(self, item: object) -> None:
        self._emit(self._label(item))

    def _on_error(self, error: Exception) -> None:
        try:
            delay = self._delay_after(error)
            scheduler = self._clock() if delay else None
        except Exception as raised:  # noqa: BLE001 - of the user's functions: it is the stream's terminal
            self._observer.on_error(raised)
            return
        if delay is None:
            self._give_up(error)
            return
        self._retries += 1
        if self._attempts.has_shown:
            self._emit(self._attempts.retracted(error))
        self._attempts.begin_next()
        if scheduler is None:
            self.begin()
        elif not self.current.is_disposed:
            self.current.disposable = scheduler.schedule_relative(delay, self.begin)

    def _delay_after(self, error: BaseException) -> float | None:
        """Seconds until the next attempt; None where there is none."""
        if self._retries == self._plan.times or not self._plan.wanted(error):
            return None
        if self._attempts.has_shown and not self._plan.may_retract:
            return None
        delay = self._plan.delay(self._retries + 1)
        if delay < 0:
            raise ValueError(f"retry_stream(delay=…) gave {delay!r} seconds for attempt {self._retries + 1}")
        return delay

    def _give_up(self, error: Exception) -> None:
        if self._retries:
            error.add_note(f"retry_stream: this ended attempt {self._retries + 1} of {self._plan.times + 1}")
        self._observer.on_error(error)
