"""Ollama's own API: one JSON object a line."""

from typing import Any

import pytest

from rxflow.llm._wires.ollama import JsonLines, OllamaWire
from rxflow.llm._wires.sse import ErrorEvent, OversizedEvent
from tests.llm.wires.reading import Answer, lines, read

END = {"model": "m", "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"}


def chat(**message: Any) -> dict[str, Any]:
    return {"model": "m", "message": {"role": "assistant", "content": ""} | message, "done": False}


def answer(*said: dict[str, Any]) -> Answer:
    return read(OllamaWire(), lines(*said))


def test_text_and_thinking_of_a_chat() -> None:
    got = answer(chat(thinking="Hm."), chat(content="Hel"), chat(content="lo"), END)
    assert (got.reasoning, got.text) == ("Hm.", "Hello")
    assert got.wire.message == {"reasoning_content": "Hm."}
    assert (got.wire.finish_reason, got.wire.is_complete, got.wire.response_model) == ("stop", True, "m")


def test_text_and_thinking_of_a_completion() -> None:
    end = {"model": "m", "response": "", "done": True, "done_reason": "length"}
    got = answer({"response": "", "thinking": "Hm."}, {"response": "Hel"}, {"response": "lo"}, end)
    assert (got.reasoning, got.text, got.wire.finish_reason) == ("Hm.", "Hello", "length")


@pytest.mark.parametrize(
    "pieces",
    [
        ["<think>", "Hm", ".", "</think>", "Hel", "lo <think>"],
        ["<think>Hm.</think>Hello <think>"],
        ["\n<think>H", "m.</think>Hello ", "<think>"],
    ],
)
def test_thinking_between_tags_is_reasoning_at_the_beginning_only(pieces: list[str]) -> None:
    for said in ([chat(content=piece) for piece in pieces], [{"response": piece} for piece in pieces]):
        got = answer(*said, END)
        assert (got.reasoning, got.text) == ("Hm.", "Hello <think>")


def test_tool_calls_come_whole() -> None:
    one = {"name": "a", "arguments": {"city": "Ålesund"}}
    two: dict[str, Any] = {"name": "b", "arguments": {}}
    got = answer(chat(tool_calls=[{"function": one}, {"id": "x", "function": two}]), END)
    assert got.calls == [(None, "a", '{"city": "Ålesund"}'), ("x", "b", "{}")]
    assert got.wire.finish_reason == "tool_calls"


def test_images_are_parts() -> None:
    assert answer(chat(images=["aGk="]), END).parts == [("image", "aGk=")]


def test_usage() -> None:
    usage = answer(chat(content="Hi"), END | {"prompt_eval_count": 9, "eval_count": 4}).wire.usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (9, 4, 13)
    assert answer(chat(content="Hi"), END).wire.usage is None


def test_the_last_line_counts_without_its_line_feed() -> None:
    assert read(OllamaWire(), lines(chat(content="Hi"), END).rstrip()).wire.is_complete


def test_empty_lines_and_carriage_returns_are_left_out() -> None:
    body = b"\n\r\n" + lines(chat(content="Hi"), END).replace(b"\n", b"\r\n\r\n")
    assert read(OllamaWire(), body).text == "Hi"


def test_an_error_is_one() -> None:
    with pytest.raises(ErrorEvent, match="model runner has stopped"):
        answer(chat(content="Hi"), {"error": "model runner has stopped"})


def test_a_line_that_never_ends_is_refused() -> None:
    cutter = JsonLines()
    for _ in range(4):
        assert list(cutter.feed(b"x" * (1 << 20))) == []
    with pytest.raises(OversizedEvent, match="more than 4,194,304 bytes"):
        list(cutter.feed(b"x"))


@pytest.mark.parametrize("pieces", [[b"\xef\xbb\xbf{}\n"], [b"\xef", b"\xbb\xbf{", b"}\r\n"]])
def test_a_byte_order_mark_at_the_beginning_does_not_count(pieces: list[bytes]) -> None:
    events = JsonLines()
    assert [line.strip() for piece in pieces for line in events.feed(piece)] == [b"{}"]
