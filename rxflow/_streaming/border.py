"""The border of a run: the place where its events leave the run.

The border numbers events, sets their times, and closes every span that is still open at the end. A stopped leaf cannot
emit any more. So the border emits ``…Cancelled`` for the spans inside the leaf, and then for the leaf's own span.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from copy import copy
from dataclasses import replace
from typing import Any, Generic, TypeVar, cast

from reactivex import Observable, Observer
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow._loops import call_soon, running_loop
from rxflow._streaming.scope import DEFAULT_STOP_REASON, Holder, RunHandle, RunPart, Scope, connect
from rxflow._text import in_words
from rxflow.types import Cancelled, Event, Failed, Finished, Happened, Origin, Started, StreamChunk, events as e

logger = logging.getLogger("rxflow")

T = TypeVar("T")

_CANCELLED: dict[type[Any], type[Cancelled]] = {
    e.FlowStarted: e.FlowCancelled,
    e.MethodStarted: e.MethodCancelled,
    e.CrewStarted: e.CrewCancelled,
    e.TaskStarted: e.TaskCancelled,
    e.AgentStarted: e.AgentCancelled,
    e.LLMStarted: e.LLMCancelled,
}


class Border:
    """Gives each event of one run its number and time. This includes the events that operators add to the run."""

    __slots__ = ("__weakref__", "_own_origin", "_passages", "clock", "count", "holds", "scope")

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.clock = scope.run.clock
        self.count = itertools.count(scope.run.first_seq if scope.is_outermost else 0)
        self.holds = 0
        """The number of races (operator ``race``) that hold events back.

        A race may drop a held event. So an event gets its number only when the race releases it.
        """
        self._passages: list[Passage] = []
        self._own_origin: tuple[Origin, Origin] = (scope.origin, scope.origin)

    def stamp(self, item: T) -> T:
        """Return ``item`` with the next number and with its time; a copy if ``item`` already has a number."""
        if isinstance(item, StreamChunk):
            values: dict[str, Any] = item.__dict__  # pyright: ignore[reportAssignmentType] # a dict; vars() is slower
            if values["seq"] >= 0:
                return cast(T, item.with_seq(next(self.count), self.clock.now()))
            values["seq"] = next(self.count)
            values["at"] = values["at"] or self.clock.now()
        elif isinstance(item, Happened):
            return cast(T, self._stamp_event(item))
        return item

    def _stamp_event(self, event: Happened) -> Happened:
        if event.seq >= 0:
            event = copy(event)
            _set_at(event, self.clock.now())
        elif not event.at:
            _set_at(event, self.clock.now())
        if event.origin.run_id != self.scope.origin.run_id:
            _set_origin(event, self._adopt(event.origin))
        _set_seq(event, next(self.count))
        return event

    def admit(self, item: T) -> T:
        """Return ``item`` with its number and time. While a race of the run is undecided, ``item`` gets no number."""
        if not self.holds:
            return self.stamp(item)
        if isinstance(item, StreamChunk):
            return cast(T, item.with_seq(-1, self.clock.now()))
        if isinstance(item, Happened):
            event: Happened = copy(item) if item.seq >= 0 else item
            _set_seq(event, -1)
            _set_at(event, self.clock.now())
            return cast(T, event)
        return item

    def guard(self, build: Callable[[Scope], Observable[Event]]) -> Observable[Event]:
        """Return the events of the Observable that ``build`` returns, with numbers. At the end, close all open spans.

        The result may be subscribed again after its end.
        """

        def subscribe(observer: ObserverBase[Event], scheduler: SchedulerBase | None = None) -> DisposableBase:
            passage = Passage(self, observer)
            self._passages.append(passage)
            self.scope.run.watchers.append(passage)
            passage.hold(connect(build(self.scope), passage, scheduler))
            return passage

        return RunPart(subscribe)

    def enter(self, source: Observable[T]) -> Observable[T]:
        """Wrap ``source``. When the result is subscribed, the operators inside ``source`` find this border."""

        def subscribe(observer: ObserverBase[T], scheduler: SchedulerBase | None = None) -> DisposableBase:
            with self.activate():
                return source.subscribe(observer, scheduler=scheduler)

        return Observable(subscribe)

    @contextmanager
    def activate(self) -> Generator[None]:
        """Let operators that are subscribed in the ``with`` block find this border."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def close_spans(self, reason: str = DEFAULT_STOP_REASON) -> list[Event]:
        """Return the events that close the open spans, innermost first.

        This is for code that ends a stream before the run ends. Afterwards, the border drops all events of the run.
        """
        passages, self._passages = self._passages, []
        return [event for passage in passages for event in passage.close_spans(reason)]

    def describe_stopped(self, started: Started, reason: str) -> Event:
        """Return the event that closes a stopped span. The event has no number yet."""
        describe = self.scope.run.calls.get(started.origin.span_id)
        if describe is not None:
            return describe(reason)
        if isinstance(started, e.ToolStarted):
            return e.ToolCancelled(
                origin=started.origin, reason=reason, tool_id=started.tool_id, tool_name=started.tool_name
            )
        kind = next((_CANCELLED[base] for base in type(started).__mro__ if base in _CANCELLED), e.Cancelled)
        return cast(Event, kind(origin=started.origin, reason=reason))

    def forget(self, passage: Passage, *, has_open_spans: bool) -> None:
        """Remove an ended passage from the run's watchers.

        If the passage has no open spans, remove it from this border too. Otherwise :meth:`close_spans` still needs it.
        """
        if not has_open_spans:
            _remove(self._passages, passage)
        _remove(self.scope.run.watchers, passage)

    def _adopt(self, origin: Origin) -> Origin:
        """Return a copy of ``origin`` with the ids of this run. The last copy is kept for the next event."""
        before, after = self._own_origin
        if origin is not before:
            own = self.scope.origin
            after = replace(origin, run_id=own.run_id, parent_run_id=own.parent_run_id)
            self._own_origin = (origin, after)
        return after


class Passage(Holder, ObserverBase[Event]):
    """One subscription to the events of a run at its border.

    It emits on the run's loop. :meth:`note_stopped` may be called from any thread that stops a leaf.
    """

    __slots__ = ("_border", "_cancelled", "_children", "_clock", "_count", "_is_over", "_observer", "_open", "_stopped")

    def __init__(self, border: Border, observer: ObserverBase[Event]) -> None:
        super().__init__()
        self._border = border
        self._count = border.count  # saves one look-up per chunk
        self._clock = border.clock
        self._observer = observer
        self._is_over = False
        self._open: dict[str, Started] = {}
        self._children: dict[str, int] = {}  # for each span: how many spans directly inside it are open
        self._cancelled: dict[str, None] = {}  # spans that _close() closed; a dict, because a set takes 150 bytes more
        self._stopped: list[tuple[str, str]] = []  # stopped spans, each with the reason, until flush() takes them

    def on_next(self, value: Event) -> None:
        if type(value) is StreamChunk:  # by far the most frequent item
            values: dict[str, Any] = value.__dict__  # pyright: ignore[reportAssignmentType] # a dict; vars() is slower
            if values["seq"] < 0 and not self._border.holds:
                values["seq"] = next(self._count)
                values["at"] = self._clock.read_at or self._clock.time()
                self._observer.on_next(value)
                return
        if isinstance(value, StreamChunk):
            self._emit(value)
            return
        span_id = value.origin.span_id
        is_ending = isinstance(value, Finished | Failed | Cancelled | e.FlowPaused)
        if self._stopped:
            self.flush()
        if is_ending and span_id in self._children:
            self._cancel_inside(span_id, DEFAULT_STOP_REASON, {})
        if self._is_over or (is_ending and span_id in self._cancelled):
            return  # do not call _forget_span(): code that closes the span later needs the call's entry in run.calls
        if isinstance(value, Started):
            self._open[span_id] = value
            around = value.origin.parent_span_id
            self._children[around] = self._children.get(around, 0) + 1
        elif is_ending:
            self._forget_span(span_id)
        self._emit(value)

    def on_error(self, error: Exception) -> None:
        self._end().on_error(error)
        super().dispose()

    def on_completed(self) -> None:
        self._end().on_completed()
        super().dispose()

    def dispose(self) -> None:
        self._retire()  # this comes first: it prevents …Cancelled events of the leaves that super().dispose() stops
        super().dispose()

    def note_stopped(self, span_id: str, reason: str) -> None:
        """Note that a leaf was disposed while its span was open. May be called from any thread."""
        if self._is_over or span_id not in self._open:
            return
        self._stopped.append((span_id, reason))
        scope = self._border.scope
        call_soon(scope.run.loop, self.flush, context=scope.context.copy())

    def flush(self) -> None:
        """Emit ``…Cancelled`` for the spans that :meth:`note_stopped` has noted, and for the spans inside them."""
        if self._is_over:
            return
        noted = self._take_notes()
        for span_id, reason in noted.items():
            if span_id in self._open:  # not closed together with the span around it
                self._cancel_inside(span_id, reason, noted)
                self._cancel(span_id, reason)

    def close_spans(self, reason: str) -> list[Event]:
        """End this passage. Return the events that close the open spans, innermost first. The caller emits them."""
        reasons = self._take_notes()
        for span_id, started in self._open.items():  # parents come before their children, which get the same reason
            reasons.setdefault(span_id, reasons.get(started.origin.parent_span_id, reason))
        # The first event of a span has no number if the operator race() dropped it. Nobody has seen such a span.
        shown = [span_id for span_id, started in self._open.items() if started.seq >= 0]
        closing = [self._border.stamp(self._close(span_id, reasons[span_id])) for span_id in reversed(shown)]
        self._open.clear()
        self._retire()
        return closing

    def _end(self) -> ObserverBase[Event]:
        """Close the open spans. Return the observer that gets the terminal; if the passage was over before, a dummy."""
        if self._is_over:
            return _NOBODY
        if self._stopped:
            self.flush()
        for span_id in reversed(tuple(self._open)):
            self._cancel(span_id, DEFAULT_STOP_REASON)
        observer = self._observer
        self._retire()
        return observer

    def _take_notes(self) -> dict[str, str]:
        taken = self._stopped[:]
        del self._stopped[: len(taken)]  # other threads only append; what they append meanwhile is taken later
        return dict(taken) | dict(reversed(taken))  # in the order of the notes; the first reason of a span counts

    def _retire(self) -> None:
        self._is_over = True
        self._border.forget(self, has_open_spans=bool(self._open))
        self._observer = _NOBODY

    def _emit(self, event: Event) -> None:
        self._observer.on_next(self._border.admit(event))

    def _cancel_inside(self, span_id: str, reason: str, noted: Mapping[str, str]) -> None:
        inside = {span_id}
        for each, started in self._open.items():  # parents come before their children
            if started.origin.parent_span_id in inside:
                inside.add(each)
        inside.discard(span_id)
        for each in reversed([each for each in self._open if each in inside]):
            self._cancel(each, noted.get(each, reason))

    def _cancel(self, span_id: str, reason: str) -> None:
        if not self._is_over:  # the observer may have ended the stream at the …Cancelled event of another span
            self._emit(self._close(span_id, reason))

    def _close(self, span_id: str, reason: str) -> Event:
        closing = self._border.describe_stopped(self._open[span_id], reason)
        self._forget_span(span_id)
        self._cancelled[span_id] = None
        return closing

    def _forget_span(self, span_id: str) -> None:
        started = self._open.pop(span_id, None)
        if started is None:
            return
        self._border.scope.run.calls.pop(span_id, None)
        self._children.pop(span_id, None)
        around = started.origin.parent_span_id
        self._children[around] -= 1
        if not self._children[around]:
            del self._children[around]


def _remove(kept: list[Any], passage: Passage) -> None:
    with suppress(ValueError):  # the passage was already removed
        kept.remove(passage)


def current_border() -> Border | None:
    """Return the border of the run whose operators are being subscribed; None outside of runs."""
    return _current.get()


def find_stamp() -> Callable[[T], T]:
    """Return the function with which an operator numbers the items that it adds to a run.

    Outside of runs, the function returns each item unchanged.
    """
    border = _current.get()
    return (lambda item: item) if border is None else border.stamp


def close_before_end(source: Observable[T], border: Border) -> Observable[T]:
    """Wrap ``source``, which has events of a run but may end before the run does.

    If spans of the run are still open when ``source`` ends, the result first closes them, and then ends. ::

        events    S--a--b--c--F|
        source    S--a--b|             (take(3))
        result    S--a--bX|            (X: Cancelled)
    """

    def subscribe(observer: ObserverBase[T], scheduler: SchedulerBase | None = None) -> DisposableBase:
        def close(reason: str) -> None:
            for event in border.close_spans(reason):
                observer.on_next(cast(T, event))

        def on_error(error: Exception) -> None:
            close(in_words(error) or type(error).__name__)
            observer.on_error(error)

        def on_completed() -> None:
            close(DEFAULT_STOP_REASON)
            observer.on_completed()

        return source.subscribe(observer.on_next, on_error, on_completed, scheduler=scheduler)

    return Observable(subscribe)


class Guard(ObserverBase[T], Generic[T]):
    """Protects a run from errors in users' observers and operators.

    If an observer or operator raises, the run ends with that error. With RxPY alone, the error would reach the
    producer: the run would continue, and code that waits for the observer's terminal would wait forever. ``on_ending``
    is called just before the terminal, and ``on_end`` just after the terminal.
    """

    def __init__(
        self,
        observer: ObserverBase[T],
        run: RunHandle,
        *,
        on_ending: Callable[[], None] = lambda: None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._observer = observer
        self._run = run
        self._on_ending = on_ending
        self._on_end = on_end

    @property
    def is_over(self) -> bool:
        """Whether the run has ended or was disposed."""
        return self._run.has_ended or self._run.is_disposed

    def on_next(self, value: T) -> None:
        if self._run.is_disposed:
            return
        try:
            self._observer.on_next(value)
        except Exception as error:  # noqa: BLE001 - raised by the user's observer
            self.fail(error)

    def on_error(self, error: Exception) -> None:
        if not self.is_over:
            self._end(error)

    def _end(self, error: Exception) -> None:
        self._begin_to_end()
        try:
            self._observer.on_error(error)
        except Exception as raised:  # noqa: BLE001 - reported, never swallowed
            self._report(raised)
        finally:  # also after a CancelledError or a SystemExit, which are not caught above
            self.release()
            self._on_end()

    def on_completed(self) -> None:
        if self.is_over:
            return
        self._begin_to_end()
        try:
            self._observer.on_completed()
        except Exception as raised:  # noqa: BLE001 - reported, never swallowed
            self._report(raised)
        finally:  # also after a CancelledError or a SystemExit, which are not caught above
            self.release()
            self._on_end()

    def release(self) -> None:
        """Forget the observer, so that code that holds the run does not keep the observer alive."""
        self._observer = _NOBODY

    def fail(self, error: BaseException) -> None:
        """Stop the run and pass ``error`` to its observer."""
        self._run.dispose()
        self._end(error)  # type: ignore[arg-type]  # RxPY's type leaves out SystemExit and CancelledError

    def _begin_to_end(self) -> None:
        self._run.has_ended = True
        self._on_ending()

    def _report(self, error: Exception) -> None:
        """Report an error that an observer raised at the terminal. No stream can carry the error any more."""
        loop = running_loop()
        if loop is None:  # for example, because the loop has ended
            logger.error("an observer of an rxflow run raised", exc_info=error)
            return
        loop.call_exception_handler({"message": "an observer of an rxflow run raised", "exception": error})


_NOBODY: ObserverBase[Any] = Observer(on_error=lambda error: None)


def _setter(name: str) -> Callable[[Happened, Any], None]:
    # Events are frozen dataclasses, so an assignment raises. The descriptor of a slot can set the value anyway.
    setter: Callable[[Happened, Any], None] = vars(Happened)[name].__set__
    return setter


_set_seq, _set_at, _set_origin = map(_setter, ("seq", "at", "origin"))
_current: ContextVar[Border | None] = ContextVar("rxflow_border", default=None)
