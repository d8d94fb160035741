"""Ctrl-C stops the runs that the main thread reads in a loop or waits for.

Python does not inform an iterator when a ``for`` loop over it ends with an error. Its last reference is not a sign
either: notebooks, debuggers and ``python -i`` keep the error, and with it the frame of the loop. So the run hears of
the interruption from the signal itself: while the main thread reads, the handler of SIGINT is wrapped.
"""

from __future__ import annotations

import signal
import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Protocol

from rxflow.loops import running_loop

WAIT_LIMIT_S = 0.5 if sys.platform == "win32" else None
"""How long the main thread waits at a time. On Windows Ctrl-C does not end the wait for a lock."""


class Interruptible(Protocol):
    """Something that the main thread reads or waits for."""

    def interrupt(self) -> None:
        """Stop it. Called in a thread of its own."""


def watch(reading: Interruptible) -> None:
    """Stop ``reading`` if Ctrl-C interrupts this thread, until :func:`unwatch`. In others it does nothing."""
    if threading.current_thread() is threading.main_thread():
        _watched.add(reading)
        _install()


def unwatch(reading: Interruptible) -> None:
    """``reading`` has ended. The last one gives the program its handler back."""
    _watched.discard(reading)
    if not _watched and threading.current_thread() is threading.main_thread():
        _uninstall()


class _Handler:
    """Lets the wrapped handler decide: only if it raises, as Python's own does, has the program been interrupted."""

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
