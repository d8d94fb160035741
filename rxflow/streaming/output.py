"""The stream as users hold it: ``for`` and ``async for`` over its chunks, its result, and its cancellation."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

from rxflow.streaming.feed import Feed, RunFeed
from rxflow.streaming.launch import RunObservable
from rxflow.streaming.log import Log
from rxflow.streaming.plain import PlainAsyncFeed, PlainFeed
from rxflow.types.chunks import StreamChunk, StreamChunkType
from rxflow.types.events import CrewFinished, FlowFinished
from rxflow.types.results import CrewOutput

T = TypeVar("T")


class StreamingOutput(Generic[T]):
    """A run that has not begun: the first pull starts it.

    Every iteration, sync or async, sees the whole stream from its first chunk, live; so a second reader, or one that
    comes late, loses nothing. Leaving a loop with ``break`` cancels nothing; ``close()``, ``aclose()``, ``with``,
    ``async with`` and dropping the output do. An error of the run is raised by the iteration, after all
    that had arrived, and again by :attr:`result`.
    """

    _finished: ClassVar[type[FlowFinished] | type[CrewFinished]]  # the event that carries the result

    def __init__(
        self,
        sync_iterator: Iterator[StreamChunk] | None = None,
        async_iterator: AsyncIterator[StreamChunk] | None = None,
        *,
        source: RunObservable | None = None,
        result: T | None = None,
    ) -> None:
        given = [each for each in (sync_iterator, async_iterator, source) if each is not None]
        if len(given) != 1:
            raise TypeError(
                f"{type(self).__name__} takes exactly one of sync_iterator, async_iterator and source; got {len(given)}"
            )
        self._log: Log[StreamChunk] = Log()
        self._feed: Feed
        if source is not None:
            self._feed = RunFeed(self._log, source, self._finished)
        elif sync_iterator is not None:
            self._feed = PlainFeed(self._log, sync_iterator, result)
        elif async_iterator is not None:
            self._feed = PlainAsyncFeed(self._log, async_iterator, result)

    @property
    def result(self) -> T:
        """What the run returned.

        Raises:
            RuntimeError: the stream has not completed yet, or it was cancelled.
            Exception: the run's own error, where it failed.
        """
        if self._log.is_cancelled:
            raise RuntimeError("Streaming was cancelled before it completed, so there is no result.")
        if not self._log.is_ended:
            raise RuntimeError("Streaming has not completed yet. Iterate over all chunks before reading .result.")
        if self._log.error is not None:
            raise self._log.error
        return cast(T, self._feed.result)

    @property
    def is_completed(self) -> bool:
        """The stream has ended: with a result, with an error, or by cancellation."""
        return self._log.is_ended

    @property
    def is_cancelled(self) -> bool:
        """The stream was closed before it had ended by itself."""
        return self._log.is_cancelled

    @property
    def chunks(self) -> list[StreamChunk]:
        """A copy of what has arrived so far."""
        return self._log.items.copy()

    def get_full_text(self) -> str:
        """The TEXT chunks that have arrived so far, joined."""
        return "".join(chunk.content for chunk in self._log.items if chunk.chunk_type is StreamChunkType.TEXT)

    def __iter__(self) -> Iterator[StreamChunk]:
        return _Cursor(self, self._log, self._feed)

    def __aiter__(self) -> AsyncIterator[StreamChunk]:
        return _AsyncCursor(self, self._log, self._feed)

    def close(self) -> None:
        """Stop the run, down to the provider's connection. Quick, idempotent, from any thread; never raises.

        After completion it does nothing. A sync method that is running cannot be interrupted, but nothing that it
        does from now on reaches the stream or starts new work.
        """
        self._feed.close()

    async def aclose(self) -> None:
        """The same for async code; waits (at most 100 ms) until the run's coroutines have cleaned up."""
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
        feed: Feed | None = getattr(self, "_feed", None)  # a constructor that raised leaves none
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
        state = (
            "cancelled"
            if self.is_cancelled
            else "failed"
            if self._log.error is not None
            else "completed"
            if self.is_completed
            else "running"
            if self._feed.is_running
            else "not started"
        )
        return f"<{type(self).__name__} {state}, {len(self._log.items)} chunks>"


class FlowStreamingOutput(StreamingOutput[Any]):
    """The stream of one flow run; ``result`` is that of the last method to complete."""

    _finished = FlowFinished


class CrewStreamingOutput(StreamingOutput[CrewOutput]):
    """The stream of one crew run; ``result`` is a :class:`CrewOutput`."""

    _finished = CrewFinished


class _Place:
    """One reader's place in the log. Keeps the output alive, as a loop over it may be all that holds it."""

    def __init__(self, output: object, log: Log[StreamChunk], feed: Feed) -> None:
        self._output = output
        self._log = log
        self._feed = feed
        self._position = 0

    def _read(self, end: type[Exception]) -> StreamChunk:
        """What the log says here; ``end`` is raised after the last chunk of a stream that did not fail."""
        log = self._log
        if self._position < len(log.items):
            return log.items[self._position]
        raise end if log.error is None else log.error


class _Cursor(_Place, Iterator[StreamChunk]):
    def __next__(self) -> StreamChunk:
        position = self._position
        try:
            chunk = self._log.items[position]
        except IndexError:
            self._feed.pull(position)
            chunk = self._read(StopIteration)
        self._position = position + 1
        return chunk


class _AsyncCursor(_Place, AsyncIterator[StreamChunk]):
    async def __anext__(self) -> StreamChunk:
        position = self._position
        try:
            chunk = self._log.items[position]
        except IndexError:
            await self._feed.pull_async(position)
            chunk = self._read(StopAsyncIteration)
        self._position = position + 1
        return chunk
