"""Passes the questions of a branch on a worker to the program that the branch belongs to, and the answers back.

A worker's :class:`RemoteAnswerer` sends each question along with the events. In the program, :class:`QuestionRelay`
finds the answer as for a question of the program's own flow, and sends it back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from rxflow._streaming import Answerer, Emitter, NotResumable, Unanswered, find_answer
from rxflow.types import InputRequested
from rxflow.types._values import describe_error, from_json_value, restore_error, to_json_value

Reply: TypeAlias = tuple[Literal["answer", "failed"], Any]


class RemoteAnswerer(Answerer):
    """Sends the questions of a branch to its program. Used on the worker's loop.

    Args:
        waiting: the open questions of the whole worker by ``request_id``; :meth:`RunActor.answer` resolves them.
        on_asked: called when a question needs an answer.
        on_over: called when a question no longer needs an answer.
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
    """Answers the questions of a branch with the answerers of the run around it. Used on the loop of that run."""

    def __init__(self, emitter: Emitter, reply: Callable[[str, Reply], object]) -> None:
        self._answerers = emitter.scope.answerers
        self._reply = reply
        self._open: dict[str, InputRequested] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def expect(self, request: InputRequested) -> None:
        """Prepare for an answer before the event of the question is emitted: a reader may answer at once."""
        self._open[request.request_id] = request
        for answerer in self._answerers:
            answerer.expect(request)

    def ask(self, request: InputRequested) -> None:
        """Find the answer, and send it to the worker."""
        if request.request_id not in self._open:  # its event did not come, because the branch's stream leaves it out
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
    """Return the error of a branch whose questions got no answer while it ran."""
    return NotResumable(
        f"{error}, and a branch on another machine cannot be paused. Answer while it runs (ops.answer_with), or carry "
        "out the whole flow there with Runs(…, on=Ray())"
    )
