"""Hooks for tests: a function that is called for each run, one that makes its loop, and how a loop counts threads.

A loop on virtual time lets time pass when nothing else can happen. So it must know which threads are working, and which
of those wait for the loop itself. asyncio's own loops do not count threads, and pay one look-up for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

IDLE_NAME = "rxflow loop"
"""The name of a loop's thread while it waits for the next run."""

loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
"""Makes the loops of runs that bring their own; None for asyncio's. A virtual clock sets it."""

on_start: Callable[[object], None] | None = None
"""Called with the :class:`~rxflow._streaming.scope.RunHandle` of each run as it starts. The leak check sets it.

The plugin is loaded wherever rxflow is installed, so this module imports nothing that is heavy.
"""


_T = TypeVar("_T")


class Pause(Protocol):
    """One wait of a worker for its loop.

    It is counted on the loop's thread. So no virtual time passes between the end of the wait and the worker's waking.
    """

    def begins(self) -> None:
        """The worker is about to wait. From any thread; without effect if the wait has ended already."""

    def ends(self) -> None:
        """What the worker waits for is there. Called before the worker is woken."""


class Work(Protocol):
    """What a thread does for a loop. Except in its pauses, the thread counts as working until :meth:`over`."""

    def run(self, function: Callable[[], _T]) -> _T:
        """Call ``function``, the work itself, in this thread."""
        ...

    def pause(self) -> Pause:
        """A wait for the loop."""
        ...

    def over(self) -> None:
        """The work has ended, or nobody waits for it any more. From any thread, any number of times."""


class ThreadCount(Protocol):
    """Counts the threads that work for a loop; such a loop has one as its ``thread_count``."""

    def work(self) -> Work:
        """A thread is going to work for the loop. On the loop's thread."""
        ...

    def reader(self) -> Work:
        """Someone outside is going to read what a run on the loop makes."""
        ...

    def pause(self) -> Pause | None:
        """A wait of the thread that calls this; None if it does not work for the loop."""
        ...


def thread_count(loop: asyncio.AbstractEventLoop) -> ThreadCount | None:
    """How ``loop`` counts its threads; None for most loops, which do not."""
    count: ThreadCount | None = getattr(loop, "thread_count", None)
    return count


def wall_clock(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """What dates the events of a run on ``loop``: the time of day, or the loop's own if that is virtual."""
    clock: Callable[[], float] | None = getattr(loop, "wall_clock", None)
    return time.time if clock is None else clock
