"""What a JSON formatter writes of a run."""

import asyncio
import io
import json
import logging
import threading
from collections.abc import Callable, Generator
from typing import Any

import pytest
import reactivex as rx
from pythonjsonlogger.json import JsonFormatter
from reactivex import Observable

from rxflow import Flow, StreamChunk, operators as ops
from rxflow.adapters import logs
from rxflow.flow import start
from rxflow.types.chunks import Origin
from rxflow.types.events import FlowStarted
from tests.adapters import flows
from tests.gate import Gate
from tests.operators.endings import stubborn
from tests.scripted import Scripted, calls
from tests.team import solo

Written = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def written() -> Generator[Written]:
    """The lines so far, as JSON."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter("%(levelname)s %(name)s %(message)s"))
    logger = logging.getLogger("trips")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logger.removeHandler(handler)


def run(flow: Flow[Any], **given: Any) -> None:
    async def read() -> None:
        ended = asyncio.Event()
        flow.events().pipe(logs.log("trips", **given)).subscribe(None, flows.finally_(ended.set), ended.set)
        await ended.wait()

    asyncio.run(read())


def test_each_record_has_its_run_its_span_and_its_tokens(written: Written) -> None:
    run(flows.Plain())
    lines = written()
    assert [line["event"] for line in lines] == [
        "FlowStarted",
        "MethodStarted",
        "CrewStarted",
        "TaskStarted",
        "AgentStarted",
        "LLMStarted",
        "LLMFinished",
        "AgentFinished",
        "TaskFinished",
        "CrewFinished",
        "MethodFinished",
        "FlowFinished",
    ]
    (call,) = (line for line in lines if line["event"] == "LLMFinished")
    assert call["levelname"] == "INFO"
    assert call["name"] == "trips"
    assert (call["flow"], call["method"], call["crew"], call["agent"]) == ("Plain", "report", "crew", "Writer")
    assert (call["model"], call["prompt_tokens"], call["completion_tokens"]) == ("scripted", 2, 1)
    assert (call["cost"], call["chunks"]) == (0.5, 4)
    began = {line["span_id"]: line for line in lines if line["event"].endswith("Started")}
    assert began[call["parent_span_id"]]["event"] == "AgentStarted"
    assert "(3 tokens)" in call["message"]
    assert {line["run_id"] for line in lines} == {call["run_id"]}
    assert call["duration_s"] >= call["first_chunk_s"] >= 0


def test_what_fails_is_an_error(written: Written) -> None:
    run(flows.Failing())
    errors = [line for line in written() if line["levelname"] == "ERROR"]
    assert errors[0]["event"] == "LLMFailed"
    assert {line["error_type"] for line in errors} == {"ConnectionError"}


def test_what_is_taken_back_is_a_warning(written: Written) -> None:
    run(flows.Retracting())
    warnings = [line["event"] for line in written() if line["levelname"] == "WARNING"]
    assert "Retracted" in warnings


def test_no_content_unless_asked(written: Written) -> None:
    for flow in (flows.WithTools(), flows.Failing(), flows.Retracting()):
        run(flow)
    text = json.dumps(written())
    for content in ("calm", "A text", "line cut", "not right", "no ship"):
        assert content not in text


def test_content_if_asked(written: Written) -> None:
    run(flows.WithTools(), capture_content=True)
    lines = written()
    looked, *_ = (line["arguments"] for line in lines if line["event"] == "ToolStarted")
    *_, said = (line["text"] for line in lines if line["event"] == "LLMFinished")
    assert looked == {"where": "north"}
    assert said == "all calm"


def test_a_name_that_a_model_has_made_up_is_one_line_of_the_log(written: Written) -> None:
    name = "look\nERROR:root:hacked\x1b[2J"

    class Inventing(Flow[dict[str, Any]]):
        @start()
        def report(self) -> str:
            return str(solo(Scripted(calls((name, {})), "calm"), agent={"tools": [flows.look]}).kickoff())

    run(Inventing())
    (failed,) = (line for line in written() if line["event"] == "ToolFailed")
    assert failed["tool"] == name
    assert failed["message"].isprintable()


def test_chunks_pass_and_operators_go_on(written: Written) -> None:
    said = [str(chunk) for chunk in flows.Plain().observe().pipe(logs.log("trips"), ops.words(), ops.to_output())]
    assert "".join(said) == "low tide at noon"
    assert written()[-1]["event"] == "FlowFinished"


def test_a_run_that_is_disposed_says_what_was_open(written: Written) -> None:
    class Waiting(Flow[dict[str, Any]]):
        @start()
        async def wait(self) -> str:
            return str(await solo(Scripted(["first ", Gate()])).kickoff_async())

    async def leave() -> None:
        heard = asyncio.Event()

        def hear(chunk: StreamChunk) -> None:
            heard.set()

        logged: Observable[StreamChunk] = Waiting().observe().pipe(logs.log("trips"))
        running = logged.subscribe(hear)
        await heard.wait()
        running.dispose()

    asyncio.run(leave())
    last = written()[-1]
    assert (last["levelname"], last["event"]) == ("WARNING", "Disposed")
    assert len(last["open_spans"]) == 6


def test_so_does_one_whose_source_raises_when_it_is_disposed(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", reported.append)
    begun = FlowStarted(origin=Origin(span_id="r/1", flow_name="Trip"), inputs={})
    stubborn(rx.concat(rx.of(begun), rx.never())).pipe(logs.log("trips")).subscribe().dispose()
    assert [line["event"] for line in written()] == ["FlowStarted", "Disposed"]
    assert [each.exc_type for each in reported] == [ZeroDivisionError]


@pytest.mark.parametrize("flow", flows.ALL)
def test_every_run_can_be_written(written: Written, flow: type[Flow[Any]]) -> None:
    run(flow(), capture_content=True)
    assert written()[0]["event"] == "FlowStarted"


def test_a_handler_that_fails_changes_nothing_in_the_run() -> None:
    class Full(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("disk full")

    logger = logging.getLogger("full")
    logger.addHandler(Full())
    logger.setLevel(logging.INFO)
    plain = list(flows.Plain().events().pipe(ops.to_output()))
    logged = list(flows.Plain().events().pipe(logs.log(logger), ops.to_output()))
    assert [type(event) for event in logged] == [type(event) for event in plain]
