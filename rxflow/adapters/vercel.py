"""Vercel's AI SDK: a run as the UI message stream that ``useChat`` reads. ::

    async def chat(request: Request) -> Response:
        return vercel.respond(Trip().events({"topic": vercel.last_user_text(await request.body())}))

A run is one assistant message. The ``providerMetadata.rxflow`` of a text, a reasoning or a streamed tool call names
the agent, task and method. Works with versions 5, 6 and 7 of the SDK. But version 5 refuses a message that asks for
approval. Needs ``rxflow[web]``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias, cast
from uuid import uuid4

import reactivex
from pydantic_core import from_json
from reactivex import Observable

from rxflow._lazy import extra
from rxflow._streaming import WAITS
from rxflow._text import describe, encodable, in_words, to_plain_json, write_json
from rxflow.adapters._translation import (
    Part,
    PartTracker,
    Step,
    call_id_of,
    read_json,
    tool_part_id,
    translate,
)
from rxflow.adapters.sse import stream
from rxflow.types import (
    Approval,
    Cancelled,
    Custom,
    Event,
    Failed,
    FlowFinished,
    FlowPaused,
    InputReceived,
    InputRequested,
    LLMFinished,
    LLMStarted,
    Retracted,
    StateChanged,
    StreamChunk,
    ToolCancelled,
    ToolFailed,
    ToolFinished,
    ToolProgress,
    ToolStarted,
)

with extra("web"):
    from starlette.exceptions import HTTPException
    from starlette.responses import Response

__all__ = ["last_user_text", "read_approvals", "respond", "to_ui_messages"]

UIChunk: TypeAlias = dict[str, Any]

HEADERS: Final = {"x-vercel-ai-ui-message-stream": "v1"}
DONE: Final = b"data: [DONE]\n\n"
FINISH_REASONS: Final = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content-filter",
    "tool_calls": "tool-calls",
}


def to_ui_messages(message_id: str | None = None) -> Callable[[Observable[Any]], Observable[UIChunk]]:
    """Translate a run's events into the UI chunks of one assistant message. ::

        events              S-------a--b--F--|
        to_ui_messages()    {start}-a--b-----{finish}|

    An error becomes an ``error`` chunk. A cancelled run ends with an ``abort`` chunk. Some events have no chunk in the
    protocol, and become data parts: ``data-retracted``, ``data-state``, ``data-progress`` and ``data-input-request``.
    A ``Custom`` event becomes a data part, too: ``data-`` followed by the event's name.
    """
    return translate(lambda: _Message(message_id or str(uuid4())))


def respond(events: Observable[Any], *, message_id: str | None = None) -> Response:
    """Respond with a run as server-sent events. The run is disposed when the client disconnects."""

    def encode(chunk: UIChunk) -> bytes:
        return b"data: " + write_json(chunk) + b"\n\n"

    messages = events.pipe(to_ui_messages(message_id)).map(encode)
    return stream(reactivex.concat(messages, reactivex.just(DONE)), headers=HEADERS)


def last_user_text(body: bytes) -> str:
    """Return the text of the user's last message in a body that ``useChat`` sent; empty if there is none.

    Raises:
        HTTPException: 422, if ``body`` does not have the form that ``useChat`` sends.
    """
    for message in reversed(_read_messages(body)):
        if message.get("role") == "user":
            return "".join(str(part.get("text") or "") for part in _parts_of(message) if part.get("type") == "text")
    return ""


def read_approvals(body: bytes) -> dict[str, bool]:
    """Return the answers to requests for approval, by ``request_id``, from a body that ``useChat`` sent.

    Raises:
        HTTPException: 422, if ``body`` does not have the form that ``useChat`` sends.
    """
    answers: dict[str, bool] = {}
    for message in _read_messages(body):
        for part in _parts_of(message):
            match part.get("approval"):
                case {"id": str(request_id), "approved": bool(is_approved)}:
                    answers[request_id] = is_approved
                case _:
                    pass
    return answers


class _Message:
    """Translates the events of one run into the UI chunks of one assistant message."""

    def __init__(self, message_id: str) -> None:
        self._message_id = message_id
        self._has_begun = False
        self._ending: Any = None  # the newest event of the outermost span; at the end, the event that ended the run
        self._finish_reason = "stop"
        self._parts = PartTracker()
        self._inputs: dict[str, list[str]] = {}  # for each tool call with incomplete arguments: the arguments so far
        self._ready: dict[str, str] = {}  # for each tool call whose arguments were sent: the name of the tool
        self._approvals: dict[str, str] = {}  # for each tool call: the request_id of the question whether to approve it
        self._answers: dict[str, bool] = {}  # for each answered question: whether the tool call was approved
        self._tool_calls: dict[str, str] = {}  # for each open span of a tool: the id of the tool call
        self._retracted: list[str] = []
        self._working: set[str] = set()  # the ids of the open spans of LLM calls and tools
        self._is_in_step = False

    def read(self, event: Event) -> Iterator[UIChunk]:
        if not self._has_begun:
            yield self._begin()
        if isinstance(event, LLMStarted) and not event.replayed:
            yield from self._begin_step(event)
        for step in self._parts.read(event):
            yield from self._show(step)
        # A resumed run repeats events that the client already has. Of these, only the open questions are sent again.
        if not isinstance(event, StreamChunk) and (not event.replayed or isinstance(event, InputRequested)):
            yield from self._note(event)
        elif isinstance(event, InputReceived):
            self._note_approval(event)

    def finish(self, error: BaseException | None) -> Iterator[UIChunk]:
        if not self._has_begun:
            yield self._begin()
        for step in self._parts.end_all():
            yield from self._show(step)
        if self._is_in_step:
            yield {"type": "finish-step"}
        end = self._ending
        if isinstance(end, Cancelled) or isinstance(error, asyncio.CancelledError):
            reason = end.reason if isinstance(end, Cancelled) else str(error)
            yield {"type": "abort", "reason": reason} if reason else {"type": "abort"}
        elif error is not None:
            yield {"type": "error", "errorText": encodable(describe(error))}
        else:
            finish: UIChunk = {"type": "finish", "finishReason": self._finish_reason}
            if isinstance(end, FlowFinished):
                finish["messageMetadata"] = {"usage": end.usage.model_dump(exclude_none=True), "cost": end.cost}
            yield finish

    def _begin(self) -> UIChunk:
        self._has_begun = True
        return {"type": "start", "messageId": self._message_id}

    def _begin_step(self, event: LLMStarted) -> Iterator[UIChunk]:
        """Start a new step, unless an LLM call or a tool is still running in the current step."""
        if not self._working:
            if self._is_in_step:
                yield {"type": "finish-step"}
            self._is_in_step = True
            yield {"type": "start-step"}
        self._working.add(event.origin.span_id)

    def _show(self, step: Step) -> Iterator[UIChunk]:
        part = step.part
        match step.verb, part.kind:
            case "begin", "tool_call":
                self._inputs[part.id] = []
                yield {
                    "type": "tool-input-start",
                    "toolCallId": part.id,
                    "toolName": part.tool_name,
                    "dynamic": True,
                    "providerMetadata": _labels(part),
                }
            case "say", "tool_call":
                self._inputs[part.id].append(step.text)
                yield {"type": "tool-input-delta", "toolCallId": part.id, "inputTextDelta": encodable(step.text)}
            case "end", "tool_call":
                given = "".join(self._inputs.pop(part.id, ()))
                yield self._make_ready(part.id, part.tool_name, read_json(given), _labels(part))
            case "begin", kind:
                yield {"type": f"{kind}-start", "id": part.id, "providerMetadata": _labels(part)}
            case "say", kind:
                yield {"type": f"{kind}-delta", "id": part.id, "delta": encodable(step.text)}
            case "end", kind:
                yield {"type": f"{kind}-end", "id": part.id}
            case _:
                self._retracted.append(part.id)

    def _make_ready(self, tool_call_id: str, name: str, given: Any, labels: Any = None) -> UIChunk:
        self._ready[tool_call_id] = name
        chunk = {"type": "tool-input-available", "toolCallId": tool_call_id, "toolName": name, "input": given}
        return chunk | {"dynamic": True} | ({"providerMetadata": labels} if labels else {})

    def _request_approval(self, tool_call_id: str) -> UIChunk:
        request_id = self._approvals[tool_call_id]
        return {"type": "tool-approval-request", "approvalId": request_id, "toolCallId": tool_call_id}

    def _note(self, event: Any) -> Iterator[UIChunk]:
        match event:
            case ToolStarted(tool_id=tool_id, tool_name=name, arguments=arguments):
                self._working.add(event.origin.span_id)
                tool_call_id = tool_part_id(call_id_of(event), tool_id)
                self._tool_calls[event.origin.span_id] = tool_call_id
                self._parts.add_tool_call(event)
                # The client does not know the tool call yet in two cases: the model wrote the call in its answer's
                # text, or the model made the call before the run was resumed.
                if tool_call_id not in self._ready:
                    yield self._make_ready(tool_call_id, name, to_plain_json(arguments))
                    if tool_call_id in self._approvals:
                        yield self._request_approval(tool_call_id)
            case ToolFinished() | ToolFailed() | ToolCancelled():
                self._working.discard(event.origin.span_id)
                self._tool_calls.pop(event.origin.span_id, None)
                yield from self._give_result(event)
            case InputRequested(kind="approval"):
                tool_call_id = tool_part_id(call_id_of(event), event.tool_id)
                self._approvals[tool_call_id] = event.request_id
                # In a resumed run, the question may precede ToolStarted. The ToolStarted case then sends the request.
                if tool_call_id in self._ready:
                    yield self._request_approval(tool_call_id)
            case InputReceived(value=Approval()):
                self._note_approval(event)
            case InputReceived(request_id=request_id) if request_id in self._approvals.values():
                self._answers[request_id] = bool(event.value)
            case InputRequested():
                asked = {"kind": event.kind, "message": event.message, "options": list(event.options)}
                yield {"type": "data-input-request", "id": event.request_id, "data": asked | {"isAnswered": False}}
            case InputReceived(request_id=request_id):
                yield {"type": "data-input-request", "id": request_id, "data": {"isAnswered": True}}
            case StateChanged(state=state):
                yield {"type": "data-state", "id": "state", "data": to_plain_json(state)}
            case ToolProgress(progress=progress, total=total, message=message):
                data = {"progress": progress, "total": total, "message": message}
                yield {"type": "data-progress", "id": event.origin.span_id, "data": data}
            case Custom(name=name, value=value):
                yield {"type": f"data-{name}", "data": to_plain_json(value)}
            case Retracted(error=error):
                taken_back, self._retracted = self._retracted, []
                yield {"type": "data-retracted", "data": {"ids": taken_back, "reason": encodable(in_words(error))}}
            case LLMFinished(finish_reason=reason):
                self._working.discard(event.origin.span_id)
                self._finish_reason = FINISH_REASONS.get(reason or "stop", "other")
            case FlowPaused():
                self._finish_reason = "other"
            case _ if event.origin.span_id in self._working:
                # Only LLMFailed and LLMCancelled end a span here. The ends of tools are handled above.
                if isinstance(event, Failed | Cancelled):
                    self._working.discard(event.origin.span_id)
            case _:
                pass
        if not event.origin.parent_span_id:
            self._ending = event

    def _note_approval(self, event: InputReceived) -> None:
        """Note whether a tool call was approved.

        A run that is resumed with the answer does not ask again, so the question may be unknown here. The answer that
        was recorded before the run was resumed names no span. Only where the run repeats it, it belongs to a tool call.
        """
        if isinstance(event.value, Approval):
            self._approvals[self._tool_calls.get(event.origin.span_id, "")] = event.request_id
            self._answers[event.request_id] = event.value.approved

    def _give_result(self, event: ToolFinished | ToolFailed | ToolCancelled) -> Iterator[UIChunk]:
        tool_call_id = tool_part_id(call_id_of(event), event.tool_id)
        call: UIChunk = {"toolCallId": tool_call_id, "dynamic": True}
        request_id = self._approvals.get(tool_call_id, "")
        if isinstance(event, ToolFinished):
            yield {"type": "tool-output-available", "output": to_plain_json(event.result)} | call
        elif isinstance(event, ToolCancelled):
            if event.reason != WAITS:
                yield {"type": "tool-output-error", "errorText": event.reason or "cancelled"} | call
        elif self._answers.get(request_id) is False:
            yield {"type": "tool-output-denied", "toolCallId": tool_call_id}
        else:
            text = encodable(describe(event.error))
            if event.stage in ("arguments", "unknown"):
                given = {"toolName": event.tool_name, "input": to_plain_json(event.arguments)}
                yield {"type": "tool-input-error", "errorText": text} | given | call
            else:
                yield {"type": "tool-output-error", "errorText": text} | call


def _labels(part: Part) -> dict[str, Any]:
    """Return metadata of a part: its labels, and its id, because clients do not keep the id of a text part."""
    said = part.said if isinstance(part.said, StreamChunk) else part.said.origin
    return {"rxflow": {"id": part.id, "agent": said.agent_role, "task": said.task_name, "method": said.flow_method}}


def _read_messages(body: bytes) -> list[dict[str, Any]]:
    try:
        messages: Any = from_json(body)["messages"]
    except (ValueError, KeyError, TypeError) as error:
        raise HTTPException(422, f"not what useChat sends, a JSON object with messages: {body[:80]!r}") from error
    if not isinstance(messages, list):
        raise HTTPException(422, f"messages is not a list: {type(messages).__name__}")
    return [cast("dict[str, Any]", each) for each in cast("list[Any]", messages) if isinstance(each, dict)]


def _parts_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    parts = message.get("parts")
    return [each for each in cast("list[Any]", parts) if isinstance(each, dict)] if isinstance(parts, list) else []
