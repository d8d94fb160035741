"""``fallback_to``: another stream after an error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import SerialDisposable

from rxflow._streaming import Holder, current_border, find_stamp
from rxflow.operators._core import (
    Adding,
    Attempts,
    ErrorFilter,
    Join,
    add_context,
    also,
    check_choice,
    compile_error_filter,
    create_join,
    through,
)
from rxflow.types import Retracted

U = TypeVar("U")


def fallback_to(
    other: Observable[U] | Callable[[Exception], Observable[U]],
    *,
    fallback_on: ErrorFilter = Exception,
    on_shown: Literal["retract", "continue", "error"] = "retract",
) -> Adding[U | Retracted]:
    """Continue with ``other`` after an error (like ``catch``): another model, another crew, or an apology.

    By default, all output so far is then void. A ``Retracted`` event reports this before ``other`` begins. If there was
    no output yet, no ``Retracted`` is emitted. The chunks of ``other`` have a higher ``attempt`` than all earlier
    chunks. An operator that selects from the events again, such as ``text``, would drop the ``Retracted``: put
    ``fallback_to`` after such an operator. ::

        source                --a--b--#
        other                         --x--y--|
        fallback_to(other)    --a--b--R-x--y--|    (R: Retracted(attempts=(0,)); x and y have attempt 1)

    If the source is a run, ``other`` is subscribed on the run's loop, and belongs to the same method or task as the
    source. Strings of ``other`` become chunks. Later operators receive all events of ``other``. Subscribers receive
    what the selection of the source contains, for example only the chunks. An error of ``other`` is passed on, with a
    note that names the first error. If the source ends with a cancellation, a KeyboardInterrupt or a SystemExit,
    ``other`` is not used.

    Args:
        other: the stream to continue with, or a function that gets the error and returns such a stream.
        fallback_on: the errors after which to continue: an exception class, a tuple of classes, or a function that gets
            the error and returns True or False.
        on_shown: what to do if there was output before the error. ``"retract"`` makes the output void. ``"continue"``
            keeps the output, and ``other`` continues it. ``"error"`` passes the error on, and ``other`` is not used.

    Example::

        fast.observe(question).pipe(
            ops.first_chunk_timeout(2), ops.fallback_to(steady.observe(question), fallback_on=TimeoutError)
        )

    Raises:
        TypeError: ``other`` or ``fallback_on`` has a wrong type. Also as the stream's error, if the function ``other``
            does not return an Observable.
        ValueError: ``on_shown`` is unknown.
    """
    if not (callable(other) or isinstance(other, Observable)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"fallback_to takes an Observable, or a function of the error that returns one; got {other!r}")
    check_choice(on_shown, "fallback_to(on_shown=…)", "retract", "continue", "error")
    plan = _Plan(other, compile_error_filter(fallback_on, "fallback_to(fallback_on=…)"), on_shown)

    def apply(source: Observable[Any]) -> Observable[Any]:
        join = create_join(source)

        def operator(first: Observable[Any]) -> Observable[Any]:
            def subscribe(observer: ObserverBase[Any], subscribed: SchedulerBase | None = None) -> DisposableBase:
                fallback = _Fallback(plan, join, observer, subscribed)
                fallback.run(first, fallback.fall_back)
                return fallback.current

            return Observable(subscribe)

        return source.pipe(through(operator), also(Retracted))

    return cast("Adding[U | Retracted]", apply)


@dataclass(frozen=True, slots=True)
class _Plan:
    other: Observable[Any] | Callable[[Exception], Observable[Any]]
    is_meant: Callable[[BaseException], bool]
    on_shown: str

    def create_stream(self, error: Exception) -> Observable[Any]:
        if callable(self.other):
            stream = self.other(error)
            if not isinstance(stream, Observable):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(
                    f"fallback_to: the function of the error must return an Observable; it returned {stream!r}"
                )
            return stream
        return self.other


class _Fallback:
    """One subscription to the source and, after an error, to the other stream."""

    def __init__(self, plan: _Plan, join: Join, observer: ObserverBase[Any], subscribed: SchedulerBase | None) -> None:
        self.current = SerialDisposable()
        self._plan = plan
        self._join = join
        self._observer = observer
        self._emit = observer.on_next
        self._subscribed = subscribed
        self._border = current_border()
        self._stamp = find_stamp()
        self._attempts = Attempts()
        self._number = self._attempts.number

    def run(self, stream: Observable[Any], on_error: Callable[[Exception], None]) -> None:
        running = Holder()
        self.current.disposable = running
        running.hold(stream.subscribe(self._on_next, on_error, self._observer.on_completed, scheduler=self._subscribed))

    def fall_back(self, error: Exception) -> None:
        """Continue with the other stream after an error of the source, or pass the error on."""
        try:
            stream = self._choose_stream(error)
        except Exception as raised:  # noqa: BLE001 - an error of users' functions is the stream's terminal
            add_context(raised, error)
            self._observer.on_error(raised)
            return
        if stream is None:
            self._observer.on_error(error)
            return

        def fail(second: Exception) -> None:
            second.add_note(f"fallback_to: this is the error of the fallback; the source failed with {error!r}")
            self._observer.on_error(second)

        if self._attempts.has_output and self._plan.on_shown == "retract":
            self._emit(self._stamp(self._attempts.retract(error)))
        self._attempts.begin_next()
        if not self.current.is_disposed:
            self.run(stream, fail)

    def _on_next(self, item: object) -> None:
        self._emit(self._number(item))

    def _choose_stream(self, error: Exception) -> Observable[Any] | None:
        if not self._plan.is_meant(error) or (self._attempts.has_output and self._plan.on_shown == "error"):
            return None
        return self._join(self._plan.create_stream(error), self._border)
