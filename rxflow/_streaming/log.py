"""The log of a stream: append-only, and read by any number of cursors, from threads and from async code."""

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
"""A position that no log reaches: code that waits for it waits for the end."""


BLOCK_SIZE = 64
"""The number of items that are packed together.

A chunk is two objects for the garbage collector, which starts after 700 new objects. A block of 64 chunks does not
start it; blocks of 512 did so repeatedly.
"""
KEPT_BLOCKS = 3
"""The number of full blocks that are not packed yet, for readers that are a little behind.

Packing and unpacking take 1 µs for each chunk.
"""


class Log(Generic[_T]):
    """Items in order of arrival, and the end. There is one writer at a time; readers never block the writer.

    The log needs no lock: the writer appends and then looks for waiting readers; a reader registers and then looks for
    items. So one of the two always sees the other.

    The items are kept in blocks. All but the newest blocks are packed: their chunks are stored as text and one copy of
    the labels, and are built again for each later reader. A reader that is inside a block while it is packed keeps the
    originals.

    Attributes:
        blocks: all but the last have :data:`BLOCK_SIZE` items.
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
        """Return the items of a block, for reading only. The last block grows."""
        block = self.blocks[number]
        return block if isinstance(block, list) else block.unpack()

    def copy(self) -> list[_T]:
        """Return the items that have arrived so far."""
        return [item for number in range(len(self.blocks)) for item in self.block(number).copy()]

    def end(self, error: BaseException | None = None, *, cancelled: bool = False) -> bool:
        """End the log; return False if it had ended already. If two threads end it at the same time, one succeeds."""
        if not self._end_token.take():
            return False
        self.error = error
        self._traceback = error.__traceback__ if error is not None else None
        self.is_cancelled = cancelled
        self.is_ended = True
        self.wake()
        # Only if the log completes. If it fails or is closed, the writer may be appending in another thread.
        if error is None and not cancelled:
            for number in range(max(0, len(self.blocks) - KEPT_BLOCKS - 1), len(self.blocks)):
                self._pack(number)
        return True

    def _pack(self, number: int) -> None:
        block = self.blocks[number]
        if isinstance(block, list):
            self.blocks[number] = pack_chunks(block) or block

    def raise_error(self) -> None:
        """Raise the error that ended the log, if any. Its traceback stays the same, however often it is raised."""
        if self.error is not None:
            raise self.error.with_traceback(self._traceback)

    def wake(self) -> None:
        """Wake every waiting reader. May be called from any thread."""
        wake_all(self._waiting)

    def has(self, position: int) -> bool:
        """Return whether there is an item at ``position``, or the log has ended."""
        return len(self) > position or self.is_ended

    def wait(self, position: int, new_pause: Callable[[], Pause | None] = lambda: None) -> None:
        """Block this thread until ``has(position)``.

        ``new_pause`` counts the wait, if the writer's loop counts waits.
        """
        while not self.has(position):
            wake, wait = create_wait()
            pause = new_pause()
            self._waiting.append(_counted(wake, pause))
            if self.has(position):
                return
            if pause is not None:
                pause.begins()
            wait(None)

    async def wait_async(self, position: int, new_pause: Callable[[], Pause | None] = lambda: None) -> None:
        """Wait until ``has(position)`` in async code, under asyncio or trio."""
        while not self.has(position):
            arrived = anyio.Event()
            pause = new_pause()
            waker = _counted(_waker(arrived), pause)
            self._waiting.append(waker)
            if self.has(position):
                return
            if pause is not None:
                pause.begins()
            try:
                await arrived.wait()
            except BaseException:  # cancelled, or dropped together with its loop
                if pause is not None:
                    pause.ends()
                with suppress(ValueError):  # another thread is waking it
                    self._waiting.remove(waker)
                raise


class LogReader(Generic[_T]):
    """One reader's position in a log."""

    def __init__(self, log: Log[_T]) -> None:
        self._log = log
        self._block_number = 0
        self._block = log.block(0)
        self._offset = 0  # within the block

    @property
    def position(self) -> int:
        """The number of items that were read."""
        return self._block_number * BLOCK_SIZE + self._offset

    def has_read_all(self) -> bool:
        """Return whether nothing more has arrived so far. Moves on to the next block if there is one."""
        if self._offset == BLOCK_SIZE and self._block_number + 1 < len(self._log.blocks):
            self._block_number += 1
            self._block = self._log.block(self._block_number)
            self._offset = 0
        return self._offset == len(self._block)

    def read(self) -> _T:
        """Return the next item. Raises IndexError if all items were read."""
        item = self._block[self._offset]
        self._offset += 1
        return item


def _counted(waker: Callable[[], None], pause: Pause | None) -> Callable[[], None]:
    if pause is None:
        return waker

    def wake() -> None:
        pause.ends()
        waker()

    return wake


def _waker(arrived: anyio.Event) -> Callable[[], None]:
    """Return a function that sets ``arrived`` from any thread.

    It sets the event directly on the event's own loop, and thread-safely from elsewhere.
    """
    home = running_loop()
    if home is not None:

        def wake() -> None:
            if running_loop() is home:
                arrived.set()
            else:
                call_soon(home, arrived.set)

        return wake

    from anyio.lowlevel import current_token  # asyncio does not need it, and it is slow to import

    trio: Any = current_token().native_token

    def wake_trio() -> None:
        # RunFinishedError: the reader's loop has ended, and the reader with it.
        with suppress(RuntimeError):
            trio.run_sync_soon(arrived.set)

    return wake_trio
