"""Event loops and what is handed to them, and taken from them: callbacks, contexts, time, what would block them."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Callable
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
    """The caller's context, but for its note of the async library that runs here.

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

    anyio's own limit of 40 threads does not apply: one that waits for another of its kind would starve it.
    """
    return await anyio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(math.inf))


class LoopScheduler(AsyncIOScheduler):
    """RxPY's scheduler for asyncio, but with the loop's time: the wall clock may jump, a virtual one runs apart."""

    @property
    def now(self) -> datetime:
        return UTC_ZERO + timedelta(seconds=self._loop.time())


class Once:
    """Of two threads that ``take()`` at once, one gets True. No lock: ``pop()`` of a list is atomic."""

    __slots__ = ("_token",)

    def __init__(self) -> None:
        self._token = [True]

    def take(self) -> bool:
        """True for the first who asks."""
        try:
            return self._token.pop()
        except IndexError:
            return False

    def give_back(self) -> None:
        """It can be taken again. For whoever has taken it."""
        self._token.append(True)

    @property
    def is_taken(self) -> bool:
        """Somebody has it."""
        return not self._token
