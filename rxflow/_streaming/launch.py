"""Starting a run: choosing the loop it lives on.

If asyncio runs in the subscriber's thread, the run lives there, so that users' coroutines find their own loop,
pools and sessions. Elsewhere (plain ``for``, a plain ``subscribe``, trio), and if the caller is going to block, it
lives on a loop thread. Inside another run it joins that run: its loop, labels and count of chunks.
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
from rxflow._streaming.scope import Run, RunHandle, Scope
from rxflow._streaming.subscriptions import connect
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
    """Start a run for code that belongs to ``leaf``.

    ``blocking`` says that this thread is going to wait for the run, so it cannot live here. ``is_read`` says that
    somebody waits for what it makes, if not in this thread.
    ``scheduler`` is the subscriber's. A run on a loop thread keeps to its loop: another one would emit elsewhere.
    ``hold`` is given the handle before any code of the run is executed, which may itself want to stop it.
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
    if blocking and not is_read:  # RxPY waits, and lets the run go on when Ctrl-C ends the wait
        interrupts.watch(run)
    hold(run)
    run.begin()
    return run


def _find_parent() -> str:
    """The id of the run whose code starts this one, which cannot be a part of it because the leaf has ended."""
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
    """Start a run in the leaf whose code starts it, as a part of that run. It is over when the leaf is."""
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
    """Stop a run whose leaf is over. If it had not ended, its observer gets an error: somebody may wait for it."""
    is_open = not (handle.is_disposed or handle.has_ended)
    handle.dispose()
    if is_open:
        call_soon(leaf.run.loop, partial(_tell, guard, leaf.over()), context=Context())


def _tell(guard: Guard[Any], error: BaseException) -> None:
    with suppress(asyncio.CancelledError):  # from an observer that handles no errors: nobody is waiting
        guard.fail(error)


def for_code_of(leaf: Emitter | None, events: Observable[Event], scope: Scope) -> Observable[Event]:
    """The events of a run, for users' code that belongs to ``leaf``."""

    def subscribe(observer: ObserverBase[Event], scheduler: SchedulerBase | None = None) -> DisposableBase:
        # A lane of the run may be read on when whoever asked for lanes has left: the loop stays for it.
        host = hosts.get(scope.run.loop)
        if host is None:
            return events.subscribe(_OfLeaf(observer, leaf, lambda: None), scheduler=scheduler)
        stay = host.enter()
        running = events.subscribe(_OfLeaf(observer, leaf, stay.end), scheduler=scheduler)
        return CompositeDisposable(running, stay)

    return Observable(subscribe)


class _OfLeaf(ObserverBase[T], Generic[T]):
    """Calls users' callbacks as code of the leaf that subscribed, not of the leaf that happens to emit.

    Else a run that a callback starts (``flat_map(lambda chunk: other.observe())``) would become a part of the latter.
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
    """Warn at the line of users' code that blocks."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__")).startswith(("rxflow.", "reactivex.")):
        level, frame = level + 1, frame.f_back
    warnings.warn(
        "this blocks the event loop of its own run, so everything else in the run waits and its chunks come late; "
        "in async code use `await …kickoff_async()`, `await llm.acall()`, `await …ask_async()` or `async for`",
        RuntimeWarning,
        stacklevel=level,
    )
