"""AG-UI's own client from npm reads what runs say."""

import json
from typing import Any

import httpx
import pytest
import reactivex
from ag_ui import core as ag
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from rxflow import Flow, operators as ops
from rxflow.adapters import agui
from rxflow.flow import start
from rxflow.runs import Runs
from rxflow.types.chunks import Origin
from rxflow.types.events import (
    Custom,
    Event,
    FlowCancelled,
    FlowPaused,
    FlowStarted,
    InputRequested,
    MethodStarted,
    Retracted,
    StateChanged,
    ToolProgress,
)
from tests.adapters import flows
from tests.adapters.node_clients import run_node
from tests.adapters.serving import serve
from tests.gate import PATIENCE_S

FLOW = Origin(flow_name="Trip", flow_id="f", namespace=("Trip",), span_id="1")
METHOD = Origin(
    flow_name="Trip", flow_id="f", flow_method="plan", namespace=("Trip", "plan"), span_id="2", parent_span_id="1"
)
STARTED: list[Event] = [FlowStarted(origin=FLOW, inputs={}), MethodStarted(origin=METHOD)]
QUESTION = InputRequested(
    origin=METHOD, request_id="q1", message="In whose name?", options=("Ada", "Bob"), expires_at=1764356862.0
)


def translate(events: list[Event], error: Exception | None = None) -> list[dict[str, Any]]:
    """The AG-UI events as JSON."""
    seen: list[ag.BaseEvent] = []
    source: Any = reactivex.from_iterable(events)
    if error is not None:
        source = reactivex.concat(source, reactivex.throw(error))
    source.pipe(agui.to_agui()).subscribe(seen.append)
    return [json.loads(event.model_dump_json(by_alias=True)) for event in seen]


def of_kind(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == kind]


def test_the_verifier_of_the_protocol_accepts_every_run() -> None:
    streams = {flow.__name__: translate(flows.events_of(flow())) for flow in flows.ALL}
    streams |= {
        f"{name}, cut at {end}": translate(events[:end], error)
        for name, events in {flow.__name__: flows.events_of(flow()) for flow in flows.ALL}.items()
        for end in range(0, len(events), 7)
        for error in (None, OSError("gone"))
    }
    streams["cancelled"] = translate([*STARTED, FlowCancelled(origin=FLOW, reason="user left")])
    streams["interrupted"] = translate([*STARTED, QUESTION, FlowPaused(origin=FLOW, pending=(QUESTION,))])
    given = "".join(json.dumps(stream) + "\n" for stream in streams.values())
    verdicts = dict(zip(streams, run_node("agui_verify.mjs", given=given), strict=True))
    assert verdicts == {name: {"passed": len(stream)} for name, stream in streams.items()}


def test_each_call_is_a_message_of_its_agent() -> None:
    events = translate(flows.events_of(flows.Parallel()))
    agents = of_kind(events, "SUBAGENT_STARTED")
    assert [each["name"] for each in agents] == ["Writer", "Writer"]
    said: dict[str, str] = {}
    for each in of_kind(events, "TEXT_MESSAGE_CONTENT"):
        said[each["subagentRunId"]] = said.get(each["subagentRunId"], "") + each["delta"]
    assert sorted(said) == sorted(each["subagentRunId"] for each in agents)
    assert sorted(said.values()) == ["calm in the north", "storm in the south"]
    steps = [each["stepName"] for each in of_kind(events, "STEP_STARTED")]
    assert sorted(steps) == ["north", "south"]


def test_tool_calls_whose_ids_repeat_are_told_apart() -> None:
    events = translate(flows.events_of(flows.WithTools()))
    begun = of_kind(events, "TOOL_CALL_START")
    assert [each["toolCallName"] for each in begun] == ["look", "look", "sink"]
    assert len({each["toolCallId"] for each in begun}) == 3
    results = {each["toolCallId"]: each["content"] for each in of_kind(events, "TOOL_CALL_RESULT")}
    assert [results[each["toolCallId"]] for each in begun] == [
        "calm sea in the north",
        "calm sea in the south",
        "OSError: no ship in the west",
    ]
    reasoning = "".join(each["delta"] for each in of_kind(events, "REASONING_MESSAGE_CONTENT"))
    assert reasoning == "Hm. So be it."


def test_a_crew_that_a_tool_runs_is_below_that_tool_call() -> None:
    events = translate(flows.events_of(flows.WithSubAgent()))
    writer, harbour = of_kind(events, "SUBAGENT_STARTED")
    (call,) = of_kind(events, "TOOL_CALL_START")
    assert (writer["name"], harbour["name"]) == ("Writer", "Harbour")
    assert harbour["parentSubagentRunId"] == writer["subagentRunId"]
    assert harbour["parentToolCallId"] == call["toolCallId"]


def test_what_there_is_besides_models() -> None:
    events = translate(
        [
            *STARTED,
            StateChanged(origin=METHOD, state={"topic": "tides"}),
            ToolProgress(origin=METHOD, progress=1, total=3, message="reading"),
            Custom(origin=METHOD, name="note", value={"at": Origin}),
        ]
    )
    assert of_kind(events, "STATE_SNAPSHOT")[0]["snapshot"] == {"topic": "tides"}
    assert of_kind(events, "ACTIVITY_SNAPSHOT")[0]["content"] == {"progress": 1, "total": 3, "message": "reading"}
    assert of_kind(events, "CUSTOM")[0]["name"] == "note"


def test_a_paused_run_names_what_is_to_be_answered() -> None:
    *_, finished = translate([*STARTED, QUESTION, FlowPaused(origin=FLOW, pending=(QUESTION,))])
    (interrupt,) = finished["outcome"]["interrupts"]
    assert (interrupt["id"], interrupt["message"]) == ("q1", "In whose name?")
    assert interrupt["expiresAt"] == "2025-11-28T19:07:42+00:00"
    assert interrupt["metadata"]["options"] == ["Ada", "Bob"]


def test_a_run_that_asks_for_approval_names_the_tool_call() -> None:
    events = translate(flows.events_of(flows.Paying()))
    (call,) = of_kind(events, "TOOL_CALL_START")
    (interrupt,) = events[-1]["outcome"]["interrupts"]
    assert (interrupt["reason"], interrupt["toolCallId"]) == ("tool_call", call["toolCallId"])
    assert interrupt["metadata"]["arguments"] == {"amount": 3}
    assert of_kind(events, "TOOL_CALL_RESULT") == []
    assert of_kind(events, "SUBAGENT_FINISHED")[0]["outcome"] == {"type": "suspended"}


def test_an_approved_tool_call_has_a_result() -> None:
    events = translate(flows.events_of(flows.Paying(), True))
    assert [each["content"] for each in of_kind(events, "TOOL_CALL_RESULT")] == ["paid 3"]
    assert events[-1]["outcome"] == {"type": "success"}


@pytest.mark.parametrize("what", ["bytes", "surrogate", "cycle"])
def test_a_result_that_json_cannot_hold_is_text(what: str) -> None:
    seen: list[bytes] = []
    events = reactivex.from_iterable(flows.events_of(flows.Unencodable(), inputs={"what": what}))
    events.pipe(agui.to_agui()).map(lambda event: event.model_dump_json(by_alias=True).encode()).subscribe(seen.append)
    *_, finished = map(json.loads, seen)
    assert finished["outcome"] == {"type": "success"}
    assert finished["result"]


def test_a_tool_call_that_waited_has_its_result_after_the_run_is_resumed() -> None:
    before, after = flows.pay_after_resuming(True)
    (call,) = of_kind(translate(before), "TOOL_CALL_START")
    whole = translate([*before, *after])
    assert [each["toolCallId"] for each in of_kind(whole, "TOOL_CALL_START")] == [call["toolCallId"]]
    (result,) = of_kind(whole, "TOOL_CALL_RESULT")
    assert (result["toolCallId"], result["content"]) == (call["toolCallId"], "paid 3")
    assert of_kind(translate(after), "TOOL_CALL_RESULT") == [result], "also in a response of its own"


def test_the_end_of_a_resumed_run_is_that_of_its_last_generation() -> None:
    before, after = flows.pay_after_resuming(True)
    assert translate(before)[-1]["outcome"]["type"] == "interrupt"
    for events in ([*before, *after], after):
        finished = translate(events)[-1]
        assert (finished["outcome"], finished["result"]) == ({"type": "success"}, "it is done")


def test_the_end_of_a_run_that_was_started_again_is_that_of_its_last_generation() -> None:
    class FailsFirst(Flow[dict[str, Any]]):
        has_failed = False

        @start()
        def work(self) -> str:
            if not FailsFirst.has_failed:
                FailsFirst.has_failed = True
                raise ValueError("not yet")
            return "done"

    with Runs() as runs:
        run = runs.start(FailsFirst())
        with pytest.raises(ValueError, match="not yet"):
            run.result(PATIENCE_S)
        run.restart(FailsFirst())
        finished = translate(list(run.events().pipe(ops.to_output())))[-1]
    assert (finished["type"], finished.get("result")) == ("RUN_FINISHED", "done")


def test_a_client_that_sends_its_messages_is_not_sent_their_tool_calls_again() -> None:
    before, after = flows.pay_after_resuming(True)
    seen = [event.type.value for event in translate_for_client_of(before, after)]
    assert [kind for kind in seen if "TOOL_CALL" in kind] == ["TOOL_CALL_RESULT"]


def translate_for_client_of(before: list[Event], after: list[Event]) -> list[ag.BaseEvent]:
    """The AG-UI events of a resumed run for a client that sends the message with the tool call, which it has."""
    (call,) = of_kind(translate(before), "TOOL_CALL_START")
    known = {"id": call["toolCallId"], "type": "function", "function": {"name": "pay", "arguments": "{}"}}
    message = {"id": "m", "role": "assistant", "toolCalls": [known]}
    asked: dict[str, Any] = {
        "threadId": "t",
        "runId": "r",
        "messages": [message],
        "state": {},
        "tools": [],
        "context": [],
    }
    seen: list[ag.BaseEvent] = []
    body = json.dumps(asked | {"forwardedProps": {}}).encode()
    reactivex.from_iterable(after).pipe(agui.to_agui(agui.read_input(body))).subscribe(seen.append)
    return seen


def test_what_a_run_cost_in_tokens() -> None:
    *_, finished = translate(flows.events_of(flows.Plain()))
    assert finished["usage"] == [{"model": "scripted", "inputTokens": 2, "outputTokens": 1, "totalTokens": 3}]
    assert finished["outcome"] == {"type": "success"}


def app(flow: type[Flow[Any]]) -> Starlette:
    async def run(request: Request) -> Response:
        asked = agui.read_input(await request.body())
        return agui.respond(asked, flow().events({"topic": agui.last_user_text(asked)}))

    return Starlette(routes=[Route("/", run, methods=["POST"])])


def test_the_client_has_the_messages_of_the_run() -> None:
    with serve(app(flows.Plain)) as url:
        (seen,) = run_node("agui_run.mjs", url, "Is it low tide?")
    assert [(each["role"], each["content"]) for each in seen["messages"]] == [
        ("user", "Is it low tide?"),
        ("assistant", "low tide at noon"),
    ]
    assert seen["outcome"] == {"type": "success"}
    assert seen["result"] == "low tide at noon"


def test_an_answer_that_was_taken_back_is_gone() -> None:
    with serve(app(flows.Retracting)) as url:
        (seen,) = run_node("agui_run.mjs", url, "Go")
    assert [each["content"] for each in seen["messages"]] == ["Go", "right"]
    assert seen["custom"] == ["rxflow.retracted"]


def test_a_tool_call_of_a_resumed_run_is_taken_back_with_its_attempt() -> None:
    before, after = flows.be_rejected_after_resuming(True)
    assert [each["messages"] for each in of_kind(translate(after), "MESSAGES_SNAPSHOT")] == [[]]
    assert [each["messages"] for each in of_kind(translate([*before, *after]), "MESSAGES_SNAPSHOT")] == [[]]
    seen = translate_for_client_of(before, after)
    assert [each.messages for each in seen if isinstance(each, ag.MessagesSnapshotEvent)] == [[]]


def test_the_arguments_of_a_tool_call_are_no_text_of_the_assistant() -> None:
    _, after = flows.pay_after_resuming(True)
    other = Retracted(origin=METHOD, attempts=(7,), error=ValueError("of another answer"))
    (snapshot,) = of_kind(translate([*after, other]), "MESSAGES_SNAPSHOT")
    call, result, answer = snapshot["messages"]
    assert call.get("content") is None
    assert call["toolCalls"][0]["function"] == {"name": "pay", "arguments": '{"amount":3}'}
    assert [result["content"], answer["content"]] == ["paid 3", "it is done"]


def test_the_client_hears_of_an_error() -> None:
    with serve(app(flows.Failing)) as url:
        (seen,) = run_node("agui_run.mjs", url, "Go")
    assert seen["error"] == "line cut"


@pytest.mark.parametrize("body", ["{", '{"threadId": 1}'])
def test_a_request_that_does_not_fit_is_refused_in_one_line(body: str) -> None:
    with serve(app(flows.Plain)) as url:
        response = httpx.post(url, content=body, timeout=PATIENCE_S)
    assert response.status_code == 422
    assert response.text.startswith("not an AG-UI RunAgentInput: ")
    assert "\n" not in response.text
