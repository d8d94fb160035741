"""The output of a model: chunks with their origin, and tool calls."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from functools import cached_property
from itertools import accumulate
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel


class StreamChunkType(str, Enum):  # noqa: UP042 - a StrEnum would print as its value
    """The kind of a chunk's content: answer text, or a piece of a tool call.

    A member equals its value, as in ``StreamChunkType.TEXT == "text"``, but is printed as ``StreamChunkType.TEXT``.
    """

    TEXT = "text"
    TOOL_CALL = "tool_call"


class ToolCallChunk(BaseModel):
    """One delta of a tool call. ``arguments`` is the new piece of JSON text. Each delta repeats the name and the id."""

    tool_id: str | None = None
    tool_name: str | None = None
    arguments: str = ""
    index: int = 0

    def __hash__(self) -> int:
        return hash((self.tool_id, self.arguments, self.index))


class StreamChunk(BaseModel):
    """A piece of model output, labelled with its task, agent, flow method and LLM call.

    Attributes:
        content: the new text; for a tool call, the new piece of its arguments.
        seq: the number of the chunk among all events of its run, from 0; -1 until the chunk has left the run.
        at: when the chunk arrived, in seconds since the epoch; with virtual time, in seconds of the virtual clock.
        attempt: how many attempts were made before the one that emitted the chunk. A new attempt begins when the answer
            to a task is rejected, and when an operator such as ``retry_stream`` starts a stream again.
        namespace: the names of the surrounding flows, methods, crews and tasks, outermost first.
        span_id: the id of the span to which the chunk belongs. Two runs of one crew have different spans.
        parent_span_id: the id of the span around that span.
        replayed: whether the chunk repeats output that the run emitted before the run was resumed.
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
    parent_span_id: str = ""
    attempt: int = 0
    seq: int = 0
    at: float = 0.0
    replayed: bool = False

    def __hash__(self) -> int:
        # These fields distinguish the chunks of one run. A hash need not use all fields that __eq__() compares.
        return hash((self.content, self.llm_call_id, self.seq))

    def __str__(self) -> str:
        return self.content

    if not TYPE_CHECKING:  # if type checkers saw __setattr__, they would allow any attribute

        def __setattr__(self, name: str, value: Any) -> None:
            self._leave_origin()
            super().__setattr__(name, value)

        def __delattr__(self, name: str) -> None:
            self._leave_origin()
            super().__delattr__(name)

    def _leave_origin(self) -> None:
        # Chunks with the same ``__pydantic_fields_set__`` object count as chunks with equal labels. This chunk is about
        # to change, so it gets a set of its own.
        _set_fields_set(self, set(self.__pydantic_fields_set__))

    def with_content(self, content: str) -> StreamChunk:
        """Return a copy of the chunk with other text."""
        values = self.__dict__.copy()
        values["content"] = content
        return _fill_chunk(values, _find_fields(self))

    def with_seq(self, seq: int, at: float | None = None) -> StreamChunk:
        """Return a copy of the chunk with another number. Without ``at``, the copy has the same time."""
        values = self.__dict__.copy()
        values["seq"] = seq
        if at is not None:
            values["at"] = at
        return _fill_chunk(values, _find_fields(self))

    def with_attempt(self, attempt: int) -> StreamChunk:
        """Return a copy of the chunk that belongs to ``attempt``."""
        values = self.__dict__.copy()
        values["attempt"] = attempt
        return _fill_chunk(values)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a chunk or an event comes from. Fields that do not apply are empty or 0.

    ``namespace`` holds the names of the surrounding flows, methods, crews and tasks, outermost first.

    ``span_id`` is the id of the span to which the chunk or event belongs. A span is a flow, a method, a crew, a task,
    an agent, a tool call or an LLM call. ``parent_span_id`` is the id of the span around that span.

    ``run_id`` is the id of the run. If code in another run started this run, ``parent_run_id`` is the other run's id.
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
    run_id: str = ""
    parent_run_id: str = ""

    @cached_property
    def labels(self) -> Mapping[str, Any]:
        """The values of the fields that an origin and a chunk have in common, by the names of the fields."""
        return {
            field.name: getattr(self, field.name) for field in fields(self) if field.name in StreamChunk.model_fields
        }

    @cached_property
    def _text_fields(self) -> dict[str, Any]:
        # This is the dict of a plain object, because copies of such a dict share its keys. A copy takes 300 bytes
        # instead of 460.
        fields = _Fields()
        for name in StreamChunk.model_fields:
            setattr(fields, name, getattr(self, name, _DEFAULTS[name]))
        fields.__dict__["seq"] = -1
        return fields.__dict__

    @cached_property
    def _fields(self) -> _AllFields:
        return _AllFields(StreamChunk.model_fields)

    def chunk(self, content: str) -> StreamChunk:
        """Create a TEXT chunk of this origin. The run will give the chunk its number."""
        values = self._text_fields.copy()
        values["content"] = content
        # The code below does the same as _fill_chunk(). A call would cost time, and most chunks are created here.
        chunk = _new(StreamChunk)
        _set_values(chunk, values)
        _set_fields_set(chunk, self._fields)
        _set_extra(chunk, None)
        _set_private(chunk, None)
        return chunk

    def tool_chunk(self, tool_call: ToolCallChunk) -> StreamChunk:
        """Create a TOOL_CALL chunk of this origin. Its ``content`` is the new piece of arguments."""
        values = self._text_fields.copy()
        values["content"] = tool_call.arguments
        values["chunk_type"] = StreamChunkType.TOOL_CALL
        values["tool_call"] = tool_call
        return _fill_chunk(values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Happened:
    """The base class of all events except :class:`StreamChunk`.

    Attributes:
        origin: where the event happened.
        seq: the number of the event in its run, from 0 and without gaps; -1 until the event has left the run.
        at: when the event happened, in seconds since the epoch; with virtual time, in seconds of the virtual clock.
        replayed: whether the event repeats an event that the run emitted before the run was resumed.
    """

    origin: Origin
    seq: int = -1
    at: float = 0.0
    replayed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A complete tool call, as the model requested it. ``arguments`` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletedToolCall(Happened):
    """A tool call of a model, assembled from its deltas.

    ``written`` is the JSON text as the model wrote it. ``arguments`` holds the values from the text, validated if the
    tool is known. If the text is not a JSON object, or the values are not valid, ``arguments`` is empty, and ``error``
    is the reason: pydantic's ValidationError if the tool is known, otherwise another ValueError.
    """

    tool_id: str
    tool_name: str
    written: str
    arguments: Mapping[str, Any]
    error: ValueError | None = None


class PackedChunks:
    """A block of items in which the chunks are stored as columns, to save memory.

    The texts of all chunks are one string. A label that all chunks have in common is stored once. A chunk takes about
    30 bytes instead of 400, and 8 more for each label that differs within the block. A text chunk adds no object that
    the garbage collector must visit. Other items, and chunks that rxflow did not create, are stored unchanged.
    """

    __slots__ = ("_ats", "_columns", "_contents", "_fields", "_lengths", "_others", "_seqs", "_template")

    def __init__(
        self,
        rows: Sequence[dict[str, Any]],
        others: Sequence[tuple[int, object]] = (),
        fields: _AllFields | None = None,
    ) -> None:
        """Pack the items of a block.

        ``rows`` holds the fields of each chunk. ``others`` holds the other items, with their positions in the block. If
        all chunks are text of one origin, ``fields`` is the :class:`_AllFields` that they share; otherwise None.

        Raises:
            TypeError, ValueError, KeyError, OverflowError: a chunk was not validated, and its fields do not fit.
        """
        contents: list[str] = [values["content"] for values in rows]
        self._template = rows[0].copy()
        self._contents = "".join(contents)
        self._lengths = array("I", map(len, contents))
        self._seqs = array("q", [values["seq"] for values in rows])
        # Bytes instead of a third array, because the garbage collector visits arrays, but not bytes.
        self._ats = array("d", [values["at"] for values in rows]).tobytes()
        self._others = others
        self._fields = _ALL_FIELDS if fields is None else fields
        self._columns: Sequence[tuple[str, tuple[Any, ...]]] = ()
        if self._fields is _ALL_FIELDS:
            labels = zip(*map(_labels_of, rows), strict=True)
            self._columns = [
                (name, column)
                for name, column in zip(_LABELS, labels, strict=True)
                if column.count(column[0]) < len(column)
            ]

    def __len__(self) -> int:
        return len(self._lengths) + len(self._others)

    def unpack(self) -> list[Any]:
        """Return the items of the block. The chunks are new objects that equal the originals."""
        ends = accumulate(self._lengths)
        texts = [self._contents[end - length : end] for length, end in zip(self._lengths, ends, strict=True)]
        times = memoryview(self._ats).cast("d")
        items: list[Any] = _make_chunks(self._template, self._fields, self._seqs, texts, times)
        for name, column in self._columns:
            for item, value in zip(items, column, strict=True):
                item.__dict__[name] = value
        for position, other in self._others:
            items.insert(position, other)
        return items

    def read_text(self) -> str:
        """Return the contents of the TEXT chunks, joined."""
        is_text = self._template["chunk_type"] is StreamChunkType.TEXT and "chunk_type" not in dict(self._columns)
        return self._contents if is_text and not self._others else join_text(self.unpack())


def pack_chunks(items: Sequence[object]) -> PackedChunks | None:
    """Return the items as a block with packed chunks.

    Return None if packing would save little, because fewer than half of the items are chunks that rxflow created.
    Return None also if a chunk cannot be packed, because its fields were not validated.
    """
    rows = find_one_origin(items) or []
    fields = find_origin(items[0]) if rows else None
    others: list[tuple[int, object]] = []
    if fields is None:
        for position, item in enumerate(items):
            # A chunk that a user created is not packed, because packing would lose which fields were given.
            # model_dump(exclude_unset=True) returns only the given fields.
            if _find_fields(item) is None:
                others.append((position, item))
            else:
                rows.append(vars(item))
    if len(rows) < len(others) or not rows:
        return None
    try:
        return PackedChunks(rows, others, fields)
    except (TypeError, ValueError, KeyError, OverflowError):
        return None


def find_origin(item: object) -> _AllFields | None:
    """Return the :class:`_AllFields` that ``item`` shares with the other text chunks of its Origin.

    Return None if ``item`` is not a text chunk of an Origin.
    """
    fields = _find_fields(item)
    return None if fields is _ALL_FIELDS else fields


def find_one_origin(items: Sequence[object]) -> list[dict[str, Any]] | None:
    """Return the fields of each item as a dict, if all items are text chunks of one origin; otherwise None."""
    fields = find_origin(items[-1]) if items else None
    if fields is None:
        return None
    rows = [vars(item) for item in items if type(item) is StreamChunk and item.__pydantic_fields_set__ is fields]
    return rows if len(rows) == len(items) else None


def find_labels(chunk: StreamChunk) -> tuple[Any, ...]:
    """Return a key for the labels of a chunk. All fields except text, number and time are labels.

    Two keys are equal only if all labels are equal. A key is valid as long as the chunk exists.

    Raises:
        KeyError: the chunk was made without validation, and lacks fields.
    """
    fields = find_origin(chunk)
    if fields is not None:
        return (id(fields),)
    labels: tuple[Any, ...] = _labels_of(chunk.__dict__)
    return labels


def make_chunks_like(
    chunk: StreamChunk, first_seq: int, texts: Sequence[str], times: Iterable[float]
) -> list[StreamChunk]:
    """Return a chunk for each text, with the labels of ``chunk``. The numbers begin at ``first_seq``."""
    numbers = range(first_seq, first_seq + len(texts))
    return _make_chunks(vars(chunk), _find_fields(chunk), numbers, texts, times)


def _make_chunks(
    template: dict[str, Any],
    fields: _AllFields | None,
    numbers: Iterable[int],
    texts: Iterable[str],
    times: Iterable[float],
) -> list[StreamChunk]:
    chunks: list[StreamChunk] = []
    for seq, text, at in zip(numbers, texts, times, strict=True):
        values = template.copy()
        values["content"] = text
        values["seq"] = seq
        values["at"] = at
        chunks.append(_fill_chunk(values, fields))
    return chunks


def join_text(items: Iterable[object]) -> str:
    """Return the contents of the TEXT chunks among ``items``, joined."""
    return "".join(
        item.content for item in items if isinstance(item, StreamChunk) and item.chunk_type is StreamChunkType.TEXT
    )


def _find_fields(item: object) -> _AllFields | None:
    """Return the set of field names of a chunk that rxflow created; None for any other item.

    The text chunks of one origin share one such set.
    """
    fields = item.__pydantic_fields_set__ if type(item) is StreamChunk else None
    return fields if type(fields) is _AllFields else None


def _fill_chunk(values: dict[str, Any], fields: _AllFields | None = None) -> StreamChunk:
    # The values need no validation, because they come from rxflow's own code or from a validated chunk. Filling an
    # object directly takes a fifth of the time of a validation. model_construct() would take longer than a validation.
    chunk = _new(StreamChunk)
    _set_values(chunk, values)
    _set_fields_set(chunk, fields or _ALL_FIELDS)
    _set_extra(chunk, None)
    _set_private(chunk, None)
    return chunk


class _AllFields(set[str]):
    """The names of all fields of a chunk, as the ``__pydantic_fields_set__`` of the chunk.

    The set object is also a mark. All text chunks of one Origin have the same set object, so chunks with the same
    object have equal labels, and the labels need not be compared. All other chunks that rxflow creates have the object
    ``_ALL_FIELDS``. Their labels may differ. Pydantic's comparison of two chunks ignores these sets.
    """

    __slots__ = ()

    def __reduce__(self) -> tuple[Callable[[], _AllFields], tuple[()]]:
        # A pickle does not know ``_ALL_FIELDS``: chunks of several origins would share a new set.
        return _get_all_fields, ()

    def update(self, *names: Iterable[str]) -> None:
        """Do nothing. ``model_copy(update=…)`` calls this, but other chunks share the set."""


def _get_all_fields() -> _AllFields:
    return _ALL_FIELDS


class _Fields:
    """A plain object. Its ``__dict__`` holds the values of a chunk."""


def _setter(attribute: str) -> Callable[[StreamChunk, Any], None]:
    # Use the slot's descriptor directly, because object.__setattr__() would look the descriptor up each time.
    setter: Callable[[StreamChunk, Any], None] = vars(BaseModel)[attribute].__set__
    return setter


_new = StreamChunk.__new__
_set_values = _setter("__dict__")
_set_fields_set = _setter("__pydantic_fields_set__")
_set_extra = _setter("__pydantic_extra__")
_set_private = _setter("__pydantic_private__")
_ALL_FIELDS = _AllFields(StreamChunk.model_fields)
_DEFAULTS = StreamChunk(content="").__dict__
_LABELS = tuple(name for name in StreamChunk.model_fields if name not in ("content", "seq", "at"))
# Read labels by name, because their order in the dict changes if an attribute is deleted and set again.
_labels_of = itemgetter(*(name for name in _LABELS))
