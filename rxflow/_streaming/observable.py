"""The Observable of a run, and the feeds that read it.

``events()`` returns all events of a run, and ``observe()`` returns a selection of the events. rxflow's operators on
events become a part of the run. The operators work on all events, and the selection is made from the results.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeAlias, TypeVar, cast, overload

from reactivex import Observable, Subject
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.internal.exceptions import SequenceContainsNoElementsError
from reactivex.scheduler import NewThreadScheduler

from rxflow._loops import LoopScheduler, running_loop
from rxflow._streaming.border import Border, close_before_end
from rxflow._streaming.emitter import Emitter, current_emitter
from rxflow._streaming.feed import SubscribedFeed
from rxflow._streaming.journal import Journal
from rxflow._streaming.launch import for_code_of, start
from rxflow._streaming.log import Log
from rxflow._streaming.loop_thread import Build
from rxflow._streaming.scope import Answerer, Owned, RunHandle, RunPart, Scope, connect
from rxflow.types import Event, Origin, StreamChunk

T = TypeVar("T")
U = TypeVar("U")
E = TypeVar("E")
Item = TypeVar("Item")

Selection: TypeAlias = Callable[[Observable[Event]], Observable[T]]
"""A function that turns the events of a run into the items for the observer."""

OnEvents: TypeAlias = Callable[[Observable[Event]], Observable[Event]]
"""An operator on events. It passes on all events that it does not handle."""


class EventStream(Observable[T], Generic[T]):
    """A cold Observable of a run's events, or of a selection of the events. Each subscription starts a separate run.

    This class is not iterable. ``pipe(ops.to_output())`` returns an object for ``for`` and ``async for``.

    ``origin`` is a function that builds the run. If ``origin`` is an Observable instead, there is no run: the operators
    and the selection work on the items of ``origin``.
    """

    # RxPY's Observables have a __getitem__, so without this line, ``for`` would never end. Do not use a method that
    # raises instead: isinstance(…, Iterable) would be True, and RxPY uses this test to recognize lists.
    __iter__: ClassVar[None] = None

    @overload
    def __init__(self: EventStream[Event], origin: Build[Event]) -> None: ...

    @overload
    def __init__(
        self,
        origin: Build[Event] | Observable[Any],
        selection: Selection[T],
        operators: Sequence[OnEvents] = (),
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
        self._is_part = False
        self._enter: Callable[[Scope], Scope] | None = None
        super().__init__(self._on_subscribe)

    @property
    def is_run(self) -> bool:
        """Whether a subscription to this stream starts a run."""
        return self._source is None

    @property
    def shows_all(self) -> bool:
        """Whether this stream has no selection, and so emits every event."""
        return self._selection is everything

    def through(self, operator: OnEvents) -> EventStream[T]:
        """Return this stream with one more operator on its events. The selection is made after the operator."""
        return self._like(self._selection, operators=(*self._operators, operator))

    def reselect(self, change: Callable[[Selection[T]], Selection[U]]) -> EventStream[U]:
        """Return this stream with another selection, which ``change`` makes from the present selection."""
        return self._like(change(self._selection))

    def select(self, selection: Selection[U]) -> EventStream[U]:
        """Return this stream with another selection of its events."""
        return self._like(selection)

    def with_answerer(self, answerer: Answerer) -> EventStream[T]:
        """Return this run with one more answerer, which is asked before the answerers of surrounding code."""
        build = cast(Build[Event], self._origin)
        return self._like(self._selection, origin=lambda scope: build(scope.with_answerer(answerer)))

    def resume_from(self, journal: Journal) -> EventStream[T]:
        """Return the continuation of the run that ``journal`` has recorded. The first event is ``FlowResumed``."""
        build = cast(Build[Event], self._origin)

        def resume(scope: Scope) -> Observable[Event]:
            events = build(scope)

            def start(observer: ObserverBase[Event], scheduler: SchedulerBase | None = None) -> DisposableBase:
                for event in journal.open(scope):
                    observer.on_next(event)
                return connect(events, observer, scheduler)

            return RunPart(start)

        return self._like(self._selection, origin=resume, enter=journal.resume)

    def with_log(self, flush: Callable[[asyncio.AbstractEventLoop], Awaitable[None]]) -> EventStream[T]:
        """Return this run with ``flush``, a function that waits for the run's log.

        ``flush(loop)`` waits until the log has all events that the run has emitted on ``loop``. The run calls ``flush``
        before actions that must not be repeated.
        """
        before = self._enter

        def enter(scope: Scope) -> Scope:
            entered = scope if before is None else before(scope)
            return replace(entered, run=replace(entered.run, flush=partial(flush, entered.run.loop)))

        return self._like(self._selection, enter=enter)

    def part_of(self, origin: Origin) -> EventStream[T]:
        """Return this run as a part of a run in another process.

        The part has the labels of ``origin``, and its spans are inside the span of ``origin``. The part has its own id,
        which begins with the id of the other run. So the other run can distinguish the part's spans from its own spans.
        """

        def enter(scope: Scope) -> Scope:
            run = replace(scope.run, id=f"{origin.run_id}.{scope.run.id}")
            return replace(scope, run=run, origin=replace(origin, run_id=run.id, parent_run_id=origin.run_id))

        return self._like(self._selection, enter=enter)

    def with_events(self) -> EventStream[T | Accompanying]:
        """Return this stream with the run's events between its items, for code that needs unselected events too.

        Each event is wrapped in :class:`Accompanying`. StreamChunks are not added.
        """
        return self.reselect(_with_events)

    def within(self, leaf: Emitter) -> Observable[T]:
        """Return this run as a part of the run of ``leaf``. The run's code gets a copy of the current context."""
        return self.as_part()._build_for(leaf, is_users=False)(replace(leaf.scope, context=copy_context()))

    def as_part(self) -> EventStream[T]:
        """Return this stream for use inside another run.

        The returned stream does not number its events, because the surrounding run numbers them.
        """
        part = self._like(self._selection)
        part._is_part = True
        return part

    def build_at(self, border: Border) -> Observable[T]:
        """Return this run as a part of the run of ``border``. Operators use this to add one run to another."""
        leaf, origin = current_emitter(), cast(Build[Event], self._origin)
        return self._apply_operators(for_code_of(leaf, border.guard(origin), border.scope))

    if not TYPE_CHECKING:  # type checkers use RxPY's pipe(), which has a type for each operator's result

        def pipe(self, *operators: Callable[[Any], Any]) -> Any:
            return _keep_run(super().pipe(*operators))

    def run(self, scheduler: SchedulerBase | None = None) -> T:
        """Wait for the end in this thread, and return the last item. Ctrl-C stops the run.

        Raises:
            SequenceContainsNoElementsError: there was no item.
        """
        return _wait_for_last(self, scheduler)

    def read_by(
        self,
        reader: ObserverBase[T],
        leaf: Emitter | None,
        *,
        blocking: bool,
        hold: Callable[[RunHandle], None],
        is_read: bool = True,
        enter: Callable[[Border], object] = lambda border: None,
    ) -> None:
        """Start a run for ``reader``, which observes the run.

        ``enter`` is called with the border of the run. :func:`rxflow._streaming.launch.start` describes the other
        arguments.
        """
        build = self._build_for(leaf, is_users=False, enter=enter)
        start(build, reader, leaf=leaf, blocking=blocking, is_read=is_read, hold=hold)

    def _on_subscribe(self, observer: ObserverBase[T], scheduler: SchedulerBase | None = None) -> DisposableBase:
        if self._source is not None:
            return self._apply_operators(self._source).subscribe(observer, scheduler=scheduler)
        leaf = current_emitter()
        # RxPY's run() subscribes with a NewThreadScheduler, and then blocks until the end. RxPY's operators pass the
        # scheduler on to this stream.
        is_awaited = isinstance(scheduler, NewThreadScheduler)
        build = self._build_for(leaf, is_users=True)
        return start(build, observer, leaf=leaf, blocking=is_awaited, scheduler=scheduler)

    def _build_for(
        self, leaf: Emitter | None, *, is_users: bool, enter: Callable[[Border], object] = lambda border: None
    ) -> Build[T]:
        """Return a function that builds the Observable of the run: the events, then the operators, then the selection.

        ``leaf`` is the emitter of the code that starts the run; None if that code does not belong to a run.
        ``is_users`` is True if the observer is users' code.
        """
        origin = cast(Build[Event], self._origin)
        hears_users = is_users or bool(self._operators) or not self.shows_all

        def build(scope: Scope) -> Observable[T]:
            if self._enter is not None:
                scope = self._enter(scope)
            if self._is_part:
                part = for_code_of(leaf, _defer(origin, scope), scope) if hears_users else origin(scope)
                return self._apply_operators(part)
            border = Border(scope if leaf is None else scope.of_private_run())
            enter(border)
            events = border.guard(origin)
            shown = self._apply_operators(for_code_of(leaf, events, scope) if hears_users else events, border)
            return border.enter(shown) if self._operators or not self.shows_all else shown

        return build

    def _like(
        self,
        selection: Selection[U],
        *,
        operators: Sequence[OnEvents] | None = None,
        origin: Build[Event] | None = None,
        enter: Callable[[Scope], Scope] | None = None,
    ) -> EventStream[U]:
        same: EventStream[U] = EventStream(
            self._origin if origin is None else origin,
            selection,
            self._operators if operators is None else operators,
        )
        same._is_part = self._is_part
        same._enter = self._enter if enter is None else enter
        return same

    def _apply_operators(self, events: Observable[Event], border: Border | None = None) -> Observable[T]:
        for operator in self._operators:
            events = operator(events)
            if border is not None:
                events = close_before_end(events, border)
        return self._selection(events)


class _Pipeline(Observable[T], Generic[T]):
    """The result of RxPY's operators on a run. Ctrl-C in :meth:`run` stops the run, unlike in RxPY's own Observables.

    RxPY's operators may call ``subscribe`` in a thread that cannot set a signal handler. So the thread that waits in
    :meth:`run` disposes the run. Methods such as ``map`` call :meth:`pipe`, so their results have this class.
    """

    def __init__(self, source: Observable[T]) -> None:
        super().__init__()
        self._source = source

    if not TYPE_CHECKING:

        def subscribe(self, *args: Any, **kwargs: Any) -> DisposableBase:
            # Do not call super().subscribe(), because another layer would cost time for each item.
            return self._source.subscribe(*args, **kwargs)

        def pipe(self, *operators: Callable[[Any], Any]) -> Any:
            return _keep_run(super().pipe(*operators))

    def run(self, scheduler: SchedulerBase | None = None) -> T:
        """Do the same as :meth:`EventStream.run`."""
        return _wait_for_last(self, scheduler)


def _keep_run(made: object) -> object:
    # Leave subclasses of Observable unchanged, because they have methods of their own. For example, publish() returns
    # a ConnectableObservable.
    return _Pipeline(cast("Observable[Any]", made)) if type(made) is Observable else made


def _wait_for_last(source: Observable[T], scheduler: SchedulerBase | None) -> T:
    feed = _LastFeed(source, scheduler)
    feed.pull_to_the_end()
    return feed.result


def _defer(build: Build[Event], scope: Scope) -> Observable[Event]:
    """Return the events of a run. Each subscription builds the run again."""

    def subscribe(observer: ObserverBase[Event], scheduler: SchedulerBase | None = None) -> DisposableBase:
        return connect(build(scope), observer, scheduler)

    return RunPart(subscribe)


@dataclass(frozen=True, slots=True)
class Accompanying:
    """An event that :meth:`EventStream.with_events` has added to the items of a selection."""

    event: Event


def everything(events: Observable[T]) -> Observable[T]:
    """Select all events."""
    return events


def chunks(events: Observable[Event]) -> Observable[StreamChunk]:
    """Select the StreamChunks from ``events``.

    The result ends when the run ends. ::

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
    """Return a selection that emits the items of ``shown``, and other items between them.

    ``route(emit, show)`` returns a function that is called with each event. This function calls ``show`` to pass an
    event to ``shown``, and ``emit`` to emit an item directly, without ``shown``. ::

        events    S--a--b--F|
        shown     ---A--B---|
        result    S--A--B--F|    (route calls emit with S and F, and show with a and b)
    """

    def selection(events: Observable[E]) -> Observable[Any]:
        def subscribe(observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
            seen: Subject[E] = Subject()
            selected = shown(seen).subscribe(observer, scheduler=scheduler)
            on_next = route(observer.on_next, seen.on_next)
            running = events.subscribe(on_next, seen.on_error, seen.on_completed, scheduler=scheduler)
            return Owned(running, selected)

        return Observable(subscribe)

    return selection


def _with_events(shown: Selection[T]) -> Selection[T | Accompanying]:
    def route(emit: Callable[[T | Accompanying], None], show: Callable[[Event], None]) -> Callable[[Event], None]:
        def on_next(event: Event) -> None:
            if not isinstance(event, StreamChunk):
                emit(Accompanying(event))
            show(event)

        return on_next

    return past(shown, route)


class SourceFeed(SubscribedFeed[Item, T, Observable[T]], Generic[Item, T]):
    """Subscribes to an Observable. If the Observable is a run, ``launch.start()`` chooses the loop for the run.

    If it is not a run, the feed subscribes in the thread of the reader that pulls first.
    """

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
        # Without this scheduler, RxPY's operators would run their timers in other threads, with the wall clock.
        scheduler = LoopScheduler(loop) if loop is not None else None
        handle.hold(source.subscribe(self, scheduler=scheduler))


class _LastFeed(SubscribedFeed[T, T, Observable[T]], Generic[T]):
    """Keeps the last item, and logs no items. So the waiting thread is woken only at the end."""

    def __init__(self, source: Observable[T], scheduler: SchedulerBase | None) -> None:
        super().__init__(Log(), source)
        self._last: list[T] = []
        self._scheduler = scheduler

    def _subscribe(self, source: Observable[T], leaf: Emitter | None, *, blocking: bool) -> None:
        if isinstance(source, EventStream) and source.is_run:
            source.read_by(self, leaf, blocking=blocking, hold=self._hold)
            return
        handle = RunHandle()
        self._hold(handle)
        # RxPY's run() also uses a NewThreadScheduler. From this scheduler, EventStream._on_subscribe() knows that this
        # thread waits.
        handle.hold(source.subscribe(self, scheduler=self._scheduler or NewThreadScheduler()))

    @property
    def result(self) -> T:
        """The last item.

        Raises:
            CancelledError: the run that the calling code belongs to was cancelled.
            SequenceContainsNoElementsError: there was no item.
        """
        self._log.raise_error()
        if self._log.is_cancelled:
            raise asyncio.CancelledError("the rxflow run that this code belongs to was cancelled")
        if not self._last:
            raise SequenceContainsNoElementsError("the stream completed without an item, so there is no result")
        return self._last[0]

    def on_next(self, value: T) -> None:
        self._last = [value]
