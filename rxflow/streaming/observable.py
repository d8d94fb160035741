"""The Observable of a run, and what reads it.

``events()`` gives all that a run emits, and ``observe()`` a selection of it. Operators of ours that follow become a
part of the run, below the selection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar, cast, overload

from reactivex import Observable, Subject
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import CompositeDisposable
from reactivex.internal.exceptions import SequenceContainsNoElementsError
from reactivex.scheduler import NewThreadScheduler

from rxflow.loops import LoopScheduler, running_loop
from rxflow.streaming.emitter import Emitter
from rxflow.streaming.feed import SubscribedFeed
from rxflow.streaming.handle import RunHandle
from rxflow.streaming.launch import current_emitter, for_code_of, start
from rxflow.streaming.log import Log
from rxflow.streaming.loop_thread import Build
from rxflow.streaming.scope import Scope
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import Event

T = TypeVar("T")
U = TypeVar("U")
E = TypeVar("E")
Item = TypeVar("Item")

Selection: TypeAlias = Callable[[Observable[Event]], Observable[T]]
"""Picks what is shown."""

OnEvents: TypeAlias = Callable[[Observable[Event]], Observable[Event]]
"""An operator that passes on what it does not know."""


class EventStream(Observable[T], Generic[T]):
    """A cold Observable of a run's events, or of a selection from them. Each subscription is a run of its own.

    It is not iterable: ``pipe(ops.to_output())`` makes what ``for`` and ``async for`` read.

    ``origin`` builds the run. An Observable instead is not a run: it is subscribed as it is, and its items are the
    events that operators and selection see.
    """

    # RxPY's Observables have a __getitem__, by which Python would iterate them: forever, over Observables. None also
    # says to isinstance(…, Iterable), by which RxPY tells streams from lists, that this is not one.
    __iter__: ClassVar[None] = None

    @overload
    def __init__(self: EventStream[Event], origin: Build[Event]) -> None: ...

    @overload
    def __init__(
        self, origin: Build[Event] | Observable[Any], selection: Selection[T], operators: Sequence[OnEvents] = ()
    ) -> None: ...

    def __init__(
        self,
        origin: Build[Event] | Observable[Any],
        selection: Selection[Any] | None = None,
        operators: Sequence[OnEvents] = (),
    ) -> None:
        self._origin = origin
        self._source = cast("Observable[Any]", origin) if isinstance(origin, Observable) else None
        self._selection: Selection[T] = cast("Selection[T]", everything if selection is None else selection)
        self._operators = tuple(operators)
        super().__init__(self._on_subscribe)

    @property
    def is_run(self) -> bool:
        """Subscribing it starts a run."""
        return self._source is None

    @property
    def shows_all(self) -> bool:
        """Nothing was selected: the items are the events."""
        return self._selection is everything

    def through(self, operator: OnEvents) -> EventStream[T]:
        """The same with ``operator`` at work on the events, on the run's loop."""
        return EventStream(self._origin, self._selection, (*self._operators, operator))

    def reselect(self, change: Callable[[Selection[T]], Selection[U]]) -> EventStream[U]:
        """What ``change`` makes of the selection: it sees the events, and what is shown of them."""
        return EventStream(self._origin, change(self._selection), self._operators)

    def select(self, selection: Selection[U]) -> EventStream[U]:
        """What ``selection`` shows of the events."""
        return EventStream(self._origin, selection, self._operators)

    def with_events(self) -> EventStream[T | Behind]:
        """The same, and beside it each event behind it: for a stream that becomes a part of another run."""
        return self.reselect(_with_events)

    def within(self, leaf: Emitter) -> Observable[T]:
        """The run as a part of the leaf that ``leaf`` emits for, with the context of the code that asks."""
        return self._build_for(None, is_users=False)(replace(leaf.scope, context=copy_context()))

    def run(self, scheduler: SchedulerBase | None = None) -> T:
        """Wait for the end in this thread, and return the last item.

        Raises:
            SequenceContainsNoElementsError: there was no item.
        """
        feed = _LastFeed(self)
        feed.pull_to_the_end()
        return feed.result

    def read_by(
        self, reader: ObserverBase[T], leaf: Emitter | None, *, blocking: bool, hold: Callable[[RunHandle], None]
    ) -> None:
        """Start a run for a reader of ours that waits for what comes; see :func:`rxflow.streaming.launch.start`."""
        build = self._build_for(leaf, is_users=False)
        start(build, reader, leaf=leaf, blocking=blocking, is_read=True, hold=hold)

    def _on_subscribe(self, observer: ObserverBase[T], scheduler: SchedulerBase | None = None) -> DisposableBase:
        if self._source is not None:
            return self._shown(self._source).subscribe(observer, scheduler=scheduler)
        leaf = current_emitter()
        # RxPY's run() subscribes with this scheduler and blocks until the end. Its operators hand the scheduler on.
        is_awaited = isinstance(scheduler, NewThreadScheduler)
        build = self._build_for(leaf, is_users=True)
        return start(build, observer, leaf=leaf, blocking=is_awaited, is_awaited=is_awaited, scheduler=scheduler)

    def _build_for(self, leaf: Emitter | None, *, is_users: bool) -> Build[T]:
        """The one door to the run: its events, the operators, and the selection, for code that belongs to ``leaf``."""
        origin = cast(Build[Event], self._origin)
        hears_users = is_users or bool(self._operators) or not self.shows_all

        def build(scope: Scope) -> Observable[T]:
            return self._shown(for_code_of(leaf, origin, scope) if hears_users else origin(scope))

        return build

    def _shown(self, events: Observable[Event]) -> Observable[T]:
        for operator in self._operators:
            events = operator(events)
        return self._selection(events)


@dataclass(frozen=True, slots=True)
class Behind:
    """An event behind what is shown."""

    event: Event


def everything(events: Observable[T]) -> Observable[T]:
    """The selection that leaves nothing out."""
    return events


def chunks(events: Observable[Event]) -> Observable[StreamChunk]:
    """The StreamChunks among ``events``. ::

    events    S--a--b--R--c--F|
    chunks    ---a--b-----c---|
    """

    def subscribe(observer: ObserverBase[StreamChunk], scheduler: SchedulerBase | None = None) -> DisposableBase:
        emit = observer.on_next

        def on_next(event: Event) -> None:
            if isinstance(event, StreamChunk):
                emit(event)

        return events.subscribe(on_next, observer.on_error, observer.on_completed, scheduler=scheduler)

    return Observable(subscribe)


def past(
    shown: Callable[[Observable[E]], Observable[T]],
    route: Callable[[Callable[[Any], None], Callable[[E], None]], Callable[[E], None]],
) -> Callable[[Observable[E]], Observable[Any]]:
    """A selection that also lets items past another one. ``route(emit, show)`` returns what handles each event. ::

    events          S--a--b--F|
    shown           ---A--B---|
    past it, S, F   S--A--B--F|
    """

    def selection(events: Observable[E]) -> Observable[Any]:
        def subscribe(observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
            seen: Subject[E] = Subject()
            selected = shown(seen).subscribe(observer, scheduler=scheduler)
            on_next = route(observer.on_next, seen.on_next)
            running = events.subscribe(on_next, seen.on_error, seen.on_completed, scheduler=scheduler)
            return CompositeDisposable(running, selected)

        return Observable(subscribe)

    return selection


def _with_events(shown: Selection[T]) -> Selection[T | Behind]:
    def route(emit: Callable[[T | Behind], None], show: Callable[[Event], None]) -> Callable[[Event], None]:
        def on_next(event: Event) -> None:
            if not isinstance(event, StreamChunk):
                emit(Behind(event))
            show(event)

        return on_next

    return past(shown, route)


class SourceFeed(SubscribedFeed[Item, T, Observable[T]], Generic[Item, T]):
    """Subscribes an Observable. A run chooses its loop; whatever else is subscribed lives where its reader does."""

    def __init__(self, log: Log[Item], source: Observable[T]) -> None:
        super().__init__(log, source)
        self._is_run = isinstance(source, EventStream) and source.is_run

    def pull(self, position: int) -> None:
        if running_loop() is not None and not (self._is_run or self._start_token.is_taken):
            raise RuntimeError(
                "this pipeline would live on this thread's event loop, which a plain `for` blocks: use `async for`"
            )
        super().pull(position)

    def _subscribe(self, source: Observable[T], leaf: Emitter | None, *, blocking: bool) -> None:
        if isinstance(source, EventStream) and source.is_run:
            source.read_by(self, leaf, blocking=blocking, hold=self._hold)
            return
        loop = running_loop()
        handle = RunHandle(home=loop)
        self._hold(handle)
        # Else RxPY's operators would set their timers by the wall clock, on threads of their own.
        scheduler = LoopScheduler(loop) if loop is not None else None
        handle.disposable = source.subscribe(self, scheduler=scheduler)


class _LastFeed(SourceFeed[T, T], Generic[T]):
    """Keeps the last item alone, and wakes nobody for it."""

    def __init__(self, source: Observable[T]) -> None:
        super().__init__(Log(), source)
        self._last: list[T] = []

    @property
    def result(self) -> T:
        """The last item."""
        self._log.raise_error()
        if not self._last:
            raise SequenceContainsNoElementsError("the stream completed without an item, so there is no result")
        return self._last[0]

    def on_next(self, value: T) -> None:
        self._last = [value]
