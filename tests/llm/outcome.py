"""What a call came to, as a test looks at it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from reactivex import Observable

from rxflow.types.chunks import StreamChunk, StreamChunkType
from rxflow.types.events import Event, LLMFailed, LLMFinished, LLMRetrying, LLMStarted, ReasoningChunk

E = TypeVar("E")

ENDLESS = 10.0


@dataclass
class Outcome:
    """All events of one run, and the error that it ended with."""

    events: list[Event] = field(default_factory=list[Event])
    error: BaseException | None = None

    def of(self, kind: type[E]) -> list[E]:
        """The events of one type, in their order."""
        return [event for event in self.events if isinstance(event, kind)]

    def one(self, kind: type[E]) -> E:
        """The only event of one type."""
        (event,) = self.of(kind)
        return event

    @property
    def texts(self) -> list[str]:
        return [each.content for each in self.of(StreamChunk) if each.chunk_type is StreamChunkType.TEXT]

    @property
    def text(self) -> str:
        return "".join(self.texts)


def outcome(source: Observable[Event], on_next: Callable[[Event], object] = lambda _: None) -> Outcome:
    """Subscribe and wait for the end; ``on_next`` sees each event as it comes."""
    seen = Outcome()
    ended = threading.Event()

    def take(event: Event) -> None:
        seen.events.append(event)
        on_next(event)

    def fail(error: BaseException) -> None:
        seen.error = error
        ended.set()

    source.subscribe(take, fail, ended.set)
    assert ended.wait(ENDLESS), f"no terminal within {ENDLESS} s; so far {seen.events}"
    return seen


def transcript(seen: Outcome) -> list[tuple[Any, ...]]:
    """The events without what differs from run to run, so that two runs can be compared."""
    return [_told(event) for event in seen.events]


def _told(event: Event) -> tuple[Any, ...]:
    match event:
        case StreamChunk(tool_call=None):
            return ("text", event.content, event.seq)
        case StreamChunk(tool_call=call):
            return ("tool call", event.content, event.seq, call)
        case ReasoningChunk():
            return ("reasoning", event.content)
        case LLMStarted():
            return ("started", event.model, list(event.messages))
        case LLMRetrying():
            return ("retrying", type(event.error))
        case LLMFinished():
            return (
                "finished",
                event.text,
                event.tool_calls,
                event.reasoning,
                event.finish_reason,
                event.usage,
                event.cost,
            )
        case LLMFailed():
            return ("failed", type(event.error), event.text, str(event.error))
        case _:
            return (type(event).__name__,)
