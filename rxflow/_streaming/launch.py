"""Starts a run, and chooses the loop on which it lives.

If asyncio runs in the subscriber's thread, the run lives on that loop, so that users' coroutines find their own loop,
pools and sessions. Without such a loop (a plain ``for``, a plain ``subscribe``, trio), or if the caller is going
to block, the run lives on a loop thread. Inside another run it becomes a part of that run, with its loop, labels and
count of events.
"""

from __future__ import annotations

import asyncio
import inspect
import warnings
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import replace
from functools import partial
from typing import Any, Generic, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import CompositeDisposable, Disposable

from rxflow._loops import call_soon, context_for_another_thread, running_loop
from rxflow._streaming import interrupts
from rxflow._streaming.border import Guard
from rxflow._streaming.emitter import Emitter, ambient
from rxflow._streaming.loop_thread import Build, ThreadRun, hosts
from rxflow._streaming.scope import Run, RunHandle, Scope, connect
from rxflow.types import Event

T = TypeVar("T")


def start(
    build: Build[T],
    observer: ObserverBase[T],
    *,
    leaf: Emitter | None,
    blocking: bool,
    is_read: bool = False,
    scheduler: SchedulerBase | None = None,
    hold: Callable[[RunHandle], None] = lambda handle: None,
) -> RunHandle:
    """Start a run for code that belongs to ``leaf``, and return its handle.

    Args:
        blocking: this thread is going to wait for the run, so the run cannot live in this thread.
        is_read: somebody waits for the run's items, even if not in this thread.
        scheduler: the subscriber's scheduler. A run on a loop thread ignores it, because it would emit on another
            thread.
        hold: is called with the handle before any code of the run, because that code may already want to stop the run.
    """
    loop = running_loop()
    context = context_for_another_thread() if loop is None else copy_context()
    if leaf is None and loop is not None and not blocking:
        return _start_here(build, observer, Scope.of_new_run(Run(loop), context, _find_parent()), scheduler, hold)
    if leaf is not None and not (blocking and loop is leaf.run.loop):
        return _start_within(build, observer, replace(leaf.scope, context=context), leaf, scheduler, hold)
    if leaf is not None:
        _warn_of_blocking()
        run = ThreadRun(
            build,
            observer,
            lambda run: replace(leaf.scope, run=run, context=context),
            part_of=leaf.run,
            is_read=is_read,
        )
    else:
        parent = _find_parent()
        run = ThreadRun(build, observer, lambda run: Scope.of_new_run(run, context, parent), is_read=is_read)
    if blocking and not is_read:  # otherwise Ctrl-C would end RxPY's wait, but not the run
        interrupts.watch(run)
    hold(run)
    run.begin()
    return run


def _find_parent() -> str:
    """Return the id of the run whose code starts a new run; an empty text if there is none.

    The new run is not a part of that run, because the leaf has ended.
    """
    leaf = ambient.get()
    return "" if leaf is None else leaf.origin.run_id


def _start_here(
    build: Build[T],
    observer: ObserverBase[T],
    scope: Scope,
    scheduler: SchedulerBase | None,
    hold: Callable[[RunHandle], None],
) -> RunHandle:
    """Start a run on the loop that runs in this thread."""
    handle = RunHandle(scope.run, home=scope.run.loop)
    hold(handle)
    source = build(scope)
    host = hosts.get(scope.run.loop)
    if host is None:
        handle.hold(connect(source, Guard(observer, handle), scheduler))
    else:
        stay = host.enter(handle)
        stay.guard = Guard(observer, handle, on_ending=stay.end, on_end=stay.dispose)
        handle.hold(CompositeDisposable(connect(source, stay.guard, scheduler), stay))
    return handle


def _start_within(
    build: Build[T],
    observer: ObserverBase[T],
    scope: Scope,
    leaf: Emitter,
    scheduler: SchedulerBase | None,
    hold: Callable[[RunHandle], None],
) -> RunHandle:
    """Start a run as a part of the run of ``leaf``, whose code starts it. The part ends with the leaf."""
    handle = RunHandle(home=scope.run.loop)
    hold(handle)
    guard = Guard(observer, handle, on_end=lambda: leaf.disown(owned))
    owned = leaf.own(Disposable(partial(_end_with_its_leaf, handle, guard, leaf)))
    source = build(scope)

    def subscribe() -> None:
        if not handle.is_disposed:
            handle.hold(connect(source, guard, scheduler))

    if running_loop() is scope.run.loop:
        subscribe()
    else:
        call_soon(scope.run.loop, subscribe)
    return handle


def _end_with_its_leaf(handle: RunHandle, guard: Guard[Any], leaf: Emitter) -> None:
    """Stop a run whose leaf is over.

    If the run was still open, its observer gets an error, because code may wait for the run.
    """
    is_open = not (handle.is_disposed or handle.has_ended)
    handle.dispose()
    if is_open:
        call_soon(leaf.run.loop, partial(_tell, guard, leaf.over()), context=Context())


def _tell(guard: Guard[Any], error: BaseException) -> None:
    with suppress(asyncio.CancelledError):  # raised by an observer that handles no errors: nobody is waiting
        guard.fail(error)


def for_code_of(leaf: Emitter | None, events: Observable[Event], scope: Scope) -> Observable[Event]:
    """Return the events of a run, for users' code that belongs to ``leaf``."""

    def subscribe(observer: ObserverBase[Event], scheduler: SchedulerBase | None = None) -> DisposableBase:
        # A lane of the run may be read after the subscriber of the lanes has left: keep the loop for that lane.
        host = hosts.get(scope.run.loop)
        if host is None:
            return events.subscribe(_OfLeaf(observer, leaf, lambda: None), scheduler=scheduler)
        stay = host.enter()
        running = events.subscribe(_OfLeaf(observer, leaf, stay.end), scheduler=scheduler)
        return CompositeDisposable(running, stay)

    return Observable(subscribe)


class _OfLeaf(ObserverBase[T], Generic[T]):
    """Calls users' callbacks as code of the leaf that subscribed, not of the leaf that emits.

    Otherwise a run that a callback starts (``flat_map(lambda chunk: other.observe())``) would become a part of the
    emitting leaf.
    """

    def __init__(self, observer: ObserverBase[T], leaf: Emitter | None, on_ending: Callable[[], None]) -> None:
        self._observer = observer
        self._leaf = leaf
        self._on_ending = on_ending

    def on_next(self, value: T) -> None:
        token = ambient.set(self._leaf)
        try:
            self._observer.on_next(value)
        finally:
            ambient.reset(token)

    def on_error(self, error: Exception) -> None:
        self._on_ending()
        token = ambient.set(self._leaf)
        try:
            self._observer.on_error(error)
        finally:
            ambient.reset(token)

    def on_completed(self) -> None:
        self._on_ending()
        token = ambient.set(self._leaf)
        try:
            self._observer.on_completed()
        finally:
            ambient.reset(token)


def _warn_of_blocking() -> None:
    """Warn at the blocking line of users' code."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__")).startswith(("rxflow.", "reactivex.")):
        level, frame = level + 1, frame.f_back
    warnings.warn(
        "this blocks the event loop of its own run, so everything else in the run waits and its chunks come late; "
        "in async code use `await …kickoff_async()`, `await llm.acall()`, `await …ask_async()` or `async for`",
        RuntimeWarning,
        stacklevel=level,
    )
