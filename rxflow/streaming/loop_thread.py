"""A loop on a thread of its own, for the runs of programs that have none."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase
from reactivex.disposable import Disposable, SingleAssignmentDisposable

from rxflow.loops import call_soon, running_loop
from rxflow.streaming import started
from rxflow.streaming.border import Guard
from rxflow.streaming.scope import Run, Scope
from rxflow.streaming.thread_count import Pause, thread_count

T = TypeVar("T")

Build: TypeAlias = Callable[[Scope], Observable[T]]
"""Makes the Observable of a run, in the place where that starts."""

loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
"""Makes the loops of runs that bring their own; None for asyncio's. A virtual clock sets it."""


class RunHandle(SingleAssignmentDisposable):
    """Holds a started run. ``dispose`` stops it: from any thread, at once, as often as one likes.

    ``home`` is the loop on which it lives beside other code; None where it has a thread of its own.
    """

    def __init__(self, run: Run | None = None, home: asyncio.AbstractEventLoop | None = None) -> None:
        super().__init__()
        self.run = run
        self.home = home
        self._process = os.getpid()
        if home is not None:
            _at_home.add(self)
        if started.on_start is not None:
            started.on_start(self)

    @property
    def is_inherited(self) -> bool:
        """This process is a fork of the one in which it runs."""
        return self._process != os.getpid()

    def why_it_stands_still(self) -> str | None:
        """What has taken the loop from under the run, if anything has: nothing more will come then."""
        if self.is_inherited:
            return f"its run lives in the process {self._process}, of which this one is a fork"
        if self.home is not None and self.home.is_closed():
            return "the event loop that its run lived on was closed"
        return None

    def join(self, timeout: float) -> None:
        """Wait until nothing of the run is left, at most ``timeout`` seconds. Only a run on its own thread has to."""

    def pause(self) -> Pause | None:
        """A wait of the calling thread for what the run makes, where the run's loop counts such."""
        if self.home is None or self.home is running_loop():
            return None
        count = thread_count(self.home)
        return count.pause() if count is not None else None


class LoopThread(RunHandle):
    """A run on a loop and a thread of its own, which end with it.

    Callbacks of that run may start others, as ``concat`` does; they live on the same loop, and it stays for them.
    ``is_read`` says that whoever starts it is going to wait for what it makes.
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
        self._ended: asyncio.Event | None = None
        self._runs = 0
        self._stay: DisposableBase = Disposable()
        self._is_told = False
        loop = loop_factory() if loop_factory is not None else None
        # Before the loop runs: its first step must already know of the reader.
        count = thread_count(loop) if loop is not None and is_read else None
        self._reader = count.reader() if count is not None else None
        self._thread = threading.Thread(
            target=self._main, args=(loop, build, observer, scope_of, part_of), name="rxflow run", daemon=True
        )

    def begin(self) -> None:
        """Start it. Whoever may want to stop it must hold it by now: its code may ask for that at once."""
        _live.add(self)
        self._thread.start()

    def _main(
        self,
        own_loop: asyncio.AbstractEventLoop | None,
        build: Build[T],
        observer: ObserverBase[T],
        scope_of: Callable[[Run], Scope],
        part_of: Run | None,
    ) -> None:
        guard = Guard(observer, self, on_end=self._on_end)

        async def serve() -> None:
            loop = asyncio.get_running_loop()
            ended = asyncio.Event()
            self.run = Run(loop) if part_of is None else replace(part_of, loop=loop, tasks=set())
            # Published before the look at is_disposed, as dispose() does the reverse: one of the two sees the other.
            self._stay = self.enter()
            self._ended = ended
            if self.is_disposed:
                return
            hosts[loop] = self
            try:
                try:
                    self.disposable = build(scope_of(self.run)).subscribe(guard)
                except Exception as error:  # noqa: BLE001 - the reader waits in another thread
                    guard.on_error(error)
                await ended.wait()
            finally:
                del hosts[loop]

        try:
            with asyncio.Runner(loop_factory=None if own_loop is None else lambda: own_loop) as runner:
                try:
                    runner.run(serve())
                except BaseException as error:
                    # The loop has died under the run, as by sys.exit() in a callback: the reader must hear of it.
                    if self._is_told or self.is_disposed:
                        raise
                    guard.on_error(error)  # type: ignore[arg-type]  # RxPY's type leaves out SystemExit
                    self.dispose()
        finally:
            _live.discard(self)

    def _on_end(self) -> None:
        self._is_told = True
        self._stay.dispose()
        self._read_to_the_end()

    def _read_to_the_end(self) -> None:
        if self._reader is not None:
            self._reader.over()

    def enter(self) -> DisposableBase:
        """One more run lives here, until the disposable is disposed. On the loop's thread only."""
        self._runs += 1
        return Disposable(self._leave_soon)

    def _leave_soon(self) -> None:
        if self.run is not None:
            call_soon(self.run.loop, self._leave)

    def _leave(self) -> None:
        self._runs -= 1
        if self._runs == 0 and self._ended is not None:
            self._ended.set()

    def dispose(self) -> None:
        super().dispose()
        self._stay.dispose()
        self._read_to_the_end()

    def stop(self) -> None:
        """Dispose it, and end its loop also where other runs live on it."""
        self.dispose()
        if self.run is not None and self._ended is not None:
            call_soon(self.run.loop, self._ended.set)

    def pause(self) -> Pause | None:
        return self._reader.pause() if self._reader is not None else None

    def join(self, timeout: float) -> None:
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)


_live: set[LoopThread] = set()
_at_home: weakref.WeakSet[RunHandle] = weakref.WeakSet()
hosts: dict[asyncio.AbstractEventLoop, LoopThread] = {}


@atexit.register
def stop_all() -> None:
    """A loop's thread that is still running when the interpreter goes down can hang it: end all first."""
    for handle in list(_at_home):
        handle.dispose()  # their loops run no more; but asyncio reports tasks that are left on a loop unless told
    for handle in list(_live):
        handle.stop()
    for handle in list(_live):
        handle.join(0.5)
