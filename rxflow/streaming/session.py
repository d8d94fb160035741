"""Sessions: a run as frames, whole or channel by channel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, ClassVar

from rxflow.streaming.framing import Framing
from rxflow.streaming.kickoff import RunFeed
from rxflow.streaming.log import Log
from rxflow.streaming.observable import EventStream
from rxflow.streaming.output import Readable
from rxflow.types.events import CrewFinished, Event, FlowFinished, LLMFinished
from rxflow.types.frames import Channel, StreamFrame


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
        return self._log.items.copy()

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
