"""``Run``: one run in a store, read, answered, cancelled and gone on with from any process."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from rxflow._json_text import encodable
from rxflow._streaming.bridge import from_coroutine
from rxflow._streaming.emitter import Emitter
from rxflow._streaming.journal import Journal, drop_retracted, retract_all
from rxflow._streaming.observable import EventStream, chunks
from rxflow._streaming.output import CrewStreamingOutput, FlowStreamingOutput
from rxflow._streaming.questions import check_answer
from rxflow.operators._core.run_log import (
    LIVE,
    PAGE,
    EventsDroppedError,
    Note,
    Page,
    RunCancelled,
    RunLost,
    Status,
    raise_end,
)
from rxflow.runs.options import Runnable, Seconds, find_runnable
from rxflow.runs.reader import RunReader
from rxflow.runs.store import Head
from rxflow.runs.worker import Worker, Workers
from rxflow.types.answers import RunPaused
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import (
    CrewFinished,
    Event,
    FlowFinished,
    InputReceived,
    InputRequested,
    TaskFinished,
)


class Run:
    """A run in a store, in whichever process it runs.

    Attributes:
        id: its name in the store.
        worker: what carries it out, if it was started, restarted or resumed by this object in this process.
    """

    def __init__(self, workers: Workers, head: Head, worker: Worker | None = None) -> None:
        self.worker = worker
        self.id = head.run_id
        self._workers = workers
        self._store = workers.store
        self._kind = head.spec.kind

    @property
    def status(self) -> Status:
        """ "queued", "running", "paused", "completed", "failed", "cancelled", or "lost": its process has died.

        Raises:
            LookupError: it was forgotten.
        """
        return self.look_up().status

    def look_up(self) -> Head:
        """What the store knows of it. Raises LookupError if it was forgotten."""
        return self._store.look_up(self.id).result()

    def events(self, after: int = -1) -> EventStream[Event]:
        """A cold Observable of the events behind event ``after``: what there is, then what comes. ::

            the run             --a--b--c--d|
            events()                (ab)c--d|
            events(after=1)             c--d|

        Any number of readers, in any process. Disposing one only leaves; see ``when_unread`` of :meth:`Runs.start`.

        Raises:
            LookupError: as the stream's error: it was forgotten; or those events are not kept (EventsDroppedError).
            ValueError: as the stream's error: ``after`` is beyond the last event.
            RunLost, RunCancelled: as the stream's error, after what had arrived.
        """

        async def work(emitter: Emitter) -> None:
            with closing(self.read(after)) as reader:
                async for page in reader:
                    for event in page:
                        emitter.on_next(event)

        return EventStream(lambda scope: from_coroutine(scope, work)).as_part()

    def read(self, after: int = -1) -> RunReader:
        """The same for a coroutine that may be slower than the run: as many events at a time as there are. ::

            with closing(run.read()) as reader:
                async for events in reader:
                    await send(events)

        What it has not asked for stays in the store, so nothing piles up for it.
        """
        return RunReader(self._store, self.id, after)

    def observe(self, after: int = -1) -> EventStream[StreamChunk]:
        """The chunks among :meth:`events`. ``after=chunk.seq`` goes on behind a chunk."""
        return self.events(after).select(chunks)

    def output(self, after: int = -1) -> FlowStreamingOutput | CrewStreamingOutput:
        """The chunks for ``for`` and ``async for``, as ``kickoff()`` of a streaming flow gives them."""
        output = CrewStreamingOutput if self._kind == "crew" else FlowStreamingOutput
        return output(source=self.events(after))

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the end, at most ``timeout`` seconds, and return what the run returned.

        What JSON cannot carry is a stand-in, unless the run is in the memory of this process.

        Raises:
            TimeoutError: it is still running.
            RunLost, RunCancelled: it has no result.
            RunPaused: it waits for answers.
            Exception: the run's own error.
        """
        while True:
            head = self.look_up()
            if head.status in LIVE:
                waiting = self._store.wait(self.id, sys.maxsize)
                try:
                    waiting.result(timeout)
                finally:
                    waiting.cancel()  # after the timeout: else the store would keep it to the end of the run
                continue
            page = self._store.read(self.id, _tail_of(head), PAGE).result()
            if _is_of(page, head):
                return self._read_result(page)

    async def result_async(self) -> Any:
        """:meth:`result` for async code."""
        while True:
            head = await asyncio.wrap_future(self._store.look_up(self.id))
            if head.status in LIVE:
                await asyncio.wrap_future(self._store.wait(self.id, sys.maxsize))
                continue
            page = await asyncio.wrap_future(self._store.read(self.id, _tail_of(head), PAGE))
            if _is_of(page, head):
                return self._read_result(page)

    def cancel(self, reason: str = "") -> None:
        """Stop the run, down to the provider's connection, in whichever process it is. One that is over stays so.

        Raises:
            LookupError: it was forgotten.
        """
        self._store.note(self.id, Note("cancel", encodable(reason))).result()

    def pending(self) -> list[InputRequested]:
        """The questions that wait for an answer, oldest first."""
        asked: dict[str, InputRequested] = {}
        for event in drop_retracted(self._read_all()):
            if isinstance(event, InputRequested):
                asked[event.request_id] = event
            elif isinstance(event, InputReceived):
                asked.pop(event.request_id, None)
        return list(asked.values())

    def answer(self, request_id: str, value: Any) -> None:
        """Answer a question of the run. A live one is told, in whichever process it is; a paused one is resumed here.

        Raises:
            LookupError: no such question waits, or the run was forgotten.
            ValueError: the answer does not fit the question; or it has to be resumed, as for :meth:`resume`.
            RuntimeError: the run is neither live nor paused.
        """
        request = next((each for each in self.pending() if each.request_id == request_id), None)
        if request is None:
            raise LookupError(f"no question {request_id!r} waits in run {self.id!r}: it was answered, or never asked")
        check_answer(request, value)
        status = self.status
        if status == "paused":
            self.resume({request_id: value})
            return
        if status not in LIVE:
            raise RuntimeError(f"run {self.id!r} is {status}: nobody would hear the answer; resume() goes on with it")
        self._store.note(self.id, Note("answer", value, request_id)).result()

    def resume(
        self,
        answers: Mapping[str, Any] | None = None,
        target: Runnable | str | None = None,
        *,
        answer_within: Seconds | None = None,
    ) -> None:
        """Go on with a run that is paused, has failed, was cancelled or was lost: in this process, in the same log.

        What had finished is neither run nor paid again; see docs/people.md. Readers see ``FlowResumed``, the questions
        that are still open, and then what comes. In async code call it in a thread: it reads the log.

        Args:
            answers: by ``request_id``, the answers to questions of :meth:`pending`.
            target: what to run, by default what was started here, or what its import path leads to.
            answer_within: as for :meth:`Runs.start`.

        Raises:
            RunExistsError: it is running.
            RuntimeError: it has completed.
            ValueError: an answer does not fit its question; or ``target`` is needed, as it was not started by an import
                path.
            LookupError: an answer is to no open question; the run was forgotten, or its first events were dropped; the
                import path leads nowhere.
        """
        if self._workers.carrier is not None:
            self._workers.carrier.begin(
                "resume", self.id, answers=answers, target=target, answer_within=answer_within
            ).result()
            return
        head = self.look_up()
        if head.status == "completed":
            raise RuntimeError(f"run {self.id!r} has completed: there is nothing to go on with")
        if head.first > 0:
            raise EventsDroppedError(f"run {self.id!r} cannot go on: its first events are not kept (max_events)")
        runnable = self._find_target(head, target)
        journal = Journal(self._read_all(), answers)
        for request in journal.pending:
            if answers and request.request_id in answers:
                check_answer(request, answers[request.request_id])
        source = runnable.events(head.spec.inputs).resumed(journal)
        self.worker = worker = self._workers.create(self.id, answer_within)
        claimed = self._store.claim(self.id, None, worker.on_note).result()
        self._workers.begin(worker, runnable, source, claimed)

    def _find_target(self, head: Head, target: Runnable | str | None) -> Runnable:
        what = target or self._workers.paused.get(self.id) or head.spec.target
        if not what:
            raise ValueError(
                f"run {self.id!r} was not started by an import path, so it cannot be found by name: "
                "give the flow or crew as target"
            )
        return find_runnable(what) if isinstance(what, str) else what

    def restart(self, target: Runnable | str | None = None) -> None:
        """Begin a run anew, in this process and in the same log, if it was lost, has failed or was cancelled.

        Its readers see a :class:`Retracted` for all that was said, and then the new events.

        Args:
            target: what to run; by default the import path with which it was started.

        Raises:
            RunExistsError: it is running.
            ValueError: it was not started by an import path, so ``target`` is needed.
            LookupError: it was forgotten; the import path leads nowhere.
        """
        if self._workers.carrier is not None:
            self._workers.carrier.begin("restart", self.id, target=target).result()
            return
        head = self.look_up()
        runnable = self._find_target(head, target)
        source = runnable.events(head.spec.inputs)
        self.worker = worker = self._workers.create(self.id)
        claimed = self._store.claim(self.id, None, worker.on_note).result()
        retracted = retract_all(self._read_all(), head.error or _reason_to_restart(head, claimed[1].last))
        self._workers.begin(worker, runnable, source, claimed, retracted)

    def __repr__(self) -> str:
        return f"<Run {self.id}>"

    def _read_all(self) -> list[Event]:
        head = self.look_up()
        events: list[Event] = []
        after = head.first - 1
        while after < head.last:
            events += self._store.read(self.id, after, PAGE).result().events
            after = events[-1].seq
        return events

    def _read_result(self, page: Page) -> Any:
        raise_end(self.id, page)
        if page.status == "paused":
            raise RunPaused(tuple(self.pending()))
        for event in reversed(page.events):
            if isinstance(event, FlowFinished | CrewFinished | TaskFinished):
                return event.result
        raise RuntimeError(f"run {self.id!r} completed without a result")


def _reason_to_restart(head: Head, last: int) -> Exception:
    """Why what a run said is taken back, if it has no error of its own."""
    if head.status == "lost":
        return RunLost(head.run_id, last)
    if head.status == "cancelled":
        return RunCancelled(head.run_id, head.reason)
    return RuntimeError(f"run {head.run_id!r} was {head.status}, and begins anew")


def _tail_of(head: Head) -> int:
    return max(head.first - 1, head.last - PAGE)


def _is_of(page: Page, head: Head) -> bool:
    """The run stands as it did: the worker of one that seemed lost has not renewed its lease meanwhile, and gone on."""
    return (page.status, page.last) == (head.status, head.last)
