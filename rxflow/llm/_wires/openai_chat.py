"""The wire of OpenAI's chat completions, which most providers and servers use.

Providers differ in details: which field contains the usage, what reasoning is called, and whether content is a text or
a list of parts. All known variants are handled here. The format is described at
https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from rxflow.llm._wires.sse import ErrorEvent, Wire, add_up, check, count, get_object
from rxflow.llm.source import Delta, PartDelta, ReasoningDelta, RefusalDelta, ToolCallDelta, UsageMetrics

_STANDARD_CALL_FIELDS = frozenset({"index", "id", "type", "function"})
_REASONING_FIELDS = ("reasoning_content", "reasoning")
_PART_FIELDS = {"annotations": "citation", "images": "image", "audio": "audio", "executed_tools": "server_tool"}
# Fields of the event itself, next to ``choices``. Perplexity sends them.
_SHARED_PART_FIELDS = {"citations": "citation", "search_results": "citation"}


class OpenAIChatWire(Wire):
    """Parses events, which OpenAI calls chat completion chunks.

    If the model reasons, ``message`` has the reasoning in the field that the provider uses.
    """

    def __init__(self, *, joins_halves: bool = False) -> None:
        super().__init__(joins_halves=joins_halves)
        self._reasoning: list[str] = []
        self._reasoning_field = ""
        self._reasoning_details: list[dict[str, Any]] = []
        self._content_parts: list[dict[str, Any]] = []
        self._function_call: dict[str, str] = {}
        self._shared_parts: dict[str, Any] = {}

    def read(self, event: dict[str, Any], batch: list[Delta]) -> None:
        usage = event.get("usage")
        if not usage and "x_groq" in event:
            usage = get_object(event, "x_groq").get("usage")
        if usage:
            self._note_usage(usage)
        if not self.response_id:
            self.response_id = str(event.get("id") or "")
            self.response_model = str(event.get("model") or "")
        for choice in event.get("choices") or ():
            if choice.get("index"):
                continue  # with n > 1, only the first answer is used
            if choice.get("error"):
                raise ErrorEvent(choice["error"])
            if choice.get("usage"):  # Moonshot reports the usage here
                self._note_usage(choice["usage"])
            delta = choice.get("delta") or choice.get("message")
            if delta:
                self._read_delta(delta, batch)
            elif isinstance(choice.get("text"), str) and choice["text"]:
                self.add_text(choice["text"], batch)  # a text completion
            reason = choice.get("finish_reason")
            if reason:
                self._finish(check(str, "finish_reason", reason), batch)
        for field, kind in _SHARED_PART_FIELDS.items():
            if event.get(field) and event[field] != self._shared_parts.get(field):
                self._shared_parts[field] = event[field]
                batch.append(PartDelta(kind, event[field]))

    def _note_usage(self, reported: Any) -> None:
        """Keep the reported usage. If it contains no counts, keep the usage that was reported before."""
        self.usage = read_usage(reported) or self.usage

    def find_text(self, event: dict[str, Any]) -> str | None:
        choices: list[dict[str, Any]] = event.get("choices") or []
        if len(choices) != 1 or any(choices[0].get(name) for name in ("index", "finish_reason")):
            return None
        delta: dict[str, Any] = choices[0].get("delta") or {}
        return delta.get("content") if len(delta) == 1 else None

    def _read_delta(self, delta: dict[str, Any], batch: list[Delta]) -> None:
        content = delta.get("content")
        if type(content) is str:
            if content:
                content = self.join("content", content)
                if content:
                    batch.append(content)
                if len(delta) == 1:  # true of almost all deltas; they have no other fields
                    return
        elif isinstance(content, list):
            self._read_parts(cast(list[Any], content), batch)
        elif content is not None:
            raise TypeError(f"content is not a string: {content!r}")
        self._read_reasoning(delta, batch)
        refusal = delta.get("refusal")
        if refusal:
            self._add_refusal(check(str, "refusal", refusal), batch)
        batch.extend(map(self._read_call, delta.get("tool_calls") or ()))
        function_call = delta.get("function_call")
        if function_call:
            for name in ("name", "arguments"):
                self._function_call[name] = self._function_call.get(name, "") + str(function_call.get(name) or "")
        for field, kind in _PART_FIELDS.items():
            if delta.get(field):
                batch.append(PartDelta(kind, delta[field]))

    def _read_parts(self, parts: list[Any], batch: list[Delta]) -> None:
        """Parse content that is a list, as Mistral's reasoning models and some gateways send it."""
        for part in parts:
            kind = part.get("type") or ("text" if "text" in part else "unknown")
            if kind == "text":
                self.add_text(part.get("text") or "", batch)
            elif kind == "thinking":
                text = "".join(str(each.get("text") or "") for each in part.get("thinking") or ())
                self._add_reasoning(text, batch)
            elif kind == "refusal":
                self._add_refusal(check(str, "a part's refusal", part.get("refusal") or ""), batch)
            else:
                batch.append(PartDelta("citation" if kind == "reference" else str(kind), part))
            self._keep_part({**part, "type": kind})

    def _keep_part(self, part: dict[str, Any]) -> None:
        """Keep a part, because it may have to be sent back to the provider.

        Parts must be sent back whole. So successive pieces of text are joined, and so are successive pieces of
        thinking.
        """
        last = self._content_parts[-1] if self._content_parts else None
        if last is None or last["type"] != part["type"] or part["type"] not in ("text", "thinking"):
            self._content_parts.append(part)
        elif part["type"] == "text":
            last["text"] = (last.get("text") or "") + (part.get("text") or "")
        else:
            last["thinking"] = _join_texts([*(last.get("thinking") or ()), *(part.get("thinking") or ())])

    def _read_reasoning(self, delta: dict[str, Any], batch: list[Delta]) -> None:
        details: list[dict[str, Any]] = delta.get("reasoning_details") or []
        for detail in details:
            self._keep_detail(detail)
        for field in _REASONING_FIELDS:
            if delta.get(field):
                self._reasoning_field = field
                self._add_reasoning(str(delta[field]), batch)
                return
        # OpenRouter repeats the text of the details in ``reasoning``, so the loop above has added it. Other gateways
        # send the text only in the details.
        self._add_reasoning("".join(str(each.get("text") or each.get("summary") or "") for each in details), batch)

    def _add_refusal(self, text: str, batch: list[Delta]) -> None:
        text = self.join("refusal", text)
        if text:
            batch.append(RefusalDelta(text))

    def _add_reasoning(self, text: str, batch: list[Delta]) -> None:
        text = self.join("reasoning", text)
        if text:
            self._reasoning.append(text)
            batch.append(ReasoningDelta(text))

    def _keep_detail(self, detail: dict[str, Any]) -> None:
        """Keep a reasoning detail, joined with its earlier pieces.

        The text of a detail arrives in pieces. The last piece has the signature.
        """
        last = self._reasoning_details[-1] if self._reasoning_details else None
        if last is None or any(last.get(key) != detail.get(key) for key in ("type", "index")) or "data" in detail:
            self._reasoning_details.append(dict(detail))
            return
        for key, value in detail.items():
            if key in ("text", "summary") and isinstance(value, str) and isinstance(last.get(key), str):
                last[key] += value
            elif value is not None:
                last[key] = value

    def _read_call(self, call: dict[str, Any]) -> ToolCallDelta:
        function: dict[str, Any] = call.get("function") or {}
        index = call.get("index")
        if index is not None:
            check(int, "the index of a tool call", index)
        arguments: Any = function.get("arguments") or ""
        if isinstance(arguments, dict):
            arguments = json.dumps(arguments)  # some local servers send an object instead of a string
        extra = {name: value for name, value in call.items() if name not in _STANDARD_CALL_FIELDS and value is not None}
        return ToolCallDelta(
            index,
            check(str, "the id of a tool call", call.get("id") or "") or None,
            check(str, "the name of a tool call", function.get("name") or "") or None,
            self.join(index, check(str, "the arguments of a tool call", arguments)),
            extra or None,
        )

    def _finish(self, reason: str, batch: list[Delta]) -> None:
        self.finish_reason = reason
        self.is_complete = True
        self.close_texts(batch)

    def close_texts(self, batch: list[Delta]) -> None:
        super().close_texts(batch)
        if self._function_call:
            batch.append(PartDelta("function_call", self._function_call))
            self._function_call = {}
        self._keep_message()

    def _keep_message(self) -> None:
        if self._reasoning_details:
            self.message["reasoning_details"] = self._reasoning_details
        elif self._reasoning_field:
            self.message[self._reasoning_field] = "".join(self._reasoning)
        elif any(part["type"] == "thinking" for part in self._content_parts):
            self.message["content"] = self._content_parts


def _join_texts(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if all(part.get("type") == "text" for part in parts):
        return [{"type": "text", "text": "".join(str(part.get("text") or "") for part in parts)}]
    return parts


def read_usage(reported: Any) -> UsageMetrics | None:
    """Return the usage in ``reported``; None if it has no counts.

    ``reported`` has OpenAI's format, and may have fields that other providers add.
    """
    if not isinstance(reported, dict):
        return None
    usage = cast(Mapping[str, Any], reported)
    prompt_details, completion_details = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    cached = count(prompt_details, "cached_tokens")
    prompt, completion = count(usage, "prompt_tokens"), count(usage, "completion_tokens")
    return add_up(
        prompt,
        completion,
        count(usage, "total_tokens"),
        cached_prompt_tokens=count(usage, "prompt_cache_hit_tokens") if cached is None else cached,  # from DeepSeek
        cache_creation_tokens=count(prompt_details, "cache_write_tokens"),  # from OpenRouter
        reasoning_tokens=count(completion_details, "reasoning_tokens"),
    )
