"""Starting a run: choosing the loop it lives on.

Where asyncio runs in the subscriber's thread, the run lives there, so that users' coroutines find their own loop,
pools and sessions. Elsewhere (plain ``for``, a plain ``subscribe``, trio), or where the caller is going to block, it
brings a loop on a thread of its own. Inside another run it joins that run: its loop, labels and count of chunks.
"""

from __future__ import annotations

import inspect
import warnings
from contextvars import copy_context
from functools import partial

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import CompositeDisposable, Disposable

from rxflow.streaming.border import Guard, InPlace
from rxflow.streaming.emitter import Emitter, ambient
from rxflow.streaming.loop_thread import Build, LoopThread, RunHandle, hosts
from rxflow.streaming.loops import call_soon, context_for_another_thread, running_loop
from rxflow.streaming.scope import Run, Scope
from rxflow.types.events import Event


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
        return start(self.build, InPlace(observer, place), place=place, blocking=False)


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
            return LoopThread(build, observer, lambda run: Scope(run, context=context))
        run = Run(loop)
        handle = RunHandle(run, home=loop)
        host = hosts.get(loop)
        stay = host.enter() if host is not None else Disposable()
        guard = Guard(observer, handle, on_end=stay.dispose)
        handle.disposable = CompositeDisposable(build(Scope(run, context=context)).subscribe(guard), stay)
        return handle
    if loop is place.run.loop and blocking:
        _warn_of_blocking()
        return LoopThread(build, observer, lambda run: Scope(run, place.origin, context), part_of=place.run)
    # It belongs to the code that starts it: when that leaf ends or is disposed, so is this.
    handle = RunHandle(home=place.run.loop)
    place.own(handle)
    guard = Guard(observer, handle, on_end=partial(place.disown, handle))
    source = build(Scope(place.run, place.origin, context))
    if loop is place.run.loop:
        handle.disposable = source.subscribe(guard)
    else:

        def subscribe() -> None:
            if not handle.is_disposed:
                handle.disposable = source.subscribe(guard)

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
