"""What readers are shown of a run's events: its chunks, as a rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, TypeVar

from reactivex import Observable, Subject
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import CompositeDisposable

from rxflow.types.chunks import StreamChunk
from rxflow.types.events import Event
from rxflow.types.lanes import Lane

T = TypeVar("T")
E = TypeVar("E", bound=Event)

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


def widened(selection: Selection[T], kind: type[E]) -> Selection[T | E]:
    """``selection``, and all events of one ``kind``, each in its place."""

    def wide(events: Observable[Event]) -> Observable[T | E]:
        def subscribe(observer: ObserverBase[T | E], scheduler: SchedulerBase | None = None) -> DisposableBase:
            others: Subject[Event] = Subject()
            shown = selection(others).subscribe(observer, scheduler=scheduler)

            def on_next(event: Event) -> None:
                if isinstance(event, kind):
                    observer.on_next(event)
                else:
                    others.on_next(event)

            running = events.subscribe(on_next, others.on_error, others.on_completed, scheduler=scheduler)
            return CompositeDisposable(running, shown)

        return Observable(subscribe)

    return wide


def lane_by_lane(selection: Selection[T], division: Selection[Lane[Event]]) -> Selection[Lane[T]]:
    """``selection`` within each lane that ``division`` makes of the events."""

    def selected(lane: Lane[Event]) -> Lane[T]:
        return Lane(lane.key, selection(lane))

    def divided(events: Observable[Event]) -> Observable[Lane[T]]:
        return division(events).map(selected)

    return divided
