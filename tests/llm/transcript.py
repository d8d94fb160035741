"""A run as it can be compared with another."""

from typing import Any

from rxflow.types.chunks import StreamChunk
from rxflow.types.events import Event, LLMFailed, LLMFinished, LLMRetrying, LLMStarted, ReasoningChunk
from tests.signals import Outcome


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
