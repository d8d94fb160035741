"""The outputs: a program iterates over them to read a flow, a crew, an agent or any other Observable."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

from reactivex import Observable
from reactivex.internal.exceptions import SequenceContainsNoElementsError

from rxflow._streaming import interrupts
from rxflow._streaming.emitter import require_not_cancelled
from rxflow._streaming.feed import Feed, PlainAsyncFeed, PlainFeed
from rxflow._streaming.kickoff import RunFeed
from rxflow._streaming.log import Log, LogReader
from rxflow._streaming.observable import SourceFeed
from rxflow.types import AgentOutput, CrewFinished, CrewOutput, Event, FlowFinished, StreamChunk, TaskFinished
from rxflow.types.chunks import PackedChunks, join_text

T = TypeVar("T")
Item = TypeVar("Item")
Result = TypeVar("Result")


class Readable(Generic[Item, Result]):
    """The base class of all outputs. An output has the log of a run, and the feed that fills the log.

    The first reader that asks for an item starts the run. Every iteration, sync or async, yields all items from the
    first one on, and waits for further items. So a second or a late reader misses nothing. If the run has failed, an
    iteration raises the error after the items that had arrived. :attr:`result` raises the same error.

    The run is cancelled by ``close()``, by ``aclose()``, at the end of a ``with`` or ``async with`` block, and when the
    last reference to the output is dropped. Leaving a loop with ``break`` does not cancel the run.
    """

    _items_are: ClassVar[str] = "items"

    def __init__(self, log: Log[Item], feed: Feed) -> None:
        self._log = log
        self._feed = feed

    @property
    def result(self) -> Result:
        """The result of the run.

        Raises:
            RunPaused: the run waits for answers. The attribute ``pending`` of the exception has the questions.
            RuntimeError: the stream has not ended yet, or it was cancelled.
            Exception: the run's own error, if it failed.
        """
        if self._log.is_cancelled:
            raise RuntimeError("Streaming was cancelled before it completed, so there is no result.")
        if not self._log.is_ended:
            raise RuntimeError("Streaming has not completed yet. Iterate over all chunks before reading .result.")
        self._log.raise_error()
        return cast(Result, self._feed.result)

    @property
    def is_completed(self) -> bool:
        """Whether the stream has ended, with or without success.

        A stream ends with a result, with an error, by cancellation, or because the run waits for answers.
        """
        return self._log.is_ended

    @property
    def is_cancelled(self) -> bool:
        """Whether the stream was cancelled before it had ended by itself, for example by :meth:`close`."""
        return self._log.is_cancelled

    @property
    def is_paused(self) -> bool:
        """Whether the stream has ended because the run waits for answers. :attr:`result` then raises RunPaused.

        A :class:`PipelineOutput` is never paused.
        """
        return self._feed.is_paused

    def __iter__(self) -> Iterator[Item]:
        return iter(_Cursor(self, self._log, self._feed))

    def __aiter__(self) -> AsyncIterator[Item]:
        return _AsyncCursor(self, self._log, self._feed)

    def close(self) -> None:
        """Stop the run, and close its connections to providers.

        May be called from any thread, and more than once. Never raises. After the end of the stream, this does nothing.
        A sync method that is still running cannot be interrupted. But the method's events do not reach the stream any
        more, and the method cannot start new work in the run.
        """
        self._feed.close()

    async def aclose(self) -> None:
        """Stop the run in async code. Wait up to 100 ms for the run's coroutines to clean up."""
        await self._feed.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        feed: Feed | None = getattr(self, "_feed", None)  # None if the constructor raised
        if feed is not None and feed.is_running:
            feed.close()
            warnings.warn(
                f"a {type(self).__name__} was dropped while its run was going on; the run was cancelled. "
                "Use `with`, `async with`, close() or aclose() to end it where you mean to.",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._state}, {len(self._log)} {self._items_are}>"

    def _repr_html_(self) -> str:
        from rxflow._text import draw_card, draw_text  # imported here, because only notebooks need it

        text = join_text(self._log.copy())
        return draw_card(type(self).__name__, f"{self._state}, {len(self._log)} {self._items_are}", draw_text(text))

    @property
    def _state(self) -> str:
        if self.is_cancelled:
            return "cancelled"
        if self.is_paused:
            return "paused"
        if self.is_completed:
            return "completed" if self._log.error is None else "failed"
        return "running" if self._feed.is_running else "not started"


class _Reader(LogReader[Item]):
    """A ``for`` or ``async for`` loop over an output.

    The loop keeps a reference to the output. Otherwise the output could be deleted during the loop, which would cancel
    the run.
    """

    def __init__(self, output: object, log: Log[Item], feed: Feed) -> None:
        super().__init__(log)
        self._output = output
        self._feed = feed

    def _raise_at_the_end(self, end: type[Exception]) -> None:
        """If no more items will come, raise the error of the run, or ``end`` if the run has not failed.

        Raises:
            CancelledError: this stream was cancelled together with the run that the calling code belongs to. Without
                this error, the code after the loop would treat the chunks so far as the whole text.
        """
        if self._log.is_ended and self.position == len(self._log):
            self._log.raise_error()
            if self._log.is_cancelled:
                require_not_cancelled()
            raise end


class _Cursor(_Reader[Item], Iterator[Item]):
    def __iter__(self) -> Iterator[Item]:
        # Call watch() in each ``for`` loop, because a notebook restores Python's own signal handler for each cell.
        if not self._log.is_ended:
            interrupts.watch(self)
        return self

    def __next__(self) -> Item:
        # Look for an item before reading it. If this code read first and caught an IndexError, the traceback of the
        # run's error would begin with that IndexError.
        while self._offset == len(self._block) and self.has_read_all():
            interrupts.watch(self)
            self._feed.pull(self.position)
            if self._log.is_ended and self.position == len(self._log):
                interrupts.unwatch(self)
            self._raise_at_the_end(StopIteration)
        item = self._block[self._offset]
        self._offset += 1
        return item

    def interrupt(self) -> None:
        """Stop the run, because Ctrl-C has interrupted the ``for`` loop that reads it."""
        if self._feed.is_running:
            self._feed.close()

    def __del__(self) -> None:
        interrupts.unwatch(self)


class _AsyncCursor(_Reader[Item], AsyncIterator[Item]):
    async def __anext__(self) -> Item:
        while self._offset == len(self._block) and self.has_read_all():
            await self._feed.pull_async(self.position)
            self._raise_at_the_end(StopAsyncIteration)
        item = self._block[self._offset]
        self._offset += 1
        return item


class StreamingOutput(Readable[StreamChunk, T], Generic[T]):
    """The chunks of a run. :class:`Readable` describes when the run starts, and what readers get."""

    _items_are = "chunks"
    _finished: ClassVar[
        type[FlowFinished] | type[CrewFinished] | type[TaskFinished]
    ]  # the type of the event with the result

    def __init__(
        self,
        sync_iterator: Iterator[StreamChunk] | None = None,
        async_iterator: AsyncIterator[StreamChunk] | None = None,
        *,
        source: Observable[Event] | None = None,
        result: T | None = None,
    ) -> None:
        given = [each for each in (sync_iterator, async_iterator, source) if each is not None]
        if len(given) != 1:
            raise TypeError(
                f"{type(self).__name__} takes exactly one of sync_iterator, async_iterator and source; got {len(given)}"
            )
        log: Log[StreamChunk] = Log()
        feed: Feed
        if source is not None:
            feed = RunFeed(log, source, self._finished, _chunk)
        elif sync_iterator is not None:
            feed = PlainFeed(log, sync_iterator, result)
        else:
            feed = PlainAsyncFeed(log, cast(AsyncIterator[StreamChunk], async_iterator), result)
        super().__init__(log, feed)

    @property
    def chunks(self) -> list[StreamChunk]:
        """A copy of the chunks that have arrived so far."""
        return self._log.copy()

    def get_full_text(self) -> str:
        """Return the joined text of the TEXT chunks that have arrived so far."""
        blocks = self._log.blocks.copy()
        return "".join(block.read_text() if isinstance(block, PackedChunks) else join_text(block) for block in blocks)


class FlowStreamingOutput(StreamingOutput[Any]):
    """The stream of one flow run. ``result`` is the result of the method that finished last."""

    _finished = FlowFinished


class CrewStreamingOutput(StreamingOutput[CrewOutput]):
    """The stream of one crew run; ``result`` is a :class:`CrewOutput`."""

    _finished = CrewFinished


class AgentStreamingOutput(StreamingOutput[AgentOutput]):
    """The stream of one ``agent.kickoff(…)``; ``result`` is an :class:`AgentOutput`."""

    _finished = TaskFinished


def _chunk(event: Event) -> StreamChunk | None:
    return event if isinstance(event, StreamChunk) else None


class PipelineOutput(Readable[T, T], Generic[T]):
    """The items of any Observable. :class:`Readable` describes what readers get.

    The first reader subscribes to the Observable. ``result`` is the last item. If there was no item, ``result`` raises
    RxPY's SequenceContainsNoElementsError.

    Raises:
        TypeError: ``source`` is not an Observable.
    """

    _items_are: ClassVar[str] = "items"

    def __init__(self, source: Observable[T]) -> None:
        if not isinstance(source, Observable):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"{type(self).__name__} needs an Observable; got {source!r}")
        log: Log[T] = Log()
        super().__init__(log, _PipelineFeed(log, source))

    @property
    def items(self) -> list[T]:
        """A copy of the items that have arrived so far."""
        return self._log.copy()


class _PipelineFeed(SourceFeed[T, T], Generic[T]):
    def __init__(self, log: Log[T], source: Observable[T]) -> None:
        super().__init__(log, source)
        self._last: list[T] = []

    @property
    def result(self) -> T:
        if not self._last:
            raise SequenceContainsNoElementsError("the stream completed without an item, so there is no result")
        return self._last[0]

    def on_next(self, value: T) -> None:
        if not self._log.is_ended:
            self._last = [value]
            self._log.append(value)


async def read_out(returned: Any) -> Any:
    """If ``returned`` is an output, read the output to its end, and return its result. Otherwise return ``returned``.

    If this call starts the run of a flow, a crew or an agent, the run's events are also emitted in the calling code's
    stream.
    """
    if not isinstance(returned, Readable):
        return returned
    output = cast(Readable[Any, Any], returned)
    async for _ in output:
        pass
    return output.result
