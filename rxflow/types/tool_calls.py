"""A tool call, whole: what the model wrote, and what that means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rxflow.types.events import Happened


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletedToolCall(Happened):
    """A tool call of a model, put together from its pieces; ``origin`` says who makes it.

    ``written`` is the JSON text as it came. ``arguments`` are what it says, validated where the tool is known; they are
    empty where ``error`` says why it cannot be used: no JSON object, or one that does not fit (pydantic's
    ValidationError, which is a ValueError).
    """

    tool_id: str
    tool_name: str
    written: str
    arguments: Mapping[str, Any]
    error: ValueError | None = None
