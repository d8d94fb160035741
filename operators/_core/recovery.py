"""Reactions to an error: another attempt, another stream in the run, or a report if no caller can catch the error."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import SingleAssignmentDisposable

from rxflow._loops import running_loop
from rxflow._streaming import Border, EventStream, everything
from rxflow.operators._core.items import NO_ORIGIN
from rxflow.types import Happened, LLMRetrying, LLMStarted, Origin, ReasoningChunk, Retracted, Started, StreamChunk

T = TypeVar("T")

Join: TypeAlias = Callable[[Observable[Any], Border | None], Observable[Any]]


class Attempts:
    """Numbers the items of successive attempts so that no two attempts share a number.

    The chunks of the first attempt keep their numbers, which may go above 0, because a task counts its own attempts.
    Each later attempt begins above the highest number so far. ``requests`` counts the requests to models; an LLM may
    send several in one call.
    """

    def __init__(self) -> None:
        self.requests = 0
        self._base = 0
        self._highest = -1
        self._origin: Origin | None = None
        self._span_ids: dict[str, None] = {}  # the spans of this attempt that had output, in order
        self._call_ids: dict[str, None] = {}
        self._renumbered: tuple[Origin, Origin] = (NO_ORIGIN, NO_ORIGIN)

    @property
    def has_output(self) -> bool:
        """Whether this attempt has emitted output of a model."""
        return self._highest >= self._base

    def number(self, item: Any) -> Any:
        """Return the next item with the number of its attempt."""
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
        """Create the event that retracts the output of this attempt."""
        return Retracted(
            origin=self._origin or NO_ORIGIN,
            attempts=tuple(range(self._base, self._highest + 1)),
            error=error,
            span_ids=() if "" in self._span_ids else tuple(self._span_ids),
            llm_call_ids=() if "" in self._call_ids else tuple(self._call_ids),
        )

    def begin_next(self) -> None:
        """Begin another attempt."""
        self._base = self._highest + 1
        self._origin = None
        self._span_ids = {}
        self._call_ids = {}

    def _number_event(self, event: Happened) -> Happened:
        if self._origin is None:
            # The first event of a run starts the span around all its output. Items of a bare stream name no such span.
            self._origin = event.origin if isinstance(event, Started) else NO_ORIGIN
        if isinstance(event, LLMStarted | LLMRetrying):
            self.requests += 1
        elif isinstance(event, ReasoningChunk):
            self._highest = max(self._highest, self._base + event.origin.attempt)
            self._span_ids[event.origin.span_id] = None
            self._call_ids[event.origin.llm_call_id] = None
        if not self._base:
            return event
        if isinstance(event, Retracted):  # retracts a part of this attempt
            event = replace(event, attempts=tuple(self._base + number for number in event.attempts))
        return replace(event, origin=self._number_origin(event.origin))

    def _number_origin(self, origin: Origin) -> Origin:
        before, after = self._renumbered
        if origin is not before:
            after = replace(origin, attempt=self._base + origin.attempt)
            self._renumbered = (origin, after)
        return after


def create_join(source: Observable[Any]) -> Join:
    """Return a function that adapts another stream, which continues or replaces ``source``.

    If ``source`` is not a run, the function returns the other stream unchanged.
    """
    return convert_to_events if isinstance(source, EventStream) else _leave_as_it_is


def _leave_as_it_is(other: Observable[Any], border: Border | None) -> Observable[Any]:
    return other


def convert_to_events(other: Observable[Any], border: Border | None) -> Observable[Any]:
    """Turn ``other`` into events: all events of a run, whatever was selected from them; strings become chunks.

    Later operators then see when the calls of ``other`` end. An item of another type ends the stream with a TypeError,
    because a selection of chunks would drop it silently. If ``other`` is a run, it becomes a part of the run that
    ``border`` belongs to.
    """
    events = other.reselect(lambda _: everything) if isinstance(other, EventStream) else other
    run = events if isinstance(events, EventStream) and events.is_run else None
    is_joined = border is not None and run is not None
    admit = _leave_item if border is None or is_joined else border.admit

    def subscribe(observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
        running = SingleAssignmentDisposable()

        def on_next(item: object) -> None:
            # An exception of a later operator must not reach the border of the other run. The other run would take it
            # for an error of a user's observer and end, and this run would wait forever.
            try:
                observer.on_next(admit(_convert_to_event(item)))
            except Exception as error:  # noqa: BLE001 - the error is the stream's terminal
                running.dispose()
                observer.on_error(error)

        joined = events if border is None or run is None else run.build_at(border)
        running.disposable = joined.subscribe(on_next, observer.on_error, observer.on_completed, scheduler=scheduler)
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

    Python itself does so in an ``except`` block only. If one is in the context of the other already, nothing changes.
    """
    if earlier is None or any(each is error for each in _list_contexts(earlier)):
        return
    contexts = _list_contexts(error)
    if all(each is not earlier for each in contexts):
        contexts[-1].__context__ = earlier


def _list_contexts(error: BaseException) -> list[BaseException]:
    """Return the error, then the error that was being handled when it was raised, and so on."""
    chain = [error]
    while (context := chain[-1].__context__) is not None and all(context is not each for each in chain):
        chain.append(context)
    return chain


def report_error(error: BaseException, message: str) -> None:
    """Report an error that no caller can catch, to the loop's exception handler or, without a loop, to the thread's."""
    loop = running_loop()
    if loop is not None:
        loop.call_exception_handler({"message": message, "exception": error})
    else:
        hook = threading.ExceptHookArgs((type(error), error, error.__traceback__, threading.current_thread()))
        threading.excepthook(hook)
