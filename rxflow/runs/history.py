"""The events of a run in the memory store: the newest as objects, older chunks packed as texts and times."""

from __future__ import annotations

import sys
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import cast

from rxflow.operators._core.blocks import Batch, Block
from rxflow.types import Event
from rxflow.types.chunks import PackedChunks, StreamChunk, find_one_origin, find_origin, pack_chunks

MAX_UNREAD = 10_000
"""The greatest number of events that are kept as objects for a slow reader, which saves building them again."""
MIN_PACKED = 64
"""The smallest number of events that are packed at once."""
MAX_BLOCK = 256
"""The greatest number of chunks in a block.

``max_events`` drops whole blocks, so blocks must not grow without limit.
"""


NOBODY = -sys.maxsize
"""The value of ``_read_to`` when no reader keeps up."""


class History:
    """The events of a run from number ``first`` to number ``last``.

    Chunks are packed once a reader has seen them, or at once if no reader keeps up. An unpacked chunk takes 500 bytes
    and adds two objects to each garbage collection. A reader that comes later gets equal copies.
    """

    def __init__(self) -> None:
        self.first = 0
        self.last = -1
        self._blocks: list[Block | PackedChunks | list[Event]] = []
        self._starts: list[int] = []  # for each block, the number of its first event
        self._newest: list[Event] = []
        self._read_to = NOBODY  # the last event that a reader has seen

    def extend(self, events: Sequence[Event]) -> None:
        """Add the events that follow the last one."""
        if isinstance(events, Batch):
            for part in events.parts:
                if isinstance(part, Block):
                    self._add_block(part)
                else:
                    self._newest.append(part)
                    self.last += 1
        else:
            self._newest += events
            self.last += len(events)
        unread = self.last - self._read_to
        if unread > MAX_UNREAD:
            self._read_to, unread = NOBODY, 0
        while len(self._newest) - unread >= MIN_PACKED:
            self._pack(min(len(self._newest) - unread, MAX_BLOCK))

    @property
    def is_read(self) -> bool:
        """Whether a reader keeps up, so that it should get the original event objects."""
        return self._read_to > NOBODY

    def drop_before(self, first: int) -> None:
        """Drop the events before number ``first``. A block that also has newer events is kept whole."""
        if first <= self.first:
            return
        self.first = first
        gone = bisect_right([*self._starts[1:], self._start_of_newest], first) if self._blocks else 0
        del self._blocks[:gone]
        del self._starts[:gone]
        if not self._blocks:
            del self._newest[: first - self._start_of_newest]

    def read(self, after: int, limit: int) -> list[Event]:
        """Return up to ``limit`` events after number ``after``, which must be at least ``first - 1``."""
        first, stop = after + 1, min(after + limit, self.last) + 1
        self._read_to = max(self._read_to, stop - 1)
        found: list[Event] = []
        if first < self._start_of_newest:
            for number in range(bisect_right(self._starts, first) - 1, bisect_left(self._starts, stop)):
                block = self._blocks[number]
                part = slice(max(0, first - self._starts[number]), stop - self._starts[number])
                if isinstance(block, Block):
                    found += block.unpack(part.start, part.stop)
                else:
                    found += (block if isinstance(block, list) else block.unpack())[part]
        found += self._newest[max(0, first - self._start_of_newest) : max(0, stop - self._start_of_newest)]
        return found

    @property
    def _start_of_newest(self) -> int:
        return self.last + 1 - len(self._newest)

    def _add_block(self, block: Block) -> None:
        while self._newest:
            self._pack(min(len(self._newest), MAX_BLOCK))
        for each in block.split(MAX_BLOCK):
            self._add_columns(each.like, each.seq, each.texts, each.times)
        self.last += len(block.texts)

    def _pack(self, count: int) -> None:
        start = self._start_of_newest
        events = self._newest[:count]
        del self._newest[:count]
        found = find_one_origin(events)
        if found is None:
            self._blocks.append(pack_chunks(events) or events)
            self._starts.append(start)
        else:
            like = cast(StreamChunk, events[0])
            texts = [fields["content"] for fields in found]
            times = [fields["at"] for fields in found]
            self._add_columns(like, start, texts, times)

    def _add_columns(self, like: StreamChunk, seq: int, texts: Sequence[str], times: Sequence[float]) -> None:
        block = self._blocks[-1] if self._blocks else None
        origin = find_origin(like)
        if not isinstance(block, Block) or find_origin(block.like) is not origin or len(block.texts) >= MAX_BLOCK:
            block = Block(like.with_seq(seq), seq, [], [])  # a copy, because a reader may change its own chunk
            self._blocks.append(block)
            self._starts.append(seq)
        block.texts += texts
        block.times += times
