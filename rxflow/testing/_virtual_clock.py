"""``VirtualClock``: runs async and sync programs in virtual time."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Self, SupportsIndex, TypeVar

from rxflow import _hooks
from rxflow._loops import running_loop
from rxflow.testing._virtual_time import WATCHDOG_S, VirtualLoop
from rxflow.testing._workers import find_workers, note_first_positions, release_at_end

_T = TypeVar("_T")


class VirtualClock:
    """A clock whose time passes only when nothing else can happen. Waiting in virtual time takes no real time. ::

        clock = VirtualClock()
        answer = clock.run(main)      # like asyncio.run, but on a loop with virtual time
        assert clock.now == 3600.0
        with clock:                   # sync code: runs that start in this block use virtual time
            for chunk in flow.kickoff():
                print(clock.now, chunk)

    In sync methods and tools, ``time.sleep`` takes virtual time. So does a wait with a timeout for a
    ``threading.Event``, a condition, a semaphore, a barrier, a queue, a future or a thread. A wait that nothing can end
    raises :class:`Deadlock`. In threads that the program itself starts, all waits take real time. A run begins at the
    time at which the previous run ended.

    Args:
        watchdog_s: if the thread of a method or tool makes no progress for this many real seconds, Deadlock is raised.
            Such a thread probably waits for something that the clock cannot see, for example a ``threading.Lock`` or a
            socket.
    """

    def __init__(self, *, watchdog_s: float = WATCHDOG_S) -> None:
        self._watchdog_s = watchdog_s
        self._past = 0.0
        self._loops: set[VirtualLoop] = set()
        self._outside: list[Callable[[], asyncio.AbstractEventLoop] | None] = []

    @property
    def now(self) -> float:
        """The virtual seconds since the clock was created or restarted."""
        for loop in self._loops.copy():
            self._past = max(self._past, loop.now)
            if loop.is_closed():
                self._loops.discard(loop)  # not remove(): another thread may have discarded it already
        return self._past

    def run(self, main: Callable[[], Coroutine[Any, Any, _T]] | Coroutine[Any, Any, _T]) -> _T:
        """Run ``main`` to its end on a new loop, and return its result.

        Raises:
            Deadlock: nothing could happen any more, but ``main`` was not done. Also raised if a thread made no progress
                for ``watchdog_s`` real seconds.
            RuntimeError: an event loop is running in this thread.
        """
        if running_loop() is not None:
            if not callable(main):
                main.close()
            raise RuntimeError(
                "virtual time needs its own event loop, which cannot run while another one runs in this thread; "
                "call run() in a plain function, not in a coroutine"
            )
        with self, asyncio.Runner(loop_factory=self._new_loop) as runner:
            return runner.run(main() if callable(main) else main)

    def restart(self) -> None:
        """Set the clock to 0, for the next runs."""
        self._loops.clear()
        self._past = 0.0

    def __enter__(self) -> Self:
        _install()
        self._outside.append(_hooks.loop_factory)
        _hooks.loop_factory = self._new_patient_loop
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _hooks.loop_factory = self._outside.pop()
        _uninstall()

    def _new_loop(self) -> VirtualLoop:
        return self._keep(VirtualLoop(self.now, watchdog_s=self._watchdog_s))

    def _new_patient_loop(self) -> VirtualLoop:
        here = running_loop()
        blocked = here if isinstance(here, VirtualLoop) else None
        return self._keep(VirtualLoop(self.now, is_patient=True, blocked=blocked, watchdog_s=self._watchdog_s))

    def _keep(self, loop: VirtualLoop) -> VirtualLoop:
        self._loops.add(loop)
        return loop


_real_sleep = time.sleep
_real_monotonic = time.monotonic
_real_wait = threading.Condition.wait
_real_join = threading.Thread.join
_clocks = 0  # the number of active clocks, which may be nested


class _Here(threading.local):
    past_deadlines_s = 0.0
    """What :func:`_read_monotonic` adds to the virtual time in this thread: a nanosecond for each wait that timed out.

    Some callers wait again until the clock is past their deadline. Virtual time stops exactly at the deadline, so
    without the added time, these callers would wait again and again.
    """


_here = _Here()


def _install() -> None:
    """Replace the functions of Python's library that wait. Each call must be undone by :func:`_uninstall`.

    In a worker thread of a virtual loop, the replacements wait in virtual time.

    Two of the replaced names are not public: ``threading._time`` and ``queue.time``. Queues, semaphores, barriers and
    ``wait_for`` use these names to compute how much time is left after a wake-up. A condition's list of waiters is not
    public either. Python 3.11 to 3.13 have these names. tests/testing/test_workers.py fails if the names change.
    """
    global _real_sleep, _clocks
    if _clocks == 0:
        note_first_positions()
        _real_sleep = time.sleep
        time.sleep = _sleep
        _replace(_wait, _join, _read_monotonic)
    _clocks += 1


def _uninstall() -> None:
    """Undo one call of :func:`_install`. When all calls are undone, restore Python's own functions."""
    global _clocks
    _clocks -= 1
    if _clocks == 0:
        time.sleep = _real_sleep
        _replace(_real_wait, _real_join, _real_monotonic)


def _replace(wait: Any, join: Any, monotonic: Callable[[], float]) -> None:
    threading.Condition.wait = wait  # type: ignore[method-assign]
    threading.Thread.join = join  # type: ignore[method-assign]
    time.monotonic = threading._time = queue.time = monotonic  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def _sleep(seconds: float | SupportsIndex, /) -> None:
    if not isinstance(seconds, float):
        seconds = seconds.__index__()
    if seconds < 0:
        raise ValueError(f"sleep length must be non-negative: {seconds!r}")
    loop = running_loop()
    if isinstance(loop, VirtualLoop):
        loop.advance(seconds)  # this is the loop's own thread, so the sleep blocks the loop
        return
    workers = find_workers(is_timed=True)
    if workers is None:
        _real_sleep(seconds)
    else:
        workers.create_wait(seconds, is_for_loop=True).block()


def _wait(self: Any, timeout: float | None = None) -> bool:
    """Wait like ``Condition.wait``, which this function replaces. A worker thread waits in virtual time.

    Events, semaphores, barriers, queues and futures call ``Condition.wait`` for all their waits.
    """
    workers = None if _is_idle_of_anyio(self) else find_workers(is_timed=timeout is not None and timeout > 0)
    if workers is None:
        loop = running_loop()
        if timeout is None and isinstance(loop, VirtualLoop):
            return loop.wait_blocked(partial(_real_wait, self))
        return _real_wait(self, timeout)
    if timeout is not None and timeout <= 0:
        return _real_wait(self, timeout) or _note_past_deadline()
    if not self._is_owned():
        raise RuntimeError("cannot wait on un-acquired lock")
    wait = workers.create_wait(timeout)
    self._waiters.append(wait)
    saved = self._release_save()
    try:
        return wait.block() or _note_past_deadline()
    finally:
        self._acquire_restore(saved)
        with suppress(ValueError):
            self._waiters.remove(wait)


def _join(self: threading.Thread, timeout: float | None = None) -> None:
    """Wait like ``Thread.join``, which this function replaces. A worker thread waits in virtual time."""
    workers = find_workers(is_timed=timeout is not None)
    if workers is None or not self.is_alive() or self is threading.current_thread():
        _real_join(self, timeout)
        return
    wait = workers.create_wait(timeout)
    release_at_end(self, lambda: _real_join(self), wait)
    if wait.block():
        _real_join(self)


def _note_past_deadline() -> bool:
    _here.past_deadlines_s += 1e-9
    return False


def _is_idle_of_anyio(condition: threading.Condition) -> bool:
    """Return whether this thread is one of anyio's, and waits on ``condition`` for its next work."""
    next_work = getattr(threading.current_thread(), "queue", None)
    return isinstance(next_work, queue.Queue) and next_work.not_empty is condition


def _read_monotonic() -> float:
    workers = find_workers()
    return _real_monotonic() if workers is None else float(workers.loop.time()) + _here.past_deadlines_s
