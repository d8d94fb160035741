"""``fallback_to``: another stream where the first one fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import SerialDisposable, SingleAssignmentDisposable

from rxflow.operators._core.arguments import one_of
from rxflow.operators._core.attempts import Attempts, ErrorFilter, error_filter
from rxflow.operators._core.joining import Join, join_for
from rxflow.operators._core.lift import Adding, also, through
from rxflow.types.events import Retracted

U = TypeVar("U")


def fallback_to(
    other: Observable[U] | Callable[[Exception], Observable[U]],
    *,
    fallback_on: ErrorFilter = Exception,
    on_shown: Literal["retract", "continue", "error"] = "retract",
) -> Adding[U | Retracted]:
    """Go on with ``other`` where the source fails: another model, another crew, or a sentence that says sorry.

    What had been shown is then void, and a ``Retracted`` event says so before ``other`` begins; its chunks carry the
    next free ``attempt``. Where nothing had been said, there is no such event. Where a later operator selects anew, as
    ``text`` does, put this one behind it. ::

        source                --a--b--#
        other                         --x--y--|
        fallback_to(other)    --a--b--R--x--y--|    (R: Retracted(attempts=(0,)); x and y have attempt 1)

    ``other`` is subscribed on the run's loop, and belongs to what the source belongs to. Behind a run, all that
    happens in ``other`` is seen by later operators, of it is shown what is shown of the source, and strings come as
    chunks. An error of ``other`` passes, with a note of the first one. A cancellation, KeyboardInterrupt and
    SystemExit of the source pass at once.

    Args:
        other: the stream, or a function of the error that gives one.
        fallback_on: the errors that are meant: classes, or a function of the error.
        on_shown: where something has been said already, ``"continue"`` lets that stand and ``other`` goes on from
            there; ``"error"`` passes the error.

    Example::

        fast.observe(question).pipe(
            ops.first_chunk_timeout(2), ops.fallback_to(steady.observe(question), fallback_on=TimeoutError)
        )

    Raises:
        TypeError: ``other`` or ``fallback_on`` is something else.
        ValueError: ``on_shown`` is another word.
    """
    if not (callable(other) or isinstance(other, Observable)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"fallback_to takes an Observable, or a function of the error that gives one; got {other!r}")
    one_of(on_shown, "fallback_to(on_shown=…)", "retract", "continue", "error")
    plan = _Plan(other, error_filter(fallback_on, "fallback_to(fallback_on=…)"), on_shown)

    def apply(source: Observable[Any]) -> Observable[Any]:
        join = join_for(source)

        def operator(first: Observable[Any]) -> Observable[Any]:
            def subscribe(observer: ObserverBase[Any], subscribed: SchedulerBase | None = None) -> DisposableBase:
                falling = _FallingBack(plan, join, observer, subscribed)
                falling.run(first, falling.fall_back)
                return falling.current

            return Observable(subscribe)

        return source.pipe(through(operator), also(Retracted))

    return cast("Adding[U | Retracted]", apply)


@dataclass(frozen=True, slots=True)
class _Plan:
    other: Observable[Any] | Callable[[Exception], Observable[Any]]
    wanted: Callable[[BaseException], bool]
    on_shown: str

    def stream_for(self, error: Exception) -> Observable[Any]:
        if callable(self.other):
            stream = self.other(error)
            if not isinstance(stream, Observable):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"fallback_to: the function of the error has to give an Observable; it gave {stream!r}")
            return stream
        return self.other


class _FallingBack:
    """One subscription."""

    def __init__(self, plan: _Plan, join: Join, observer: ObserverBase[Any], subscribed: SchedulerBase | None) -> None:
        self.current = SerialDisposable()
        self._plan = plan
        self._join = join
        self._observer = observer
        self._emit = observer.on_next
        self._subscribed = subscribed
        self._attempts = Attempts()
        self._label = self._attempts.label

    def run(self, stream: Observable[Any], on_error: Callable[[Exception], None]) -> None:
        running = SingleAssignmentDisposable()
        self.current.disposable = running
        running.disposable = stream.subscribe(
            self._on_next, on_error, self._observer.on_completed, scheduler=self._subscribed
        )

    def fall_back(self, error: Exception) -> None:
        """The source has failed."""
        try:
            stream = self._instead_of(error)
        except Exception as raised:  # noqa: BLE001 - of the user's functions: it is the stream's terminal
            self._observer.on_error(raised)
            return
        if stream is None:
            self._observer.on_error(error)
            return

        def fail(second: Exception) -> None:
            second.add_note(f"fallback_to: this is the fallback's error; the source had failed with {error!r}")
            self._observer.on_error(second)

        if self._attempts.has_shown and self._plan.on_shown == "retract":
            self._emit(self._attempts.retracted(error))
        self._attempts.begin_next()
        if not self.current.is_disposed:
            self.run(stream, fail)

    def _on_next(self, item: object) -> None:
        self._emit(self._label(item))

    def _instead_of(self, error: Exception) -> Observable[Any] | None:
        if not self._plan.wanted(error) or (self._attempts.has_shown and self._plan.on_shown == "error"):
            return None
        return self._join(self._plan.stream_for(error))
