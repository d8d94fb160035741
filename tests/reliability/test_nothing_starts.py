"""What is about to start when its run is stopped from another thread does not start."""

import builtins
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from rxflow import Crew, Flow
from rxflow._streaming.observable import EventStream
from rxflow.flow import start
from rxflow.testing.leaks import LASTING_THREADS, assert_nothing_is_left
from rxflow.tools import BaseTool, tool
from rxflow.types.events import Event, MethodStarted, ToolStarted
from rxflow.types.results import TaskOutput
from tests.gate import PATIENCE_S, Gate
from tests.scripted import Scripted, calls
from tests.team import solo

OURS = {"rxflow run", "rxflow loop", *LASTING_THREADS}


def stopped_at(kind: type[Event], events: EventStream[Event]) -> None:
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
    join_all()


def stopped_as_its_thread_starts(events: EventStream[Event], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run ``events``, and stop it when its loop has handed users' code to a thread, before the first line of that."""
    handed_over, stopped, started = Gate(), Gate(), Gate()
    threads: list[threading.Thread] = []
    begin = threading.Thread.start

    def begin_late(thread: threading.Thread) -> None:
        is_for_users = thread.name.startswith("rxflow ") and thread.name not in OURS
        if is_for_users:
            threads.append(thread)
            handed_over.open()
            stopped.wait()
        begin(thread)
        if is_for_users:
            started.open()

    monkeypatch.setattr(threading.Thread, "start", begin_late)
    subscription = events.subscribe()
    handed_over.wait()
    subscription.dispose()
    stopped.open()
    started.wait()
    (thread,) = threads
    thread.join(PATIENCE_S)
    join_all()


def join_all() -> None:
    """Wait until no run goes on; the threads of their loops stay for the next ones."""
    assert_nothing_is_left()


def sync_flow(began: Callable[[], None]) -> EventStream[Event]:
    class Research(Flow):
        @start()
        def research(self) -> None:
            began()

    return Research().events()


def async_flow(began: Callable[[], None]) -> EventStream[Event]:
    class Research(Flow):
        @start()
        async def research(self) -> None:
            began()

    return Research().events()


def generator_flow(began: Callable[[], None]) -> EventStream[Event]:
    class Research(Flow):
        @start()
        async def research(self) -> AsyncIterator[str]:
            began()
            yield "a"

    return Research().events()


def with_tool(used: BaseTool) -> Crew:
    return solo(Scripted(calls(("dig", {})), "fine"), agent={"tools": [used]})


def sync_tool(began: Callable[[], None]) -> EventStream[Event]:
    @tool
    def dig() -> str:
        """Dig deep."""
        began()
        return "gold"

    return with_tool(dig).events()


def async_tool(began: Callable[[], None]) -> EventStream[Event]:
    @tool
    async def dig() -> str:
        """Dig deep."""
        began()
        return "gold"

    return with_tool(dig).events()


def guardrail(began: Callable[[], None]) -> EventStream[Event]:
    def accept(output: TaskOutput) -> tuple[bool, str]:
        began()
        return True, "gold"

    return solo(Scripted("fine"), guardrail=accept).events()


def task_callback(began: Callable[[], None]) -> EventStream[Event]:
    def note(output: TaskOutput) -> None:
        began()

    return solo(Scripted("fine"), callback=note).events()


@pytest.mark.parametrize("make", [sync_flow, async_flow, generator_flow])
def test_a_method(make: Callable[[Callable[[], None]], EventStream[Event]]) -> None:
    began: list[None] = []
    stopped_at(MethodStarted, make(lambda: began.append(None)))
    assert began == []


@pytest.mark.parametrize("make", [sync_tool, async_tool])
def test_a_tool(make: Callable[[Callable[[], None]], EventStream[Event]]) -> None:
    began: list[None] = []
    stopped_at(ToolStarted, make(lambda: began.append(None)))
    assert began == []


@pytest.mark.parametrize("make", [sync_flow, sync_tool, guardrail, task_callback])
def test_what_has_just_been_handed_to_its_thread(
    make: Callable[[Callable[[], None]], EventStream[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[None] = []
    stopped_as_its_thread_starts(make(lambda: began.append(None)), monkeypatch)
    assert began == []


def disposed_while_it_judges(**given: Any) -> None:
    """A task whose async guardrail still accepts the answer when another thread has disposed the run."""
    inside, disposed = Gate(), Gate()

    async def accept(output: TaskOutput) -> tuple[bool, Any]:
        inside.open()
        disposed.wait()  # it blocks the loop: the run hears of its disposal afterwards
        return True, None

    subscription = solo(Scripted("Late"), guardrail=accept, **given).events().subscribe()
    inside.wait()
    subscription.dispose()
    disposed.open()
    join_all()


def test_what_a_task_does_after_its_guardrails_is_no_file(tmp_path: Path) -> None:
    disposed_while_it_judges(output_file=str(tmp_path / "late.txt"))
    assert list(tmp_path.iterdir()) == []


def test_nor_does_it_ask_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(builtins, "input", asked.append)
    disposed_while_it_judges(human_input=True)
    assert asked == []
