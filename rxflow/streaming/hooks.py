"""What tests set from outside: who hears of each run, what makes its loop, and how a loop counts its threads.

A loop on virtual time lets time pass if nothing can happen without it. While a thread is at work, something can; while
that thread itself waits for the loop, nothing does. asyncio's own loops do not care, and pay one look-up for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar

IDLE_NAME = "rxflow loop"
"""Of the thread of a loop that waits for the next run."""

loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
"""Makes the loops of runs that bring their own; None for asyncio's. A virtual clock sets it."""

on_start: Callable[[object], None] | None = None
"""Hears of the :class:`~rxflow.streaming.handle.RunHandle` of each run as it starts. The leak check sets it.

The plugin is loaded wherever rxflow is installed, so this module imports nothing that is heavy.
"""


_T = TypeVar("_T")


class Pause(Protocol):
    """One wait of a worker for its loop.

    Counted on the loop's thread, so that no time can pass between what the worker waits for and its waking.
    """

    def begins(self) -> None:
        """The worker is about to wait. From any thread; without effect where the wait has ended already."""

    def ends(self) -> None:
        """What it waits for is there: whoever brings it says so before it wakes the worker."""


class Work(Protocol):
    """What a thread does for a loop. It is at work until that is over, but for its pauses."""

    def run(self, function: Callable[[], _T]) -> _T:
        """Do it, in the thread."""
        ...

    def pause(self) -> Pause:
        """A wait for the loop."""
        ...

    def over(self) -> None:
        """It has ended, or nobody waits for it any more. From any thread, as often as one likes."""


class ThreadCount(Protocol):
    """What a loop that wants to know has as its ``thread_count``."""

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
