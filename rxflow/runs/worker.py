"""Runs in the process that carries them out: their events go to the store, and notes from everywhere come back."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextvars import copy_context
from functools import partial
from typing import Any, cast

from reactivex.disposable import SingleAssignmentDisposable

from rxflow._loops import call_soon, on_this_loop, running_loop
from rxflow._streaming.border import Border
from rxflow._streaming.bridge import Unanswered
from rxflow._streaming.emitter import ambient
from rxflow._streaming.handle import RunHandle
from rxflow._streaming.observable import EventStream
from rxflow._streaming.questions import Inbox
from rxflow.operators._core.log_writer import LogWriter
from rxflow.operators._core.run_log import End, Note, Writer
from rxflow.runs.options import Carrier, Runnable, Seconds, read_seconds
from rxflow.runs.store import Head, Store
from rxflow.types import Started
from rxflow.types.events import Event, InputRequested

logger = logging.getLogger("rxflow")

LOOPS_WAIT_S = 1.0
"""How long the loops of runs that are stopped may take to end them. After that they are ended without."""
STORE_WAIT_S = 5.0
"""How long the store may take to write the ends."""


class Worker:
    """Subscribes a run and writes its events. A question waits some seconds for an answer; then the run is paused."""

    def __init__(self, store: Store, run_id: str, answer_within_s: float) -> None:
        self.run_id = run_id
        self._store = store
        self._inbox = _RunInbox(answer_within_s)
        self._running = SingleAssignmentDisposable()
        self._attendance: Attendance | None = None
        self._writer: LogWriter | None = None
        self._border: Border | None = None
        self._claimed: Writer | None = None
        self._early: list[Note] = []  # notes that come between the claim and the start

    def begin(self, source: EventStream[Event], claimed: tuple[Writer, Head], *first: Event) -> Future[None]:
        """Start the run, with these events ahead of its own. The future is done when its end is in the store."""
        writer, head = claimed
        self._claimed = writer
        self._writer = log = LogWriter(
            self._store, writer, self._stop, head.last + 1, self._expect_answer, self._close_span
        )
        log.done.add_done_callback(lambda done: self._let_go(writer, done))
        for event in first:
            log.on_next(event)
        grace_s = head.spec.when_unread
        if grace_s is not None:
            self._attendance = Attendance(grace_s, lambda: self.cancel(f"nobody has read it for {grace_s:g} s"))
        context = copy_context()
        context.run(ambient.set, None)  # a run that a method starts is not a part of that method
        context.run(self._subscribe, source.answered_by(self._inbox).logged_by(self._flush))
        early, self._early = self._early, []
        for note in early:
            self.on_note(note)
        return log.done

    def on_note(self, note: Note) -> None:
        """Carry out a note. Called in the store's thread."""
        if self._writer is None:
            self._early.append(note)
        elif note.kind == "cancel":
            self.cancel(str(note.value))
        elif note.kind == "answer":
            try:
                self._inbox.answer(note.request_id, note.value)
            except (LookupError, ValueError) as error:  # whoever left it has been told, but for what has changed since
                logger.warning("run %s: an answer was not taken: %s", self.run_id, error)
        elif self._attendance is not None:
            self._attendance.note(note.request_id, float(note.value))

    def cancel(self, reason: str) -> None:
        """Stop the run, down to the provider's connection. From any thread; its end is written on its own loop."""
        loop = None if self._border is None else self._border.scope.run.loop
        end = partial(self.end_cancelled, reason)
        if loop is None or running_loop() is loop or not call_soon(loop, end):
            end()

    def end_cancelled(self, reason: str) -> None:
        """Stop the run, and end its log, where the spans that are open are closed. On the run's loop, if that can."""
        self._running.dispose()
        self._log.end(End("cancelled", reason=reason))

    @property
    def is_ending(self) -> bool:
        """The log takes no more events."""
        return self._log.is_ending

    @property
    def done(self) -> Future[None]:
        """Done when the end is in the store; raises if it could not be written."""
        return self._log.done

    @property
    def writer(self) -> Writer | None:
        """The writer under which the store knows this worker, once the run has begun."""
        return self._claimed

    @property
    def is_paused(self) -> bool:
        """The run has ended because it waits for answers."""
        return self._writer is not None and self._writer.is_paused

    @property
    def _log(self) -> LogWriter:
        if self._writer is None:
            raise RuntimeError(f"run {self.run_id!r} has not begun")
        return self._writer

    def _subscribe(self, source: EventStream[Event]) -> None:
        # Not by subscribe(): what stands there before users' code takes 1 µs an event.
        source.read_by(self._log, None, blocking=False, is_read=False, hold=self._hold, enter=self._enter)

    def _enter(self, border: Border) -> None:
        self._border = border

    def _expect_answer(self, event: Event) -> None:
        if isinstance(event, InputRequested):
            self._inbox.expect(event)  # readers may answer it at once; also one that a resumed run repeats

    async def _flush(self, home: asyncio.AbstractEventLoop) -> None:
        """Wait until what was emitted so far is in the store; ``home`` is the loop on which all of it is emitted."""
        written: Future[None] = Future()
        flush = partial(self._log.flush, written)
        if running_loop() is home:
            flush()
        elif not call_soon(home, flush):  # behind what a part on another loop has emitted
            return
        await on_this_loop(written)

    def _close_span(self, started: Started, reason: str) -> Event:
        """The event that closes a span that is open when the log ends."""
        border = cast(Border, self._border)  # whose events they are
        return border.stamp(border.describe_stopped(started, reason))

    def _hold(self, handle: RunHandle) -> None:
        self._running.disposable = handle

    def _stop(self, error: Exception) -> None:
        self._running.dispose()

    def _let_go(self, writer: Writer, done: Future[None]) -> None:
        if self._attendance is not None:
            self._attendance.close()
        if done.exception() is not None:
            self._store.release(writer)


class Workers:
    """The runs that this process carries out.

    Attributes:
        carrier: starts runs in other processes, if there are any.
        paused: flows and crews of runs that wait for answers, which go on with them.
    """

    def __init__(self, store: Store, carrier: Carrier | None) -> None:
        self.store = store
        self.carrier = carrier
        self.paused: dict[str, Runnable] = {}
        self._running: dict[str, Worker] = {}

    def create(self, run_id: str, answer_within: Seconds | None = None) -> Worker:
        """Create the worker of a run, which is yet to be claimed. Raises ValueError if the time is not above 0."""
        seconds = 0 if answer_within is None else read_seconds("answer_within", answer_within)
        return Worker(self.store, run_id, seconds)

    def begin(
        self,
        worker: Worker,
        runnable: Runnable,
        source: EventStream[Event],
        claimed: tuple[Writer, Head],
        *first: Event,
    ) -> None:
        """Start a run that was claimed, with these events ahead of its own."""

        def end(done: Future[None]) -> None:
            self._running.pop(worker.run_id, None)
            if worker.is_paused:
                self.paused[worker.run_id] = runnable

        self.paused.pop(worker.run_id, None)
        self._running[worker.run_id] = worker
        worker.begin(source, claimed, *first).add_done_callback(end)

    def cancel(self, reason: str) -> None:
        """Stop them all, and wait until their ends are in the store: no longer than ``LOOPS_WAIT_S`` for the loops of
        the runs, and ``STORE_WAIT_S`` for the store.
        """
        workers = list(self._running.values())
        for worker in workers:
            worker.cancel(reason)
        wait([worker.done for worker in workers], LOOPS_WAIT_S)
        for worker in workers:
            if not worker.is_ending:
                logger.warning(_IS_BLOCKED, worker.run_id, LOOPS_WAIT_S)
                worker.end_cancelled(reason)
        wait([worker.done for worker in workers], STORE_WAIT_S)
        for worker in workers:
            if not worker.done.done():
                logger.warning(_IS_NOT_WRITTEN, worker.run_id, STORE_WAIT_S)


_IS_BLOCKED = (
    "run %r was ended without its event loop, which has not run for %g s: code in an async method or tool waits "
    "without await (asyncio's debug mode names it)"
)
_IS_NOT_WRITTEN = "the store has not written the end of run %r for %g s; its readers take the run for lost"


class _RunInbox(Inbox):
    """The answers that are left for a run. A question without one pauses the run after some seconds."""

    def __init__(self, answer_within_s: float) -> None:
        super().__init__()
        self._answer_within_s = answer_within_s

    async def find_answer(self, request: InputRequested) -> Any:
        limit = asyncio.timeout(self._answer_within_s)
        try:
            async with limit:
                return await super().find_answer(request)
        except TimeoutError:
            if not limit.expired():
                raise
        raise Unanswered((request,))


class Attendance:
    """Who reads a run. ``on_absence`` is called when nobody has for ``grace_s`` seconds.

    Each reader announces for how long it counts as present, and renews that in time. The time runs from the
    start of the run; if ``grace_s`` is 0, from the moment when the last reader leaves.
    """

    def __init__(self, grace_s: float, on_absence: Callable[[], None]) -> None:
        self._grace_s = grace_s
        self._on_absence = on_absence
        self._lock = threading.Lock()
        self._until: dict[str, float] = {}
        self._due = math.inf
        self._timer: threading.Timer | None = None
        self._timer_due = math.inf
        if grace_s:
            self._wait_until(time.monotonic() + grace_s)

    def note(self, reader: str, seconds: float) -> None:
        """A reader is present for so many seconds from now; 0: it has left."""
        now = time.monotonic()
        with self._lock:
            if seconds > 0:
                self._until[reader] = now + seconds
            else:
                self._until.pop(reader, None)
            due = max(self._until.values(), default=now) + self._grace_s
            if due > now:
                self._wait_until(due)
        if due <= now:
            self._on_absence()

    def close(self) -> None:
        """The run is over."""
        with self._lock:
            self._due = math.inf
            if self._timer is not None:
                self._timer.cancel()

    def _wait_until(self, due: float) -> None:
        """A timer is a thread: one that fires too early waits again, in place of a new one for each note."""
        self._due = due
        if due < self._timer_due:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_due = due
            self._timer = threading.Timer(due - time.monotonic(), self._look, args=[due])
            self._timer.daemon = True
            self._timer.start()

    def _look(self, due: float) -> None:
        """In the timer's thread."""
        with self._lock:
            if due != self._timer_due:
                return  # another has taken its place
            self._timer_due = math.inf
            is_absent = self._due <= due
            if not is_absent and self._due < math.inf:
                self._wait_until(self._due)
        if is_absent:
            self._on_absence()
