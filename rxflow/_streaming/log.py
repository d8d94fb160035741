"""The log of a stream: append-only, read by any number of cursors, from threads and from async code alike."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, TypeVar

import anyio

from rxflow._hooks import Pause
from rxflow._loops import Once, call_soon, running_loop
from rxflow._streaming.interrupts import find_wait_limit
from rxflow.types.chunks import PackedChunks, pack_chunks

_T = TypeVar("_T")

THE_END = sys.maxsize
"""A position that no log reaches: to wait for it is to wait for the end."""


BLOCK_SIZE = 64
"""Items that are packed together. A chunk is two objects to the garbage collector, which starts whenever there are 700
more than before: so few chunks alive at a time do not start it; blocks of 512 started it again and again."""
KEPT_BLOCKS = 3
"""Full blocks that are not packed yet, for readers that are a little behind: to pack and unpack takes 1 µs a chunk."""


class Log(Generic[_T]):
    """Items in order of arrival, and the end. One writer at a time; readers never block the writer.

    No lock: the writer appends and then looks for waiting readers, a reader registers and then looks for items, so
    one of the two always sees the other.

    The items stand in blocks. All but the newest are packed: their chunks become text and one copy of their labels, and
    are made anew for each reader that comes later. A reader that is inside a block at that moment holds the originals.

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
        """Add an item and wake who waits."""
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
        """The items of a block, to be read only. The last block grows."""
        block = self.blocks[number]
        return block if isinstance(block, list) else block.unpack()

    def copy(self) -> list[_T]:
        """What has arrived so far."""
        return [item for number in range(len(self.blocks)) for item in self.block(number).copy()]

    def end(self, error: BaseException | None = None, *, cancelled: bool = False) -> bool:
        """End the log; False if it had ended already. Of two threads that end it at once, one succeeds."""
        if not self._end_token.take():
            return False
        self.error = error
        self._traceback = error.__traceback__ if error is not None else None
        self.is_cancelled = cancelled
        self.is_ended = True
        self.wake()
        if error is None and not cancelled:  # else it may be another thread that ends it, while the writer appends
            for number in range(max(0, len(self.blocks) - KEPT_BLOCKS - 1), len(self.blocks)):
                self._pack(number)
        return True

    def _pack(self, number: int) -> None:
        block = self.blocks[number]
        if isinstance(block, list):
            self.blocks[number] = pack_chunks(block) or block

    def raise_error(self) -> None:
        """Raise the error that the log ended with, if any; with its own traceback, however often it is raised."""
        if self.error is not None:
            raise self.error.with_traceback(self._traceback)

    def wake(self) -> None:
        """Wake every waiting reader. From any thread."""
        while self._waiting:
            try:
                waker = self._waiting.pop()
            except IndexError:  # another thread was faster
                return
            waker()

    def has(self, position: int) -> bool:
        """Whether there is an item at ``position``, or the log has ended."""
        return len(self) > position or self.is_ended

    def wait(self, position: int, new_pause: Callable[[], Pause | None] = lambda: None) -> None:
        """Block this thread until ``has(position)``. ``new_pause`` counts the wait, if the writer's loop does so."""
        while not self.has(position):
            arrived = threading.Event()
            pause = new_pause()
            self._waiting.append(_counted(arrived.set, pause))
            if self.has(position):
                return
            if pause is not None:
                pause.begins()
            limit_s = find_wait_limit()
            while not arrived.wait(limit_s):
                pass

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
                with suppress(ValueError):  # it was being woken just now
                    self._waiting.remove(waker)
                raise


class LogReader(Generic[_T]):
    """One reader's position in a log."""

    def __init__(self, log: Log[_T]) -> None:
        self._log = log
        self._block_number = 0
        self._block = log.block(0)
        self._offset = 0  # in the block

    @property
    def position(self) -> int:
        """How many items it has read."""
        return self._block_number * BLOCK_SIZE + self._offset

    def has_read_all(self) -> bool:
        """Whether nothing more has arrived so far. Moves on to the next block if there is one."""
        if self._offset == BLOCK_SIZE and self._block_number + 1 < len(self._log.blocks):
            self._block_number += 1
            self._block = self._log.block(self._block_number)
            self._offset = 0
        return self._offset == len(self._block)

    def read(self) -> _T:
        """The next item; IndexError if it has read all."""
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
    """Return a function that sets ``arrived`` from any thread: at once on its own loop, else thread-safely."""
    home = running_loop()
    if home is not None:

        def wake() -> None:
            if running_loop() is home:
                arrived.set()
            else:
                call_soon(home, arrived.set)

        return wake

    from anyio.lowlevel import current_token  # asyncio needs none, and it is one of the heavier imports

    trio: Any = current_token().native_token

    def wake_trio() -> None:
        # RunFinishedError: that reader has gone together with its loop.
        with suppress(RuntimeError):
            trio.run_sync_soon(arrived.set)

    return wake_trio
