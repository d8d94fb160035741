"""A growing list of a stream's items, in memory. Any number of readers can read it, in threads or in async code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, TypeVar

import anyio

from rxflow._hooks import Pause
from rxflow._loops import Once, call_soon, running_loop, wake_all
from rxflow._streaming.interrupts import create_wait
from rxflow.types.chunks import PackedChunks, pack_chunks

_T = TypeVar("_T")

THE_END = sys.maxsize
"""A position that no log reaches. A wait for this position is a wait for the end of the log."""


BLOCK_SIZE = 64
"""The number of items that are packed together.

Unpacking creates two objects for each chunk, and the garbage collector of Python 3.11 starts after 700 new objects.
Unpacking a block of 64 chunks does not start the garbage collector. Blocks of 512 chunks started it repeatedly.
"""
KEPT_BLOCKS = 3
"""The number of full blocks that stay unpacked while the log grows. These are the newest full blocks.

So a reader that is only a little behind need not unpack any block. Packing a chunk takes about 1 µs, and so does
unpacking it.
"""


class Log(Generic[_T]):
    """The items of a stream in order of arrival, and how the stream ended.

    There is one writer at a time. Readers never block the writer. The log needs no lock. The writer first appends an
    item, then looks for waiting readers. A reader first registers, then looks for items. So if both do this at once,
    the writer sees the reader, or the reader sees the item.

    The items are kept in blocks. To save memory, older blocks of chunks are packed while the log grows (see
    :class:`~rxflow.types.chunks.PackedChunks`). When the log completes, the newest blocks are packed too. Each reader
    of a packed block gets new copies of the chunks. If a reader is inside a block when the block is packed, the reader
    continues with the original chunks.

    Attributes:
        blocks: the items in blocks. Each block except the last has :data:`BLOCK_SIZE` items.
    """

    __slots__ = ("_end_token", "_growing", "_traceback", "_waiting", "blocks", "error", "is_cancelled", "is_ended")

    def __init__(self) -> None:
        self.is_ended = False
        self.is_cancelled = False
        self.error: BaseException | None = None
        self._growing: list[_T] = []
        self.blocks: list[list[_T] | PackedChunks] = [self._growing]
        self._waiting: list[Callable[[], None]] = []
        self._end_token = Once()
        self._traceback: TracebackType | None = None

    def append(self, item: _T) -> None:
        """Add an item and wake the waiting readers."""
        self._growing.append(item)
        if self._waiting:
            self.wake()
        if len(self._growing) == BLOCK_SIZE:
            self._growing = []
            self.blocks.append(self._growing)
            if len(self.blocks) > KEPT_BLOCKS + 1:
                self._pack(len(self.blocks) - KEPT_BLOCKS - 2)

    def __len__(self) -> int:
        full_blocks = len(self.blocks) - 1
        return full_blocks * BLOCK_SIZE + len(self.blocks[full_blocks])

    def block(self, number: int) -> list[_T]:
        """Return the items of a block. Do not change the returned list. The list of the last block may still grow."""
        block = self.blocks[number]
        return block if isinstance(block, list) else block.unpack()

    def copy(self) -> list[_T]:
        """Return a new list of the items that have arrived so far."""
        return [item for number in range(len(self.blocks)) for item in self.block(number).copy()]

    def end(self, error: BaseException | None = None, *, cancelled: bool = False) -> bool:
        """End the log. Return False if the log had already ended. If several threads call this, only one gets True."""
        if not self._end_token.take():
            return False
        self.error = error
        self._traceback = error.__traceback__ if error is not None else None
        self.is_cancelled = cancelled
        self.is_ended = True
        self.wake()
        # Pack the remaining blocks only if the log has completed. If the log has failed or was cancelled, the writer
        # may still be appending an item in another thread.
        if error is None and not cancelled:
            for number in range(max(0, len(self.blocks) - KEPT_BLOCKS - 1), len(self.blocks)):
                self._pack(number)
        return True

    def _pack(self, number: int) -> None:
        block = self.blocks[number]
        if isinstance(block, list):
            self.blocks[number] = pack_chunks(block) or block

    def raise_error(self) -> None:
        """Raise the error that ended the log, if there was one. Repeated calls do not extend the error's traceback."""
        if self.error is not None:
            raise self.error.with_traceback(self._traceback)

    def wake(self) -> None:
        """Wake every waiting reader. May be called from any thread."""
        wake_all(self._waiting)

    def has(self, position: int) -> bool:
        """Return whether there is an item at ``position``, or the log has ended."""
        return len(self) > position or self.is_ended

    def wait(self, position: int, new_pause: Callable[[], Pause | None] = lambda: None) -> None:
        """Block this thread until ``has(position)`` is True.

        ``new_pause()`` returns an object that reports one wait to the writer's loop. If the loop need not know of the
        wait, ``new_pause()`` returns None.
        """
        while not self.has(position):
            wake, wait = create_wait()
            pause = new_pause()
            self._waiting.append(_end_pause_first(wake, pause))
            if self.has(position):
                return
            if pause is not None:
                pause.begins()
            wait(None)

    async def wait_async(self, position: int, new_pause: Callable[[], Pause | None] = lambda: None) -> None:
        """Wait until ``has(position)`` is True, in async code under asyncio or trio."""
        while not self.has(position):
            arrived = anyio.Event()
            pause = new_pause()
            waker = _end_pause_first(_waker(arrived), pause)
            self._waiting.append(waker)
            if self.has(position):
                return
            if pause is not None:
                pause.begins()
            try:
                await arrived.wait()
            except BaseException:  # the wait was cancelled, or this coroutine was closed
                if pause is not None:
                    pause.ends()
                with suppress(ValueError):  # wake() may already have removed the waker, in another thread
                    self._waiting.remove(waker)
                raise


class LogReader(Generic[_T]):
    """Reads a log from its first item. Each reader has its own position."""

    def __init__(self, log: Log[_T]) -> None:
        self._log = log
        self._block_number = 0
        self._block = log.block(0)
        self._offset = 0  # the position inside the block

    @property
    def position(self) -> int:
        """The number of items that this reader has read."""
        return self._block_number * BLOCK_SIZE + self._offset

    def has_read_all(self) -> bool:
        """Return whether the reader has read all items so far.

        If the reader is at the end of a block, this method first moves the reader to the next block, if there is one.
        """
        if self._offset == BLOCK_SIZE and self._block_number + 1 < len(self._log.blocks):
            self._block_number += 1
            self._block = self._log.block(self._block_number)
            self._offset = 0
        return self._offset == len(self._block)

    def read(self) -> _T:
        """Return the next item. Call this only after :meth:`has_read_all` has returned False."""
        item = self._block[self._offset]
        self._offset += 1
        return item


def _end_pause_first(waker: Callable[[], None], pause: Pause | None) -> Callable[[], None]:
    if pause is None:
        return waker

    def wake() -> None:
        pause.ends()
        waker()

    return wake


def _waker(arrived: anyio.Event) -> Callable[[], None]:
    """Return a function that sets ``arrived``. Any thread may call the function.

    If the reader waits on an asyncio loop, and the function is called on this loop, the function sets ``arrived`` at
    once. In all other cases, the reader's loop sets ``arrived`` soon afterwards.
    """
    home = running_loop()
    if home is not None:

        def wake() -> None:
            if running_loop() is home:
                arrived.set()
            else:
                call_soon(home, arrived.set)

        return wake

    from anyio.lowlevel import current_token  # only trio needs this slow import

    trio: Any = current_token().native_token

    def wake_trio() -> None:
        # trio raises RuntimeError if its loop has ended. The reader has then ended too.
        with suppress(RuntimeError):
            trio.run_sync_soon(arrived.set)

    return wake_trio
