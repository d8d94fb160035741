"""Where everything stands: for the test that waited in vain."""

import asyncio
import sys
import threading
import traceback


def where_all_stand() -> str:
    """The stacks of all threads, and of all tasks, whichever loop they are on."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage]
    threads = (f"{names.get(ident, '?')}:\n{''.join(traceback.format_stack(frame))}" for ident, frame in frames.items())
    return "\n".join(["all threads:", *threads, "all tasks:", *_tasks()])


def _tasks() -> list[str]:
    everyone: set[asyncio.Task[object]] = set(asyncio.tasks._all_tasks)  # type: ignore[attr-defined]
    return [f"{task}:\n{_stack_of(task)}" for task in everyone if not task.done()]


def _stack_of(task: asyncio.Task[object]) -> str:
    return "".join(line for frame in task.get_stack() for line in traceback.format_stack(frame))
