"""Frames: turns the events of a run into frames, and offers sessions from which programs read the frames."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import fields
from datetime import UTC, datetime
from os import urandom
from typing import Any, ClassVar

from rxflow._streaming.kickoff import RunFeed
from rxflow._streaming.log import Log
from rxflow._streaming.observable import EventStream
from rxflow._streaming.output import Readable
from rxflow.types import (
    Cancelled,
    Channel,
    CrewFinished,
    Event,
    Failed,
    Finished,
    FlowFinished,
    Happened,
    LLMFinished,
    Started,
    StreamChunk,
    StreamFrame,
    events as e,
)

_KINDS: dict[type[Event], tuple[str, Channel]] = {
    e.FlowStarted: ("flow_started", Channel.FLOW),
    e.FlowFinished: ("flow_finished", Channel.FLOW),
    e.FlowFailed: ("flow_failed", Channel.FLOW),
    e.FlowCancelled: ("flow_cancelled", Channel.FLOW),
    e.MethodStarted: ("method_execution_started", Channel.FLOW),
    e.MethodFinished: ("method_execution_finished", Channel.FLOW),
    e.MethodFailed: ("method_execution_failed", Channel.FLOW),
    e.MethodCancelled: ("method_execution_cancelled", Channel.FLOW),
    e.CrewStarted: ("crew_kickoff_started", Channel.LIFECYCLE),
    e.CrewFinished: ("crew_kickoff_completed", Channel.LIFECYCLE),
    e.CrewFailed: ("crew_kickoff_failed", Channel.LIFECYCLE),
    e.CrewCancelled: ("crew_kickoff_cancelled", Channel.LIFECYCLE),
    e.TaskStarted: ("task_started", Channel.LIFECYCLE),
    e.TaskRejected: ("task_rejected", Channel.LIFECYCLE),
    e.TaskFinished: ("task_completed", Channel.LIFECYCLE),
    e.TaskFailed: ("task_failed", Channel.LIFECYCLE),
    e.TaskCancelled: ("task_cancelled", Channel.LIFECYCLE),
    e.AgentStarted: ("agent_execution_started", Channel.LIFECYCLE),
    e.AgentFinished: ("agent_execution_completed", Channel.LIFECYCLE),
    e.AgentFailed: ("agent_execution_error", Channel.LIFECYCLE),
    e.AgentCancelled: ("agent_execution_cancelled", Channel.LIFECYCLE),
    e.ToolStarted: ("tool_usage_started", Channel.TOOLS),
    e.ToolFinished: ("tool_usage_finished", Channel.TOOLS),
    e.ToolFailed: ("tool_usage_error", Channel.TOOLS),
    e.ToolCancelled: ("tool_usage_cancelled", Channel.TOOLS),
    e.LLMStarted: ("llm_call_started", Channel.LLM),
    e.LLMRetrying: ("llm_call_retrying", Channel.LLM),
    e.LLMFinished: ("llm_call_completed", Channel.LLM),
    e.LLMFailed: ("llm_call_failed", Channel.LLM),
    e.LLMCancelled: ("llm_call_cancelled", Channel.LLM),
    e.ReasoningChunk: ("llm_thinking_chunk", Channel.LLM),
    e.ContentPart: ("llm_content_part", Channel.LLM),
    e.Retracted: ("retracted", Channel.LLM),
    e.Heartbeat: ("heartbeat", Channel.LIFECYCLE),
    e.StateChanged: ("state_changed", Channel.FLOW),
    e.MessageAdded: ("message_added", Channel.MESSAGES),
    e.ToolProgress: ("tool_progress", Channel.TOOLS),
    e.Custom: ("custom", Channel.CUSTOM),
    e.InputRequested: ("input_requested", Channel.LIFECYCLE),
    e.InputReceived: ("input_received", Channel.LIFECYCLE),
    e.FlowPaused: ("flow_paused", Channel.FLOW),
    e.FlowResumed: ("flow_resumed", Channel.FLOW),
    StreamChunk: ("llm_stream_chunk", Channel.LLM),
}


# The fields of an event that are not entries of the frame's ``data``. For ``seq`` and ``at``, a frame has the fields
# ``seq`` and ``timestamp``. Instead of ``origin``, ``data`` has an entry for each label that is set. ``replayed`` is
# left out.
_ENVELOPE = {"origin", "seq", "at", "replayed"}


class Framing:
    """Turns the events of one run into frames."""

    def __init__(self) -> None:
        # The number of frames so far. If an event has no number, its frame gets this number as ``seq``.
        self._count = 0
        self._previous: str | None = None
        self._open: dict[str, str] = {}  # by span_id of an open span: the id of the frame that opened the span

    def frame(self, event: Event) -> StreamFrame:
        """Return the frame for ``event``. Call this with the events of the run in their order."""
        if not isinstance(event, Happened | StreamChunk):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a frame needs an event or a chunk; got {event!r}")
        kind, channel = _kind_of(event)
        labels = event if isinstance(event, StreamChunk) else event.origin
        frame_id = _make_id()
        frame = StreamFrame(
            id=frame_id,
            seq=event.seq if event.seq >= 0 else self._count,
            type=kind,
            channel=channel,
            namespace=labels.namespace,
            timestamp=datetime.fromtimestamp(event.at, UTC) if event.seq >= 0 else datetime.now(UTC),
            parent_id=self._parent(event, frame_id),
            previous_id=self._previous,
            data=_data_of(event),
        )
        self._count += 1
        self._previous = frame_id
        return frame

    def _parent(self, event: Event, frame_id: str) -> str | None:
        """Return the ``parent_id`` for the frame of ``event``, and note which spans begin and end.

        The ``parent_id`` is the id of the frame that opened the span of ``event``. If ``event`` itself opens a span, or
        ends an unknown span, the ``parent_id`` is the id of the frame that opened the surrounding span. If there is no
        such frame, the ``parent_id`` is None.
        """
        if isinstance(event, StreamChunk):
            return self._open.get(event.span_id)
        span, around = event.origin.span_id, event.origin.parent_span_id
        if isinstance(event, Started):
            self._open[span] = frame_id
            return self._open.get(around)
        if isinstance(event, Finished | Failed | Cancelled | e.FlowPaused):
            return self._open.pop(span, None) or self._open.get(around)
        return self._open.get(span)


def _make_id() -> str:
    """Return a random UUID. ``str(uuid4())`` does the same, but takes four times as long."""
    digits = urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def _kind_of(event: Event) -> tuple[str, Channel]:
    """Return the ``type`` and the ``channel`` for the frame of ``event``.

    A subclass of a class in ``_KINDS`` gets the type and the channel of that class. For any other class, the type is
    the name of the class, and the channel is CUSTOM.
    """
    kind = type(event)
    known = _KINDS.get(kind) or next((_KINDS[base] for base in kind.__mro__ if base in _KINDS), None)
    return known or (kind.__name__, Channel.CUSTOM)


def _data_of(event: Event) -> Any:
    if isinstance(event, StreamChunk):
        return event  # StreamFrame itself converts the chunk
    labels = {name: value for name, value in event.origin.labels.items() if value}
    return labels | {each.name: getattr(event, each.name) for each in fields(event) if each.name not in _ENVELOPE}


class _Session(Readable[StreamFrame, Any]):
    """The frames of a run. The first reader starts the run. :class:`Readable` describes what readers can rely on."""

    _items_are: ClassVar[str] = "frames"

    def __init__(
        self, source: EventStream[Event], finished: type[FlowFinished] | type[CrewFinished] | type[LLMFinished]
    ) -> None:
        log: Log[StreamFrame] = Log()
        super().__init__(log, RunFeed(log, source, finished, Framing().frame))

    @property
    def frames(self) -> list[StreamFrame]:
        """A copy of the frames that have arrived so far."""
        return self._log.copy()

    @property
    def is_exhausted(self) -> bool:
        """Whether the stream has ended. No more frames will arrive then."""
        return self._log.is_ended


def _read_channels(channels: Iterable[Channel | str]) -> frozenset[Channel]:
    """Return the requested channels as a set. Raises ValueError if a channel is unknown."""
    given = [channels] if isinstance(channels, str) else list(channels)
    try:
        return frozenset(Channel(each) for each in given)
    except ValueError:
        known = ", ".join(Channel)
        raise ValueError(f"the channels are {known}; got {given!r}") from None


class StreamSession(_Session):
    """The frames of a run, for ``for`` loops.

    Each access to ``events``, ``llm``, ``flow``, ``tools`` or ``messages`` returns a new iterator, which begins at the
    start of the run.
    """

    @property
    def events(self) -> Iterator[StreamFrame]:
        """All frames."""
        return iter(self)

    @property
    def llm(self) -> Iterator[StreamFrame]:
        """Frames about model calls, for example starts, ends, chunks, reasoning and retractions."""
        return self.subscribe([Channel.LLM])

    @property
    def flow(self) -> Iterator[StreamFrame]:
        """Frames about flows and methods, for example starts, ends, state changes and pauses."""
        return self.subscribe([Channel.FLOW])

    @property
    def tools(self) -> Iterator[StreamFrame]:
        """Frames about tool calls."""
        return self.subscribe([Channel.TOOLS])

    @property
    def messages(self) -> Iterator[StreamFrame]:
        """Frames about messages that are added to the agents' conversations."""
        return self.subscribe([Channel.MESSAGES])

    def interleave(self, channels: Iterable[Channel | str]) -> Iterator[StreamFrame]:
        """Return an iterator over the frames of ``channels``, in the order of the run.

        Raises:
            ValueError: a channel is unknown.
        """
        return self.subscribe(channels)

    def subscribe(self, channels: Iterable[Channel | str]) -> Iterator[StreamFrame]:
        """Do the same as :meth:`interleave`."""
        wanted = _read_channels(channels)
        return (frame for frame in self if frame.channel in wanted)


class AsyncStreamSession(_Session):
    """The frames of a run, for ``async for`` loops.

    Each access to ``events``, ``llm``, ``flow``, ``tools`` or ``messages`` returns a new iterator, which begins at the
    start of the run.
    """

    @property
    def events(self) -> AsyncIterator[StreamFrame]:
        """All frames."""
        return aiter(self)

    @property
    def llm(self) -> AsyncIterator[StreamFrame]:
        """Frames about model calls, for example starts, ends, chunks, reasoning and retractions."""
        return self.subscribe([Channel.LLM])

    @property
    def flow(self) -> AsyncIterator[StreamFrame]:
        """Frames about flows and methods, for example starts, ends, state changes and pauses."""
        return self.subscribe([Channel.FLOW])

    @property
    def tools(self) -> AsyncIterator[StreamFrame]:
        """Frames about tool calls."""
        return self.subscribe([Channel.TOOLS])

    @property
    def messages(self) -> AsyncIterator[StreamFrame]:
        """Frames about messages that are added to the agents' conversations."""
        return self.subscribe([Channel.MESSAGES])

    def interleave(self, channels: Iterable[Channel | str]) -> AsyncIterator[StreamFrame]:
        """Return an iterator over the frames of ``channels``, in the order of the run.

        Raises:
            ValueError: a channel is unknown.
        """
        return self.subscribe(channels)

    def subscribe(self, channels: Iterable[Channel | str]) -> AsyncIterator[StreamFrame]:
        """Do the same as :meth:`interleave`."""
        wanted = _read_channels(channels)
        return (frame async for frame in self if frame.channel in wanted)
