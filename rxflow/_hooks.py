"""Hooks for tests: they watch each run, create its loop, and count the threads that work for a loop.

A loop on virtual time moves its time forward when nothing else can happen. So the loop must know which threads work for
it, and which of these threads wait for it. asyncio's own loops do not count threads. For such a loop, a hook costs one
look-up.

This module must be quick to import: rxflow's pytest plugin needs it, and pytest loads the plugin in every environment
with rxflow.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

IDLE_NAME = "rxflow loop"
"""The name of a loop's thread while the thread waits for the next run."""

loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
"""Creates the loops for runs that need a thread of their own. None means that these runs get asyncio's own loops.

A virtual clock sets this variable.
"""

on_start: Callable[[object], None] | None = None
"""Called with the :class:`~rxflow._streaming.scope.RunHandle` of each run at its start. The leak check sets it."""


_T = TypeVar("_T")


class Pause(Protocol):
    """One wait of a thread for the loop that it works for.

    Virtual time may pass only during the wait. The end of the wait is noted before the thread is woken, so no time
    passes between the end and the moment when the thread continues.
    """

    def begins(self) -> None:
        """Note that the thread is about to wait. May be called from any thread. Has no effect after :meth:`ends`."""

    def ends(self) -> None:
        """Note that the wait is over. Call this before the thread is woken."""


class Work(Protocol):
    """A thread's work for a loop. Until :meth:`over` is called, the thread counts as working, except while it waits."""

    def run(self, function: Callable[[], _T]) -> _T:
        """Do the work: call ``function`` in the calling thread, and return its result."""
        ...

    def pause(self) -> Pause:
        """Return an object that notes one wait of the working thread for the loop."""
        ...

    def over(self) -> None:
        """Note that the work has ended, or that nobody waits for it any more.

        May be called from any thread, and more than once.
        """


class ThreadCount(Protocol):
    """Counts the threads that work for a loop. A loop that counts them has this object as ``loop.thread_count``."""

    def work(self) -> Work:
        """Count one more thread, which will work for the loop. Call this on the loop's thread."""
        ...

    def reader(self) -> Work:
        """Count one more reader: a thread, other than the loop's, that waits for the items of a run."""
        ...

    def pause(self) -> Pause | None:
        """Return an object that notes one wait of the calling thread; None if the thread does not work for the loop."""
        ...


def thread_count(loop: asyncio.AbstractEventLoop) -> ThreadCount | None:
    """Return the object that counts the threads of ``loop``; None if the loop does not count threads."""
    count: ThreadCount | None = getattr(loop, "thread_count", None)
    return count


def wall_clock(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """Return the clock for the events of a run on ``loop``.

    The clock is ``time.time``, or the loop's own clock if the loop's time is virtual.
    """
    clock: Callable[[], float] | None = getattr(loop, "wall_clock", None)
    return time.time if clock is None else clock
