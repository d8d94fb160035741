"""The threads that work for a loop on virtual time: while one is at work, its time stands still."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import ContextVar
from typing import TypeVar

import anyio.from_thread

from rxflow.loops import call_soon, running_loop
from rxflow.testing.standing import frames_of

_T = TypeVar("_T")

_ANYIO_THREAD = "AnyIO worker thread"
_ANYIO_WAIT = "run_sync_in_worker_thread"  # where a task stands whose thread is at work


class _Here(threading.local):
    hand: _Hand | None = None
    """The work that this thread does."""


_here = _Here()
_beginner: ContextVar[_Hand | None] = ContextVar("rxflow_beginner", default=None)
"""The work whose context this is: a thread that users' code has started may have a copy of it."""


class CountedThreads:
    """The :class:`~rxflow.streaming.hooks.ThreadCount` of one loop.

    Threads that users' code starts by itself are not counted. Where one of them has a method's context and waits for
    the run, the method is taken to wait for it: else neither would ever go on.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.lock = threading.Lock()
        self.busy: set[_Hand] = set()
        self.begun: dict[_Hand, int] = {}  # in which thread
        self.sleepers: set[concurrent.futures.Future[None]] = set()
        self.anyio_pauses = 0
        self._pools: dict[Executor, _Pool] = {}
        self._readers: set[_Hand] = set()

    @property
    def at_work(self) -> bool:
        """Some thread is going to tell the loop something by itself."""
        if self.busy or any(pool.is_moving for pool in self._pools.values()):
            return True
        # anyio has threads of its own, and says nowhere in public when they work.
        return (
            any(thread.name == _ANYIO_THREAD for thread in threading.enumerate())
            and sum(map(_waits_for_anyio, asyncio.all_tasks(self.loop))) > self.anyio_pauses
        )

    @property
    def has_reader(self) -> bool:
        """Somebody outside reads what a run on this loop makes."""
        return bool(self._readers)

    def work(self, executor: Executor | None = None) -> _Hand:
        """See the protocol. What is given to an ``executor`` may have to queue there."""
        if executor is None:
            return _Hand(self)
        pool = self._pools.setdefault(executor, _Pool(getattr(executor, "_max_workers", None)))
        return _Hand(self, pool)

    def reader(self) -> _Hand:
        """See the protocol."""
        hand = _Hand(self)
        self._readers.add(hand)
        hand.when_over = lambda: self._readers.discard(hand)
        return hand

    def pause(self) -> _Pause | None:
        """See the protocol."""
        if _here.hand is not None:
            return _here.hand.pause() if _here.hand.threads is self else None
        loop = _loop_of_anyio_worker()
        if loop is not None:
            return _Pause(self, self._count_anyio) if loop is self.loop else None
        beginner = _beginner.get()
        return beginner.pause() if beginner is not None and beginner.threads is self else None

    def sleep(self, seconds: float, pause: _Pause, hand: _Hand | None = None) -> None:
        """Block the calling worker for so long in virtual time. CancelledError where its work is over before."""
        woken: concurrent.futures.Future[None] = concurrent.futures.Future()

        def fall_asleep() -> None:
            if not woken.done():
                pause.begins()
                timer = self.loop.call_later(seconds, wake)
                woken.add_done_callback(lambda _: timer.cancel())

        def wake() -> None:
            pause.ends()
            if not woken.done():
                woken.set_result(None)

        self.sleepers.add(woken)
        if hand is not None:
            hand.sleeper = woken
        try:
            if (hand is not None and hand.is_over) or not call_soon(self.loop, fall_asleep):
                woken.cancel()
            woken.result()
        except concurrent.futures.CancelledError:
            raise asyncio.CancelledError(
                "nobody waits any more for what this thread does; its sleep has ended"
            ) from None
        finally:
            self.sleepers.discard(woken)

    def close(self) -> None:
        """The loop ends: who still sleeps is woken with CancelledError."""
        for sleeper in list(self.sleepers):
            sleeper.cancel()

    def _count_anyio(self, by: int) -> None:
        self.anyio_pauses += by


class _Pool:
    """An executor: what exceeds its threads waits in its queue, and is not at work."""

    def __init__(self, size: int | None) -> None:
        self._size = size
        self.queued: set[_Hand] = set()
        self.started: set[_Hand] = set()

    @property
    def is_moving(self) -> bool:
        return bool(self.queued) and (self._size is None or len(self.started) < self._size)


class _Hand:
    """The work of one thread."""

    def __init__(self, threads: CountedThreads, pool: _Pool | None = None) -> None:
        self.threads = threads
        self.is_over = False
        self.sleeper: concurrent.futures.Future[None] | None = None
        self.when_over: Callable[[], object] = lambda: None
        self._pool = pool
        self._pauses = 0
        if pool is None:
            threads.busy.add(self)
        else:
            pool.queued.add(self)

    def run(self, function: Callable[[], _T]) -> _T:
        """Do it, in the thread."""
        with self.threads.lock:
            if not self.is_over:
                self.threads.begun[self] = threading.get_ident()
                if self._pool is not None:
                    self._pool.queued.discard(self)
                    self._pool.started.add(self)
                    self.threads.busy.add(self)
        before, _here.hand = _here.hand, self
        token = _beginner.set(self)
        try:
            return function()
        finally:
            _beginner.reset(token)
            _here.hand = before

    def pause(self) -> _Pause:
        """A wait for the loop."""
        return _Pause(self.threads, self._count)

    def sleep(self, seconds: float) -> None:
        """What ``time.sleep`` does in this thread."""
        self.threads.sleep(seconds, self.pause(), self)

    def over(self) -> None:
        """The loop no longer waits for it."""
        with self.threads.lock:
            self.is_over = True
            self.threads.busy.discard(self)
            self.threads.begun.pop(self, None)
            if self._pool is not None:
                self._pool.queued.discard(self)
                self._pool.started.discard(self)
        self.when_over()
        if self.sleeper is not None:
            self.sleeper.cancel()

    def _count(self, by: int) -> None:
        self._pauses += by
        if self._pauses or self.is_over:
            self.threads.busy.discard(self)
        else:
            self.threads.busy.add(self)


class _Pause:
    """One wait; it may end before it has begun."""

    def __init__(self, threads: CountedThreads, count: Callable[[int], None]) -> None:
        self._threads = threads
        self._count = count
        self._has_begun = False
        self._has_ended = False

    def begins(self) -> None:
        """On the loop's thread: what the loop has been told before comes first."""
        if running_loop() is self._threads.loop:
            self._begin()
        else:
            call_soon(self._threads.loop, self._begin)

    def _begin(self) -> None:
        with self._threads.lock:
            if not self._has_begun and not self._has_ended:
                self._has_begun = True
                self._count(1)

    def ends(self) -> None:
        """Before the worker is woken."""
        with self._threads.lock:
            if self._has_begun and not self._has_ended:
                self._count(-1)
            self._has_ended = True


def sleep_in_virtual_time(seconds: float) -> bool:
    """Sleep as a worker of a loop on virtual time; False where this thread is none."""
    if _here.hand is not None:
        _here.hand.sleep(seconds)
        return True
    loop = _loop_of_anyio_worker()
    threads = getattr(loop, "thread_count", None)
    if not isinstance(threads, CountedThreads):
        return False
    pause = threads.pause()
    if pause is None:
        return False
    threads.sleep(seconds, pause)
    return True


def _loop_of_anyio_worker() -> asyncio.AbstractEventLoop | None:
    """The loop that this thread of anyio works for; None in any other thread.

    Raises:
        CancelledError: that loop has ended.
    """
    if threading.current_thread().name != _ANYIO_THREAD:
        return None
    try:
        return anyio.from_thread.run_sync(asyncio.get_running_loop)
    except RuntimeError:
        raise asyncio.CancelledError("the loop that this thread works for has ended") from None


def _waits_for_anyio(task: asyncio.Task[object]) -> bool:
    frames = list(frames_of(task))
    return bool(frames) and frames[-1].f_code.co_name == _ANYIO_WAIT
