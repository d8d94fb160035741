"""Sources that play a timeline: cold ones from their subscription on, hot ones whether or not someone listens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import Disposable

from rxflow.loops import running_loop
from rxflow.testing.drawing import shown
from rxflow.testing.timeline import Failed, Next, Signal, Span, Timeline, tidy
from rxflow.testing.virtual_time import VirtualLoop


class MarbleSource(Observable[Any]):
    """Remembers when it was subscribed to, and for how long."""

    def __init__(self, diagram: str, timeline: Timeline) -> None:
        self.diagram = diagram
        self.timeline = timeline
        self.subscriptions: list[Span] = []
        self._is_noting = True
        super().__init__(self._on_subscribe)

    def _on_subscribe(self, observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
        loop = self._loop()
        number = len(self.subscriptions)
        self.subscriptions.append(Span(now_of(loop)))
        stop = self._listen(observer, loop)

        def end() -> None:
            stop.dispose()
            if self._is_noting:
                self.subscriptions[number] = Span(self.subscriptions[number].start, now_of(loop))

        return Disposable(end)

    def note_anew(self) -> None:
        """A play begins."""
        self.subscriptions = []
        self._is_noting = True

    def note_no_more(self) -> None:
        """A play has ended: what is disposed now was still subscribed."""
        self._is_noting = False

    def _listen(self, observer: ObserverBase[Any], loop: VirtualLoop) -> DisposableBase:
        raise NotImplementedError

    def _loop(self) -> VirtualLoop:
        loop = running_loop()
        if isinstance(loop, VirtualLoop):
            return loop
        raise RuntimeError(
            f"the marble source {self.diagram!r} plays in virtual time only, on the thread of its loop: give it, or "
            "what is made of it, to marbles.expect(…), or subscribe to it inside clock.run(…)"
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {shown(self.diagram)}>"


class ColdSource(MarbleSource):
    """Plays its timeline from the beginning for each subscriber."""

    def _listen(self, observer: ObserverBase[Any], loop: VirtualLoop) -> DisposableBase:
        return _play(self.timeline, loop, loop.time(), partial(tell, observer))


class HotSource(MarbleSource):
    """Plays its timeline once, for whoever listens."""

    def __init__(self, diagram: str, timeline: Timeline) -> None:
        super().__init__(diagram, timeline)
        self._observers: list[ObserverBase[Any]] = []
        self._end: Signal | None = None

    def begin(self, loop: VirtualLoop) -> DisposableBase:
        """Play it, from the loop's zero on."""
        self._end = None
        return _play(self.timeline, loop, 0.0, self._tell)

    def _listen(self, observer: ObserverBase[Any], loop: VirtualLoop) -> DisposableBase:
        if self._end is not None:
            tell(observer, self._end)
            return Disposable()
        self._observers.append(observer)
        return Disposable(lambda: self._forget(observer))

    def _forget(self, observer: ObserverBase[Any]) -> None:
        if observer in self._observers:
            self._observers.remove(observer)

    def _tell(self, signal: Signal) -> None:
        if not isinstance(signal, Next):
            self._end = signal
        for observer in self._observers.copy():
            tell(observer, signal)


def tell(observer: ObserverBase[Any], signal: Signal) -> None:
    """Give a signal to an observer."""
    if isinstance(signal, Next):
        observer.on_next(signal.value)
    elif isinstance(signal, Failed):
        observer.on_error(signal.error)  # type: ignore[arg-type]  # RxPY's type leaves out CancelledError
    else:
        observer.on_completed()


def now_of(loop: asyncio.AbstractEventLoop) -> int | float:
    """The loop's time in milliseconds."""
    return tidy(loop.time() * 1000)


def _play(timeline: Timeline, loop: VirtualLoop, zero: float, say: Callable[[Signal], None]) -> DisposableBase:
    # All timers at once, as in RxJS: so a source that was there first comes first, wherever two meet.
    timers = [
        loop.call_at(zero + moment.time / 1000, say, moment.signal)
        for moment in timeline
        if zero + moment.time / 1000 >= loop.time()
    ]

    def stop() -> None:
        for timer in timers:
            timer.cancel()

    return Disposable(stop)
