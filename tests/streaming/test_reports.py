"""``rxflow.emit`` and ``rxflow.report_progress``: what users' code tells about itself."""

import asyncio
from typing import Any

import pytest

import rxflow
from rxflow import Flow, tool
from rxflow.flow import listen, start
from rxflow.testing import ScriptedLLM, tool_call
from rxflow.types.events import Custom, MethodStarted, StateChanged, ToolProgress, ToolStarted
from tests.signals import outcome
from tests.spans import check_laws
from tests.team import solo


@tool
def count(to: int) -> str:
    """Counts."""
    for number in range(to):
        rxflow.report_progress(number + 1, to, f"at {number}")
    return "counted"


def test_a_tool_reports_its_progress_in_its_own_span() -> None:
    crew = solo(ScriptedLLM(tool_call("count", {"to": 2}), ["done"]), agent={"tools": [count]})
    seen = outcome(crew.events())
    started = seen.one(ToolStarted)
    assert [(each.progress, each.total, each.message) for each in seen.of(ToolProgress)] == [
        (1, 2, "at 0"),
        (2, 2, "at 1"),
    ]
    assert {each.origin.span_id for each in seen.of(ToolProgress)} == {started.origin.span_id}
    check_laws(seen.events)


def test_methods_emit_values_from_async_and_sync_code() -> None:
    class Telling(Flow):
        @start()
        def first(self) -> None:
            rxflow.emit({"a": 1}, name="sync")

        @listen(first)
        async def second(self) -> None:
            rxflow.emit([2])
            await asyncio.to_thread(rxflow.emit, 3, name="thread")

    seen = outcome(Telling().events())
    assert [(each.name, each.value, each.origin.flow_method) for each in seen.of(Custom)] == [
        ("sync", {"a": 1}, "first"),
        ("custom", [2], "second"),
        ("thread", 3, "second"),
    ]


@pytest.mark.parametrize("report", [lambda: rxflow.emit(1), lambda: rxflow.report_progress(1)])
def test_outside_a_run_they_only_warn(report: Any) -> None:
    with pytest.warns(RuntimeWarning, match="has no run to report to"):
        report()


def test_methods_say_what_set_them_off_and_what_they_changed() -> None:
    class Counting(Flow):
        @start()
        def begin(self) -> None:
            self.state["n"] = 1

        @listen(begin)
        def look(self) -> None:
            assert self.state["n"] == 1

    seen = outcome(Counting().events())
    assert [(each.kind, each.triggered_by) for each in seen.of(MethodStarted)] == [
        ("start", ()),
        ("listen", ("begin",)),
    ]
    assert [(each.state["n"], each.origin.flow_method) for each in seen.of(StateChanged)] == [(1, "begin")]
