"""Runs a flow, a crew, an agent or a call to its end, for code that needs only the result, such as ``kickoff()``."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, Never, TypeVar

from reactivex import Observable

from rxflow._loops import call_soon, running_loop
from rxflow._streaming.bridge import from_coroutine
from rxflow._streaming.emitter import Emitter, current_emitter
from rxflow._streaming.log import THE_END, Log
from rxflow._streaming.observable import Accompanying, EventStream, SourceFeed
from rxflow.types import Event, FlowPaused, InputRequested, LLMFinished, RunPaused, StreamChunk

T = TypeVar("T")
Item = TypeVar("Item")
E = TypeVar("E", bound=Event)


def run_blocking(source: EventStream[Event], finished: type[E]) -> E:
    """Run ``source`` to its end, and return its last event of the type ``finished``.

    If the calling code belongs to a run, the new run becomes a part of that run.

    Raises:
        CancelledError: the run that the calling code belongs to was cancelled.
        RunPaused: ``source`` has paused and waits for answers.
    """
    leaf = current_emitter()
    if leaf is not None and running_loop() is not leaf.run.loop:
        last = Last(finished)
        leaf.forward_blocking(source.within(leaf), last.tap)
        return last.event
    log: Log[Never] = Log()
    feed = RunFeed(log, source, finished, _nothing)
    feed.pull_to_the_end()
    return _outcome(log, feed)


async def run_async(source: EventStream[Event], finished: type[E]) -> E:
    """Run ``source`` as :func:`run_blocking` does, in async code. Cancelling the awaiting task cancels the run."""
    leaf = current_emitter()
    if leaf is not None and running_loop() is leaf.run.loop:
        last = Last(finished)
        await leaf.forward(source.within(leaf), last.tap)
        return last.event
    log: Log[Never] = Log()
    feed = RunFeed(log, source, finished, _nothing)
    try:
        await feed.pull_async(THE_END)
    except BaseException:
        await feed.aclose()  # wait for the clean-up of the run's coroutines before the caller continues
        raise
    return _outcome(log, feed)


def await_blocking(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run ``coroutine`` to its end and return its result.

    If the calling code belongs to a run, the coroutine becomes a part of that run. Otherwise the coroutine runs on the
    loop that the blocking runs of this thread share. So consecutive coroutines can share objects that are bound to a
    loop, such as an HTTP client.

    Raises:
        CancelledError: the run that the calling code belongs to was cancelled.
    """
    results: list[T] = []

    async def work(emitter: Emitter) -> None:
        results.append(await coroutine)

    source: EventStream[Event] = EventStream(lambda scope: from_coroutine(scope, work))
    log: Log[Never] = Log()
    try:
        leaf = current_emitter()
        if leaf is not None and running_loop() is not leaf.run.loop:
            leaf.forward_blocking(source.within(leaf))
        else:
            RunFeed(log, source, LLMFinished, _nothing).pull_to_the_end()
    finally:
        if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:  # the run never started
            coroutine.close()
    log.raise_error()
    if not results:
        raise asyncio.CancelledError("what this code waited for was cancelled")
    return results[0]


class Last(Generic[E]):
    """Keeps the last event of one type. If the run pauses, also keeps the unanswered questions."""

    def __init__(self, wanted: type[E]) -> None:
        self._wanted = wanted
        self._event: E | None = None
        self.pending: tuple[InputRequested, ...] = ()

    def tap(self, event: Event) -> None:
        """Read the next event. A crew or flow inside the run ends or pauses before the run itself."""
        if isinstance(event, self._wanted):
            self._event, self.pending = event, ()
        elif isinstance(event, FlowPaused):
            self._event, self.pending = None, event.pending

    @property
    def is_paused(self) -> bool:
        """Whether the run has paused. This value is valid only after the end of the run."""
        return self._event is None and bool(self.pending)

    @property
    def event(self) -> E:
        """The last event of the wanted type.

        Raises:
            RunPaused: there is no such event yet, because the run has paused.
            RuntimeError: the run has ended without such an event.
        """
        if self.is_paused:
            raise RunPaused(self.pending)
        if self._event is None:
            raise RuntimeError(f"the run completed without a {self._wanted.__name__}, so there is no result")
        return self._event


def _nothing(event: Event) -> None:
    """Return None for every event, so that a RunFeed logs no event. This module needs only the result of the run."""


def _outcome(log: Log[Never], feed: RunFeed[Never, E]) -> E:
    if log.is_cancelled:
        raise asyncio.CancelledError("the rxflow run that this code belongs to was cancelled")
    log.raise_error()
    return feed.last.event


class RunFeed(SourceFeed[Item, Any], Generic[Item, E]):
    """Logs what ``select`` returns for each event, except None. Also keeps the event that has the run's result.

    ``finished`` is the type of the event that has the result. If ``source`` shows a selection of the run's events,
    ``select`` gets only the selection. The event with the result may be outside the selection. So the feed also reads
    the unselected events, but no unselected StreamChunks. If there is a surrounding run, all events that the feed reads
    are also emitted in the stream of the surrounding run.
    """

    _accompanying: Event | None = None
    """The last event that came wrapped in an :class:`Accompanying`; None before the first such event."""

    def __init__(
        self, log: Log[Item], source: Observable[Event], finished: type[E], select: Callable[[Event], Item | None]
    ) -> None:
        stream: EventStream[Event] | None = source if isinstance(source, EventStream) else None
        super().__init__(log, source if stream is None or stream.shows_all else stream.with_events())
        self.last = Last(finished)
        self._select = select
        # The events that wait for the loop of the surrounding run. The deque is created only when it is needed, because
        # most runs are not nested, and an empty deque takes 760 bytes.
        self._to_show: deque[Event] | None = None

    @property
    def is_paused(self) -> bool:
        # Before the end, only a crew or flow inside has paused. The run may then still fail, or be cancelled.
        log = self._log
        return log.is_ended and not log.is_cancelled and log.error is None and self.last.is_paused

    @property
    def result(self) -> Any:
        ended: Any = self.last.event
        return ended.text if isinstance(ended, LLMFinished) else ended.result

    def pull(self, position: int) -> None:
        super().pull(position)
        if self._to_show and self._leaf is not None and running_loop() is self._leaf.run.loop:
            self._show_waiting()  # the wait in pull() blocked the loop that would have shown these events

    def on_next(self, value: Event | Accompanying) -> None:
        if self._log.is_ended:
            return
        if isinstance(value, Accompanying):
            self._accompanying = value = value.event
        else:
            try:
                item = self._select(value)
            except Exception as error:
                self._end(error)  # readers must not wait forever; ``raise`` passes the error to the producer too
                raise
            if item is not None:
                self._log.append(item)
            if value is self._accompanying:
                return  # it arrived before, inside an Accompanying; it was tapped and shown at that time
        if not isinstance(value, StreamChunk):
            self.last.tap(value)
        if self._leaf is not None:
            self._show(self._leaf, value)

    def _show(self, leaf: Emitter, event: Event) -> None:
        """Emit ``event`` in the stream of the surrounding run, on the loop of that run."""
        if running_loop() is leaf.run.loop:
            leaf.on_next(event)
        else:
            if self._to_show is None:
                self._to_show = deque()
            self._to_show.append(event)
            if len(self._to_show) == 1:
                call_soon(leaf.run.loop, self._show_waiting)

    def _show_waiting(self) -> None:
        while self._to_show and self._leaf is not None:
            self._leaf.on_next(self._to_show.popleft())
