"""From events to frames."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from rxflow.types import events as e
from rxflow.types.chunks import Origin, StreamChunk
from rxflow.types.events import Event
from rxflow.types.frames import Channel, StreamFrame

_KINDS: dict[type[Event], tuple[str, Channel]] = {
    e.FlowStarted: ("flow_started", Channel.FLOW),
    e.FlowFinished: ("flow_finished", Channel.FLOW),
    e.FlowFailed: ("flow_failed", Channel.FLOW),
    e.MethodStarted: ("method_execution_started", Channel.FLOW),
    e.MethodFinished: ("method_execution_finished", Channel.FLOW),
    e.MethodFailed: ("method_execution_failed", Channel.FLOW),
    e.CrewStarted: ("crew_kickoff_started", Channel.LIFECYCLE),
    e.CrewFinished: ("crew_kickoff_completed", Channel.LIFECYCLE),
    e.CrewFailed: ("crew_kickoff_failed", Channel.LIFECYCLE),
    e.TaskStarted: ("task_started", Channel.LIFECYCLE),
    e.TaskRejected: ("task_rejected", Channel.LIFECYCLE),
    e.TaskFinished: ("task_completed", Channel.LIFECYCLE),
    e.TaskFailed: ("task_failed", Channel.LIFECYCLE),
    e.AgentStarted: ("agent_execution_started", Channel.LIFECYCLE),
    e.AgentFinished: ("agent_execution_completed", Channel.LIFECYCLE),
    e.AgentFailed: ("agent_execution_error", Channel.LIFECYCLE),
    e.ToolStarted: ("tool_usage_started", Channel.TOOLS),
    e.ToolFinished: ("tool_usage_finished", Channel.TOOLS),
    e.ToolFailed: ("tool_usage_error", Channel.TOOLS),
    e.LLMStarted: ("llm_call_started", Channel.LLM),
    e.LLMRetrying: ("llm_call_retrying", Channel.LLM),
    e.LLMFinished: ("llm_call_completed", Channel.LLM),
    e.LLMFailed: ("llm_call_failed", Channel.LLM),
    e.ReasoningChunk: ("llm_thinking_chunk", Channel.LLM),
    StreamChunk: ("llm_stream_chunk", Channel.LLM),
}

_OPENING = ("_started",)
_CLOSING = ("_finished", "_completed", "_failed", "_error")
_LEAVES = ("llm", "tool")  # kinds of brackets that enclose no other bracket


@dataclass(frozen=True, slots=True)
class _Bracket:
    kind: str
    key: str
    frame_id: str


class Framing:
    """Puts the events of one run into frames."""

    def __init__(self) -> None:
        self._seq = 0
        self._previous: str | None = None
        self._open: dict[tuple[str, ...], list[_Bracket]] = {}

    def frame(self, event: Event) -> StreamFrame:
        """The frame of the next event."""
        origin = _origin_of(event)
        kind, channel = _KINDS[type(event)]
        frame = StreamFrame(
            id=str(uuid4()),
            seq=self._seq,
            type=kind,
            channel=channel,
            namespace=origin.namespace,
            timestamp=datetime.now(UTC),
            previous_id=self._previous,
            data=_data_of(event),
        )
        frame.parent_id = self._parent(frame, origin, event)
        self._seq += 1
        self._previous = frame.id
        return frame

    def _parent(self, frame: StreamFrame, origin: Origin, event: Event) -> str | None:
        kind = frame.type.partition("_")[0]
        key = getattr(event, "tool_id", origin.llm_call_id)
        here = self._open.setdefault(origin.namespace, [])
        own = next((each for each in reversed(here) if (each.kind, each.key) == (kind, key)), None)
        if frame.type.endswith(_OPENING):
            around = self._around(origin.namespace)
            here.append(_Bracket(kind, key, frame.id))
            return around
        if own is None:
            return self._around(origin.namespace)
        if frame.type.endswith(_CLOSING):
            here.remove(own)
        return own.frame_id

    def _around(self, namespace: tuple[str, ...]) -> str | None:
        """The innermost bracket that is open here or further out."""
        for depth in range(len(namespace), -1, -1):
            for bracket in reversed(self._open.get(namespace[:depth], [])):
                if bracket.kind not in _LEAVES:
                    return bracket.frame_id
        return None


def _origin_of(event: Event) -> Origin:
    if isinstance(event, StreamChunk):
        return Origin(llm_call_id=event.llm_call_id, namespace=event.namespace)
    return event.origin


def _data_of(event: Event) -> dict[str, Any]:
    if isinstance(event, StreamChunk):
        return event.model_dump()
    labels = {name: value for name, value in event.origin.labels.items() if value}
    return labels | {each.name: getattr(event, each.name) for each in fields(event) if each.name != "origin"}
