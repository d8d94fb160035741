"""Carries out runs in this process: writes their events to a store, and obeys notes.

A note is a message for a run from any process with access to the store, for example to cancel the run.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Future, wait
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any, TypeAlias, cast

from reactivex.disposable import SingleAssignmentDisposable

from rxflow._loops import call_soon, on_this_loop, running_loop
from rxflow._options import Seconds, read_seconds
from rxflow._streaming import UNANSWERED, Border, EventStream, Inbox, RunHandle, Unanswered, ambient
from rxflow.operators._core.log_writer import LogWriter
from rxflow.operators._core.run_log import End, Head, Note, Store, Writer
from rxflow.runs.attendance import Attendance
from rxflow.runs.options import Carrier, Runnable
from rxflow.types import Event, FlowPaused, InputRequested, Started

logger = logging.getLogger("rxflow")

Claim: TypeAlias = tuple[Writer, Head]
"""What a store returns to a worker that claims a run: the writer and the head of the run."""

LOOPS_WAIT_S = 1.0
"""Seconds in which stopped runs can end on their own event loops. After that, :meth:`Workers.cancel` ends them."""
UNREAD_END_S = 0.2
"""Seconds between two steps of cancelling a run that nobody reads: closing its connections, and ending the run."""
STORE_WAIT_S = 5.0
"""Seconds in which the store can write the ends of stopped runs. After that, a warning is logged."""


class Worker:
    """Carries out one run: subscribes to the events of the run, and writes these events to the store.

    If a question gets no answer within ``answer_within_s`` seconds, the run is paused.
    """

    def __init__(self, store: Store, run_id: str, answer_within_s: float, paused: dict[str, Runnable]) -> None:
        self.run_id = run_id
        self._store = store
        self._paused = paused
        self._inbox = _RunInbox(answer_within_s)
        self._running = SingleAssignmentDisposable()
        self._attendance: Attendance | None = None
        self._writer: LogWriter | None = None
        self._border: Border | None = None
        self._claimed: Writer | None = None
        self._early: list[Note] = []  # notes that arrived between the claim and the start
        self.has_begun = False
        """Whether :meth:`begin` has subscribed to the run's events. From then on, notes are obeyed at once."""
        self.runnable: Runnable | None = None

    def begin(self, runnable: Runnable, source: EventStream[Event], claimed: Claim, *first: Event) -> Future[None]:
        """Start the run. The events ``first`` are written before the events that the run emits.

        The returned future resolves when the run's end is in the store. It fails if the end cannot be written.
        """
        writer, head = claimed
        self.runnable = runnable
        self._claimed = writer
        self._writer = log = LogWriter(self._store, writer, self._stop, head.last + 1, self._look_at, self._close_span)
        log.done.add_done_callback(lambda done: self._let_go(writer, done))
        for event in first:
            log.on_next(event)
        grace_s = head.spec.when_unread
        if grace_s is not None:
            reason = f"nobody has read it for {grace_s:g} s" if grace_s else "its last reader has left"
            self._attendance = Attendance(grace_s, partial(self._cancel_unread, reason))
        context = copy_context()
        context.run(ambient.set, None)  # if a method of a flow starts this run, the run is not part of that flow's run
        context.run(self._subscribe, source.with_answerer(self._inbox).with_log(self._flush))
        self.has_begun = True
        self._obey_early_notes()
        return log.done

    def on_note(self, note: Note) -> None:
        """Obey a note, or keep it until :meth:`begin` obeys it. The store calls this method, in any thread."""
        # Add the note first, and then read has_begun. begin() sets has_begun first, and then reads the early notes. In
        # this order, no note is missed.
        self._early.append(note)
        if self.has_begun:
            self._obey_early_notes()

    def _obey_early_notes(self) -> None:
        while self._early:
            try:
                note = self._early.pop(0)
            except IndexError:  # another thread has taken the note
                return
            self._obey(note)

    def _obey(self, note: Note) -> None:
        if note.kind == "cancel":
            self.cancel(str(note.value))
        elif note.kind == "answer":
            try:
                self._inbox.answer(note.request_id, note.value)
            # The sender has already checked the answer. So an error means that the question was closed meanwhile.
            except (LookupError, ValueError) as error:
                logger.warning("run %s: an answer was not taken: %s", self.run_id, error)
        elif self._attendance is not None:
            self._attendance.note(note.request_id, float(note.value))

    def decline(self, request_id: str) -> None:
        """Stop waiting for :meth:`Run.answer`, and ask the question on the console of this process instead.

        If there is no console, or nobody answers there, the run is paused. If the question is not open, this does
        nothing.
        """
        with suppress(LookupError):
            self._inbox.decline(request_id)

    def pause(self) -> bool:
        """Stop waiting for answers, so that the run pauses as soon as everything else in it is done.

        Return False if no question is open. Also return False if the run needs the event loop of the calling thread,
        because the caller is about to wait for the run.
        """
        if self._border is None or running_loop() is self._border.scope.run.loop:
            return False
        return self._inbox.close()

    def cancel(self, reason: str) -> None:
        """Stop the run and close its connections to providers. May be called in any thread.

        The run is ended on its own loop. If that loop is closed, the calling thread ends the run. A run that has not
        begun is cancelled when it begins.
        """
        if not self.has_begun:
            self.on_note(Note("cancel", reason))  # begin() will obey this note
            return
        loop = None if self._border is None else self._border.scope.run.loop
        end = partial(self.end_cancelled, reason)
        if loop is None or running_loop() is loop or not call_soon(loop, end):
            end()

    def end_cancelled(self, reason: str) -> None:
        """Stop the run, and write its end to the log. Events that close the open spans are written before the end.

        Called on the run's loop, or in another thread if that loop is blocked or closed.
        """
        self._running.dispose()
        self._log.end(End("cancelled", reason=reason))

    def _cancel_unread(self, reason: str) -> None:
        """Close the run's connections to providers now, and stop the rest of the run a little later.

        The rest can wait, because nobody reads the run. If the readers of many runs leave at once, the connections of
        all these runs are closed before the first run is ended.
        """
        if self._border is None:
            self.cancel(reason)
            return
        run = self._border.scope.run
        run.connections.dispose()
        if not call_soon(run.loop, lambda: run.loop.call_later(UNREAD_END_S, self.end_cancelled, reason)):
            self.end_cancelled(reason)

    @property
    def is_ending(self) -> bool:
        """Whether the log accepts no more events."""
        return self._log.is_ending

    @property
    def done(self) -> Future[None]:
        """A future that resolves when the run's end is in the store. It fails if the end could not be written."""
        return self._log.done

    @property
    def writer(self) -> Writer | None:
        """The writer that the store gave this worker; None before :meth:`begin`."""
        return self._claimed

    @property
    def is_paused(self) -> bool:
        """Whether the last event so far, apart from chunks, is a ``FlowPaused``. The run then waits for answers."""
        return self._writer is not None and self._writer.is_paused

    @property
    def _log(self) -> LogWriter:
        if self._writer is None:
            raise RuntimeError(f"run {self.run_id!r} has not begun")
        return self._writer

    def _subscribe(self, source: EventStream[Event]) -> None:
        # Do not use subscribe(), because its safeguards for users' code cost 1 µs for each event.
        source.read_by(self._log, None, blocking=False, is_read=False, hold=self._hold, enter=self._enter)

    def _enter(self, border: Border) -> None:
        self._border = border

    def _look_at(self, event: Event) -> None:
        """Do what must be done before the log has ``event``: a reader may answer, or resume the run, at once."""
        if isinstance(event, FlowPaused):
            self._paused[self.run_id] = cast(Runnable, self.runnable)
        elif self.is_paused:  # the flow that has paused is only a part of the run, which goes on
            self._paused.pop(self.run_id, None)
        if isinstance(event, InputRequested):
            self._inbox.expect(event)

    async def _flush(self, home: asyncio.AbstractEventLoop) -> None:
        """Wait until all events emitted so far are in the store, or until the store has refused them.

        ``home`` is the loop on which the run emits its events. If ``home`` is closed, return at once.
        """
        written: Future[None] = Future()
        flush = partial(self._log.flush, written)
        if running_loop() is home:
            flush()
        # If the running loop has already sent events to `home`, `home` handles these events before flush().
        elif not call_soon(home, flush):
            return
        await on_this_loop(written)

    def _close_span(self, started: Started, reason: str) -> Event:
        """Return the event that closes the span of ``started``. Called for each span that is open when the log ends."""
        border = cast(Border, self._border)  # not None, because the run has already emitted ``started``
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
    """The workers of the runs in this process.

    Attributes:
        carrier: makes other processes carry out the runs. If it is None, this process carries out the runs.
        paused: maps the id of each run that has paused in this process to its flow or crew, for :meth:`Run.resume`. An
            entry is added before the store knows of the pause.
    """

    def __init__(self, store: Store, carrier: Carrier | None) -> None:
        self.store = store
        self.carrier = carrier
        self.paused: dict[str, Runnable] = {}
        self._running: set[Worker] = set()  # two of one run, if it is resumed while the store reports its pause

    def create(self, run_id: str, answer_within: Seconds | None = None) -> Worker:
        """Create the worker of a run that is not yet claimed. Raises ValueError if ``answer_within`` is not above 0."""
        seconds = 0 if answer_within is None else read_seconds("answer_within", answer_within)
        return Worker(self.store, run_id, seconds, self.paused)

    def begin(
        self,
        worker: Worker,
        runnable: Runnable,
        source: EventStream[Event],
        claimed: Claim,
        *first: Event,
    ) -> None:
        """Start a claimed run. The events ``first`` are written before the events that the run emits."""
        self.paused.pop(worker.run_id, None)
        self._running.add(worker)
        try:
            worker.begin(runnable, source, claimed, *first).add_done_callback(lambda _: self._running.discard(worker))
        except BaseException:
            self._running.discard(worker)
            raise

    def await_claim(self, claim: Future[Claim]) -> Claim:
        """Wait for the store's reply to a claim, and return the reply. If the wait is interrupted, cancel the run."""
        try:
            return claim.result()
        except BaseException:
            self._give_up(claim)
            raise

    async def await_claim_async(self, claim: Future[Claim]) -> Claim:
        """Do the same as :meth:`await_claim`, without blocking the event loop."""
        try:
            # Use shield(): if the claim itself were cancelled, the store could keep a claimed run that never begins.
            return await asyncio.shield(asyncio.wrap_future(claim))
        except BaseException:
            self._give_up(claim)
            raise

    def _give_up(self, claim: Future[Claim]) -> None:
        def end(claim: Future[Claim]) -> None:
            if not claim.cancelled() and claim.exception() is None:
                self.end(claim.result(), End("cancelled", reason=_NOT_BEGUN))

        claim.add_done_callback(end)

    def end(self, claimed: Claim, end: End) -> Future[None]:
        """End a run that was claimed, but does not begin.

        If the end cannot be written, the run is lost when its lease lapses.
        """
        writer, _ = claimed

        def let_go(done: Future[None]) -> None:
            if done.cancelled() or done.exception() is not None:
                self.store.release(writer)

        ended = self.store.append(writer, [], end)
        ended.add_done_callback(let_go)
        return ended

    def fail(self, claimed: Claim, error: BaseException) -> None:
        """End a claimed run that could not be begun because of ``error``."""
        if isinstance(error, Exception):
            self.end(claimed, End("failed", error))
        else:  # for example KeyboardInterrupt
            self.end(claimed, End("cancelled", reason=_NOT_BEGUN))

    def stop(self, reason: str) -> None:
        """Pause the runs whose questions are open, cancel the others, and wait until their ends are in the store.

        A run that does not pause within ``LOOPS_WAIT_S`` seconds, because other work in it goes on, is cancelled too.
        If the loop of a cancelled run is blocked for ``LOOPS_WAIT_S`` seconds, this thread ends the run. After that,
        this thread waits at most ``STORE_WAIT_S`` seconds for the store.
        """
        workers = list(self._running)
        pausing = [worker for worker in workers if worker.pause()]
        for worker in workers:
            if worker not in pausing:
                worker.cancel(reason)
        wait([worker.done for worker in pausing], LOOPS_WAIT_S)
        for worker in pausing:
            if not worker.is_ending:
                worker.cancel(reason)
        workers = [worker for worker in workers if worker.has_begun]  # the other runs are cancelled when they begin
        wait([worker.done for worker in workers], LOOPS_WAIT_S)
        for worker in workers:
            if not worker.is_ending:
                logger.warning(_IS_BLOCKED, worker.run_id, LOOPS_WAIT_S)
                worker.end_cancelled(reason)
        wait([worker.done for worker in workers], STORE_WAIT_S)
        for worker in workers:
            if not worker.done.done():
                logger.warning(_IS_NOT_WRITTEN, worker.run_id, STORE_WAIT_S)


_NOT_BEGUN = "its start was cancelled"
_IS_BLOCKED = (
    "run %r was ended without its event loop, which has not run for %g s: code in an async method or tool waits "
    "without await (asyncio's debug mode names it)"
)
_IS_NOT_WRITTEN = "the store has not written the end of run %r for %g s; its readers take the run for lost"


class _RunInbox(Inbox):
    """The open questions of a run and their answers.

    If a question gets no answer within ``answer_within_s`` seconds, the run is paused.
    """

    def __init__(self, answer_within_s: float) -> None:
        super().__init__()
        self._answer_within_s = answer_within_s
        self._is_closed = False

    def close(self) -> bool:
        """Leave all questions unanswered, also those to come.

        Return whether the run waited for answers, or was about to take one that must still get into the log.
        """
        # Set the flag first, and then read ``pending``. find_answer() is called with a question that is already in
        # ``pending``, and reads the flag. In this order, no question is missed.
        self._is_closed = True
        is_awaited = self.is_awaited
        for request in self.pending:
            with suppress(LookupError):  # the question was answered in the meantime
                self.decline(request.request_id)
        return is_awaited

    async def find_answer(self, request: InputRequested) -> Any:
        limit = asyncio.timeout(0 if self._is_closed else self._answer_within_s)
        try:
            async with limit:
                answer = await super().find_answer(request)
        except TimeoutError:
            if not limit.expired():
                raise
            raise Unanswered((request,)) from None
        if answer is UNANSWERED and self._is_closed:
            raise Unanswered((request,))  # do not ask at the console, because the process is about to end
        return answer
