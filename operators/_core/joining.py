"""How another stream becomes a part of a run: ``fallback_to``, ``race``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import SingleAssignmentDisposable

from rxflow.streaming.observable import EventStream, everything
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import Happened

Join: TypeAlias = Callable[[Observable[Any]], Observable[Any]]


def join_for(source: Observable[Any]) -> Join:
    """What makes another stream fit ``source``: nothing, unless that is a run."""
    return as_events if isinstance(source, EventStream) else everything


def as_events(other: Observable[Any]) -> Observable[Any]:
    """``other`` as events: all those of a run, whatever was selected from them; strings as chunks of no place.

    Operators that come later then see its calls end too. Items of any other kind end the stream with a TypeError: a
    selection of chunks would let them vanish.
    """
    events = other.reselect(lambda _: everything) if isinstance(other, EventStream) else other

    def subscribe(observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
        running = SingleAssignmentDisposable()

        def on_next(item: object) -> None:
            # What operators behind this raise must not reach the border of the other run, which takes it for a user's:
            # it would end that run, and this one would wait for it.
            try:
                observer.on_next(_as_event(item))
            except Exception as error:  # noqa: BLE001 - it is the stream's terminal
                running.dispose()
                observer.on_error(error)

        running.disposable = events.subscribe(on_next, observer.on_error, observer.on_completed, scheduler=scheduler)
        return running

    return Observable(subscribe)


def _as_event(item: object) -> object:
    if isinstance(item, StreamChunk | Happened):
        return item
    if isinstance(item, str):
        return StreamChunk(content=item)
    raise TypeError(f"a run can be joined by chunks, events and strings; got {item!r}: map it to one of these first")
