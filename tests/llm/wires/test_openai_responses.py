"""OpenAI's Responses: items with and without deltas, what has to go back, ends."""

from typing import Any

import pytest

from rxflow.llm._wires.openai_responses import OpenAIResponsesWire
from rxflow.llm._wires.sse import ErrorEvent
from tests.llm.wires.reading import Answer, events, read

CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look"}
USAGE = {
    "input_tokens": 10,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 17,
}


def created(**fields: Any) -> dict[str, Any]:
    return {"type": "response.created", "response": {"id": "resp_1", "model": "gpt-5", "output": []} | fields}


def completed(kind: str = "completed", **fields: Any) -> dict[str, Any]:
    answered: dict[str, Any] = {"id": "resp_1", "model": "gpt-5", "status": kind, "output": [], "usage": USAGE}
    return {"type": f"response.{kind}", "response": answered | fields}


def item(index: int, of: dict[str, Any], /, *deltas: dict[str, Any], **done: Any) -> list[dict[str, Any]]:
    """The events of one whole output item."""
    return [
        {"type": "response.output_item.added", "output_index": index, "item": of},
        *({"output_index": index} | delta for delta in deltas),
        {"type": "response.output_item.done", "output_index": index, "item": of | done},
    ]


def text(index: int, *pieces: str, **done: Any) -> list[dict[str, Any]]:
    deltas = [{"type": "response.output_text.delta", "delta": piece} for piece in pieces]
    content = [{"type": "output_text", "text": "".join(pieces), "annotations": done.pop("annotations", [])}]
    return item(index, {"type": "message", "content": []}, *deltas, content=content, **done)


def arguments(*pieces: str) -> list[dict[str, Any]]:
    return [{"type": "response.function_call_arguments.delta", "delta": piece} for piece in pieces]


def answer(*said: dict[str, Any], start: dict[str, Any] | None = None) -> Answer:
    return read(OpenAIResponsesWire(), events(start or created(), *said))


def test_text_is_shown_as_it_comes_and_once() -> None:
    got = answer(*text(0, "Hel", "lo"), completed())
    assert got.deltas == ["Hel", "lo"]
    assert (got.wire.finish_reason, got.wire.is_complete, got.wire.is_done) == ("stop", True, True)
    assert (got.wire.response_id, got.wire.response_model) == ("resp_1", "gpt-5")


def test_text_without_deltas_is_taken_from_the_item() -> None:
    content = [{"type": "output_text", "text": "Hello"}]
    assert answer(*item(0, {"type": "message"}, content=content), completed()).text == "Hello"


def test_an_answer_without_items_is_taken_from_the_response() -> None:
    message = {"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}
    got = answer(completed(output=[message, CALL | {"arguments": "{}"}]))
    assert (got.text, got.calls) == ("Hello", [("call_1", "look", "{}")])


def test_a_refusal_is_told_from_text() -> None:
    content = [{"type": "refusal", "refusal": "I can't."}]
    delta = {"type": "response.refusal.delta", "delta": "I can't."}
    assert answer(*item(0, {"type": "message"}, delta, content=content), completed()).refusal == "I can't."
    assert answer(*item(0, {"type": "message"}, content=content), completed()).refusal == "I can't."


@pytest.mark.parametrize("kind", ["reasoning_summary_text", "reasoning_text"])
def test_summaries_and_texts_of_reasoning_are_reasoning(kind: str) -> None:
    delta = {"type": f"response.{kind}.delta", "delta": "I look."}
    summary = [{"type": "summary_text", "text": "I look."}]
    got = answer(*item(0, {"type": "reasoning", "id": "rs_1"}, delta, summary=summary), completed())
    assert got.reasoning == "I look."


@pytest.mark.parametrize("field", ["summary", "content"])
def test_reasoning_without_deltas_is_taken_from_the_item(field: str) -> None:
    done = {field: [{"type": "text", "text": "I look."}]}
    assert answer(*item(0, {"type": "reasoning", "id": "rs_1"}, **done), completed()).reasoning == "I look."


def test_encrypted_reasoning_goes_back_as_it_is_when_it_is_done() -> None:
    reasoning: dict[str, Any] = {"type": "reasoning", "id": "rs_1", "encrypted_content": "half", "summary": []}
    summary = [{"type": "summary_text", "text": "I look."}]
    done = {"encrypted_content": "whole", "summary": summary, "status": "completed"}
    got = answer(*item(0, reasoning, **done), *item(1, CALL, arguments="{}"), completed())
    kept = {"type": "reasoning", "id": "rs_1", "encrypted_content": "whole", "summary": summary}
    assert got.wire.message == {"reasoning_items": [kept]}


@pytest.mark.parametrize(("stored", "kept"), [({}, 1), ({"store": True}, 1), ({"store": False}, 0)])
def test_reasoning_that_is_not_encrypted_goes_back_if_the_server_has_stored_it(stored: Any, kept: int) -> None:
    got = answer(*item(0, {"type": "reasoning", "id": "rs_1", "summary": []}), completed(), start=created(**stored))
    assert len(got.wire.message.get("reasoning_items", [])) == kept


def test_the_phase_of_a_message_goes_back() -> None:
    got = answer(*text(0, "I look.", phase="commentary"), *item(1, CALL, arguments="{}"), completed())
    assert got.wire.message == {"provider_specific_fields": {"phase": "commentary"}}


def test_calls_have_indexes_of_their_own_and_the_id_of_the_call() -> None:
    other = CALL | {"id": "fc_2", "call_id": "call_2", "name": "ask"}
    got = answer(
        *text(0, "Wait."),
        *item(1, CALL, *arguments('{"a"', ": 1}"), arguments='{"a": 1}'),
        *item(2, other, *arguments("{}"), arguments="{}"),
        completed(),
    )
    assert got.calls == [("call_1", "look", '{"a": 1}'), ("call_2", "ask", "{}")]
    assert got.wire.finish_reason == "tool_calls"


def test_calls_may_be_interleaved() -> None:
    one, two = item(0, CALL, arguments="{1}"), item(1, CALL | {"call_id": "call_2"}, arguments="{2}")
    deltas = [event | {"output_index": n} for n, event in enumerate([*arguments("{1}"), *arguments("{2}")])]
    got = answer(one[0], two[0], deltas[1], deltas[0], two[1], one[1], completed())
    assert got.calls == [("call_1", "look", "{1}"), ("call_2", "look", "{2}")]


@pytest.mark.parametrize(("given", "read_as"), [('{"city": "Oslo"}', '{"city": "Oslo"}'), ("", "{}")])
def test_arguments_without_deltas_are_taken_from_the_item(given: str, read_as: str) -> None:
    assert answer(*item(0, CALL, arguments=given), completed()).calls == [("call_1", "look", read_as)]


def test_arguments_that_come_at_once_are_passed_on_once() -> None:
    whole = {"type": "response.function_call_arguments.done", "arguments": "{1}"}
    assert answer(*item(0, CALL, whole, arguments="{1}"), completed()).calls == [("call_1", "look", "{1}")]
    assert answer(*item(0, CALL, *arguments("{1}"), whole, arguments="{1}"), completed()).calls[0][2] == "{1}"
    assert answer(*item(0, CALL, whole)[:-1], completed()).calls[0][2] == "{1}"


def test_a_call_that_is_not_done_has_the_arguments_that_came() -> None:
    assert answer(item(0, CALL)[0], completed("incomplete")).calls == [("call_1", "look", "")]


def test_annotations_are_citations_once() -> None:
    one, two = {"type": "url_citation", "url": "a"}, {"type": "url_citation", "url": "b"}
    said = text(0, "Rx", annotations=[one, two])
    said.insert(2, {"type": "response.output_text.annotation.added", "output_index": 0, "annotation": one})
    assert answer(*said, completed()).parts == [("citation", one), ("citation", two)]


@pytest.mark.parametrize(
    ("kind", "part"),
    [("web_search_call", "server_tool"), ("mcp_call", "server_tool"), ("image_generation_call", "image")],
)
def test_what_a_tool_of_the_server_did_is_a_part(kind: str, part: str) -> None:
    got = answer(
        *item(0, {"type": kind, "id": "x"}, {"type": f"response.{kind}.searching"}, status="done"), completed()
    )
    assert got.parts == [(part, {"type": kind, "id": "x", "status": "done"})]
    assert got.calls == []


@pytest.mark.parametrize(("reason", "finish"), [("max_output_tokens", "length"), ("content_filter", "content_filter")])
def test_an_incomplete_answer_has_ended_with_its_reason(reason: str, finish: str) -> None:
    wire = answer(*text(0, "Hel"), completed("incomplete", incomplete_details={"reason": reason})).wire
    assert (wire.finish_reason, wire.is_complete) == (finish, True)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "no"}}},
        {"type": "error", "error": {"code": "server_error", "message": "no"}},
        {"type": "error", "code": "server_error", "message": "no"},
    ],
)
def test_each_form_of_an_error_is_one(event: dict[str, Any]) -> None:
    with pytest.raises(ErrorEvent, match="no") as raised:
        answer(event)
    assert raised.value.body["code"] == "server_error"


def test_usage() -> None:
    usage = answer(*text(0, "Hi"), completed()).wire.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (10, 7, 17)
    assert (usage.cached_prompt_tokens, usage.reasoning_tokens) == (4, 0)


@pytest.mark.parametrize("reported", [None, {}, {"input_tokens": None}])
def test_usage_that_nobody_reports_is_none(reported: Any) -> None:
    assert answer(*text(0, "Hi"), completed(usage=reported)).wire.usage is None


def test_items_without_a_position_are_told_apart_by_id() -> None:
    other = CALL | {"id": "fc_2", "call_id": "call_2", "name": "wait"}
    said: list[dict[str, Any]] = []
    for call, given in ((CALL, '{"a": 1}'), (other, '{"b": 2}')):
        said += [{"type": "response.output_item.added", "item": call}]
        said += [each | {"item_id": call["id"]} for each in arguments(given)]
        said += [{"type": "response.output_item.done", "item": call | {"arguments": given}}]
    assert answer(*said, completed()).calls == [("call_1", "look", '{"a": 1}'), ("call_2", "wait", '{"b": 2}')]


def test_arguments_without_position_and_id_are_of_the_newest_item() -> None:
    added = {"type": "response.output_item.added", "item": CALL}
    assert answer(added, *arguments("{", "}"), completed()).calls == [("call_1", "look", "{}")]


def test_text_that_only_the_whole_response_has_is_shown() -> None:
    added: dict[str, Any] = {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message"}}
    output = [{"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}]
    assert answer(added, completed(output=output)).text == "Hello"
    assert answer(*text(0, "Hello"), completed(output=output)).text == "Hello"
    assert answer(text(0, "Hello")[1], completed(output=output)).text == "Hello"


def test_a_call_without_position_that_only_the_whole_response_ends_is_shown_once() -> None:
    other = CALL | {"id": "fc_2", "call_id": "call_2", "name": "wait"}
    added: list[dict[str, Any]] = [{"type": "response.output_item.added", "item": each} for each in (other, CALL)]
    output = [CALL | {"arguments": '{"a": 1}'}, other | {"arguments": '{"b": 2}'}]
    assert answer(*added, completed(output=output)).calls == [
        ("call_2", "wait", '{"b": 2}'),
        ("call_1", "look", '{"a": 1}'),
    ]


def test_an_incomplete_answer_need_not_say_its_status() -> None:
    said = completed("incomplete", incomplete_details={"reason": "max_output_tokens"})
    del said["response"]["status"]
    assert answer(*text(0, "Hel"), said).wire.finish_reason == "length"
