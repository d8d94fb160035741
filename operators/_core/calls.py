"""The open LLM calls and spans of a stream: what ends them, and in which order waiting items may be emitted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from pydantic import ValidationError
from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow._streaming import Holder
from rxflow.operators._core.in_run import get_namespace, get_span_id, get_speaker, is_content, select
from rxflow.types import (
    Cancelled,
    Event,
    Failed,
    Finished,
    FlowPaused,
    Happened,
    InputReceived,
    InputRequested,
    LLMStarted,
    MethodCancelled,
    MethodFailed,
    MethodFinished,
    ReasoningChunk,
    Retracted,
    Started,
    StreamChunk,
)

U = TypeVar("U")
U_co = TypeVar("U_co", covariant=True)


class OpenCall:
    """An LLM call that has not ended. Operators define subclasses for their data about the call.

    ``item`` is one of the call's items. ``key`` identifies this object in a :class:`CallTracker`. The default key is
    the id of the call's span. If an operator needs several objects for one call, each object must have another key.
    """

    __slots__ = ("item", "key", "span_id", "speaker")

    def __init__(self, item: object, key: Hashable | None = None) -> None:
        self.item = item
        self.span_id = get_span_id(item)
        self.key: Hashable = self.span_id if key is None else key
        self.speaker: tuple[Hashable, ...] = get_speaker(item) or (self.span_id,)


C = TypeVar("C", bound=OpenCall)


class CallTracker(Generic[C]):
    """The open calls of one subscription.

    A call ends in one of these cases:

    - The ``Finished``, ``Failed`` or ``Cancelled`` event of the call arrives.
    - The method around the call ends. If the method cancelled the call, perhaps no other event reports this.
    - The output of the call is retracted.
    - The same agent begins its next call in the same task, and neither call was announced by an ``LLMStarted`` event.
      An announced call does not need this case, because an event reports its end.
    - The next voice of the call begins, if the voices of the call are tracked separately.
    """

    def __init__(self) -> None:
        self._calls: dict[Hashable, C] = {}
        self._announced: set[str] = set()
        self.get: Callable[[Hashable], C | None] = self._calls.get

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[C]:
        """Iterate over a copy of the calls, because calls may end during the iteration."""
        return iter(list(self._calls.values()))

    def add(self, call: C) -> C:
        """Add ``call`` to the open calls."""
        self._calls[call.key] = call
        return call

    def announce(self, event: LLMStarted) -> None:
        """Record that ``event`` announced a call. The agent's next call then does not end this call."""
        self._announced.add(event.origin.span_id)

    def remove(self, call: C) -> bool:
        """Remove ``call`` from the open calls. Return False if ``call`` is not open."""
        if self._calls.get(call.key) is not call:
            return False
        del self._calls[call.key]
        return True

    def clear(self) -> None:
        """Remove all calls."""
        self._calls.clear()

    def find_ended(self, event: object) -> list[C]:
        """Return the calls that ``event`` ends."""
        if isinstance(event, Retracted):
            return [call for call in self if is_retracted(call.item, event)]
        if isinstance(event, MethodFinished | MethodFailed | MethodCancelled):
            around = event.origin.namespace
            return [call for call in self if get_namespace(call.item)[: len(around)] == around]
        return self.find_in_span(event) if isinstance(event, Finished | Failed | Cancelled) else []

    def find_in_span(self, item: object) -> list[C]:
        """Return the open calls that have the same span as ``item``."""
        span_id = get_span_id(item)
        return [call for call in self if call.span_id == span_id]

    def find_superseded(self, new: C) -> list[C]:
        """Return the calls that end because ``new`` begins: the last two cases of :class:`CallTracker`."""
        speaker = None if new.span_id in self._announced else new.speaker
        ended = {call.span_id for call in self if call.speaker == speaker and call.span_id not in self._announced} | {
            new.span_id
        }
        return [call for call in self if call.span_id in ended]


class QuestionTracker:
    """The open questions to people in one subscription. Time-outs do not count the time that a person needs."""

    def __init__(self) -> None:
        self._open: CallTracker[OpenCall] = CallTracker()

    def __len__(self) -> int:
        return len(self._open)

    def note(self, event: object) -> None:
        """Update the open questions. ``event`` may ask or answer a question, or end the span of an open question."""
        if isinstance(event, InputRequested):
            self._open.add(OpenCall(event, event.request_id))
        elif isinstance(event, InputReceived):
            asked = self._open.get(event.request_id)
            if asked is not None:
                self._open.remove(asked)
        elif self._open and not isinstance(event, Retracted):
            for asked in self._open.find_ended(event):
                self._open.remove(asked)


def is_retracted(item: object, retracted: Retracted) -> bool:
    """Return whether ``retracted`` makes ``item`` void. An item without labels (a string) always counts as void."""
    return not isinstance(item, StreamChunk | Happened) or retracted.covers(item)


class Reader(Protocol[U_co]):
    """Creates values from the items of one call."""

    def feed(self, item: object) -> Sequence[U_co]:
        """Take the next item. Return the values that are complete now."""
        ...

    def finish(self) -> Sequence[U_co] | None:
        """Return the last values of an ended call; None if the call has no answer.

        Raises:
            ValidationError: the answer does not fit the pydantic model.
        """
        ...


def read_calls(make: Callable[[], Reader[U]]) -> Callable[[Observable[Any]], Observable[U]]:
    """Create an operator that reads each call with a reader of its own, and emits the readers' values.

    :class:`CallTracker` defines what ends a call. If a call fails, is cancelled or is retracted, its reader is dropped,
    and emits nothing more.

    If ``finish()`` raises a ValidationError, the error is kept, because the same agent may be asked again and answer
    better. The agent's next answer replaces or drops the error. If an error is left when the source completes, the
    stream ends with this error. Any other exception of a reader ends the stream at once, and disposes the source. ::

        source         --a--b--a--{a finished}--b|
        read_calls     -----------A--------------B|
    """

    def selection(source: Observable[Any]) -> Observable[U]:
        def subscribe(observer: ObserverBase[U], scheduler: SchedulerBase | None = None) -> DisposableBase:
            reading = _Reading(make, observer)
            reading.subscription.hold(
                source.subscribe(reading.on_next, observer.on_error, reading.on_completed, scheduler=scheduler)
            )
            return reading.subscription

        return Observable(subscribe)

    return select(selection)


class _ReadCall(OpenCall):
    __slots__ = ("feed", "finish")

    def __init__(self, reader: Reader[Any], item: object) -> None:
        super().__init__(item)
        self.feed = reader.feed
        self.finish = reader.finish


class _Reading:
    """One subscription of ``read_calls``."""

    def __init__(self, make: Callable[[], Reader[Any]], observer: ObserverBase[Any]) -> None:
        self.subscription = Holder()
        self._make = make
        self._observer = observer
        self._emit = observer.on_next
        self._calls: CallTracker[_ReadCall] = CallTracker()
        self._misfits: list[tuple[_ReadCall, ValidationError]] = []

    def on_next(self, item: object) -> None:
        call = self._calls.get(get_span_id(item))
        if isinstance(item, Happened):
            if call is None or not isinstance(item, ReasoningChunk):
                self._on_event(item)
                return
        elif call is None:
            call = self._begin(item)
            if call is None:
                return
        try:
            values = call.feed(item)
        except Exception as error:  # noqa: BLE001 - the error is the stream's terminal
            self._fail(error)
            return
        for value in values:
            self._emit(value)

    def _on_event(self, event: Happened) -> None:
        if isinstance(event, LLMStarted):
            self._calls.announce(event)
        elif isinstance(event, Finished):
            for call in self._calls.find_ended(event):
                if not self._finish(call):
                    return
        elif isinstance(event, Failed | Cancelled | Retracted):
            for call in self._calls.find_ended(event):
                self._calls.remove(call)
            if isinstance(event, Retracted):
                self._misfits = [misfit for misfit in self._misfits if not is_retracted(misfit[0].item, event)]

    def on_completed(self) -> None:
        if not all(self._finish(call) for call in self._calls):
            return
        if self._misfits:
            self._observer.on_error(self._misfits[0][1])
        else:
            self._observer.on_completed()

    def _begin(self, item: object) -> _ReadCall | None:
        """Open the call of ``item``. Return None if another call's reader failed and so ended the stream."""
        call = _ReadCall(self._make(), item)
        if not all(self._finish(each) for each in self._calls.find_superseded(call)):
            return None
        return self._calls.add(call)

    def _finish(self, call: _ReadCall) -> bool:
        """Emit the last values of a call. Return False if the reader failed and so ended the stream."""
        if not self._calls.remove(call):
            return True
        try:
            values = call.finish()
        except ValidationError as error:
            self._drop_misfit(call)
            self._misfits.append((call, error))
            return True
        except Exception as error:  # noqa: BLE001 - the error is the stream's terminal
            self._fail(error)
            return False
        if values is not None:
            self._drop_misfit(call)
            for value in values:
                self._emit(value)
        return True

    def _drop_misfit(self, answer: _ReadCall) -> None:
        """Drop the error of the agent's last answer, because ``answer`` comes instead."""
        self._misfits = [misfit for misfit in self._misfits if misfit[0].speaker != answer.speaker]

    def _fail(self, error: Exception) -> None:
        self.subscription.dispose()
        self._calls.clear()
        self._observer.on_error(error)


@dataclass(slots=True)
class Section:
    """A part of the waiting items of :class:`CallQueues`.

    ``queues`` holds a queue for each concurrent call. ``events`` are emitted when no queue is left. ``sizes`` is for
    operators that count the waiting text in each queue.
    """

    queues: dict[str, deque[object]] = field(default_factory=dict[str, deque[object]])
    sizes: dict[str, int] = field(default_factory=dict[str, int])
    events: deque[object] = field(default_factory=deque[object])


class CallQueues:
    """Waiting items, in the order in which they may be emitted.

    The output of a call and the events about the call keep their order. An event outside of the calls, such as the end
    of a task, waits for all earlier items. All later items wait for that event. ::

        added       a1  b1  a2  E  a3        (two calls, and an event outside of both)
        sections    [a: a1 a2, b: b1] E  [a: a3]
    """

    def __init__(self) -> None:
        self._sections: deque[Section] = deque()

    def __bool__(self) -> bool:
        return bool(self._sections)

    def __iter__(self) -> Iterator[Section]:
        return iter(self._sections)

    @property
    def first(self) -> Section:
        """The section whose items may be emitted now."""
        return self._sections[0]

    def add(self, item: object) -> Section:
        """Queue an item behind all items that it must not overtake. Return the section of the item."""
        span_id = get_span_id(item)
        last = self._sections[-1] if self._sections else None
        if not is_content(item) and last is not None and (last.events or span_id not in last.queues):
            last.events.append(item)
            return last
        if last is None or last.events:
            last = Section()
            self._sections.append(last)
        last.queues.setdefault(span_id, deque()).append(item)
        return last

    def end_queue(self, span_id: str) -> None:
        """Remove the empty queue of the call ``span_id`` from the first section. After :meth:`clear`, do nothing."""
        if self._sections:
            self.first.queues.pop(span_id, None)

    def end_section(self) -> Iterator[object]:
        """Yield the events of the first section, which has no queues left. Then remove the section.

        During the emission, the observer may make the source emit more items. These items are queued behind the events.
        If one of these items opens a queue in this section, the section is not removed. After :meth:`clear`, there is
        nothing to yield.
        """
        if not self._sections:
            return
        section = self.first
        while section.events:
            yield section.events.popleft()
        if not section.queues and self._sections and self.first is section:
            self._sections.popleft()

    def clear(self) -> None:
        """Drop all waiting items."""
        self._sections.clear()


class OpenSpans:
    """Tracks the open spans of a stream. Code that ends the stream early must close these spans.

    A span is open from its ``…Started`` event to the event that ends it.
    """

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[str, Started] = {}

    def follow(self, item: object) -> None:
        """Note the next item, which may begin or end a span."""
        if isinstance(item, Started):
            self._open[item.origin.span_id] = item
        elif isinstance(item, Finished | Failed | Cancelled | FlowPaused):
            self._open.pop(item.origin.span_id, None)

    def close(self, describe: Callable[[Started], Event]) -> list[Event]:
        """Return the events that close all open spans, innermost first. ``describe`` creates the event for one span."""
        closing = [describe(started) for started in reversed(self._open.values())]
        self._open.clear()
        return closing
