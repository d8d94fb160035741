"""The events of a run. Each kind of event has a class. ``Event`` is the union of the classes, for ``match``::

    match event:
        case StreamChunk(content=text): ...
        case MethodFinished(origin=origin, result=result): ...

A span begins with ``…Started`` and ends with ``…Finished``, ``…Failed`` or ``…Cancelled``. Its chunks come in between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from rxflow.types.chunks import Happened, StreamChunk, ToolCall
from rxflow.types.results import CrewOutput, TaskOutput, UsageMetrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Happened):
    """A span begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(Happened):
    """A span ends normally."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(Happened):
    """A span ends with an error."""

    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled(Happened):
    """A span was stopped before its end. ``reason`` is a text, for example about a time-out or a lost race."""

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowStarted(Started):
    """A flow begins. ``inputs`` are the inputs of its kickoff."""

    inputs: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowFinished(Finished):
    """A flow ended. ``result`` is the result of the method that finished last; None if no method finished.

    ``usage`` and ``cost`` are sums over the flow's LLM calls. ``cost`` is in US dollars; None if any cost is unknown.
    """

    result: Any
    usage: UsageMetrics
    cost: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowFailed(Failed):
    """A flow ended with an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowCancelled(Cancelled):
    """A flow was stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodStarted(Started):
    """A flow method begins.

    ``kind`` is "start", "listen" or "router". ``triggered_by`` holds the methods and labels that triggered the method.
    """

    kind: str = "start"
    triggered_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodFinished(Finished):
    """A flow method ended with ``result``. ``label`` is the label that a router chose; None for other methods."""

    result: Any
    label: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodFailed(Failed):
    """A flow method raised an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodCancelled(Cancelled):
    """A flow method was stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrewStarted(Started):
    """A crew begins. ``inputs`` are the inputs of its kickoff. If they are None, placeholders stay unchanged."""

    inputs: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CrewFinished(Finished):
    """A crew ended."""

    result: CrewOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class CrewFailed(Failed):
    """A crew ended with an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrewCancelled(Cancelled):
    """A crew was stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStarted(Started):
    """A task begins. In ``description``, the inputs have replaced the placeholders."""

    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRejected(Happened):
    """A guardrail, the output type or a person rejected an answer. A Retracted event and another attempt follow."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFinished(Finished):
    """A task ended."""

    result: TaskOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFailed(Failed):
    """A task ended with an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCancelled(Cancelled):
    """A task was stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStarted(Started):
    """An agent begins an attempt at a task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFinished(Finished):
    """An agent ended an attempt with the answer ``result``."""

    result: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFailed(Failed):
    """An agent's attempt ended with an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentCancelled(Cancelled):
    """An agent's attempt was stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolStarted(Started):
    """A tool call begins, in its own span.

    ``arguments`` holds the validated arguments. If the arguments are not valid, or the tool is unknown, ``arguments``
    holds what the model wrote, and a ToolFailed follows.
    """

    tool_id: str
    tool_name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFinished(Finished):
    """A tool call ended with ``result``."""

    tool_id: str
    tool_name: str
    result: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFailed(Failed):
    """A tool call failed. Normally the model receives the error, and the run continues.

    The run ends only if the tool's ``needs_approval`` or the question to a person raised the error. ``stage`` is
    "arguments" (not valid), "unknown" (no such tool), "limit" (used too often), "denied" (refused) or "run" (others).
    """

    tool_id: str
    tool_name: str
    stage: str = "run"
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCancelled(Cancelled):
    """A tool call was stopped."""

    tool_id: str
    tool_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMStarted(Started):
    """An LLM call begins.

    ``provider`` is the prefix of the model's name ("openai", "anthropic"). ``parameters`` are the parameters of the
    request, without secrets. ``tools`` are the tools that the model may call, in OpenAI's form.
    """

    model: str
    messages: Sequence[Mapping[str, Any]]
    provider: str = ""
    server_address: str = ""
    server_port: int | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    tools: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningChunk(Happened):
    """A piece of the model's reasoning text. It is not a StreamChunk, because it is not part of the answer."""

    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentPart(Happened):
    """A part of the model's answer that is not text.

    ``kind`` is for example "citation", "image", "audio", "server_tool" (the work of a provider's own tool), "tool_plan"
    (from Cohere) or "function_call" (OpenAI's old form). ``data`` is the provider's JSON.
    """

    kind: str
    data: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMRetrying(Happened):
    """An LLM call failed before its first chunk. It will be repeated after ``delay`` seconds."""

    error: BaseException
    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMFinished(Finished):
    """An LLM call ended.

    Attributes:
        text: the whole answer.
        refusal: the part of ``text`` with which the model refuses to answer; empty if it does not refuse.
        finish_reason: why the answer ended, in OpenAI's words if one fits; None if the provider sent no reason.
        cost: in US dollars; None if the price or the tokens are unknown.
        message: the answer as the next request must contain it; for some models, with thoughts and signatures.
        response_id, response_model: the answer's id and the model's name, as the provider sent them.
    """

    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""
    refusal: str = ""
    finish_reason: str | None = "stop"
    usage: UsageMetrics = field(default_factory=UsageMetrics)
    cost: float | None = None
    message: Mapping[str, Any] = field(default_factory=dict[str, Any])
    response_id: str = ""
    response_model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMFailed(Failed):
    """An LLM call ended with an error. ``text`` is the text that had arrived.

    If a part of the answer had arrived, the provider bills that part. ``usage`` and ``cost`` are then estimates, unless
    the provider reported them. If nothing had arrived, ``cost`` and the token counts in ``usage`` are None.
    """

    text: str = ""
    usage: UsageMetrics = field(default_factory=UsageMetrics)
    cost: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMCancelled(Cancelled):
    """An LLM call was stopped. ``text`` is the text that had arrived.

    The provider bills what it has generated. ``usage`` and ``cost`` are estimates, unless the provider reported them.
    If no request was open when the call was stopped, ``cost`` and the token counts in ``usage`` are None.
    """

    text: str = ""
    usage: UsageMetrics = field(default_factory=UsageMetrics)
    cost: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retracted(Happened):
    """Chunks that were shown are void, because a new attempt or another stream follows.

    This event is emitted if a guardrail, the output type or a person rejects an answer, if a run begins again, and if a
    resumed run had been interrupted during an answer. ``retry_stream`` and ``fallback_to`` emit this event too. A chunk
    is void if it is within ``origin`` and its ``attempt`` is one of ``attempts``. If ``span_ids`` is not empty, only
    chunks of these spans are void, because another run of the same crew may emit chunks at the same time. If
    ``llm_call_ids`` is not empty, no chunk of another call is void. ``error`` ended the attempts. ::

        shown = [chunk for chunk in shown if not retracted.covers(chunk)]
    """

    attempts: tuple[int, ...]
    error: BaseException
    span_ids: tuple[str, ...] = ()
    llm_call_ids: tuple[str, ...] = ()

    def covers(self, item: StreamChunk | Happened) -> bool:
        """Return whether ``item`` is void. The rules for chunks also apply to events."""
        labels = item if isinstance(item, StreamChunk) else item.origin
        namespace, call, own = self.origin.namespace, self.origin.llm_call_id, labels.llm_call_id
        return (
            labels.attempt in self.attempts
            and labels.namespace[: len(namespace)] == namespace
            and (not call or own == call)
            and (not self.span_ids or labels.span_id in self.span_ids)
            and (not self.llm_call_ids or not own or own in self.llm_call_ids)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat(Happened):
    """A stream has emitted no item for ``silent_for`` seconds, but has not ended. ``ops.heartbeat`` emits this."""

    silent_for: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChanged(Happened):
    """The flow's state was restored or changed. ``state`` is the whole state, as values that JSON can represent."""

    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageAdded(Happened):
    """A message was added to the conversation of an agent and its model. ``message`` is in OpenAI's form."""

    message: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolProgress(Happened):
    """A tool or a method reports ``progress`` out of ``total``, in any unit. ``total`` is None if it is unknown."""

    progress: float
    total: float | None = None
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Custom(Happened):
    """An event that a program emits with ``rxflow.emit(value, name=…)``."""

    name: str
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRequested(Happened):
    """The run asks a person a question, and waits.

    Attributes:
        request_id: the id of the question. An answer names this id.
        kind: "input" (a text), "feedback" (on a method's or a task's result) or "approval" (of a tool call).
        message: the question.
        options: answers to offer. Any other answer that fits ``response_schema`` is accepted too.
        tool_id: the id of the tool call that waits for approval; empty for other kinds.
        arguments: the arguments of the tool call, or data that belong to the question, such as a method's result.
        response_schema: the JSON Schema of an answer.
        expires_at: the end of the wait, in seconds since the epoch; with virtual time, in seconds of the virtual clock;
            None if there is no time limit.
    """

    request_id: str
    kind: str = "input"
    message: str = ""
    options: tuple[str, ...] = ()
    tool_id: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    response_schema: Mapping[str, Any] = field(default_factory=dict[str, Any])
    expires_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InputReceived(Happened):
    """The answer to a question. ``value`` is None if nobody answered in time, or if a provider returned no text."""

    request_id: str
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowPaused(Happened):
    """A flow, crew or agent waits for answers, and has nothing else to do. ``pending`` holds the questions.

    The stream ends after the FlowPaused event of the outermost flow, crew or agent.
    """

    pending: tuple[InputRequested, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowResumed(Happened):
    """A run continues after a pause, an error or an interruption.

    ``after`` is the ``seq`` of the run's last event before the run stopped.
    """

    after: int


# fmt: off
Event: TypeAlias = (
    FlowStarted | FlowFinished | FlowFailed | FlowCancelled | MethodStarted | MethodFinished | MethodFailed
    | MethodCancelled | CrewStarted | CrewFinished | CrewFailed | CrewCancelled | TaskStarted | TaskRejected
    | TaskFinished | TaskFailed | TaskCancelled | AgentStarted | AgentFinished | AgentFailed | AgentCancelled
    | ToolStarted | ToolFinished | ToolFailed | ToolCancelled | LLMStarted | LLMRetrying | ReasoningChunk | ContentPart
    | LLMFinished | LLMFailed | LLMCancelled | Retracted | Heartbeat | StateChanged | MessageAdded | ToolProgress
    | Custom | InputRequested | InputReceived | FlowPaused | FlowResumed | StreamChunk
)
# fmt: on
