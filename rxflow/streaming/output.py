"""What ``kickoff()`` gives a streaming program: the chunks of a flow or a crew."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar, Generic, TypeVar, cast

from rxflow.streaming.feed import Feed
from rxflow.streaming.launch import RunObservable
from rxflow.streaming.log import Log
from rxflow.streaming.plain import PlainAsyncFeed, PlainFeed
from rxflow.streaming.readable import Readable
from rxflow.streaming.run_feed import RunFeed
from rxflow.types.chunks import PackedChunks, StreamChunk, join_text
from rxflow.types.events import CrewFinished, Event, FlowFinished, TaskFinished
from rxflow.types.results import AgentOutput, CrewOutput

T = TypeVar("T")


class StreamingOutput(Readable[StreamChunk, T], Generic[T]):
    """The chunks of a run that begins with the first pull; see :class:`Readable` for what readers can rely on."""

    _items_are = "chunks"
    _finished: ClassVar[
        type[FlowFinished] | type[CrewFinished] | type[TaskFinished]
    ]  # the event that carries the result

    def __init__(
        self,
        sync_iterator: Iterator[StreamChunk] | None = None,
        async_iterator: AsyncIterator[StreamChunk] | None = None,
        *,
        source: RunObservable | None = None,
        result: T | None = None,
    ) -> None:
        given = [each for each in (sync_iterator, async_iterator, source) if each is not None]
        if len(given) != 1:
            raise TypeError(
                f"{type(self).__name__} takes exactly one of sync_iterator, async_iterator and source; got {len(given)}"
            )
        log: Log[StreamChunk] = Log()
        feed: Feed
        if source is not None:
            feed = RunFeed(log, source, self._finished, _chunk)
        elif sync_iterator is not None:
            feed = PlainFeed(log, sync_iterator, result)
        else:
            feed = PlainAsyncFeed(log, cast(AsyncIterator[StreamChunk], async_iterator), result)
        super().__init__(log, feed)

    @property
    def chunks(self) -> list[StreamChunk]:
        """A copy of what has arrived so far."""
        return self._log.copy()

    def get_full_text(self) -> str:
        """The TEXT chunks that have arrived so far, joined."""
        blocks = self._log.blocks.copy()
        return "".join(block.read_text() if isinstance(block, PackedChunks) else join_text(block) for block in blocks)


class FlowStreamingOutput(StreamingOutput[Any]):
    """The stream of one flow run; ``result`` is that of the last method to complete."""

    _finished = FlowFinished


class CrewStreamingOutput(StreamingOutput[CrewOutput]):
    """The stream of one crew run; ``result`` is a :class:`CrewOutput`."""

    _finished = CrewFinished


class AgentStreamingOutput(StreamingOutput[AgentOutput]):
    """The stream of one ``agent.kickoff(…)``; ``result`` is an :class:`AgentOutput`."""

    _finished = TaskFinished


def _chunk(event: Event) -> StreamChunk | None:
    return event if isinstance(event, StreamChunk) else None
