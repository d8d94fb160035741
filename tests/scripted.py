"""A model that says what a test tells it to: where no socket matters, this spares the test the import of litellm."""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from reactivex import Observable

from rxflow import LLM
from rxflow._streaming.bridge import from_async
from rxflow.llm.source import Delta, Ending, ReasoningDelta, Request, Source, ToolCallDelta
from rxflow.types.results import UsageMetrics
from tests.gate import Gate

Piece: TypeAlias = Delta | Gate | BaseException
Turn: TypeAlias = str | Sequence[Piece] | BaseException
USAGE = UsageMetrics(prompt_tokens=2, completion_tokens=1, total_tokens=3, successful_requests=1)


class Scripted(Source):
    """Answers one turn a request; the last one again and again.

    A turn is text, which comes word by word, each in a step of the loop; or an error; or deltas, which come in one
    go, with gates to wait at, an error to break off with, and an ending if it is to be a special one. ``before`` is
    awaited before each turn. ``ended`` counts the answers that ended, in whatever way.
    """

    def __init__(
        self,
        *turns: Turn,
        native: bool = True,
        before: Callable[[Request], Awaitable[object]] | None = None,
    ) -> None:
        self.requests: list[Request] = []
        self.ended = 0
        self._turns = deque(turns)
        self._native = native
        self._before = before

    def stream(self, request: Request) -> Observable[Delta]:
        self.requests.append(request)
        turn = self._turns.popleft() if len(self._turns) > 1 else self._turns[0]

        async def answer(emit: Callable[[Delta], None]) -> None:
            try:
                if self._before is not None:
                    await self._before(request)
                if isinstance(turn, BaseException):
                    raise turn
                for piece in words(turn) if isinstance(turn, str) else turn:
                    if isinstance(piece, BaseException):
                        raise piece
                    if isinstance(piece, Gate):
                        await piece.passed()
                    else:
                        emit(piece)
                    if isinstance(turn, str):
                        await asyncio.sleep(0)
                if isinstance(turn, str) or not any(isinstance(piece, Ending) for piece in turn):
                    emit(Ending("stop", USAGE, 0.5))
            finally:
                self.ended += 1

        return from_async(answer)

    async def calls_functions(self, model: str) -> bool:
        return self._native

    @property
    def llm(self) -> LLM:
        return LLM("scripted", source=self)

    @property
    def conversations(self) -> list[list[dict[str, Any]]]:
        """The messages of each request."""
        return [list(request.messages) for request in self.requests]


def words(text: str) -> list[Delta]:
    return [part if index == 0 else f" {part}" for index, part in enumerate(text.split(" "))]


def calls(*named: tuple[str, dict[str, Any] | str]) -> list[Delta]:
    """A turn that calls tools: (name, arguments); arguments as a string go out as they are."""
    deltas: list[Delta] = []
    for index, (name, arguments) in enumerate(named):
        written = arguments if isinstance(arguments, str) else json.dumps(arguments)
        deltas += [ToolCallDelta(index, f"call_{index}", name), ToolCallDelta(index, arguments=written)]
    return deltas


def thinking(text: str) -> Delta:
    return ReasoningDelta(text)
