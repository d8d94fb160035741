"""The frame: one event of a run in an envelope that interfaces can route and send on."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, field_serializer
from pydantic_core import to_jsonable_python


class Channel(StrEnum):
    """What a frame is about: a reader of one channel sees its frames in the order of the run."""

    LLM = "llm"
    FLOW = "flow"
    TOOLS = "tools"
    MESSAGES = "messages"
    LIFECYCLE = "lifecycle"
    CUSTOM = "custom"


class StreamFrame(BaseModel):
    """One event: ``type`` says which, ``data`` what.

    ``parent_id`` is the frame that opened the bracket around this one, ``previous_id`` the frame before it;
    ``namespace`` names the enclosing flows, methods and crews, outermost first. ``seq`` counts from 0.
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

    @field_serializer("data", when_used="json")
    def _plain(self, data: dict[str, Any]) -> Any:
        """Errors and users' own objects in words, so that every frame can be sent on."""
        return to_jsonable_python(data, fallback=_in_words)

    @property
    def content(self) -> str:
        """The text of a token-like frame, else the empty string."""
        if self.type not in ("llm_stream_chunk", "llm_thinking_chunk"):
            return ""
        return str(self.data.get("content", ""))

    @property
    def event(self) -> dict[str, Any]:
        """Another name for ``data``."""
        return self.data


def _in_words(value: Any) -> Any:
    if isinstance(value, BaseException):
        return {"type": type(value).__name__, "message": str(value)}
    return str(value)
