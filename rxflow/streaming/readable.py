"""A run that readers iterate: live, from its first item, as often as they like; its result, and its cancellation."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import ClassVar, Generic, Self, TypeVar, cast

from rxflow.streaming.feed import Feed
from rxflow.streaming.log import Log, LogReader

Item = TypeVar("Item")
Result = TypeVar("Result")


class Readable(Generic[Item, Result]):
    """Holds the log of a run and the feed that fills it. The first pull starts the run.

    Every iteration, sync or async, sees the whole stream from its first item, live; so a second reader, or one that
    comes late, loses nothing. Leaving a loop with ``break`` cancels nothing; ``close()``, ``aclose()``, ``with``,
    ``async with`` and dropping the object do. An error of the run is raised by the iteration, after all
    that had arrived, and again by :attr:`result`.
    """

    _items_are: ClassVar[str] = "items"

    def __init__(self, log: Log[Item], feed: Feed) -> None:
        self._log = log
        self._feed = feed

    @property
    def result(self) -> Result:
        """What the run returned.

        Raises:
            RuntimeError: the stream has not completed yet, or it was cancelled.
            Exception: the run's own error, where it failed.
        """
        if self._log.is_cancelled:
            raise RuntimeError("Streaming was cancelled before it completed, so there is no result.")
        if not self._log.is_ended:
            raise RuntimeError("Streaming has not completed yet. Iterate over all chunks before reading .result.")
        self._log.raise_error()
        return cast(Result, self._feed.result)

    @property
    def is_completed(self) -> bool:
        """The stream has ended: with a result, with an error, or by cancellation."""
        return self._log.is_ended

    @property
    def is_cancelled(self) -> bool:
        """The stream was closed before it had ended by itself."""
        return self._log.is_cancelled

    def __iter__(self) -> Iterator[Item]:
        return _Cursor(self, self._log, self._feed)

    def __aiter__(self) -> AsyncIterator[Item]:
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
        return f"<{type(self).__name__} {self._state}, {len(self._log)} {self._items_are}>"

    @property
    def _state(self) -> str:
        if self.is_cancelled:
            return "cancelled"
        if self.is_completed:
            return "completed" if self._log.error is None else "failed"
        return "running" if self._feed.is_running else "not started"


class _Reader(LogReader[Item]):
    """A reader that waits. Keeps the output alive, as a loop over it may be all that holds it."""

    def __init__(self, output: object, log: Log[Item], feed: Feed) -> None:
        super().__init__(log)
        self._output = output
        self._feed = feed

    def _raise_at_the_end(self, end: type[Exception]) -> None:
        """Raise the error of the run if there are no more items, or ``end`` if it did not fail."""
        if self._log.is_ended and self.position == len(self._log):
            self._log.raise_error()
            raise end


class _Cursor(_Reader[Item], Iterator[Item]):
    def __next__(self) -> Item:
        # Not by IndexError: an error of the run would then be shown as one that happened during its handling.
        while self._offset == len(self._block) and self.has_read_all():
            self._feed.pull(self.position)
            self._raise_at_the_end(StopIteration)
        item = self._block[self._offset]
        self._offset += 1
        return item


class _AsyncCursor(_Reader[Item], AsyncIterator[Item]):
    async def __anext__(self) -> Item:
        while self._offset == len(self._block) and self.has_read_all():
            await self._feed.pull_async(self.position)
            self._raise_at_the_end(StopAsyncIteration)
        item = self._block[self._offset]
        self._offset += 1
        return item
