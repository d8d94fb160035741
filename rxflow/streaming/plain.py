"""Outputs built from plain iterators, as tests of streaming programs do."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio

from rxflow.streaming.log import Log
from rxflow.types.chunks import StreamChunk


class _PlainFeed:
    """Nothing goes on while nobody pulls."""

    is_running = False

    def __init__(self, log: Log[StreamChunk], result: Any) -> None:
        self.result = result
        self._log = log

    def close(self) -> None:
        self._log.end(cancelled=True)

    async def aclose(self) -> None:
        self.close()


class PlainFeed(_PlainFeed):
    """Pulls an iterator, one item whenever a reader wants one more."""

    def __init__(self, log: Log[StreamChunk], iterator: Iterator[StreamChunk], result: Any) -> None:
        super().__init__(log, result)
        self._iterator = iterator
        # A generator refuses to be entered by two readers at once: the second has to wait for its turn.
        self._turn = threading.Lock()

    def pull(self, position: int) -> None:
        with self._turn:
            while not self._log.has(position):
                try:
                    self._log.append(next(self._iterator))
                except StopIteration:
                    self._log.end()
                except Exception as error:  # noqa: BLE001 - raised by the reader, after what had arrived
                    self._log.end(error)

    async def pull_async(self, position: int) -> None:
        raise RuntimeError("This output was built from a sync_iterator: read it with `for`, not `async for`.")


class PlainAsyncFeed(_PlainFeed):
    """The same for an async iterator."""

    def __init__(self, log: Log[StreamChunk], iterator: AsyncIterator[StreamChunk], result: Any) -> None:
        super().__init__(log, result)
        self._iterator = iterator
        self._turn = anyio.Lock()

    def pull(self, position: int) -> None:
        raise RuntimeError("This output was built from an async_iterator: read it with `async for`.")

    async def pull_async(self, position: int) -> None:
        async with self._turn:
            while not self._log.has(position):
                try:
                    self._log.append(await anext(self._iterator))
                except StopAsyncIteration:
                    self._log.end()
                except Exception as error:  # noqa: BLE001 - raised by the reader, after what had arrived
                    self._log.end(error)
