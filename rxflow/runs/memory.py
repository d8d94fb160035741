"""A store in the memory of this process, for readers that connect and disconnect, and for tests."""

from __future__ import annotations

import sys
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar, cast

from rxflow.operators._core.blocks import Batch, Block
from rxflow.operators._core.run_log import (
    LIVE,
    End,
    Head,
    Note,
    OnNote,
    Page,
    RunExistsError,
    RunSpec,
    Status,
    Store,
    Writer,
    check_after,
    is_running,
    no_such_run,
    refuse,
    run_exists,
    settle,
    wake,
)
from rxflow.types import Event
from rxflow.types.chunks import PackedChunks, StreamChunk, find_one_origin, find_origin, pack_chunks

MAX_UNREAD_EVENTS = 10_000
"""Up to this many unread events are kept as objects for a slow reader. If there are more, all events may be packed."""
MIN_PACKED_EVENTS = 64
"""Events are packed when at least this many can be packed, or earlier if a packed block of chunks arrives."""
MAX_BLOCK_CHUNKS = 256
"""A block with fewer chunks than this can get more, at most this many at once. So it stays below twice this number.

``max_events`` drops whole blocks, so blocks must not grow without limit.
"""


NOBODY = -sys.maxsize
"""The value of ``_read_to`` when no reader keeps up."""


class History:
    """The events of a run from number ``first`` to number ``last``. An event's number is its ``seq``.

    Chunks are packed into blocks, because each chunk takes 500 bytes and adds two objects to each garbage collection.
    If a reader keeps up, chunks are packed after they were read. Otherwise they are packed unread. A reader of packed
    chunks gets equal copies.
    """

    def __init__(self) -> None:
        self.first = 0
        self.last = -1
        self._blocks: list[Block | PackedChunks | list[Event]] = []
        self._starts: list[int] = []  # for each block, the number of its first event
        self._newest: list[Event] = []
        self._read_to = NOBODY  # the number of the last event that the fastest reader has read

    def extend(self, events: Sequence[Event]) -> None:
        """Add events. The number of the first one must follow ``last``."""
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
        if unread > MAX_UNREAD_EVENTS:
            self._read_to, unread = NOBODY, 0
        while len(self._newest) - unread >= MIN_PACKED_EVENTS:
            self._pack(min(len(self._newest) - unread, MAX_BLOCK_CHUNKS))

    @property
    def is_read(self) -> bool:
        """Whether a reader keeps up. If so, unread events stay the original objects until a packed block arrives."""
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
        """Return up to ``limit`` events after the event number ``after``. ``after`` must be at least ``first - 1``."""
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
            self._pack(min(len(self._newest), MAX_BLOCK_CHUNKS))
        for each in block.split(MAX_BLOCK_CHUNKS):
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
        if (
            not isinstance(block, Block)
            or find_origin(block.like) is not origin
            or len(block.texts) >= MAX_BLOCK_CHUNKS
        ):
            block = Block(like.with_seq(seq), seq, [], [])  # a copy, because a reader may change the chunk
            self._blocks.append(block)
            self._starts.append(seq)
        block.texts += texts
        block.times += times


T = TypeVar("T")


@dataclass(slots=True)
class _Run:
    writer: Writer
    spec: RunSpec
    status: Status = "running"
    end: End | None = None
    events: History = field(default_factory=History)
    begun_at: float = field(default_factory=time.time)
    ended_at: float | None = None
    on_note: OnNote | None = None
    waiting: list[tuple[int, Future[None]]] = field(default_factory=list[tuple[int, Future[None]]])

    def take_ready(self) -> Sequence[Future[None]]:
        """Return the futures of readers that need not wait any longer, and remove these futures from ``waiting``.

        A reader need not wait if there are new events for it, or if the run has paused or ended.
        """
        if not self.waiting:
            return ()
        last = self.events.last if self.status in LIVE else sys.maxsize + 1
        ready = [waiting for after, waiting in self.waiting if after < last]
        self.waiting = [each for each in self.waiting if each[0] >= last and not each[1].cancelled()]
        return ready


class MemoryLog(Store):
    """Keeps runs in memory, without encoding their values as JSON. The runs are gone when the process ends.

    Args:
        keep_s: a run is kept for at least this many seconds after its end; None: until :meth:`forget` is called. Old
            runs are deleted when another run starts. A paused run has not ended.
        max_events: how many of a run's newest events are kept; None: all.
    """

    def __init__(self, *, keep_s: float | None = None, max_events: int | None = None) -> None:
        self._keep_s = keep_s
        self._max_events = max_events
        self._lock = threading.Lock()
        self._runs: dict[str, _Run] = {}

    def takes_blocks(self, run_id: str) -> bool:
        run = self._runs.get(run_id)
        return run is None or not run.events.is_read

    def append(self, writer: Writer, events: Sequence[Event], end: End | None = None) -> Future[None]:
        with self._lock:
            run = self._runs.get(writer.run_id)
            if run is None and writer.may_begin(events):
                run = self._runs[writer.run_id] = _Run(writer, RunSpec())
            if run is None or run.writer.id != writer.id:
                return _fail(refuse(writer, None if run is None else run.writer.generation))
            if end is not None and end.status == "lost":
                if run.status not in LIVE:
                    return _DONE
                run.writer = Writer(writer.run_id, generation=run.writer.generation + 1)
            last = run.events.last
            if events and events[0].seq <= last:  # some of these events are already in the log
                events = [event for event in events if event.seq > last]
            run.events.extend(events)
            if self._max_events is not None:
                run.events.drop_before(run.events.last + 1 - self._max_events)
            run.status = "running" if end is None else end.status
            if end is not None:
                run.end, run.ended_at, run.on_note = end, time.time(), None
            ready = run.take_ready()
        for each in ready:
            wake(each)
        return _DONE

    def read(self, run_id: str, after: int, limit: int) -> Future[Page]:
        def look() -> Page:
            run = self._find(run_id)
            check_after(run_id, after, run.events.first, run.events.last)
            end = run.end or End(run.status)
            return Page(run.events.read(after, limit), run.status, run.events.last, end.error, end.reason)

        return self._run_locked(look)

    def wait(self, run_id: str, after: int) -> Future[None]:
        waiting: Future[None] = Future()
        with self._lock:
            run = self._runs.get(run_id)
            if run is not None and run.status in LIVE and run.events.last <= after:
                run.waiting = [each for each in run.waiting if not each[1].cancelled()]
                run.waiting.append((after, waiting))
                return waiting
        waiting.set_result(None)
        return waiting

    def note(self, run_id: str, note: Note) -> Future[None]:
        with self._lock:
            run = self._runs.get(run_id)
            on_note = run.on_note if run is not None else None
        if run is None:
            return _fail(no_such_run(run_id))
        if on_note is not None:
            on_note(note)
        return _DONE

    def claim(self, run_id: str, spec: RunSpec | None, on_note: OnNote) -> Future[tuple[Writer, Head]]:
        def take() -> tuple[Writer, Head]:
            self._forget_old()
            if spec is not None:
                if run_id in self._runs:
                    raise RunExistsError(run_exists(run_id))
                run = self._runs[run_id] = _Run(Writer(run_id, generation=1), spec, status="queued")
            else:
                run = self._find(run_id)
                if run.status in LIVE:
                    raise RunExistsError(is_running(run_id))
                run.writer = Writer(run_id, generation=run.writer.generation + 1)
                run.status, run.end, run.ended_at = "queued", None, None
            run.on_note = on_note
            return run.writer, self._head_of(run_id, run)

        return self._run_locked(take)

    def release(self, writer: Writer) -> None:
        """Do nothing: this store has no leases."""

    def look_up(self, run_id: str) -> Future[Head]:
        return self._run_locked(lambda: self._head_of(run_id, self._find(run_id)))

    def list(self, status: Status | None = None) -> Future[Sequence[Head]]:
        def look() -> Sequence[Head]:
            self._forget_old()
            return [self._head_of(*each) for each in self._runs.items() if status in (None, each[1].status)]

        return self._run_locked(look)

    def forget(self, run_id: str) -> Future[None]:
        with self._lock:
            run = self._runs.pop(run_id, None)
        if run is None:
            return _fail(no_such_run(run_id))
        if run.on_note is not None:
            run.on_note(Note("cancel", "the run was forgotten"))
        for _, each in run.waiting:
            wake(each)
        return _DONE

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def _run_locked(self, function: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        with self._lock:
            settle(future, function)
        return future

    def _find(self, run_id: str) -> _Run:
        try:
            return self._runs[run_id]
        except KeyError:
            raise no_such_run(run_id) from None

    def _forget_old(self) -> None:
        if self._keep_s is not None:
            oldest = time.time() - self._keep_s
            for name, run in list(self._runs.items()):
                if run.ended_at is not None and run.ended_at < oldest and run.status != "paused":
                    del self._runs[name]

    def _head_of(self, run_id: str, run: _Run) -> Head:
        end = run.end or End(run.status)
        return Head(
            run_id=run_id,
            status=run.status,
            generation=run.writer.generation,
            spec=run.spec,
            first=run.events.first,
            last=run.events.last,
            begun_at=run.begun_at,
            ended_at=run.ended_at,
            error=end.error,
            reason=end.reason,
        )


def _fail(error: Exception) -> Future[None]:
    future: Future[None] = Future()
    future.set_exception(error)
    return future


_DONE: Future[None] = Future()
_DONE.set_result(None)
