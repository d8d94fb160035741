"""What the provider has seen so far, and waiting for it from threads and from event loops."""

import asyncio
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Self, TypeVar

from tests.gate import PATIENCE_S
from tests.loopback.reply import Disconnect, Request
from tests.stacks import where_all_stand

T = TypeVar("T")


class State:
    """Counters and lists, written by the server's thread alone, inside `change()`."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.disconnects: list[Disconnect] = []
        self.connections = 0
        self.open_connections = 0
        self.chunks_sent = 0
        self.completed = 0
        self.holds: set[asyncio.Future[None]] = set()
        self._changed = threading.Condition()
        self._wakers: set[Callable[[], None]] = set()

    @property
    def holding(self) -> int:
        """Replies that wait for a release."""
        return len(self.holds)

    @contextmanager
    def change(self) -> Generator[None, None, None]:
        """Change the state and wake everyone who waits for it."""
        with self._changed:
            yield
            self._changed.notify_all()
            for wake in self._wakers:
                wake()

    def wait_until(self, predicate: Callable[[Self], T], timeout: float = PATIENCE_S) -> T:
        """Block the calling thread until the predicate is true; AssertionError after `timeout`."""
        with self._changed:
            value = self._changed.wait_for(lambda: predicate(self), timeout)
            if not value:
                raise AssertionError(self._gave_up(timeout))
            return value

    async def until(self, predicate: Callable[[Self], T], timeout: float = PATIENCE_S) -> T:
        """`wait_until` for asyncio code."""
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        told = False

        def wake() -> None:
            # Once until the waiter has looked: a fast stream must not flood its loop.
            nonlocal told
            if told:
                return
            told = True
            with suppress(RuntimeError):  # the waiter's loop was closed: nobody to tell
                loop.call_soon_threadsafe(changed.set)

        with self._changed:
            self._wakers.add(wake)
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                while True:
                    with self._changed:
                        told = False
                        changed.clear()
                        value = predicate(self)
                    if value:
                        return value
                    await changed.wait()
        except TimeoutError:
            if limit.expired():
                raise AssertionError(self._gave_up(timeout)) from None
            raise
        finally:
            with self._changed:
                self._wakers.discard(wake)

    def _gave_up(self, timeout: float) -> str:
        return f"not so within {timeout} s: {self!r}\n{where_all_stand()}"

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} requests={len(self.requests)} completed={self.completed}"
            f" connections={self.connections} open_connections={self.open_connections}"
            f" chunks_sent={self.chunks_sent} holding={self.holding}"
            f" disconnects={[(gone.phase, gone.chunks_sent) for gone in self.disconnects]}>"
        )
