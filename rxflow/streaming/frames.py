"""A run as frames: how events become frames, and the sessions that programs iterate, whole or channel by channel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import uuid4

from rxflow.streaming.kickoff import RunFeed
from rxflow.streaming.log import Log
from rxflow.streaming.observable import EventStream
from rxflow.streaming.output import Readable
from rxflow.types import events as e
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import (
    CrewFinished,
    Event,
    Failed,
    Finished,
    FlowFinished,
    LLMFinished,
    Started,
    ToolFailed,
    ToolFinished,
    ToolStarted,
)
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
    e.ContentPart: ("llm_content_part", Channel.LLM),
    e.Retracted: ("retracted", Channel.LLM),
    e.Heartbeat: ("heartbeat", Channel.LIFECYCLE),
    StreamChunk: ("llm_stream_chunk", Channel.LLM),
}


class Framing:
    """Puts the events of one run into frames."""

    def __init__(self) -> None:
        self._seq = 0
        self._previous: str | None = None
        self._open: dict[str, str] = {}  # by span: the frame that began it

    def frame(self, event: Event) -> StreamFrame:
        """The frame of the next event."""
        kind, channel = _kind_of(event)
        labels = event if isinstance(event, StreamChunk) else event.origin
        frame = StreamFrame(
            id=str(uuid4()),
            seq=self._seq,
            type=kind,
            channel=channel,
            namespace=labels.namespace,
            timestamp=datetime.now(UTC),
            previous_id=self._previous,
            data=_data_of(event),
        )
        frame.parent_id = self._parent(event, frame.id)
        self._seq += 1
        self._previous = frame.id
        return frame

    def _parent(self, event: Event, frame_id: str) -> str | None:
        """The frame that began the span around this one. Notes the spans that begin and end."""
        if isinstance(event, StreamChunk):
            return self._open.get(event.span_id)
        bracket, around = event.origin.span_id, event.origin.parent_span_id
        if isinstance(event, ToolStarted | ToolFinished | ToolFailed):
            # The tools of one turn share the agent's span, and run at once.
            bracket, around = f"{bracket}#{event.tool_id}", bracket
        if isinstance(event, Started):
            self._open[bracket] = frame_id
            return self._open.get(around)
        if isinstance(event, Finished | Failed):
            return self._open.pop(bracket, None) or self._open.get(around)
        return self._open.get(bracket)


def _kind_of(event: Event) -> tuple[str, Channel]:
    """Type and channel; events of users' own classes go by their class's name, in the custom channel."""
    known = next((_KINDS[base] for base in type(event).__mro__ if base in _KINDS), None)
    return known or (type(event).__name__, Channel.CUSTOM)


def _data_of(event: Event) -> dict[str, Any]:
    if isinstance(event, StreamChunk):
        return event.model_dump()
    labels = {name: value for name, value in event.origin.labels.items() if value}
    return labels | {each.name: getattr(event, each.name) for each in fields(event) if each.name != "origin"}


class _Session(Readable[StreamFrame, Any]):
    """The frames of a run that begins with the first pull; see :class:`Readable` for what readers can rely on."""

    _items_are: ClassVar[str] = "frames"

    def __init__(
        self, source: EventStream[Event], finished: type[FlowFinished] | type[CrewFinished] | type[LLMFinished]
    ) -> None:
        log: Log[StreamFrame] = Log()
        super().__init__(log, RunFeed(log, source, finished, Framing().frame))

    @property
    def frames(self) -> list[StreamFrame]:
        """A copy of what has arrived so far."""
        return self._log.copy()

    @property
    def is_exhausted(self) -> bool:
        """The stream has ended, and there will be no more frames."""
        return self._log.is_ended


def _wanted(channels: Iterable[Channel | str]) -> frozenset[Channel]:
    """Raises ValueError for a channel that there is not."""
    given = [channels] if isinstance(channels, str) else list(channels)
    try:
        return frozenset(Channel(each) for each in given)
    except ValueError:
        known = ", ".join(Channel)
        raise ValueError(f"the channels are {known}; got {given!r}") from None


class StreamSession(_Session):
    """Frames for ``for``; each projection is a reader of its own over the whole stream."""

    @property
    def events(self) -> Iterator[StreamFrame]:
        """All frames."""
        return iter(self)

    @property
    def llm(self) -> Iterator[StreamFrame]:
        """Chunks, reasoning, calls."""
        return self.subscribe([Channel.LLM])

    @property
    def flow(self) -> Iterator[StreamFrame]:
        """Flows and their methods."""
        return self.subscribe([Channel.FLOW])

    @property
    def tools(self) -> Iterator[StreamFrame]:
        """Tool calls being carried out."""
        return self.subscribe([Channel.TOOLS])

    @property
    def messages(self) -> Iterator[StreamFrame]:
        """Conversation transcripts; rxflow emits none of its own."""
        return self.subscribe([Channel.MESSAGES])

    def interleave(self, channels: Iterable[Channel | str]) -> Iterator[StreamFrame]:
        """Several channels, in the order of the run. Raises ValueError for a channel that there is not."""
        return self.subscribe(channels)

    def subscribe(self, channels: Iterable[Channel | str]) -> Iterator[StreamFrame]:
        """The same under its other name."""
        wanted = _wanted(channels)
        return (frame for frame in self if frame.channel in wanted)


class AsyncStreamSession(_Session):
    """The same for ``async for``."""

    @property
    def events(self) -> AsyncIterator[StreamFrame]:
        """All frames."""
        return aiter(self)

    @property
    def llm(self) -> AsyncIterator[StreamFrame]:
        """Chunks, reasoning, calls."""
        return self.subscribe([Channel.LLM])

    @property
    def flow(self) -> AsyncIterator[StreamFrame]:
        """Flows and their methods."""
        return self.subscribe([Channel.FLOW])

    @property
    def tools(self) -> AsyncIterator[StreamFrame]:
        """Tool calls being carried out."""
        return self.subscribe([Channel.TOOLS])

    @property
    def messages(self) -> AsyncIterator[StreamFrame]:
        """Conversation transcripts; rxflow emits none of its own."""
        return self.subscribe([Channel.MESSAGES])

    def interleave(self, channels: Iterable[Channel | str]) -> AsyncIterator[StreamFrame]:
        """Several channels, in the order of the run. Raises ValueError for a channel that there is not."""
        return self.subscribe(channels)

    def subscribe(self, channels: Iterable[Channel | str]) -> AsyncIterator[StreamFrame]:
        """The same under its other name."""
        wanted = _wanted(channels)
        return (frame async for frame in self if frame.channel in wanted)
