"""Workers, which are the threads that work for a loop on virtual time, and what these threads wait for.

While a worker works, its loop's time stands still. While a worker waits for the loop, time may pass. While a worker
waits for another thread (an event, a queue, a future …), time stands still as long as some other thread can act.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import concurrent.futures.thread
import selectors
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from contextvars import ContextVar
from types import CodeType, FrameType, FunctionType
from typing import Any, TypeVar

import anyio.from_thread

from rxflow._loops import call_soon, running_loop
from rxflow.testing._stacks import find_frames

_T = TypeVar("_T")

_ANYIO_THREAD = "AnyIO worker thread"
_ANYIO_WAIT = "run_sync_in_worker_thread"  # the function in which a task waits for its anyio thread


class _Here(threading.local):
    worker: _Worker | None = None
    """The work that this thread does for a loop. None if there is no such work."""
    uses_real_waits = False


_here = _Here()
_beginner: ContextVar[_Worker | None] = ContextVar("rxflow_beginner", default=None)
"""The work that the current context belongs to. A thread that a user's code starts may have a copy of that context."""


class Workers:
    """The :class:`~rxflow._hooks.ThreadCount` of one loop.

    Threads that a user's code starts are not counted. A method may start such a thread with a copy of its context.
    While this thread waits for the loop, the method counts as waiting, because the method probably waits for the
    thread. If the method counted as working, time would never pass.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.lock = threading.Lock()
        self.busy: set[_Worker] = set()
        self.waiting: set[_Worker] = set()
        self.idents: dict[_Worker, int] = {}  # maps a worker to the id of the thread that does the work
        self.waits: dict[Wait, int] = {}  # maps a wait to the id of the thread that waits
        self.anyio_pauses = 0
        self.anyio_waits = 0
        self._pools: dict[Executor, _Pool] = {}
        self._readers: set[_Worker] = set()

    @property
    def at_work(self) -> bool:
        """Whether a worker works or is about to start. The worker will call the loop, so time must stand still."""
        if self.busy or any(pool.is_moving for pool in self._pools.values()):
            return True
        # anyio does not report when its threads work. So count the tasks that wait for such a thread.
        return (
            any(thread.name == _ANYIO_THREAD for thread in threading.enumerate())
            and sum(map(_waits_for_anyio, asyncio.all_tasks(self.loop))) > self.anyio_pauses + self.anyio_waits
        )

    @property
    def has_reader(self) -> bool:
        """Whether another thread reads the events of a run on this loop."""
        return bool(self._readers)

    def work(self, executor: Executor | None = None) -> _Worker:
        """Create and count one piece of work. In an ``executor``, the work is queued until a thread begins it."""
        if executor is None:
            return _Worker(self)
        pool = self._pools.setdefault(executor, _Pool(getattr(executor, "_max_workers", None)))
        return _Worker(self, pool)

    def reader(self) -> _Worker:
        """Create a reader, and count it. A reader is another thread that waits for the items of a run on this loop."""
        reader = _Worker(self)
        self._readers.add(reader)
        reader.when_over = lambda: self._readers.discard(reader)
        return reader

    def pause(self) -> _Pause | None:
        """Return a :class:`_Pause` for this thread; None if neither the thread nor its context belongs to the loop."""
        if _here.worker is not None:
            return _here.worker.pause() if _here.worker.workers is self else None
        loop = _get_loop_of_anyio_worker()
        if loop is not None:
            return _Pause(self, self.count_anyio_pauses) if loop is self.loop else None
        beginner = _beginner.get()
        return beginner.pause() if beginner is not None and beginner.workers is self else None

    def create_wait(self, seconds: float | None = None, *, is_for_loop: bool = False) -> Wait:
        """Create a :class:`Wait`. This thread waits for the loop if ``is_for_loop``, otherwise for another thread."""
        count = self.count_anyio_waits if _here.worker is None else _here.worker.count_waits
        return Wait(self, (self.pause() if is_for_loop else None) or _Pause(self, count), seconds)

    def get_idents(self) -> set[int]:
        """Return the ids of the workers' threads. A thread of anyio is included only while it waits."""
        return {*self.idents.values(), *self.waits.values()}

    @property
    def waits_for_others(self) -> bool:
        """Whether some worker waits for another thread, and not for the loop."""
        return bool(self.waiting) or self.anyio_waits > 0

    def close(self) -> None:
        """End all waits with CancelledError, because the loop ends."""
        for wait in list(self.waits):
            wait.cancel()

    def has_others(self) -> bool:
        """Return whether any thread can act, except this thread and the workers of this loop."""
        frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage]
        known = {threading.get_ident(), *self.get_idents()}
        return any(
            thread.ident is None  # the thread has not started yet
            or (thread.ident in frames and thread.ident not in known and not _is_idle(thread, frames[thread.ident]))
            for thread in threading.enumerate()
        )

    def get_positions(self) -> dict[int, tuple[FrameType, int]]:
        """Return the frame and the instruction of each worker's thread and each anyio thread, by the thread's id."""
        frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage]
        idents = {thread.ident or 0 for thread in threading.enumerate() if thread.name == _ANYIO_THREAD}
        idents = {*self.idents.values(), *idents} & frames.keys()
        return {ident: (frames[ident], frames[ident].f_lasti) for ident in idents}

    def count_anyio_pauses(self, by: int) -> None:
        """Add ``by``, which is 1 or -1, to the number of anyio threads that now wait for the loop."""
        self.anyio_pauses += by

    def count_anyio_waits(self, by: int) -> None:
        """Add ``by``, which is 1 or -1, to the number of anyio threads that now wait for another thread."""
        self.anyio_waits += by


class _Pool:
    """The work in one executor. Work that waits for a free thread is queued, and does not count as running."""

    def __init__(self, size: int | None) -> None:
        self._size = size
        self.queued: set[_Worker] = set()
        self.started: set[_Worker] = set()

    @property
    def is_moving(self) -> bool:
        return bool(self.queued) and (self._size is None or len(self.started) < self._size)


class _Worker:
    """The record of one piece of work that a thread does for the loop, or of a reader; see :meth:`Workers.reader`."""

    def __init__(self, workers: Workers, pool: _Pool | None = None) -> None:
        self.workers = workers
        self.is_over = False
        self.when_over: Callable[[], object] = lambda: None
        self.wait: Wait | None = None
        self._pool = pool
        self._pauses = 0
        self._waits = 0
        if pool is None:
            workers.busy.add(self)
        else:
            pool.queued.add(self)

    def run(self, function: Callable[[], _T]) -> _T:
        """Do the work: call ``function`` in this thread, and return its result."""
        with self.workers.lock:
            if not self.is_over:
                self.workers.idents[self] = threading.get_ident()
                if self._pool is not None:
                    self._pool.queued.discard(self)
                    self._pool.started.add(self)
                    self.workers.busy.add(self)
        before, _here.worker = _here.worker, self
        token = _beginner.set(self)
        try:
            return function()
        finally:
            _beginner.reset(token)
            _here.worker = before

    def pause(self) -> _Pause:
        return _Pause(self.workers, self._count_pauses)

    def over(self) -> None:
        """End the work, because it is done or the loop no longer waits for it."""
        with self.workers.lock:
            self.is_over = True
            self.workers.busy.discard(self)
            self.workers.waiting.discard(self)
            self.workers.idents.pop(self, None)
            if self._pool is not None:
                self._pool.queued.discard(self)
                self._pool.started.discard(self)
        self.when_over()
        if self.wait is not None:
            self.wait.cancel()

    def _count_pauses(self, by: int) -> None:
        self._pauses += by
        self._update()

    def count_waits(self, by: int) -> None:
        self._waits += by
        self._update()

    def _update(self) -> None:
        waits = not self.is_over and not self._pauses and self._waits > 0
        works = not self.is_over and not self._pauses and not self._waits
        (self.workers.busy.add if works else self.workers.busy.discard)(self)
        (self.workers.waiting.add if waits else self.workers.waiting.discard)(self)


class _Pause:
    """Counts one wait of a worker, but does not block. If :meth:`ends` is called first, the wait is not counted."""

    def __init__(self, workers: Workers, count: Callable[[int], None]) -> None:
        self._workers = workers
        self._count = count
        self._has_begun = False
        self._has_ended = False

    def begins(self) -> None:
        """Begin the wait. If this thread is not the loop's, schedule the beginning on the loop, and return at once."""
        if running_loop() is self._workers.loop:
            self._begin()
        else:
            call_soon(self._workers.loop, self._begin)

    def _begin(self) -> None:
        with self._workers.lock:
            if not self._has_begun and not self._has_ended:
                self._has_begun = True
                self._count(1)

    def ends(self) -> None:
        """End the wait. Call this before the worker is woken."""
        with self._workers.lock:
            if self._has_begun and not self._has_ended:
                self._count(-1)
            self._has_ended = True


class Wait:
    """One wait of a worker, ended by :meth:`release`, by virtual time, or by :meth:`cancel`.

    If the worker waits for a condition, this object takes the place of the lock that ``Condition.notify()`` releases.
    """

    def __init__(self, workers: Workers, pause: _Pause, seconds: float | None) -> None:
        self._workers = workers
        self._pause = pause
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self._guard = threading.Lock()
        self._ended = threading.Lock()  # not a Condition, because the clock replaces Condition.wait
        self._ended.acquire()
        self._is_over = False
        self._is_cancelled = False
        self._is_released = False

    def block(self) -> bool:
        """Block this thread until the wait ends. Return False if the time was up.

        Raises:
            CancelledError: the loop no longer waits for this thread, or has ended.
        """
        worker = _here.worker
        self._workers.waits[self] = threading.get_ident()
        try:
            if worker is not None:
                worker.wait = self
            if (worker is not None and worker.is_over) or not call_soon(self._workers.loop, self._begin):
                self.cancel()
            self._ended.acquire()
        finally:
            self._workers.waits.pop(self, None)
            if worker is not None:
                worker.wait = None
        if self._is_cancelled:
            raise asyncio.CancelledError("the run no longer waits for this thread, so the thread's wait was ended")
        return self._is_released

    def release(self) -> None:
        """End the wait successfully. May be called in any thread. Raises RuntimeError if the wait is already over."""
        if not self._end(is_released=True):
            # Condition.notify() catches RuntimeError, and then wakes the next thread.
            raise RuntimeError("this wait is over")

    def cancel(self) -> None:
        """End the wait with CancelledError. May be called in any thread."""
        self._end(is_cancelled=True)

    def _begin(self) -> None:
        with self._guard:
            if self._is_over:
                return
            self._pause.begins()
            if self._seconds is not None:
                self._timer = self._workers.loop.call_later(self._seconds, self._end)

    def _end(self, *, is_released: bool = False, is_cancelled: bool = False) -> bool:
        with self._guard:
            if self._is_over:
                return False
            self._is_over = True
        self._pause.ends()  # before the thread is woken, so that no time can pass in between
        self._is_released, self._is_cancelled = is_released, is_cancelled
        if self._timer is not None:
            call_soon(self._workers.loop, self._timer.cancel)
        self._ended.release()
        return True


_WAIT_CODE = threading.Condition.wait.__code__
_SELECT_CODE = selectors.DefaultSelector.select.__code__
_POOL_CODE: CodeType = concurrent.futures.thread._worker.__code__  # pyright: ignore[reportPrivateUsage]
_first_positions: dict[int, tuple[CodeType, int]] = {}
"""Maps the id of a thread to the code and the instruction at which :func:`note_first_positions` found the thread."""
_joins: dict[int, threading.Thread] = {}
"""Maps the id of a helper thread to the thread that the helper waits for."""


def note_first_positions() -> None:
    """Note where all threads are now. A thread that is still there later counts as idle."""
    _first_positions.clear()
    for ident, frame in sys._current_frames().items():  # pyright: ignore[reportPrivateUsage]
        _first_positions[ident] = frame.f_code, frame.f_lasti


def release_at_end(thread: threading.Thread, wait_for_end: Callable[[], object], wait: Wait) -> None:
    """Release ``wait`` when ``thread`` has ended. A helper thread calls ``wait_for_end``, which blocks until then."""

    def work() -> None:
        wait_for_end()
        _joins.pop(threading.get_ident(), None)
        with suppress(RuntimeError):  # raised if the wait is already over, for example because its time was up
            wait.release()

    helper = threading.Thread(target=work, name="rxflow join", daemon=True)
    helper.start()
    if thread.is_alive():
        _joins[helper.ident or 0] = thread


def find_workers(*, is_timed: bool = False) -> Workers | None:
    """Return the Workers that count this thread; None if the thread must wait in real time.

    If the loop no longer waits for this thread, a timed wait must not take real time: :meth:`Wait.block` then raises
    CancelledError. Other waits are real. Another thread ends them, for example when the thread cleans up.
    """
    if _here.uses_real_waits:
        return None
    if _here.worker is not None:
        return _here.worker.workers if is_timed or not _here.worker.is_over else None
    workers = getattr(_get_loop_of_anyio_worker(), "thread_count", None)
    return workers if isinstance(workers, Workers) else None


def _is_idle(thread: threading.Thread, frame: FrameType) -> bool:
    """Return whether a thread waits without a real timeout, or has not moved since the clock started."""
    ident = thread.ident or 0
    if ident in _joins:
        return _joins[ident].is_alive()
    code = frame.f_code
    if code is _WAIT_CODE:
        waiter: Any = frame.f_locals.get("waiter")
        if frame.f_locals.get("timeout") is None and waiter is not None:
            return bool(waiter.locked())
    elif code is _POOL_CODE:
        return frame.f_locals["work_queue"].empty() and frame.f_locals.get("work_item") is None
    elif code is _SELECT_CODE and frame.f_locals.get("timeout") is None:
        return True
    return code is Wait.block.__code__ or _first_positions.get(ident) == (code, frame.f_lasti)


def _get_loop_of_anyio_worker() -> asyncio.AbstractEventLoop | None:
    """Return the loop that this thread works for; None if this is not a thread of anyio.

    Raises:
        CancelledError: the loop has ended.
    """
    if threading.current_thread().name != _ANYIO_THREAD:
        return None
    _here.uses_real_waits = True  # because run_sync calls Condition.wait, which would call this function again
    try:
        return anyio.from_thread.run_sync(asyncio.get_running_loop)
    except RuntimeError:
        raise asyncio.CancelledError("the loop that this thread works for has ended") from None
    finally:
        _here.uses_real_waits = False


def _waits_for_anyio(task: asyncio.Task[object]) -> bool:
    frames = list(find_frames(task))
    return bool(frames) and frames[-1].f_code.co_name == _ANYIO_WAIT


_CALLBACK = "run_coroutine_threadsafe.<locals>.callback"


def watch_callback(callback: Callable[..., object], workers: Workers) -> None:
    """If ``asyncio.run_coroutine_threadsafe`` schedules ``callback``, watch the future of that call.

    A thread that waits for the future waits for the loop of ``workers``. Until the wait begins, the thread counts as
    working, because the thread may never wait.
    """
    if isinstance(callback, FunctionType) and callback.__qualname__ == _CALLBACK and callback.__closure__ is not None:
        future = dict(zip(callback.__code__.co_freevars, callback.__closure__, strict=True))["future"].cell_contents
        future.__class__ = _CountedFuture
        future.workers = workers


class _CountedFuture(concurrent.futures.Future[Any]):
    workers: Workers

    def result(self, timeout: float | None = None) -> Any:
        return super().result(self._wait(timeout))

    def exception(self, timeout: float | None = None) -> BaseException | None:
        return super().exception(self._wait(timeout))

    def _wait(self, timeout: float | None) -> float | None:
        """If this thread works for the loop, wait in virtual time. Return how long the caller must still wait."""
        is_cleanup = timeout is None and _here.worker is not None and _here.worker.is_over  # of a cancelled call
        pause = None if is_cleanup or self.done() or (timeout is not None and timeout <= 0) else self.workers.pause()
        if pause is None:
            return timeout
        wait = Wait(self.workers, pause, timeout)

        def release(_: object) -> None:  # called on the loop's thread, before the loop continues
            with suppress(RuntimeError):  # raised if the wait is already over, because its time was up
                wait.release()

        self.add_done_callback(release)
        wait.block()
        return 0
