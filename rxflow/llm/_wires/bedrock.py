"""The wires of Amazon Bedrock, which sends binary event streams of AWS. Two operations return a stream:

- ``ConverseStream`` has one format for all models. :class:`BedrockConverseWire` parses this format. See
  https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
- ``InvokeModelWithResponseStream`` has a format for each family of models. ``AnthropicMessagesWire(AwsEvents())``
  parses Claude's format. Nova's format is that of ``ConverseStream``.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import botocore.eventstream as aws  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]
from pydantic_core import from_json

from rxflow.llm._wires.sse import ErrorEvent, MalformedEvent, Wire, add_up, check, count, get_object
from rxflow.llm.source import Delta, PartDelta, ReasoningDelta, ToolCallDelta, UsageMetrics

_FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}


class AwsEvents:
    """Splits network reads of any size into the JSON of whole events.

    An event of ``ConverseStream`` gets the form ``{"contentBlockDelta": {…}}``. An event in a model's own format
    keeps that format.
    """

    def __init__(self) -> None:
        self._buffer: Any = aws.EventStreamBuffer()
        self._pending_bytes = 0

    def feed(self, block: bytes) -> Iterator[bytes]:
        """Yield the events that ``block`` completes.

        Raises:
            ErrorEvent: AWS sent an exception. ``body["code"]`` is its type, such as "throttlingException".
            MalformedEvent: the bytes are not an event stream of AWS, or an event has an unknown shape.
        """
        self._buffer.add_data(block)
        self._pending_bytes += len(block)
        try:
            for message in self._buffer:
                self._pending_bytes -= message.prelude.total_length
                yield _read_message(message.headers, message.payload)
        except aws.ParserError as error:
            raise MalformedEvent(f"the stream is not an AWS event stream ({error})") from error

    def flush(self) -> Iterator[bytes]:
        """Return an empty iterator. Each event contains its length, so the end of the body completes no event.

        Raises :class:`MalformedEvent` if the body ends within an event.
        """
        if self._pending_bytes:
            raise MalformedEvent("the stream ends within an event")
        return iter(())


def _read_message(headers: dict[str, Any], payload: bytes) -> bytes:
    kind = headers.get(":exception-type") or headers.get(":error-code")
    if kind:
        said = payload.decode(errors="replace") or str(headers.get(":error-message"))
        try:
            message = get_object({"said": from_json(payload)}, "said").get("message") or said
        except ValueError:
            message = said
        raise ErrorEvent({"code": kind, "message": message})
    kind = headers.get(":event-type")
    if kind != "chunk":
        return b'{"%s":%s}' % (str(kind).encode(), payload)
    try:
        return b64decode(from_json(payload)["bytes"])
    except (ValueError, TypeError, KeyError) as error:
        raise MalformedEvent(f"a chunk of the stream has an unknown shape ({error})", repr(payload)) from error


@dataclass(slots=True)
class _Block:
    """What is kept of a content block until its end."""

    call_index: int | None = None
    has_arguments: bool = False
    server_tool: dict[str, Any] | None = None
    image: dict[str, Any] = field(default_factory=dict[str, Any])
    reasoning: list[str] = field(default_factory=list[str])
    signature: str = ""
    redacted: str = ""


class BedrockConverseWire(Wire):
    """Parses the events of Converse.

    If the model shows its reasoning, ``message`` gets the field ``thinking_blocks``. litellm sends this field
    back to the provider.
    """

    def __init__(self) -> None:
        super().__init__(AwsEvents())
        self._blocks: dict[int, _Block] = {}
        self._call_count = 0

    def read(self, event: dict[str, Any], batch: list[Delta]) -> None:
        for kind, said in event.items():
            if kind == "contentBlockDelta":
                delta: dict[str, Any] = said["delta"]
                if "text" in delta:
                    self.add_text(delta["text"], batch)
                else:
                    self._read_delta(self._block(said), delta, batch)
            elif kind == "contentBlockStart":
                self._begin(self._block(said), get_object(said, "start"), batch)
            elif kind == "contentBlockStop":
                block = self._blocks.pop(said["contentBlockIndex"], None)
                if block is not None:
                    self._stop(block, batch)
            elif kind == "messageStop":
                self.replace_halves(batch)
                reason = check(str, "stopReason", said["stopReason"])
                self.finish_reason = _FINISH_REASONS.get(reason, reason)
                self.is_complete = True
            elif kind == "metadata":
                self.usage = read_usage(said.get("usage"))
                self.is_done = self.is_complete

    def _block(self, said: dict[str, Any]) -> _Block:
        """Return the block that an event belongs to. Create the block at its first event.

        Blocks of text and of reasoning have no start event, so the first event may be a delta.
        """
        index = check(int, "contentBlockIndex", said["contentBlockIndex"])
        block = self._blocks.get(index)
        if block is None:
            block = self._blocks[index] = _Block()
        return block

    def _begin(self, block: _Block, start: dict[str, Any], batch: list[Delta]) -> None:
        tool: dict[str, Any] = start.get("toolUse") or {}
        if tool and tool.get("type") != "server_tool_use":
            block.call_index = self._call_count
            self._call_count += 1
            call_id = check(str, "the id of a tool call", tool["toolUseId"])
            batch.append(ToolCallDelta(block.call_index, call_id, check(str, "the name of a tool call", tool["name"])))
        elif "image" in start:
            block.image = get_object(start, "image")
        elif start:
            block.server_tool = dict(start)

    def _read_delta(self, block: _Block, delta: dict[str, Any], batch: list[Delta]) -> None:
        if block.server_tool is not None:
            block.server_tool.setdefault("deltas", []).append(delta)
        elif "toolUse" in delta:
            if block.call_index is None:
                raise TypeError("the input of a tool comes before its start")
            arguments = self.join(block.call_index, check(str, "input", delta["toolUse"]["input"]))
            if arguments:
                block.has_arguments = True
                batch.append(ToolCallDelta(block.call_index, arguments=arguments))
        elif "reasoningContent" in delta:
            reasoning: dict[str, Any] = delta["reasoningContent"]
            block.signature = str(reasoning.get("signature") or block.signature)
            block.redacted += str(reasoning.get("redactedContent") or "")
            text = self.join("reasoning", check(str, "reasoning", reasoning.get("text") or ""))
            if text:
                block.reasoning.append(text)
                batch.append(ReasoningDelta(text))
        elif "citation" in delta:
            batch.append(PartDelta("citation", delta["citation"]))
        elif "image" in delta:
            batch.append(PartDelta("image", block.image | get_object(delta, "image")))

    def _stop(self, block: _Block, batch: list[Delta]) -> None:
        if block.call_index is not None and not block.has_arguments:
            batch.append(ToolCallDelta(block.call_index, arguments="{}"))
        if block.server_tool is not None:
            batch.append(PartDelta("server_tool", block.server_tool))
        if block.reasoning or block.signature:
            thinking = {"type": "thinking", "thinking": "".join(block.reasoning), "signature": block.signature}
            self.message.setdefault("thinking_blocks", []).append(thinking)
        if block.redacted:
            redacted = {"type": "redacted_thinking", "data": block.redacted}
            self.message.setdefault("thinking_blocks", []).append(redacted)


def read_usage(reported: object) -> UsageMetrics | None:
    """Return Converse's usage; None if the counts of input, output and total tokens are all missing.

    Converse's input tokens do not include the tokens that were read from a cache or written to it. The result's prompt
    tokens include them.
    """
    inputs, completion = count(reported, "inputTokens"), count(reported, "outputTokens")
    cached, created = count(reported, "cacheReadInputTokens"), count(reported, "cacheWriteInputTokens")
    prompt = None if inputs is None else inputs + (cached or 0) + (created or 0)
    return add_up(
        prompt,
        completion,
        count(reported, "totalTokens"),
        cached_prompt_tokens=cached,
        cache_creation_tokens=created,
    )
