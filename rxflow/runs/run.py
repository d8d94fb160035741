"""``Run``: one run in a store. Every process with access to the store can read, answer, cancel and resume the run."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from threading import TIMEOUT_MAX
from typing import Any

from rxflow._loops import off_the_loop, on_this_loop
from rxflow._options import Seconds, to_seconds
from rxflow._streaming import (
    CrewStreamingOutput,
    Emitter,
    EventStream,
    FlowStreamingOutput,
    Journal,
    check_answer,
    chunks,
    drop_retracted,
    from_coroutine,
    is_repeated,
)
from rxflow.operators._core.log_reader import RunReader, raise_end
from rxflow.operators._core.run_log import (
    LIVE,
    PAGE,
    End,
    EventsDroppedError,
    Head,
    Note,
    OnNote,
    Page,
    RunExistsError,
    Status,
    check_position,
)
from rxflow.runs.continuation import (
    create_journal,
    explain_restart,
    find_end,
    read_end,
    record_answers,
    refuse_completed,
    retract_all,
)
from rxflow.runs.options import Runnable, check_answers, find_runnable, read_reason
from rxflow.runs.worker import Claim, Worker, Workers
from rxflow.types import (
    CrewFinished,
    Event,
    FlowFinished,
    InputReceived,
    InputRequested,
    RunPaused,
    StreamChunk,
    TaskFinished,
)


class Run:
    """A run in a store. The run is carried out in this process or in another process.

    Attributes:
        id: the name of the run in the store.
        worker: the worker that carries out the run in this process. It is set if this object came from
            :meth:`Runs.start`, or has restarted or resumed the run; otherwise None.
    """

    def __init__(self, workers: Workers, head: Head, worker: Worker | None = None) -> None:
        self.worker = worker
        self.id = head.run_id
        self._workers = workers
        self._store = workers.store
        self._kind = head.spec.kind

    @property
    def status(self) -> Status:
        """One of "queued", "running", "paused", "completed", "failed", "cancelled" and "lost".

        A run is lost if its process has died, or cannot reach the store.

        Raises:
            LookupError: the run was forgotten.
        """
        return self.look_up().status

    def look_up(self) -> Head:
        """Return the data of the run in the store, without the events. Raises LookupError if the run was forgotten."""
        return self._store.look_up(self.id).result()

    def events(self, after: int = -1) -> EventStream[Event]:
        """Return a cold Observable of the events after number ``after``: first those in the store, then new ones. ::

            the run             --a--b-----c--d|
            events()                  (ab)-c--d|
            events(after=1)           -----c--d|

        Any number of readers may read the run, in any process. Disposing a subscription does not stop the run, unless
        ``when_unread`` of :meth:`Runs.start` cancels runs without readers. The errors below end the stream. This method
        does not raise them itself.

        Raises:
            LookupError: the run was forgotten.
            EventsDroppedError: the first events after ``after`` were dropped, because of ``max_events``.
            ValueError: ``after`` is beyond the last event.
            StoreError: the store cannot be read.
            RunLost, RunCancelled: the run was lost or cancelled. The stored events come first.
            Exception: the run's own error. The stored events come first.
        """
        return self._events(after, lambda event: True)

    def _events(self, after: int, is_shown: Callable[[Event], bool]) -> EventStream[Event]:
        check_position(after)

        async def work(emitter: Emitter) -> None:
            with closing(self.read(after)) as reader:
                async for page in reader:
                    for event in filter(is_shown, page):
                        emitter.on_next(event)

        return EventStream(lambda scope: from_coroutine(scope, work)).as_part()

    def read(self, after: int = -1) -> RunReader:
        """Return a reader for a coroutine that may be slower than the run.

        Each step of this loop gets the events that are ready, at most 256::

            with closing(run.read()) as reader:
                async for events in reader:
                    await send(events)

        Events stay in the store until the coroutine asks for them, so no buffer grows. The loop raises the errors that
        :meth:`events` lists.
        """
        return RunReader(self._store, self.id, after)

    def observe(self, after: int = -1) -> EventStream[StreamChunk]:
        """Return a cold Observable of the chunks in :meth:`events`.

        To continue after a chunk, pass ``after=chunk.seq``. Chunks that a resumed run repeats are left out, because the
        log already has them.
        """
        return self._events(after, lambda event: not is_repeated(event)).select(chunks)

    def output(self, after: int = -1) -> FlowStreamingOutput | CrewStreamingOutput:
        """Return the chunks as an output, as a streaming ``kickoff()`` does. Iterate with ``for`` or ``async for``."""
        output = CrewStreamingOutput if self._kind == "crew" else FlowStreamingOutput
        return output(source=self._events(after, lambda event: not is_repeated(event)))

    def result(self, timeout: Seconds | None = None) -> Any:
        """Wait until the run has ended, and return its result. ``timeout`` is in seconds; None means no limit.

        Stores on disk or in the network keep the result as JSON. An object that JSON cannot represent is replaced by a
        stand-in, such as a ``RecordedObject``. A store in memory returns the object itself.

        Raises:
            LookupError: the run was forgotten.
            TypeError, ValueError: ``timeout`` is not a time.
            TimeoutError: the run did not end within ``timeout`` seconds.
            RunLost, RunCancelled: the run was lost or cancelled.
            RunPaused: the run waits for answers.
            StoreError: the store cannot be read, or was closed.
            RuntimeError: the run completed without a result.
            Exception: the run's own error.
        """
        limit_s = math.inf if timeout is None else to_seconds("timeout", timeout)
        deadline = time.monotonic() + limit_s
        while True:
            head = self.look_up()
            if head.status in LIVE:
                left = deadline - time.monotonic()
                if not left > 0:  # also if ``timeout`` is NaN
                    raise TimeoutError(f"run {self.id!r} is still running after {limit_s:g} s")
                waiting = self._store.wait(self.id, sys.maxsize)
                try:
                    with suppress(CancelledError, TimeoutError):  # the next iteration of the loop handles both
                        waiting.result(min(left, TIMEOUT_MAX))
                finally:
                    waiting.cancel()  # otherwise, after a time-out, the store would keep the future until the run ends
                continue
            page = self._store.read(self.id, _tail_of(head), PAGE).result()
            if page.is_of(head):
                return self._read_result(page)

    async def result_async(self) -> Any:
        """Do the same as :meth:`result`, for async code. There is no time limit."""
        while True:
            head = await on_this_loop(self._store.look_up(self.id))
            if head.status in LIVE:
                # A store that is closed cancels the future. The next look_up() then raises a StoreError. Only
                # concurrent.futures.CancelledError is suppressed. Cancelling this task raises asyncio.CancelledError.
                with suppress(CancelledError):
                    await on_this_loop(self._store.wait(self.id, sys.maxsize))
                continue
            page = await on_this_loop(self._store.read(self.id, _tail_of(head), PAGE))
            if page.is_of(head):
                if page.status == "paused":  # the questions are then read from the log, which blocks
                    return await off_the_loop(partial(self._read_result, page))
                return self._read_result(page)

    def cancel(self, reason: str = "") -> None:
        """Stop the run and close its connections to providers, in whichever process the run is carried out.

        This does not wait until a live run has stopped. A paused run is cancelled too. A lost run stays lost. If the
        run has already ended, this does nothing.

        Raises:
            TypeError: ``reason`` is not a string.
            LookupError: the run was forgotten.
        """
        reason = read_reason(reason)
        head = self.look_up()
        if head.status == "paused":
            # RunExistsError: the run was resumed after look_up(). It is live again, so the note below cancels it.
            with suppress(RunExistsError):
                claimed = self._claim(lambda note: None)
                end = End("cancelled", reason=reason)
                # This claim is normally one generation after ``head``. If it is later, the run was resumed after
                # look_up(), and has already ended or paused.
                if claimed[1].generation > head.generation + 1:
                    found = self._find_end(claimed, head.last)
                    end = end if found is None or found.status == "paused" else found
                self._workers.end(claimed, end).result()
                self._workers.paused.pop(self.id, None)
                return
        self._store.note(self.id, Note("cancel", reason)).result()

    def pending(self) -> list[InputRequested]:
        """Return the questions that wait for an answer, oldest first. Raises LookupError if the run was forgotten."""
        asked: dict[str, InputRequested] = {}
        for event in drop_retracted(self._read_all()):
            if isinstance(event, InputRequested):
                asked[event.request_id] = event
            elif isinstance(event, InputReceived):
                asked.pop(event.request_id, None)
        return list(asked.values())

    def answer(self, request_id: str, value: Any, target: Runnable | str | None = None) -> None:
        """Answer a question of the run.

        A live run continues in its process, which gets the answer through the store. A paused run is resumed as by
        :meth:`resume`, with ``target`` and with the ``answer_within`` that was given to :meth:`Runs.start`: this
        process carries out the run, so it must stay until :meth:`result` returns. If it ends earlier, the answer is in
        the log, and ``resume()`` continues the run with it.

        Raises:
            LookupError: no question with this id is waiting, or the run was forgotten. Also raised if there is nothing
                at the import path.
            ValueError: the answer does not fit the question. Also raised if the run is paused, and ``target`` is
                needed.
            TypeError: ``target`` is not a flow, a crew or the import path of one.
            RuntimeError: the run is neither live nor paused.
        """
        request = next((each for each in self.pending() if each.request_id == request_id), None)
        if request is None:
            raise LookupError(
                f"no question {request_id!r} is waiting in run {self.id!r}: it was already answered, or never asked"
            )
        check_answer(request, value)
        head = self.look_up()
        if head.status == "paused":
            self.resume({request_id: value}, target, answer_within=head.spec.answer_within)
            return
        if head.status not in LIVE:
            raise RuntimeError(f"run {self.id!r} is {head.status}: it cannot take an answer; continue it with resume()")
        self._store.note(self.id, Note("answer", value, request_id)).result()

    def resume(
        self,
        answers: Mapping[str, Any] | None = None,
        target: Runnable | str | None = None,
        *,
        answer_within: Seconds | None = None,
    ) -> None:
        """Continue a run that is paused, failed, cancelled or lost. Its new events continue the same log.

        The run is carried out in this process, or in the cluster that :class:`Runs` got as ``on``. Methods that have
        finished are not run again. The code of other methods runs again from its beginning, but finished model calls
        and tool calls are not repeated: their results come from the log. See docs/people.md.

        When this method returns, the ``answers`` are in the log, so they are not lost if this process ends or closes
        its :class:`Runs`. The run itself is then cancelled or lost, and another call of this method continues it.

        Readers receive the answers, ``FlowResumed``, a ``Retracted`` if a text was incomplete, the questions that are
        still open, and then the new events. In async code, call this method in a thread, because it blocks while it
        reads the log.

        Args:
            answers: the answers to questions of :meth:`pending`, by ``request_id``.
            target: the flow or crew to run, or its import path. The default is the first of these that exists: the flow
                or crew whose run has paused in this :class:`Runs`; the import path with which the run was started; the
                flow or crew that this ``Run`` object has started, restarted or resumed.
            answer_within: how long a question waits; see :meth:`Runs.start`.

        Raises:
            RunExistsError: the run is running.
            NotResumable: the run has completed.
            ValueError: an answer does not fit its question, or ``target`` is needed because there is no default. Also
                raised if ``answer_within`` is not above 0, or if the run has no events.
            TypeError: ``answers`` is not a mapping, or ``target`` is not a flow, a crew or the import path of one.
            LookupError: an answer belongs to no open question. Also raised if the run was forgotten, if its first
                events were dropped, or if there is nothing at the import path.
        """
        check_answers(answers)
        if self._workers.carrier is not None:
            self._workers.carrier.begin(
                "resume", self.id, answers=answers, target=target, answer_within=answer_within
            ).result()
            return
        head = self.look_up()
        if head.status == "completed":
            raise refuse_completed(self.id)
        runnable = self._find_target(head, target, None if self.worker is None else self.worker.runnable)

        past = self._read_all()
        journal = create_journal(self.id, past, answers)
        source = runnable.events(head.spec.inputs)
        worker = self._workers.create(self.id, answer_within)
        claimed = self._claim(worker.on_note)
        end = read_end(head)
        # If there are newer events than those in ``past``, the run only seemed lost, or somebody else has resumed it.
        is_newer = claimed[1].last > past[-1].seq
        if is_newer:
            end = self._find_end(claimed, past[-1].seq)
            if end is not None and end.status == "completed":
                self._workers.end(claimed, end).result()
                raise refuse_completed(self.id)
        try:
            if is_newer:
                past = self._read_all()
                journal = create_journal(self.id, past, answers)
            if answers:
                recorded = record_answers(journal, answers)
                self._store.append(claimed[0], recorded).result()
                claimed = claimed[0], replace(claimed[1], last=claimed[1].last + len(recorded))
                late = answers.keys() - {event.request_id for event in recorded}
                journal = Journal([*past, *recorded], {request_id: answers[request_id] for request_id in late})
        except BaseException as error:
            if end is None:
                self._workers.fail(claimed, error)
            else:  # Restore the end. Somebody else has probably answered the questions that ``answers`` is for.
                self._workers.end(claimed, end)
            raise
        self.worker = worker
        self._workers.begin(worker, runnable, source.resume_from(journal), claimed)

    def _claim(self, on_note: OnNote) -> Claim:
        return self._workers.await_claim(self._store.claim(self.id, None, on_note))

    def _find_end(self, claimed: Claim, after: int) -> End | None:
        """Return how the run ended or paused, according to its events after ``after``; None if these show no end.

        Claiming a run deletes its stored end, so only the events show how the run ended. If the log cannot be read,
        the claimed run is ended with the error, and the error is raised.
        """
        try:
            events = self._read_all(after)
        except BaseException as error:
            self._workers.fail(claimed, error)
            raise
        return find_end(events)

    def _find_target(self, head: Head, target: Runnable | str | None, otherwise: Runnable | None = None) -> Runnable:
        what = target or self._workers.paused.get(self.id) or head.spec.target or otherwise
        if not what:
            raise ValueError(
                f"run {self.id!r} was not started by an import path, so its flow or crew cannot be found: "
                "pass it as target"
            )
        return find_runnable(what)

    def restart(self, target: Runnable | str | None = None) -> None:
        """Run a lost, failed, cancelled, paused or completed run again from its start.

        The run is carried out in this process, or in the cluster that :class:`Runs` got as ``on``. Its new events
        continue the same log: readers receive a :class:`Retracted` for all earlier chunks, and then the new events.

        Args:
            target: the flow or crew to run, or its import path. The default is the first of these that exists: the flow
                or crew whose run has paused in this :class:`Runs`; the import path with which the run was started.

        Raises:
            RunExistsError: the run is running.
            ValueError: ``target`` is needed because there is no default.
            TypeError: ``target`` is not a flow, a crew or the import path of one.
            LookupError: the run was forgotten, or there is nothing at the import path.
        """
        if self._workers.carrier is not None:
            self._workers.carrier.begin("restart", self.id, target=target).result()
            return
        head = self.look_up()
        runnable = self._find_target(head, target)
        source = runnable.events(head.spec.inputs)
        worker = self._workers.create(self.id, head.spec.answer_within)
        claimed = self._claim(worker.on_note)
        try:
            retracted = retract_all(self._read_all(), head.error or explain_restart(head, claimed[1].last))
        except BaseException as error:
            self._workers.fail(claimed, error)
            raise
        self.worker = worker
        self._workers.begin(worker, runnable, source, claimed, retracted)

    def __repr__(self) -> str:
        return f"<Run {self.id}>"

    def _read_all(self, after: int = -1) -> list[Event]:
        """Return the events after number ``after``, except those that the store has dropped."""
        head = self.look_up()
        events: list[Event] = []
        after = max(after, head.first - 1)
        while after < head.last:
            try:
                events += self._store.read(self.id, after, PAGE).result().events
                after = events[-1].seq
            except EventsDroppedError:  # the run goes on: the next events were dropped, and so were those in ``events``
                events.clear()
                after = self.look_up().first - 1
        return events

    def _read_result(self, page: Page) -> Any:
        raise_end(self.id, page)
        if page.status == "paused":
            raise RunPaused(tuple(self.pending()))
        for event in reversed(page.events):
            if isinstance(event, FlowFinished | CrewFinished | TaskFinished):
                return event.result
        raise RuntimeError(f"run {self.id!r} completed without a result")


def _tail_of(head: Head) -> int:
    return max(head.first - 1, head.last - PAGE)
