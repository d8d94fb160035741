"""AG-UI 1.0, the protocol of CopilotKit and other front ends: translates a run into events of the protocol. ::

    async def run(request: Request) -> Response:
        asked = agui.read_input(await request.body())
        return agui.respond(asked, Trip().events({"topic": agui.last_user_text(asked)}))

In the protocol, each agent is a sub-agent of the run, and each method is a step. Needs ``rxflow[agui]``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from pydantic import ValidationError
from reactivex import Observable

from rxflow._lazy import extra
from rxflow._streaming import WAITS
from rxflow._text import describe, encodable, in_words, to_plain_json, write_json
from rxflow.adapters._translation import PartTracker, Step, call_id_of, tool_part_id, translate
from rxflow.adapters.sse import stream
from rxflow.tools import as_text
from rxflow.types import (
    AgentCancelled,
    AgentFailed,
    AgentFinished,
    AgentStarted,
    Cancelled,
    Custom,
    Event,
    Failed,
    Finished,
    FlowPaused,
    FlowResumed,
    Happened,
    InputRequested,
    LLMCancelled,
    LLMFailed,
    LLMFinished,
    LLMStarted,
    MethodStarted,
    Origin,
    Retracted,
    Started,
    StateChanged,
    StreamChunk,
    ToolCancelled,
    ToolFailed,
    ToolFinished,
    ToolProgress,
    ToolStarted,
    UsageMetrics,
)

with extra("agui"):
    from ag_ui import core as ag
    from ag_ui.encoder import EventEncoder
    from starlette.exceptions import HTTPException
    from starlette.responses import Response

__all__ = ["last_user_text", "read_input", "respond", "to_agui"]


def to_agui(asked: ag.RunAgentInput | None = None) -> Callable[[Observable[Any]], Observable[ag.BaseEvent]]:
    """Create an operator that translates a run's events into AG-UI events. ``asked`` is the client's request. ::

        events       S--------a--b--F|
        to_agui()    {run}{m}-a--b--{m}{run}|

    ``{run}`` is the start or the end of the run. ``{m}`` is the start or the end of a message.

    The last event is RUN_FINISHED, or RUN_ERROR if the run failed. If the run was cancelled, RUN_FINISHED has the
    outcome "cancelled". If the run has paused, RUN_FINISHED has the open questions as interrupts. After a retraction, a
    snapshot of all messages follows, without the retracted ones.
    """
    return translate(lambda: _Run(asked))


def respond(asked: ag.RunAgentInput, events: Observable[Any]) -> Response:
    """Return a response that streams a run as server-sent events. When the client disconnects, the run is disposed."""
    encode = EventEncoder().encode

    def encode_event(event: ag.BaseEvent) -> bytes:
        try:
            return encode(event).encode()
        except ValueError:  # UTF-8 cannot encode a name that has half a surrogate pair
            return b"data: " + write_json(event.model_dump(by_alias=True)) + b"\n\n"

    return stream(events.pipe(to_agui(asked)).map(encode_event))


def read_input(body: bytes) -> ag.RunAgentInput:
    """Read the body of a client's request.

    Raises:
        HTTPException: the body is not a valid request. The status is 422, and the message names the wrong fields.
    """
    try:
        return ag.RunAgentInput.model_validate_json(body)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in error.errors(include_url=False)
        )
        raise HTTPException(422, f"not an AG-UI RunAgentInput: {problems}") from error


def last_user_text(asked: ag.RunAgentInput) -> str:
    """Return the text of the user's last message; an empty string if there is none."""
    for message in reversed(asked.messages):
        if isinstance(message, ag.UserMessage):
            if isinstance(message.content, str):
                return message.content
            return "".join(part.text for part in message.content if isinstance(part, ag.TextPart))
    return ""


class _Run:
    """Translates the events of one run into AG-UI events."""

    def __init__(self, asked: ag.RunAgentInput | None) -> None:
        self._asked = asked
        self._thread_id = asked.thread_id if asked else ""
        self._run_id = asked.run_id if asked else ""
        self._root: str | None = None  # the id of the outermost span; None until the run has begun
        self._ending: Happened | None = None
        self._parts = PartTracker()
        self._tool_ids = _tool_ids_in(asked)  # the ids of the tool calls that the client knows
        self._approvals: dict[str, str] = {}  # by tool call: the request_id of the question whether to approve it
        self._owner: dict[str, str | None] = {}  # by open span: the sub-agent that the span belongs to
        self._tool_around: dict[str, str | None] = {}  # by open span: the tool call that the span belongs to
        self._agents: dict[str, None] = {}  # the spans of the open agents, in the order in which they started
        self._steps: dict[str, tuple[str, str | None]] = {}  # by span of an open method: the step's name and sub-agent
        self._transcript = _Transcript(asked)
        self._models: dict[str, tuple[str, str]] = {}  # by span of an open LLM call: the provider and the model
        self._usage: dict[tuple[str, str], UsageMetrics] = {}

    def read(self, event: Event) -> Iterator[ag.BaseEvent]:
        if self._root is None:
            yield self._begin_run(event)
        for step in self._parts.read(event):
            yield from self._show(step)
        # A resumed run repeats events that the client already has. Of these, only the open questions are sent again.
        if isinstance(event, StreamChunk) or (event.replayed and not isinstance(event, InputRequested)):
            return
        if isinstance(event, Started):
            yield from self._begin(event)
        elif isinstance(event, Finished | Failed | Cancelled):
            yield from self._end(event)
        else:
            yield from self._note(event)

    def finish(self, error: BaseException | None) -> Iterator[ag.BaseEvent]:
        if self._root is None:
            yield self._begin_run(None)
        for step in self._parts.end_all():
            yield from self._show(step)
        for name, agent in self._steps.values():
            yield ag.StepFinishedEvent(step_name=name, subagent_run_id=agent)
        for agent in reversed(self._agents):
            yield ag.SubagentFinishedEvent(subagent_run_id=agent)
        yield self._end_run(error)

    def _begin_run(self, event: Event | None) -> ag.BaseEvent:
        self._root = ""
        if event is not None:
            labels = event if isinstance(event, StreamChunk) else event.origin
            self._root = labels.span_id
            if not isinstance(event, StreamChunk):
                self._run_id = self._run_id or event.origin.run_id
            self._thread_id = self._thread_id or labels.flow_id
        self._run_id = self._run_id or str(uuid4())
        self._thread_id = self._thread_id or self._run_id
        return ag.RunStartedEvent(thread_id=self._thread_id, run_id=self._run_id, protocol_version="1.0")

    def _end_run(self, error: BaseException | None) -> ag.BaseEvent:
        usage = [
            ag.TokenUsage(
                provider=provider or None,
                model=model,
                input_tokens=used.prompt_tokens,
                output_tokens=used.completion_tokens,
                total_tokens=used.total_tokens,
                reasoning_tokens=used.reasoning_tokens,
                cached_input_tokens=used.cached_prompt_tokens,
                cache_write_input_tokens=used.cache_creation_tokens,
            )
            for (provider, model), used in self._usage.items()
        ]
        end = self._ending
        if isinstance(end, Cancelled) or isinstance(error, asyncio.CancelledError):
            outcome: Any = ag.RunFinishedCancelledOutcome()
        elif error is not None or isinstance(end, Failed):
            cause = error if error is not None else getattr(end, "error", None)
            return ag.RunErrorEvent(message=encodable(in_words(cause)), code=type(cause).__name__, usage=usage or None)
        elif isinstance(end, FlowPaused):
            outcome = ag.RunFinishedInterruptOutcome(interrupts=[self._interrupt(each) for each in end.pending])
        else:
            outcome = ag.RunFinishedSuccessOutcome()
        return ag.RunFinishedEvent(
            thread_id=self._thread_id,
            run_id=self._run_id,
            outcome=outcome,
            result=to_plain_json(getattr(end, "result", None)),
            usage=usage or None,
        )

    def _interrupt(self, asked: InputRequested) -> ag.Interrupt:
        expires_at = None if asked.expires_at is None else datetime.fromtimestamp(asked.expires_at, UTC).isoformat()
        return ag.Interrupt(
            id=asked.request_id,
            reason={"approval": "tool_call", "feedback": "confirmation"}.get(asked.kind, "input_required"),
            message=asked.message or None,
            tool_call_id=next((call for call, waits in self._approvals.items() if waits == asked.request_id), None),
            response_schema=dict(asked.response_schema) or None,
            expires_at=expires_at,
            subagent_run_id=self._owner.get(asked.origin.span_id),
            metadata={"options": list(asked.options), "arguments": to_plain_json(asked.arguments)},
        )

    def _begin(self, event: Any) -> Iterator[ag.BaseEvent]:
        span, parent = event.origin.span_id, event.origin.parent_span_id
        self._root = self._root or span  # the first events of a resumed run have no span
        around = self._owner.get(parent)
        tool_around = self._tool_around.get(parent)
        self._owner[span], self._tool_around[span] = around, tool_around
        match event:
            case AgentStarted():
                self._owner[span] = span
                self._agents[span] = None
                yield ag.SubagentStartedEvent(
                    subagent_run_id=span,
                    name=event.origin.agent_role,
                    description=event.origin.task_name or None,
                    parent_subagent_run_id=around,
                    parent_tool_call_id=tool_around,
                )
            case MethodStarted():
                name = _find_free(
                    event.origin.flow_method, {each for each, agent in self._steps.values() if agent == around}
                )
                self._steps[span] = (name, around)
                yield ag.StepStartedEvent(step_name=name, subagent_run_id=around)
            case LLMStarted():
                self._models[span] = (event.provider, event.model)
            case ToolStarted(tool_id=tool_id, tool_name=name, arguments=arguments):
                tool_call_id = tool_part_id(call_id_of(event), tool_id)
                self._tool_around[span] = tool_call_id
                self._parts.add_tool_call(event)
                # Announce a tool call that the client does not know, such as one that the model wrote in its text.
                if tool_call_id not in self._tool_ids:
                    yield self._announce(tool_call_id, name, None, around)
                    text = write_json(arguments).decode()
                    yield ag.ToolCallArgsEvent(tool_call_id=tool_call_id, delta=text, subagent_run_id=around)
                    self._transcript.add_arguments(tool_call_id, text)
                    yield ag.ToolCallEndEvent(tool_call_id=tool_call_id, subagent_run_id=around)
            case _:
                pass

    def _end(self, event: Any) -> Iterator[ag.BaseEvent]:
        span = event.origin.span_id
        if span == self._root:
            self._ending = event
        owner = self._owner.pop(span, None)
        tool_call_id = self._tool_around.pop(span, None)
        model = self._models.pop(span, ("", ""))
        match event:
            case AgentCancelled(reason=reason) if reason == WAITS and self._agents.pop(span, span) is None:
                yield ag.SubagentFinishedEvent(subagent_run_id=span, outcome=ag.SubagentFinishedSuspendedOutcome())
            case AgentFinished() | AgentCancelled() if self._agents.pop(span, span) is None:
                yield ag.SubagentFinishedEvent(subagent_run_id=span)
            case AgentFailed(error=error) if self._agents.pop(span, span) is None:
                yield ag.SubagentErrorEvent(
                    subagent_run_id=span, message=encodable(in_words(error)), code=type(error).__name__
                )
            case ToolFinished(result=result) if tool_call_id is not None:
                yield self._give_result(tool_call_id, as_text(result), owner)
            case ToolFailed(error=error) if tool_call_id is not None:
                yield self._give_result(tool_call_id, describe(error), owner)
            case ToolCancelled(reason=reason) if tool_call_id is not None and reason != WAITS:
                yield self._give_result(tool_call_id, f"cancelled: {reason}" if reason else "cancelled", owner)
            case LLMFinished(usage=usage) | LLMFailed(usage=usage) | LLMCancelled(usage=usage) if usage.is_reported:
                self._usage[model] = self._usage.get(model, UsageMetrics()) + usage
            case _ if span in self._steps:
                name, agent = self._steps.pop(span)
                yield ag.StepFinishedEvent(step_name=name, subagent_run_id=agent)
            case _:
                pass

    def _note(self, event: Any) -> Iterator[ag.BaseEvent]:
        owner = self._owner.get(event.origin.span_id)
        if isinstance(event, FlowResumed) or (isinstance(event, Retracted) and event.origin == Origin()):
            self._root, self._ending = "", None  # the run begins again, with a new outermost span
        match event:
            case StateChanged(state=state):
                yield ag.StateSnapshotEvent(snapshot=to_plain_json(state), subagent_run_id=owner)
            case ToolProgress(progress=progress, total=total, message=message):
                yield ag.ActivitySnapshotEvent(
                    message_id=f"{event.origin.span_id}/progress",
                    activity_type="PROGRESS",
                    content={"progress": progress, "total": total, "message": message},
                    subagent_run_id=owner,
                )
            case Custom(name=name, value=value):
                yield ag.CustomEvent(name=name, value=to_plain_json(value), subagent_run_id=owner)
            case InputRequested(kind=kind, tool_id=tool_id):
                if kind == "approval":
                    self._approvals[tool_part_id(call_id_of(event), tool_id)] = event.request_id
                value = self._interrupt(event).model_dump(by_alias=True)
                yield ag.CustomEvent(name="rxflow.input_requested", value=value, subagent_run_id=owner)
            case FlowPaused():
                self._ending = event
            case Retracted(error=error):
                value = {"reason": encodable(in_words(error)), "attempts": list(event.attempts)}
                yield ag.CustomEvent(name="rxflow.retracted", value=value, subagent_run_id=owner)
                yield ag.MessagesSnapshotEvent(messages=self._transcript.messages())
            case _:
                pass

    def _show(self, step: Step) -> Iterator[ag.BaseEvent]:
        part = step.part
        labels = part.said if isinstance(part.said, StreamChunk) else part.said.origin
        owner = self._owner.get(labels.span_id) or self._owner.get(labels.parent_span_id)
        match part.kind, step.verb:
            case "text", "begin":
                self._transcript.begin_text(part.id, labels.agent_role, owner)
                yield ag.TextMessageStartEvent(
                    message_id=part.id, role="assistant", name=labels.agent_role or None, subagent_run_id=owner
                )
            case "text", "say":
                text = encodable(step.text)
                self._transcript.say(part.id, text)
                yield ag.TextMessageContentEvent(message_id=part.id, delta=text, subagent_run_id=owner)
            case "text", "end":
                yield ag.TextMessageEndEvent(message_id=part.id, subagent_run_id=owner)
            case "reasoning", "begin":
                # The message with the tool calls has the id of the LLM call. Without the suffix, the reasoning could
                # have the same id.
                yield ag.ReasoningStartEvent(message_id=f"{part.id}/reasoning", subagent_run_id=owner)
                yield ag.ReasoningMessageStartEvent(message_id=f"{part.id}/reasoning", subagent_run_id=owner)
            case "reasoning", "say":
                yield ag.ReasoningMessageContentEvent(
                    message_id=f"{part.id}/reasoning", delta=encodable(step.text), subagent_run_id=owner
                )
            case "reasoning", "end":
                yield ag.ReasoningMessageEndEvent(message_id=f"{part.id}/reasoning", subagent_run_id=owner)
                yield ag.ReasoningEndEvent(message_id=f"{part.id}/reasoning", subagent_run_id=owner)
            case "tool_call", "begin":
                yield self._announce(part.id, part.tool_name, part.call_id, owner)
            case "tool_call", "say":
                self._transcript.add_arguments(part.id, step.text)
                yield ag.ToolCallArgsEvent(tool_call_id=part.id, delta=encodable(step.text), subagent_run_id=owner)
            case "tool_call", "end":
                yield ag.ToolCallEndEvent(tool_call_id=part.id, subagent_run_id=owner)
            case _:
                self._transcript.take_back(part.id)

    def _announce(self, tool_call_id: str, name: str, message_id: str | None, owner: str | None) -> ag.BaseEvent:
        self._tool_ids.add(tool_call_id)
        self._transcript.begin_tool_call(tool_call_id, name, message_id or tool_call_id, owner)
        return ag.ToolCallStartEvent(
            tool_call_id=tool_call_id, tool_call_name=name, parent_message_id=message_id, subagent_run_id=owner
        )

    def _give_result(self, tool_call_id: str, text: str, owner: str | None) -> ag.BaseEvent:
        result = ag.ToolMessage(
            id=f"{tool_call_id}/result", content=encodable(text), tool_call_id=tool_call_id, subagent_run_id=owner
        )
        self._transcript.add(result)
        return ag.ToolCallResultEvent(
            message_id=result.id, tool_call_id=tool_call_id, content=result.content, role="tool", subagent_run_id=owner
        )


class _Transcript:
    """The client's own messages and those that it has got from the run so far, without the retracted ones."""

    def __init__(self, asked: ag.RunAgentInput | None) -> None:
        self._known: list[Any] = list(asked.messages) if asked else []
        self._messages: dict[str, Any] = {}
        self._texts: dict[str, list[str]] = {}  # by message
        self._arguments: dict[str, list[str]] = {}  # by tool call, which may have the same id as its message

    def begin_text(self, message_id: str, name: str, owner: str | None) -> None:
        self._assistant(message_id, owner).name = name or None

    def begin_tool_call(self, tool_call_id: str, name: str, message_id: str, owner: str | None) -> None:
        call = ag.ToolCall(id=tool_call_id, function=ag.FunctionCall(name=name, arguments=""))
        message = self._assistant(message_id, owner)
        message.tool_calls = [*(message.tool_calls or ()), call]

    def say(self, message_id: str, text: str) -> None:
        self._texts.setdefault(message_id, []).append(text)

    def add_arguments(self, tool_call_id: str, text: str) -> None:
        self._arguments.setdefault(tool_call_id, []).append(text)

    def add(self, message: ag.ToolMessage) -> None:
        self._messages[message.id] = message

    def take_back(self, part_id: str) -> None:
        self._texts.pop(part_id, None)
        self._arguments.pop(part_id, None)
        self._messages.pop(part_id, None)
        calls = {part_id}
        for each in (*self._known, *self._messages.values()):
            if isinstance(each, ag.AssistantMessage) and _has_call(each, {part_id}):
                calls.update(call.id for call in each.tool_calls or ())  # a result needs its call in the messages
        self._messages = {id_: each for id_, each in self._messages.items() if not _has_call(each, calls)}
        self._known = [each for each in self._known if not _has_call(each, calls)]

    def messages(self) -> list[Any]:
        for message in self._messages.values():
            if isinstance(message, ag.AssistantMessage):
                message.content = "".join(self._texts.get(message.id, ())) or None
                for call in message.tool_calls or ():
                    call.function.arguments = "".join(self._arguments.get(call.id, ()))
        return [*self._known, *self._messages.values()]

    def _assistant(self, message_id: str, owner: str | None) -> ag.AssistantMessage:
        if message_id not in self._messages:
            self._messages[message_id] = ag.AssistantMessage(id=message_id, subagent_run_id=owner)
        message: ag.AssistantMessage = self._messages[message_id]
        return message


def _has_call(message: Any, tool_call_ids: set[str]) -> bool:
    """Return whether ``message`` has one of the tool calls or its result."""
    if isinstance(message, ag.ToolMessage):
        return message.tool_call_id in tool_call_ids
    calls = message.tool_calls if isinstance(message, ag.AssistantMessage) else None
    return any(call.id in tool_call_ids for call in calls or ())


def _tool_ids_in(asked: ag.RunAgentInput | None) -> set[str]:
    messages = asked.messages if asked else []
    return {call.id for each in messages if isinstance(each, ag.AssistantMessage) for call in each.tool_calls or ()}


def _find_free(name: str, taken: set[str]) -> str:
    """Return ``name``, with a number if the name is taken. Several spans of one method may be open at once."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name} #{number}"
    return free
