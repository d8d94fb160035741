"""``idle_timeout``: a limit for pauses in mid-stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.typing import RelativeTime

from rxflow._streaming import Holder, Owned, stopping
from rxflow.operators._core import (
    CallTracker,
    OpenCall,
    QuestionTracker,
    SilenceWatch,
    StreamTimeout,
    create_timed,
    describe,
    get_span_id,
    is_content,
    through,
    to_seconds,
)
from rxflow.types import LLMStarted

T = TypeVar("T")


class IdleTimeout(StreamTimeout):
    """A stream paused for too long."""

    _message = "no item for {seconds:g} s in mid-stream (idle_timeout); the last item: {seen}"


def idle_timeout(
    seconds: RelativeTime, *, scheduler: SchedulerBase | None = None
) -> Callable[[Observable[T]], Observable[T]]:
    """Fail if a stream begins and then pauses for ``seconds`` (like ``timeout``), and close the provider's connection.

    ``seconds`` is a number or a timedelta. The clock starts with the first chunk. To limit the wait for this chunk, use
    ``first_chunk_timeout``. Each item restarts the clock: a chunk, reasoning and, in a run, any event. In a run, the
    time counts only while an LLM call is open. Tools, guardrails, methods and people may take as long as they need. If
    a stream has only chunks and no events, it does not show who is working, so the time always counts. Concurrent calls
    share one clock: only a pause of the whole stream counts. ::

        source             --a--b-----------c--|
        idle_timeout(5)    --a--b----#             (units: s; the source is disposed at 10)

    Example::

        flow.observe().pipe(ops.first_chunk_timeout(10), ops.idle_timeout(3))

    Raises:
        IdleTimeout: as the stream's error. The message describes the last item.
        RuntimeError: as the stream's error: no event loop was running at the subscription, and no scheduler was given.
        TypeError: ``seconds`` is neither a number nor a timedelta.
        ValueError: ``seconds`` is not above 0, or is not finite.
    """
    limit = to_seconds(seconds, "idle_timeout(seconds)")

    def operator(source: Observable[Any]) -> Observable[Any]:
        def subscribe(
            observer: ObserverBase[Any], clock: SchedulerBase, subscribed: SchedulerBase | None
        ) -> DisposableBase:
            watch = _Watch(observer, clock, limit)
            watch.running.hold(
                source.subscribe(watch.on_next, observer.on_error, observer.on_completed, scheduler=subscribed)
            )
            return Owned(watch.silence, watch.running)

        return create_timed("idle_timeout", scheduler, subscribe)

    return through(operator)


class _Watch:
    """Watches the pauses of one subscription."""

    def __init__(self, observer: ObserverBase[Any], clock: SchedulerBase, seconds: float) -> None:
        self.running = Holder()
        self.silence = SilenceWatch(clock, seconds, self._fail)
        self._observer = observer
        self._emit = observer.on_next
        self._seconds = seconds
        self._has_begun = False
        self._calls: CallTracker[OpenCall] = CallTracker()
        self._find = self._calls.get
        self._questions = QuestionTracker()
        self._last: object = None

    def on_next(self, item: object) -> None:
        self._last = item
        if is_content(item):
            self._on_content(item)
        else:
            self._on_event(item)
        self._emit(item)

    def _on_content(self, item: object) -> None:
        if self._find(get_span_id(item)) is not None and self._has_begun:
            self.silence.note_item()
        else:
            self._has_begun = True
            self._calls.add(OpenCall(item))
            self._watch()

    def _on_event(self, event: object) -> None:
        if isinstance(event, LLMStarted):
            self._calls.add(OpenCall(event))
        else:
            for call in self._calls.find_ended(event):
                self._calls.remove(call)
        self._questions.note(event)
        self._watch()

    def _watch(self) -> None:
        if self._has_begun and self._is_anybody_to_speak():
            self.silence.start()
        else:
            self.silence.pause()

    def _is_anybody_to_speak(self) -> bool:
        """Return whether an LLM call is open. Only then can silence end the stream.

        While a question to a person is open, calls without an LLMStarted event are ignored.
        """
        if self._questions:
            return any(isinstance(call.item, LLMStarted) for call in self._calls)
        return bool(self._calls)

    def _fail(self, silent_for: float) -> None:
        self.silence.dispose()
        error = IdleTimeout(self._seconds, describe(self._last))
        with stopping(str(error)):
            self.running.dispose()
        self._observer.on_error(error)
