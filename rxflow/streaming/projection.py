"""What readers are shown of a run's events: its chunks, as a rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from reactivex import Observable, Subject
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import CompositeDisposable

from rxflow.types.chunks import StreamChunk
from rxflow.types.events import Event

T = TypeVar("T")
E = TypeVar("E")

Selection: TypeAlias = Callable[[Observable[Event]], Observable[T]]
"""Picks what is shown."""


def chunks(events: Observable[Event]) -> Observable[StreamChunk]:
    """The StreamChunks among ``events``. ::

    events    S--a--b--R--c--F|
    chunks    ---a--b-----c---|
    """

    def subscribe(observer: ObserverBase[StreamChunk], scheduler: SchedulerBase | None = None) -> DisposableBase:
        emit = observer.on_next

        def on_next(event: Event) -> None:
            if isinstance(event, StreamChunk):
                emit(event)

        return events.subscribe(on_next, observer.on_error, observer.on_completed, scheduler=scheduler)

    return Observable(subscribe)


def everything(events: Observable[T]) -> Observable[T]:
    """The selection that leaves nothing out."""
    return events


def past(
    shown: Callable[[Observable[E]], Observable[T]],
    route: Callable[[Callable[[Any], None], Callable[[E], None]], Callable[[E], None]],
) -> Callable[[Observable[E]], Observable[Any]]:
    """A selection that also lets items past another one. ``route(emit, show)`` gives what is done with each event. ::

    events          S--a--b--F|
    shown           ---A--B---|
    past it, S, F   S--A--B--F|
    """

    def selection(events: Observable[E]) -> Observable[Any]:
        def subscribe(observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
            seen: Subject[E] = Subject()
            selected = shown(seen).subscribe(observer, scheduler=scheduler)
            on_next = route(observer.on_next, seen.on_next)
            running = events.subscribe(on_next, seen.on_error, seen.on_completed, scheduler=scheduler)
            return CompositeDisposable(running, selected)

        return Observable(subscribe)

    return selection
