"""``idle_timeout``: how long those who have begun to speak may pause."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import CompositeDisposable, Disposable, SingleAssignmentDisposable

from rxflow.operators._core.arguments import positive
from rxflow.operators._core.clock import timed
from rxflow.operators._core.lift import through
from rxflow.operators._core.places import described, namespace_of
from rxflow.operators._core.silence import Silence
from rxflow.operators._core.texts import is_said, place_of
from rxflow.operators._core.timeouts import StreamTimeout
from rxflow.types.events import LLMFailed, LLMFinished, LLMStarted, MethodFailed, MethodFinished

T = TypeVar("T")


class IdleTimeout(StreamTimeout):
    """A stream fell silent."""

    _message = "the stream has been silent for {seconds:g} s (idle_timeout); the last that was seen: {seen}"


def idle_timeout(seconds: float, scheduler: SchedulerBase | None = None) -> Callable[[Observable[T]], Observable[T]]:
    """Fail where the models fall silent for ``seconds``, and close the provider's connection.

    The clock starts with the first thing said (the wait for that is ``first_chunk_timeout``'s), and whatever comes
    sets it back: chunks, reasoning, and in a run every event. There it runs only while a model has been asked and has
    not ended its answer: a tool, a guardrail or a method may take its time. Where nothing tells of that, as in a stream
    of bare chunks, it runs all the time. Calls that run side by side share one clock: it is the whole stream that must
    not fall silent. ::

        source             --a--b-----------c--|
        idle_timeout(5)    --a--b----#             (units: s; the source is disposed at 10)

    Example::

        flow.observe().pipe(ops.first_chunk_timeout(10), ops.idle_timeout(3))

    Raises:
        IdleTimeout: as the stream's error; it says what came last.
        RuntimeError: as the stream's error: there is no clock, as no event loop runs here and no scheduler was given.
        ValueError: ``seconds`` is not above 0.
    """
    positive(seconds, "idle_timeout(seconds)", "seconds")

    def operator(source: Observable[Any]) -> Observable[Any]:
        def subscribe(
            observer: ObserverBase[Any], clock: SchedulerBase, subscribed: SchedulerBase | None
        ) -> DisposableBase:
            watch = _Watch(observer, clock, seconds)
            watch.running.disposable = source.subscribe(
                watch.on_next, observer.on_error, observer.on_completed, scheduler=subscribed
            )
            return CompositeDisposable(watch.running, Disposable(watch.silence.dispose))

        return timed("idle_timeout", scheduler, subscribe)

    return through(operator)


class _Watch:
    """The clock of one subscription."""

    def __init__(self, observer: ObserverBase[Any], clock: SchedulerBase, seconds: float) -> None:
        self.running = SingleAssignmentDisposable()
        self.silence = Silence(clock, seconds, self._fail)
        self._observer = observer
        self._emit = observer.on_next
        self._seconds = seconds
        self._has_begun = False
        self._speakers: dict[str, tuple[str, ...]] = {}  # the brackets in which someone speaks, or has been asked
        self._last: object = None

    def on_next(self, item: object) -> None:
        self._last = item
        if is_said(item):
            self._on_word(item)
        else:
            self._on_event(item)
        self._emit(item)

    def _on_word(self, item: object) -> None:
        place = place_of(item)
        if place in self._speakers and self._has_begun:
            self.silence.broken()
        else:
            self._has_begun = True
            self._speakers[place] = namespace_of(item)
            self.silence.watch()

    def _on_event(self, event: object) -> None:
        if isinstance(event, LLMStarted):
            self._speakers[place_of(event)] = namespace_of(event)
        elif isinstance(event, LLMFinished | LLMFailed):
            self._speakers.pop(place_of(event), None)
        elif isinstance(event, MethodFinished | MethodFailed) and self._speakers:
            # With it ends what does not tell of its own end: text that it made itself, a call that it cut off.
            outer = namespace_of(event)
            self._speakers = {at: inner for at, inner in self._speakers.items() if inner[: len(outer)] != outer}
        if self._has_begun and self._speakers:
            self.silence.watch()
        else:
            self.silence.leave()

    def _fail(self, silent_for: float) -> None:
        self.silence.dispose()
        self.running.dispose()
        self._observer.on_error(IdleTimeout(self._seconds, described(self._last)))
