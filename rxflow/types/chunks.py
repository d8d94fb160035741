"""The chunk: one piece of what a model produced, and where it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from functools import cached_property
from typing import Any

from pydantic import BaseModel


class StreamChunkType(str, Enum):  # noqa: UP042 - a StrEnum would print as its value
    """What a chunk carries: answer text, or a piece of a tool call.

    A member equals its value, ``"text"``, and prints as ``StreamChunkType.TEXT``.
    """

    TEXT = "text"
    TOOL_CALL = "tool_call"


class ToolCallChunk(BaseModel):
    """One delta of a tool call: ``arguments`` is the new piece of JSON text, name and id are always there."""

    tool_id: str | None = None
    tool_name: str | None = None
    arguments: str = ""
    index: int = 0


class StreamChunk(BaseModel):
    """A piece of model output, labelled with its task, agent, flow method and LLM call.

    ``content`` is the new text (for a tool call: the new piece of its arguments). ``seq`` counts the chunks of
    one run from 0 in the order of arrival; ``attempt`` counts the answers of a task that were sent back;
    ``namespace`` names the enclosing flows, methods, crews and tasks, outermost first; ``span_id`` is the bracket of
    the run that it stands in, which tells two runs of one crew apart.
    """

    content: str
    chunk_type: StreamChunkType = StreamChunkType.TEXT
    task_index: int = 0
    task_name: str = ""
    task_id: str = ""
    agent_role: str = ""
    agent_id: str = ""
    tool_call: ToolCallChunk | None = None
    crew_name: str = ""
    flow_name: str = ""
    flow_id: str = ""
    flow_method: str = ""
    llm_call_id: str = ""
    namespace: tuple[str, ...] = ()
    span_id: str = ""
    attempt: int = 0
    seq: int = 0

    def __str__(self) -> str:
        return self.content

    def with_content(self, content: str) -> StreamChunk:
        """The same chunk with other text."""
        values = self.__dict__.copy()
        values["content"] = content
        return _filled(values)

    def with_attempt(self, attempt: int) -> StreamChunk:
        """The same chunk as part of another attempt."""
        values = self.__dict__.copy()
        values["attempt"] = attempt
        return _filled(values)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a chunk or an event comes from; empty where a level is not involved.

    ``namespace`` names the flows, methods and crews that enclose it, outermost first. ``span_id`` is the bracket (a
    flow, a method, a crew, a task, an agent's attempt, an LLM call), ``parent_span_id`` the one around it.
    """

    flow_name: str = ""
    flow_id: str = ""
    flow_method: str = ""
    crew_name: str = ""
    task_index: int = 0
    task_name: str = ""
    task_id: str = ""
    agent_role: str = ""
    agent_id: str = ""
    llm_call_id: str = ""
    attempt: int = 0
    namespace: tuple[str, ...] = ()
    span_id: str = ""
    parent_span_id: str = ""

    @cached_property
    def labels(self) -> Mapping[str, Any]:
        """The fields that every chunk of this origin carries."""
        return {
            field.name: getattr(self, field.name) for field in fields(self) if field.name in StreamChunk.model_fields
        }

    @cached_property
    def _text_fields(self) -> dict[str, Any]:
        # As the dict of a plain object: copies of that share its keys, and take 300 bytes in place of 460.
        fields = _Fields()
        for name, value in StreamChunk(content="", **self.labels).__dict__.items():
            setattr(fields, name, value)
        return fields.__dict__

    def chunk(self, content: str, *, seq: int) -> StreamChunk:
        """A TEXT chunk from here."""
        values = self._text_fields.copy()
        values["content"] = content
        values["seq"] = seq
        return _filled(values)

    def tool_chunk(self, tool_call: ToolCallChunk, *, seq: int) -> StreamChunk:
        """A TOOL_CALL chunk from here; the delta stands in ``content`` too."""
        return StreamChunk(
            content=tool_call.arguments,
            chunk_type=StreamChunkType.TOOL_CALL,
            tool_call=tool_call,
            seq=seq,
            **self.labels,
        )


def _filled(values: dict[str, Any]) -> StreamChunk:
    # Thousands of chunks differ in two fields only, and these come from our own parser: filling a copy of a validated
    # chunk takes a fifth of the time of validating anew (model_construct is slower still).
    chunk = _new(StreamChunk)
    _set_values(chunk, values)
    _set_fields_set(chunk, _ALL_FIELDS)
    _set_extra(chunk, None)
    _set_private(chunk, None)
    return chunk


class _Fields:
    """Holds the values of a chunk, as Python holds those of any object."""


def _setter(attribute: str) -> Callable[[StreamChunk, Any], None]:
    # By its descriptor: object.__setattr__ would look for it anew each time.
    setter: Callable[[StreamChunk, Any], None] = vars(BaseModel)[attribute].__set__
    return setter


_new = StreamChunk.__new__
_set_values = _setter("__dict__")
_set_fields_set = _setter("__pydantic_fields_set__")
_set_extra = _setter("__pydantic_extra__")
_set_private = _setter("__pydantic_private__")
_ALL_FIELDS = set(StreamChunk.model_fields)
