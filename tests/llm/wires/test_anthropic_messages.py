"""Anthropic's messages: what is in each block, and what has to go back."""

import json
from typing import Any

import pytest

from rxflow.llm._wires.anthropic_messages import AnthropicMessagesWire
from rxflow.llm._wires.sse import ErrorEvent
from tests.llm.wires.reading import Answer, events, read

USAGE = {"input_tokens": 10, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 3, "output_tokens": 1}
START: dict[str, Any] = {
    "type": "message_start",
    "message": {"id": "msg_1", "model": "claude", "content": [], "usage": USAGE},
}
BARE_START = {"type": "message_start", "message": {"id": "msg_1", "model": "claude"}}
STOP = {"type": "message_stop"}


def block(index: int, content: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of one whole block."""
    return [
        {"type": "content_block_start", "index": index, "content_block": content},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def text(index: int, *pieces: str) -> list[dict[str, Any]]:
    return block(index, {"type": "text", "text": ""}, *({"type": "text_delta", "text": each} for each in pieces))


def tool(index: int, name: str, *pieces: str, **content: Any) -> list[dict[str, Any]]:
    start: dict[str, Any] = {"type": "tool_use", "id": f"toolu_{index}", "name": name, "input": {}}
    return block(index, start | content, *({"type": "input_json_delta", "partial_json": each} for each in pieces))


def end(reason: str = "end_turn", **usage: Any) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}


def answer(*said: dict[str, Any], start: dict[str, Any] = START) -> Answer:
    return read(AnthropicMessagesWire(), events(start, *said))


def test_text_is_shown_as_it_comes() -> None:
    got = answer(*text(0, "Hel", "lo"), end(), STOP)
    assert got.deltas == ["Hel", "lo"]
    assert (got.wire.finish_reason, got.wire.is_complete, got.wire.is_done) == ("stop", True, True)
    assert (got.wire.response_id, got.wire.response_model) == ("msg_1", "claude")


def test_text_that_stands_in_the_start_of_a_block_is_shown() -> None:
    assert answer(*block(0, {"type": "text", "text": "Hi"}), end(), STOP).text == "Hi"


def test_thinking_is_reasoning_and_goes_back_with_its_signature_in_order() -> None:
    got = answer(
        *block(
            0,
            {"type": "thinking", "thinking": "", "signature": ""},
            {"type": "thinking_delta", "thinking": "I "},
            {"type": "thinking_delta", "thinking": "look."},
            {"type": "signature_delta", "signature": "U0lH"},
        ),
        *block(1, {"type": "redacted_thinking", "data": "c2VjcmV0"}),
        *tool(2, "look", "{}"),
        end("tool_use"),
        STOP,
    )
    assert got.reasoning == "I look."
    assert got.wire.message == {
        "thinking_blocks": [
            {"type": "thinking", "thinking": "I look.", "signature": "U0lH"},
            {"type": "redacted_thinking", "data": "c2VjcmV0"},
        ]
    }


def test_thinking_that_is_not_shown_keeps_its_signature() -> None:
    delta = {"type": "signature_delta", "signature": "U0lH"}
    got = answer(*block(0, {"type": "thinking", "thinking": ""}, delta), *text(1, "Hi"), end(), STOP)
    assert got.wire.message["thinking_blocks"] == [{"type": "thinking", "thinking": "", "signature": "U0lH"}]


def test_tool_calls_have_indexes_of_their_own() -> None:
    got = answer(*text(0, "Wait."), *tool(1, "a", '{"x"', ": 1}"), *tool(2, "b", '{"y": 2}'), end("tool_use"), STOP)
    assert got.calls == [("toolu_1", "a", '{"x": 1}'), ("toolu_2", "b", '{"y": 2}')]
    assert got.wire.finish_reason == "tool_calls"


@pytest.mark.parametrize("pieces", [(), ("",)])
@pytest.mark.parametrize(("given", "arguments"), [({}, "{}"), ({"city": "Ålesund"}, '{"city": "Ålesund"}')])
def test_a_call_that_ends_without_deltas_has_the_input_of_its_start(
    pieces: tuple[str, ...], given: dict[str, Any], arguments: str
) -> None:
    assert answer(*tool(0, "look", *pieces, input=given), end("tool_use"), STOP).calls == [
        ("toolu_0", "look", arguments)
    ]


def test_an_input_in_the_start_is_a_placeholder_when_deltas_follow() -> None:
    assert answer(*tool(0, "look", '{"a": 1}', input={"b": 2}), end("tool_use"), STOP).calls[0][2] == '{"a": 1}'


def test_a_call_that_does_not_end_has_no_arguments() -> None:
    assert answer(*tool(0, "look")[:-1], end("tool_use"), STOP).calls == [("toolu_0", "look", "")]


def test_what_a_tool_of_the_server_did_is_a_part_with_its_input() -> None:
    use: dict[str, Any] = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}
    result: dict[str, Any] = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
    delta = {"type": "input_json_delta", "partial_json": '{"query": "rx"}'}
    got = answer(*block(0, use, delta), *block(1, result), *text(2, "Found."), end(), STOP)
    assert got.parts == [("server_tool", use | {"input": {"query": "rx"}}), ("server_tool", result)]
    assert (got.calls, got.text) == ([], "Found.")


def test_citations_are_parts() -> None:
    citation = {"type": "char_location", "cited_text": "rx"}
    delta = {"type": "citations_delta", "citation": citation}
    assert answer(*block(0, {"type": "text", "text": "Rx"}, delta), end(), STOP).parts == [("citation", citation)]


def test_a_compaction_goes_back() -> None:
    delta = {"type": "compaction_delta", "content": "All that was."}
    got = answer(*block(0, {"type": "compaction", "content": None}, delta), *text(1, "Hi"), end(), STOP)
    compacted = {"type": "compaction", "content": "All that was."}
    assert got.parts == [("server_tool", compacted)]
    assert got.wire.message == {"provider_specific_fields": {"compaction_blocks": [compacted]}}


def test_usage_adds_the_cache_to_the_prompt_and_the_later_count_wins() -> None:
    usage = answer(*text(0, "Hi"), end(output_tokens=7, output_tokens_details={"thinking_tokens": 5}), STOP).wire.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (17, 7, 24)
    assert (usage.cached_prompt_tokens, usage.cache_creation_tokens, usage.reasoning_tokens) == (4, 3, 5)


def test_usage_that_comes_with_the_end_only_is_read() -> None:
    usage = answer(*text(0, "Hi"), end(input_tokens=2, output_tokens=3), STOP, start=BARE_START).wire.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_prompt_tokens) == (2, 3, None)


def test_usage_that_nobody_reports_is_none() -> None:
    assert answer(*text(0, "Hi"), end(), STOP, start=BARE_START).wire.usage is None


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("refusal", "content_filter"),
        ("pause_turn", "pause_turn"),
    ],
)
def test_finish_reasons_are_openais_words_where_there_is_one(reason: str, finish: str) -> None:
    assert answer(*text(0, "Hi"), end(reason), STOP).wire.finish_reason == finish


@pytest.mark.parametrize("field", [b"", b"event: error\n"])
def test_an_error_is_raised_with_the_object_that_says_its_type(field: bytes) -> None:
    error = {"type": "overloaded_error", "message": "Overloaded"}
    with pytest.raises(ErrorEvent, match="Overloaded") as raised:
        read(AnthropicMessagesWire(), events(START) + field + events({"type": "error", "error": error}))
    assert raised.value.body == error


def test_blocks_that_are_not_stopped_end_with_the_message() -> None:
    thinking = block(0, {"type": "thinking", "thinking": ""}, {"type": "thinking_delta", "thinking": "Hm."})[:-1]
    whole = tool(1, "look", input={"place": "Lisbon"})[:-1]
    got = answer(*thinking, *whole, end("tool_use"), STOP)
    assert [json.loads(arguments) for _, _, arguments in got.calls] == [{"place": "Lisbon"}]
    assert got.wire.message["thinking_blocks"] == [{"type": "thinking", "thinking": "Hm.", "signature": ""}]


@pytest.mark.parametrize("is_in_the_start", [True, False])
def test_thinking_that_is_neither_shown_nor_stopped_keeps_its_signature(is_in_the_start: bool) -> None:
    start = {"type": "thinking", "thinking": "", "signature": "U0lH" if is_in_the_start else ""}
    begun = block(0, start, *[{"type": "signature_delta", "signature": "U0lH"}] * (not is_in_the_start))[:-1]
    got = answer(*begun, *text(1, "Hi")[:-1], end(), STOP)
    assert got.wire.message["thinking_blocks"] == [{"type": "thinking", "thinking": "", "signature": "U0lH"}]


def test_blocks_that_are_whole_from_their_start_need_no_stop() -> None:
    redacted = {"type": "redacted_thinking", "data": "c2VjcmV0"}
    result: dict[str, Any] = {"type": "web_search_tool_result", "tool_use_id": "1", "content": []}
    compaction = {"type": "compaction", "content": "All that was."}
    begun: dict[str, Any] = {"type": "server_tool_use", "id": "2", "name": "web_search", "input": {}}
    starts = [block(index, content)[0] for index, content in enumerate((redacted, result, compaction, begun))]
    got = answer(*starts, end(), STOP)
    assert got.parts == [("server_tool", result), ("server_tool", compaction)]
    assert got.wire.message == {
        "thinking_blocks": [redacted],
        "provider_specific_fields": {"compaction_blocks": [compaction]},
    }


@pytest.mark.parametrize("without", [{}, {"id": None}])
def test_a_call_may_have_no_id(without: dict[str, Any]) -> None:
    start: dict[str, Any] = {"type": "tool_use", "name": "look", "input": {}, **without}
    said = block(0, start, {"type": "input_json_delta", "partial_json": "{}"})
    assert answer(*said, end("tool_use"), STOP).calls == [(None, "look", "{}")]
