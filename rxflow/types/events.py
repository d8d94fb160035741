"""All events of a run, as one typed union, which ``match`` distinguishes::

    match event:
        case StreamChunk(content=text): ...
        case MethodFinished(origin=origin, result=result): ...

A span begins with ``…Started`` and ends with ``…Finished``, ``…Failed`` or ``…Cancelled``. Chunks come in between.
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
    """A span was stopped before its end. ``reason`` says why: a sibling failed, a limit, a time-out, a lost race."""

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowStarted(Started):
    """A flow begins, with these inputs."""

    inputs: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowFinished(Finished):
    """A flow ended. ``result`` is the result of the last method to complete.

    ``cost`` is the sum over its calls in US dollars; None if the cost of one call is unknown.
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

    ``kind`` is "start", "listen" or "router". ``triggered_by`` holds the methods and labels that started it.
    """

    kind: str = "start"
    triggered_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodFinished(Finished):
    """A flow method returned ``result``. ``label`` is the label that a router chose."""

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
    """A crew begins, with these inputs. With None, placeholders are not filled in."""

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
    """A task begins. In ``description``, the inputs are filled in."""

    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRejected(Happened):
    """A guardrail, the output type or a person sent the answer back. A Retracted and another attempt follow."""

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
    """An agent begins to work on a task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFinished(Finished):
    """An agent returned its answer."""

    result: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFailed(Failed):
    """An agent ended with an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentCancelled(Cancelled):
    """An agent was stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolStarted(Started):
    """A tool call begins, in its own span.

    ``arguments`` are validated. If they did not fit, they are the model's original ones, and a ToolFailed follows.
    """

    tool_id: str
    tool_name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFinished(Finished):
    """A tool returned ``result``."""

    tool_id: str
    tool_name: str
    result: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFailed(Failed):
    """A tool call failed. The model receives the error, and the run continues.

    ``stage`` says why: the "arguments" did not fit, the tool is "unknown", its "limit" was reached, a person "denied"
    it, or its "run" raised.
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

    ``provider`` is the prefix of the model's name ("openai", "anthropic"). ``parameters`` are the options of the
    request; ``tools`` are the offered tools, in OpenAI's form.
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

    ``kind`` is "citation", "image", "audio", "server_tool" (the work of a provider's own tool), "tool_plan" (from
    Cohere) or "function_call" (OpenAI's old form). ``data`` is the provider's JSON.
    """

    kind: str
    data: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMRetrying(Happened):
    """An LLM call failed before its first chunk, and is repeated after ``delay`` seconds."""

    error: BaseException
    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMFinished(Finished):
    """An LLM call ended.

    Attributes:
        text: the whole answer.
        refusal: the part of ``text`` with which the model refuses to answer.
        finish_reason: in OpenAI's words; None if the provider sent none.
        cost: in US dollars; None if the price or the tokens are unknown.
        message: the answer as the next request must contain it, including the fields in which a reasoning model expects
            its thoughts and signatures.
        response_id, response_model: the provider's names for the answer and the model.
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

    ``usage`` is an estimate if a part of the answer had arrived, because the provider bills it. Otherwise the usage is
    unknown.
    """

    text: str = ""
    usage: UsageMetrics = field(default_factory=UsageMetrics)
    cost: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMCancelled(Cancelled):
    """An LLM call was stopped. ``text`` is the text that had arrived.

    ``usage`` is an estimate, because the provider bills what it has generated. ``cost`` is computed from the estimate.
    """

    text: str = ""
    usage: UsageMetrics = field(default_factory=UsageMetrics)
    cost: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retracted(Happened):
    """Text that was shown is withdrawn, because a new attempt or another source follows.

    This event is emitted after a guardrail, the output type or a person sent an answer back, and by ``retry_stream``
    and ``fallback_to``.

    Withdraw the chunks of ``origin`` whose ``attempt`` is one of ``attempts``; :meth:`covers` finds them. ``error``
    ended these attempts. ``span_ids`` are the chunks' spans, because another run of the same crew may emit chunks at
    the same time; empty if the chunks do not name their spans. ``llm_call_ids`` are the calls that emitted them. ::

        shown = [chunk for chunk in shown if not retracted.covers(chunk)]
    """

    attempts: tuple[int, ...]
    error: BaseException
    span_ids: tuple[str, ...] = ()
    llm_call_ids: tuple[str, ...] = ()

    def covers(self, chunk: StreamChunk | ReasoningChunk) -> bool:
        """Return whether ``chunk`` is withdrawn."""
        labels = chunk if isinstance(chunk, StreamChunk) else chunk.origin
        namespace, call = self.origin.namespace, self.origin.llm_call_id
        return (
            labels.attempt in self.attempts
            and labels.namespace[: len(namespace)] == namespace
            and (not call or labels.llm_call_id == call)
            and (not self.span_ids or labels.span_id in self.span_ids)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat(Happened):
    """A sign of life from a silent stream. ``silent_for`` is in seconds."""

    silent_for: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChanged(Happened):
    """A method changed the flow's state. ``state`` is the whole state, as JSON."""

    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageAdded(Happened):
    """A message was added to a conversation; ``message`` is in OpenAI's form."""

    message: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolProgress(Happened):
    """A tool or a method reports its progress: ``progress`` of ``total``, in any unit. None means an unknown total."""

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
        request_id: the id that the answer has to name.
        kind: "input" (a text), "feedback" (on a method's or a task's result) or "approval" (of a tool call).
        message: the question.
        options: the answers to choose from; empty if any answer is allowed.
        tool_id: the tool call that waits for approval; ``arguments`` are its arguments.
        response_schema: the JSON Schema of an answer.
        expires_at: the end of the wait, in seconds since the epoch; None if there is no time limit.
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
    """The answer to a question. ``value`` is None if nobody answered in time."""

    request_id: str
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowPaused(Happened):
    """The run waits for answers, and nothing else is left to do.

    The stream ends here. ``pending`` holds the questions.
    """

    pending: tuple[InputRequested, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowResumed(Happened):
    """A flow that was paused, failed or was interrupted continues.

    ``after`` is the ``seq`` of the flow's last event before it stopped.
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
