"""Chunks as streams hold them, with the labels that matter to a test."""

from typing import Any

import reactivex as rx
from reactivex import Observable

from rxflow.types.chunks import StreamChunk, StreamChunkType, ToolCallChunk


def said(content: str, **labels: Any) -> StreamChunk:
    """A piece of text."""
    return StreamChunk(content=content, **labels)


def delta(
    arguments: str, tool: str = "look", *, index: int = 0, tool_id: str | None = None, **labels: Any
) -> StreamChunk:
    """A piece of a tool call."""
    call = ToolCallChunk(
        tool_id=f"call_{index}" if tool_id is None else tool_id, tool_name=tool, arguments=arguments, index=index
    )
    return StreamChunk(content=arguments, chunk_type=StreamChunkType.TOOL_CALL, tool_call=call, **labels)


def cut(text: str, size: int) -> list[str]:
    """``text`` in pieces of one size."""
    return [text[start : start + size] for start in range(0, len(text), size)]


def bare(source: Observable[Any]) -> Observable[Any]:
    """What is shown of a run and nothing of what is behind it, as after any operator of RxPY."""
    return rx.concat(source)
