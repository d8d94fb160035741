"""Checks that a test leaves nothing behind: no active run, thread or task, no unused turn of a script, no open probe.

During a test, the pytest plugin collects the objects to check. After the test, the plugin checks these objects. Outside
of a test, nothing is collected.
"""

from __future__ import annotations

import asyncio
import linecache
import sys
import threading
import time
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType, ModuleType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar, cast

from rxflow import _hooks

__all__ = ["assert_nothing_is_left"]

T = TypeVar("T")
After: TypeAlias = Literal["test", "fixtures"]
"""When to check: after the test function, or after the teardown of its fixtures."""


class Due(Protocol):
    """Something that is checked at the end of a test."""

    def complaint(self) -> str | None:
        """Describe what is wrong, in a sentence. Return None if nothing is wrong."""
        ...


class Dues:
    """Everything that is checked at the end of one test."""

    def __init__(self) -> None:
        self._all: list[tuple[After, Due]] = []

    def add(self, due: Due, after: After) -> None:
        """Add ``due``. It is checked after the test function or after its fixtures, as ``after`` states."""
        self._all.append((after, due))

    def complaints(self, after: After) -> Iterator[str]:
        """Check the objects that were added with this value of ``after``. Yield a description of each problem."""
        for when, due in self._all:
            complaint = due.complaint() if when == after else None
            if complaint is not None:
                yield complaint


_current: Dues | None = None


def collect(due: Due, *, after: After) -> None:
    """Have ``due`` checked at the end of the current test. Outside of a test, do nothing."""
    if _current is not None:
        _current.add(due, after)


@contextmanager
def collecting() -> Generator[Dues]:
    """Collect what is created in the ``with`` block. A nested block, as in tests with pytester, collects separately."""
    global _current
    before, _current = _current, Dues()
    try:
        yield _current
    finally:
        _current = before


if TYPE_CHECKING:
    from rxflow._streaming import LoopThread, RunHandle

GRACE_S = 2.0  # how many seconds runs, threads and tasks get to end
LASTING_THREADS = frozenset({"rxflow I/O", "rxflow import"})
"""The names of threads that serve the whole process, and therefore outlive a test."""

_PACKAGE = Path(__file__).parents[1]
_OURS = ("rxflow", "reactivex")


@dataclass(frozen=True, slots=True)
class Begun:
    """A run, and the line of code that started it."""

    handle: weakref.ref[RunHandle]
    file: str
    line: int
    function: str

    def __str__(self) -> str:
        code = linecache.getline(self.file, self.line).strip()
        return f"{self.file}:{self.line} in {self.function}: {code}"


class Runs(deque[Begun]):
    """The runs that started inside :func:`watching_runs`.

    ``before`` holds the threads that earlier tests left behind.
    """

    def __init__(self) -> None:
        super().__init__()
        self.before = frozenset(_threads_of_runs())

    def dispose(self) -> None:
        """Dispose all runs that still exist, and give each a short time to end."""
        for begun in self:
            handle = begun.handle()
            if handle is not None:
                handle.dispose()
                handle.join(GRACE_S)


@contextmanager
def watching_runs() -> Generator[Runs]:
    """Record the runs that start in the ``with`` block. This takes a microsecond or two per run."""
    runs = Runs()

    def note(handle: object) -> None:
        frame = _outside(sys._getframe(1))  # pyright: ignore[reportPrivateUsage]
        code = frame.f_code
        runs.append(Begun(weakref.ref(cast("RunHandle", handle)), code.co_filename, frame.f_lineno, code.co_name))

    before, _hooks.on_start = _hooks.on_start, note
    try:
        yield runs
    finally:
        _hooks.on_start = before


def assert_nothing_is_left(runs: Runs | None = None) -> None:
    """Raise AssertionError if a run, a thread or a task of rxflow is still active after a short time.

    A run on one of the program's own loops is found only if ``runs`` contains the run. A run on the loop of the caller
    gets no time to end.
    """
    complaint = complaint_about(runs)
    if complaint is not None:
        raise AssertionError(complaint)


def complaint_about(runs: Runs | None) -> str | None:
    """Describe the runs, threads and tasks that are left. Return None if there are none."""
    left = what_is_left(runs)
    return "the test left behind:\n" + "\n".join(f"    {each}" for each in left) if left else None


def what_is_left(runs: Runs | None = None) -> list[str]:
    """Return a description of each run, thread and task that is left."""
    begun = list(runs or ())
    return [*_runs_left(begun), *_threads_left(begun, runs.before if runs is not None else frozenset()), *_tasks_left()]


def _runs_left(runs: list[Begun]) -> list[str]:
    """Describe active runs on the program's own loops. For runs on loop threads, see :func:`_threads_left`."""
    return [f"a run, subscribed at {begun}; dispose it, or let it end" for begun in runs if _goes_on(begun)]


def _goes_on(begun: Begun) -> bool:
    handle = begun.handle()
    if handle is None or handle.run is None or handle.home is None or handle.is_disposed or handle.home.is_closed():
        return False
    tasks = {task for task in list(handle.run.tasks) if not task.done()}
    # While this function is called on the run's own loop, no task of the loop can end.
    if tasks and handle.home.is_running() and not _runs_here(handle.home):
        pending = _wait_for(asyncio.run_coroutine_threadsafe(_pending(tasks), handle.home))
        return pending is None or bool(pending)
    return bool(tasks)


def _runs_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:  # no loop runs in this thread
        return False


def _threads_left(runs: list[Begun], before: frozenset[threading.Thread]) -> list[str]:
    threads = [thread for thread in _threads_of_runs() if thread not in before]
    until = time.monotonic() + GRACE_S
    left = [thread for thread in threads if not _ends(thread, max(0.0, until - time.monotonic()))]
    return [f"the thread {thread.name!r}, {_about(thread, runs)}" for thread in left]


def _ends(thread: threading.Thread, timeout: float) -> bool:
    """Return whether the thread ends, or becomes idle (see :func:`_is_idle`), within about ``timeout`` seconds."""
    loop_thread = _loop_thread_of(thread)
    if loop_thread is not None and not loop_thread.wait_until_idle(timeout):
        return False
    if _is_idle(thread):
        return True
    thread.join(timeout)
    return not thread.is_alive()


def _threads_of_runs() -> list[threading.Thread]:
    return [
        each
        for each in threading.enumerate()
        if each.name.startswith("rxflow ") and each.name not in LASTING_THREADS and not _is_idle(each)
    ]


def _is_idle(thread: threading.Thread) -> bool:
    """Return whether the thread is a loop's thread that waits for the next run."""
    loop_thread = _loop_thread_of(thread)
    # Only a thread that is kept for the next run gets the name IDLE_NAME. Any other thread ends.
    return loop_thread is not None and loop_thread.wait_until_idle(0) and thread.name == _hooks.IDLE_NAME


def _loop_thread_of(thread: threading.Thread) -> LoopThread | None:
    module: ModuleType | None = sys.modules.get("rxflow._streaming.loop_thread")
    live: set[LoopThread] = module.live if module is not None else set()
    return next((each for each in list(live) if each.thread is thread), None)


def _about(thread: threading.Thread, runs: list[Begun]) -> str:
    for begun in runs:
        handle = begun.handle()
        if handle is not None and handle.thread is thread and not handle.is_disposed:
            return f"of a run that was subscribed at {begun}; dispose it, or let it end"
    frame = sys._current_frames().get(thread.ident or 0)  # pyright: ignore[reportPrivateUsage]
    if frame is None:
        return "which is just ending"
    summary = traceback.extract_stack(_outside(frame), limit=1)[0]
    return f"which stands at {summary.filename}:{summary.lineno} in {summary.name}: {summary.line}"


def _tasks_left() -> list[str]:
    """Describe rxflow's tasks that are left on the I/O loop.

    Other loops are not checked. The loop of a run ends with its thread, and a user's loop is the user's concern.
    """
    io_loop: ModuleType | None = sys.modules.get("rxflow.llm._io")
    if io_loop is None or all(thread.name != "rxflow I/O" for thread in threading.enumerate()):
        return []
    submit: Callable[[Coroutine[Any, Any, list[str]]], Future[list[str]]] = io_loop.submit

    async def look() -> list[str]:
        # This runs on the I/O loop. So callbacks that were scheduled earlier, such as cancellations, run first.
        tasks = await _pending({task for task in asyncio.all_tasks() if _is_ours(task)})
        return [f"a task on the I/O loop: {task}" for task in tasks]

    left = _wait_for(submit(look()))
    return ["the I/O loop, which is blocked"] if left is None else left


def _is_ours(task: asyncio.Task[Any]) -> bool:
    """Return whether a task on the I/O loop is rxflow's, and not the task of this check.

    litellm has tasks on the I/O loop too.
    """
    code: CodeType | None = getattr(task.get_coro(), "cr_code", None)
    return code is not None and task is not asyncio.current_task() and _PACKAGE in Path(code.co_filename).parents


async def _pending(tasks: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    return (await asyncio.wait(tasks, timeout=GRACE_S))[1] if tasks else set()


def _wait_for(look: Future[T]) -> T | None:
    """Return what ``look`` finds on a loop. Return None if the loop is blocked."""
    try:
        return look.result(2 * GRACE_S)
    except TimeoutError:
        look.cancel()
        return None


def _outside(frame: FrameType) -> FrameType:
    """Return the innermost frame outside rxflow and RxPY. If there is none, return ``frame`` itself."""
    found: FrameType | None = frame
    while found is not None and str(found.f_globals.get("__name__")).partition(".")[0] in _OURS:
        found = found.f_back
    return found or frame
