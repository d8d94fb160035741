"""``Flow(verbose=True)``: progress through the logger ``rxflow``."""

import logging
import re
from typing import Any

import pytest

from rxflow import Flow
from rxflow.flow import listen, router, start
from rxflow.runs import Runs
from rxflow.types import RunPaused
from tests.gate import PATIENCE_S
from tests.scripted import Scripted
from tests.team import solo


class Trip(Flow):
    """A crew, a router and a call of its own."""

    is_loud = False

    @start()
    async def plan(self) -> Any:
        loud = {"verbose": self.is_loud}
        return await solo(Scripted("Hello big world"), agent=loud, crew=loud).kickoff_async()

    @router(plan)
    def choose(self) -> str:
        return "by boat"

    @listen("by boat")
    async def book(self) -> Any:
        return await Scripted("booked").llm.acall("Book")


LINES = [
    "flow 'Trip' begins",
    "flow 'Trip' begins method 'plan'",
    "crew 'crew' begins",
    "Writer begins task 'Write'",
    "Writer asked scripted in N s, 2 + 1 tokens",
    "Writer finished task 'Write' in N s",
    "crew 'crew' finished in N s, 2 + 1 tokens",
    "flow 'Trip' finished method 'plan' in N s",
    "flow 'Trip' begins method 'choose'",
    "flow 'Trip' finished method 'choose' in N s, which chooses 'by boat'",
    "flow 'Trip' begins method 'book'",
    "method 'book' asked scripted in N s, 2 + 1 tokens",
    "flow 'Trip' finished method 'book' in N s",
    "flow 'Trip' finished in N s, 4 + 2 tokens",
]


@pytest.fixture(autouse=True)
def at_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rxflow")


def lines_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [re.sub(r"\d+\.\d s", "N s", each.getMessage()) for each in caplog.records if each.name == "rxflow"]


@pytest.mark.parametrize("verbose", [True, 2])
def test_a_line_for_each_method_and_all_that_is_in_it(verbose: Any, caplog: pytest.LogCaptureFixture) -> None:
    Trip(verbose=verbose).kickoff()
    assert lines_of(caplog) == LINES


def test_what_is_verbose_inside_is_not_logged_twice(caplog: pytest.LogCaptureFixture) -> None:
    flow = Trip(verbose=True)
    flow.is_loud = True
    flow.kickoff()
    assert lines_of(caplog) == LINES


def test_a_verbose_flow_in_a_verbose_flow_is_not_logged_twice(caplog: pytest.LogCaptureFixture) -> None:
    class Inner(Flow):
        verbose = True

        @start()
        def rest(self) -> str:
            return "rested"

    class Outer(Flow):
        verbose = True

        @start()
        async def begin(self) -> Any:
            return await Inner().kickoff_async()

    Outer().kickoff()
    assert lines_of(caplog) == [
        "flow 'Outer' begins",
        "flow 'Outer' begins method 'begin'",
        "flow 'Inner' begins",
        "flow 'Inner' begins method 'rest'",
        "flow 'Inner' finished method 'rest' in N s",
        "flow 'Inner' finished in N s",
        "flow 'Outer' finished method 'begin' in N s",
        "flow 'Outer' finished in N s",
    ]


def test_a_verbose_crew_in_a_quiet_flow_is_logged_alone(caplog: pytest.LogCaptureFixture) -> None:
    flow = Trip()
    flow.is_loud = True
    flow.kickoff()
    assert lines_of(caplog) == LINES[2:7]


def test_each_stream_of_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    Trip(verbose=True).observe().run()
    assert lines_of(caplog) == LINES


def test_a_failure_is_logged_with_its_error(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Flow):
        @start()
        def fail(self) -> None:
            raise LookupError("lost")

    with pytest.raises(LookupError, match=r"^lost$"):
        Failing(verbose=True).kickoff()
    assert lines_of(caplog)[2:] == [
        "method 'fail' failed after N s: LookupError: lost",
        "flow 'Failing' failed after N s: LookupError: lost",
    ]


def test_a_pause_is_logged_with_what_is_asked(caplog: pytest.LogCaptureFixture) -> None:
    class Asking(Flow):
        @start()
        async def ask_someone(self) -> str | None:
            return await self.ask_async("Which way?")

    with Runs() as runs:
        run = runs.start(Asking(verbose=True), answer_within=0.01)
        with pytest.raises(RunPaused):
            run.result(PATIENCE_S)
    assert lines_of(caplog)[2:] == ["flow 'Asking' pauses, since nobody answers: Which way?"]


def test_without_it_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    Trip(verbose=None).kickoff()
    assert lines_of(caplog) == []
