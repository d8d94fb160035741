"""``heartbeat``: signs of life from a stream that is silent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import CompositeDisposable, Disposable

from rxflow.operators._core.arguments import positive
from rxflow.operators._core.clock import timed
from rxflow.operators._core.lift import Adding, reselect
from rxflow.operators._core.places import origin_of
from rxflow.operators._core.silence import Silence
from rxflow.types.events import Heartbeat


def heartbeat(interval: float, scheduler: SchedulerBase | None = None) -> Adding[Heartbeat]:
    """Add a ``Heartbeat`` whenever nothing has been shown for ``interval`` seconds, and after each further interval.

    For connections that proxies cut when they are silent, and for users who should see that work goes on. What counts
    is what is shown at this place: behind ``flow.observe()`` that is chunks, however much goes on meanwhile. Its
    ``origin`` is that of the latest event all the same, so it can tell what is being waited for; ``silent_for`` counts
    from the last item, or from the subscription. Where a later operator selects anew, as ``text`` does, put this one
    behind it. Ends and errors pass. ::

        source          --a---------------b--|
        heartbeat(5)    --a----H----H-----b--|   (units: s; silent for 5, then for 10)

    Example::

        def send_on(item: StreamChunk | Heartbeat) -> None:
            send(": still working\\n\\n" if isinstance(item, Heartbeat) else f"data: {item}\\n\\n")

        flow.observe().pipe(ops.text(), ops.heartbeat(15)).subscribe(send_on)

    Raises:
        RuntimeError: as the stream's error: there is no clock, as no event loop runs here and no scheduler was given.
        ValueError: ``interval`` is not above 0.
    """
    positive(interval, "heartbeat(interval)", "seconds")

    def beating(shown: Callable[[Observable[Any]], Observable[Any]]) -> Callable[[Observable[Any]], Observable[Any]]:
        def operator(events: Observable[Any]) -> Observable[Any]:
            def subscribe(
                observer: ObserverBase[Any], clock: SchedulerBase, subscribed: SchedulerBase | None
            ) -> DisposableBase:
                last: object = None
                emit = observer.on_next

                def see(event: object) -> None:
                    nonlocal last
                    last = event

                def beat(silent_for: float) -> None:
                    emit(Heartbeat(origin=origin_of(last), silent_for=silent_for))

                def on_next(item: object) -> None:
                    broken()
                    emit(item)

                silence = Silence(clock, interval, beat)
                broken = silence.broken
                silence.watch()
                running = shown(events.do_action(see)).subscribe(
                    on_next, observer.on_error, observer.on_completed, scheduler=subscribed
                )
                return CompositeDisposable(running, Disposable(silence.dispose))

            return timed("heartbeat", scheduler, subscribe)

        return operator

    return cast("Adding[Heartbeat]", reselect(beating))
