"""Writes the events of a run as structured records of the standard library's ``logging``. ::

    flow.events().pipe(logs.log()).subscribe(…)

Each record has its fields as attributes, so a JSON formatter can write them: ``run_id``, ``span_id``, ``agent``,
``total_tokens``, ``duration_s`` and so on. Chunks are counted, not logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, TypeVar

from reactivex import Observable

from rxflow._streaming import WAITS
from rxflow._text import in_words, show_line, to_plain_json
from rxflow.adapters._translation import watch
from rxflow.tools import as_text
from rxflow.types import (
    AgentFinished,
    Cancelled,
    CrewFinished,
    Custom,
    Event,
    Failed,
    Finished,
    FlowFinished,
    FlowPaused,
    FlowResumed,
    Happened,
    Heartbeat,
    InputReceived,
    InputRequested,
    LLMCancelled,
    LLMFailed,
    LLMFinished,
    LLMRetrying,
    LLMStarted,
    MessageAdded,
    MethodFinished,
    MethodStarted,
    Origin,
    ReasoningChunk,
    Retracted,
    Started,
    StateChanged,
    StreamChunk,
    TaskFinished,
    TaskRejected,
    ToolCancelled,
    ToolFailed,
    ToolFinished,
    ToolProgress,
    ToolStarted,
    UsageMetrics,
)

__all__ = ["log"]

T = TypeVar("T")

_NAMES: Final = {
    "flow_name": "flow",
    "flow_id": "flow_id",
    "flow_method": "method",
    "crew_name": "crew",
    "agent_role": "agent",
    "llm_call_id": "llm_call_id",
    "attempt": "attempt",
    "run_id": "run_id",
    "parent_run_id": "parent_run_id",
    "span_id": "span_id",
    "parent_span_id": "parent_span_id",
}
"""Maps the fields of an event's origin to the names that they have in a record."""


def log(
    logger: logging.Logger | str = "rxflow.events", *, level: int = logging.INFO, capture_content: bool = False
) -> Callable[[Observable[T]], Observable[T]]:
    """Create an operator that logs the events of a run, and passes them on. ::

        events    S--a--b--F|
        log()     S--a--b--F|      logged: S, F

    Most events are logged at ``level``. Failures are logged as errors. Retries, rejected answers, retractions and
    cancellations are logged as warnings. But a cancellation that only pauses the run is logged at ``level``. Chunks,
    heartbeats, added messages, and events that a resumed run repeats are not logged.

    Args:
        logger: the logger or its name.
        capture_content: whether to log what people and models wrote: inputs, texts, arguments and results of tools, and
            the state. This includes the messages of errors, because they may quote such content.

    Example::

        flow.events().pipe(logs.log("trips"), ops.to_output())
    """
    target = logging.getLogger(logger) if isinstance(logger, str) else logger
    return watch(lambda: _RunLog(target, level, capture_content=capture_content))


class _Span:
    __slots__ = ("began_at", "chunks", "first_chunk_at", "kind", "model")

    def __init__(self, kind: str, began_at: float, model: str) -> None:
        self.kind = kind
        self.began_at = began_at
        self.model = model
        self.chunks = 0
        self.first_chunk_at: float | None = None


class _RunLog:
    """Writes the records of one run."""

    def __init__(self, logger: logging.Logger, level: int, *, capture_content: bool) -> None:
        self._logger = logger
        self._level = level
        self._capture_content = capture_content
        self._open: dict[str, _Span] = {}

    def read(self, event: Event) -> None:
        if isinstance(event, StreamChunk):
            self._count(event.span_id, event.at)
        elif isinstance(event, ReasoningChunk):
            self._count(event.origin.span_id, event.at)
        elif not event.replayed and not isinstance(event, Heartbeat | MessageAdded):
            self._log(event)

    def close(self, error: BaseException | None, *, is_disposed: bool) -> None:
        if is_disposed and self._open:
            fields = {"event": "Disposed", "open_spans": list(self._open)}
            self._logger.warning("disposed, with %d spans open", len(self._open), extra=fields)
        self._open.clear()

    def _count(self, span_id: str, at: float) -> None:
        call = self._open.get(span_id)
        if call is not None:
            call.chunks += 1
            if call.first_chunk_at is None:
                call.first_chunk_at = at

    def _log(self, event: Happened) -> None:
        origin = event.origin
        fields = self._describe(event)
        kind = type(event).__name__
        span = self._open.get(origin.span_id)
        if isinstance(event, Started):
            model = event.model if isinstance(event, LLMStarted) else ""
            self._open[origin.span_id] = span = _Span(kind.removesuffix("Started"), event.at, model)
        elif isinstance(event, Finished | Failed | Cancelled) and self._open.pop(origin.span_id, None) is not None:
            fields |= self._measure(event, span)
        if span is not None and span.model:
            fields["model"] = span.model
        level = self._level
        if isinstance(event, Failed):
            level = logging.ERROR
        elif isinstance(event, Cancelled) and event.reason == WAITS:
            pass  # the run only pauses until a person answers
        elif isinstance(event, Cancelled | Retracted | LLMRetrying | TaskRejected):
            level = logging.WARNING
        if not self._logger.isEnabledFor(level):
            return
        trace = event.error if isinstance(event, Failed) and self._capture_content else None
        self._logger.log(level, "%s", _phrase(event, fields), extra=fields, exc_info=trace)

    def _describe(self, event: Any) -> dict[str, Any]:
        """Return the fields that come from the event itself, not from its :class:`_Span`."""
        fields: dict[str, Any] = {"event": type(event).__name__, "seq": event.seq}
        if event.at:
            fields["at"] = event.at
        origin: Origin = event.origin
        for label, name in _NAMES.items():
            value = getattr(origin, label)
            if value:
                fields[name] = value
        if origin.task_id:
            fields["task_index"] = origin.task_index
        match event:
            case MethodStarted(kind=kind, triggered_by=triggered_by):
                fields |= {"method_kind": kind, "triggered_by": list(triggered_by)}
            case MethodFinished(label=str(label)):
                fields["label"] = label
            case ToolStarted() | ToolFinished() | ToolFailed() | ToolCancelled():
                fields |= {"tool": event.tool_name, "tool_id": event.tool_id}
                if isinstance(event, ToolFailed):
                    fields["stage"] = event.stage
            case ToolProgress(progress=progress, total=total):
                fields |= {"progress": progress, "total": total}
            case LLMFinished() | LLMFailed() | LLMCancelled() | FlowFinished():
                fields |= _count_tokens(event.usage) | ({} if event.cost is None else {"cost": event.cost})
            case LLMRetrying(delay=delay):
                fields["delay_s"] = delay
            case InputRequested() | InputReceived():
                fields["request_id"] = event.request_id
            case FlowPaused(pending=pending):
                fields["pending"] = [each.request_id for each in pending]
            case FlowResumed(after=after):
                fields["after"] = after
            case Custom(name=name):
                fields["custom_name"] = name
            case _:
                pass
        if isinstance(event, Failed | LLMRetrying | Retracted):
            fields["error_type"] = type(event.error).__name__
        if isinstance(event, Cancelled) and event.reason:
            fields["reason"] = event.reason
        if self._capture_content:
            fields |= _content_of(event)
        return fields

    def _measure(self, event: Happened, span: _Span | None) -> dict[str, Any]:
        """Return the duration of the span, the time to its first chunk and, for an LLM call, the number of chunks."""
        if span is None:
            return {}
        fields: dict[str, Any] = {}
        if event.at and span.began_at:
            fields["duration_s"] = round(event.at - span.began_at, 6)
            if span.first_chunk_at:
                fields["first_chunk_s"] = round(span.first_chunk_at - span.began_at, 6)
        if isinstance(event, LLMFinished | LLMFailed | LLMCancelled):
            fields["chunks"] = span.chunks
        return fields


def _phrase(event: Happened, fields: dict[str, Any]) -> str:
    """Return the readable text of a record, such as "Tool look finished in 0.12 s"."""
    kind = type(event).__name__
    verb = next((verb for verb in ("Started", "Finished", "Failed", "Cancelled") if kind.endswith(verb)), "")
    what = kind.removesuffix(verb)
    names = {"Flow": "flow", "Method": "method", "Crew": "crew", "Agent": "agent", "Tool": "tool", "LLM": "model"}
    # A model writes the names of tools in its calls. A line break in a name could make one record look like two.
    words = [what, show_line(str(fields.get(names.get(what, ""), ""))), verb.lower()]
    if "error_type" in fields:
        words.append(f"with {fields['error_type']}")
    if "duration_s" in fields:
        words.append(f"in {fields['duration_s']:.2f} s")
    if "total_tokens" in fields:
        words.append(f"({fields['total_tokens']} tokens)")
    return " ".join(word for word in words if word)


def _count_tokens(usage: UsageMetrics) -> dict[str, Any]:
    return usage.model_dump(exclude_none=True, exclude={"successful_requests"} if not usage.is_estimated else None)


def _content_of(event: Any) -> dict[str, Any]:
    """Return the fields of ``event`` that people or models wrote, and the message of its error."""
    match event:
        case Started():
            given = ("inputs", "arguments", "messages", "description")
            found = {name: getattr(event, name) for name in given if getattr(event, name, None) is not None}
            return {name: to_plain_json(value) for name, value in found.items()}
        case LLMFinished(text=text):
            return {"text": text}
        case Failed() | Retracted() | LLMRetrying():
            return {"error": in_words(event.error)}
        case FlowFinished() | MethodFinished() | CrewFinished() | TaskFinished() | AgentFinished() | ToolFinished():
            return {"result": as_text(event.result)}
        case StateChanged(state=state):
            return {"state": to_plain_json(state)}
        case TaskRejected(reason=reason):
            return {"reason": reason}
        case InputRequested(message=text) | ToolProgress(message=text):
            return {"text": text}
        case InputReceived(value=value) | Custom(value=value):
            return {"value": to_plain_json(value)}
        case _:
            return {}
