"""What a request holds of the model's own turns, in whatever place its dialect has it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from tests.recordings.player import read_arguments

_SEALED_FIELDS = ("signature", "thoughtSignature", "thought_signature", "encrypted_content", "redactedContent")
_THOUGHT_FIELDS = ("thinking", "reasoning_content", "reasoning", "reasoningText")
_PARTS_WITH_TEXT = ("reasoning.text", "reasoning.summary", "summary_text", "reasoning_text")
_SEALED_PARTS = ("redacted_thinking", "reasoning.encrypted")


@dataclass
class Turns:
    """The model's turns of a conversation: calls as (id, name, arguments), thoughts, and what is sealed."""

    calls: list[tuple[str | None, str, object]] = field(default_factory=list[tuple[str | None, str, object]])
    thoughts: list[str] = field(default_factory=list[str])
    sealed: list[str] = field(default_factory=list[str])


def collect_turns(asked: dict[str, Any]) -> Turns:
    """From the body of a request."""
    conversation = [asked[name] for name in ("messages", "input", "contents") if name in asked]
    return collect(conversation)


def collect(value: object) -> Turns:
    """From any part of a request."""
    turns = Turns()
    for each in _walk(value):
        call = _read_call(each)
        if call is not None:
            turns.calls.append(call)
        kind = each.get("type")
        turns.sealed += [unseal(each[name]) for name in _SEALED_FIELDS if isinstance(each.get(name), str)]
        if kind in _SEALED_PARTS and isinstance(each.get("data"), str):
            turns.sealed.append(unseal(each["data"]))
        thoughts = [each.get(name) for name in _THOUGHT_FIELDS]
        if kind in _PARTS_WITH_TEXT:
            thoughts += [each.get("text"), each.get("summary")]
        turns.thoughts += [_text_of(thought) for thought in thoughts if thought]
    return turns


def unseal(text: str) -> str:
    """A sealed text as it is compared: some clients change the alphabet of its base64."""
    return text.replace("-", "+").replace("_", "/").rstrip("=")


def _walk(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        found = cast("dict[str, Any]", value)
        yield found
        for each in found.values():
            yield from _walk(each)
    elif isinstance(value, list):
        for each in cast("list[object]", value):
            yield from _walk(each)


def _read_call(each: dict[str, Any]) -> tuple[str | None, str, object] | None:
    function: dict[str, Any] = each.get("function") or {}
    if "arguments" in function:
        return each.get("id"), str(function["name"]), read_arguments(str(function["arguments"]))
    if each.get("type") == "function_call":
        return each.get("call_id"), str(each["name"]), read_arguments(str(each["arguments"]))
    if each.get("type") == "tool_use":
        return each.get("id"), str(each["name"]), each["input"]
    if "functionCall" in each:
        call = each["functionCall"]
        return call.get("id"), str(call["name"]), call.get("args", {})
    if "function_call" in each:
        call = each["function_call"]
        return call.get("id"), str(call["name"]), call.get("args", {})
    if "toolUse" in each:
        call = each["toolUse"]
        return call.get("toolUseId"), str(call["name"]), call["input"]
    return None


def _text_of(thought: object) -> str:
    """Text, whether it stands alone or in parts."""
    if isinstance(thought, str):
        return thought
    return "".join(str(each["text"]) for each in _walk(thought) if isinstance(each.get("text"), str))
