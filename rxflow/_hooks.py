"""Hooks for tests: they watch each run, create its loop, and count the threads that work for a loop.

A loop on virtual time advances the time when nothing else can happen. So it must know which threads work for it, and
which of these wait for it. asyncio's own loops do not count threads; with them, a hook costs one look-up.

This module must be quick to import, because pytest loads rxflow's plugin in every environment with rxflow.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

IDLE_NAME = "rxflow loop"
"""The name of a loop's thread while it waits for the next run."""

loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
"""Makes the loops of runs that need a loop thread; None for asyncio's own. A virtual clock sets it."""

on_start: Callable[[object], None] | None = None
"""Called with the :class:`~rxflow._streaming.scope.RunHandle` of each run at its start. The leak check sets it."""


_T = TypeVar("_T")


class Pause(Protocol):
    """One wait of a worker for its loop.

    Its end is noted before the worker is woken, so no virtual time passes until the worker continues.
    """

    def begins(self) -> None:
        """Note that the worker is about to wait. From any thread; has no effect if the wait has ended already."""

    def ends(self) -> None:
        """Note that the wait is over. Called before the worker is woken."""


class Work(Protocol):
    """A thread's work for a loop. Except in its pauses, the thread counts as working until :meth:`over`."""

    def run(self, function: Callable[[], _T]) -> _T:
        """Call ``function``, the work itself, in this thread."""
        ...

    def pause(self) -> Pause:
        """Return a new wait for the loop."""
        ...

    def over(self) -> None:
        """Note that the work has ended, or that nobody waits for it any more. From any thread, any number of times."""


class ThreadCount(Protocol):
    """Counts the threads that work for a loop. Such a loop has this object as its attribute ``thread_count``."""

    def work(self) -> Work:
        """Count a thread that is going to work for the loop. Called on the loop's thread."""
        ...

    def reader(self) -> Work:
        """Count a reader outside the loop that is going to wait for a run's items."""
        ...

    def pause(self) -> Pause | None:
        """Return a wait of the calling thread; None if that thread does not work for the loop."""
        ...


def thread_count(loop: asyncio.AbstractEventLoop) -> ThreadCount | None:
    """Return the object with which ``loop`` counts its threads; None for most loops, which do not count."""
    count: ThreadCount | None = getattr(loop, "thread_count", None)
    return count


def wall_clock(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """Return the clock for the events of a run on ``loop``.

    It is the time of day, or the loop's own clock if that is virtual.
    """
    clock: Callable[[], float] | None = getattr(loop, "wall_clock", None)
    return time.time if clock is None else clock
