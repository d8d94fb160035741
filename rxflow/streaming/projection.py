"""What readers are shown of a run's events: its chunks, as a rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow.types.chunks import StreamChunk
from rxflow.types.events import Event

T = TypeVar("T")

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
