"""Starting a run: choosing the loop it lives on.

Where asyncio runs in the subscriber's thread, the run lives there, so that users' coroutines find their own loop,
pools and sessions. Elsewhere (plain ``for``, a plain ``subscribe``, trio), or where the caller is going to block, it
brings a loop on a thread of its own. Inside another run it joins that run: its loop, labels and count of chunks.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Callable
from contextvars import copy_context

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import SingleAssignmentDisposable

from rxflow.streaming.emitter import Emitter, ambient
from rxflow.streaming.loops import call_soon, running_loop
from rxflow.streaming.scope import Run, Scope
from rxflow.types.events import Event

Build = Callable[[Scope], Observable[Event]]


class RunObservable(Observable[Event]):
    """A cold Observable of events: each subscription is a run of its own, built in the place where it starts."""

    def __init__(self, build: Build) -> None:
        self.build = build
        super().__init__(self._on_subscribe)

    def _on_subscribe(self, observer: ObserverBase[Event], scheduler: SchedulerBase | None = None) -> DisposableBase:
        return start(self.build, observer, place=open_place(), blocking=False)


class RunHandle(SingleAssignmentDisposable):
    """Holds a started run. ``dispose`` stops it: from any thread, at once, as often as one likes."""

    def __init__(self, run: Run | None = None) -> None:
        super().__init__()
        self.run = run

    def join(self, timeout: float) -> None:
        """Wait until nothing of the run is left, at most ``timeout`` seconds. Only a run on its own thread has to."""


def open_place() -> Emitter | None:
    """The ambient place, if this code belongs to a run. CancelledError where that run was cancelled."""
    place = ambient.get()
    if place is None or (place.is_closed and not place.is_cancelled):
        return None
    place.require_open()
    return place


def start(build: Build, observer: ObserverBase[Event], *, place: Emitter | None, blocking: bool) -> RunHandle:
    """Start a run; ``blocking`` says that this thread is going to wait for it, so it cannot live here."""
    loop = running_loop()
    context = copy_context()
    if place is None:
        if loop is None or blocking:
            return _LoopThread(build, observer, lambda run: Scope(run, context=context))
        run = Run(loop)
        handle = RunHandle(run)
        handle.disposable = build(Scope(run, context=context)).subscribe(_Guard(observer, handle))
        return handle
    if loop is place.run.loop and blocking:
        return _LoopThread(build, observer, lambda run: Scope(run, place.origin, context), seq_of=place.run)
    handle = RunHandle()
    source = build(Scope(place.run, place.origin, context))
    if loop is place.run.loop:
        handle.disposable = source.subscribe(observer)
    else:

        def subscribe() -> None:
            if not handle.is_disposed:
                handle.disposable = source.subscribe(observer)

        call_soon(place.run.loop, subscribe)
    return handle


class _Guard(ObserverBase[Event]):
    """Our edge to users' observers: one that raises ends its own run, and the loop reports the error.

    Past this point RxPY would let it escape into the producer, with the run going on.
    """

    def __init__(
        self,
        observer: ObserverBase[Event],
        run: DisposableBase,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._observer = observer
        self._run = run
        self._on_end = on_end

    def on_next(self, value: Event) -> None:
        try:
            self._observer.on_next(value)
        except Exception as error:  # noqa: BLE001 - reported, never swallowed
            self._report(error)
            self._run.dispose()

    def on_error(self, error: Exception) -> None:
        try:
            self._observer.on_error(error)
        except Exception as raised:  # noqa: BLE001 - reported, never swallowed
            self._report(raised)
        self._on_end()

    def on_completed(self) -> None:
        try:
            self._observer.on_completed()
        except Exception as raised:  # noqa: BLE001 - reported, never swallowed
            self._report(raised)
        self._on_end()

    def _report(self, error: Exception) -> None:
        asyncio.get_running_loop().call_exception_handler(
            {"message": "an observer of an rxflow run raised; the run is disposed", "exception": error}
        )


class _LoopThread(RunHandle):
    """A run on a loop and a thread of its own, which end with it."""

    def __init__(
        self,
        build: Build,
        observer: ObserverBase[Event],
        scope_of: Callable[[Run], Scope],
        seq_of: Run | None = None,
    ) -> None:
        super().__init__()
        self._ended: asyncio.Event | None = None
        self._thread = threading.Thread(
            target=self._main, args=(build, observer, scope_of, seq_of), name="rxflow run", daemon=True
        )
        _live.add(self)
        self._thread.start()

    def _main(
        self,
        build: Build,
        observer: ObserverBase[Event],
        scope_of: Callable[[Run], Scope],
        seq_of: Run | None,
    ) -> None:
        async def serve() -> None:
            loop = asyncio.get_running_loop()
            ended = asyncio.Event()
            self.run = Run(loop) if seq_of is None else Run(loop, seq_of.seq)
            # Published before the look at is_disposed, as dispose() does the reverse: one of the two sees the other.
            self._ended = ended
            if self.is_disposed:
                return
            source = build(scope_of(self.run))
            self.disposable = source.subscribe(_Guard(observer, self, on_end=ended.set))
            await ended.wait()

        with asyncio.Runner() as runner:
            runner.run(serve())
        _live.discard(self)

    def dispose(self) -> None:
        super().dispose()
        if self._ended is not None and self.run is not None:
            call_soon(self.run.loop, self._ended.set)

    def join(self, timeout: float) -> None:
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)


_live: set[_LoopThread] = set()


@atexit.register
def _stop_all() -> None:
    """A loop's thread that is still running when the interpreter goes down can hang it: end all first."""
    for handle in list(_live):
        handle.dispose()
    for handle in list(_live):
        handle.join(0.5)
