"""Ctrl-C stops the runs that the main thread reads in a loop or waits for.

Python does not inform an iterator when a ``for`` loop over it ends with an error. Its last reference is not a sign
either: notebooks, debuggers and ``python -i`` keep the error, and with it the frame of the loop. So the run hears of
the interruption from the signal itself: while the main thread reads, the handler of SIGINT is wrapped.

RxPY's ``run()`` waits too. Its operators may subscribe our runs in threads of their own, where no handler can be set:
Ctrl-C then ends the wait, and not the run.
"""

from __future__ import annotations

import signal
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Protocol

from rxflow._loops import running_loop

WAIT_LIMIT_S = 0.5
"""How long the main thread waits at a time. On Windows Ctrl-C does not end the wait for a lock. Nor elsewhere, if it
comes while Python hands its lock to another thread, just before the wait (seen one time in six at a question)."""


class Interruptible(Protocol):
    """What the main thread reads or waits for, so that Ctrl-C stops it."""

    def interrupt(self) -> None:
        """Stop, because of Ctrl-C. Called in a thread of its own."""


def find_wait_limit() -> float | None:
    """The seconds that this thread may wait at a time; None: no limit. Only the main thread hears signals."""
    return WAIT_LIMIT_S if threading.current_thread() is threading.main_thread() else None


def watch(reading: Interruptible) -> None:
    """Stop ``reading`` if Ctrl-C interrupts the main thread, until :func:`unwatch`. Other threads do nothing."""
    if threading.current_thread() is threading.main_thread():
        _watched.add(reading)
        _install()


def unwatch(reading: Interruptible) -> None:
    """End the watch of ``reading``. After the last one the program has its own handler back."""
    _watched.discard(reading)
    if not _watched and threading.current_thread() is threading.main_thread():
        _uninstall()


class _Handler:
    """Calls the wrapped handler, and stops the runs only if that raises, as Python's own does."""

    def __init__(self, wrapped: Callable[[int, FrameType | None], Any]) -> None:
        self.wrapped = wrapped

    def __call__(self, number: int, frame: FrameType | None) -> None:
        try:
            self.wrapped(number, frame)
        except BaseException:
            readings = list(_watched)
            _watched.clear()
            _uninstall()
            for reading in readings:
                # In a thread: the code that the signal has interrupted may hold a lock that stopping needs.
                threading.Thread(target=reading.interrupt, name="rxflow interrupt", daemon=True).start()
            raise


def _install() -> None:
    found = signal.getsignal(signal.SIGINT)
    # A handler of the system or of C is not ours to call. asyncio's own, where a loop runs, cancels the main task.
    if isinstance(found, _Handler) or not callable(found):
        return
    if running_loop() is not None and found is not signal.default_int_handler:
        return
    with suppress(ValueError):  # a subinterpreter has a main thread, but not the signals
        signal.signal(signal.SIGINT, _Handler(found))


def _uninstall() -> None:
    found = signal.getsignal(signal.SIGINT)
    if isinstance(found, _Handler):  # else the program has set one of its own meanwhile
        signal.signal(signal.SIGINT, found.wrapped)


_watched: weakref.WeakSet[Interruptible] = weakref.WeakSet()
