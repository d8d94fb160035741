"""Cohere's chat stream, version 2."""

from typing import Any

import pytest

from rxflow.llm._wires.cohere import CohereWire
from rxflow.llm._wires.sse import ErrorEvent
from tests.llm.wires.reading import Answer, events, read

USAGE = {"billed_units": {"input_tokens": 1}, "tokens": {"input_tokens": 9, "output_tokens": 4}, "cached_tokens": 2}


def said(kind: str, index: int = 0, **message: Any) -> dict[str, Any]:
    return {"type": kind, "index": index, "delta": {"message": message}}


def text(piece: str) -> dict[str, Any]:
    return said("content-delta", content={"text": piece})


def call(index: int, name: str, *pieces: str) -> list[dict[str, Any]]:
    """The events of one whole tool call."""
    function = {"name": name, "arguments": ""}
    return [
        said("tool-call-start", index, tool_calls={"id": f"c{index}", "type": "function", "function": function}),
        *(said("tool-call-delta", index, tool_calls={"function": {"arguments": piece}}) for piece in pieces),
        {"type": "tool-call-end", "index": index},
    ]


def end(reason: str = "COMPLETE", **delta: Any) -> dict[str, Any]:
    return {"type": "message-end", "delta": {"finish_reason": reason} | delta}


def answer(*events_said: dict[str, Any]) -> Answer:
    return read(CohereWire(), events({"type": "message-start", "id": "m1", "delta": {}}, *events_said))


def test_text_and_thinking() -> None:
    got = answer(said("content-delta", content={"thinking": "Hm."}), text("Hel"), text("lo"), end())
    assert (got.reasoning, got.text) == ("Hm.", "Hello")
    assert (got.wire.finish_reason, got.wire.is_complete, got.wire.response_id) == ("stop", True, "m1")


def test_tool_calls_and_the_plan_before_them() -> None:
    plan = [said("tool-plan-delta", tool_plan=piece) for piece in ("I ", "look.")]
    got = answer(*plan, *call(0, "a", '{"x"', ": 1}"), *call(1, "b"), end("TOOL_CALL"))
    assert got.calls == [("c0", "a", '{"x": 1}'), ("c1", "b", "{}")]
    assert got.parts == [("tool_plan", "I look.")]
    assert got.wire.message == {"tool_plan": "I look."}
    assert (got.wire.finish_reason, got.text, got.reasoning) == ("tool_calls", "", "")


def test_a_call_that_does_not_end_has_no_arguments() -> None:
    assert answer(*call(0, "a")[:-1], end("TOOL_CALL")).calls == [("c0", "a", "")]


def test_citations_are_parts() -> None:
    assert answer(text("Rx"), said("citation-start", citations={"text": "Rx"}), end()).parts == [
        ("citation", {"text": "Rx"})
    ]


def test_usage_is_what_was_counted_and_not_what_is_billed() -> None:
    usage = answer(text("Hi"), end(usage=USAGE)).wire.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (9, 4, 13)
    assert usage.cached_prompt_tokens == 2
    assert answer(text("Hi"), end()).wire.usage is None


@pytest.mark.parametrize(("reason", "finish"), [("MAX_TOKENS", "length"), ("STOP_SEQUENCE", "stop"), ("NEW", "NEW")])
def test_finish_reasons_are_openais_words_where_there_is_one(reason: str, finish: str) -> None:
    assert answer(text("Hi"), end(reason)).wire.finish_reason == finish


@pytest.mark.parametrize("reason", ["ERROR", "TIMEOUT"])
def test_an_answer_that_failed_is_an_error(reason: str) -> None:
    with pytest.raises(ErrorEvent, match="no GPU"):
        answer(text("Hi"), end(reason, error="no GPU"))


def test_a_call_may_have_no_id() -> None:
    begun, *rest = call(0, "look", "{}")
    del begun["delta"]["message"]["tool_calls"]["id"]
    assert answer(begun, *rest, end("TOOL_CALL")).calls == [(None, "look", "{}")]
