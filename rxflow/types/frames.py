"""The frame: one event of a run in an envelope that interfaces can route and send on."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, cast

from pydantic import BaseModel, field_validator
from pydantic_core import from_json, to_json, to_jsonable_python

from rxflow._json_text import encodable, in_words
from rxflow.types.chunks import StreamChunk


class Channel(StrEnum):
    """What a frame is about: a reader of one channel sees its frames in the order of the run."""

    LLM = "llm"
    FLOW = "flow"
    TOOLS = "tools"
    MESSAGES = "messages"
    LIFECYCLE = "lifecycle"
    CUSTOM = "custom"


class StreamFrame(BaseModel):
    """One event: ``type`` says which, ``data`` what, as plain JSON.

    ``parent_id`` is the frame that began the span around this one, ``previous_id`` the frame before it;
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

    def __hash__(self) -> int:
        return hash((self.id, self.seq))

    @field_validator("data", mode="before")
    @classmethod
    def _make_plain(cls, data: Any) -> Any:
        """JSON, with errors and users' own objects in words. So a frame is the same here and at its receiver."""
        if not isinstance(data, dict | StreamChunk):
            return data
        try:
            return _through_json(data)
        except ValueError:  # a character cut in two, for instance
            values = data.model_dump() if isinstance(data, StreamChunk) else cast(dict[str, Any], data)
            return {encodable(str(name)): _rescue(value) for name, value in values.items()}

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


def _through_json(value: Any) -> Any:
    return from_json(to_json(value, fallback=_in_words, inf_nan_mode="null"))


def _in_words(value: Any) -> Any:
    if isinstance(value, BaseException):
        return {"type": type(value).__name__, "message": in_words(value)}
    return in_words(value)


def _rescue(value: Any) -> Any:
    """What pydantic does not take, with all of it that is text."""
    try:
        return _through_json(json.loads(encodable(json.dumps(value, default=_in_parts, ensure_ascii=False))))
    except (ValueError, TypeError, RecursionError):  # it holds itself, or has names that are not text
        return encodable(in_words(value))


def _in_parts(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, BaseModel):
        return dict(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in fields(value)}
    return to_jsonable_python(value, fallback=_in_words)
