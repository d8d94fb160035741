"""Gemini's responses: parts, calls whole and in pieces, signatures, ends."""

import json
from typing import Any

import pytest

from rxflow.llm._wires.gemini import GeminiWire
from rxflow.llm._wires.sse import MalformedEvent
from tests.llm.wires.reading import Answer, events, read


def response(*parts: dict[str, Any], finish: str | None = None, **fields: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "modelVersion": "gemini-3", "responseId": "r1"} | fields


def answer(*said: dict[str, Any]) -> Answer:
    return read(GeminiWire(), events(*said))


def pieces(*said: dict[str, Any]) -> Answer:
    """A call of ``look`` whose arguments come in these pieces."""
    start = response({"functionCall": {"name": "look", "willContinue": True}})
    calls = [{"functionCall": {"partialArgs": [each], "willContinue": True}} for each in said]
    return answer(start, *map(response, calls), response({"functionCall": {}}, finish="STOP"))


def test_text_and_thoughts() -> None:
    got = answer(
        response({"text": "Hm.", "thought": True}), response({"text": "Hel"}), response({"text": "lo"}, finish="STOP")
    )
    assert (got.reasoning, got.text) == ("Hm.", "Hello")
    assert (got.wire.finish_reason, got.wire.is_complete) == ("stop", True)
    assert (got.wire.response_id, got.wire.response_model) == ("r1", "gemini-3")


def test_without_a_finish_reason_the_answer_is_not_complete() -> None:
    assert not answer(response({"text": "Hel"})).wire.is_complete
    assert not answer(response({"text": "Hel"}, finish="FINISH_REASON_UNSPECIFIED")).wire.is_complete


def test_an_answer_that_goes_on_after_a_finish_reason_is_not_complete() -> None:
    code = response({"executableCode": {"language": "PYTHON", "code": "1"}}, finish="STOP")
    assert not answer(code, response({"text": "It is "})).wire.is_complete
    assert answer(code, response({"text": "It is "}), response({"text": "1"}, finish="STOP")).wire.is_complete
    assert answer(code, response({"text": ""}), {"usageMetadata": {"promptTokenCount": 1}}).wire.is_complete


def test_calls_come_whole_and_their_ids_may_be_missing() -> None:
    got = answer(
        response(
            {"functionCall": {"name": "a", "args": {"city": "Ålesund"}, "id": "x1"}, "thoughtSignature": "U0lH"},
            {"functionCall": {"name": "b", "args": {}}},
            {"functionCall": {"name": "c"}},
        ),
        response({"text": ""}, finish="STOP"),
    )
    assert got.calls == [("x1", "a", '{"city": "Ålesund"}'), (None, "b", "{}"), (None, "c", "{}")]
    assert len(got.deltas) == 3
    assert got.wire.finish_reason == "tool_calls"


def test_the_signature_of_a_call_goes_back_with_the_call() -> None:
    got = answer(response({"functionCall": {"name": "a"}, "thoughtSignature": "U0lH"}, finish="STOP"))
    assert got.extras == [{"provider_specific_fields": {"thought_signature": "U0lH"}}]
    assert got.wire.message == {}


def test_the_signature_of_text_goes_back_with_the_message() -> None:
    got = answer(response({"text": "Hi"}), response({"text": "", "thoughtSignature": "U0lH"}, finish="STOP"))
    assert got.wire.message == {"provider_specific_fields": {"thought_signatures": ["U0lH"]}}
    assert got.deltas == ["Hi"]


def test_what_a_tool_of_the_server_did_is_a_part_and_goes_back() -> None:
    call = {"toolCall": {"toolType": "GOOGLE_SEARCH_WEB", "id": "t1", "args": {"q": "rx"}}, "thoughtSignature": "MQ=="}
    result: dict[str, Any] = {
        "toolResponse": {"toolType": "GOOGLE_SEARCH_WEB", "id": "t1", "response": {}},
        "thoughtSignature": "Mg==",
    }
    got = answer(response(call), response(result), response({"text": "Found."}, finish="STOP"))
    assert got.parts == [("server_tool", call), ("server_tool", result)]
    (invocation,) = got.wire.message["provider_specific_fields"]["server_side_tool_invocations"]
    assert invocation == {
        "tool_type": "GOOGLE_SEARCH_WEB",
        "id": "t1",
        "args": {"q": "rx"},
        "thought_signature": "MQ==",
        "response": {},
        "response_thought_signature": "Mg==",
    }


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ({"inlineData": {"mimeType": "image/png", "data": "aGk="}}, "image"),
        ({"inlineData": {"mimeType": "audio/L16;codec=pcm", "data": "aGk="}}, "audio"),
        ({"executableCode": {"language": "PYTHON", "code": "1"}}, "server_tool"),
        ({"codeExecutionResult": {"outcome": "OUTCOME_OK"}}, "server_tool"),
    ],
)
def test_what_is_not_text_is_a_part(part: dict[str, Any], kind: str) -> None:
    assert answer(response(part, finish="STOP")).parts == [(kind, part)]


def test_grounding_that_is_repeated_is_one_part() -> None:
    said = response({"text": "Hi"})
    said["candidates"][0]["groundingMetadata"] = {"groundingChunks": [1]}
    last = response({"text": "."}, finish="STOP")
    last["candidates"][0]["groundingMetadata"] = {"groundingChunks": [1]}
    assert answer(said, last).parts == [("citation", {"groundingMetadata": {"groundingChunks": [1]}})]


def test_arguments_in_pieces() -> None:
    got = pieces(
        {"jsonPath": "$.people[0].name", "stringValue": "Å", "willContinue": True},
        {"jsonPath": "$.people[0].name", "stringValue": "sa", "willContinue": True},
        {"jsonPath": "$.people[0].name", "stringValue": ""},
        {"jsonPath": "$.people[0].age", "numberValue": 3},
        {"jsonPath": "$.people[1].name", "nullValue": "NULL_VALUE"},
        {"jsonPath": "$['is new']", "boolValue": True},
        {"jsonPath": "$.tags[0]", "stringValue": "x"},
        {"jsonPath": "$.tags[1]", "stringValue": "x"},
    )
    ((_, name, arguments),) = got.calls
    people = [{"name": "Åsa", "age": 3}, {"name": None}]
    assert (name, json.loads(arguments)) == ("look", {"people": people, "is new": True, "tags": ["x", "x"]})
    assert got.wire.finish_reason == "tool_calls"


def test_a_string_that_is_not_to_be_continued_is_replaced() -> None:
    got = pieces({"jsonPath": "$.a", "stringValue": "x"}, {"jsonPath": "$.a", "stringValue": "y"})
    assert got.calls[0][2] == '{"a": "y"}'


@pytest.mark.parametrize("path", ["$", "a", "$.a[1]", "$.a[999999999]", "$.", "$.b.c", "$[0]"])
def test_a_path_that_leads_nowhere_is_malformed(path: str) -> None:
    with pytest.raises(MalformedEvent, match="unknown shape"):
        pieces({"jsonPath": "$.b", "stringValue": "x"}, {"jsonPath": path, "stringValue": "x"})


def test_a_call_in_pieces_that_does_not_end_has_no_arguments() -> None:
    piece = {"jsonPath": "$.a", "stringValue": "x"}
    start = response({"functionCall": {"name": "look", "willContinue": True}})
    got = answer(start, response({"functionCall": {"partialArgs": [piece], "willContinue": True}}, finish="STOP"))
    assert got.calls == [(None, "look", "")]


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("MALFORMED_FUNCTION_CALL", "MALFORMED_FUNCTION_CALL"),
    ],
)
def test_finish_reasons_are_openais_words_where_there_is_one(reason: str, finish: str) -> None:
    assert answer(response({"text": "Hi"}, finish=reason)).wire.finish_reason == finish


def test_a_prompt_that_is_blocked_ends_the_answer() -> None:
    wire = answer({"promptFeedback": {"blockReason": "SAFETY"}}).wire
    assert (wire.finish_reason, wire.is_complete) == ("content_filter", True)


def test_usage_counts_thoughts_and_what_tools_read() -> None:
    reported = {"promptTokenCount": 10, "toolUsePromptTokenCount": 5, "thoughtsTokenCount": 3, "totalTokenCount": 25}
    first = response({"text": "H"}, usageMetadata={"candidatesTokenCount": 7, "trafficType": "ON_DEMAND"})
    usage = answer(first, response({"text": "i"}, finish="STOP", usageMetadata=reported)).wire.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (15, 10, 25)
    assert (usage.reasoning_tokens, usage.cached_prompt_tokens) == (3, None)


def test_usage_without_a_count_is_none() -> None:
    assert answer(response({"text": "H"}, finish="STOP", usageMetadata={"trafficType": "X"})).wire.usage is None


def test_candidates_beyond_the_first_are_left_out() -> None:
    said = response({"text": "Hi"}, finish="STOP")
    said["candidates"].append({"content": {"parts": [{"text": "Ho"}]}, "finishReason": "SAFETY", "index": 1})
    got = answer(said)
    assert (got.text, got.wire.finish_reason) == ("Hi", "stop")


@pytest.mark.parametrize("args", [[[]], [""], "x", 42])
def test_arguments_that_are_not_an_object_are_malformed(args: Any) -> None:
    with pytest.raises(MalformedEvent, match="args is not an object"):
        answer(response({"functionCall": {"name": "look", "args": args}}))


def test_usage_may_be_reported_before_the_end_only() -> None:
    reported = {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}
    usage = answer(response({"text": "H"}, usageMetadata=reported), response({"text": "i"}, finish="STOP")).wire.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (3, 2, 5)
