"""A worker process on the cluster: carries out several runs at once, on one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Literal, TypeAlias, cast

from reactivex.abc import ObserverBase

from rxflow._streaming import Unanswered
from rxflow.cluster._code import check_flow, describe_rxflow
from rxflow.cluster._questions import RemoteAnswerer, Reply
from rxflow.runs import Run, Runs
from rxflow.runs.options import find_runnable
from rxflow.runs.worker import Worker
from rxflow.types import Event, InputRequested, Origin
from rxflow.types._values import describe_error
from rxflow.types.codec import encode

BATCH_S = 0.001
"""Events that come within this time after a batch are collected, and sent as the next batch.

An event after a longer pause is sent at once.
"""
FULL_BATCH = 64
"""A batch of this many events is sent without waiting for more."""

Message: TypeAlias = tuple[Literal["events", "asks", "forgets", "completed", "failed", "unanswered", "begun"], Any]


class RunActor:
    """A worker, which Ray runs as an actor. All its methods are coroutines, so one process can carry out many runs."""

    def __init__(self) -> None:
        self._open_runs: dict[str, Runs] = {}
        self._questions: dict[str, asyncio.Future[Reply]] = {}

    async def ping(self) -> dict[str, object]:
        """Return the versions of the worker's rxflow. The reply also shows that the worker is alive."""
        return describe_rxflow()

    async def stream(
        self, target: str, code: Mapping[str, str], inputs: Mapping[str, Any] | None, origin: Origin
    ) -> AsyncGenerator[Message]:
        """Carry out a branch of the run that ``origin`` names. Yield the branch's events and questions, and its end.

        Cancelling this coroutine stops the branch.
        """
        batches = Batches()
        answerer = RemoteAnswerer(self._questions, batches.ask, batches.forget)
        try:
            runnable = find_runnable(target)
            check_flow(code)
            running = runnable.events(inputs).answered_by(answerer).part_of(origin).subscribe(batches)
        except Exception as error:  # noqa: BLE001 - raised where the stream is read
            yield "failed", describe_error(error)
            return
        try:
            while not batches.is_over:
                lines = await batches.take()
                if lines:
                    yield "events", lines
                for message in batches.take_questions():
                    yield message
            yield batches.end
        finally:
            running.dispose()

    async def answer(self, request_id: str, reply: Reply) -> None:
        """Set the answer to a question of :meth:`stream`. An answer that comes too late is ignored."""
        waiting = self._questions.get(request_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)

    async def carry_out(
        self, store: Mapping[str, Any], verb: str, run_id: str, code: Mapping[str, str], arguments: Mapping[str, Any]
    ) -> AsyncGenerator[Message]:
        """Start, restart or resume a run of a store. Yield the run's writer when the run begins, and return at its end.

        Cancelling this coroutine cancels the run.
        """
        try:
            check_flow(code)
            runs = self._open(store)
            if verb == "start":
                run = await runs.start_async(run_id=run_id, **arguments)
            else:
                run = await asyncio.to_thread(runs.__getitem__, run_id)
                await _begin_in_thread(run, partial(getattr(run, verb), **arguments))
        except Exception as error:  # noqa: BLE001 - raised where the run is started
            yield "failed", describe_error(error)
            return
        worker = cast(Worker, run.worker)  # these Runs have no cluster, so the worker is in this process
        try:
            yield "begun", worker.writer
            await asyncio.shield(asyncio.wrap_future(worker.done))
        finally:
            if not worker.done.done():
                await _stop(worker)

    def _open(self, store: Mapping[str, Any]) -> Runs:
        key = repr(store)
        if key not in self._open_runs:
            self._open_runs[key] = Runs(**store)
        return self._open_runs[key]


async def _begin_in_thread(run: Run, begin: Callable[[], None]) -> None:
    """Call a method of ``run`` that blocks until the run has begun. A run that begins after a cancellation is stopped.

    A thread cannot be interrupted, so the cancellation waits for it.
    """
    beginning = asyncio.ensure_future(asyncio.to_thread(begin))
    try:
        await asyncio.shield(beginning)
    except asyncio.CancelledError:
        with suppress(Exception):  # the run was not begun, or its end could not be written
            await beginning
            await _stop(cast(Worker, run.worker))
        raise


async def _stop(worker: Worker) -> None:
    worker.cancel("the program that started it ended, or closed the Runs object that started it")
    await asyncio.shield(asyncio.wrap_future(worker.done))


class Batches(ObserverBase[Event]):
    """Collects the events of a run as lines of JSON. Used on one event loop."""

    def __init__(self) -> None:
        self.end: Message = ("completed", None)
        self._loop = asyncio.get_running_loop()
        self._lines: list[bytes] = []
        self._questions: list[Message] = []
        self._has_ended = False
        self._waiting: asyncio.Future[None] | None = None
        self._is_full_awaited = False
        self._taken_at = 0.0

    @property
    def is_over(self) -> bool:
        """Whether the run has ended and all its events were taken."""
        return self._has_ended and not self._lines

    def on_next(self, value: Event) -> None:
        self._lines.append(encode(value))
        if not self._is_full_awaited or len(self._lines) >= FULL_BATCH:
            self._wake()

    def on_error(self, error: BaseException) -> None:
        if isinstance(error, Unanswered):
            self.end = "unanswered", [encode(each) for each in error.pending]
        else:
            self.end = "failed", describe_error(error)
        self._end()

    def on_completed(self) -> None:
        self._end()

    def ask(self, request: InputRequested) -> None:
        """Queue a question for the program."""
        self._questions.append(("asks", encode(request)))
        self._wake()

    def forget(self, request: InputRequested) -> None:
        """Queue the notice that a question no longer needs an answer."""
        self._questions.append(("forgets", request.request_id))
        self._wake()

    def take_questions(self) -> list[Message]:
        """Return the messages about questions since the last call."""
        questions, self._questions = self._questions, []
        return questions

    async def take(self) -> bytes:
        """Wait for the next batch, and return its lines. They are empty if only questions are waiting."""
        if not (self._lines or self._questions or self._has_ended):
            await self._wait(None)
        rest_s = self._taken_at + BATCH_S - self._loop.time()
        if rest_s > 0 and len(self._lines) < FULL_BATCH and not self._has_ended:
            await self._wait(rest_s)
        self._taken_at = self._loop.time()
        lines, self._lines = self._lines, []
        return b"".join(lines)

    async def _wait(self, seconds: float | None) -> None:
        """Wait for an event, a question or the end; with a time limit, for a full batch instead of an event."""
        self._waiting = self._loop.create_future()
        self._is_full_awaited = seconds is not None
        timer = self._loop.call_later(seconds, self._wake) if seconds is not None else None
        try:
            await self._waiting
        finally:
            self._is_full_awaited = False
            if timer is not None:
                timer.cancel()

    def _end(self) -> None:
        self._has_ended = True
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)
