"""A worker process on the cluster, and the messages between the worker and the program that uses it.

A worker carries out whole runs, and branches. A branch is one part of a run. The program itself carries out the rest of
that run.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from functools import cache, partial
from hashlib import sha256
from importlib.abc import InspectLoader
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias, cast

from reactivex.abc import ObserverBase

from rxflow._streaming import Answerer, Emitter, NotResumable, Unanswered, find_answer
from rxflow.runs import Run, RunLost, Runs
from rxflow.runs.options import find_runnable
from rxflow.runs.worker import Worker
from rxflow.types import Event, InputRequested, Origin
from rxflow.types.codec import VERSION, describe_error, encode, from_json_value, restore_error, to_json_value


class WorkerLost(RunLost):
    """The worker of a run has died or cannot be reached. Events that had arrived are emitted before this error."""

    def __init__(self, run_id: str, last: int, why: str) -> None:
        super().__init__(run_id, last)
        self.why = why
        self.args = (
            f"the worker of run {run_id!r} was lost after {last + 1} events: {why}; subscribe again to repeat it",
        )

    def __reduce__(self) -> tuple[type[WorkerLost], tuple[str, int, str]]:  # type: ignore[override]
        return type(self), (self.run_id, self.last, self.why)


class WorkerStartError(RuntimeError):
    """No worker could be started: the cluster lacks the resources, the process failed, or the workers were closed."""


class CodeMismatchError(RuntimeError):
    """The worker and this program have different versions of rxflow, or of the flow's module."""


def describe_rxflow() -> dict[str, object]:
    """Return the versions of rxflow and of its codec."""
    return {"rxflow": version("rxflow"), "codec": VERSION}


def describe_flow(target: str) -> dict[str, str]:
    """Return digests by module name, for the module in ``target`` and for the module that defines the flow.

    Each digest is computed from the module's source. A module without source in this process is left out, because only
    workers need the code.
    """
    module, _, names = target.partition(":")
    found: Any = sys.modules.get(module)
    for name in names.split("."):
        found = getattr(found, name, None)
    modules = {module, str(getattr(found, "__module__", module))}
    return {name: digest for name in sorted(modules) if (digest := _digest_source(name))}


def check_flow(described: Mapping[str, str]) -> None:
    """Raise CodeMismatchError if the program's digests, ``described``, differ from the digests in this process."""
    for module, digest in described.items():
        if _digest_source(module) != digest:
            raise CodeMismatchError(
                f"the worker has another version of module {module!r} than this program: install the same code on "
                "both, and start the program again"
            )


@cache
def _digest_source(module: str) -> str:
    """Return the digest of a module's source, or an empty text if there is no source.

    The digest is cached, because a process loads a module only once.
    """
    try:
        loaded: Any = sys.modules.get(module)
        spec: ModuleSpec | None = getattr(loaded, "__spec__", None) or find_spec(module)
        loader = None if spec is None else spec.loader
        source = loader.get_source(module) if isinstance(loader, InspectLoader) else None
    except (ImportError, ValueError):
        return ""
    return sha256(source.encode()).hexdigest() if source else ""


Reply: TypeAlias = tuple[Literal["answer", "failed"], Any]


class RemoteAnswerer(Answerer):
    """Sends a question to the program if no answerer inside the branch has answered. Then waits for the answer.

    Used on the worker's loop.

    Args:
        waiting: a future for each open question of the worker, by ``request_id``; :meth:`RunActor.answer` sets its
            result.
        on_asked: called to send a question to the program.
        on_over: called when a question that was sent no longer needs an answer.
    """

    def __init__(
        self,
        waiting: dict[str, asyncio.Future[Reply]],
        on_asked: Callable[[InputRequested], None],
        on_over: Callable[[InputRequested], None],
    ) -> None:
        self._waiting = waiting
        self._on_asked = on_asked
        self._on_over = on_over

    async def find_answer(self, request: InputRequested) -> Any:
        reply = self._waiting[request.request_id] = asyncio.get_running_loop().create_future()
        self._on_asked(request)
        try:
            kind, value = await reply
        finally:
            del self._waiting[request.request_id]
            self._on_over(request)
        if kind == "failed":
            raise restore_error(value)
        return from_json_value(value)


class QuestionRelay:
    """The program's side of a branch's questions: finds the answers, and sends them to the worker.

    The answers come from the answerers of the run that contains the branch. Used on the loop of this run.
    """

    def __init__(self, emitter: Emitter, reply: Callable[[str, Reply], object]) -> None:
        self._answerers = emitter.scope.answerers
        self._reply = reply
        self._open: dict[str, InputRequested] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def expect(self, request: InputRequested) -> None:
        """Prepare the answerers before the event of a question is emitted, because a reader may answer at once."""
        self._open[request.request_id] = request
        for answerer in self._answerers:
            answerer.expect(request)

    def ask(self, request: InputRequested) -> None:
        """Start a task that finds the answer to a question, and sends the answer to the worker."""
        # expect() was not called if the branch's stream leaves out the event of the question.
        if request.request_id not in self._open:
            self.expect(request)
        self._tasks[request.request_id] = asyncio.create_task(self._answer(request))

    def forget(self, request_id: str) -> None:
        """Stop looking for an answer that the worker no longer waits for."""
        answering = self._tasks.pop(request_id, None)
        if answering is not None:
            answering.cancel()
        for answerer in self._answerers:
            answerer.forget(self._open[request_id])
        del self._open[request_id]

    def close(self) -> None:
        """Stop looking for answers, because the branch has ended."""
        for request_id in list(self._open):
            self.forget(request_id)

    async def _answer(self, request: InputRequested) -> None:
        reply: Reply
        try:
            reply = "answer", to_json_value(await find_answer(self._answerers, request))
        except Unanswered as error:
            reply = "failed", describe_error(refuse_to_pause(error))
        except Exception as error:  # noqa: BLE001 - raised by users' code; raised again where the worker asked
            reply = "failed", describe_error(error)
        self._reply(request.request_id, reply)


def refuse_to_pause(error: Unanswered) -> NotResumable:
    """Return the error for a branch whose questions were not answered: a branch cannot be paused."""
    return NotResumable(
        f"{error}, and a branch on another machine cannot be paused. Answer while it runs (ops.answer_with), or carry "
        "out the whole flow there with Runs(…, on=Ray())"
    )


BATCH_S = 0.001
"""For this many seconds after a batch, events are collected for the next batch. A later event is sent at once."""
FULL_BATCH_EVENTS = 64
"""A batch of this many events is sent without waiting for more."""

Message: TypeAlias = tuple[Literal["events", "asks", "forgets", "completed", "failed", "unanswered", "begun"], Any]


class RunActor:
    """A worker, as a Ray actor. Its public methods are asynchronous, so one worker can carry out many runs at once."""

    def __init__(self) -> None:
        self._open_runs: dict[str, Runs] = {}
        self._questions: dict[str, asyncio.Future[Reply]] = {}

    async def ping(self) -> dict[str, object]:
        """Return the versions of the worker's rxflow. The reply also shows that the worker is alive."""
        return describe_rxflow()

    async def stream(
        self, target: str, code: Mapping[str, str], inputs: Mapping[str, Any] | None, origin: Origin
    ) -> AsyncGenerator[Message]:
        """Carry out a branch of the run that ``origin`` names. Yield the branch's events and questions, then its end.

        Cancelling this call stops the branch.
        """
        batches = Batches()
        answerer = RemoteAnswerer(self._questions, batches.ask, batches.forget)
        try:
            runnable = find_runnable(target)
            check_flow(code)
            running = runnable.events(inputs).with_answerer(answerer).part_of(origin).subscribe(batches)
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
        """Start, restart or resume a run of a store, and wait for its end.

        Yield "begun" with the run's writer once the run has begun. If the run does not begin, yield "failed" with the
        error. Cancelling this call cancels the run.
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
        worker = cast(Worker, run.worker)  # not None: ``runs`` has no cluster, so this process carries out the run
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
    """Call ``begin`` in a thread. ``begin`` is a method of ``run`` that blocks until the run has begun.

    A thread cannot be interrupted. A cancelled caller therefore waits until the run has begun, and then stops the run.
    """
    beginning = asyncio.ensure_future(asyncio.to_thread(begin))
    try:
        await asyncio.shield(beginning)
    except asyncio.CancelledError:
        with suppress(Exception):  # raised if the run could not begin, or if the end of the run could not be written
            await beginning
            await _stop(cast(Worker, run.worker))
        raise


async def _stop(worker: Worker) -> None:
    worker.cancel("the program that started it ended, or closed the Runs object that started it")
    await asyncio.shield(asyncio.wrap_future(worker.done))


class Batches(ObserverBase[Event]):
    """Collects the events and questions of a branch as messages for the program. Used on one event loop."""

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
        """Whether the branch has ended and all its events were taken."""
        return self._has_ended and not self._lines

    def on_next(self, value: Event) -> None:
        self._lines.append(encode(value))
        if not self._is_full_awaited or len(self._lines) >= FULL_BATCH_EVENTS:
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
        """Report to the program that a question no longer needs an answer. The report is queued."""
        self._questions.append(("forgets", request.request_id))
        self._wake()

    def take_questions(self) -> list[Message]:
        """Return the queued messages about questions, and empty the queue."""
        questions, self._questions = self._questions, []
        return questions

    async def take(self) -> bytes:
        """Wait for the next batch, and return its lines.

        Return ``b""`` if only questions are ready, or if the branch has ended without another event.
        """
        if not (self._lines or self._questions or self._has_ended):
            await self._wait(None)
        rest_s = self._taken_at + BATCH_S - self._loop.time()
        if rest_s > 0 and len(self._lines) < FULL_BATCH_EVENTS and not self._has_ended:
            await self._wait(rest_s)
        self._taken_at = self._loop.time()
        lines, self._lines = self._lines, []
        return b"".join(lines)

    async def _wait(self, seconds: float | None) -> None:
        """Wait for an event, a question or the end.

        With ``seconds``, wait at most that long, and wait for a full batch instead of one event.
        """
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
