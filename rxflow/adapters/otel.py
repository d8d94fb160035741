"""OpenTelemetry: records spans and metrics of a run, following the conventions for generative AI. ::

    flow.events().pipe(otel.trace()).subscribe(…)
    flow.observe().pipe(otel.trace(), ops.text()).subscribe(print)

Your program configures the OpenTelemetry SDK and the exporters. Needs ``rxflow[otel]``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from reactivex import Observable

from rxflow._lazy import extra
from rxflow._streaming import WAITS
from rxflow._text import encodable, in_words, write_json
from rxflow.adapters._otel_names import DURATION_BOUNDARIES_S, NAMES, PROVIDERS, TOKEN_BOUNDARIES
from rxflow.adapters._translation import read_json, watch
from rxflow.tools import as_text
from rxflow.types import (
    AgentStarted,
    Cancelled,
    CrewStarted,
    Event,
    Failed,
    Finished,
    FlowFinished,
    FlowPaused,
    FlowStarted,
    InputRequested,
    LLMCancelled,
    LLMFailed,
    LLMFinished,
    LLMRetrying,
    LLMStarted,
    MethodFinished,
    MethodStarted,
    Origin,
    ReasoningChunk,
    Retracted,
    Started,
    StreamChunk,
    TaskStarted,
    ToolFailed,
    ToolFinished,
    ToolStarted,
)

with extra("otel"):
    from opentelemetry import context as otel_context
    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider, get_meter
    from opentelemetry.trace import (
        Span,
        SpanKind,
        Status,
        StatusCode,
        Tracer,
        TracerProvider,
        get_tracer,
        set_span_in_context,
    )

__all__ = ["NAMES", "trace"]

T = TypeVar("T")

CANCELLED = "cancelled"
_REQUEST_PARAMETERS = (
    "temperature",
    "top_p",
    "top_k",
    "max_tokens",
    "max_completion_tokens",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "stop",
)


def trace(
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    capture_content: bool = False,
) -> Callable[[Observable[T]], Observable[T]]:
    """Record each run as a tree of spans, record its LLM calls as metrics, and emit its events unchanged. ::

        events     S--a--b--F|
        trace()    S--a--b--F|

    The parent of the tree is the span that is current when the run is subscribed. If no span is current then, the
    parent is the span that was current when ``pipe`` was called. For example, no span is current in a run's own thread.
    Disposing the run ends its open spans as cancelled.

    Args:
        tracer_provider: by default OpenTelemetry's global one.
        meter_provider: by default OpenTelemetry's global one.
        capture_content: also record what people and models wrote: messages, the names of tasks, the definitions,
            arguments and results of tools, and the texts of errors.

    Example::

        flow.events().pipe(otel.trace(), ops.to_output())
    """
    tracer = get_tracer("rxflow", tracer_provider=tracer_provider)
    metrics = _Metrics(meter_provider)

    def apply(source: Observable[T]) -> Observable[T]:
        piped_in = otel_context.get_current()

        def make() -> _SpanTree:
            # A run with a loop thread is subscribed in that thread. No span is current there, so the context is empty.
            around = otel_context.get_current() or piped_in
            return _SpanTree(tracer, metrics, around, capture_content=capture_content)

        return watch(make)(source)

    return apply


class _OpenSpan:
    """A span that has started. ``labels`` are the labels for the metrics of an LLM call; None for other spans."""

    __slots__ = ("began_at", "has_spoken", "labels", "span")

    def __init__(self, span: Span, began_at: float, labels: dict[str, Any] | None) -> None:
        self.span = span
        self.began_at = began_at
        self.labels = labels
        self.has_spoken = labels is None


class _SpanTree:
    """The spans of one run."""

    def __init__(self, tracer: Tracer, metrics: _Metrics, around: Context, *, capture_content: bool) -> None:
        self._tracer = tracer
        self._metrics = metrics
        self._capture_content = capture_content
        self._around = around
        self._open: dict[str, _OpenSpan] = {}

    def read(self, event: Event) -> None:
        if isinstance(event, StreamChunk):
            self._hear(event.span_id, event.at)
        elif event.replayed:
            return  # a resumed run repeats this event; it was recorded before the run was paused or interrupted
        elif isinstance(event, Started):
            self._begin(event)
        elif isinstance(event, Finished | Failed | Cancelled):
            self._end(event)
        elif isinstance(event, ReasoningChunk):
            self._hear(event.origin.span_id, event.at)
        else:
            self._note(event)

    def close(self, error: BaseException | None, *, is_disposed: bool) -> None:
        # In reverse order, so that children end before their parents: a child starts after its parent.
        for each in reversed(self._open.values()):
            if is_disposed:
                each.span.set_attribute(NAMES["error"], CANCELLED)
                each.span.set_status(Status(StatusCode.ERROR, CANCELLED))
            elif error is not None:
                self._set_error(each.span, error)
            each.span.end()
        self._open.clear()

    def _begin(self, event: Any) -> None:
        name, kind, attributes = self._describe(event)
        origin: Origin = event.origin
        if origin.run_id:
            attributes[NAMES["run_id"]] = origin.run_id
        if origin.attempt:
            attributes[NAMES["attempt"]] = origin.attempt
        parent = self._open.get(origin.parent_span_id)
        context = self._around if parent is None else set_span_in_context(parent.span, self._around)
        span = self._tracer.start_span(encodable(name), context, kind, attributes, start_time=_nanoseconds(event.at))
        labels = _call_labels(event) if isinstance(event, LLMStarted) else None
        self._open[origin.span_id] = _OpenSpan(span, event.at, labels)

    def _describe(self, event: Event) -> tuple[str, SpanKind, dict[str, Any]]:
        """Return the name, kind and attributes of the span that ``event`` starts."""
        origin = Origin() if isinstance(event, StreamChunk) else event.origin
        match event:
            case FlowStarted():
                attributes = {"operation": "invoke_workflow", "workflow": origin.flow_name, "flow_id": origin.flow_id}
                return f"invoke_workflow {origin.flow_name}", SpanKind.INTERNAL, _rename_attributes(attributes)
            case CrewStarted():
                attributes = {"operation": "invoke_workflow", "workflow": origin.crew_name}
                return f"invoke_workflow {origin.crew_name}", SpanKind.INTERNAL, _rename_attributes(attributes)
            case MethodStarted(kind=kind):
                attributes = {"method": origin.flow_method, "method_kind": kind}
                return f"method {origin.flow_method}", SpanKind.INTERNAL, _rename_attributes(attributes)
            case TaskStarted():
                # A task without a name uses its description as its name, and a description may quote the user.
                task = origin.task_name if self._capture_content else str(origin.task_index)
                return f"task {task}", SpanKind.INTERNAL, _rename_attributes({"task": task})
            case AgentStarted():
                attributes = {"operation": "invoke_agent", "agent": origin.agent_role, "agent_id": origin.agent_id}
                return f"invoke_agent {origin.agent_role}", SpanKind.INTERNAL, _rename_attributes(attributes)
            case ToolStarted(tool_name=name, tool_id=tool_id, arguments=arguments):
                attributes = {"operation": "execute_tool", "tool": name, "tool_type": "function", "tool_id": tool_id}
                if self._capture_content:
                    attributes["tool_arguments"] = _to_json(arguments)
                return f"execute_tool {name}", SpanKind.INTERNAL, _rename_attributes(attributes)
            case LLMStarted():
                return f"chat {event.model}", SpanKind.CLIENT, self._describe_call(event)
            case _:
                return type(event).__name__.removesuffix("Started").lower(), SpanKind.INTERNAL, {}

    def _describe_call(self, event: LLMStarted) -> dict[str, Any]:
        attributes = _call_labels(event)
        attributes[NAMES["is_stream"]] = True
        for parameter in _REQUEST_PARAMETERS:
            value = event.parameters.get(parameter)
            if value is not None:
                attributes[NAMES[parameter]] = [value] if parameter == "stop" and isinstance(value, str) else value
        if self._capture_content:
            attributes[NAMES["input_messages"]] = _to_json([_message(each) for each in event.messages])
            if event.tools:
                attributes[NAMES["tools"]] = _to_json([each.get("function", each) for each in event.tools])
        return attributes

    def _hear(self, span_id: str, at: float) -> None:
        """Record the time to the first chunk of a call. Later chunks of the call change nothing."""
        call = self._open.get(span_id)
        if call is None or call.has_spoken:
            return
        call.has_spoken = True
        if at and call.began_at:
            call.span.set_attribute(NAMES["time_to_first_chunk"], at - call.began_at)
            self._metrics.first_chunk.record(at - call.began_at, call.labels)

    def _end(self, event: Any) -> None:
        each = self._open.pop(event.origin.span_id, None)
        if each is None:
            return
        if isinstance(event, Failed):
            self._set_error(each.span, event.error)
        elif isinstance(event, Cancelled):
            if event.reason:
                each.span.set_attribute(NAMES["cancel_reason"], encodable(event.reason))
            if event.reason != WAITS:  # waiting for a person is not an error
                each.span.set_attribute(NAMES["error"], CANCELLED)
                each.span.set_status(Status(StatusCode.ERROR, CANCELLED))
        match event:
            case LLMFinished() | LLMFailed() | LLMCancelled():
                self._end_call(each, event)
            case ToolFinished(result=result) if self._capture_content:
                each.span.set_attribute(NAMES["tool_result"], encodable(as_text(result)))
            case ToolFailed(stage=stage):
                each.span.set_attribute(NAMES["tool_stage"], stage)
            case MethodFinished(label=str(label)):
                each.span.set_attribute(NAMES["method_label"], encodable(label))
            case FlowFinished(cost=float(cost)):
                each.span.set_attribute(NAMES["cost"], cost)
            case _:
                pass
        each.span.end(_nanoseconds(event.at))

    def _end_call(self, call: _OpenSpan, event: LLMFinished | LLMFailed | LLMCancelled) -> None:
        labels = dict(call.labels or {})
        attributes: dict[str, Any] = {}
        if isinstance(event, LLMFinished):
            if event.response_model:
                labels[NAMES["response_model"]] = attributes[NAMES["response_model"]] = event.response_model
            if event.response_id:
                attributes[NAMES["response_id"]] = event.response_id
            if event.finish_reason:
                attributes[NAMES["finish_reasons"]] = [event.finish_reason]
            if self._capture_content:
                said = _message(event.message or {"role": "assistant", "content": event.text})
                attributes[NAMES["output_messages"]] = _to_json([said | {"finish_reason": event.finish_reason or ""}])
        else:
            labels[NAMES["error"]] = _type_of(event.error) if isinstance(event, LLMFailed) else CANCELLED
        usage = event.usage
        for field in (
            "prompt_tokens",
            "completion_tokens",
            "cached_prompt_tokens",
            "cache_creation_tokens",
            "reasoning_tokens",
        ):
            count = getattr(usage, field)
            if count is not None:
                attributes[NAMES[field]] = count
        if usage.is_estimated:
            attributes[NAMES["is_estimated"]] = True
        if event.cost is not None:
            attributes[NAMES["cost"]] = event.cost
        call.span.set_attributes(attributes)
        if event.at and call.began_at:
            self._metrics.duration.record(event.at - call.began_at, labels)
        for token_type, count in (("input", usage.prompt_tokens), ("output", usage.completion_tokens)):
            if count is not None:
                self._metrics.tokens.record(count, labels | {NAMES["token_type"]: token_type})

    def _note(self, event: Any) -> None:
        """Record a retraction, a retry, a question or a pause as a span event of the enclosing span.

        Ignore other events.
        """
        name: str
        attributes: dict[str, Any] = {}
        match event:
            case Retracted(attempts=attempts, error=error):
                name, attributes = "retracted", {"attempt": list(attempts), "error": _type_of(error)}
            case LLMRetrying(error=error):
                name, attributes = "retrying", {"error": _type_of(error)}
            case InputRequested(kind=kind):
                name, attributes = "input_requested", {"input_kind": kind}
            case FlowPaused():
                name = "paused"
            case _:
                return
        origin: Origin = event.origin
        within = self._open.get(origin.span_id) or self._open.get(origin.parent_span_id)
        if within is not None:
            within.span.add_event(NAMES[name], _rename_attributes(attributes), _nanoseconds(event.at))

    def _set_error(self, span: Span, error: BaseException) -> None:
        span.set_attribute(NAMES["error"], _type_of(error))
        span.set_status(Status(StatusCode.ERROR, encodable(in_words(error)) if self._capture_content else None))


class _Metrics:
    """The metric instruments for LLM calls."""

    def __init__(self, provider: MeterProvider | None) -> None:
        meter = get_meter("rxflow", meter_provider=provider)
        self.duration = meter.create_histogram(
            NAMES["metric_duration"],
            "s",
            "GenAI operation duration.",
            explicit_bucket_boundaries_advisory=DURATION_BOUNDARIES_S,
        )
        self.tokens = meter.create_histogram(
            NAMES["metric_tokens"],
            "{token}",
            "Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=TOKEN_BOUNDARIES,
        )
        self.first_chunk = meter.create_histogram(
            NAMES["metric_first_chunk"],
            "s",
            "Time to receive the first chunk.",
            explicit_bucket_boundaries_advisory=DURATION_BOUNDARIES_S,
        )


def _call_labels(event: LLMStarted) -> dict[str, Any]:
    """Return the attributes that a call's span and metrics share."""
    labels = {
        "operation": "chat",
        "provider": PROVIDERS.get(event.provider, event.provider),
        "model": event.model,
        "server_address": event.server_address,
        "server_port": event.server_port,
    }
    return _rename_attributes(labels)


def _rename_attributes(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``values`` under their names in ``NAMES``. Empty texts and None are left out.

    Texts are made encodable: an exporter refuses a whole batch of spans if one text cannot be encoded.
    """
    named = {NAMES[key]: value for key, value in values.items() if value not in ("", None)}
    return {key: encodable(value) if isinstance(value, str) else value for key, value in named.items()}


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Convert an OpenAI message to the form of OpenTelemetry's conventions."""
    role, content = str(message.get("role", "")), message.get("content")
    parts: list[dict[str, Any]] = []
    if role == "tool":
        parts.append({"type": "tool_call_response", "id": message.get("tool_call_id"), "response": content})
    elif isinstance(content, str) and content:
        parts.append({"type": "text", "content": content})
    else:
        parts.extend(map(_part, cast("list[Any]", content or [])))
    for call in cast("list[dict[str, Any]]", message.get("tool_calls") or []):
        called: dict[str, Any] = call.get("function") or call.get("custom") or {}
        # A call of an OpenAI custom tool has ``input``, a plain text, and no ``arguments``.
        arguments = called.get("arguments", called.get("input"))
        parts.append(
            {
                "type": "tool_call",
                "id": call.get("id"),
                "name": called.get("name"),
                "arguments": read_json(arguments) if isinstance(arguments, str) else arguments,
            }
        )
    return {"role": role, "parts": parts}


def _part(part: Any) -> Any:
    """Convert a part of an OpenAI message to the form of OpenTelemetry's conventions."""
    if isinstance(part, str):
        return {"type": "text", "content": part}
    return {"type": "text", "content": part["text"]} if "text" in part else part


def _to_json(value: object) -> str:
    return write_json(value).decode()


def _type_of(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _nanoseconds(at: float) -> int | None:
    """Convert ``at`` from seconds to nanoseconds. If ``at`` is 0, return None.

    An event without a time has 0. OpenTelemetry replaces None by the current time.
    """
    return int(at * 1e9) or None
