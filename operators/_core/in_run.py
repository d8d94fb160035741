"""How an operator meets its source: as a part of the run where the source is one, else around any Observable.

Inside the run it lives on the run's loop, and it sees the events behind ``observe()``, which tell what has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, TypeVar, overload

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow.streaming.observable import EventStream, everything, past
from rxflow.types.chunks import StreamChunk
from rxflow.types.lanes import Lane

T = TypeVar("T")
U = TypeVar("U")

U_co = TypeVar("U_co", covariant=True)


class Adding(Protocol[U_co]):
    """What ``pipe`` takes, where items of another type are added.

    pyright needs no more than ``Callable[[Observable[T]], Observable[T | U]]``. mypy infers Never from that where the
    pipe goes on; it does not for chunks where they are said apart. Two such operators it wants in two pipes.
    """

    @overload
    def __call__(self, source: Observable[StreamChunk], /) -> Observable[StreamChunk | U_co]: ...

    @overload
    def __call__(self, source: Observable[T], /) -> Observable[T | U_co]: ...


Selection: TypeAlias = Callable[[Observable[Any]], Observable[T]]
"""Picks from a run's events what is shown."""


def through(operator: Callable[[Observable[Any]], Observable[Any]]) -> Callable[[Observable[T]], Observable[T]]:
    """An operator that passes on what it does not know, so that it can work on a run's events below any selection."""

    def apply(source: Observable[T]) -> Observable[T]:
        return source.through(operator) if isinstance(source, EventStream) else operator(source)

    return apply


def reselect(change: Callable[[Selection[Any]], Selection[U]]) -> Callable[[Observable[Any]], Observable[U]]:
    """An operator on what is shown, that sees the events behind it too: ``change`` takes a selection, gives another."""

    def apply(source: Observable[Any]) -> Observable[U]:
        return source.reselect(change) if isinstance(source, EventStream) else EventStream(source, change(everything))

    return apply


def select(selection: Selection[U]) -> Callable[[Observable[Any]], Observable[U]]:
    """An operator that picks what it wants from a run's events, whatever has been selected from them before."""
    return reselect(lambda _: selection)


def also(kind: type[U]) -> Callable[[Observable[T]], Observable[T | U]]:
    """Let the events of one ``kind``, which an operator adds, through a selection that was made before."""
    widened: Callable[[Observable[T]], Observable[T | U]] = reselect(lambda shown: _widened(shown, kind))
    return lambda source: widened(source) if isinstance(source, EventStream) else source


def divide(division: Selection[Lane[Any]]) -> Callable[[Observable[T]], Observable[Lane[T]]]:
    """An operator that makes lanes of what is selected; ``division`` sees the events behind it."""

    def lane_by_lane(shown: Selection[T]) -> Selection[Lane[T]]:
        def within(lane: Lane[Any]) -> Lane[T]:
            return Lane(lane.key, shown(lane))

        return lambda events: division(events).map(within)

    return reselect(lane_by_lane)


def only(wanted: Callable[[Any], bool]) -> Callable[[Observable[Any]], Observable[Any]]:
    """The items that are ``wanted``, a function of ours that does not raise. ::

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
