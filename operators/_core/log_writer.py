"""Writes the events of a run to its log."""

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
from rxflow._text import in_words
from rxflow.operators._core.blocks import Backlog, Batch, renumber
from rxflow.operators._core.calls import OpenSpans
from rxflow.operators._core.run_log import (
    End,
    FallenBehindError,
    Log,
    NotTheWriterError,
    RunExistsError,
    StoreError,
    Writer,
)
from rxflow.types import Event, FlowPaused, Started, StreamChunk

MAX_WAITING_EVENTS = 50_000
"""How many events may wait in memory for a store that is slower than the run. If more wait, the run fails."""
MIN_BATCH_EVENTS = 256
"""If this many events wait, they are written at once. In the pause after a burst, ``MAX_BATCH_EVENTS`` is the limit."""
MAX_BATCH_EVENTS = 1024
BURST_EVENTS = 64
"""After a batch of at least this many events, the next write waits ``BURST_PAUSE_S``.

If ``MAX_BATCH_EVENTS`` events arrive during this pause, they are written at once. The pause makes batches larger. This
saves time, because each batch has a fixed cost. If a run emits events as fast as it can, the fixed cost is half of the
cost of the log.
"""
BURST_PAUSE_S = 0.01


class LogWriter(ObserverBase[Event]):
    """Writes the events of one run in order, in batches.

    Usually, the first batch has the events of one step of the loop, and each later batch has the events that arrived
    while the previous batch was written.

    No lock is needed, although events arrive on the run's loop, and the store replies in its own thread. ``on_next``
    first adds an event, and then checks whether a write is in progress. When a write stops, it first records that it
    has stopped, and then checks for new events. So either ``on_next`` or the write notices each event.

    Args:
        fail: called with an error if the run must stop, because the log cannot be written, or the store is too slow. It
            may be called in any thread.
        tap: called with each event that is not a chunk, before the event is written.
        close: creates the event that closes a span, from the ``…Started`` event of the span and a reason. If ``close``
            is given, spans that are open in the log are closed before the log ends, even if the run's loop is busy.
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
        self._open = OpenSpans()  # the spans that are open after the last event that was taken for writing
        self._waiting = Backlog(first)
        self._takes_blocks = log.takes_blocks(writer.run_id)
        self.is_paused = False
        """Whether the last event, apart from chunks, is a FlowPaused. The run then waits for answers."""
        self._turn = Once()
        # ``_turn`` is taken while a write is scheduled or in progress. ``_due`` can be taken only while a write is
        # scheduled. The code that takes ``_due`` performs that write.
        self._due = Once()
        self._due.take()
        self._limit = first + 1  # when ``_waiting.next`` reaches this number, on_next() calls _advance()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._not_before = 0.0  # the time of the loop at which the pause after a burst ends
        self._is_over = False
        self._end: End | None = None
        self._end_token = Once()
        self._written = first  # the number that follows the last event in the log
        self._flushes: list[tuple[int, Future[None]]] = []
        self.done: Future[None] = Future()
        """Resolves when the end is in the log. If the log cannot be written, this future fails with the error."""

    def on_next(self, value: Event) -> None:
        """Add an event to the next batch, with the next number of the log."""
        waiting = self._waiting
        # By far the most frequent case: the chunk has the same origin as the previous chunk.
        if type(value) is StreamChunk and value.__pydantic_fields_set__ is waiting.origin:
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
            if not self._takes_blocks:  # another thread may have set this to False since the check above
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
        """Write the end of the run. Only the first call has an effect."""
        if self._end_token.take():
            self._end = replace(end, status="paused") if end.status == "completed" and self.is_paused else end
            self._refuse()
            if not self._turn.is_taken:
                self._begin()
            else:
                self._write_now()

    @property
    def is_ending(self) -> bool:
        """Whether :meth:`end` was called, or ``done`` has resolved or failed."""
        return self._end_token.is_taken or self.done.done()

    def _refuse(self) -> None:
        """Ignore further events."""
        self._is_over = True
        self._takes_blocks = False
        self._waiting.origin = None

    def flush(self, written: Future[None]) -> None:
        """Resolve ``written`` when the events so far are in the log, or when the log cannot be written.

        Call this only on the run's loop.
        """
        self._flushes.append((self._waiting.next, written))
        self._write_now()
        self._settle_flushes()

    def _settle_flushes(self) -> None:
        for each in tuple(self._flushes):
            if each[0] <= self._written:
                with suppress(ValueError):  # two threads may get here, and only one of them can remove the entry
                    self._flushes.remove(each)
                    if each[1].set_running_or_notify_cancel():
                        each[1].set_result(None)

    def _fall_behind(self) -> None:
        error = FallenBehindError(
            f"the log of run {self._writer.run_id!r} is {MAX_WAITING_EVENTS} events behind the run, which was stopped: "
            "its store is too slow, or does not answer"
        )
        self.end(End("failed", error))
        self._fail(error)

    def _advance(self) -> None:
        """Do what is due when ``_waiting.next`` reaches ``_limit``.

        The first case that is true applies:

        - No write is scheduled or in progress: begin one.
        - Too many events wait: fail.
        - A write is scheduled: perform it now.
        """
        if not self._turn.is_taken:
            self._begin()
        elif len(self._waiting) > MAX_WAITING_EVENTS:
            self._fall_behind()
        else:
            self._write_now()

    def _begin(self) -> None:
        """Schedule a write for the next step of the loop.

        One read from the network brings many events in one step. So one batch contains all of them. Without a loop, or
        after a call of :meth:`end`, write at once.
        """
        if self._turn.take():
            loop = self._loop = running_loop()
            if loop is None or self._end is not None:  # the loop may have no later step
                self._write()
            else:
                self._due.give_back()
                self._schedule(loop)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        """Schedule the next write on the loop, unless another thread has already performed it."""
        if self._due.is_taken:
            return
        pause_s = self._not_before - loop.time()
        if pause_s > 0:
            self._limit = self._waiting.taken + MAX_BATCH_EVENTS
            loop.call_later(pause_s, self._write_now)
        else:
            self._limit = self._waiting.taken + MIN_BATCH_EVENTS
            loop.call_soon(self._write_now)

    def _write_now(self) -> None:
        if self._due.take():
            self._write()

    def _write(self) -> None:
        """Write the waiting events batch by batch, as long as the store replies at once."""
        while True:
            batch = self._waiting.take(MAX_BATCH_EVENTS)
            # Read the end before the check for more events, so that all events that came before the end are written. An
            # event that the loop is adding at this moment may be dropped.
            end = self._end
            if self._waiting:
                end = None
            if self._close is not None:
                batch = self._follow_spans(self._close, batch, end)
            if len(batch) >= BURST_EVENTS and self._loop is not None:
                self._not_before = self._loop.time() + BURST_PAUSE_S
            if not batch and end is None:
                self._limit = self._waiting.taken + 1  # set before give_back(), so that the next event calls _advance()
                self._turn.give_back()
                if not (self._waiting or self._end) or not self._turn.take():
                    return
                continue
            self._limit = self._waiting.taken + MAX_WAITING_EVENTS + 1
            reply = self._append(batch, end)
            if not reply.done():
                reply.add_done_callback(partial(self._resume, end))
                return
            self._takes_blocks = self._log.takes_blocks(self._writer.run_id)
            if not self._takes_blocks:
                # The log wants single event objects. So add no chunks to blocks, and skip the pause after a burst.
                self._waiting.origin = None
                self._not_before = 0.0
            if not self._go_on(reply, end):
                return

    def _append(self, batch: Sequence[Event], end: End | None) -> Future[None]:
        """Write to the log. If the log raises an error, return a future that fails with the error."""
        try:
            return self._log.append(self._writer, batch, end)
        except Exception as error:  # noqa: BLE001 - raised by a user's log
            failed = Future[None]()
            failed.set_exception(error)
            return failed

    def _follow_spans(
        self, close: Callable[[Started, str], Event], batch: Sequence[Event], end: End | None
    ) -> Sequence[Event]:
        """Record which spans are open after ``batch``, and return the events to write.

        With ``end``, the events that close the open spans follow ``batch``, innermost first.
        """
        parts = batch.parts if isinstance(batch, Batch) else batch
        for part in parts:
            if type(part) is not StreamChunk:  # most parts are chunks, which neither begin nor end spans
                self._open.follow(part)
        if end is None:
            return batch
        reason = end.reason or in_words(end.error or "") or DEFAULT_STOP_REASON
        closing = self._open.close(lambda started: close(started, reason))
        if not closing:
            return batch
        # Do not add these events to ``_waiting``: the run's loop may be blocked in the middle of adding an event there.
        closing = [renumber(event, seq) for seq, event in enumerate(closing, self._waiting.taken)]
        self._waiting.taken += len(closing)
        return Batch([*parts, *closing], len(batch) + len(closing))

    def _resume(self, end: End | None, reply: Future[None]) -> None:
        """Continue after a reply. This is called in the thread that resolves the reply, usually the store's thread.

        If events are waiting, the loop's thread writes them. It has created them, so they are probably still in the
        cache of its processor core. If there is no open loop, or if the end of the run is set, the calling thread
        writes them.
        """
        if not self._go_on(reply, end):
            return
        if self._loop is None or not self._waiting:
            self._write()
            return
        self._due.give_back()
        if self._end is not None or not call_soon(self._loop, partial(self._schedule, self._loop)):
            self._write_now()

    def _go_on(self, reply: Future[None], end: End | None) -> bool:
        """Handle a reply. Return whether more may be written. If not, ``_turn`` stays taken."""
        error = _get_error(reply)
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
        if not isinstance(error, Exception):
            self.done.set_exception(error)
            return False
        try:
            self._fail(error)
        finally:  # an observer may raise
            if isinstance(error, NotTheWriterError | RunExistsError):
                self.done.set_exception(error)
            else:  # write the error as the end for readers
                last = self._append([], End("failed", error))
                last.add_done_callback(lambda last: self.done.set_exception(_get_error(last) or error))
        return False


def _get_error(reply: Future[None]) -> BaseException | None:
    """Return the error with which the log replied. A cancelled reply counts as an error."""
    return StoreError("the log cancelled its reply") if reply.cancelled() else reply.exception()
