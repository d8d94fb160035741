"""Ctrl-C stops the runs that the main thread reads in a loop or waits for.

When an error ends a ``for`` loop, the iterator of the loop is not informed. The iterator may not even be
garbage-collected: notebooks, debuggers and ``python -i`` keep the error, and the error keeps the frame of the loop. So
the signal itself must stop the run. While the main thread reads, the handler of SIGINT is wrapped.

In these cases, this module does not stop the runs:

- The program has a handler that does not raise. Python's own handler raises KeyboardInterrupt.
- The handler is not wrapped (see :func:`_install`).
- While the main thread waits in RxPY's own ``Observable.run()``, an operator of RxPY may use another thread to
  subscribe to a run of rxflow. No handler can be set in that thread. So Ctrl-C ends the wait, but the run continues.
"""

from __future__ import annotations

import signal
import threading
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Protocol

from rxflow._loops import running_loop, wake_all

WAIT_LIMIT_S = 0.5
"""The length of one wait for a lock, in seconds. The main thread splits a wait without a time limit into such waits.

Ctrl-C may fail to end a wait for a lock. Ctrl-C then takes effect when the wait ends. On Windows, Ctrl-C never ends the
wait. On other systems, Ctrl-C may fail if the signal comes just before the wait, while Python hands its global lock to
another thread (observed in one of six attempts).
"""


class Interruptible(Protocol):
    """Something that the main thread reads or waits for, and that Ctrl-C stops."""

    def interrupt(self) -> None:
        """Stop because of Ctrl-C. This method is called in a new thread."""


def create_wait() -> tuple[Callable[[], None], Callable[[float | None], bool]]:
    """Return two functions, ``wake`` and ``wait``, for one wait of the calling thread.

    The calling thread calls ``wait(limit_s)``. Another thread calls ``wake()`` to end the wait. ``wake()`` must not be
    called twice. ``wait`` returns True after ``wake()``, and False if ``limit_s`` seconds pass first. A ``limit_s`` of
    None means no limit.

    In the main thread, the wait uses a bare lock. With a ``threading.Event``, Ctrl-C could leave the event locked, and
    ``set()`` would then block the run's thread forever. Other threads get no signals, so they use an Event.
    """
    if threading.current_thread() is not threading.main_thread():
        event = threading.Event()
        return event.set, event.wait
    lock = threading.Lock()
    lock.acquire()

    def wait(limit_s: float | None) -> bool:
        if limit_s is not None:
            return lock.acquire(timeout=limit_s)
        while not lock.acquire(timeout=WAIT_LIMIT_S):
            pass
        return True

    return lock.release, wait


class Flag:
    """A flag that threads can wait for.

    Ctrl-C in a waiting thread never blocks other threads. With a ``threading.Event``, it could.
    """

    __slots__ = ("_waiting", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._waiting: list[Callable[[], None]] = []

    def set(self) -> None:
        """Set the flag, and wake the threads that wait for it."""
        self.is_set = True
        wake_all(self._waiting)

    def clear(self) -> None:
        """Clear the flag."""
        self.is_set = False

    def wait(self, limit_s: float) -> bool:
        """Wait at most ``limit_s`` seconds until the flag is set. Return whether the flag is set."""
        if not self.is_set:
            wake, wait = create_wait()
            try:
                self._waiting.append(wake)
                # This method first registers the wait, then reads the flag. set() first sets the flag, then looks for
                # registered waits. So if both methods run at once, either set() wakes this thread, or this thread does
                # not wait.
                if not self.is_set:
                    wait(limit_s)
            finally:  # otherwise the wake-ups of waits that timed out would stay in the list
                with suppress(ValueError):  # set() has taken ``wake`` out of the list
                    self._waiting.remove(wake)
        return self.is_set


def watch(reading: Interruptible) -> None:
    """Let Ctrl-C call ``reading.interrupt()`` if the wrapped handler raises, as Python's own handler does.

    This holds until the first such Ctrl-C, or until :func:`unwatch` is called. Call this in the main thread. In other
    threads, this function does nothing.
    """
    if threading.current_thread() is threading.main_thread():
        _watched.add(reading)
        _install()


def unwatch(reading: Interruptible) -> None:
    """Stop watching ``reading``.

    In the main thread, also restore the program's own handler if nothing is watched any more. Other threads cannot set
    handlers.
    """
    _watched.discard(reading)
    if not _watched and threading.current_thread() is threading.main_thread():
        _uninstall()


@contextmanager
def postpone() -> Generator[None]:
    """Postpone Ctrl-C until the end of the ``with`` block. Use this around ``Thread.start()``.

    ``Thread.start()`` waits until the new thread runs. Ctrl-C during this wait can raise RuntimeError ("release
    unlocked lock") instead of KeyboardInterrupt. If nothing is watched (see :func:`watch`) when the block begins,
    Ctrl-C is not postponed.
    """
    handler = signal.getsignal(signal.SIGINT) if threading.current_thread() is threading.main_thread() else None
    if not isinstance(handler, _Handler):
        yield
        return
    postponed: list[tuple[int, FrameType | None]] = []
    handler.postponed = postponed
    try:
        yield
    finally:
        handler.postponed = None
        for number, frame in postponed:
            handler(number, frame)


class _Handler:
    """Calls the wrapped handler. If that handler raises an error, also stops everything that is watched.

    Python's own handler raises KeyboardInterrupt.
    """

    def __init__(self, wrapped: Callable[[int, FrameType | None], Any]) -> None:
        self.wrapped = wrapped
        self.postponed: list[tuple[int, FrameType | None]] | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.postponed is not None:
            self.postponed.append((number, frame))
            return
        try:
            self.wrapped(number, frame)
        except BaseException:
            readings = list(_watched)
            _watched.clear()
            _uninstall()
            for reading in readings:
                # Use a new thread, because the interrupted code may hold a lock that interrupt() needs.
                threading.Thread(target=reading.interrupt, name="rxflow interrupt", daemon=True).start()
            raise


def _install() -> None:
    found = signal.getsignal(signal.SIGINT)
    # SIG_DFL, SIG_IGN and handlers that C code has installed cannot be called from Python.
    if isinstance(found, _Handler) or not callable(found):
        return
    # While asyncio.run() runs, asyncio has a handler of its own, which cancels the main task. Keep that handler.
    if running_loop() is not None and found is not signal.default_int_handler:
        return
    with suppress(ValueError):  # a subinterpreter has a main thread, but cannot handle signals
        signal.signal(signal.SIGINT, _Handler(found))


def _uninstall() -> None:
    found = signal.getsignal(signal.SIGINT)
    if isinstance(found, _Handler):  # any other handler was set by the program meanwhile
        signal.signal(signal.SIGINT, found.wrapped)


_watched: weakref.WeakSet[Interruptible] = weakref.WeakSet()
