"""Outputs built from plain iterators, as tests of streaming programs do."""

from __future__ import annotations

import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio

from rxflow.streaming.log import Log
from rxflow.types.chunks import StreamChunk


class _PlainFeed:
    """Nothing goes on while nobody pulls.

    A generator that was not read to its end is closed with its output, so that it cleans up now, and not when it is
    collected. Nobody can do that while a reader is inside: then that reader does it as it comes out.
    """

    is_running = False

    def __init__(self, log: Log[StreamChunk], iterator: object, result: Any) -> None:
        self.result = result
        self._log = log
        # Taken out by whoever closes it: pop() is atomic, so two threads cannot close it at the same moment.
        self._to_close = [iterator]

    def _take(self, method: str) -> Any:
        """What closes the iterator, the first time; None where it has no such method."""
        try:
            return getattr(self._to_close.pop(), method, None)
        except IndexError:
            return None

    def _add(self, chunk: StreamChunk) -> None:
        if not self._log.is_ended:  # closed while the iterator was at work
            self._log.append(chunk)


class PlainFeed(_PlainFeed):
    """Pulls an iterator, one item whenever a reader wants one more."""

    def __init__(self, log: Log[StreamChunk], iterator: Iterator[StreamChunk], result: Any) -> None:
        super().__init__(log, iterator, result)
        self._iterator = iterator
        # A generator refuses to be entered by two readers at once: the second has to wait for its turn.
        self._turn = threading.Lock()

    def pull(self, position: int) -> None:
        with self._turn:
            while not self._log.has(position):
                try:
                    chunk = next(self._iterator)
                except StopIteration:
                    self._log.end()
                except Exception as error:  # noqa: BLE001 - raised by the reader, after what had arrived
                    self._log.end(error)
                else:
                    self._add(chunk)
        if self._log.is_cancelled:
            self._close_iterator()

    def close(self) -> None:
        if self._log.end(cancelled=True) and not self._turn.locked():
            self._close_iterator()

    async def aclose(self) -> None:
        self.close()

    def _close_iterator(self) -> None:
        close = self._take("close")
        try:
            if close is not None:
                close()
        except Exception as error:  # noqa: BLE001 - close() never raises
            _report(error)

    async def pull_async(self, position: int) -> None:
        raise RuntimeError("This output was built from a sync_iterator: read it with `for`, not `async for`.")


class PlainAsyncFeed(_PlainFeed):
    """The same for an async iterator."""

    def __init__(self, log: Log[StreamChunk], iterator: AsyncIterator[StreamChunk], result: Any) -> None:
        super().__init__(log, iterator, result)
        self._iterator = iterator
        self._turn = anyio.Lock()

    def pull(self, position: int) -> None:
        raise RuntimeError("This output was built from an async_iterator: read it with `async for`.")

    async def pull_async(self, position: int) -> None:
        async with self._turn:
            while not self._log.has(position):
                try:
                    chunk = await anext(self._iterator)
                except StopAsyncIteration:
                    self._log.end()
                except Exception as error:  # noqa: BLE001 - raised by the reader, after what had arrived
                    self._log.end(error)
                else:
                    self._add(chunk)
        if self._log.is_cancelled:
            await self._close_iterator()

    def close(self) -> None:
        self._log.end(cancelled=True)  # the iterator waits for aclose(), or for its collection

    async def aclose(self) -> None:
        self._log.end(cancelled=True)
        if self._log.is_cancelled and not self._turn.locked():
            await self._close_iterator()

    async def _close_iterator(self) -> None:
        close = self._take("aclose")
        try:
            if close is not None:
                await close()
        except Exception as error:  # noqa: BLE001 - aclose() never raises
            _report(error)


def _report(error: Exception) -> None:
    warnings.warn(f"the iterator of an output raised when it was closed: {error!r}", RuntimeWarning, stacklevel=4)
