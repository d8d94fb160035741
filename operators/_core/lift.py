"""How an operator meets its source: as a part of the run where the source is one, else around any Observable.

Inside the run it lives on the run's loop, and it sees the events behind ``observe()``, which tell what has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow.types.events import Event
from rxflow.types.lanes import Lane

T = TypeVar("T")
U = TypeVar("U")

Operator: TypeAlias = Callable[[Observable[T]], Observable[U]]
"""What ``pipe`` takes."""


@runtime_checkable
class OfRun(Protocol):
    """A source that is a run, or a selection from one: ``flow.observe()``, ``crew.events()`` …"""

    def through(self, operator: Callable[[Observable[Event]], Observable[Event]]) -> Observable[Any]:
        """The same with ``operator`` at work on the events."""
        ...

    def select(self, selection: Callable[[Observable[Event]], Observable[U]]) -> Observable[U]:
        """What ``selection`` shows of the events."""
        ...

    def also(self, kind: type[Any]) -> Observable[Any]:
        """The same, and all events of one ``kind``."""
        ...

    def divide(self, division: Callable[[Observable[Event]], Observable[Lane[Event]]]) -> Observable[Lane[Any]]:
        """The same, lane by lane."""
        ...


def through(operator: Callable[[Observable[Any]], Observable[Any]]) -> Callable[[Observable[T]], Observable[T]]:
    """An operator that passes on what it does not know, so that it can work on a run's events below any selection."""

    def apply(source: Observable[T]) -> Observable[T]:
        return source.through(operator) if isinstance(source, OfRun) else operator(source)

    return apply


def select(selection: Callable[[Observable[Any]], Observable[U]]) -> Callable[[Observable[Any]], Observable[U]]:
    """An operator that picks what it wants from a run's events, whatever has been selected from them before."""

    def apply(source: Observable[Any]) -> Observable[U]:
        return source.select(selection) if isinstance(source, OfRun) else selection(source)

    return apply


def also(kind: type[U]) -> Callable[[Observable[T]], Observable[T | U]]:
    """Let the events of one ``kind``, which an operator adds, through a selection that was made before."""

    def apply(source: Observable[T]) -> Observable[T | U]:
        return source.also(kind) if isinstance(source, OfRun) else source

    return apply


def divide(
    division: Callable[[Observable[Any]], Observable[Lane[Any]]],
) -> Callable[[Observable[T]], Observable[Lane[T]]]:
    """An operator that makes lanes of what is selected; ``division`` sees the events behind it."""

    def apply(source: Observable[T]) -> Observable[Lane[T]]:
        return source.divide(division) if isinstance(source, OfRun) else division(source)

    return apply


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
