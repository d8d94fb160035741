"""The wire of Ollama's own API, ``/api/chat`` and ``/api/generate``: one JSON object per line.

The format is described at https://docs.ollama.com/api/chat
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from rxflow.llm._wires.sse import BYTE_ORDER_MARK, MAX_EVENT_BYTES, OversizedEvent, Wire, add_up, check, count
from rxflow.llm.source import Delta, PartDelta, ReasoningDelta, ToolCallDelta, UsageMetrics

_THINK, _THINK_END = "<think>", "</think>"  # each is a single token, so it is never split between two events


class JsonLines:
    """Splits network reads of any size into whole lines."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._has_begun = False

    def feed(self, block: bytes) -> Iterator[bytes]:
        """Yield the lines that ``block`` completes, except empty ones. Raises :class:`OversizedEvent`."""
        first, *lines = block.split(b"\n")
        self._rest += first
        if lines and not self._has_begun:
            self._has_begun = True
            self._rest = self._rest.removeprefix(BYTE_ORDER_MARK)
        for line in lines:
            whole, self._rest = bytes(self._rest), bytearray(line)
            if whole.strip():
                yield whole
        if len(self._rest) > MAX_EVENT_BYTES:
            raise OversizedEvent(f"a line of the stream has more than {MAX_EVENT_BYTES:,} bytes")

    def flush(self) -> Iterator[bytes]:
        """Yield the last line if it does not end in a line feed."""
        yield from self.feed(b"\n")


class OllamaWire(Wire):
    """Parses the lines of a chat or a completion.

    If the model reasons, ``message`` has the field ``reasoning_content``: all its reasoning.
    """

    def __init__(self) -> None:
        super().__init__(JsonLines())
        self._call_count = 0
        self._reasoning: list[str] = []
        self._has_begun = False
        self._is_in_tags = False

    def read(self, event: dict[str, Any], batch: list[Delta]) -> None:
        # A completion has no "message". Its fields are at the top level, and its text is in "response".
        message: dict[str, Any] = event.get("message") or event
        text = check(str, "content", message.get("content") or event.get("response") or "")
        if text:
            self._read_text(text, batch)
        if message.get("thinking"):
            self._add_reasoning(check(str, "thinking", message["thinking"]), batch)
        for call in message.get("tool_calls") or ():
            self._read_call(call, batch)
        batch.extend(PartDelta("image", image) for image in message.get("images") or ())
        if not self.response_model:
            self.response_model = str(event.get("model") or "")
        if event.get("done"):
            self._finish(event, batch)

    def _read_text(self, text: str, batch: list[Delta]) -> None:
        """Read text, which may begin with reasoning.

        If the server does not know the reasoning format of a model, it leaves the reasoning in the text, between
        ``<think>`` and ``</think>``.
        """
        if not self._has_begun:
            self._has_begun = not text.isspace()
            if text.lstrip().startswith(_THINK):
                self._is_in_tags = True
                text = text.lstrip().removeprefix(_THINK)
        if self._is_in_tags:
            thinking, end, text = text.partition(_THINK_END)
            self._is_in_tags = not end
            self._add_reasoning(thinking, batch)
        self.add_text(text, batch)

    def _add_reasoning(self, text: str, batch: list[Delta]) -> None:
        text = self.join("reasoning", text)
        if text:
            self._reasoning.append(text)
            batch.append(ReasoningDelta(text))

    def _read_call(self, call: dict[str, Any], batch: list[Delta]) -> None:
        """Read a tool call. It arrives whole, and its arguments are an object."""
        index = self._call_count
        self._call_count += 1
        function: dict[str, Any] = call["function"]
        name = check(str, "the name of a tool call", function["name"])
        arguments = json.dumps(check(dict, "arguments", function.get("arguments") or {}), ensure_ascii=False)
        batch.append(ToolCallDelta(index, call.get("id") or None, name, self.join(index, arguments)))

    def _finish(self, event: dict[str, Any], batch: list[Delta]) -> None:
        self.replace_halves(batch)
        self.finish_reason = "tool_calls" if self._call_count else str(event.get("done_reason") or "stop")
        self.usage = read_usage(event)
        if self._reasoning:
            self.message["reasoning_content"] = "".join(self._reasoning)
        self.is_complete = self.is_done = True


def read_usage(event: dict[str, Any]) -> UsageMetrics | None:
    """Return the usage in the last line; None if it has no counts."""
    prompt, completion = count(event, "prompt_eval_count"), count(event, "eval_count")
    return add_up(prompt, completion)
