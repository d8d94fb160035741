"""A run as screens draw it: a tree of its spans with states and times, the texts of its speakers, and its spending."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rxflow._streaming import WAITS, is_repeated
from rxflow._text import shorten, show_title
from rxflow.operators._core.run_log import RunCancelled, RunLost
from rxflow.screens._lanes import (
    Kind,
    Lane,
    Lanes,
    Spending,
    count,
    count_retries,
    say_chunk,
    show_call,
    show_cost,
    show_error,
    show_seconds,
    show_tokens,
    show_value,
)
from rxflow.screens._spans import Span, State
from rxflow.types import (
    Cancelled,
    Event,
    Failed,
    Finished,
    Happened,
    Origin,
    Started,
    StreamChunk,
    UsageMetrics,
    events as e,
)

MAX_LABEL_CHARS = 60


class RunTree:
    """Builds the state of a screen from the events of one or more runs. A stream that has only chunks also works.

    Args:
        methods: the names of the flow's methods, if they are known. These methods are shown even before they start.
    """

    def __init__(self, methods: Sequence[str] = ()) -> None:
        self.roots: list[Span] = []
        self.lanes = Lanes()
        self.spending = Spending()
        self.retries = self.tools = 0
        self.result: Any = None
        self.error: BaseException | None = None
        self.state = State.WAITING
        self._methods = tuple(methods)
        self._flow: Span | None = None  # the root that has the spans in ``_waiting``
        self._waiting: dict[str, Span] = {}
        self._spans: dict[str, Span] = {}
        self._lane_of: dict[str, Lane] = {}
        self._asking: dict[str, Span] = {}
        self._first_at: float | None = None
        self._last_at = time.time()
        self._last_seen = time.monotonic()

    @property
    def now(self) -> float:
        """The current time of the run, in seconds since the epoch.

        While a root is open, this is the time of the last event plus the real time since that event came. When all
        roots have ended or paused, this is the time of the last end or pause. A stream of chunks has no roots: when it
        has ended, this is the time of its last chunk. The events of a recorded run have the times of the recording.
        """
        ends = [root.ended_at for root in self.roots if root.ended_at is not None]
        if ends and len(ends) == len(self.roots):
            return max(ends)
        if self.state.is_ended and not self.roots:
            return self._last_at
        return self._last_at + (time.monotonic() - self._last_seen)

    @property
    def seconds(self) -> float:
        """How long the run has taken so far, in seconds. A stream of chunks begins with its first chunk."""
        now = self.now
        if not self.roots and self._first_at is not None:
            return max(0.0, now - self._first_at)
        return max((root.measure(now) for root in self.roots), default=0.0)

    @property
    def progress(self) -> tuple[int, int] | None:
        """How many of the flow's methods have finished or failed, and how many methods there are.

        None if the methods are not known.
        """
        if not self._methods:
            return None
        ended = sum(span.state in (State.DONE, State.FAILED) for span in self._waiting.values())
        return ended, len(self._methods)

    def describe_outcome(self) -> str:
        """Describe in one line how the run ended, how long it took, and what it used."""
        ends = {State.DONE: "done", State.FAILED: "failed", State.STOPPED: "stopped", State.PAUSED: "paused"}
        if isinstance(self.error, RunCancelled | RunLost):
            ends |= {State.STOPPED: "cancelled", State.FAILED: "lost"}
        usage, spending = self.spending.usage, self.spending
        parts = [f"{ends.get(self.state, 'running')} after {show_seconds(self.seconds)}"]
        if self.progress is not None:
            ended, total = self.progress
            parts.append(f"{ended} of {count(total, 'method')}")
        if self.tools:
            parts.append(count(self.tools, "tool call"))
        if self.retries:
            parts.append(count_retries(self.retries))
        parts.append(show_tokens(usage) or "no tokens")
        if usage.is_reported:
            parts.append(show_cost(spending.cost, is_whole=spending.is_whole))
        return ", ".join(parts)

    def add(self, event: Event) -> str:
        """Add one event. Return a line of text for a retraction, a retry or a question; "" for other events."""
        at = (event.at if isinstance(event, StreamChunk | Happened) else 0.0) or time.time()  # type: ignore[redundant-expr] # pyright: ignore[reportUnnecessaryIsInstance]
        self._last_at, self._last_seen = at, time.monotonic()
        if self._first_at is None:
            self._first_at = at
        if is_repeated(event):  # the tree has counted the original event, from before the run was resumed
            return ""
        if isinstance(event, StreamChunk):
            self.spending.add_output(event.span_id, event.content, at)
            say_chunk(self._find_lane(event.span_id, event), event)
            return ""
        match event:
            case e.ReasoningChunk(content=content, origin=origin):
                self.spending.add_output(origin.span_id, content, at)
                self._find_lane(origin.span_id, origin).say(Kind.THOUGHT, content, event)
            case Started():
                self._begin(event, at)
            case Finished() | Failed() | Cancelled():
                self._end(event, at)
            case _:
                return self._note(event, at)
        return ""

    def stop(self, reason: str = "") -> None:
        """Record that the run was stopped from outside. No more events follow."""
        for root in self._open_roots():
            root.note = root.note or reason
            self._close(root, State.STOPPED, self.now)
        self.state = State.STOPPED

    def fail(self, error: BaseException) -> None:
        """Record that the stream has ended with ``error``. A run that was cancelled has not failed."""
        self.error = error
        self.state = State.STOPPED if isinstance(error, RunCancelled) else State.FAILED
        for root in self._open_roots():
            root.note = show_error(error)
            self._close(root, self.state, self.now)

    def complete(self) -> None:
        """Record that the stream has completed.

        If an operator such as ``take`` has ended the stream early, some spans are still open. These spans are marked as
        stopped. If the run is paused, this does nothing.
        """
        if self.state is State.PAUSED:
            return
        for root in self._open_roots():
            self._close(root, State.STOPPED, self.now)
        for span in self._waiting.values():
            if span.state is State.WAITING:
                span.note = "not reached"
        if self.error is not None:
            self.state = State.FAILED
        elif self.roots and all(root.state is State.STOPPED for root in self.roots):
            self.state = State.STOPPED
        else:
            self.state = State.DONE

    def _open_roots(self) -> list[Span]:
        """Return the roots that have neither ended nor paused.

        A paused root stays paused, because the resumed run begins with a new root.
        """
        return [root for root in self.roots if not root.state.is_ended and root.state is not State.PAUSED]

    def _begin(self, event: Started, at: float) -> None:
        kind = type(event).__name__.removesuffix("Started").lower()
        parent = self._spans.get(event.origin.parent_span_id)
        key = event.origin.span_id
        if isinstance(event, e.ToolStarted):
            self.tools += 1
            self._find_lane(key, event.origin).call_tool(event)
        elif isinstance(event, e.LLMStarted):
            self.spending.begin(event)
        elif isinstance(event, e.AgentStarted) and parent is not None and not parent.agent:
            parent.agent = shorten(event.origin.agent_role, MAX_LABEL_CHARS)
        span = self._reuse(event, parent) or Span(kind, _label(event), parent=parent)
        span.span_id, span.started_at, span.ended_at, span.state = key, at, None, State.RUNNING
        self._spans[key] = span
        self.state = State.RUNNING
        if parent is None:
            self.roots.append(span)
        elif span not in parent.children:
            parent.children.append(span)
        if isinstance(event, e.FlowStarted) and parent is None and not self._has_open_flow:
            self._await_methods(span)

    @property
    def _has_open_flow(self) -> bool:
        return self._flow is not None and not self._flow.state.is_ended and self._flow.state is not State.PAUSED

    def _await_methods(self, root: Span) -> None:
        """Give ``root`` a waiting span for each method.

        A resumed run and another attempt start all methods again. So the earlier root waits for none of them.
        """
        for span in self._waiting.values():
            if self._flow is not None and span.state is State.WAITING:
                self._flow.children.remove(span)
        self._flow = root
        self._waiting = {
            name: Span("method", shorten(name), state=State.WAITING, parent=root, runs=0) for name in self._methods
        }
        root.children.extend(self._waiting.values())

    def _reuse(self, event: Started, parent: Span | None) -> Span | None:
        """Reset and return the span that the started method already has.

        Before the reset, this span either has never started, or is from an earlier round of a cycle. Return None if
        there is no such span, or if ``event`` is not the start of a method.
        """
        if not isinstance(event, e.MethodStarted) or parent is None:
            return None
        for span in parent.children:
            if span.kind == "method" and span.label == _label(event) and span.state is not State.RUNNING:
                self._forget(span)
                span.runs += 1
                span.note = ""
                return span
        return None

    def _forget(self, span: Span) -> None:
        """Drop the spans below ``span``, and the old id of ``span``. The spending of the dropped spans still counts."""
        for below in span.walk():
            self._spans.pop(below.span_id, None)
            self._lane_of.pop(below.span_id, None)
        span.children.clear()

    def _end(self, event: Finished | Failed | Cancelled, at: float) -> None:
        span = self._spans.get(event.origin.span_id)
        if isinstance(event, e.ToolFinished | e.ToolFailed | e.ToolCancelled):
            self._find_lane(event.origin.span_id, event.origin).end_tool(event)
            if isinstance(event, e.ToolCancelled) and event.reason == WAITS:
                self.tools -= 1  # the call is counted again when the run is resumed
        if isinstance(event, e.LLMFinished | e.LLMFailed | e.LLMCancelled):
            self._count(span, self.spending.end(event))
        if span is None:
            return
        if isinstance(event, Failed):
            span.note = show_error(event.error)
            state = State.FAILED
        elif isinstance(event, Cancelled):
            span.note = shorten(event.reason)
            state = State.STOPPED
        else:
            span.note = _show_outcome(event)
            state = State.DONE
        self._close(span, state, at)
        if span.parent is None:
            self._end_root(event)

    def _end_root(self, event: Finished | Failed | Cancelled) -> None:
        if isinstance(event, Finished):
            self.error = None  # an error of an earlier, retried attempt no longer counts
        if isinstance(event, Failed):
            self.error = event.error
        elif isinstance(event, e.FlowFinished | e.CrewFinished | e.TaskFinished):
            self.result = event.result
        elif isinstance(event, e.LLMFinished):
            self.result = event.text

    def _close(self, span: Span, state: State, at: float) -> None:
        """End ``span`` with ``state``, and mark the open spans below it as stopped."""
        for below in span.walk():
            if not below.state.is_ended and below.state is not State.WAITING:
                below.state = state if below is span else State.STOPPED
                below.ended_at = at
                self._count(below, self.spending.cut_off(below.span_id))
                lane = self._lane_of.get(below.span_id)
                if lane is not None:
                    lane.is_open = False

    def _count(self, span: Span | None, usage: UsageMetrics) -> None:
        while span is not None and usage.is_reported:
            span.usage += usage
            span = span.parent

    def _note(self, event: Event, at: float) -> str:
        assert not isinstance(event, StreamChunk)
        span = self._spans.get(event.origin.span_id)
        match event:
            case e.Retracted(error=error):
                void = self.lanes.retract(event)
                self.retries += 1
                return f"{void:,} characters taken back: {show_error(error)}"
            case e.LLMRetrying(error=error, delay=delay):
                self.retries += 1
                said = f"retries in {show_seconds(delay)}: {show_error(error)}"
                owner = span.parent if span is not None and span.parent is not None else span
                if owner is not None:
                    owner.note = said
                return said
            case e.TaskRejected(reason=reason):
                if span is not None:
                    span.note = f"again: {shorten(reason)}"
            case e.ToolProgress(progress=progress, total=total, message=message):
                if span is not None:
                    share = f"{progress / total:.0%}" if total else f"{progress:g}"
                    span.note = shorten(f"{share} {message}")
            case e.Custom(name=name, value=value):
                if span is not None:
                    span.note = shorten(f"{name}: {show_value(value)}")
            case e.InputRequested(message=message, request_id=request_id):
                if span is not None and not span.state.is_ended:
                    span.state, span.note = State.ASKING, shorten(message)
                    self._asking[request_id] = span
                return f"asks: {shorten(message, 200)}"
            case e.InputReceived(request_id=request_id):
                asked = self._asking.pop(request_id, None)
                if asked is not None and asked.state is State.ASKING:
                    asked.state, asked.note = State.RUNNING, ""
            case e.FlowPaused():
                self.state = State.PAUSED
                for root in self.roots:
                    if not root.state.is_ended:
                        root.state, root.ended_at = State.PAUSED, at
            case _:
                pass
        return ""

    def _find_lane(self, span_id: str, labels: StreamChunk | Origin) -> Lane:
        lane = self._lane_of.get(span_id)
        if lane is None or lane.is_dropped:
            span = self._spans.get(span_id) or self._spans.get(labels.parent_span_id)
            while span is not None and span.kind in ("llm", "agent", "tool"):
                span = span.parent
            around = span.span_id if span is not None else (labels.task_id or labels.namespace)
            speaker = labels.agent_role or labels.flow_method or "model"
            topic = show_title(labels.task_name) or (labels.flow_method if labels.agent_role else "")
            lane = self.lanes.open((around, speaker), speaker, topic)
            self._lane_of[span_id] = lane
        lane.is_open = True
        lane.spoke_at = self._last_at
        return lane


def _label(event: Started) -> str:
    origin = event.origin
    match event:
        case e.ToolStarted():
            return show_call(event.tool_name, event.arguments)
        case e.TaskStarted():
            return show_title(origin.task_name or event.description)
        case e.LLMStarted():
            return shorten(event.model, MAX_LABEL_CHARS)
        case e.MethodStarted():
            return shorten(origin.flow_method, MAX_LABEL_CHARS)
        case e.FlowStarted():
            return shorten(origin.flow_name, MAX_LABEL_CHARS)
        case _:
            return shorten(origin.agent_role or origin.crew_name, MAX_LABEL_CHARS)


def _show_outcome(event: Finished) -> str:
    if isinstance(event, e.ToolFinished):
        return show_value(event.result)
    return f"→ {shorten(event.label)}" if isinstance(event, e.MethodFinished) and event.label else ""
