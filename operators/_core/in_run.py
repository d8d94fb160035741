"""Functions with which operators read items, work on runs and on other Observables, and join further streams."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import fields, replace
from reprlib import Repr
from typing import Any, Protocol, TypeAlias, TypeVar, overload

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow._streaming import Border, EventStream, Holder, everything, past
from rxflow.types import (
    Happened,
    LLMRetrying,
    LLMStarted,
    Origin,
    ReasoningChunk,
    Retracted,
    Started,
    StreamChunk,
    StreamChunkType,
)

NO_ORIGIN = Origin()
_TEXT = StreamChunkType.TEXT
_LABELS = [field.name for field in fields(Origin) if field.name in StreamChunk.model_fields]
_short = Repr()
_short.maxstring = _short.maxother = 60


def get_text(item: object) -> str | None:
    """Return the text of an item. For an item without text (for example, a piece of a tool call), return None."""
    if isinstance(item, StreamChunk):
        return item.content if item.chunk_type is _TEXT else None
    if isinstance(item, str):
        return item
    return item.content if isinstance(item, ReasoningChunk) else None


def replace_text(item: Any, text: str) -> Any:
    """Return a copy of ``item`` with another text."""
    if isinstance(item, StreamChunk):
        return item.with_content(text)
    return text if isinstance(item, str) else replace(item, content=text)


def get_span_id(item: object) -> str:
    """Return the id of the item's span; for a chunk without a span, the id of its call. Return "" if there is neither.

    The id distinguishes concurrent calls.
    """
    if isinstance(item, StreamChunk):
        return item.span_id or item.llm_call_id
    return item.origin.span_id if isinstance(item, Happened) else ""


def get_speaker(item: object) -> tuple[Hashable, ...] | None:
    """Return a key for the work of one agent on one task. Return None if the item is not a chunk of a task.

    An agent makes its calls one after the other. So a new call with the same key shows that the previous one has ended.
    """
    if isinstance(item, StreamChunk) and item.task_id:
        return item.task_id, item.agent_id, item.namespace
    return None


def is_content(item: object) -> bool:
    """Return whether an item is a chunk, reasoning, or an object that is not an event."""
    return isinstance(item, ReasoningChunk) or not isinstance(item, Happened)


def get_origin(item: object) -> Origin:
    """Return the origin of an event or chunk; an empty origin for other items."""
    if isinstance(item, StreamChunk):
        return Origin(**{name: getattr(item, name) for name in _LABELS})
    return item.origin if isinstance(item, Happened) else NO_ORIGIN


def get_namespace(item: object) -> tuple[str, ...]:
    """Return the names of the flows, methods, crews and tasks around an item, outermost first."""
    return item.namespace if isinstance(item, StreamChunk) else get_origin(item).namespace


def describe(item: object) -> str:
    """Describe an item for an error message.

    For an event, the description begins with the name of its class. For a chunk or any other item, it begins with the
    item's text, shortened. At most two labels follow, the innermost ones. ::

        LLMStarted of agent 'Writer', task 'Draft'
    """
    kind = type(item).__name__ if isinstance(item, Happened) else _short.repr(str(item))
    origin = get_origin(item)
    labels = {
        "agent": origin.agent_role,
        "task": origin.task_name,
        "crew": origin.crew_name,
        "method": origin.flow_method,
        "flow": origin.flow_name,
    }
    named = [f"{level} {name!r}" for level, name in labels.items() if name][:2]
    return f"{kind} of {', '.join(named)}" if named else kind


T = TypeVar("T")
U = TypeVar("U")

U_co = TypeVar("U_co", covariant=True)


class Adding(Protocol[U_co]):
    """The type of an operator that adds items of another type.

    For pyright, ``Callable[[Observable[T]], Observable[T | U]]`` would be enough. But mypy infers Never from that type
    if another operator follows. So there is an overload for chunks. With mypy, two such operators still need two calls
    of ``pipe``.
    """

    @overload
    def __call__(self, source: Observable[StreamChunk], /) -> Observable[StreamChunk | U_co]: ...

    @overload
    def __call__(self, source: Observable[T], /) -> Observable[T | U_co]: ...


Selection: TypeAlias = Callable[[Observable[Any]], Observable[T]]
"""Selects, from a run's events, the items that a reader sees."""


def through(operator: Callable[[Observable[Any]], Observable[Any]]) -> Callable[[Observable[T]], Observable[T]]:
    """Create an operator that applies ``operator`` to all events of a run, before the selection.

    ``operator`` must pass on the events that it does not handle. If the source is not an EventStream, ``operator`` is
    applied to the source itself.
    """

    def apply(source: Observable[T]) -> Observable[T]:
        return source.through(operator) if isinstance(source, EventStream) else operator(source)

    return apply


def reselect(change: Callable[[Selection[Any]], Selection[U]]) -> Callable[[Observable[Any]], Observable[U]]:
    """Create an operator that replaces the selection of a stream.

    ``change`` gets the present selection, and returns the new one. The new selection receives all events of the run. So
    it can apply the present selection, and can also use the other events.
    """

    def apply(source: Observable[Any]) -> Observable[U]:
        return source.reselect(change) if isinstance(source, EventStream) else EventStream(source, change(everything))

    return apply


def select(selection: Selection[U]) -> Callable[[Observable[Any]], Observable[U]]:
    """Create an operator that applies ``selection`` to all events of a run, whatever was selected before."""
    return reselect(lambda _: selection)


def also(kind: type[U]) -> Callable[[Observable[T]], Observable[T | U]]:
    """Create an operator that adds the events of the class ``kind`` to the selection of a run.

    Use this with an operator that emits new events of the class. Without this, the selection would drop the new events.
    """
    widened: Callable[[Observable[T]], Observable[T | U]] = reselect(lambda shown: _widen(shown, kind))
    return lambda source: widened(source) if isinstance(source, EventStream) else source


def only(wanted: Callable[[Any], bool]) -> Callable[[Observable[Any]], Observable[Any]]:
    """Create an operator that keeps the items for which ``wanted`` returns True.

    ``wanted`` must not raise. ::

        source    --a--b--c--|
        result    -----b-----|
    """

    def operator(source: Observable[Any]) -> Observable[Any]:
        def subscribe(observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
            emit = observer.on_next

            def on_next(item: Any) -> None:
                if wanted(item):
                    emit(item)

            return source.subscribe(on_next, observer.on_error, observer.on_completed, scheduler=scheduler)

        return Observable(subscribe)

    return operator


def _widen(shown: Selection[T], kind: type[U]) -> Selection[T | U]:
    def route(emit: Callable[[Any], None], show: Callable[[Any], None]) -> Callable[[Any], None]:
        return lambda event: emit(event) if isinstance(event, kind) else show(event)

    return past(shown, route)


Join: TypeAlias = Callable[[Observable[Any], Border | None], Observable[Any]]


class Attempts:
    """Sets the ``attempt`` of items if an operator tries a stream several times.

    The items of the first try keep their ``attempt``. This number may be above 0, because a task counts its own
    attempts. The numbers of each later try begin above the highest number of all output so far. So the outputs of two
    tries never have the same number. ``requests`` counts the requests to models. One call may need several requests,
    because the LLM repeats a request that fails.
    """

    def __init__(self) -> None:
        self.requests = 0
        self._base = 0
        self._highest = -1
        self._origin: Origin | None = None
        self._span_ids: dict[str, None] = {}  # the ids of the spans with output in this try, in order
        self._call_ids: dict[str, None] = {}
        self._renumbered: tuple[Origin, Origin] = (NO_ORIGIN, NO_ORIGIN)

    @property
    def has_output(self) -> bool:
        """Whether the present try has emitted output: a chunk, reasoning, or an item that is not an event."""
        return self._highest >= self._base

    def number(self, item: Any) -> Any:
        """Return the next item with its new ``attempt``."""
        if isinstance(item, StreamChunk):
            attempt = self._base + item.attempt
            if attempt > self._highest:
                self._highest = attempt
            self._span_ids[item.span_id] = None
            self._call_ids[item.llm_call_id] = None
            return item.with_attempt(attempt) if self._base else item
        if isinstance(item, Happened):
            return self._number_event(item)
        if self._highest < self._base:
            self._highest = self._base
        self._span_ids[""] = None
        self._call_ids[""] = None
        return item

    def retract(self, error: BaseException) -> Retracted:
        """Create the event that retracts the output of the present try."""
        return Retracted(
            origin=self._origin or NO_ORIGIN,
            attempts=tuple(range(self._base, self._highest + 1)),
            error=error,
            span_ids=() if "" in self._span_ids else tuple(self._span_ids),
            llm_call_ids=() if "" in self._call_ids else tuple(self._call_ids),
        )

    def begin_next(self) -> None:
        """Begin another try."""
        self._base = self._highest + 1
        self._origin = None
        self._span_ids = {}
        self._call_ids = {}

    def _number_event(self, event: Happened) -> Happened:
        if self._origin is None:
            # The first event of a run starts the span around all output of the run. If the first event starts no span,
            # the stream is not a whole run, and has no span around all its output.
            self._origin = event.origin if isinstance(event, Started) else NO_ORIGIN
        if isinstance(event, LLMStarted | LLMRetrying):
            self.requests += 1
        elif isinstance(event, ReasoningChunk):
            self._highest = max(self._highest, self._base + event.origin.attempt)
            self._span_ids[event.origin.span_id] = None
            self._call_ids[event.origin.llm_call_id] = None
        if not self._base:
            return event
        if isinstance(event, Retracted):  # a task has retracted one of its own attempts
            event = replace(event, attempts=tuple(self._base + number for number in event.attempts))
        return replace(event, origin=self._number_origin(event.origin))

    def _number_origin(self, origin: Origin) -> Origin:
        before, after = self._renumbered
        if origin is not before:
            after = replace(origin, attempt=self._base + origin.attempt)
            self._renumbered = (origin, after)
        return after


def create_join(source: Observable[Any]) -> Join:
    """Return a function that prepares another stream to continue or replace ``source``.

    The function takes the other stream, and a border or None. If ``source`` is an EventStream, the function is
    :func:`convert_to_events`. Otherwise the function returns the other stream unchanged.
    """
    return convert_to_events if isinstance(source, EventStream) else _leave_as_it_is


def _leave_as_it_is(other: Observable[Any], border: Border | None) -> Observable[Any]:
    return other


def convert_to_events(other: Observable[Any], border: Border | None) -> Observable[Any]:
    """Return an Observable of the events of ``other``.

    If ``other`` is a run, the result has all its events, whatever was selected from them. So later operators see the
    end of each call in ``other``. If ``border`` is given, ``other`` becomes a part of the run with this border.

    Strings become chunks. An item that is neither an event nor a string ends the stream with a TypeError, because a
    selection of chunks would drop that item silently.
    """
    events = other.reselect(lambda _: everything) if isinstance(other, EventStream) else other
    run = events if isinstance(events, EventStream) and events.is_run else None
    is_joined = border is not None and run is not None
    admit = _leave_item if border is None or is_joined else border.admit

    def subscribe(observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
        running = Holder()

        def on_next(item: object) -> None:
            # An exception of a later operator must not reach the border of the other run. The other run would treat the
            # exception as an error of a user's observer, and would end. This run would then wait forever.
            try:
                observer.on_next(admit(_convert_to_event(item)))
            except Exception as error:  # noqa: BLE001 - the error is the stream's terminal
                running.dispose()
                observer.on_error(error)

        joined = events if border is None or run is None else run.build_at(border)
        running.hold(joined.subscribe(on_next, observer.on_error, observer.on_completed, scheduler=scheduler))
        return running

    return Observable(subscribe)


def _leave_item(item: T) -> T:
    return item


def _convert_to_event(item: object) -> object:
    if isinstance(item, StreamChunk | Happened):
        return item
    if isinstance(item, str):
        return Origin().chunk(item)
    raise TypeError(f"a run can be joined by chunks, events and strings; map this item to one of them first: {item!r}")


def add_context(error: BaseException, earlier: BaseException | None) -> None:
    """Make ``earlier`` the context of ``error``, as if ``error`` had been raised while ``earlier`` was handled.

    Python itself does this only in an ``except`` block. If ``error`` already has a context, ``earlier`` is added at the
    end of the chain. If one of the two errors is already in the chain of the other error, nothing changes.
    """
    if earlier is None or any(each is error for each in _list_contexts(earlier)):
        return
    contexts = _list_contexts(error)
    if all(each is not earlier for each in contexts):
        contexts[-1].__context__ = earlier


def _list_contexts(error: BaseException) -> list[BaseException]:
    """Return ``error``, its ``__context__``, the ``__context__`` of that error, and so on."""
    chain = [error]
    while (context := chain[-1].__context__) is not None and all(context is not each for each in chain):
        chain.append(context)
    return chain
