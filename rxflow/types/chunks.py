"""The chunk: one piece of what a model produced, and where it came from."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from functools import cached_property
from itertools import accumulate
from operator import itemgetter
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
    ``namespace`` names the enclosing flows, methods, crews and tasks, outermost first; ``span_id`` is the span of
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
        return _fill_chunk(values)

    def with_attempt(self, attempt: int) -> StreamChunk:
        """The same chunk as part of another attempt."""
        values = self.__dict__.copy()
        values["attempt"] = attempt
        return _fill_chunk(values)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a chunk or an event comes from; empty where a level is not involved.

    ``namespace`` names the flows, methods and crews that enclose it, outermost first. ``span_id`` is its span (a
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
        for name in StreamChunk.model_fields:
            setattr(fields, name, getattr(self, name, _DEFAULTS[name]))
        return fields.__dict__

    def chunk(self, content: str, *, seq: int) -> StreamChunk:
        """A TEXT chunk from here."""
        values = self._text_fields.copy()
        values["content"] = content
        values["seq"] = seq
        return _fill_chunk(values)

    def tool_chunk(self, tool_call: ToolCallChunk, *, seq: int) -> StreamChunk:
        """A TOOL_CALL chunk from here; the delta stands in ``content`` too."""
        values = self._text_fields.copy()
        values["content"] = tool_call.arguments
        values["chunk_type"] = StreamChunkType.TOOL_CALL
        values["tool_call"] = tool_call
        values["seq"] = seq
        return _fill_chunk(values)


class PackedChunks:
    """A block of items whose chunks are kept as columns: one text, and once each label that all have in common.

    A chunk takes some 30 bytes instead of 400, 8 more for each label that differs within the block, and gives the
    garbage collector nothing to walk through. Items that are not chunks are kept as they are.
    """

    __slots__ = ("_columns", "_contents", "_ends", "_others", "_seqs", "_template")

    def __init__(self, chunks: Sequence[StreamChunk], others: Sequence[tuple[int, object]] = ()) -> None:
        """``others`` are the items that stand between the chunks, with their positions in the block.

        Raises:
            TypeError, ValueError, KeyError, OverflowError: a chunk was not validated, and has fields that do not fit.
        """
        rows = [chunk.__dict__ for chunk in chunks]
        contents, seqs, *labels = zip(*map(_values_of, rows), strict=True)
        self._template = rows[0].copy()
        self._contents = "".join(contents)
        self._ends = array("I", accumulate(map(len, contents)))
        self._seqs = array("q", seqs)
        self._columns = [
            (name, column)
            for name, column in zip(_LABELS, labels, strict=True)
            if column.count(column[0]) < len(column)
        ]
        self._others = others

    def __len__(self) -> int:
        return len(self._ends) + len(self._others)

    def unpack(self) -> list[Any]:
        """The items of the block; the chunks are new ones, equal to the originals."""
        copy, contents, start = self._template.copy, self._contents, 0
        items: list[Any] = []
        for end, seq in zip(self._ends, self._seqs, strict=True):
            values = copy()
            values["content"] = contents[start:end]
            values["seq"] = seq
            items.append(_fill_chunk(values))
            start = end
        for name, column in self._columns:
            for item, value in zip(items, column, strict=True):
                item.__dict__[name] = value
        for position, other in self._others:
            items.insert(position, other)
        return items

    def read_text(self) -> str:
        """The contents of the TEXT chunks, joined."""
        is_text = self._template["chunk_type"] is StreamChunkType.TEXT and "chunk_type" not in dict(self._columns)
        return self._contents if is_text and not self._others else join_text(self.unpack())


def pack_chunks(items: Sequence[object]) -> PackedChunks | None:
    """The items with their chunks packed. None if that gains little: most of them are not chunks of our making."""
    # A user's chunk knows which of its fields were given: model_dump(exclude_unset=True) shows only those.
    chunks = [item for item in items if type(item) is StreamChunk and item.__pydantic_fields_set__ is _ALL_FIELDS]
    if 2 * len(chunks) < len(items) or not chunks:
        return None
    others: list[tuple[int, object]] = []
    if len(chunks) < len(items):
        packed = set(map(id, chunks))
        others = [(position, item) for position, item in enumerate(items) if id(item) not in packed]
    try:
        return PackedChunks(chunks, others)
    except (TypeError, ValueError, KeyError, OverflowError):
        return None


def join_text(items: Iterable[object]) -> str:
    """The contents of the TEXT chunks among ``items``, joined."""
    return "".join(
        item.content for item in items if isinstance(item, StreamChunk) and item.chunk_type is StreamChunkType.TEXT
    )


def _fill_chunk(values: dict[str, Any]) -> StreamChunk:
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
_DEFAULTS = StreamChunk(content="").__dict__
_LABELS = tuple(name for name in StreamChunk.model_fields if name not in ("content", "seq"))
_values_of = itemgetter("content", "seq", *_LABELS)  # by name: an attribute that was deleted and set again moves
