"""Starts a run, and chooses the loop on which the run lives.

- If code of a leaf starts the run, the new run becomes a part of the leaf's run, with the same loop and labels.
- Otherwise, if an asyncio loop runs in the subscriber's thread, the run lives on that loop. So users' coroutines find
  their own loop, pools and sessions.
- Otherwise (a plain ``for``, a plain ``subscribe``, trio), the run lives on a loop thread.

If the caller will block the loop that these rules choose, the run lives on a loop thread instead.
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
from reactivex.disposable import Disposable

from rxflow._loops import call_soon, context_for_another_thread, running_loop
from rxflow._streaming import interrupts
from rxflow._streaming.border import Guard
from rxflow._streaming.emitter import Emitter, ambient
from rxflow._streaming.loop_thread import Build, ThreadRun, hosts
from rxflow._streaming.scope import Owned, Run, RunHandle, Scope, connect
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
    """Start a run, and return the handle of the run.

    Args:
        leaf: the emitter of the code that starts the run; None if that code does not belong to a run.
        blocking: whether this thread will wait for the run. If so, the run cannot live in this thread.
        is_read: whether a reader will wait for the run's items, in this thread or in another one.
        scheduler: the subscriber's scheduler. If this function moves the run to a loop thread, this argument is
            ignored, because the subscriber's scheduler would emit on another thread.
        hold: called with the handle before any code of the run is called. That code may need the handle to stop the
            run.
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
    if blocking and not is_read:  # RxPY's run() waits; without watch(), Ctrl-C would end only the wait, not the run
        interrupts.watch(run)
    hold(run)
    run.begin()
    return run


def _find_parent() -> str:
    """Return the id of the run that the calling code belongs to; "" if there is none.

    If there is such a run, the leaf of the calling code has already ended. So a new run becomes a child of that run,
    but not a part of that run.
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
    """Start a run on the loop of this thread."""
    handle = RunHandle(scope.run, home=scope.run.loop)
    hold(handle)
    source = build(scope)
    host = hosts.get(scope.run.loop)
    if host is None:
        handle.hold(connect(source, Guard(observer, handle), scheduler))
    else:
        stay = host.enter(handle)
        stay.guard = Guard(observer, handle, on_ending=stay.end, on_end=stay.dispose)
        handle.hold(Owned(connect(source, stay.guard, scheduler), stay))
    return handle


def _start_within(
    build: Build[T],
    observer: ObserverBase[T],
    scope: Scope,
    leaf: Emitter,
    scheduler: SchedulerBase | None,
    hold: Callable[[RunHandle], None],
) -> RunHandle:
    """Start a run as a part of the run that ``leaf`` belongs to. When the leaf ends, the new run is stopped."""
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
    """Stop a run, because the leaf that started the run has ended.

    If the run is still active, the run's observer gets an error. Without the error, code that waits for the run would
    wait forever.
    """
    is_open = not (handle.is_disposed or handle.has_ended)
    handle.dispose()
    if is_open:
        call_soon(leaf.run.loop, partial(_tell, guard, leaf.over()), context=Context())


def _tell(guard: Guard[Any], error: BaseException) -> None:
    # An observer without on_error raises the error again. Drop a CancelledError in this case, because no code waits for
    # the run.
    with suppress(asyncio.CancelledError):
        guard.fail(error)


def for_code_of(leaf: Emitter | None, events: Observable[Event], scope: Scope) -> Observable[Event]:
    """Wrap the events of a run, so that users' callbacks are called as code of ``leaf``.

    If ``leaf`` is None, the callbacks belong to no run.
    """

    def subscribe(observer: ObserverBase[Event], scheduler: SchedulerBase | None = None) -> DisposableBase:
        # A subscriber may dispose the subscription to a run, and continue to read one lane of the run. So the
        # subscription to the events keeps the loop thread alive too.
        host = hosts.get(scope.run.loop)
        if host is None:
            return events.subscribe(_OfLeaf(observer, leaf, lambda: None), scheduler=scheduler)
        stay = host.enter()
        running = events.subscribe(_OfLeaf(observer, leaf, stay.end), scheduler=scheduler)
        return Owned(running, stay)

    return Observable(subscribe)


class _OfLeaf(ObserverBase[T], Generic[T]):
    """Calls users' callbacks as code of the leaf that subscribed.

    Otherwise the callbacks would count as code of the leaf that emits. A run that a callback starts, as in
    ``flat_map(lambda chunk: other.observe())``, would then become a part of the emitting leaf.
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
    """Issue a warning that points to the line of users' code that blocks the loop."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__")).startswith(("rxflow.", "reactivex.")):
        level, frame = level + 1, frame.f_back
    warnings.warn(
        "this blocks the event loop of its own run, so everything else in the run waits and its chunks come late; "
        "in async code use `await …kickoff_async()`, `await llm.acall()`, `await …ask_async()` or `async for`",
        RuntimeWarning,
        stacklevel=level,
    )
