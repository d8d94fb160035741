"""Vercel's AI SDK from npm, in two versions, reads what runs say."""

import json
from typing import Any

import httpx
import pytest
import reactivex
from reactivex import Observable
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rxflow.adapters import vercel
from rxflow.types import (
    Custom,
    Event,
    FlowCancelled,
    FlowPaused,
    FlowStarted,
    InputRequested,
    LLMFinished,
    LLMStarted,
    Origin,
    StateChanged,
    ToolCall,
    ToolProgress,
)
from rxflow.types.streaming import ToolCallChunk
from tests.adapters import flows
from tests.adapters.node_clients import run_node
from tests.adapters.serving import serve
from tests.gate import PATIENCE_S

VERSIONS = [pytest.param("ai6", marks=pytest.mark.slow), "ai"]
FLOW = Origin(flow_name="Trip", flow_id="f", namespace=("Trip",), span_id="1")
CALL = Origin(flow_name="Trip", namespace=("Trip",), span_id="2", parent_span_id="1", llm_call_id="c", agent_role="A")
STARTED: list[Event] = [FlowStarted(origin=FLOW, inputs={})]


def read(version: str, events: list[Event], error: Exception | None = None) -> Any:
    """What a version of the SDK makes of a run."""
    source: Observable[Any] = reactivex.from_iterable(events)
    if error is not None:
        source = reactivex.concat(source, reactivex.throw(error))
    asked: list[str] = []

    async def chat(request: Request) -> Response:
        asked.append(vercel.last_user_text(await request.body()))
        return vercel.respond(source, message_id="answer")

    with serve(Starlette(routes=[Route("/", chat, methods=["POST"])])) as url:
        (seen,) = run_node("vercel_read.mjs", version, url)
    assert asked == ["Is it low tide?"]
    return seen


def parts(seen: Any, *kinds: str) -> list[Any]:
    return [part for part in seen["message"]["parts"] if part["type"] in kinds]


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_the_message_has_the_text_of_the_run(version: str) -> None:
    seen = read(version, flows.events_of(flows.Plain()))
    assert seen["errors"] == []
    assert seen["message"]["id"] == "answer"
    (text,) = parts(seen, "text")
    assert (text["text"], text["state"]) == ("low tide at noon", "done")
    assert text["providerMetadata"]["rxflow"]["agent"] == "Writer"
    assert seen["message"]["metadata"]["usage"]["completion_tokens"] == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_speakers_at_the_same_time_have_a_part_each(version: str) -> None:
    seen = read(version, flows.events_of(flows.Parallel()))
    assert seen["errors"] == []
    assert sorted(part["text"] for part in parts(seen, "text")) == ["calm in the north", "storm in the south"]


@pytest.mark.parametrize("version", VERSIONS)
def test_tools_with_arguments_results_and_errors(version: str) -> None:
    seen = read(version, flows.events_of(flows.WithTools()))
    assert seen["errors"] == []
    tools = parts(seen, "dynamic-tool")
    assert [(each["toolName"], each["state"], each["input"]) for each in tools] == [
        ("look", "output-available", {"where": "north"}),
        ("look", "output-available", {"where": "south"}),
        ("sink", "output-error", {"where": "west"}),
    ]
    assert tools[1]["output"] == "calm sea in the south"
    assert tools[2]["errorText"] == "OSError: no ship in the west"
    assert [part["text"] for part in parts(seen, "reasoning")] == ["Hm. So be it."]
    assert [part["text"] for part in parts(seen, "text")] == ["all calm"]
    assert len(parts(seen, "step-start")) == 3


@pytest.mark.parametrize("version", VERSIONS)
def test_an_error_ends_the_stream(version: str) -> None:
    seen = read(version, flows.events_of(flows.Failing()), ConnectionError("line cut"))
    assert seen["errors"] == ["ConnectionError: line cut"]
    assert "".join(part["text"] for part in parts(seen, "text")) == "low tide "


@pytest.mark.parametrize("version", VERSIONS)
def test_a_tool_that_waits_for_approval(version: str) -> None:
    arguments = '{"amount": 3}'
    chunk = CALL.tool_chunk(ToolCallChunk(tool_id="t", tool_name="pay", arguments=arguments))
    call = ToolCall(id="t", name="pay", arguments=arguments)
    question = InputRequested(
        origin=CALL, request_id="q1", kind="approval", message="pay", tool_id="t", arguments={"amount": 3}
    )
    seen = read(
        version,
        [
            *STARTED,
            LLMStarted(origin=CALL, model="m", messages=[]),
            chunk,
            LLMFinished(origin=CALL, text="", tool_calls=(call,)),
            question,
            FlowPaused(origin=FLOW, pending=(question,)),
        ],
    )
    assert seen["errors"] == []
    (tool,) = parts(seen, "dynamic-tool")
    assert (tool["toolName"], tool["state"], tool["input"]) == ("pay", "approval-requested", {"amount": 3})
    assert tool["approval"]["id"] == "q1"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("answer", "state"), [(None, "approval-requested"), (True, "output-available"), (False, "output-denied")]
)
def test_a_run_that_asks_for_approval(version: str, answer: bool | None, state: str) -> None:
    given = [] if answer is None else [answer]
    seen = read(version, flows.events_of(flows.Paying(), *given))
    assert seen["errors"] == []
    (tool,) = parts(seen, "dynamic-tool")
    assert (tool["toolName"], tool["state"], tool["input"]) == ("pay", state, {"amount": 3})


@pytest.mark.parametrize("version", VERSIONS)
def test_what_there_is_besides_models(version: str) -> None:
    seen = read(
        version,
        [
            *STARTED,
            StateChanged(origin=FLOW, state={"topic": "rivers"}),
            StateChanged(origin=FLOW, state={"topic": "tides"}),
            ToolProgress(origin=FLOW, progress=1, total=3),
            Custom(origin=FLOW, name="note", value="x"),
            InputRequested(origin=FLOW, request_id="q", message="Who?", options=("Ada",)),
        ],
    )
    assert seen["errors"] == []
    assert {part["type"]: part["data"] for part in seen["message"]["parts"]} == {
        "data-state": {"topic": "tides"},
        "data-progress": {"progress": 1, "total": 3, "message": ""},
        "data-note": "x",
        "data-input-request": {"kind": "input", "message": "Who?", "options": ["Ada"], "isAnswered": False},
    }


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("flow", flows.ALL)
def test_no_run_is_an_error_of_the_protocol(flow: Any, version: str) -> None:
    assert read(version, flows.events_of(flow()))["errors"] == []


def chunks(events: list[Event]) -> list[dict[str, Any]]:
    seen: list[dict[str, Any]] = []
    reactivex.from_iterable(events).pipe(vercel.to_ui_messages("m")).subscribe(seen.append)
    return seen


@pytest.mark.parametrize("what", ["bytes", "surrogate", "cycle"])
def test_what_json_cannot_hold_is_sent_as_text(what: str) -> None:
    async def chat(request: Request) -> Response:
        return vercel.respond(flows.Unencodable().events({"what": what}))

    with serve(Starlette(routes=[Route("/", chat)])) as url:
        body = httpx.get(url, timeout=PATIENCE_S).text
    messages = [json.loads(line.removeprefix("data: ")) for line in body.splitlines() if line.startswith("data: {")]
    assert messages[-1]["type"] == "finish"
    (given,) = (each["output"] for each in messages if each["type"] == "tool-output-available")
    assert given == {"bytes": "\ufffd", "surrogate": "calm \ufffd", "cycle": "[1, [...]]"}[what]


def test_a_name_that_cannot_be_encoded_is_sent_with_a_replacement_character() -> None:
    events = [*STARTED, Custom(origin=FLOW, name=flows.HALF_A_PAIR, value=1)]

    async def chat(request: Request) -> Response:
        return vercel.respond(reactivex.from_iterable(events))

    with serve(Starlette(routes=[Route("/", chat)])) as url:
        assert '"data-calm \ufffd"' in httpx.get(url, timeout=PATIENCE_S).text


def about_tools(seen: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(each["type"], each["toolCallId"]) for each in seen if "toolCallId" in each and "delta" not in each["type"]]


@pytest.mark.parametrize(("answer", "end"), [(True, "tool-output-available"), (False, "tool-output-denied")])
def test_a_tool_call_that_waited_has_its_result_after_the_run_is_resumed(answer: bool, end: str) -> None:
    before, after = flows.pay_after_resuming(answer)
    first = about_tools(chunks(before))
    (tool_call_id,) = {each for _, each in first}
    assert about_tools(chunks([*before, *after])) == [*first, (end, tool_call_id)]
    alone = chunks(after)
    assert about_tools(alone) == [("tool-input-available", tool_call_id), (end, tool_call_id)]
    assert [each["toolName"] for each in alone if "toolName" in each] == ["pay"]
    assert [each for each in alone if each["type"].startswith("data-")] == []


def test_a_question_that_is_still_open_after_the_run_is_resumed_names_the_tool() -> None:
    before, after = flows.pay_after_resuming(None)
    first = about_tools(chunks(before))
    tool_call_id = first[0][1]
    seen = chunks(after)
    assert about_tools(seen) == [("tool-input-available", tool_call_id), ("tool-approval-request", tool_call_id)]
    assert [(each["toolName"], each["input"]) for each in seen if "toolName" in each] == [("pay", {"amount": 3})]
    requests = [each["approvalId"] for each in [*chunks(before), *seen] if each["type"] == "tool-approval-request"]
    assert len(requests) == 2
    assert len(set(requests)) == 1


def test_a_cancelled_run_is_aborted() -> None:
    assert chunks([*STARTED, FlowCancelled(origin=FLOW, reason="user left")])[-1] == {
        "type": "abort",
        "reason": "user left",
    }


def test_a_crew_that_waits_for_a_person_is_not_aborted() -> None:
    assert chunks(flows.events_of(flows.paying_crew()))[-1] == chunks(flows.events_of(flows.Paying()))[-1]


def test_parts_that_were_taken_back_are_named() -> None:
    seen = chunks(flows.events_of(flows.Retracting()))
    first, _ = (each for each in seen if each["type"] == "text-start")
    (retracted,) = (each for each in seen if each["type"] == "data-retracted")
    assert retracted["data"]["ids"] == [first["id"]]


def test_a_tool_call_of_a_resumed_run_is_among_them() -> None:
    _, after = flows.be_rejected_after_resuming(True)
    seen = chunks(after)
    (call,) = (each["toolCallId"] for each in seen if each["type"] == "tool-input-available")
    wrong, _ = (each["id"] for each in seen if each["type"] == "text-start")
    (retracted,) = (each for each in seen if each["type"] == "data-retracted")
    assert retracted["data"]["ids"] == [call, wrong]


def test_answers_of_people_are_read_from_the_request() -> None:
    part = {"type": "dynamic-tool", "state": "approval-responded", "approval": {"id": "q1", "approved": False}}
    body = {"messages": [{"role": "assistant", "parts": [part]}, {"role": "user", "parts": [{"type": "text"}]}]}
    assert vercel.read_approvals(json.dumps(body).encode()) == {"q1": False}
    assert vercel.last_user_text(json.dumps(body).encode()) == ""


def test_a_text_that_is_null_is_no_text() -> None:
    body = {"messages": [{"role": "user", "parts": [{"type": "text", "text": None}]}]}
    assert vercel.last_user_text(json.dumps(body).encode()) == ""


@pytest.mark.parametrize("body", ["{", "[]", '{"messages": 3}'])
def test_a_request_that_does_not_fit_is_refused_in_one_line(body: str) -> None:
    async def chat(request: Request) -> Response:
        return Response(vercel.last_user_text(await request.body()))

    with serve(Starlette(routes=[Route("/", chat, methods=["POST"])])) as url:
        response = httpx.post(url, content=body, timeout=PATIENCE_S)
    assert response.status_code == 422
    assert "\n" not in response.text
