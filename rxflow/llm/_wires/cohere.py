"""The wire of Cohere's chat API, version 2.

The format is described at https://docs.cohere.com/v2/docs/streaming
"""

from __future__ import annotations

from typing import Any

from rxflow.llm._wires.sse import ErrorEvent, Wire, add_up, check, count, get_object
from rxflow.llm.source import Delta, PartDelta, ReasoningDelta, ToolCallDelta, UsageMetrics

_FINISH_REASONS = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "TOOL_CALL": "tool_calls",
    "ERROR_TOXIC": "content_filter",
}
_FAILURES = ("ERROR", "TIMEOUT")


class CohereWire(Wire):
    """Parses the events of an answer.

    If the model plans tool calls, ``message`` gets the field ``tool_plan``: the text of the last plan.
    """

    def __init__(self) -> None:
        super().__init__()
        self._tool_plan: list[str] = []
        self._calls_without_arguments: set[int] = set()

    def read(self, event: dict[str, Any], batch: list[Delta]) -> None:
        kind = event.get("type")
        if kind == "content-delta":
            self._read_content(event["delta"]["message"]["content"], batch)
        elif kind == "tool-call-delta":
            call = event["delta"]["message"]["tool_calls"]
            self._add_arguments(check(int, "the index of a tool call", event["index"]), call["function"], batch)
        elif kind == "content-start":
            self._read_content(event["delta"]["message"]["content"], batch)
        elif kind == "tool-call-start":
            self._show_plan(batch)
            self._begin_call(event["index"], event["delta"]["message"]["tool_calls"], batch)
        elif kind == "tool-call-end":
            if event["index"] in self._calls_without_arguments:
                batch.append(ToolCallDelta(event["index"], arguments="{}"))
        elif kind == "tool-plan-delta":
            self._tool_plan.append(check(str, "tool_plan", event["delta"]["message"]["tool_plan"]))
        elif kind == "citation-start":
            batch.append(PartDelta("citation", event["delta"]["message"]["citations"]))
        elif kind == "message-start":
            self.response_id = str(event.get("id") or "")
        elif kind == "message-end":
            self._show_plan(batch)
            self._finish(event["delta"], batch)

    def _read_content(self, content: dict[str, Any], batch: list[Delta]) -> None:
        if content.get("text"):
            self.add_text(content["text"], batch)
        elif content.get("thinking"):
            text = self.join("reasoning", check(str, "thinking", content["thinking"]))
            if text:
                batch.append(ReasoningDelta(text))

    def _begin_call(self, index: Any, call: dict[str, Any], batch: list[Delta]) -> None:
        check(int, "the index of a tool call", index)
        name = check(str, "the name of a tool call", call["function"]["name"])
        batch.append(ToolCallDelta(index, check(str, "the id of a tool call", call.get("id") or "") or None, name))
        self._calls_without_arguments.add(index)
        self._add_arguments(index, call["function"], batch)

    def _add_arguments(self, index: int, function: dict[str, Any], batch: list[Delta]) -> None:
        arguments = self.join(index, check(str, "arguments", function.get("arguments") or ""))
        if arguments:
            self._calls_without_arguments.discard(index)
            batch.append(ToolCallDelta(index, arguments=arguments))

    def _show_plan(self, batch: list[Delta]) -> None:
        if self._tool_plan:
            self.message["tool_plan"] = "".join(self._tool_plan)
            batch.append(PartDelta("tool_plan", self.message["tool_plan"]))
            self._tool_plan = []

    def _finish(self, delta: dict[str, Any], batch: list[Delta]) -> None:
        reason = check(str, "finish_reason", delta["finish_reason"])
        if reason in _FAILURES:
            raise ErrorEvent(delta.get("error") or delta)
        self.replace_halves(batch)
        self.finish_reason = _FINISH_REASONS.get(reason, reason)
        self.usage = read_usage(delta.get("usage"))
        self.is_complete = self.is_done = True


def read_usage(reported: object) -> UsageMetrics | None:
    """Return Cohere's usage; None if it has no counts. Cohere also reports billed tokens, which are ignored."""
    tokens = get_object(reported, "tokens")
    prompt, completion = count(tokens, "input_tokens"), count(tokens, "output_tokens")
    return add_up(prompt, completion, cached_prompt_tokens=count(reported, "cached_tokens"))
