"""What is about to start when its run is stopped from another thread does not start."""

import threading
from collections.abc import AsyncIterator, Callable

import pytest

from rxflow import Crew, Flow
from rxflow.flow import start
from rxflow.streaming.launch import RunObservable
from rxflow.tools import BaseTool, tool
from rxflow.types.events import Event, MethodStarted, ToolStarted
from tests.gate import Gate
from tests.scripted import Scripted, calls
from tests.team import solo


def stopped_at(kind: type[Event], events: RunObservable) -> None:
    """Run ``events`` on a thread of its own, and stop it from here while it announces ``kind``."""
    announced, stopped = Gate(), Gate()

    def on_next(event: Event) -> None:
        if isinstance(event, kind):
            announced.open()
            stopped.wait()

    subscription = events.subscribe(on_next)
    announced.wait()
    subscription.dispose()
    stopped.open()
    for thread in threading.enumerate():
        if thread.name.startswith("rxflow ") and thread.name not in ("rxflow I/O", "rxflow import"):
            thread.join(5)


def sync_flow(began: Callable[[], None]) -> RunObservable:
    class Research(Flow):
        @start()
        def research(self) -> None:
            began()

    return Research().events()


def async_flow(began: Callable[[], None]) -> RunObservable:
    class Research(Flow):
        @start()
        async def research(self) -> None:
            began()

    return Research().events()


def generator_flow(began: Callable[[], None]) -> RunObservable:
    class Research(Flow):
        @start()
        async def research(self) -> AsyncIterator[str]:
            began()
            yield "a"

    return Research().events()


def with_tool(used: BaseTool) -> Crew:
    return solo(Scripted(calls(("dig", {})), "fine"), agent={"tools": [used]})


def sync_tool(began: Callable[[], None]) -> RunObservable:
    @tool
    def dig() -> str:
        """Dig deep."""
        began()
        return "gold"

    return with_tool(dig).events()


def async_tool(began: Callable[[], None]) -> RunObservable:
    @tool
    async def dig() -> str:
        """Dig deep."""
        began()
        return "gold"

    return with_tool(dig).events()


@pytest.mark.parametrize("make", [sync_flow, async_flow, generator_flow])
def test_a_method(make: Callable[[Callable[[], None]], RunObservable]) -> None:
    began: list[None] = []
    stopped_at(MethodStarted, make(lambda: began.append(None)))
    assert began == []


@pytest.mark.parametrize("make", [sync_tool, async_tool])
def test_a_tool(make: Callable[[Callable[[], None]], RunObservable]) -> None:
    began: list[None] = []
    stopped_at(ToolStarted, make(lambda: began.append(None)))
    assert began == []
