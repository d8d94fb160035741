"""Access to event loops from any thread: callbacks, wake-ups, contexts, time, and blocking calls."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import Context, copy_context
from datetime import datetime, timedelta
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from reactivex.internal.constants import UTC_ZERO
from reactivex.scheduler.eventloop import AsyncIOScheduler

T = TypeVar("T")


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the asyncio loop that runs in this thread, or None. Under trio there is none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def context_for_another_thread() -> Context:
    """Return a copy of the caller's context that does not name the async library of this thread.

    After ``anyio.run(…, backend="trio")`` the context names trio, and anyio and httpx would use trio on an asyncio
    loop.
    """
    context = copy_context()
    sniffio: Any = sys.modules.get("sniffio")
    if sniffio is not None:
        context.run(sniffio.current_async_library_cvar.set, None)
    return context


def refusal_of(loop: asyncio.AbstractEventLoop) -> Exception | None:
    """Return an error if ``loop`` cannot wait for real providers; otherwise None. With virtual time, it cannot."""
    refuse: Callable[[], Exception] | None = getattr(loop, "refuse_provider", None)
    return None if refuse is None else refuse()


def call_soon(
    loop: asyncio.AbstractEventLoop, callback: Callable[[], object], *, context: Context | None = None
) -> bool:
    """Run ``callback`` soon on the loop's thread. May be called in any thread. Return False if the loop is closed."""
    try:
        loop.call_soon_threadsafe(callback, context=context)
    except RuntimeError:
        if not loop.is_closed():
            raise
        return False
    return True


def wake_all(waiting: list[Callable[[], None]]) -> None:
    """Take each function out of ``waiting``, and call it. Threads may do this at the same time."""
    while waiting:
        try:
            wake = waiting.pop()
        except IndexError:  # another thread was faster
            return
        wake()


def fail_future(future: asyncio.Future[Any] | Future[Any], error: BaseException, source: str) -> None:
    """Fail ``future`` with an error of users' code. ``source`` names the code, in case the error must be replaced.

    A StopIteration becomes a RuntimeError: asyncio's futures refuse it, and it would silently end a generator.
    """
    if isinstance(error, StopIteration):
        raised = RuntimeError(f"{source} raised StopIteration")
        raised.__cause__ = error
        error = raised
    future.set_exception(error)


async def off_the_loop(function: Callable[[], T]) -> T:
    """Call a blocking function in a worker thread, under asyncio or trio. Cancellation does not wait for the function.

    anyio's own limit of 40 threads does not apply, because calls that wait for each other would exhaust it.
    """
    return await anyio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(math.inf))


async def on_this_loop(future: Future[T]) -> T:
    """Await a future that any thread may resolve.

    If this thread resolves the future, the loop needs no wake-up, unlike with ``asyncio.wrap_future``.
    """
    if future.done():
        return future.result()
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[None] = loop.create_future()

    def settle() -> None:
        if not arrived.done():
            arrived.set_result(None)

    def wake(_: Future[T]) -> None:
        if running_loop() is loop:
            settle()
        else:
            call_soon(loop, settle)

    future.add_done_callback(wake)
    try:
        await arrived
    except BaseException:
        future.cancel()
        raise
    return future.result()


class LoopScheduler(AsyncIOScheduler):
    """RxPY's scheduler for asyncio, with the loop's clock instead of the wall clock.

    The wall clock may jump, and it does not follow a loop with virtual time.
    """

    @property
    def now(self) -> datetime:
        return UTC_ZERO + timedelta(seconds=self._loop.time())


class Once:
    """A token that only one caller can take, even if several threads try.

    It needs no lock, because ``list.pop()`` is atomic.
    """

    __slots__ = ("_token",)

    def __init__(self) -> None:
        self._token = [True]

    def take(self) -> bool:
        """Take the token. Return True for the first caller."""
        try:
            return self._token.pop()
        except IndexError:
            return False

    def give_back(self) -> None:
        """Make the token available again. Only for the caller that has taken it."""
        self._token.append(True)

    @property
    def is_taken(self) -> bool:
        """Whether the token is taken."""
        return not self._token
