"""Access to event loops from any thread: callbacks, wake-ups, contexts, time, and blocking calls."""

from __future__ import annotations

import asyncio
import math
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import Context, copy_context
from datetime import datetime, timedelta
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from reactivex.abc import DisposableBase
from reactivex.disposable import CompositeDisposable, Disposable, SingleAssignmentDisposable
from reactivex.internal.constants import UTC_ZERO
from reactivex.scheduler.eventloop import AsyncIOScheduler
from reactivex.typing import RelativeTime, ScheduledAction

T = TypeVar("T")
_State = TypeVar("_State")


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the asyncio loop that runs in this thread; None if there is none, as under trio."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def context_for_another_thread() -> Context:
    """Return a copy of the caller's context that does not name the async library of this thread.

    Inside ``anyio.run(…, backend="trio")``, the context names trio. If an asyncio loop in another thread ran code in an
    exact copy, anyio and httpx would use trio there.
    """
    context = copy_context()
    sniffio: Any = sys.modules.get("sniffio")
    if sniffio is not None:
        context.run(sniffio.current_async_library_cvar.set, None)
    return context


def refusal_of(loop: asyncio.AbstractEventLoop) -> Exception | None:
    """Return an error if ``loop`` cannot wait for real providers, because its time is virtual; otherwise None."""
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
    """Take each function out of ``waiting``, and call it. Several threads may do this at the same time."""
    while waiting:
        try:
            wake = waiting.pop()
        except IndexError:  # another thread has removed the last function
            return
        wake()


def fail_future(future: asyncio.Future[Any] | Future[Any], error: BaseException, source: str) -> None:
    """Set an error of users' code as the exception of ``future``.

    In place of a StopIteration, set a RuntimeError that names the code (``source``). asyncio's futures refuse a
    StopIteration, and a StopIteration would silently end a generator.
    """
    if isinstance(error, StopIteration):
        raised = RuntimeError(f"{source} raised StopIteration")
        raised.__cause__ = error
        error = raised
    future.set_exception(error)


def report_error(error: BaseException, message: str) -> None:
    """Report an error that no caller can catch.

    If a loop runs in this thread, the error goes to the loop's exception handler. Otherwise it goes to
    ``threading.excepthook``.
    """
    loop = running_loop()
    if loop is not None:
        loop.call_exception_handler({"message": message, "exception": error})
    else:
        hook = threading.ExceptHookArgs((type(error), error, error.__traceback__, threading.current_thread()))
        threading.excepthook(hook)


def dispose_safely(item: DisposableBase) -> None:
    """Dispose ``item``. If a dispose action raises, report the error, so that the caller can dispose the rest too."""
    try:
        item.dispose()
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - a user's dispose action may raise anything
        report_error(error, "a dispose action raised")


async def off_the_loop(function: Callable[[], T]) -> T:
    """Call a blocking function in a worker thread, under asyncio or trio.

    A caller that is cancelled does not wait until the function returns. anyio's limit of 40 threads does not apply.
    With a limit, functions that wait for other functions could occupy all threads, and none would continue.
    """
    return await anyio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(math.inf))


async def on_this_loop(future: Future[T]) -> T:
    """Await ``future``. Any thread may resolve ``future``.

    ``asyncio.wrap_future`` always sends a wake-up to the loop. This function sends none if the loop's own thread
    resolves the future, because the loop is then already awake. If the caller is cancelled, ``future`` is
    cancelled too.

    Raises:
        concurrent.futures.CancelledError: other code has cancelled ``future``. ``asyncio.wrap_future`` would raise an
            asyncio.CancelledError, as if the caller were cancelled.
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
    """RxPY's scheduler for asyncio, with the loop's clock instead of the wall clock. Any thread may use it.

    The wall clock may jump, and it does not follow a loop with virtual time. RxPY's scheduler does not wake the loop
    when another thread sets a timer: the timer would wait until the loop wakes for another reason.
    """

    @property
    def now(self) -> datetime:
        return UTC_ZERO + timedelta(seconds=self._loop.time())

    def schedule(self, action: ScheduledAction[_State], state: _State | None = None) -> DisposableBase:
        """Run ``action`` soon on the loop's thread."""
        return self._plan(None, action, state)

    def schedule_relative(
        self, duetime: RelativeTime, action: ScheduledAction[_State], state: _State | None = None
    ) -> DisposableBase:
        """Run ``action`` on the loop's thread after ``duetime``."""
        seconds = self.to_seconds(duetime)
        return self._plan(seconds if seconds > 0 else None, action, state)

    def _plan(self, seconds: float | None, action: ScheduledAction[_State], state: _State | None) -> DisposableBase:
        loop = self._loop
        done = SingleAssignmentDisposable()
        handles: list[asyncio.Handle] = []

        def run() -> None:
            if not done.is_disposed:
                done.disposable = self.invoke_action(action, state=state)

        def begin() -> None:
            if not done.is_disposed:
                handles.append(loop.call_soon(run) if seconds is None else loop.call_later(seconds, run))

        def cancel() -> None:
            for handle in handles:
                handle.cancel()

        def dispose() -> None:
            if running_loop() is loop:
                cancel()
            else:
                call_soon(loop, cancel)  # after begin(), which another thread may have sent before

        if running_loop() is loop:
            begin()
        else:
            loop.call_soon_threadsafe(run if seconds is None else begin, context=context_for_another_thread())
        return CompositeDisposable(done, Disposable(dispose))


def get_loop(scheduler: object) -> asyncio.AbstractEventLoop | None:
    """Return the loop of one of RxPY's schedulers for asyncio; None for any other scheduler."""
    if not isinstance(scheduler, AsyncIOScheduler):
        return None
    return scheduler._loop  # pyright: ignore[reportPrivateUsage]  # RxPY 6.1 has no public name for the loop


class Once:
    """A token that only one caller at a time can hold, even if several threads try to take it.

    No lock is needed, because ``list.pop()`` is atomic.
    """

    __slots__ = ("_token",)

    def __init__(self) -> None:
        self._token = [True]

    def take(self) -> bool:
        """Take the token, and return True. If it is already taken, return False."""
        try:
            return self._token.pop()
        except IndexError:
            return False

    def give_back(self) -> None:
        """Make the token available again. Only the caller that has taken the token may call this."""
        self._token.append(True)

    @property
    def is_taken(self) -> bool:
        """Whether the token is taken."""
        return not self._token
