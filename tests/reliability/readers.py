"""Readers of a stream, in threads and on an event loop, whose pulls can be waited for."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from rxflow.types.streaming import StreamChunk


class Told(NamedTuple):
    """What one pull came to: an item's text, the end, or an error."""

    kind: str
    value: Any = None


class Reader:
    """One cursor, its place, and the pull that it waits in, if it does."""

    def __init__(self, cursor: Iterator[StreamChunk] | AsyncIterator[StreamChunk]) -> None:
        self.cursor = cursor
        self.position = 0
        self.waiting: Future[Told] | None = None

    def __repr__(self) -> str:
        return f"<{type(self.cursor).__name__} at {self.position}{', waiting' if self.waiting else ''}>"


class Readers:
    """Where they read: a pool of threads, and an event loop in one more."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._pool = ThreadPoolExecutor(10)
        self._thread = threading.Thread(target=self.loop.run_forever, name="readers", daemon=True)
        self._thread.start()

    def pull(self, reader: Reader) -> Future[Told]:
        cursor = reader.cursor
        if isinstance(cursor, Iterator):
            return self._pool.submit(_pull, cursor)
        return asyncio.run_coroutine_threadsafe(_pull_async(cursor), self.loop)

    def close(self) -> None:
        self._pool.shutdown()
        asyncio.run_coroutine_threadsafe(_others_done(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()


async def _others_done() -> None:
    """What was just cancelled comes to its end; a loop that is stopped before would leave it pending."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        await asyncio.wait(left, timeout=5)


def _pull(cursor: Iterator[StreamChunk]) -> Told:
    try:
        return Told("item", next(cursor).content)
    except StopIteration:
        return Told("end")
    except Exception as error:  # noqa: BLE001 - compared with what was expected
        return Told("error", error)


async def _pull_async(cursor: AsyncIterator[StreamChunk]) -> Told:
    try:
        return Told("item", (await anext(cursor)).content)
    except StopAsyncIteration:
        return Told("end")
    except Exception as error:  # noqa: BLE001 - compared with what was expected
        return Told("error", error)
