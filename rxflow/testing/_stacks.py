"""The stacks of waiting tasks and threads, for error messages."""

from __future__ import annotations

import asyncio
import gc
import linecache
import sys
import sysconfig
import threading
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import Any

import rxflow
from rxflow._streaming import loop_thread

_FRAME_ATTRIBUTES = ("cr_frame", "gi_frame", "ag_frame")  # for coroutines, generators and async generators
_AWAITED_ATTRIBUTES = ("cr_await", "gi_yieldfrom", "ag_await")
_MAX_TASKS = 20  # further tasks are counted, but not described
_LIBRARIES = tuple(
    Path(folder).resolve()
    for folder in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), Path(rxflow.__file__).parent)
)


def describe_tasks(tasks: Iterable[asyncio.Task[Any]]) -> str:
    """Describe the tasks that have not ended, each in a few lines. Tasks with a user's code on their stack come first.

    Tasks that only wait for a run to end are left out. If there are many tasks, only the first ones are described.
    """
    pending = sorted(
        (task for task in tasks if not task.done() and not _is_rxflows_wait(task)),
        key=lambda task: not any(map(_is_users_code, find_frames(task))),
    )
    lines = [line for task in pending[:_MAX_TASKS] for line in _describe_task(task)]
    if len(pending) > _MAX_TASKS:
        lines.append(f"  … and {len(pending) - _MAX_TASKS} more")
    return "\n".join(lines)


def describe_threads(threads: Iterable[int]) -> str:
    """Describe where each thread is: the innermost line of a user's code, and the function that the line calls.

    ``threads`` holds the ids of the threads. A thread without a user's code on its stack is left out.
    """
    frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage]
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    lines: list[str] = []
    for ident in sorted(threads):
        frame, called = frames.get(ident), None
        while frame is not None and not _is_users_code(frame):
            frame, called = frame.f_back, frame
        if frame is not None:
            waits = "" if called is None else f", which waits in {called.f_code.co_qualname}"
            lines += [f"  the thread {names.get(ident)!r}{waits}", f"    {_describe_line(frame, frame.f_lineno)}"]
    return "\n".join(lines)


def find_frames(task: asyncio.Task[Any]) -> Iterator[FrameType]:
    """Yield the frames of a waiting task, outermost first."""
    at: object = task.get_coro()
    while at is not None:
        if _is_suspended(at):
            frame: FrameType | None = next(filter(None, (getattr(at, name, None) for name in _FRAME_ATTRIBUTES)), None)
            if frame is not None:
                yield frame
            at = next(filter(None, (getattr(at, name, None) for name in _AWAITED_ATTRIBUTES)), None)
        elif isinstance(at, asyncio.Future):
            return
        else:
            # ``at`` is, for example, a step of an async generator. A step has no attribute with its generator, but
            # the garbage collector knows to which objects the step refers.
            at = next(filter(_is_suspended, gc.get_referents(at)), None)


def find_raising_line(error: BaseException) -> str | None:
    """Describe the innermost line of a user's code in the traceback of ``error``; None if there is no such line."""
    steps = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__) if _is_users_code(frame)]
    return _describe_line(*steps[-1]) if steps else None


def _is_suspended(thing: object) -> bool:
    return isinstance(thing, CoroutineType | GeneratorType | AsyncGeneratorType)


def _is_rxflows_wait(task: asyncio.Task[Any]) -> bool:
    """Return whether a task only waits for a run to end. Such a task does not show what keeps the run going."""
    code: CodeType | None = getattr(task.get_coro(), "cr_code", None)
    return code is not None and code.co_filename == loop_thread.__file__


def _is_users_code(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    if name.startswith("<frozen "):  # Python's own import system
        return False
    path = Path(name).resolve()
    return not any(map(path.is_relative_to, _LIBRARIES))


def _describe_task(task: asyncio.Task[Any]) -> Iterator[str]:
    coroutine = task.get_coro()
    awaited: object = getattr(task, "_fut_waiter", None)
    waiting = f", which waits for the task {awaited.get_name()!r}" if isinstance(awaited, asyncio.Task) else ""
    yield f"  {task.get_name()!r}, running {getattr(coroutine, '__qualname__', coroutine)}{waiting}"
    frames = list(find_frames(task))
    for frame in frames:
        if _is_users_code(frame) or frame is frames[-1]:
            yield f"    {_describe_line(frame, frame.f_lineno)}"


def _describe_line(frame: FrameType, line: int) -> str:
    path = Path(frame.f_code.co_filename)
    here = Path.cwd()
    if path.is_relative_to(here) and not any(part.startswith(".") for part in path.relative_to(here).parts):
        shown = path.relative_to(here)
    else:
        shown = path if _is_users_code(frame) else Path(*path.parts[-2:])
    source = linecache.getline(frame.f_code.co_filename, line).strip()
    return f"{shown}:{line}, in {frame.f_code.co_name}{f': {source}' if source else ''}"
