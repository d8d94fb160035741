"""Where everything stands: for the test that waited in vain."""

import asyncio
import sys
import threading
import traceback
from typing import Any


def where_all_stand() -> str:
    """The stacks of all threads, and of all tasks, whichever loop they are on."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage]
    threads = (f"{names.get(ident, '?')}:\n{''.join(traceback.format_stack(frame))}" for ident, frame in frames.items())
    return "\n".join(["all threads:", *threads, "all tasks:", *_tasks()])


def _tasks() -> list[str]:
    # Its name until Python 3.11, and since.
    known: Any = getattr(asyncio.tasks, "_all_tasks", None) or getattr(asyncio.tasks, "_scheduled_tasks", ())
    everyone: set[asyncio.Task[object]] = set(known)
    return [f"{task}:\n{_stack_of(task)}" for task in everyone if not task.done()]


def _stack_of(task: asyncio.Task[object]) -> str:
    return "".join(line for frame in task.get_stack() for line in traceback.format_stack(frame))
