"""The wire of Anthropic's messages API, as used by Anthropic, Bedrock, Vertex and compatible servers.

An answer is a list of content blocks, one after the other. Each block starts, gets deltas and stops. The format is
described at https://docs.claude.com/en/docs/build-with-claude/streaming
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from rxflow.llm._wires.sse import EventSplitter, Wire, add_up, check, count, get_object
from rxflow.llm.source import Delta, PartDelta, ReasoningDelta, ToolCallDelta, UsageMetrics

_FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


@dataclass(slots=True)
class _Block:
    content: dict[str, Any]
    call_index: int | None = None
    pieces: list[str] = field(default_factory=list[str])

    @property
    def kind(self) -> str:
        return str(self.content.get("type"))


class AnthropicMessagesWire(Wire):
    """Parses the events of a message.

    ``message`` may get two fields. litellm sends fields with these names back to the provider:

    - ``thinking_blocks``: all thinking blocks with their signatures, and all redacted thinking blocks, in order;
    - ``provider_specific_fields["compaction_blocks"]``: the blocks with the type "compaction".
    """

    def __init__(self, events: EventSplitter | None = None) -> None:
        super().__init__(events)
        self._blocks: dict[int, _Block] = {}
        self._call_count = 0
        self._reported: dict[str, Any] = {}

    def read(self, event: dict[str, Any], batch: list[Delta]) -> None:
        kind = event.get("type")
        if kind == "content_block_delta":
            delta: dict[str, Any] = event["delta"]
            if delta["type"] == "text_delta":
                self.add_text(delta["text"], batch)
            else:
                self._read_delta(self._blocks[event["index"]], delta, batch)
        elif kind == "content_block_start":
            self._start(check(int, "the index of a block", event["index"]), event["content_block"], batch)
        elif kind == "content_block_stop":
            block = self._blocks.pop(event["index"], None)
            if block is not None:
                self._stop(block, batch)
        elif kind == "message_start":
            message: dict[str, Any] = event["message"]
            self.response_id = str(message.get("id") or "")
            self.response_model = str(message.get("model") or "")
            self._read_usage(get_object(message, "usage"))
        elif kind == "message_delta":
            reason = get_object(event, "delta").get("stop_reason")
            if reason:
                self.finish_reason = _FINISH_REASONS.get(check(str, "stop_reason", reason), reason)
            self._read_usage(get_object(event, "usage"))
        elif kind == "message_stop":
            for block in self._blocks.values():  # some compatible servers send no content_block_stop
                content = block.content
                has_some = block.pieces or any(content.get(name) for name in ("input", "data", "signature"))
                if has_some or content.get("content") is not None:
                    self._stop(block, batch)  # a block that has none of these is taken as incomplete
            self.replace_halves(batch)
            self.is_complete = self.is_done = True

    def _add_reasoning(self, block: _Block, text: Any, batch: list[Delta]) -> None:
        text = self.join("reasoning", check(str, "thinking", text))
        if text:
            block.pieces.append(text)
            batch.append(ReasoningDelta(text))

    def _start(self, index: int, content: dict[str, Any], batch: list[Delta]) -> None:
        block = self._blocks[index] = _Block(content)
        match block.kind:
            case "text":
                self.add_text(content.get("text") or "", batch)
                batch.extend(PartDelta("citation", citation) for citation in content.get("citations") or ())
            case "thinking":
                self._add_reasoning(block, content.get("thinking") or "", batch)
            case "tool_use":
                block.call_index = self._call_count
                self._call_count += 1
                call_id = check(str, "the id of a tool call", content.get("id") or "") or None
                name = check(str, "the name of a tool call", content["name"])
                batch.append(ToolCallDelta(block.call_index, call_id, name))
            case _:
                pass  # _stop() handles all other kinds of blocks

    def _read_delta(self, block: _Block, delta: dict[str, Any], batch: list[Delta]) -> None:
        match delta["type"]:
            case "thinking_delta":
                self._add_reasoning(block, delta["thinking"], batch)
            case "signature_delta":
                block.content["signature"] = check(str, "signature", delta["signature"])
            case "input_json_delta":
                piece = check(str, "partial_json", delta["partial_json"])
                block.pieces.append(piece)
                if block.call_index is not None:
                    piece = self.join(block.call_index, piece)
                    if piece:
                        batch.append(ToolCallDelta(block.call_index, arguments=piece))
            case "citations_delta":
                batch.append(PartDelta("citation", delta["citation"]))
            case "compaction_delta":
                block.content.update((key, value) for key, value in delta.items() if key != "type")
            case _:
                pass

    def _stop(self, block: _Block, batch: list[Delta]) -> None:
        joined = "".join(block.pieces)
        match block.kind:
            case "text":
                pass
            case "thinking":
                signature = str(block.content.get("signature") or "")
                self._keep_thinking({"type": "thinking", "thinking": joined, "signature": signature})
            case "redacted_thinking":
                self._keep_thinking(block.content)
            case "tool_use":
                if not joined:  # content_block_start had the whole input, or {} as a placeholder
                    arguments = json.dumps(block.content.get("input") or {}, ensure_ascii=False)
                    batch.append(ToolCallDelta(block.call_index, arguments=arguments))
            case kind:
                if kind == "compaction":
                    fields = self.message.setdefault("provider_specific_fields", {})
                    fields.setdefault("compaction_blocks", []).append(block.content)
                if joined:
                    block.content["input"] = _parse_input(joined)
                batch.append(PartDelta("server_tool", block.content))

    def _keep_thinking(self, block: dict[str, Any]) -> None:
        self.message.setdefault("thinking_blocks", []).append(block)

    def _read_usage(self, reported: dict[str, Any]) -> None:
        """Read the token counts of a message_start or message_delta event. An event may have only some of the counts.

        A count is the total so far, so a later count replaces an earlier one.
        """
        self._reported.update((key, value) for key, value in reported.items() if value is not None)
        self.usage = read_usage(self._reported)


def _parse_input(text: str) -> Any:
    """Parse the input of a server tool. If it is not JSON, return the text itself, because rxflow only passes it on."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def read_usage(reported: dict[str, Any]) -> UsageMetrics | None:
    """Return Anthropic's usage; None if it has neither input nor output tokens.

    Anthropic's input tokens do not include the tokens that were read from a cache or written to it. The result's prompt
    tokens include them.
    """
    inputs = count(reported, "input_tokens")
    cached, created = count(reported, "cache_read_input_tokens"), count(reported, "cache_creation_input_tokens")
    completion = count(reported, "output_tokens")
    prompt = None if inputs is None else inputs + (cached or 0) + (created or 0)
    return add_up(
        prompt,
        completion,
        cached_prompt_tokens=cached,
        cache_creation_tokens=created,
        reasoning_tokens=count(reported.get("output_tokens_details"), "thinking_tokens"),
    )
