"""What holds for each wire: however the network cuts the bytes, and whatever the provider adds or breaks."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import pytest
from hypothesis import given, strategies as st

from rxflow.llm._wires.anthropic_messages import AnthropicMessagesWire
from rxflow.llm._wires.bedrock import BedrockConverseWire
from rxflow.llm._wires.cohere import CohereWire
from rxflow.llm._wires.gemini import GeminiWire
from rxflow.llm._wires.ollama import OllamaWire
from rxflow.llm._wires.openai_chat import OpenAIChatWire
from rxflow.llm._wires.openai_responses import OpenAIResponsesWire
from rxflow.llm._wires.sse import ErrorEvent, MalformedEvent, Wire
from tests.llm.wires import (
    test_anthropic_messages as anthropic,
    test_bedrock as bedrock,
    test_cohere as cohere,
    test_gemini as gemini,
    test_ollama as ollama,
    test_openai_responses as responses,
)
from tests.llm.wires.reading import aws_events, events, lines, read


def chat(**delta: Any) -> dict[str, Any]:
    finish = delta.pop("finish_reason", None)
    return {"id": "c1", "model": "gpt", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


@dataclass
class Case:
    """One wire, and an answer of it in which there is a bit of everything."""

    wire: Callable[[], Wire]
    said: list[dict[str, Any]]
    say: Callable[[str], dict[str, Any]]
    """The event of one piece of text."""
    broken: dict[str, Any]
    """An event that this provider does not send."""
    encode: Callable[..., bytes] = events
    has_last_event: bool = True
    """The answer's own events say that nothing follows."""

    def __repr__(self) -> str:
        return self.wire.__name__


FUNCTION = {"name": "look", "arguments": '{"city": "Ålesund 😀"}'}
CASES = [
    Case(
        OpenAIChatWire,
        [
            chat(reasoning_content="Hm é"),
            chat(content="Hellø €"),
            chat(tool_calls=[{"index": 0, "id": "c", "function": FUNCTION}]),
            chat(finish_reason="tool_calls"),
        ],
        lambda text: chat(content=text),
        {"choices": [{"delta": {"content": 42}}]},
        has_last_event=False,
    ),
    Case(
        AnthropicMessagesWire,
        [
            anthropic.START,
            *anthropic.block(0, {"type": "thinking"}, {"type": "thinking_delta", "thinking": "Hm é"}),
            *anthropic.text(1, "Hellø", " €"),
            *anthropic.tool(2, "look", FUNCTION["arguments"]),
            anthropic.end("tool_use", output_tokens=3),
            anthropic.STOP,
        ],
        lambda text: {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": 42}},
    ),
    Case(
        GeminiWire,
        [
            gemini.response({"text": "Hm é", "thought": True}),
            gemini.response({"text": "Hellø €"}),
            gemini.response({"functionCall": {"name": "look", "args": {"city": "Ålesund 😀"}}}, finish="STOP"),
        ],
        lambda text: gemini.response({"text": text}),
        gemini.response({"text": 42}),
        has_last_event=False,
    ),
    Case(
        OpenAIResponsesWire,
        [
            responses.created(),
            *responses.item(
                0, {"type": "reasoning", "id": "rs"}, {"type": "response.reasoning_text.delta", "delta": "Hm é"}
            ),
            *responses.text(1, "Hellø", " €"),
            *responses.item(2, responses.CALL, *responses.arguments(FUNCTION["arguments"]), arguments="{}"),
            responses.completed(),
        ],
        lambda text: {"type": "response.output_text.delta", "output_index": 0, "delta": text},
        {"type": "response.output_text.delta", "output_index": 0, "delta": 42},
    ),
    Case(
        CohereWire,
        [
            cohere.said("content-delta", content={"thinking": "Hm é"}),
            cohere.text("Hellø €"),
            *cohere.call(0, "look", FUNCTION["arguments"]),
            cohere.end("TOOL_CALL", usage=cohere.USAGE),
        ],
        cohere.text,
        cohere.said("content-delta", content={"text": 42}),
    ),
    Case(
        OllamaWire,
        [
            ollama.chat(thinking="Hm é"),
            ollama.chat(content="Hellø €"),
            ollama.chat(tool_calls=[{"function": {"name": "look", "arguments": {"city": "Ålesund 😀"}}}]),
            ollama.END,
        ],
        lambda text: ollama.chat(content=text),
        ollama.chat(content=42),
        encode=lines,
    ),
    Case(
        BedrockConverseWire,
        [
            bedrock.delta(0, reasoningContent={"text": "Hm é"}),
            bedrock.delta(1, text="Hellø €"),
            *bedrock.call(2, "look", FUNCTION["arguments"]),
            bedrock.stop("tool_use"),
        ],
        lambda text: bedrock.delta(0, text=text),
        bedrock.delta(0, text=42),
        encode=aws_events,
        has_last_event=False,
    ),
]
every_wire = pytest.mark.parametrize("case", CASES, ids=repr)
PLACES = st.lists(st.integers(min_value=0, max_value=10_000), max_size=12)


@every_wire
@given(places=PLACES)
def test_the_answer_is_the_same_however_the_bytes_are_cut(case: Case, places: list[int]) -> None:
    body = case.encode(*case.said)
    got = read(case.wire(), body, places)
    assert (got.reasoning, got.text, got.calls[0][2]) == ("Hm é", "Hellø €", FUNCTION["arguments"])
    assert got.all == read(case.wire(), body).all


@every_wire
def test_an_answer_that_lacks_its_end_is_not_complete(case: Case) -> None:
    body = case.encode(*case.said)
    assert read(case.wire(), body).wire.is_complete
    for end in range(len(case.encode(*case.said[:-1]))):
        wire = case.wire()
        try:
            read(wire, body[:end])
        except MalformedEvent:
            pass  # the last event is cut in two
        assert not wire.is_complete


@every_wire
@pytest.mark.parametrize("unknown", [{"type": "brand_new", "data": {}}, {"type": "brand.new", "delta": None}, {}])
def test_events_of_an_unknown_type_are_left_out(case: Case, unknown: dict[str, Any]) -> None:
    said = [event for each in case.said for event in (unknown, each)]
    assert read(case.wire(), case.encode(*said)).all == read(case.wire(), case.encode(*case.said)).all


@every_wire
def test_what_came_before_an_event_of_a_wrong_shape_is_shown(case: Case) -> None:
    deltas: list[Any] = []
    with pytest.raises(MalformedEvent, match="42"):
        case.wire().feed(case.encode(case.say("Hi"), case.broken, case.say("Ho")), deltas)
    assert deltas == ["Hi"]


def find_values(said: object) -> list[tuple[Any, Any]]:
    """Each value in ``said``, as its container and its key there."""
    if isinstance(said, dict):
        return _find_in(said, list(cast(dict[str, Any], said)))
    return _find_in(said, list(range(len(cast(list[Any], said))))) if isinstance(said, list) else []


def _find_in(container: Any, keys: list[Any]) -> list[tuple[Any, Any]]:
    return [(container, key) for key in keys] + [each for key in keys for each in find_values(container[key])]


OTHER_VALUES: list[Any] = [None, 42, -1, True, 0.5, "x", "", [], {}, [[]], [None], {"type": "x"}, {"x": "\ud83d"}]


@every_wire
@given(data=st.data(), wrong=st.sampled_from(OTHER_VALUES))
def test_whatever_a_value_is_the_event_is_read_or_malformed(case: Case, data: st.DataObject, wrong: Any) -> None:
    said = copy.deepcopy(case.said)
    container, key = data.draw(st.sampled_from([each for event in said for each in find_values(event)]))
    container[key] = wrong
    try:
        got = read(case.wire(), case.encode(*said))
    except (MalformedEvent, ErrorEvent):
        return
    assert all(
        isinstance(each, str) for each in (got.text, got.reasoning, got.refusal, *(call[2] for call in got.calls))
    )


@every_wire
def test_an_error_that_is_sent_as_an_event_is_raised_with_what_it_says(case: Case) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "try later"}}
    with pytest.raises(ErrorEvent, match="try later") as raised:
        read(case.wire(), case.encode(case.say("Hi"), error))
    assert raised.value.body["message"] == "try later"


@every_wire
def test_a_character_that_the_server_has_cut_in_two_is_one(case: Case) -> None:
    said = [case.say("a\ud83d"), case.say("\ude00b")]
    assert read(case.wire(), case.encode(*said)).text == "a😀b"


@every_wire
def test_half_a_character_at_the_end_is_replaced(case: Case) -> None:
    assert read(case.wire(), case.encode(case.say("a\ud83d"), case.said[-1])).text == "a\ufffd"


@pytest.mark.parametrize("case", [case for case in CASES if case.has_last_event], ids=repr)
def test_what_follows_the_last_event_is_not_read(case: Case) -> None:
    got = read(case.wire(), case.encode(*case.said, case.broken))
    assert got.wire.is_done
    assert got.all == read(case.wire(), case.encode(*case.said)).all
