"""The log of a stream: append-only, read by any number of cursors, from threads and from async code alike."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, TypeVar

import anyio

from rxflow.loops import Once, call_soon, running_loop
from rxflow.streaming.hooks import Pause
from rxflow.streaming.interrupts import WAIT_LIMIT_S

_T = TypeVar("_T")

THE_END = sys.maxsize
"""A position that no log reaches: waiting for it is waiting for the end."""


class Log(Generic[_T]):
    """Items in order of arrival, and the end. One writer at a time; readers never block the writer.

    No lock: the writer appends and then looks for waiting readers, a reader registers and then looks for items, so
    one of the two always sees the other.
    """

    __slots__ = ("_open", "_traceback", "_waiting", "error", "is_cancelled", "is_ended", "items")

    def __init__(self) -> None:
        self.items: list[_T] = []
        self.is_ended = False
        self.is_cancelled = False
        self.error: BaseException | None = None
        self._waiting: list[Callable[[], None]] = []
        self._open = Once()
        self._traceback: TracebackType | None = None

    def append(self, item: _T) -> None:
        """Add an item and wake who waits."""
        self.items.append(item)
        if self._waiting:
            self.wake()

    def end(self, error: BaseException | None = None, *, cancelled: bool = False) -> bool:
        """End the log; False where it had ended already. Of two threads that end it at once, one succeeds."""
        if not self._open.take():
            return False
        self.error = error
        self._traceback = error.__traceback__ if error is not None else None
        self.is_cancelled = cancelled
        self.is_ended = True
        self.wake()
        return True

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
        """There is something to say about ``position``: an item, or the end."""
        return len(self.items) > position or self.is_ended

    def wait(self, position: int, new_pause: Callable[[], Pause | None] = lambda: None) -> None:
        """Block this thread until ``has(position)``. ``new_pause`` counts the wait, where the writer's loop counts."""
        while not self.has(position):
            arrived = threading.Event()
            pause = new_pause()
            self._waiting.append(_counted(arrived.set, pause))
            if self.has(position):
                return
            if pause is not None:
                pause.begins()
            while not arrived.wait(WAIT_LIMIT_S):
                pass

    async def wait_async(self, position: int, new_pause: Callable[[], Pause | None] = lambda: None) -> None:
        """The same for async code, under asyncio and trio."""
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


def _counted(waker: Callable[[], None], pause: Pause | None) -> Callable[[], None]:
    if pause is None:
        return waker

    def wake() -> None:
        pause.ends()
        waker()

    return wake


def _waker(arrived: anyio.Event) -> Callable[[], None]:
    """Sets ``arrived`` from any thread: directly on its own loop, else through the loop's thread-safe door."""
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
