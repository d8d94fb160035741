"""Flows that say what a test scripts, and the gates that hold them up."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from reactivex import Observable

from rxflow.flow import Flow, start
from rxflow.llm.request import Delta, Ending, Request
from rxflow.streaming.bridge import from_async
from rxflow.streaming.loops import call_soon
from rxflow.types.streaming import StreamChunk


class Gate:
    """Opens once, from any thread; threads and coroutines wait for it."""

    def __init__(self) -> None:
        self._opened: Future[None] = Future()

    @property
    def is_open(self) -> bool:
        return self._opened.done()

    def open(self) -> None:
        if not self._opened.done():
            self._opened.set_result(None)

    def wait(self, timeout: float = 5.0) -> None:
        self._opened.result(timeout)

    async def passed(self) -> None:
        loop = asyncio.get_running_loop()
        passed = asyncio.Event()
        self._opened.add_done_callback(lambda _: call_soon(loop, passed.set))
        await passed.wait()


Piece = str | StreamChunk | Gate | BaseException | int | None


class Speaking(Flow):
    """A flow of one method that speaks its script; ``begun`` counts how often."""

    stream = True

    def __init__(self, *script: Piece) -> None:
        self.script = script
        self.begun = 0
        super().__init__()

    @start()
    async def speak(self) -> AsyncIterator[Any]:
        self.begun += 1
        for piece in self.script:
            if isinstance(piece, Gate):
                await piece.passed()
            elif isinstance(piece, BaseException):
                raise piece
            else:
                yield piece


class Scripted:
    """A model that answers by a script; `begun` and `ended` count its calls."""

    def __init__(self, *script: str | Gate | Exception) -> None:
        self.script = script
        self.begun = 0
        self.ended = 0

    def stream(self, request: Request) -> Observable[Delta]:
        async def answer(emit: Callable[[Delta], None]) -> None:
            self.begun += 1
            try:
                for piece in self.script:
                    if isinstance(piece, Gate):
                        await piece.passed()
                    elif isinstance(piece, Exception):
                        raise piece
                    else:
                        emit(piece)
                emit(Ending())
            finally:
                self.ended += 1

        return from_async(answer)

    async def calls_functions(self, model: str) -> bool:
        return True

    def retry_delay(self, error: BaseException, attempt: int, of: int) -> float | None:
        return None

    def explain(self, error: BaseException, model: str) -> BaseException:
        return error


def drained(output: Any) -> list[str]:
    """The contents of what is left to read, the error left to ``.result``."""
    contents: list[str] = []
    with suppress(Exception):
        contents.extend(chunk.content for chunk in output)
    return contents
