"""Event loops as seen from any thread: callbacks, contexts, time, and calls that would block them."""

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
    """The asyncio loop that runs in this thread, if any. (Under trio there is none.)"""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def context_for_another_thread() -> Context:
    """The caller's context, without its note of the async library that runs here.

    Under ``anyio.run(…, backend="trio")`` that note would tell anyio and httpx, on a loop of asyncio, to speak to trio.
    """
    context = copy_context()
    sniffio: Any = sys.modules.get("sniffio")
    if sniffio is not None:
        context.run(sniffio.current_async_library_cvar.set, None)
    return context


def refusal_of(loop: asyncio.AbstractEventLoop) -> Exception | None:
    """Why ``loop`` cannot wait for a real provider; None for most loops, which can. One on virtual time cannot."""
    refuse: Callable[[], Exception] | None = getattr(loop, "refuse_provider", None)
    return None if refuse is None else refuse()


def call_soon(
    loop: asyncio.AbstractEventLoop, callback: Callable[[], object], *, context: Context | None = None
) -> bool:
    """Run ``callback`` on the loop's thread soon, from any thread. False if the loop has ended."""
    try:
        loop.call_soon_threadsafe(callback, context=context)
    except RuntimeError:
        if not loop.is_closed():
            raise
        return False
    return True


async def off_the_loop(function: Callable[[], T]) -> T:
    """Call what blocks in a worker thread, under asyncio and trio; a cancellation leaves it behind.

    anyio's own limit of 40 threads does not apply: calls that wait for each other would use it up.
    """
    return await anyio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(math.inf))


async def on_this_loop(future: Future[T]) -> T:
    """Await a future of any thread. Unlike with ``asyncio.wrap_future``, one of this loop's thread needs no wake-up."""
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
    """RxPY's scheduler for asyncio, but with the loop's time: the wall clock may jump, a virtual one runs apart."""

    @property
    def now(self) -> datetime:
        return UTC_ZERO + timedelta(seconds=self._loop.time())


class Once:
    """A token that one caller can take: of two threads at once, one gets True. No lock: ``list.pop()`` is atomic."""

    __slots__ = ("_token",)

    def __init__(self) -> None:
        self._token = [True]

    def take(self) -> bool:
        """Take it; True for the first caller."""
        try:
            return self._token.pop()
        except IndexError:
            return False

    def give_back(self) -> None:
        """Make it available again. Only for the caller that has taken it."""
        self._token.append(True)

    @property
    def is_taken(self) -> bool:
        """Whether it is taken."""
        return not self._token
