"""Flows and functions that note where methods run and what they say."""

import asyncio
import threading
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from rxflow.flow import Flow, listen, start
from tests.gate import PATIENCE_S

whose: ContextVar[str] = ContextVar("whose", default="nobody's")


@contextmanager
def calling_as(name: str) -> Generator[None]:
    token = whose.set(name)
    try:
        yield
    finally:
        whose.reset(token)


class Whereabouts(Flow):
    """Each method tells where it ran and whose context it saw."""

    @start()
    def sync(self) -> None:
        self.state["sync"] = (threading.get_ident(), whose.get())

    @listen(sync)
    async def on_loop(self) -> None:
        self.state["async"] = (threading.get_ident(), whose.get())

    @listen(on_loop)
    async def generator(self) -> Any:
        self.state["generator"] = (threading.get_ident(), whose.get())
        yield ""


async def said(*texts: str) -> AsyncIterator[str]:
    for each in texts:
        yield each


def told_by(flow: Flow) -> list[tuple[str, str]]:
    """The content of each chunk, and the method it came from."""
    flow.stream = True
    return [(chunk.content, chunk.flow_method) for chunk in flow.kickoff()]


class Conversing(Flow):
    """Says its second chunk when its first was heard."""

    stream = True

    def __init__(self) -> None:
        super().__init__()
        self.heard = threading.Event()

    @start()
    async def tell(self) -> Any:
        yield "first"
        yield str(await asyncio.to_thread(self.heard.wait, PATIENCE_S))


class Inner(Flow):
    @start()
    async def speak(self) -> Any:
        yield "inner"
