"""Ctrl-C stops the runs that the main thread reads in a loop or waits for.

An iterator cannot find out that an error has ended the ``for`` loop over it. The iterator may not even be
garbage-collected: notebooks, debuggers and ``python -i`` keep the error, and thereby the frame of the loop. So the
signal itself must stop the run: while the main thread reads, the handler of SIGINT is wrapped.

This does not work in one case: the main thread waits in RxPY's own ``run()``, and an operator of RxPY subscribes to a
run of rxflow in another thread, where no handler can be set. Ctrl-C then ends the wait, but not the run.
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
"""The longest uninterrupted wait of the main thread, in seconds.

On Windows, Ctrl-C does not end the wait for a lock. On other systems, Ctrl-C may fail to end it if the signal comes
just before the wait, while Python hands its global lock to another thread (observed in one of six attempts).
"""


class Interruptible(Protocol):
    """Something that the main thread reads or waits for, and that Ctrl-C stops."""

    def interrupt(self) -> None:
        """Stop because of Ctrl-C. This is called in a thread of its own."""


def create_wait() -> tuple[Callable[[], None], Callable[[float | None], bool]]:
    """Return two functions, ``wake`` and ``wait``, for one wait of the calling thread.

    The calling thread calls ``wait(limit_s)``. Any other thread calls ``wake()``, once, to end the wait. ``wait`` then
    returns True. If ``limit_s`` seconds pass first, it returns False. A ``limit_s`` of None means no limit.

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

    Unlike with ``threading.Event``, Ctrl-C can come at any point without blocking the other threads.
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
        """Wait until the flag is set, at most ``limit_s`` seconds. Return whether the flag is set."""
        if not self.is_set:
            wake, wait = create_wait()
            try:
                self._waiting.append(wake)
                # This method registers and then reads the flag. set() sets the flag and then looks for registered
                # waits. So if both run at once, either set() wakes this thread, or this thread does not wait.
                if not self.is_set:
                    wait(limit_s)
            finally:  # a flag that is polled and never set would otherwise collect the wake-ups of all past waits
                with suppress(ValueError):  # set() has taken ``wake`` out of the list
                    self._waiting.remove(wake)
        return self.is_set


def watch(reading: Interruptible) -> None:
    """Let Ctrl-C call ``reading.interrupt()``, until :func:`unwatch` is called.

    Call this in the main thread. In other threads, this function does nothing.
    """
    if threading.current_thread() is threading.main_thread():
        _watched.add(reading)
        _install()


def unwatch(reading: Interruptible) -> None:
    """Stop watching ``reading``.

    If nothing is watched any more, restore the program's own handler. This is only possible in the main thread.
    """
    _watched.discard(reading)
    if not _watched and threading.current_thread() is threading.main_thread():
        _uninstall()


@contextmanager
def postpone() -> Generator[None]:
    """Postpone Ctrl-C until the end of the ``with`` block. Use this around ``Thread.start()``.

    ``Thread.start()`` waits until the new thread runs. Ctrl-C during this wait can raise RuntimeError ("release
    unlocked lock") instead of KeyboardInterrupt. Ctrl-C is postponed only while something is watched (:func:`watch`).
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
    """Calls the wrapped handler. If that handler raises, as Python's own does, stops everything that is watched."""

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
                # In a thread, because the interrupted code may hold a lock that stopping needs.
                threading.Thread(target=reading.interrupt, name="rxflow interrupt", daemon=True).start()
            raise


def _install() -> None:
    found = signal.getsignal(signal.SIGINT)
    # SIG_DFL, SIG_IGN and handlers that C code has installed cannot be called from Python.
    if isinstance(found, _Handler) or not callable(found):
        return
    # While asyncio.run() runs, asyncio has a handler of its own, which cancels the main task. Leave it in place.
    if running_loop() is not None and found is not signal.default_int_handler:
        return
    with suppress(ValueError):  # a subinterpreter has a main thread, but no signals
        signal.signal(signal.SIGINT, _Handler(found))


def _uninstall() -> None:
    found = signal.getsignal(signal.SIGINT)
    if isinstance(found, _Handler):  # otherwise the program has set a handler of its own meanwhile
        signal.signal(signal.SIGINT, found.wrapped)


_watched: weakref.WeakSet[Interruptible] = weakref.WeakSet()
