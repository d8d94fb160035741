"""``heartbeat``: an event after each silence of a certain length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.typing import RelativeTime

from rxflow._streaming import Owned, find_stamp
from rxflow.operators._core import Adding, SilenceWatch, create_timed, get_origin, reselect, to_seconds
from rxflow.types import Heartbeat


def heartbeat(interval: RelativeTime, *, scheduler: SchedulerBase | None = None) -> Adding[Heartbeat]:
    """Add a ``Heartbeat`` after each ``interval`` without an item (like ``merge`` with ``interval``, reset by items).

    ``interval`` is a number of seconds or a timedelta. Heartbeats keep a connection open if a proxy closes silent
    connections. They also show users that the work continues. Only items that reach this operator end a silence.
    Directly after ``flow.observe()``, these items are the chunks. The ``origin`` of a heartbeat is the
    origin of the latest event of any kind, so it shows what the run is waiting for. ``silent_for`` is the time in
    seconds since the last item, or since the subscription if there was no item. Some
    operators, for example ``text``, make a selection of their own from all events of the run. They would drop the
    heartbeats, so put ``heartbeat`` after them. Completion and
    errors are passed on. ::

        source          --a------------b--|
        heartbeat(5)    --a----H----H--b--|   (units: s; H has silent_for=5, then silent_for=10)

    Example::

        def send_on(item: StreamChunk | Heartbeat) -> None:
            send(": still working\\n\\n" if isinstance(item, Heartbeat) else f"data: {item}\\n\\n")

        flow.observe().pipe(ops.text(), ops.heartbeat(15)).subscribe(send_on)

    Raises:
        RuntimeError: as the stream's error: no event loop was running at the subscription, and no scheduler was given.
        TypeError: ``interval`` is neither a number nor a timedelta.
        ValueError: ``interval`` is not above 0, or is not finite.
    """
    seconds = to_seconds(interval, "heartbeat(interval)")

    def add_heartbeats(
        shown: Callable[[Observable[Any]], Observable[Any]],
    ) -> Callable[[Observable[Any]], Observable[Any]]:
        def operator(events: Observable[Any]) -> Observable[Any]:
            def subscribe(
                observer: ObserverBase[Any], clock: SchedulerBase, subscribed: SchedulerBase | None
            ) -> DisposableBase:
                last: object = None
                stamp = find_stamp()
                emit = observer.on_next

                def note_event(event: object) -> None:
                    nonlocal last
                    last = event

                def beat(silent_for: float) -> None:
                    emit(stamp(Heartbeat(origin=get_origin(last), silent_for=silent_for)))

                def on_next(item: object) -> None:
                    note_item()
                    emit(item)

                silence = SilenceWatch(clock, seconds, beat)
                note_item = silence.note_item
                silence.start()
                running = shown(events.do_action(note_event)).subscribe(
                    on_next, observer.on_error, observer.on_completed, scheduler=subscribed
                )
                return Owned(silence, running)

            return create_timed("heartbeat", scheduler, subscribe)

        return operator

    return cast("Adding[Heartbeat]", reselect(add_heartbeats))
