"""Frames: the events of a run as JSON, for user interfaces and for sending."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, cast

from pydantic import BaseModel, field_validator
from pydantic_core import from_json

from rxflow._text import encodable, in_words, through_json, to_plain_json
from rxflow.types.chunks import StreamChunk


class Channel(StrEnum):
    """The subject of a frame. Readers may select frames by channel."""

    LLM = "llm"
    FLOW = "flow"
    TOOLS = "tools"
    MESSAGES = "messages"
    LIFECYCLE = "lifecycle"
    CUSTOM = "custom"


class StreamFrame(BaseModel):
    """One event of a run as JSON. ``type`` is the kind of the event. ``data`` holds the event's fields and labels.

    ``parent_id`` is the ``id`` of the frame that opened the event's span. If the event itself opens a span,
    ``parent_id`` is the ``id`` of the frame that opened the surrounding span. ``previous_id`` is the ``id`` of the
    previous frame. ``namespace`` holds the names of the surrounding flows, methods, crews and tasks, outermost
    first. ``seq`` is the number of the event in its run, from 0.
    """

    id: str
    seq: int
    type: str
    channel: Channel
    namespace: tuple[str, ...] = ()
    timestamp: datetime
    parent_id: str | None = None
    previous_id: str | None = None
    data: dict[str, Any]

    def __hash__(self) -> int:
        return hash((self.id, self.seq))

    @field_validator("data", mode="before")
    @classmethod
    def _make_plain(cls, data: Any) -> Any:
        """Convert ``data`` to plain JSON, so that the sender and the receiver have equal frames.

        An error becomes its class name and message. Any other object that JSON cannot represent becomes text.
        """
        if not isinstance(data, dict | StreamChunk):
            return data
        try:
            if isinstance(data, StreamChunk):
                return from_json(data.model_dump_json())  # needs a third less time than to_json() with a fallback
            return through_json(cast(object, data), _in_words)
        except ValueError:  # the data contain, for example, half a surrogate pair
            values = data.model_dump() if isinstance(data, StreamChunk) else cast(dict[str, Any], data)
            return {encodable(str(name)): to_plain_json(value, _in_words) for name, value in values.items()}

    @property
    def content(self) -> str:
        """The content of a chunk or of reasoning text; an empty string for frames of other types."""
        if self.type not in ("llm_stream_chunk", "llm_thinking_chunk"):
            return ""
        return str(self.data.get("content", ""))

    @property
    def event(self) -> dict[str, Any]:
        """Another name for ``data``."""
        return self.data


def _in_words(value: Any) -> Any:
    if isinstance(value, BaseException):
        return {"type": type(value).__name__, "message": in_words(value)}
    return in_words(value)
