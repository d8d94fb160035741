"""Everything that happens in a run, as one typed union.

A span begins with ``…Started`` and ends with ``…Finished``, ``…Failed`` or ``…Cancelled``; chunks come in between.
``match`` tells them apart::

    match event:
        case StreamChunk(content=text): ...
        case MethodFinished(origin=origin, result=result): ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from rxflow.types.chunks import Happened, StreamChunk, ToolCall
from rxflow.types.usage import UsageMetrics

if TYPE_CHECKING:
    from rxflow.types.results import CrewOutput, TaskOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Happened):
    """A span begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(Happened):
    """A span ends as it should."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(Happened):
    """A span ends with an error."""

    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled(Happened):
    """A span was stopped before its end; ``reason`` says why: a sibling failed, a limit, a time-out, a lost race."""

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowStarted(Started):
    """A flow begins, with these inputs."""

    inputs: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowFinished(Finished):
    """A flow ended: ``result`` is that of the last method to complete.

    ``cost`` is the sum of its calls in US dollars; None if that of a call is not known.
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

    ``kind`` is "start", "listen" or "router"; ``triggered_by`` are the methods and labels that set it off.
    """

    kind: str = "start"
    triggered_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodFinished(Finished):
    """A flow method returned ``result``; ``label`` is what a router chose."""

    result: Any
    label: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodFailed(Failed):
    """A flow method raised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodCancelled(Cancelled):
    """A flow method was stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CrewStarted(Started):
    """A crew begins, with these inputs (None: placeholders stay as they are)."""

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
    """A task begins; its text is filled in."""

    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRejected(Happened):
    """A guardrail, the output type or a person sent the answer back; another attempt follows, after a Retracted."""

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
    """An agent gave its answer."""

    result: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFailed(Failed):
    """An agent gave up with an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentCancelled(Cancelled):
    """An agent was stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolStarted(Started):
    """A tool call begins, in a span of its own.

    ``arguments`` are validated; if they did not fit, they are what the model gave, and a ToolFailed follows.
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
    """A tool call failed: the model is told, and the run goes on.

    ``stage`` is what failed: "arguments" did not fit, the tool is "unknown", its "limit" is reached, its "run" raised.
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

    ``provider`` is the name in front of the model's ("openai", "anthropic"); ``parameters`` are the options of the
    request; ``tools`` are the tools that the model is offered, in OpenAI's form.
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
    """A piece of the model's reasoning text. Not a StreamChunk: it is not a part of the answer."""

    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentPart(Happened):
    """A part of the model's answer that is not text.

    ``kind`` is "citation", "image", "audio", "server_tool" (what a tool of the provider's own did), "tool_plan"
    (Cohere's) or "function_call" (OpenAI's old form); ``data`` is the provider's own JSON.
    """

    kind: str
    data: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMRetrying(Happened):
    """An LLM call failed before its first chunk and is tried again after ``delay`` seconds."""

    error: BaseException
    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMFinished(Finished):
    """An LLM call ended.

    ``refusal`` is what of ``text`` the model said in refusing to answer. ``finish_reason`` is in OpenAI's words, and
    None if the provider gave none. ``cost`` is in US dollars; None if the price or the tokens are not known.
    ``message`` is the answer as the next request has to hold it: with the fields in which a thinking model wants its
    thoughts and signatures back. ``response_id`` and ``response_model`` are the provider's names.
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
    """An LLM call ended with an error; ``text`` is what had arrived.

    ``usage`` is an estimate if something of the answer had arrived, as the provider bills that. Without any, nothing is
    known of it.
    """

    text: str = ""
    usage: UsageMetrics = field(default_factory=UsageMetrics)
    cost: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMCancelled(Cancelled):
    """An LLM call was stopped; ``text`` is what had arrived.

    ``usage`` is an estimate, as the provider bills what it has generated; ``cost`` goes by that.
    """

    text: str = ""
    usage: UsageMetrics = field(default_factory=UsageMetrics)
    cost: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retracted(Happened):
    """What was shown is withdrawn: a new attempt follows, or another source.

    It follows an answer that a guardrail, the output type or a person sent back; ``retry_stream`` and ``fallback_to``
    emit it too.

    All chunks of ``origin`` whose ``attempt`` is one of ``attempts`` are taken back; ``error`` is what ended them.
    ``span_ids`` are the spans in which they were said, because another run of the same crew may speak at the same time;
    empty if the chunks do not name theirs. ``llm_call_ids`` are the calls that emitted them. ::

        shown = [chunk for chunk in shown if not retracted.covers(chunk)]
    """

    attempts: tuple[int, ...]
    error: BaseException
    span_ids: tuple[str, ...] = ()
    llm_call_ids: tuple[str, ...] = ()

    def covers(self, chunk: StreamChunk | ReasoningChunk) -> bool:
        """``chunk`` is one of those taken back."""
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
    """A sign of life from a stream that has been silent; ``silent_for`` is in seconds."""

    silent_for: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChanged(Happened):
    """A method changed the flow's state; ``state`` is all of it, as JSON."""

    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageAdded(Happened):
    """A conversation has one more message, in OpenAI's form."""

    message: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolProgress(Happened):
    """A tool or a method reports how far it is: ``progress`` of ``total``, in any unit (None: not known)."""

    progress: float
    total: float | None = None
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Custom(Happened):
    """What a program emits itself, by ``rxflow.emit(value, name=…)``."""

    name: str
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRequested(Happened):
    """The run asks a person, and waits.

    Attributes:
        request_id: what the answer has to name.
        kind: "input" (a text), "feedback" (on a method's or a task's result) or "approval" (of a tool call).
        message: the question.
        options: the answers to choose from; empty for any.
        tool_id: the tool call that waits for approval; ``arguments`` are its arguments.
        response_schema: the JSON Schema of an answer.
        expires_at: seconds since the epoch; the wait ends then. None: it does not end.
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
    """Nobody answers, and nothing else is left to do: the stream ends here. ``pending`` are all open questions."""

    pending: tuple[InputRequested, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowResumed(Happened):
    """A flow that had paused, failed or was lost goes on; ``after`` is the ``seq`` of the last event before."""

    after: int


# fmt: off
Event: TypeAlias = (
    FlowStarted | FlowFinished | FlowFailed | FlowCancelled
    | MethodStarted | MethodFinished | MethodFailed | MethodCancelled
    | CrewStarted | CrewFinished | CrewFailed | CrewCancelled
    | TaskStarted | TaskRejected | TaskFinished | TaskFailed | TaskCancelled
    | AgentStarted | AgentFinished | AgentFailed | AgentCancelled
    | ToolStarted | ToolFinished | ToolFailed | ToolCancelled
    | LLMStarted | LLMRetrying | ReasoningChunk | ContentPart | LLMFinished | LLMFailed | LLMCancelled
    | Retracted | Heartbeat | StateChanged | MessageAdded | ToolProgress | Custom
    | InputRequested | InputReceived | FlowPaused | FlowResumed
    | StreamChunk
)
# fmt: on


def is_repeated(event: Event) -> bool:
    """Whether a resumed run repeats with ``event`` a chunk, a model call or a tool call that its log already has."""
    kinds = StreamChunk | LLMStarted | LLMFinished | ToolStarted | ToolFinished | ToolFailed
    return event.replayed and isinstance(event, kinds)
