"""A flow that says what a test scripts."""

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from rxflow.flow import Flow, start
from rxflow.types.streaming import StreamChunk
from tests.gate import Gate

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


def drained(output: Any) -> list[str]:
    """The contents of what is left to read, the error left to ``.result``."""
    contents: list[str] = []
    with suppress(Exception):
        contents.extend(chunk.content for chunk in output)
    return contents
