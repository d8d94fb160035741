"""Items that carry text: strings, text chunks, and pieces of reasoning."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Any

from rxflow.types.chunks import StreamChunk, StreamChunkType
from rxflow.types.events import Happened, ReasoningChunk

_TEXT = StreamChunkType.TEXT


def text_of(item: object) -> str | None:
    """The text that an item carries; None where it carries none, as the arguments of a tool call."""
    if isinstance(item, StreamChunk):
        return item.content if item.chunk_type is _TEXT else None
    if isinstance(item, str):
        return item
    return item.content if isinstance(item, ReasoningChunk) else None


def with_text(item: Any, text: str) -> Any:
    """The same item, saying ``text``."""
    if isinstance(item, StreamChunk):
        return item.with_content(text)
    return text if isinstance(item, str) else replace(item, content=text)


def place_of(item: object) -> str:
    """The bracket of the run that an item stands in: two calls that speak at once differ in it."""
    if isinstance(item, StreamChunk):
        return item.span_id or item.llm_call_id
    return item.origin.span_id if isinstance(item, Happened) else ""


def speaker_of(item: object) -> tuple[Hashable, ...] | None:
    """Who speaks in one call at a time: an agent on a task, in one method. None where the item does not say."""
    if isinstance(item, StreamChunk) and item.task_id:
        return item.task_id, item.agent_id, item.namespace
    return None


def is_said(item: object) -> bool:
    """Something that a model said, or any item that is not rxflow's: not an event about what goes on around it."""
    return isinstance(item, ReasoningChunk) or not isinstance(item, Happened)
