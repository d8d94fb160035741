"""Chunks as a projection of the events of a run."""

from __future__ import annotations

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow.types.chunks import StreamChunk
from rxflow.types.events import Event


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
