"""Starting a run: choosing the loop it lives on.

Where asyncio runs in the subscriber's thread, the run lives there, so that users' coroutines find their own loop,
pools and sessions. Elsewhere (plain ``for``, a plain ``subscribe``, trio), or where the caller is going to block, it
brings a loop on a thread of its own. Inside another run it joins that run: its loop, labels and count of chunks.
"""

from __future__ import annotations

import asyncio
import inspect
import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import CompositeDisposable, Disposable
from reactivex.scheduler import NewThreadScheduler

from rxflow.loops import call_soon, context_for_another_thread, running_loop
from rxflow.streaming import interrupts
from rxflow.streaming.emitter import Emitter, ambient
from rxflow.streaming.handle import Guard, RunHandle
from rxflow.streaming.loop_thread import Build, ThreadRun, hosts
from rxflow.streaming.projection import Selection, everything, past
from rxflow.streaming.scope import Run, Scope
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import Event

T = TypeVar("T")
U = TypeVar("U")

_IN_A_LOOP = "rxflow.operators.to_output() to read it in a loop, or subscribe to it"

OnEvents: TypeAlias = Callable[[Observable[Event]], Observable[Event]]
"""An operator that passes on what it does not know."""


class StartingObservable(Observable[T], Generic[T]):
    """A cold Observable whose subscriptions start runs."""

    def __init__(self) -> None:
        super().__init__(self._on_subscribe)

    @abstractmethod
    def build_in(self, place: Emitter | None) -> Build[T]:
        """What makes a run for code that belongs to ``place``."""

    def run(self, scheduler: SchedulerBase | None = None) -> T:
        """Wait for the end in this thread, and give the last item.

        RxPY's would wait for ever where the loop runs on which this stream then lives: in a notebook, in async code.

        Raises:
            SequenceContainsNoElementsError: there was no item.
        """
        from rxflow.streaming.pipeline import last_of  # it stands above this module

        return last_of(self)

    def __iter__(self) -> NoReturn:
        # RxPY's Observables have a __getitem__, by which Python would iterate them: for ever, over Observables.
        raise TypeError(f"a {type(self).__name__} is no iterable; end its pipe with {_IN_A_LOOP}")

    def __aiter__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} is no async iterable; end its pipe with {_IN_A_LOOP}")

    def read_by(
        self, reader: ObserverBase[T], place: Emitter | None, *, blocking: bool, hold: Callable[[RunHandle], None]
    ) -> None:
        """Start a run for a reader that waits for what comes; see :func:`start`."""
        start(self.build_in(place), reader, place=place, blocking=blocking, is_read=True, hold=hold)

    def _on_subscribe(self, observer: ObserverBase[T], scheduler: SchedulerBase | None = None) -> DisposableBase:
        place = open_place()
        return start(self.build_in(place), observer, place=place, blocking=False, scheduler=scheduler)


class RunObservable(StartingObservable[Event]):
    """A cold Observable of events: each subscription is a run of its own, built in the place where it starts.

    Operators become a part of the run: they live on its loop, where their timers belong and nothing needs a lock.
    """

    def __init__(self, build: Build[Event], operators: Sequence[OnEvents] = ()) -> None:
        self.build = build
        self._operators = tuple(operators)
        super().__init__()

    def within(self, place: Emitter) -> Observable[Event]:
        """The run as a part of the leaf that ``place`` emits for, with the context of the code that asks."""
        return self.build(Scope(place.run, place.origin, copy_context()))

    def through(self, operator: OnEvents) -> RunObservable:
        """The same run with ``operator`` at work on its events."""
        return RunObservable(self.build, (*self._operators, operator))

    def select(self, selection: Selection[T]) -> SelectedObservable[T]:
        """What ``selection`` shows of the events."""
        return SelectedObservable(self, selection)

    def reselect(self, change: Callable[[Selection[Event]], Selection[U]]) -> SelectedObservable[U]:
        """What ``change`` makes of the selection, which here is everything."""
        return self.select(change(everything))

    def build_of(self, selection: Selection[T], place: Emitter | None) -> Build[T]:
        """The run with its operators, as ``selection`` shows it to code that belongs to ``place``."""

        def build(scope: Scope) -> Observable[T]:
            events = _in_place(self.build, scope, place)
            for operator in self._operators:
                events = operator(events)
            return selection(events)

        return build

    def build_in(self, place: Emitter | None) -> Build[Event]:
        return self.build_of(everything, place)


class SelectedObservable(StartingObservable[T], Generic[T]):
    """What a selection shows of a run. Operators still see the events behind it, and so know what has ended."""

    def __init__(self, run: RunObservable, selection: Selection[T]) -> None:
        self._run = run
        self._selection = selection
        super().__init__()

    def through(self, operator: OnEvents) -> SelectedObservable[T]:
        """The same selection, with ``operator`` at work on the events behind it."""
        return SelectedObservable(self._run.through(operator), self._selection)

    def reselect(self, change: Callable[[Selection[T]], Selection[U]]) -> SelectedObservable[U]:
        """What ``change`` makes of the selection: it sees the events, and what is shown of them."""
        return SelectedObservable(self._run, change(self._selection))

    def with_events(self) -> SelectedObservable[T | Behind]:
        """The same, and in its place each event behind it: for a stream that becomes a part of another run."""
        return self.reselect(_with_events)

    def build_in(self, place: Emitter | None) -> Build[T]:
        return self._run.build_of(self._selection, place)


@dataclass(frozen=True, slots=True)
class Behind:
    """An event behind what is shown."""

    event: Event


def _with_events(shown: Selection[T]) -> Selection[T | Behind]:
    def route(emit: Callable[[T | Behind], None], show: Callable[[Event], None]) -> Callable[[Event], None]:
        def on_next(event: Event) -> None:
            if not isinstance(event, StreamChunk):
                emit(Behind(event))
            show(event)

        return on_next

    return past(shown, route)


class InPlace(ObserverBase[T], Generic[T]):
    """Users' callbacks belong to the place of their subscription, not to the leaf that happens to emit.

    Else a run that a callback starts (``flat_map(lambda chunk: other.observe())``) would become a part of that leaf.
    """

    def __init__(self, observer: ObserverBase[T], place: Emitter | None, on_ending: Callable[[], None]) -> None:
        self._observer = observer
        self._place = place
        self._on_ending = on_ending

    def on_next(self, value: T) -> None:
        token = ambient.set(self._place)
        try:
            self._observer.on_next(value)
        finally:
            ambient.reset(token)

    def on_error(self, error: Exception) -> None:
        self._on_ending()
        token = ambient.set(self._place)
        try:
            self._observer.on_error(error)
        finally:
            ambient.reset(token)

    def on_completed(self) -> None:
        self._on_ending()
        token = ambient.set(self._place)
        try:
            self._observer.on_completed()
        finally:
            ambient.reset(token)


def _in_place(build: Build[Event], scope: Scope, place: Emitter | None) -> Observable[Event]:
    """The events of a run, built anew for each subscription, for code that belongs to ``place``."""

    def subscribe(observer: ObserverBase[Event], scheduler: SchedulerBase | None = None) -> DisposableBase:
        # A lane of the run may be read on when whoever asked for lanes has left: the loop stays for it.
        host = hosts.get(scope.run.loop)
        if host is None:
            return build(scope).subscribe(InPlace(observer, place, lambda: None), scheduler=scheduler)
        stay = host.enter()
        return CompositeDisposable(
            build(scope).subscribe(InPlace(observer, place, stay.end), scheduler=scheduler), stay
        )

    return Observable(subscribe)


def open_place() -> Emitter | None:
    """The ambient place, if this code belongs to a run. CancelledError where that run was cancelled."""
    place = ambient.get()
    if place is None or (place.is_closed and not place.is_cancelled):
        return None
    place.require_open()
    return place


def start(
    build: Build[T],
    observer: ObserverBase[T],
    *,
    place: Emitter | None,
    blocking: bool,
    is_read: bool = False,
    scheduler: SchedulerBase | None = None,
    hold: Callable[[RunHandle], None] = lambda handle: None,
) -> RunHandle:
    """Start a run; ``blocking`` says that this thread is going to wait for it, so it cannot live here.

    ``is_read`` says that someone is going to wait for what it makes, if not in this thread.
    ``scheduler`` is the subscriber's. A run on a thread of its own keeps to its loop: another one would emit elsewhere.
    ``hold`` is given the handle before any code of the run is executed, which may itself want to stop it.
    """
    # RxPY's run() subscribes with this scheduler and blocks until the end. Its operators hand the scheduler on.
    is_awaited = isinstance(scheduler, NewThreadScheduler)
    blocking = blocking or is_awaited
    loop = running_loop()
    context = context_for_another_thread() if loop is None else copy_context()
    if place is None:
        if loop is None or blocking:
            outer = ThreadRun(build, observer, lambda run: Scope(run, context=context), is_read=is_read)
            if is_awaited:
                interrupts.watch(outer)
            return _on_its_own(outer, hold)
        run = Run(loop)
        handle = RunHandle(run, home=loop)
        hold(handle)
        host = hosts.get(loop)
        source = build(Scope(run, context=context))
        if host is None:
            handle.disposable = source.subscribe(Guard(observer, handle), scheduler=scheduler)
        else:
            stay = host.enter(handle)
            stay.guard = Guard(observer, handle, on_ending=stay.end, on_end=stay.dispose)
            handle.disposable = CompositeDisposable(source.subscribe(stay.guard, scheduler=scheduler), stay)
        return handle
    if loop is place.run.loop and blocking:
        _warn_of_blocking()
        inner = ThreadRun(
            build, observer, lambda run: Scope(run, place.origin, context), part_of=place.run, is_read=is_read
        )
        return _on_its_own(inner, hold)
    # It belongs to the code that starts it: when that leaf ends or is disposed, so is this.
    handle = RunHandle(home=place.run.loop)
    hold(handle)
    guard = Guard(observer, handle, on_end=lambda: place.disown(owned))
    owned = place.own(Disposable(partial(_end_with_its_leaf, handle, guard, place)))
    source = build(Scope(place.run, place.origin, context))
    if loop is place.run.loop:
        handle.disposable = source.subscribe(guard, scheduler=scheduler)
    else:

        def subscribe() -> None:
            if not handle.is_disposed:
                handle.disposable = source.subscribe(guard, scheduler=scheduler)

        call_soon(place.run.loop, subscribe)
    return handle


def _end_with_its_leaf(handle: RunHandle, guard: Guard[Any], leaf: Emitter) -> None:
    """Stop a run whose leaf is over. If the run goes on, its observer is told, as somebody may wait for it."""
    is_open = not (handle.is_disposed or handle.has_ended)
    handle.dispose()
    if is_open:
        call_soon(leaf.run.loop, partial(_tell, guard, leaf.over()), context=Context())


def _tell(guard: Guard[Any], error: BaseException) -> None:
    with suppress(asyncio.CancelledError):  # from an observer that handles no errors: nobody is waiting
        guard.fail(error)


def _on_its_own(run: ThreadRun[Any], hold: Callable[[RunHandle], None]) -> RunHandle:
    hold(run)
    run.begin()
    return run


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
