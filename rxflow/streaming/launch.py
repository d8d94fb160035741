"""Starting a run: choosing the loop it lives on.

Where asyncio runs in the subscriber's thread, the run lives there, so that users' coroutines find their own loop,
pools and sessions. Elsewhere (plain ``for``, a plain ``subscribe``, trio), or where the caller is going to block, it
brings a loop on a thread of its own. Inside another run it joins that run: its loop, labels and count of chunks.
"""

from __future__ import annotations

import asyncio
import atexit
import inspect
import threading
import warnings
from collections.abc import Callable
from contextvars import copy_context

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import CompositeDisposable, Disposable, SingleAssignmentDisposable

from rxflow.streaming.emitter import Emitter, ambient
from rxflow.streaming.loops import call_soon, context_for_another_thread, running_loop
from rxflow.streaming.scope import Run, Scope
from rxflow.types.events import Event

Build = Callable[[Scope], Observable[Event]]


class RunObservable(Observable[Event]):
    """A cold Observable of events: each subscription is a run of its own, built in the place where it starts."""

    def __init__(self, build: Build) -> None:
        self.build = build
        super().__init__(self._on_subscribe)

    def within(self, place: Emitter) -> Observable[Event]:
        """The run as a part of the leaf that ``place`` emits for, with the context of the code that asks."""
        return self.build(Scope(place.run, place.origin, copy_context()))

    def _on_subscribe(self, observer: ObserverBase[Event], scheduler: SchedulerBase | None = None) -> DisposableBase:
        place = open_place()
        return start(self.build, _InPlace(observer, place), place=place, blocking=False)


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
    context = context_for_another_thread() if loop is None else copy_context()
    if place is None:
        if loop is None or blocking:
            return _LoopThread(build, observer, lambda run: Scope(run, context=context))
        run = Run(loop)
        handle = RunHandle(run)
        host = _hosts.get(loop)
        stay = host.enter() if host is not None else Disposable()
        guard = _Guard(observer, handle, on_end=stay.dispose)
        handle.disposable = CompositeDisposable(build(Scope(run, context=context)).subscribe(guard), stay)
        return handle
    if loop is place.run.loop and blocking:
        _warn_of_blocking()
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


def _warn_of_blocking() -> None:
    """At the line of users' code that blocks."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__")).startswith("rxflow."):
        level, frame = level + 1, frame.f_back
    warnings.warn(
        "this blocks the event loop of its own run, so everything else in the run waits and its chunks come late; "
        "in async code use `await …kickoff_async()`, `await llm.acall()` or `async for`",
        RuntimeWarning,
        stacklevel=level,
    )


class _InPlace(ObserverBase[Event]):
    """Users' callbacks belong to the place of their subscription, not to the leaf that happens to emit.

    Else a run that a callback starts (``flat_map(lambda chunk: other.observe())``) would become a part of that leaf.
    """

    def __init__(self, observer: ObserverBase[Event], place: Emitter | None) -> None:
        self._observer = observer
        self._place = place

    def on_next(self, value: Event) -> None:
        token = ambient.set(self._place)
        try:
            self._observer.on_next(value)
        finally:
            ambient.reset(token)

    def on_error(self, error: Exception) -> None:
        token = ambient.set(self._place)
        try:
            self._observer.on_error(error)
        finally:
            ambient.reset(token)

    def on_completed(self) -> None:
        token = ambient.set(self._place)
        try:
            self._observer.on_completed()
        finally:
            ambient.reset(token)


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
    """A run on a loop and a thread of its own, which end with it.

    Callbacks of that run may start others, as ``concat`` does; they live on the same loop, and it stays for them.
    """

    def __init__(
        self,
        build: Build,
        observer: ObserverBase[Event],
        scope_of: Callable[[Run], Scope],
        seq_of: Run | None = None,
    ) -> None:
        super().__init__()
        self._ended: asyncio.Event | None = None
        self._runs = 0
        self._stay: DisposableBase = Disposable()
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
            self._stay = stay = self.enter()
            self._ended = ended
            if self.is_disposed:
                return
            _hosts[loop] = self
            try:
                source = build(scope_of(self.run))
                self.disposable = source.subscribe(_Guard(observer, self, on_end=stay.dispose))
                await ended.wait()
            finally:
                del _hosts[loop]

        with asyncio.Runner() as runner:
            runner.run(serve())
        _live.discard(self)

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

    def stop(self) -> None:
        """Dispose it, and end its loop also where other runs live on it."""
        self.dispose()
        if self.run is not None and self._ended is not None:
            call_soon(self.run.loop, self._ended.set)

    def join(self, timeout: float) -> None:
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)


_live: set[_LoopThread] = set()
_hosts: dict[asyncio.AbstractEventLoop, _LoopThread] = {}


@atexit.register
def _stop_all() -> None:
    """A loop's thread that is still running when the interpreter goes down can hang it: end all first."""
    for handle in list(_live):
        handle.stop()
    for handle in list(_live):
        handle.join(0.5)
