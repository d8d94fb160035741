"""Connects an operator to its source: the operator becomes a part of a run, or wraps any other Observable.

Inside a run, the operator works on the run's loop. It receives the events behind ``observe()``, so it knows when a call
or a task has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, TypeVar, overload

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow._streaming import EventStream, everything, past
from rxflow.types import StreamChunk

T = TypeVar("T")
U = TypeVar("U")

U_co = TypeVar("U_co", covariant=True)


class Adding(Protocol[U_co]):
    """The type of an operator that adds items of another type.

    For pyright, ``Callable[[Observable[T]], Observable[T | U]]`` would be enough. But mypy infers Never from that type
    if another operator follows, so there is an overload for chunks. Two such operators still need two calls of ``pipe``
    with mypy.
    """

    @overload
    def __call__(self, source: Observable[StreamChunk], /) -> Observable[StreamChunk | U_co]: ...

    @overload
    def __call__(self, source: Observable[T], /) -> Observable[T | U_co]: ...


Selection: TypeAlias = Callable[[Observable[Any]], Observable[T]]
"""Selects the items to show from a run's events."""


def through(operator: Callable[[Observable[Any]], Observable[Any]]) -> Callable[[Observable[T]], Observable[T]]:
    """Create an operator that passes on the items that it does not handle.

    In a run, it therefore works on all events, before anything is selected from them.
    """

    def apply(source: Observable[T]) -> Observable[T]:
        return source.through(operator) if isinstance(source, EventStream) else operator(source)

    return apply


def reselect(change: Callable[[Selection[Any]], Selection[U]]) -> Callable[[Observable[Any]], Observable[U]]:
    """Create an operator on the selected items that also receives the events behind them.

    ``change`` turns the selection so far into a new one.
    """

    def apply(source: Observable[Any]) -> Observable[U]:
        return source.reselect(change) if isinstance(source, EventStream) else EventStream(source, change(everything))

    return apply


def select(selection: Selection[U]) -> Callable[[Observable[Any]], Observable[U]]:
    """Create an operator that selects from a run's events again, whatever was selected before."""
    return reselect(lambda _: selection)


def also(kind: type[U]) -> Callable[[Observable[T]], Observable[T | U]]:
    """Create an operator that shows the events of the class ``kind`` together with the selected items.

    Put it after an operator that adds such events to a run. Without it, the selection would drop the added events.
    """
    widened: Callable[[Observable[T]], Observable[T | U]] = reselect(lambda shown: _widened(shown, kind))
    return lambda source: widened(source) if isinstance(source, EventStream) else source


def only(wanted: Callable[[Any], bool]) -> Callable[[Observable[Any]], Observable[Any]]:
    """Create an operator that keeps the items for which ``wanted`` returns True.

    ``wanted`` must not raise. ::

        source    --a--b--c--|
        result    -----b-----|
    """

    def filtered(source: Observable[Any]) -> Observable[Any]:
        def subscribe(observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
            emit = observer.on_next

            def on_next(item: Any) -> None:
                if wanted(item):
                    emit(item)

            return source.subscribe(on_next, observer.on_error, observer.on_completed, scheduler=scheduler)

        return Observable(subscribe)

    return filtered


def _widened(shown: Selection[T], kind: type[U]) -> Selection[T | U]:
    def route(emit: Callable[[Any], None], show: Callable[[Any], None]) -> Callable[[Any], None]:
        return lambda event: emit(event) if isinstance(event, kind) else show(event)

    return past(shown, route)
