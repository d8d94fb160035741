"""What writes the events of a run into its log."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import partial

from reactivex.abc import ObserverBase

from rxflow._loops import Once, call_soon, running_loop
from rxflow._streaming import DEFAULT_STOP_REASON
from rxflow.operators._core.blocks import Backlog, Batch, renumber
from rxflow.operators._core.open_spans import OpenSpans
from rxflow.operators._core.run_log import (
    End,
    FallenBehindError,
    Log,
    NotTheWriterError,
    RunExistsError,
    Writer,
)
from rxflow.types import Event, FlowPaused, Started, StreamChunk

MAX_BEHIND = 50_000
"""Events that wait in memory for a store that is slower than the run. With more, the run fails."""
MIN_BATCH = 256
"""Events that are written without waiting for the next step of the loop."""
MAX_BATCH = 1024
BURST = 64
"""Behind a batch of so many events the next one comes ``BURST_PAUSE_S`` later, with all that has come until then: at
full speed, half of a log's cost is that of batches, whatever is in them."""
BURST_PAUSE_S = 0.01


class LogWriter(ObserverBase[Event]):
    """Writes the events of one run, in order: what one step of the loop brings, then what has come meanwhile.

    ``fail`` is called once, from any thread, if the run has to stop: its log is refused, or has fallen behind. ``tap``
    sees each event but the chunks before it is written. ``close`` makes the event that closes a span, from a
    reason: with it, what is open in the log is closed before its end, whatever the run's loop is doing meanwhile.

    No lock, although events come on the run's loop and replies in the store's thread. ``on_next`` appends, and then
    looks whether a write is going on. A write notes that it stops, and then looks for events. So one sees the other.
    """

    def __init__(
        self,
        log: Log,
        writer: Writer,
        fail: Callable[[Exception], None],
        first: int = 0,
        tap: Callable[[Event], None] = lambda event: None,
        close: Callable[[Started, str], Event] | None = None,
    ) -> None:
        self._log = log
        self._writer = writer
        self._fail = fail
        self._tap = tap
        self._close = close
        self._open = OpenSpans()  # in what was taken to be written
        self._waiting = Backlog(first)
        self._takes_blocks = log.takes_blocks(writer.run_id)
        self.is_paused = False
        """The last event says that the run waits for answers."""
        self._turn = Once()
        self._due = Once()  # free while a write is to begin with the next step of the loop, and has its turn
        self._due.take()
        self._limit = first + 1  # when events up to this number wait, something is to be done
        self._loop: asyncio.AbstractEventLoop | None = None
        self._not_before = 0.0  # the next batch, by the loop's time
        self._is_over = False
        self._end: End | None = None
        self._end_token = Once()
        self._written = first  # the ``seq`` behind those that are in the log
        self._flushes: list[tuple[int, Future[None]]] = []
        self.done: Future[None] = Future()
        """The end is in the log; or it raises why not."""

    def on_next(self, value: Event) -> None:
        """Write an event, numbered as the log goes on."""
        waiting = self._waiting
        if type(value) is StreamChunk and value.__pydantic_fields_set__ is waiting.origin:  # by far the most
            values = value.__dict__
            waiting.add_text(values["content"])
            waiting.add_time(values["at"])
        elif self._is_over:
            return
        else:
            if not isinstance(value, StreamChunk):
                self._tap(value)
                self.is_paused = isinstance(value, FlowPaused)
            if self._takes_blocks:
                waiting.add(value)
            else:
                waiting.add_alone(value if value.seq == waiting.next else renumber(value, waiting.next))
            if not self._takes_blocks:  # another thread may have changed it just now
                waiting.origin = None
        waiting.next += 1
        if waiting.next >= self._limit:
            self._advance()

    def on_error(self, error: Exception) -> None:
        if isinstance(error, asyncio.CancelledError):
            self.end(End("cancelled", reason="its event loop was closed"))
        else:
            self.end(End("failed", error))

    def on_completed(self) -> None:
        self.end(End("completed"))

    def end(self, end: End) -> None:
        """Write the end. The first one counts."""
        if self._end_token.take():
            self._end = replace(end, status="paused") if end.status == "completed" and self.is_paused else end
            self._refuse()
            if not self._turn.is_taken:
                self._begin()
            else:
                self._write_now()

    @property
    def is_ending(self) -> bool:
        """It takes no more events: its end is to be written, or was, or cannot be."""
        return self._end_token.is_taken or self.done.done()

    def _refuse(self) -> None:
        """Add no more events."""
        self._is_over = True
        self._takes_blocks = False
        self._waiting.origin = None

    def flush(self, written: Future[None]) -> None:
        """Resolve ``written`` when what was added so far is in the log, or the log takes no more.

        On the run's loop only.
        """
        self._flushes.append((self._waiting.next, written))
        self._write_now()
        self._settle_flushes()

    def _settle_flushes(self) -> None:
        for each in tuple(self._flushes):
            if each[0] <= self._written:
                with suppress(ValueError):  # of two threads, the one that removes it
                    self._flushes.remove(each)
                    if each[1].set_running_or_notify_cancel():
                        each[1].set_result(None)

    def _fall_behind(self) -> None:
        error = FallenBehindError(
            f"the log of run {self._writer.run_id!r} is {MAX_BEHIND} events behind the run, which was stopped: "
            "its store is too slow, or does not answer"
        )
        self.end(End("failed", error))
        self._fail(error)

    def _advance(self) -> None:
        """Begin to write, if nobody does; write now, if enough waits."""
        if not self._turn.is_taken:
            self._begin()
        elif len(self._waiting) > MAX_BEHIND:
            self._fall_behind()
        else:
            self._write_now()

    def _begin(self) -> None:
        """Write soon: one read from the network brings many events."""
        if self._turn.take():
            loop = self._loop = running_loop()
            if loop is None or self._end is not None:  # a loop that ends makes no more steps
                self._write()
            else:
                self._due.give_back()
                self._schedule(loop)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        """On the loop. What is due may have been written already."""
        if self._due.is_taken:
            return
        pause_s = self._not_before - loop.time()
        if pause_s > 0:
            self._limit = self._waiting.taken + MAX_BATCH
            loop.call_later(pause_s, self._write_now)
        else:
            self._limit = self._waiting.taken + MIN_BATCH
            loop.call_soon(self._write_now)

    def _write_now(self) -> None:
        if self._due.take():
            self._write()

    def _write(self) -> None:
        """Write what waits, batch by batch, as long as the store replies at once."""
        while True:
            batch = self._waiting.take(MAX_BATCH)
            end = self._end  # before the look at what waits: all that comes before the end is there by then
            if self._waiting:
                end = None
            if self._close is not None:
                batch = self._follow_spans(self._close, batch, end)
            if len(batch) >= BURST and self._loop is not None:
                self._not_before = self._loop.time() + BURST_PAUSE_S
            if not batch and end is None:
                self._limit = self._waiting.taken + 1  # before the turn is free: who adds looks at it
                self._turn.give_back()
                if not (self._waiting or self._end) or not self._turn.take():
                    return
                continue
            self._limit = self._waiting.taken + MAX_BEHIND + 1
            try:
                reply = self._log.append(self._writer, batch, end)
            except Exception as error:  # noqa: BLE001 - of a user's log
                reply = Future[None]()
                reply.set_exception(error)
            if not reply.done():
                reply.add_done_callback(partial(self._resume, end))
                return
            self._takes_blocks = self._log.takes_blocks(self._writer.run_id)
            if not self._takes_blocks:  # a reader in this process gets the events themselves, without delay
                self._waiting.origin = None
                self._not_before = 0.0
            if not self._go_on(reply, end):
                return

    def _follow_spans(
        self, close: Callable[[Started, str], Event], batch: Sequence[Event], end: End | None
    ) -> Sequence[Event]:
        """Note which spans are open; before the end, close them, innermost first."""
        parts = batch.parts if isinstance(batch, Batch) else batch
        for part in parts:
            if type(part) is not StreamChunk:  # by far the most
                self._open.follow(part)
        if end is None:
            return batch
        reason = end.reason or str(end.error or "") or DEFAULT_STOP_REASON
        closing = self._open.close(lambda started: close(started, reason))
        if not closing:
            return batch
        # Not by the backlog: the run's loop, if it is blocked, may be about to add an event there.
        closing = [renumber(event, seq) for seq, event in enumerate(closing, self._waiting.taken)]
        self._waiting.taken += len(closing)
        return Batch([*parts, *closing], len(batch) + len(closing))

    def _resume(self, end: End | None, reply: Future[None]) -> None:
        """In the store's thread. The loop writes what has come meanwhile, as it has the events at hand."""
        if not self._go_on(reply, end):
            return
        if self._loop is None or not self._waiting:
            self._write()
            return
        self._due.give_back()
        if self._end is not None or not call_soon(self._loop, partial(self._schedule, self._loop)):
            self._write_now()

    def _go_on(self, reply: Future[None], end: End | None) -> bool:
        """True if there is more to write. The turn of a run that is over is never given back."""
        error = reply.exception()
        if error is None:
            self._written = self._waiting.taken
            self._settle_flushes()
        if error is None and end is None:
            return True
        if error is None:
            self.done.set_result(None)
            return False
        self._refuse()
        self._waiting.clear()
        self._written = sys.maxsize
        self._settle_flushes()
        if isinstance(error, Exception):
            self._fail(error)
            if not isinstance(error, NotTheWriterError | RunExistsError):  # readers are told, if the store can
                last = self._log.append(self._writer, [], End("failed", error))
                last.add_done_callback(lambda last: self.done.set_exception(last.exception() or error))
                return False
        self.done.set_exception(error)
        return False
