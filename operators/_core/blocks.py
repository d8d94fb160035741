"""Events that wait for a log. Consecutive chunks of one origin are kept as columns: their texts and their times.

A chunk that waits as an object takes 500 bytes, which have left the processor's cache by the time the store packs them.
As a text and a time, it takes a quarter of that, and the store does not have to pack it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast, overload

from rxflow.types import Event
from rxflow.types.chunks import StreamChunk, find_origin, make_chunks_like


@dataclass(slots=True)
class Block:
    """Consecutive chunks of one origin. They differ only in text, time and number.

    Attributes:
        like: a chunk of that origin.
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
        """Remove and return the first ``length`` chunks, while another thread may be adding some."""
        head = Block(self.like, self.seq, self.texts[:length], self.times[:length])
        del self.texts[:length], self.times[:length]
        self.seq += length
        return head

    def split(self, length: int) -> Iterator[Block]:
        """Yield the block in blocks of at most ``length`` chunks."""
        if len(self.texts) <= length:
            yield self
            return
        for start in range(0, len(self.texts), length):
            part = slice(start, start + length)
            yield Block(self.like, self.seq + start, self.texts[part], self.times[part])

    def unpack(self, start: int = 0, stop: int | None = None) -> list[StreamChunk]:
        """Return the chunks from position ``start`` up to ``stop``, as new objects that equal the originals."""
        return make_chunks_like(self.like, self.seq + start, self.texts[start:stop], self.times[start:stop])


class Batch(Sequence[Event]):
    """Consecutive events, as ``parts``: events and blocks. Used as a sequence, it creates the chunks again."""

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
    """Events that wait to be written. One thread may add them while another one takes them, without a lock.

    A chunk with the origin of the last one is added to the last block. The taking thread therefore leaves that block in
    place, and takes only chunks that have a time, because the time is added after the text.

    Attributes:
        next: the number of the event that will be added next.
        taken: the number of the event that will be taken next.
        origin: the origin (see :func:`find_origin`) of chunks that may be added to the last block; None if none may.
        add_text, add_time: add a chunk to the last block; to be called in this order.
        add_alone: adds an event outside of blocks.

    After each of these and after :meth:`add`, the caller must increment ``next``. A method for that would take as long
    as all the rest.
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
        return max(0, self.next - self.taken)  # an event may be taken before it is counted

    def add(self, event: Event) -> None:
        """Add an event with the next number. A chunk with an origin begins a new block."""
        self.origin = origin = find_origin(event)
        if origin is None:
            self.add_alone(event if event.seq == self.next else renumber(event, self.next))
        else:
            chunk = cast(StreamChunk, event).with_seq(self.next)  # a copy, because the program may change its own chunk
            block = Block(chunk, self.next, [chunk.content], [chunk.at])
            self.add_text, self.add_time = block.texts.append, block.times.append
            self._parts.append(block)

    def take(self, limit: int) -> Sequence[Event]:
        """Remove and return up to ``limit`` events from the front; a :class:`Batch` if there are blocks among them."""
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
    """Return a copy of the event with another ``seq``."""
    if type(event) is StreamChunk:
        return event.with_seq(seq)
    if isinstance(event, StreamChunk):  # a subclass that the program has defined
        return event.model_copy(update={"seq": seq})
    return replace(event, seq=seq)
