"""Event loops in threads of their own, for runs that cannot live on a loop of the program.

Consecutive runs that one thread starts share a loop. So objects that a program creates once, such as an HTTP client, a
pool, a session or a lock, work in all these runs. If a thread starts a run while another of its runs is active, the new
run gets another loop.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from contextvars import Context
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar
from weakref import WeakSet

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase

from rxflow import _hooks
from rxflow._loops import call_soon
from rxflow._streaming.border import Guard
from rxflow._streaming.interrupts import Flag, postpone
from rxflow._streaming.scope import Run, RunHandle, Scope, at_home, connect

T = TypeVar("T")

Build: TypeAlias = Callable[[Scope], Observable[T]]
"""A function that gets the scope of a run, and returns the Observable of the run."""

MAX_KEPT_LOOPS = 4
"""The maximum number of idle loop threads that are kept for each thread that starts runs.

They are used for its later runs. So a program that once had many concurrent streams does not keep a loop thread for
each of them.
"""

CLOSE_WAIT_S = 0.05
"""How long ``close()`` and ``aclose()`` wait for the run's coroutines to clean up, in seconds.

If the run lives on the loop of the code that calls ``aclose()``, ``aclose()`` waits up to twice as long.
"""


class Stay(DisposableBase):
    """Keeps a loop thread alive for a run, or for a subscription to its events, until this object is disposed."""

    def __init__(self, host: LoopThread, handle: RunHandle | None) -> None:
        self.handle = handle
        self.guard: Guard[Any] | None = None
        self._host = host

    def end(self) -> None:
        """Let the next run use the loop. Called just before the run of this object emits its terminal."""
        self._host.active.discard(self)

    def dispose(self) -> None:
        self._host.leave_soon(self)


class LoopThread:
    """A thread with an event loop, on which runs live.

    The thread that creates this object is called the creator. The creator's runs live here one after another. If code
    on the loop starts a run without blocking the loop, that run lives here too. Without ``loop``, the new thread
    creates an asyncio loop. When all runs are over, the new thread waits for the creator's next run if ``is_kept`` is
    True. Otherwise the new thread ends.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None, *, is_kept: bool = False) -> None:
        self.thread = threading.Thread(target=self._run, name="rxflow run", daemon=True)
        self.active: set[Stay] = set()
        self._stays: set[Stay] = set()
        self._given_loop = loop
        self._first: ThreadRun[Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._is_kept = is_kept
        self._process = os.getpid()
        self._is_stopping = False
        self._idle = Flag()

    @property
    def is_lost(self) -> bool:
        """Whether no run can start here.

        The causes are: the thread could not be started, the loop is ending or has ended, or this process is a fork of
        the process in which the loop lives.
        """
        return self._is_stopping or self._process != os.getpid()

    def is_free(self) -> bool:
        """Return whether no run is active here. First wait a moment for each disposed run to clean up."""
        for stay in list(self.active):
            if stay.handle is not None and stay.handle.is_disposed:
                stay.handle.join(CLOSE_WAIT_S)
        return not self.active

    def wait_until_idle(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds until no run is left here. Return whether none is left."""
        return self._idle.wait(timeout) and not self.active

    def serve(self, run: ThreadRun[Any]) -> None:
        """Start ``run`` here. Called in the thread that created this loop thread."""
        try:
            self.active.add(run.stay)
            self._idle.clear()
            self.thread.name = "rxflow run"
            if self._loop is None:
                self._first = run
                live.add(self)
                with postpone():
                    self.thread.start()
            elif not self.call_soon(partial(self._accept, run)):
                run.guard.on_error(RuntimeError("this stream has stopped: its event loop was closed"))
        except BaseException:  # for example Ctrl-C, or RuntimeError if the system has no more threads
            if self._loop is None:
                self.stop()  # the next run could not start this thread again
            if self.thread.ident is None:  # it was not started, so it does not discard itself
                live.discard(self)
            self.active.discard(run.stay)
            raise

    def _run(self) -> None:
        try:
            with _open_loop(self._given_loop) as loop:
                try:
                    loop.run_until_complete(self._main())
                except BaseException as error:
                    # For example, a callback has called sys.exit(). The observers of the runs on this loop get the
                    # error. If all runs are over, the error is raised here.
                    guards = [stay.guard for stay in self._stays if stay.guard is not None]
                    waiting = [guard for guard in guards if not guard.is_over]
                    if not waiting:
                        raise
                    for guard in waiting:
                        guard.fail(error)
        finally:
            self._is_stopping = True
            self._idle.set()
            live.discard(self)

    async def _main(self) -> None:
        loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._loop = loop
        hosts[loop] = self
        first, self._first = self._first, None
        try:
            if first is not None:
                self._accept(first)
            del first
            if self._is_stopping:
                self._stop.set()
            await self._stop.wait()
        finally:
            del hosts[loop]

    def _accept(self, run: ThreadRun[Any]) -> None:
        self.thread.name = "rxflow run"
        self._idle.clear()
        self._stays.add(run.stay)
        asyncio.get_running_loop().create_task(run.serve(), name="rxflow run")

    def enter(self, handle: RunHandle | None = None) -> Stay:
        """Keep the loop's thread alive until the returned Stay is disposed. Call this only on the loop's thread."""
        stay = Stay(self, handle)
        self.active.add(stay)
        self._stays.add(stay)
        self._idle.clear()
        return stay

    def leave_soon(self, stay: Stay) -> None:
        """Call :meth:`leave` soon on the loop's thread. May be called from any thread."""
        self.call_soon(partial(self.leave, stay))

    def call_soon(self, callback: Callable[[], object]) -> bool:
        """Call ``callback`` soon on the loop's thread. Return False if there is no loop yet, or the loop is closed.

        The callback gets an empty context. If it got the caller's context, a timer that the callback sets would keep
        that context alive.
        """
        return self._loop is not None and call_soon(self._loop, callback, context=Context())

    def leave(self, stay: Stay) -> None:
        """Remove ``stay``, which is over. If no other Stay is left, the thread waits for the next run, or ends.

        Call this only on the loop's thread.
        """
        self.active.discard(stay)
        if stay in self._stays:
            self._stays.discard(stay)
            if not self._stays:
                self._rest()

    def _rest(self) -> None:
        if self._is_kept:
            self.thread.name = _hooks.IDLE_NAME
        elif self._stop is not None:
            self._stop.set()
        self._idle.set()

    def retire(self) -> None:
        """Let the loop end when no run lives here any more.

        This is called when the thread that created this object has ended.
        """
        self._is_kept = False
        if not self.is_lost:
            self.call_soon(self._retire)

    def _retire(self) -> None:
        if not self._stays and self._stop is not None:
            self._stop.set()

    def dispose_runs(self) -> None:
        """Stop the runs that live here."""
        for stay in self._stays | self.active:
            if stay.handle is not None:
                stay.handle.dispose()

    def stop(self) -> None:
        """Stop the runs that live here, and end the loop. A loop that has not started yet ends soon after its start."""
        self.dispose_runs()
        if not self.is_lost:
            # First set _is_stopping, then read _stop. _main() first sets _stop, then reads _is_stopping. So if both
            # methods run at once, at least one of them ends the loop.
            self._is_stopping = True
            if self._stop is not None:
                self.call_soon(self._stop.set)


@contextmanager
def _open_loop(given: asyncio.AbstractEventLoop | None) -> Generator[asyncio.AbstractEventLoop]:
    """Open ``given`` or a new loop for the ``with`` block, and close the loop as :class:`asyncio.Runner` does."""
    loop = asyncio.new_event_loop() if given is None else given
    tasks = _Tasks()
    if given is None:
        asyncio.set_event_loop(loop)
        loop.set_task_factory(tasks)
    try:
        yield loop
    finally:
        try:
            left = asyncio.all_tasks(loop) if loop.get_task_factory() is not tasks else tasks.find_left()
            _cancel(left, loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            if given is None:
                asyncio.set_event_loop(None)
            loop.close()


class _Tasks:
    """Creates the tasks of one loop, and finds the unfinished tasks when the loop closes.

    ``asyncio.all_tasks`` checks the tasks of all loops. In a server with 1,000 readers and 5,000 tasks, this check
    would block all threads for 2 ms at the end of each run.
    """

    def __init__(self) -> None:
        self._made: WeakSet[asyncio.Task[Any]] = WeakSet()

    def __call__(self, loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
        self._made.add(task)
        return task

    def find_left(self) -> list[asyncio.Task[Any]]:
        """Return the tasks that have not ended. Call this only on the loop's thread."""
        return [task for task in self._made if not task.done()]


def _cancel(tasks: Collection[asyncio.Task[Any]], loop: asyncio.AbstractEventLoop) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    for task in tasks:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            said = "unhandled exception while the loop of a run was closed"
            loop.call_exception_handler({"message": said, "exception": error, "task": task})


class ThreadRun(RunHandle, Generic[T]):
    """The handle of a run on a loop thread.

    ``part_of`` is the surrounding run; None if there is none. ``is_read`` is True if a reader will wait for the items
    of this run.
    """

    def __init__(
        self,
        build: Build[T],
        observer: ObserverBase[T],
        scope_of: Callable[[Run], Scope],
        part_of: Run | None = None,
        *,
        is_read: bool = False,
    ) -> None:
        super().__init__()
        self._build: Build[T] | None = build
        self._scope_of = scope_of
        self._part_of = part_of
        self._is_over: asyncio.Event | None = None
        self._left = Flag()
        loop = _hooks.loop_factory() if _hooks.loop_factory is not None else None
        # Count the reader before the loop runs, because the first step of the loop must already know of the reader.
        count = _hooks.thread_count(loop) if loop is not None and is_read else None
        self._reader = count.reader() if count is not None else None
        self._host = LoopThread(loop) if loop is not None else _free_loop_thread()
        self.stay = Stay(self._host, self)
        self.stay.guard = self.guard = Guard(observer, self, on_ending=self.stay.end, on_end=self._end)

    @property
    def thread(self) -> threading.Thread | None:
        return self._host.thread

    def begin(self) -> None:
        """Start the run.

        Before this, :func:`rxflow._streaming.launch.start` calls ``hold`` with this object, because the code of the run
        may stop the run at once.
        """
        self._host.serve(self)

    async def serve(self) -> None:
        """Subscribe the run on its loop, and wait until nothing of the run is left."""
        loop = asyncio.get_running_loop()
        part_of = self._part_of
        self.run = run = Run(loop) if part_of is None else part_of.elsewhere(loop)
        # First set _is_over, then read is_disposed. dispose() first sets is_disposed, then reads _is_over. So if both
        # methods run at once, at least one of them sees what the other has set.
        self._is_over = is_over = asyncio.Event()
        build, self._build = self._build, None
        try:
            if build is not None and not self.is_disposed:
                try:
                    self.hold(connect(build(self._scope_of(run)), self.guard))
                except Exception as error:  # noqa: BLE001 - the reader waits in another thread
                    self.guard.on_error(error)
                del build
                await is_over.wait()
            while run.tasks:
                await asyncio.wait(run.tasks)
        finally:
            self._host.leave(self.stay)
            self.guard.release()
            self._left.set()

    def _end(self) -> None:
        if self._is_over is not None:
            self._host.call_soon(self._is_over.set)
        if self._reader is not None:
            self._reader.over()

    def dispose(self) -> None:
        super().dispose()
        self._end()

    def interrupt(self) -> None:
        """Stop all runs on the loop of this run, because Ctrl-C has interrupted the thread that waits for this run."""
        self.dispose()  # dispose_runs() does not stop a run that has not started yet
        self._host.dispose_runs()

    def pause(self) -> _hooks.Pause | None:
        return self._reader.pause() if self._reader is not None else None

    def join(self, timeout: float) -> None:
        if threading.current_thread() is not self._host.thread:
            self._left.wait(timeout)


class _LoopThreads:
    """The loop threads that are kept for the runs of one thread, oldest first."""

    def __init__(self) -> None:
        self.threads: list[LoopThread] = []

    def __del__(self) -> None:  # called when the thread that starts the runs has ended
        for thread in self.threads:
            thread.retire()


def _free_loop_thread() -> LoopThread:
    """Return a loop thread for a new run of this thread.

    This is the first kept loop thread without an active run. If there is none, it is a new loop thread.
    """
    loops: _LoopThreads | None = getattr(_of_this_thread, "loops", None)
    if loops is None:
        loops = _of_this_thread.loops = _LoopThreads()
    mine = loops.threads
    mine[:] = [each for each in mine if not each.is_lost]
    for thread in mine:
        if thread.is_free():
            return thread
    is_kept = len(mine) < MAX_KEPT_LOOPS
    thread = LoopThread(is_kept=is_kept)
    if is_kept:
        mine.append(thread)
    return thread


live: set[LoopThread] = set()
"""All started loop threads that have not ended."""

_of_this_thread = threading.local()
hosts: dict[asyncio.AbstractEventLoop, LoopThread] = {}


_EXIT_WAIT_S = 3.0
"""How long the interpreter's exit waits for all loop threads together, in seconds.

Without a limit, code that blocks its loop could keep the interpreter from exiting.
"""


@atexit.register
def stop_all() -> None:
    """Stop all runs, and end all loop threads.

    A loop thread that still runs while the interpreter shuts down can hang the interpreter.
    """
    for handle in list(at_home):
        handle.dispose()  # otherwise asyncio would report the tasks that are left on stopped loops of the program
    for thread in list(live):
        thread.stop()
    until = time.monotonic() + _EXIT_WAIT_S
    for thread in list(live):
        if thread.thread.ident is not None:  # None if Ctrl-C has prevented the start of the thread
            thread.thread.join(max(0.0, until - time.monotonic()))
