"""Packs a batch of events into few rows. Consecutive chunks with the same labels share one line of a row.

A line holds one event, as :mod:`rxflow.types.codec` writes it. Several chunks with the same labels are written as two
lines: their texts and times, and then the first chunk, whose ``seq`` the others continue::

    {"block":[["Hel","lo"],[1764356862.1,1764356862.2]]}
    {"v":1,"kind":"StreamChunk","data":{"content":"Hel","task_name":"research",…,"seq":17,"at":1764356862.1}}

With one line per chunk, a chunk would take 350 bytes instead of 30, and writing it would take four times as long.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from math import isfinite
from operator import itemgetter
from typing import Any, cast

from pydantic_core import PydanticSerializationError, to_json

from rxflow.operators._core.blocks import Batch, Block
from rxflow.types import Event
from rxflow.types.chunks import StreamChunk, find_labels, make_chunks_like
from rxflow.types.codec import decode, encode

MAX_ROW_EVENTS = 256
"""The greatest number of events in a row. A reader that wants only a part of a row must still parse all of it."""
MAX_ROW_BYTES = 64 * 1024
"""The greatest size of a row. A longer line has a row of its own."""
MAX_BLOCK_TEXT = 4096
"""The longest text of a chunk in a block, in characters. It keeps every block far below the store's limit per event."""

_BLOCK_HEAD = b'{"block":'
_columns_of = itemgetter("content", "at", "seq")


def pack(events: Sequence[Event]) -> Iterator[tuple[int, bytes]]:
    """Yield the rows of a batch, each with the ``seq`` of its last event.

    Raises:
        TypeError: an element of the batch is not an event. The rows before it have already been yielded.
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
    """Return the events of a row whose ``seq`` is above ``after``.

    Raises:
        CodecError: the row was not written by :func:`pack`.
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
    """Yield the same events in order, with consecutive chunks joined into blocks that fit on a line."""
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
    texts, times = json.loads(columns)["block"]
    skipped = max(0, after + 1 - first.seq)
    return make_chunks_like(first, first.seq + skipped, texts[skipped:], times[skipped:])


def _find_labels(part: Event | Block) -> tuple[Any, ...] | int:
    """Return the labels of a chunk, which all chunks of a block share; for anything else, a unique number."""
    try:
        return find_labels(part) if type(part) is StreamChunk else id(part)
    except KeyError:  # the chunk was created without validation
        return id(part)


def _join(chunks: Sequence[StreamChunk]) -> Block | None:
    """Join chunks with the same labels into a block. Return None if their ``seq`` are not consecutive."""
    texts, times, numbers = zip(*[_columns_of(chunk.__dict__) for chunk in chunks], strict=True)
    first: int = numbers[0]
    follow = list(numbers) == list(range(first, first + len(numbers)))
    return Block(chunks[0], first, list(texts), list(times)) if follow else None


def _fits(block: Block) -> bool:
    """Return whether a block can be written as one line, and is shorter that way.

    A chunk that was created without validation may have a text or time of any type.
    """
    return (
        len(block.texts) > 1
        and {*map(type, block.texts)} == {str}
        and {*map(type, block.times)} == {float}
        and max(map(len, block.texts)) <= MAX_BLOCK_TEXT
        and isfinite(sum(block.times))
    )


def _encode_columns(block: Block) -> bytes:
    columns = {"block": (block.texts, block.times)}
    try:
        return to_json(columns)  # takes a sixth of the time of json.dumps()
    except PydanticSerializationError:  # a lone surrogate (half a character), which json.loads() accepts
        return json.dumps(columns, separators=(",", ":")).encode()
