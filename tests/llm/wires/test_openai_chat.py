"""OpenAI's chat completions, and what other providers that speak them add."""

import json
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from rxflow.llm._wires.openai_chat import OpenAIChatWire
from rxflow.llm._wires.sse import ErrorEvent, MalformedEvent
from rxflow.llm.source import ReasoningDelta, RefusalDelta
from tests.llm.wire import event
from tests.llm.wires.reading import Answer, events, read

USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}


def chunk(finish: str | None = None, usage: Any = None, **delta: Any) -> dict[str, Any]:
    said: dict[str, Any] = {"id": "c1", "model": "gpt", "choices": [{"index": 0, "delta": delta}]}
    if finish:
        said["choices"][0]["finish_reason"] = finish
    return said | ({"usage": usage} if usage is not None else {})


def call(index: int | None = None, call_id: str | None = None, name: str | None = None, arguments: Any = "") -> Any:
    """A piece of a tool call."""
    return {"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}}


def answer(*said: dict[str, Any]) -> Answer:
    return read(OpenAIChatWire(), events(*said) + b"data: [DONE]\n\n")


def test_text_is_shown_as_it_comes() -> None:
    got = answer(chunk(role="assistant", content=""), chunk(content="Hel"), chunk(content="lo"), chunk("stop"))
    assert got.deltas == ["Hel", "lo"]
    assert (got.wire.finish_reason, got.wire.is_complete, got.wire.is_done) == ("stop", True, True)
    assert (got.wire.response_id, got.wire.response_model) == ("c1", "gpt")


def test_the_text_of_a_completion_is_text() -> None:
    assert answer({"choices": [{"text": "Hel", "index": 0}]}, {"choices": [{"text": "lo"}]}).text == "Hello"


def test_done_without_a_finish_reason_is_the_end() -> None:
    wire = answer(chunk(content="Hi")).wire
    assert (wire.finish_reason, wire.is_complete) == (None, True)


def test_a_whole_message_in_one_event_is_read() -> None:
    message = {"content": "Hi", "tool_calls": [call(0, "a1", "look", "{}")]}
    got = answer({"choices": [{"message": message, "finish_reason": "tool_calls"}]})
    assert (got.text, got.calls) == ("Hi", [("a1", "look", "{}")])


def test_a_refusal_is_told_from_text() -> None:
    got = answer(chunk(refusal="I can't."), chunk("stop"))
    assert (got.refusal, got.text) == ("I can't.", "")


def test_a_refusal_in_parts_joins_halves_of_a_character() -> None:
    parts = [[{"type": "refusal", "refusal": text}] for text in ("No \ud83d", "\ude00")]
    got = answer(*(chunk(content=part) for part in parts), chunk("stop"))
    assert got.refusal == "No 😀"


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_goes_back_in_the_field_in_which_it_came(field: str) -> None:
    got = answer(chunk(**{field: "I "}), chunk(**{field: "look."}), chunk("stop"))
    assert (got.reasoning, got.wire.message) == ("I look.", {field: "I look."})


def test_details_of_reasoning_go_back_joined_and_are_shown_once() -> None:
    pieces = [
        {"type": "reasoning.text", "index": 0, "text": "I "},
        {"type": "reasoning.text", "index": 0, "text": "look.", "signature": "U0lH"},
        {"type": "reasoning.encrypted", "index": 1, "data": "x"},
    ]
    said = [chunk(reasoning=piece.get("text"), reasoning_details=[piece]) for piece in pieces]
    got = answer(*said, chunk("stop"))
    joined = {"type": "reasoning.text", "index": 0, "text": "I look.", "signature": "U0lH"}
    assert got.reasoning == "I look."
    assert got.wire.message == {"reasoning_details": [joined, pieces[2]]}


def test_content_as_a_list_of_parts_is_shown_and_goes_back_whole() -> None:
    thinking = [{"type": "thinking", "thinking": [{"type": "text", "text": piece}]} for piece in ("I ", "look.")]
    text = [{"type": "text", "text": piece} for piece in ("Hel", "lo")]
    reference = {"type": "reference", "reference_ids": [1]}
    got = answer(*(chunk(content=[part]) for part in (*thinking, *text, reference)), chunk("stop"))
    assert (got.reasoning, got.text, got.parts) == ("I look.", "Hello", [("citation", reference)])
    joined = {"type": "thinking", "thinking": [{"type": "text", "text": "I look."}]}
    assert got.wire.message == {"content": [joined, {"type": "text", "text": "Hello"}, reference]}


def test_pieces_of_a_call_are_passed_on_with_what_the_provider_says() -> None:
    got = answer(
        chunk(tool_calls=[call(0, "a1", "look", "")]),
        chunk(tool_calls=[call(0, None, None, '{"a"')]),
        chunk(tool_calls=[call(0, None, None, ": 1}"), call(1, "b1", "ask", {"b": 2})]),
        chunk("tool_calls"),
    )
    assert got.calls == [("a1", "look", '{"a": 1}'), ("b1", "ask", '{"b": 2}')]


def test_unknown_fields_of_a_call_go_back_with_it() -> None:
    signature = {"google": {"thought_signature": "U0lH"}}
    got = answer(chunk(tool_calls=[call(0, "a1", "look", "{}") | {"extra_content": signature}]), chunk("tool_calls"))
    assert got.extras == [{"extra_content": signature}]


def test_the_old_function_call_is_one_part() -> None:
    pieces = [{"name": "look", "arguments": ""}, {"arguments": '{"a"'}, {"arguments": ": 1}"}]
    got = answer(*(chunk(function_call=piece) for piece in pieces), chunk("function_call"))
    assert got.parts == [("function_call", {"name": "look", "arguments": '{"a": 1}'})]


@pytest.mark.parametrize(
    ("field", "kind"),
    [("annotations", "citation"), ("images", "image"), ("audio", "audio"), ("executed_tools", "server_tool")],
)
def test_what_is_not_text_is_a_part(field: str, kind: str) -> None:
    delta: dict[str, Any] = {field: [1]}
    assert answer(chunk(**delta), chunk("stop")).parts == [(kind, [1])]


def test_citations_that_are_repeated_with_each_event_are_one_part() -> None:
    said = [chunk(content="H"), chunk(content="i"), chunk("stop")]
    assert answer(*(each | {"citations": ["a"]} for each in said)).parts == [("citation", ["a"])]


def test_choices_beyond_the_first_are_left_out() -> None:
    assert answer(chunk(content="Hi"), {"choices": [{"index": 1, "delta": {"content": "Ho"}}]}).text == "Hi"


@pytest.mark.parametrize(
    "said",
    [
        [chunk("stop", usage=USAGE)],
        [chunk(usage=USAGE), chunk("stop")],
        [chunk("stop"), {"choices": [], "usage": USAGE}],
        [chunk("stop") | {"x_groq": {"usage": USAGE}}],
    ],
    ids=["with the end", "before", "after", "in Groq's field"],
)
def test_usage_is_read_wherever_it_stands(said: list[dict[str, Any]]) -> None:
    usage = answer(chunk(content="Hi"), *said).wire.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (9, 4, 13)
    assert (usage.cached_prompt_tokens, usage.reasoning_tokens) == (None, None)


def test_what_was_cached_and_reasoned_is_read() -> None:
    details = {"prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 2}}
    usage = answer(chunk("stop", usage=USAGE | details)).wire.usage
    assert usage is not None
    assert (usage.cached_prompt_tokens, usage.reasoning_tokens) == (0, 2)
    usage = answer(chunk("stop", usage=USAGE | {"prompt_cache_hit_tokens": 5})).wire.usage
    assert usage is not None
    assert usage.cached_prompt_tokens == 5


@pytest.mark.parametrize("usage", [None, {}, 42, "none", [1]])
def test_usage_that_is_nonsense_does_not_lose_the_answer(usage: Any) -> None:
    got = answer(chunk(content="Hi"), chunk("stop", usage=usage))
    assert got.text == "Hi"
    assert got.wire.usage is None or not got.wire.usage.is_reported


@pytest.mark.parametrize(
    "body",
    [
        event({"error": {"code": 429, "message": "no"}}),
        event({"choices": [{"index": 0, "delta": {}, "error": {"code": 429, "message": "no"}}]}),
        b'event: error\ndata: {"error": {"code": 429, "message": "no"}}\n\n',
        b'error: {"code": 429, "message": "no"}\n\n',
    ],
    ids=["event", "choice", "event: error", "error:"],
)
def test_each_form_of_an_error_is_one(body: bytes) -> None:
    with pytest.raises(ErrorEvent) as raised:
        read(OpenAIChatWire(), event(chunk(content="Hi")) + body)
    assert raised.value.body == {"code": 429, "message": "no"}


TEXTS = st.text(st.sampled_from('ab "\\\n\x7f{}é€🙂\u2028'), max_size=4) | st.text(max_size=4)
SECOND_ANSWER = {"id": "c1", "model": "gpt", "choices": [{"index": 1, "delta": {"content": "ab"}}]}
NAMED_LIKE_ITS_TEXT = {"id": "ab", "model": "ab", "choices": [{"index": 0, "delta": {"content": "ab"}}]}
OTHER_EVENTS = st.sampled_from(
    [
        chunk(role="assistant", content="ab"),
        chunk(content="ab", reasoning_content="thought"),
        chunk(refusal="no"),
        chunk("stop", content="ab"),
        chunk(content="ab", usage={"prompt_tokens": 1}),
        SECOND_ANSWER,
        NAMED_LIKE_ITS_TEXT,
        NAMED_LIKE_ITS_TEXT | {"id": "xy"},
        chunk(content="ab") | {"citations": ["ab"]},
    ]
)


@example([SECOND_ANSWER, SECOND_ANSWER], True)
@example([NAMED_LIKE_ITS_TEXT, NAMED_LIKE_ITS_TEXT | {"id": "xy"}], True)
@given(st.lists(TEXTS.map(lambda text: chunk(content=text)) | OTHER_EVENTS), st.booleans())
def test_events_that_repeat_each_other_are_read_like_single_ones(said: list[dict[str, Any]], is_ascii: bool) -> None:
    bodies = [b"data: " + json.dumps(each, ensure_ascii=is_ascii).encode() + b"\n\n" for each in said]
    apart = [delta for body in bodies for delta in read(OpenAIChatWire(), body).deltas]
    together = read(OpenAIChatWire(), b"".join(bodies))
    assert without_repeated_parts(together.deltas) == without_repeated_parts(apart)


def without_repeated_parts(deltas: list[Any]) -> list[Any]:
    """A wire shows the same citations once."""
    return [delta for delta in deltas if isinstance(delta, str | ReasoningDelta | RefusalDelta)]


class CountingWire(OpenAIChatWire):
    """Counts the events that are parsed."""

    parsed = 0

    def read(self, event: dict[str, Any], batch: list[Any]) -> None:
        self.parsed += 1
        super().read(event, batch)


@pytest.mark.parametrize("escaped", ["\n", 'a "quote"', "\t"])
def test_escaped_texts_do_not_end_the_fast_path(escaped: str) -> None:
    texts = [*[escaped] * 10, *[*["word"] * 9, escaped] * 10]
    wire = CountingWire()
    read(wire, events(*(chunk(content=each) for each in texts)))
    assert wire.parsed == texts.count(escaped) + 1  # and the one from which the others are known


@pytest.mark.parametrize("broken", [b'a"b', b"a\x01b", b"\xff", b'a"},"x":{"y":"b', b"a\\"])
def test_an_event_that_looks_like_the_last_one_and_is_not_json_is_malformed(broken: bytes) -> None:
    good = b'data: {"choices":[{"index":0,"delta":{"content":"hello"}}]}\n\n'
    bad = good.replace(b"hello", broken)
    wire = OpenAIChatWire()
    if broken == b'a"},"x":{"y":"b':  # JSON, of another shape
        assert read(wire, good + good + bad).deltas == ["hello", "hello", "a"]
    else:
        with pytest.raises(MalformedEvent):
            read(wire, good + good + bad)


def test_done_without_a_finish_reason_keeps_what_has_to_go_back() -> None:
    thought = chunk(reasoning_content="I look.")
    asked = chunk(tool_calls=[call(0, "a1", "look", "{}")])
    assert answer(thought, asked).wire.message == {"reasoning_content": "I look."}


def test_done_without_a_finish_reason_shows_what_waits_for_the_end() -> None:
    got = answer(chunk(content="Hi \ud83d"), chunk(function_call={"name": "look", "arguments": "{}"}))
    assert got.text == "Hi \ufffd"
    assert got.parts == [("function_call", {"name": "look", "arguments": "{}"})]


def test_usage_within_the_choice_is_read() -> None:
    last = chunk("stop")
    last["choices"][0]["usage"] = USAGE
    usage = answer(chunk(content="Hi"), last).wire.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (9, 4)


def test_a_later_report_without_numbers_does_not_take_the_usage_back() -> None:
    empty = {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}
    usage = answer(chunk("stop", usage=USAGE), {"choices": [], "usage": empty}).wire.usage
    assert usage is not None
    assert usage.total_tokens == 13


def test_a_part_of_text_may_be_null() -> None:
    parts = [{"type": "text", "text": None}, {"type": "text", "text": "Hi"}]
    assert answer(chunk(content=parts), chunk("stop")).text == "Hi"


def test_a_part_of_text_may_have_no_type() -> None:
    got = answer(chunk(content=[{"text": "Hel"}, {"text": "lo"}]), chunk(content=[{"type": None, "text": "!"}]))
    assert (got.deltas, got.parts) == (["Hel", "lo", "!"], [])


def test_a_part_that_is_unknown_is_passed_on() -> None:
    strange: dict[str, Any] = {"json": {}}
    assert answer(chunk(content=[strange, strange])).parts == [("unknown", strange)] * 2


def test_half_a_character_alone_is_shown_once_at_the_end() -> None:
    completion = {"choices": [{"text": "\ud83d"}]}
    assert answer(completion, {"choices": [{"finish_reason": "stop"}]}).deltas == ["\ufffd"]
    assert answer(chunk(refusal="\ud83d"), chunk("stop")).deltas == [RefusalDelta("\ufffd")]
