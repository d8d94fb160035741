"""Bedrock's event streams: Converse, and a model's own events in chunks."""

from base64 import b64encode
from typing import Any

import pytest

from rxflow.llm._wires.anthropic_messages import AnthropicMessagesWire
from rxflow.llm._wires.bedrock import AwsEvents, BedrockConverseWire
from rxflow.llm._wires.sse import ErrorEvent, MalformedEvent
from tests.llm.wires import test_anthropic_messages as anthropic
from tests.llm.wires.reading import Answer, aws_events, encode, read


def delta(index: int, **content: Any) -> dict[str, Any]:
    return {"contentBlockDelta": {"contentBlockIndex": index, "delta": content}}


def end_of(index: int) -> dict[str, Any]:
    return {"contentBlockStop": {"contentBlockIndex": index}}


def begin(index: int, **start: Any) -> dict[str, Any]:
    return {"contentBlockStart": {"contentBlockIndex": index, "start": start}}


def call(index: int, name: str, *pieces: str) -> list[dict[str, Any]]:
    """The events of one whole tool call."""
    deltas = [delta(index, toolUse={"input": piece}) for piece in pieces]
    return [begin(index, toolUse={"toolUseId": f"t{index}", "name": name}), *deltas, end_of(index)]


def stop(reason: str = "end_turn") -> dict[str, Any]:
    return {"messageStop": {"stopReason": reason}}


def answer(*said: dict[str, Any]) -> Answer:
    return read(BedrockConverseWire(), aws_events({"messageStart": {"role": "assistant"}}, *said))


def test_text_and_usage() -> None:
    usage = {"inputTokens": 5, "outputTokens": 4, "cacheReadInputTokens": 2, "cacheWriteInputTokens": 1}
    got = answer(delta(0, text="Hel"), delta(0, text="lo"), end_of(0), stop(), {"metadata": {"usage": usage}})
    assert got.deltas == ["Hel", "lo"]
    assert (got.wire.finish_reason, got.wire.is_complete, got.wire.is_done) == ("stop", True, True)
    assert got.wire.usage is not None
    assert (got.wire.usage.prompt_tokens, got.wire.usage.completion_tokens, got.wire.usage.total_tokens) == (8, 4, 12)
    assert (got.wire.usage.cached_prompt_tokens, got.wire.usage.cache_creation_tokens) == (2, 1)


def test_usage_that_nobody_reports_is_none() -> None:
    assert answer(delta(0, text="Hi"), stop(), {"metadata": {"metrics": {}}}).wire.usage is None


def test_tool_calls_have_indexes_of_their_own() -> None:
    got = answer(delta(0, text="Wait."), *call(1, "a", '{"x"', ": 1}"), *call(2, "b"), stop("tool_use"))
    assert got.calls == [("t1", "a", '{"x": 1}'), ("t2", "b", "{}")]
    assert got.wire.finish_reason == "tool_calls"


def test_a_call_that_does_not_end_has_no_arguments() -> None:
    assert answer(*call(0, "a")[:-1], stop("tool_use")).calls == [("t0", "a", "")]


def test_reasoning_goes_back_with_its_signature_in_order() -> None:
    got = answer(
        delta(0, reasoningContent={"text": "I "}),
        delta(0, reasoningContent={"text": "look."}),
        delta(0, reasoningContent={"signature": "U0lH"}),
        end_of(0),
        delta(1, reasoningContent={"redactedContent": "c2VjcmV0"}),
        end_of(1),
        stop(),
    )
    assert got.reasoning == "I look."
    assert got.wire.message["thinking_blocks"] == [
        {"type": "thinking", "thinking": "I look.", "signature": "U0lH"},
        {"type": "redacted_thinking", "data": "c2VjcmV0"},
    ]


def test_what_a_tool_of_the_server_did_is_a_part() -> None:
    tool = {"toolUseId": "t0", "name": "nova_grounding", "type": "server_tool_use"}
    result = {"toolUseId": "t0", "status": "success"}
    got = answer(
        begin(0, toolUse=tool),
        delta(0, toolUse={"input": "{}"}),
        end_of(0),
        begin(1, toolResult=result),
        delta(1, toolResult=[{"text": "Found."}]),
        end_of(1),
        delta(2, citation={"url": "a"}),
        stop(),
    )
    assert got.parts == [
        ("server_tool", {"toolUse": tool, "deltas": [{"toolUse": {"input": "{}"}}]}),
        ("server_tool", {"toolResult": result, "deltas": [{"toolResult": [{"text": "Found."}]}]}),
        ("citation", {"url": "a"}),
    ]
    assert got.calls == []


def test_an_image_is_a_part_with_its_format() -> None:
    source = {"source": {"bytes": "aGk="}}
    got = answer(begin(0, image={"format": "png"}), delta(0, image=source), end_of(0), delta(1, image=source), stop())
    assert got.parts == [("image", {"format": "png"} | source), ("image", source)]


@pytest.mark.parametrize(("reason", "finish"), [("max_tokens", "length"), ("guardrail_intervened", "content_filter")])
def test_finish_reasons_are_openais_words_where_there_is_one(reason: str, finish: str) -> None:
    assert answer(delta(0, text="Hi"), stop(reason)).wire.finish_reason == finish


def test_an_exception_says_what_it_is() -> None:
    error = {"type": "throttlingException", "message": "try later"}
    with pytest.raises(ErrorEvent) as raised:
        answer(delta(0, text="Hi"), {"error": error})
    assert raised.value.body == {"code": "throttlingException", "message": "try later"}


def test_bytes_that_were_changed_are_malformed() -> None:
    body = aws_events(delta(0, text="Hi"), stop())
    with pytest.raises(MalformedEvent, match="not an AWS event stream"):
        read(BedrockConverseWire(), body.replace(b"Hi", b"Ho"))


def test_a_body_that_ends_within_an_event_is_malformed() -> None:
    with pytest.raises(MalformedEvent, match="ends within an event"):
        read(BedrockConverseWire(), aws_events(delta(0, text="Hi"), stop())[:-1])


def test_the_chunks_of_a_model_hold_its_own_events() -> None:
    said = [anthropic.START, *anthropic.text(0, "Hel", "lo"), anthropic.end(), anthropic.STOP]
    body = aws_events(*({"chunk": {"bytes": b64encode(encode(each)).decode()}} for each in said))
    got = read(AnthropicMessagesWire(AwsEvents()), body)
    assert (got.text, got.wire.is_complete) == ("Hello", True)


def test_a_chunk_without_bytes_is_malformed() -> None:
    with pytest.raises(MalformedEvent, match="a chunk of the stream has an unknown shape"):
        read(AnthropicMessagesWire(AwsEvents()), aws_events({"chunk": {"p": "x"}}))
