"""An event loop whose time is virtual: where it would sleep, its clock jumps.

An hour of ``asyncio.sleep``, an anyio deadline or a timer of RxPY takes no time at all, and is exact. Time stands still
while a thread is at work for the loop, so that sync methods and tools take none.
"""

from __future__ import annotations

import asyncio
import itertools
import selectors
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextvars import Context
from functools import partial
from typing import Any, TypeVar, TypeVarTuple

from rxflow.testing.awaited import watch
from rxflow.testing.counted_threads import CountedThreads
from rxflow.testing.instant import Due, Instant
from rxflow.testing.refusals import SOCKET_METHODS, ProviderInVirtualTime, refusal
from rxflow.testing.standing import where_stand, where_threads_stand

_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")

__tracebackhide__ = True  # pytest shows who waits, not how it was found out


class Deadlock(RuntimeError):
    """In virtual time nothing can happen any more, and somebody still waits."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its time begins at ``start``, and passes where nothing else can happen.

    Where nothing at all can happen, it raises :class:`Deadlock`; unless it is ``patient``, as others may wake it: then
    only if someone reads what it makes, and so waits for it. ``blocked`` is a loop whose thread is that reader.
    """

    def __init__(self, start: float = 0.0, *, patient: bool = False, blocked: VirtualLoop | None = None) -> None:
        self._now = Instant.at(start)
        self._blocked = blocked
        self._numbers = itertools.count()
        self._patient = patient
        self._idle: asyncio.Future[bool] | None = None
        self._settled_at = 0.0
        self._jumps_left: int | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._executing: set[asyncio.Future[Any]] = set()
        super().__init__(_Selector(self._let_time_pass))
        self.thread_count = CountedThreads(self)

    def time(self) -> float:
        """Virtual seconds."""
        return self._now

    @property
    def now(self) -> float:
        """The same, as a plain float."""
        return self._now.seconds

    def call_at(
        self, when: float, callback: Callable[[*_Args], object], *args: *_Args, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Timers of one instant fire in the order in which they were made."""
        due = Instant.at(when)
        if due <= self._now < when:
            # Computed apart from time(), whose owner may ask it whether the instant has come: let no noise deny that.
            self._now = Instant(when)
        return super().call_at(Due(due, next(self._numbers)), callback, *args, context=context)

    def call_soon_threadsafe(
        self, callback: Callable[[*_Args], object], *args: *_Args, context: Context | None = None
    ) -> asyncio.Handle:
        """A thread that waits for a coroutine which it has run here waits for this loop."""
        watch(callback, self.thread_count.pause)
        return super().call_soon_threadsafe(callback, *args, context=context)

    async def until_idle(self, *, jumps: int | None = None, after: float = 0.0) -> bool:
        """Wait until nothing else can happen.

        Timers may go on for ever: it is False where time has jumped so often, counted from the instant ``after`` on.
        """
        self._idle, self._jumps_left, self._settled_at = self.create_future(), jumps, after
        try:
            return await self._idle
        finally:
            self._idle = None

    def advance(self, seconds: float) -> None:
        """Time passes while this loop is blocked: what was due meanwhile comes late, as on any loop."""
        self._now += seconds

    def catch_up(self, now: float) -> None:
        """Time has passed elsewhere while this loop was blocked."""
        self._now = max(self._now, Instant.at(now))

    def refuse_provider(self) -> Exception:
        """See :func:`rxflow.loops.refusal_of`."""
        return ProviderInVirtualTime()

    def _let_time_pass(self, timeout: float | None) -> bool:
        """Nothing is ready: jump over ``timeout`` seconds to the next timer. False: wait for what threads do."""
        if self.thread_count.at_work:
            return False
        if self._idle is not None and not self._idle.done() and (timeout is None or self._has_jumped_enough(timeout)):
            self._idle.set_result(timeout is None)
            return True
        if timeout is not None:
            self._now += timeout
            if self._blocked is not None and self.thread_count.has_reader:
                self._blocked.catch_up(self._now)
            return True
        if self._patient and not self.thread_count.has_reader:
            return False
        raise Deadlock(
            f"at {self.now} s of virtual time nothing can happen any more: no timer is pending, no thread is at "
            f"work, and these wait:\n{self.who_waits()}"
        )

    def who_waits(self, but: asyncio.Task[Any] | None = None) -> str:
        """Where its tasks stand, and the threads that work for it; some lines, or none."""
        tasks = where_stand(asyncio.all_tasks(self) - {but})
        return "\n".join(filter(None, [tasks, where_threads_stand(self.thread_count.begun.values())]))

    def _has_jumped_enough(self, timeout: float) -> bool:
        if self._jumps_left is not None and self._now + timeout > self._settled_at:
            self._jumps_left -= 1
            return self._jumps_left < 0
        return False

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*_Args], _T], *args: *_Args
    ) -> asyncio.Future[_T]:
        """Time stands still until a thread is done."""
        if executor is None:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(thread_name_prefix="asyncio")
                self.set_default_executor(self._threads)
            executor = self._threads
        hand = self.thread_count.work(executor)
        call: Callable[[], _T] = partial(func, *args)
        if isinstance(executor, ThreadPoolExecutor):  # another one may take it to where the hand cannot go
            call = partial(hand.run, call)
        try:
            future = super().run_in_executor(executor, call)
        except BaseException:
            hand.over()
            raise
        self._executing.add(future)
        future.add_done_callback(self._executing.discard)
        future.add_done_callback(lambda _: hand.over())
        return future

    async def shutdown_default_executor(self, *timeout: Any) -> None:
        """asyncio waits for the end of its threads in a thread."""
        if self._executing:
            await asyncio.wait(self._executing)
        ending = self.thread_count.work()
        try:
            await super().shutdown_default_executor(*timeout)
        finally:
            ending.over()

    def close(self) -> None:
        """Who sleeps in a thread is woken."""
        super().close()
        self.thread_count.close()


for _name in SOCKET_METHODS:
    setattr(VirtualLoop, _name, refusal(_name))


class _Selector(selectors.DefaultSelector):
    """Sleeps only for as long as threads are at work."""

    def __init__(self, let_time_pass: Callable[[float | None], bool]) -> None:
        super().__init__()
        self._let_time_pass = let_time_pass

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0) or self._let_time_pass(timeout):
            return events
        return super().select()
