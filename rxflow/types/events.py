"""Everything that happens in a run, as one typed union.

A span begins with ``…Started`` and ends with ``…Finished`` or ``…Failed``; between them travel the chunks.
``match`` tells them apart::

    match event:
        case StreamChunk(content=text): ...
        case MethodFinished(origin=origin, result=result): ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from rxflow.types.chunks import Origin, StreamChunk
from rxflow.types.usage import UsageMetrics

if TYPE_CHECKING:
    from rxflow.types.results import CrewOutput, TaskOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """What all events but the chunk share: where it happened."""

    origin: Origin


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
class FlowStarted(Started):
    """A flow begins, with these inputs."""

    inputs: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowFinished(Finished):
    """A flow ended: ``result`` is that of the last method to complete."""

    result: Any
    usage: UsageMetrics


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowFailed(Failed):
    """A flow ended with an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodStarted(Started):
    """A flow method begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodFinished(Finished):
    """A flow method returned ``result``."""

    result: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodFailed(Failed):
    """A flow method raised."""


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
class ToolStarted(Started):
    """A tool begins, with validated arguments."""

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
    """A tool raised, or its arguments did not fit: the model is told, and the run goes on."""

    tool_id: str
    tool_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A whole tool call as the model asked for it; ``arguments`` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMStarted(Started):
    """An LLM call begins."""

    model: str
    messages: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningChunk(Happened):
    """A piece of the model's reasoning text. Not a StreamChunk: it is no part of the answer."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Retracted(Happened):
    """What was shown is void: a new attempt follows, or another source.

    It follows an answer that a guardrail, the output type or a person sent back; ``retry_stream`` and ``fallback_to``
    emit it too.

    All chunks of ``origin`` whose ``attempt`` is one of ``attempts`` are taken back; ``error`` is what ended them.
    ``span_ids`` are the spans in which they were said, because another run of the same crew may speak at the same time;
    empty where the chunks do not say. ::

        shown = [chunk for chunk in shown if not retracted.covers(chunk)]
    """

    attempts: tuple[int, ...]
    error: BaseException
    span_ids: tuple[str, ...] = ()

    def covers(self, chunk: StreamChunk | ReasoningChunk) -> bool:
        """``chunk`` is one of those taken back."""
        place = chunk if isinstance(chunk, StreamChunk) else chunk.origin
        namespace, call = self.origin.namespace, self.origin.llm_call_id
        return (
            place.attempt in self.attempts
            and place.namespace[: len(namespace)] == namespace
            and (not call or place.llm_call_id == call)
            and (not self.span_ids or place.span_id in self.span_ids)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat(Happened):
    """A sign of life from a stream that has been silent; ``silent_for`` is in seconds."""

    silent_for: float


Event: TypeAlias = (
    FlowStarted
    | FlowFinished
    | FlowFailed
    | MethodStarted
    | MethodFinished
    | MethodFailed
    | CrewStarted
    | CrewFinished
    | CrewFailed
    | TaskStarted
    | TaskRejected
    | TaskFinished
    | TaskFailed
    | AgentStarted
    | AgentFinished
    | AgentFailed
    | ToolStarted
    | ToolFinished
    | ToolFailed
    | LLMStarted
    | LLMRetrying
    | ReasoningChunk
    | ContentPart
    | LLMFinished
    | LLMFailed
    | Retracted
    | Heartbeat
    | StreamChunk
)
