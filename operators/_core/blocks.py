"""Batches of events for a log. Consecutive chunks are stored as columns, in memory and in the rows of a store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import isfinite
from operator import itemgetter
from typing import Any, cast, overload

from pydantic_core import PydanticSerializationError, to_json

from rxflow.types import Event
from rxflow.types.chunks import StreamChunk, find_labels, find_origin, make_chunks_like
from rxflow.types.codec import CodecError, decode, encode


@dataclass(slots=True)
class Block:
    """Consecutive chunks of one origin. They differ only in text, time and number.

    Attributes:
        like: a chunk of that origin. It need not be in the block.
        seq: the number of the first chunk.
        texts, times: the text and time of each chunk.
    """

    like: StreamChunk
    seq: int
    texts: list[str]
    times: list[float]

    @property
    def first(self) -> StreamChunk:
        """The first chunk."""
        return self.like if self.like.seq == self.seq else self.unpack(0, 1)[0]

    def cut(self, length: int) -> Block:
        """Remove the first ``length`` chunks, and return them as a block. Another thread may add chunks meanwhile."""
        head = Block(self.like, self.seq, self.texts[:length], self.times[:length])
        del self.texts[:length], self.times[:length]
        self.seq += length
        return head

    def split(self, length: int) -> Iterator[Block]:
        """Yield the chunks of this block as blocks of at most ``length`` chunks."""
        if len(self.texts) <= length:
            yield self
            return
        for start in range(0, len(self.texts), length):
            part = slice(start, start + length)
            yield Block(self.like, self.seq + start, self.texts[part], self.times[part])

    def unpack(self, start: int = 0, stop: int | None = None) -> list[StreamChunk]:
        """Return the slice ``start:stop`` of the chunks, as new objects that equal the originals."""
        return make_chunks_like(self.like, self.seq + start, self.texts[start:stop], self.times[start:stop])


class Batch(Sequence[Event]):
    """A sequence of consecutive events. Each of its ``parts`` is an event or a block.

    Each iteration, and each access by index, creates new chunk objects from the blocks.
    """

    def __init__(self, parts: Sequence[Event | Block], length: int) -> None:
        self.parts = parts
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Event]:
        for part in self.parts:
            if isinstance(part, Block):
                yield from part.unpack()
            else:
                yield part

    @overload
    def __getitem__(self, index: int) -> Event: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Event]: ...

    def __getitem__(self, index: int | slice) -> Event | Sequence[Event]:
        if isinstance(index, slice):
            return list(self)[index]
        position = range(self._length)[index]
        for part in self.parts:
            length = len(part.texts) if isinstance(part, Block) else 1
            if position < length:
                return part.unpack(position, position + 1)[0] if isinstance(part, Block) else part
            position -= length
        raise IndexError(index)


class Backlog:
    """Events that wait to be written. One thread may add events while another thread takes events, without a lock.

    A chunk that has the same origin as the previous chunk can be added to the last block. So the taking thread never
    removes the last block. The adding thread adds the text of a chunk first, and then the time. The taking thread takes
    only chunks that have a time, so it never takes half a chunk.

    Attributes:
        next: the number of the event that will be added next.
        taken: the number of the event that will be taken next.
        origin: what :func:`find_origin` returns for the chunks that may be added to the last block; None if no chunk
            may be added to it.
        add_text, add_time: add the text and the time of a chunk to the last block. Call ``add_text`` first.
        add_alone: adds an event as it is, outside of the blocks.

    After ``add_time``, ``add_alone`` or :meth:`add`, the caller must increment ``next``. If the caller had to call one
    more method for this, adding an event would take twice as long.
    """

    __slots__ = ("_parts", "add_alone", "add_text", "add_time", "next", "origin", "taken")

    add_text: Callable[[str], None]
    add_time: Callable[[float], None]

    def __init__(self, first: int) -> None:
        self._parts: list[Event | Block] = []
        self.add_alone = self._parts.append
        self.next = self.taken = first
        self.origin: object = None

    def __len__(self) -> int:
        return max(0, self.next - self.taken)  # an event may be taken before the other thread increments `next`

    def add(self, event: Event) -> None:
        """Add an event with the number ``next``. An event with an origin (:func:`find_origin`) begins a new block."""
        self.origin = origin = find_origin(event)
        if origin is None:
            self.add_alone(event if event.seq == self.next else renumber(event, self.next))
        else:
            chunk = cast(StreamChunk, event).with_seq(self.next)  # a copy, because the program may change its own chunk
            block = Block(chunk, self.next, [chunk.content], [chunk.at])
            self.add_text, self.add_time = block.texts.append, block.times.append
            self._parts.append(block)

    def take(self, limit: int) -> Sequence[Event]:
        """Remove and return the oldest events, at most ``limit``. Events in blocks are returned in a :class:`Batch`."""
        parts = self._parts[:limit]
        if Block not in map(type, parts):
            del self._parts[: len(parts)]
            self.taken += len(parts)
            return cast("list[Event]", parts)
        taken: list[Event | Block] = []
        count = done = 0
        last = len(self._parts) - 1
        for position, part in enumerate(parts):
            if count == limit:
                break
            if isinstance(part, Block):
                length = min(len(part.times), limit - count)
                if length:
                    taken.append(part.cut(length))
                    count += length
                if position == last or part.times:
                    break
            else:
                taken.append(part)
                count += 1
            done += 1
        del self._parts[:done]
        self.taken += count
        return Batch(taken, count)

    def clear(self) -> None:
        """Drop all events."""
        self._parts.clear()
        self.taken = self.next


def renumber(event: Event, seq: int) -> Event:
    """Return a copy of the event with the number ``seq``."""
    if type(event) is StreamChunk:
        return event.with_seq(seq)
    if isinstance(event, StreamChunk):  # a subclass that the program has defined
        return event.model_copy(update={"seq": seq})
    return replace(event, seq=seq)


MAX_ROW_EVENTS = 256
"""The greatest number of events in one row. It is small, because even for one event a reader parses the whole row."""
MAX_ROW_BYTES = 64 * 1024
"""The greatest size of a row with several events or blocks. A larger event or block has a row of its own."""
MAX_BLOCK_TEXT_CHARACTERS = 4096
"""The longest text of a chunk in a written block, in characters.

This limit keeps each block below ``MAX_EVENT_BYTES``, the store's limit for one event, even if JSON needs 12 bytes for
each character.
"""

_BLOCK_HEAD = b'{"block":'
_columns_of = itemgetter("content", "at", "seq")


def pack(events: Sequence[Event]) -> Iterator[tuple[int, bytes]]:
    """Encode ``events`` as rows, and yield each row with the ``seq`` of its last event: ``(seq, row)``.

    Raises:
        TypeError: an element of ``events`` is not an event. Earlier rows have already been yielded.
    """
    row: list[bytes] = []
    size = count = 0
    last = -1
    for part in _find_blocks(events.parts if isinstance(events, Batch) else events):
        if isinstance(part, Block):
            line = _encode_columns(part) + b"\n" + encode(part.first)
            length, seq = len(part.texts), part.seq + len(part.texts) - 1
        else:
            line, length, seq = encode(part), 1, part.seq
        if row and (size + len(line) > MAX_ROW_BYTES or count + length > MAX_ROW_EVENTS):
            yield last, b"".join(row)
            row, size, count = [], 0, 0
        row.append(line)
        size += len(line)
        count += length
        last = seq
    if row:
        yield last, b"".join(row)


def unpack(row: bytes, after: int) -> Sequence[Event]:
    """Return those events of a row that have a ``seq`` above ``after``.

    Raises:
        CodecError: a line of the row is not JSON, or an event cannot be decoded.
    """
    events: list[Event] = []
    columns = b""
    for line in row.splitlines(keepends=True):
        if line.startswith(_BLOCK_HEAD):
            columns = line
        elif columns:
            events += _read_block(columns, cast(StreamChunk, decode(line)), after)
            columns = b""
        elif (event := decode(line)).seq > after:
            events.append(event)
    return events


def _find_blocks(parts: Sequence[Event | Block]) -> Iterator[Event | Block]:
    """Yield the events in order: as blocks if :func:`_fits` accepts the blocks, otherwise one by one."""
    for _, alike in groupby(parts, _find_labels):
        first, *others = alike
        if isinstance(first, Block):
            block: Block | None = first
        else:
            block = _join(cast("list[StreamChunk]", [first, *others])) if others else None
        if block is None:
            yield from (cast(Event, first), *cast("list[Event]", others))
            continue
        for piece in block.split(MAX_ROW_EVENTS):
            if _fits(piece):
                yield piece
            else:
                yield from piece.unpack()


def _read_block(columns: bytes, first: StreamChunk, after: int) -> Sequence[StreamChunk]:
    try:
        texts, times = json.loads(columns)["block"]
    except (ValueError, KeyError, TypeError) as error:
        raise CodecError(f"not a block of chunks: {columns[:100]!r}") from error
    skipped = max(0, after + 1 - first.seq)
    return make_chunks_like(first, first.seq + skipped, texts[skipped:], times[skipped:])


def _find_labels(part: Event | Block) -> tuple[Any, ...] | int:
    """Return a key for grouping. Chunks with equal keys have the same labels. Any other part has a unique key."""
    try:
        return find_labels(part) if type(part) is StreamChunk else id(part)
    except KeyError:  # the chunk was created without validation, and lacks fields
        return id(part)


def _join(chunks: Sequence[StreamChunk]) -> Block | None:
    """Join chunks with the same labels into a block. Return None if the chunks' numbers are not consecutive."""
    texts, times, numbers = zip(*[_columns_of(chunk.__dict__) for chunk in chunks], strict=True)
    first: int = numbers[0]
    follow = list(numbers) == list(range(first, first + len(numbers)))
    return Block(chunks[0], first, list(texts), list(times)) if follow else None


def _fits(block: Block) -> bool:
    """Return whether a block is to be written as columns, and not as single events.

    A single chunk takes less space as an event. A long text would make the row too large. Columns cannot hold a text
    that is not a str, or a time that is not a finite float. A chunk may have such values if it was not validated.
    """
    return (
        len(block.texts) > 1
        and {*map(type, block.texts)} == {str}
        and {*map(type, block.times)} == {float}
        and max(map(len, block.texts)) <= MAX_BLOCK_TEXT_CHARACTERS
        and isfinite(sum(block.times))
    )


def _encode_columns(block: Block) -> bytes:
    columns = {"block": (block.texts, block.times)}
    try:
        return to_json(columns)  # takes a sixth of the time of json.dumps()
    except PydanticSerializationError:  # a text has half a surrogate pair, which only json.dumps() can write
        return json.dumps(columns, separators=(",", ":")).encode()
