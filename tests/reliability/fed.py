"""A model that says what a test feeds it, step by step, and says when each step has gone all the way."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeAlias

from reactivex import Observable

from rxflow import LLM
from rxflow._loops import call_soon
from rxflow._streaming.bridge import from_async
from rxflow.llm.source import Delta, Ending, Request, Source
from tests.gate import PATIENCE_S, Gate

Step: TypeAlias = str | Exception | None
"""Text, an error to end with, or None for a good end."""


class Fed(Source):
    """One answer. ``began`` and ``left`` open when it is asked for, and when it is over in whatever way."""

    def __init__(self) -> None:
        self.began = Gate()
        self.left = Gate()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._steps: asyncio.Queue[tuple[Step, Future[None]]] = asyncio.Queue()

    @property
    def llm(self) -> LLM:
        return LLM("fed", source=self)

    def feed(self, step: Step) -> None:
        """Take a step, and wait until it has been taken: text is in the log then, an end is on its way."""
        self.began.wait()
        assert self._loop is not None
        taken: Future[None] = Future()
        call_soon(self._loop, lambda: self._steps.put_nowait((step, taken)))
        taken.result(PATIENCE_S)

    def stream(self, request: Request) -> Observable[Delta]:
        async def answer(emit: Callable[[Delta], None]) -> None:
            self._loop = asyncio.get_running_loop()
            self.began.open()
            try:
                while True:
                    step, taken = await self._steps.get()
                    if isinstance(step, str):
                        emit(step)
                    taken.set_result(None)
                    if isinstance(step, Exception):
                        raise step
                    if step is None:
                        emit(Ending())
                        return
            finally:
                self.left.open()

        return from_async(answer)
