"""``first_chunk_timeout``: a limit for the time to the first chunk."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import SerialDisposable
from reactivex.typing import RelativeTime

from rxflow._streaming import Holder, Owned, stopping
from rxflow.operators._core import (
    QuestionTracker,
    StreamTimeout,
    create_timed,
    describe,
    is_content,
    through,
    to_seconds,
)

T = TypeVar("T")


class FirstChunkTimeout(StreamTimeout):
    """The first chunk did not arrive in time."""

    _message = "no chunk within {seconds:g} s of subscribing (first_chunk_timeout); the last item: {seen}"


def first_chunk_timeout(
    seconds: RelativeTime, *, scheduler: SchedulerBase | None = None
) -> Callable[[Observable[T]], Observable[T]]:
    """Fail if no chunk arrives within ``seconds`` of the subscription (like ``timeout``), and dispose the source.

    ``seconds`` is a number or a timedelta. The wait ends with a chunk, with reasoning, or with an item that is not an
    event. Other events, such as ``LLMStarted``, do not end the wait. While a question to a person is open, the time
    does not count. If the source completes in time without a chunk, the result completes too. To limit later pauses,
    use ``idle_timeout``. ::

        source                    S--------------a--b--|
        first_chunk_timeout(5)    S----#                   (units: s; the source is disposed at 5)

    Example::

        llm.observe("Hello").pipe(ops.first_chunk_timeout(2), ops.fallback_to(other.observe("Hello")))

    Raises:
        FirstChunkTimeout: as the stream's error. The message describes the last item.
        RuntimeError: as the stream's error: no event loop was running at the subscription, and no scheduler was given.
        TypeError: ``seconds`` is neither a number nor a timedelta.
        ValueError: ``seconds`` is not above 0, or is not finite.
    """
    limit = to_seconds(seconds, "first_chunk_timeout(seconds)")

    def operator(source: Observable[Any]) -> Observable[Any]:
        def subscribe(
            observer: ObserverBase[Any], clock: SchedulerBase, subscribed: SchedulerBase | None
        ) -> DisposableBase:
            wait = _Wait(observer, clock, limit)
            wait.running.hold(
                source.subscribe(wait.on_next, observer.on_error, observer.on_completed, scheduler=subscribed)
            )
            return Owned(wait.timer, wait.running)

        return create_timed("first_chunk_timeout", scheduler, subscribe)

    return through(operator)


class _Wait:
    """The wait for the first chunk in one subscription."""

    def __init__(self, observer: ObserverBase[Any], clock: SchedulerBase, seconds: float) -> None:
        self.running = Holder()
        self.timer = SerialDisposable()
        self._observer = observer
        self._emit = observer.on_next
        self._clock = clock
        self._seconds = seconds
        self._left = timedelta(seconds=seconds)
        self._is_waiting = True
        self._last: object = None
        self._questions = QuestionTracker()
        self._begin()

    def on_next(self, item: object) -> None:
        if self._is_waiting:
            if is_content(item):
                self._is_waiting = False
                self._last = None
                self.timer.dispose()
            else:
                self._last = item
                self._note(item)
        self._emit(item)

    def _note(self, event: object) -> None:
        was_asking = bool(self._questions)
        self._questions.note(event)
        if self._questions and not was_asking:
            self._left -= self._clock.now - self._began
            self.timer.disposable = None
        elif was_asking and not self._questions:
            self._begin()

    def _begin(self) -> None:
        self._began = self._clock.now
        self.timer.disposable = self._clock.schedule_relative(self._left, self._fail)

    def _fail(self, scheduler: SchedulerBase, state: object = None) -> None:
        error = FirstChunkTimeout(self._seconds, "nothing" if self._last is None else describe(self._last))
        with stopping(str(error)):
            self.running.dispose()
        self._observer.on_error(error)
