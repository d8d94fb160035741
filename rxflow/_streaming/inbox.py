"""The inbox, which holds questions until a program answers them, and the check of an answer by its JSON Schema."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from pydantic_core import to_jsonable_python

from rxflow._loops import call_soon
from rxflow._streaming.scope import UNANSWERED, Answerer
from rxflow.types import InputRequested


class Inbox(Answerer):
    """Holds open questions until the program answers them, for example from a page, a bot or another thread. ::

        inbox = Inbox()
        output = flow.observe().pipe(ops.answer_with(inbox), ops.to_output())
        ...
        for request in inbox.pending:
            inbox.answer(request.request_id, "yes")

    A question is open until it is answered or declined, its time runs out, or the run ends. Any thread may use
    :attr:`pending`, :meth:`answer` and :meth:`decline`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, _Open] = {}

    @property
    def pending(self) -> tuple[InputRequested, ...]:
        """The open questions, oldest first."""
        with self._lock:
            return tuple(each.request for each in self._open.values() if not each.answers)

    @property
    def is_awaited(self) -> bool:
        """Whether the run waits for an answer, or has not yet taken an answer that it was given."""
        with self._lock:
            return bool(self._open)

    def answer(self, request_id: str, value: Any) -> None:
        """Answer a question.

        Raises:
            LookupError: the question is not open. It is unknown here, was answered or declined, or its time ran out.
            ValueError: the answer does not fit the schema of the question. The question stays open.
        """
        check_answer(self._look_up(request_id).request, value)
        self._settle(request_id, value)

    def decline(self, request_id: str) -> None:
        """Leave a question to the next answerer, or to the console. If nobody answers, the run pauses.

        Raises:
            LookupError: the question is not open. The causes are those of :meth:`answer`.
        """
        self._settle(request_id, UNANSWERED)

    def expect(self, request: InputRequested) -> None:
        with self._lock:
            self._open.setdefault(request.request_id, _Open(request))

    async def find_answer(self, request: InputRequested) -> Any:
        self.expect(request)
        settled = asyncio.Event()
        loop = asyncio.get_running_loop()
        with self._lock:
            waiting = self._open[request.request_id]
            waiting.notify = lambda: call_soon(loop, settled.set)
        if not waiting.answers:
            await settled.wait()
        return waiting.answers[0]

    def forget(self, request: InputRequested) -> None:
        with self._lock:
            self._open.pop(request.request_id, None)

    def _look_up(self, request_id: str) -> _Open:
        with self._lock:
            waiting = self._open.get(request_id)
        if waiting is None or waiting.answers:
            raise LookupError(
                f"no question {request_id!r} waits for an answer: it is not known here, was answered, or has expired"
            )
        return waiting

    def _settle(self, request_id: str, value: Any) -> None:
        waiting = self._look_up(request_id)
        with self._lock:
            waiting.answers.append(value)  # if two threads answer at once, there are two answers, and the first counts
            notify = waiting.notify
        notify()


@dataclass(slots=True)
class _Open:
    """A question in an inbox. The answer may come before the run waits for the answer."""

    request: InputRequested
    answers: list[Any] = field(default_factory=list[Any])
    notify: Callable[[], object] = field(default=lambda: None)


WORDS_SCHEMA: Mapping[str, Any] = {"type": "string", "pattern": r"\S"}
"""The JSON Schema of an answer that selects a label, if an empty answer selects none."""


def require_words(message: str, labels: Sequence[str], answer: str) -> None:
    """Raise ValueError if ``answer`` is empty. ``message`` and ``labels`` are those of the question."""
    if not answer.strip():
        raise ValueError(
            f"the answer to {message!r} does not fit: it is empty; answer with one of {', '.join(labels)}, or in other "
            "words, or give @human_feedback a default_outcome"
        )


def check_answer(request: InputRequested, value: object) -> None:
    """Raise ValueError if ``value`` does not fit the schema of the question ``request``."""
    if isinstance(value, str) and dict(request.response_schema) == WORDS_SCHEMA:
        require_words(request.message, request.options, value)
        return
    # Import jsonschema late, because most programs do not need it. They answer with functions, and Question.validate()
    # checks the answers of functions.
    jsonschema: Any = import_module("jsonschema")
    try:
        jsonschema.validate(to_jsonable_python(value, fallback=str), dict(request.response_schema))
    except jsonschema.ValidationError as error:
        raise ValueError(f"the answer to {request.message!r} does not fit: {error.message}") from error
