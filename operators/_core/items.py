"""Properties of a stream's items: their text, span, speaker and origin."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import fields, replace
from reprlib import Repr
from typing import Any

from rxflow.types import Happened, Origin, ReasoningChunk, StreamChunk, StreamChunkType

NO_ORIGIN = Origin()
_TEXT = StreamChunkType.TEXT
_LABELS = [field.name for field in fields(Origin) if field.name in StreamChunk.model_fields]
_short = Repr()
_short.maxstring = _short.maxother = 60


def get_text(item: object) -> str | None:
    """Return the text of an item; None if it has none, such as a tool call."""
    if isinstance(item, StreamChunk):
        return item.content if item.chunk_type is _TEXT else None
    if isinstance(item, str):
        return item
    return item.content if isinstance(item, ReasoningChunk) else None


def replace_text(item: Any, text: str) -> Any:
    """Return a copy of the item with another text."""
    if isinstance(item, StreamChunk):
        return item.with_content(text)
    return text if isinstance(item, str) else replace(item, content=text)


def get_span_id(item: object) -> str:
    """Return the id of an item's span, which distinguishes concurrent LLM calls; an empty string if it has none."""
    if isinstance(item, StreamChunk):
        return item.span_id or item.llm_call_id
    return item.origin.span_id if isinstance(item, Happened) else ""


def get_speaker(item: object) -> tuple[Hashable, ...] | None:
    """Return the key of an agent's work on a task; None if the item belongs to no task.

    An agent that works on a task streams one call at a time, so calls with the same key follow each other.
    """
    if isinstance(item, StreamChunk) and item.task_id:
        return item.task_id, item.agent_id, item.namespace
    return None


def is_content(item: object) -> bool:
    """Return whether an item is output of a model, or is not rxflow's. All other items are events about the run."""
    return isinstance(item, ReasoningChunk) or not isinstance(item, Happened)


def get_origin(item: object) -> Origin:
    """Return the origin of an event or chunk; an empty origin for other items."""
    if isinstance(item, StreamChunk):
        return Origin(**{name: getattr(item, name) for name in _LABELS})
    return item.origin if isinstance(item, Happened) else NO_ORIGIN


def get_namespace(item: object) -> tuple[str, ...]:
    """Return the flows, methods, crews and tasks around an item, outermost first."""
    return item.namespace if isinstance(item, StreamChunk) else get_origin(item).namespace


def describe(item: object) -> str:
    """Describe an item for a message.

    The text has the kind and the innermost labels. ::

        LLMStarted of agent 'Writer', task 'Draft'
    """
    kind = type(item).__name__ if isinstance(item, Happened) else _short.repr(str(item))
    origin = get_origin(item)
    labels = {
        "agent": origin.agent_role,
        "task": origin.task_name,
        "crew": origin.crew_name,
        "method": origin.flow_method,
        "flow": origin.flow_name,
    }
    named = [f"{level} {name!r}" for level, name in labels.items() if name][:2]
    return f"{kind} of {', '.join(named)}" if named else kind
