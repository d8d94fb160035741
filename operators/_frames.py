"""``frames``: a run's events as frames, in the form that user interfaces receive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow._streaming import Framing
from rxflow.operators._core import select
from rxflow.types import StreamFrame


def frames() -> Callable[[Observable[Any]], Observable[StreamFrame]]:
    """Turn events into :class:`~rxflow.types.streaming.StreamFrame` objects (like ``map``), one for each event. ::

        events      S--a--b--F|
        frames()    s--a--b--f|

    The source is a run, or emits the events from a cassette or a log. All events of a run become frames, whatever was
    selected from them. The ``parent_id`` of a frame is the id of the frame that opened the event's span. If the event
    itself opens a span, it is the id of the frame that opened the surrounding span. So the operator needs the events
    from the beginning. Errors are passed on.

    Example::

        flow.events().pipe(ops.frames()).subscribe(lambda frame: send(frame.model_dump_json()))

    Raises:
        TypeError: as the stream's error: an item is not an event.
    """
    return select(_frame_events)


def _frame_events(source: Observable[Any]) -> Observable[StreamFrame]:
    def subscribe(observer: ObserverBase[StreamFrame], scheduler: SchedulerBase | None = None) -> DisposableBase:
        return source.map(Framing().frame).subscribe(observer, scheduler=scheduler)

    return Observable(subscribe)
