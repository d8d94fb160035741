"""Where tasks stand: what each waits for, down to the innermost frame."""

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
from rxflow.streaming import loop_thread

_FRAME = ("cr_frame", "gi_frame", "ag_frame")  # of coroutines, generators and async generators
_AWAITED = ("cr_await", "gi_yieldfrom", "ag_await")
_MOST = 20  # tasks that are described
_LIBRARIES = tuple(
    str(Path(place).resolve())
    for place in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), Path(rxflow.__file__).parent)
)


def where_stand(tasks: Iterable[asyncio.Task[Any]]) -> str:
    """Some lines for each task that has not ended; those that wait in users' code come first."""
    pending = sorted(
        (task for task in tasks if not task.done() and not _is_ours(task)),
        key=lambda task: not any(map(_is_users, frames_of(task))),
    )
    lines = [line for task in pending[:_MOST] for line in _described(task)]
    if len(pending) > _MOST:
        lines.append(f"  … and {len(pending) - _MOST} more")
    return "\n".join(lines)


def where_threads_stand(threads: Iterable[int]) -> str:
    """The innermost line of users' code in which each of these threads stands, if it is in any."""
    frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage]
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    lines: list[str] = []
    for ident in sorted(threads):
        frame = frames.get(ident)
        while frame is not None and not _is_users(frame):
            frame = frame.f_back
        if frame is not None:
            lines += [f"  the thread {names.get(ident)!r}", f"    {_line(frame, frame.f_lineno)}"]
    return "\n".join(lines)


def frames_of(task: asyncio.Task[Any]) -> Iterator[FrameType]:
    """The frames that a waiting task stands in, outermost first."""
    at: object = task.get_coro()
    while at is not None:
        if _is_suspended(at):
            frame: FrameType | None = next(filter(None, (getattr(at, name, None) for name in _FRAME)), None)
            if frame is not None:
                yield frame
            at = next(filter(None, (getattr(at, name, None) for name in _AWAITED)), None)
        elif isinstance(at, asyncio.Future):
            return
        else:
            # A step of an async generator, for instance, which says only to the collector whose step it is.
            at = next(filter(_is_suspended, gc.get_referents(at)), None)


def where_raised(error: BaseException) -> str | None:
    """The innermost line of users' code that ``error`` has come through."""
    steps = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__) if _is_users(frame)]
    return _line(*steps[-1]) if steps else None


def _is_suspended(thing: object) -> bool:
    return isinstance(thing, CoroutineType | GeneratorType | AsyncGeneratorType)


def _is_ours(task: asyncio.Task[Any]) -> bool:
    """A run's thread waits in a task until the run has ended: that says nothing of why it has not."""
    code: CodeType | None = getattr(task.get_coro(), "cr_code", None)
    return code is not None and code.co_filename == loop_thread.__file__


def _is_users(frame: FrameType) -> bool:
    path = str(Path(frame.f_code.co_filename).resolve())
    return not path.startswith(_LIBRARIES)


def _described(task: asyncio.Task[Any]) -> Iterator[str]:
    coroutine = task.get_coro()
    awaited: object = getattr(task, "_fut_waiter", None)
    waiting = f", which waits for the task {awaited.get_name()!r}" if isinstance(awaited, asyncio.Task) else ""
    yield f"  {task.get_name()!r}, running {getattr(coroutine, '__qualname__', coroutine)}{waiting}"
    frames = list(frames_of(task))
    for frame in frames:
        if _is_users(frame) or frame is frames[-1]:
            yield f"    {_line(frame, frame.f_lineno)}"


def _line(frame: FrameType, line: int) -> str:
    path = Path(frame.f_code.co_filename)
    here = Path.cwd()
    if path.is_relative_to(here) and not any(part.startswith(".") for part in path.relative_to(here).parts):
        shown = path.relative_to(here)
    else:
        shown = path if _is_users(frame) else Path(*path.parts[-2:])
    source = linecache.getline(frame.f_code.co_filename, line).strip()
    return f"{shown}:{line}, in {frame.f_code.co_name}{f': {source}' if source else ''}"
