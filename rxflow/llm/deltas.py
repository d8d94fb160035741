"""From the chunks of OpenAI's chat API to deltas. What the provider sends is checked here, and nowhere later."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from typing import Any, TypeVar, cast

from pydantic_core import from_json

from rxflow.llm.source import Delta, ReasoningDelta, ToolCallDelta
from rxflow.llm.wires.surrogates import REPLACEMENT
from rxflow.llm.wires.surrogates import SurrogateJoiner as Halves

T = TypeVar("T")

_SHOWN = 200  # characters of an event


class MalformedEvent(ValueError):
    """A server-sent event that is not what OpenAI's API sends.

    It holds the whole event, and shows the beginning: a key across that cut could not be found there any more.
    """

    def __init__(self, message: str, event: str = "") -> None:
        super().__init__(message, event)

    def __str__(self) -> str:
        message, event = self.args
        return f"{message}: {event[:_SHOWN]}" if event else str(message)


class ErrorEvent(Exception):
    """An error that the provider sent as an event in mid-stream."""

    def __init__(self, body: object) -> None:
        self.body: Any = body
        said = cast(dict[str, Any], body) if isinstance(body, dict) else {}
        super().__init__(str(said.get("message") or self.body))


class Tail:
    """What the end of an answer says, and what is kept from one chunk for the next."""

    def __init__(self, *, may_have_halves: bool = False) -> None:
        self.finish_reason: str | None = None
        self.usage: Mapping[str, Any] | None = None
        self.is_empty = True
        self.halves = Halves() if may_have_halves else None


def parse(data: bytes | bytearray, tail: Tail) -> dict[str, Any] | None:
    """One event as JSON; None for the one that ends the stream. Raises :class:`MalformedEvent`."""
    try:
        chunk: dict[str, Any] = from_json(data)
    except ValueError as error:
        if data.lstrip().startswith(b"[DONE]"):  # no JSON, so there is no need to look for it anywhere else
            return None
        if b"\\u" not in data:
            raise _no_json(data, error) from error
        # pydantic's parser takes no half characters, which are JSON all the same.
        chunk = _with_halves(data)
        tail.halves = tail.halves or Halves()
    if type(chunk) is not dict:
        raise MalformedEvent("an event of the stream is not a JSON object", _shown(data))
    return chunk


def _with_halves(data: bytes | bytearray) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _no_json(data, error) from error


def _no_json(data: bytes | bytearray, error: Exception) -> MalformedEvent:
    return MalformedEvent(f"an event of the stream is not JSON ({error})", _shown(data))


def _shown(data: bytes | bytearray) -> str:
    return repr(data.decode(errors="replace"))


def add_deltas(chunk: dict[str, Any], tail: Tail, batch: list[Delta]) -> None:
    """Put the deltas of one chunk into ``batch``. Raises :class:`MalformedEvent` and :class:`ErrorEvent`."""
    # Lists and no generators: these lines run for each chunk, and generators took half of what the JSON takes.
    tail.is_empty = False
    if chunk.get("error"):
        raise ErrorEvent(chunk["error"])
    usage = chunk.get("usage")
    if usage and isinstance(usage, dict):
        tail.usage = cast(dict[str, Any], usage)
    choices: list[Any] = chunk.get("choices") or []
    try:
        for choice in choices:
            if choice.get("index"):
                continue  # with n > 1, the answers beyond the first
            delta = choice.get("delta")
            if delta:
                _add_delta(delta, tail.halves, batch)
            reason = choice.get("finish_reason")
            if reason:
                tail.finish_reason = _checked(str, "finish_reason", reason)
                if tail.halves is not None:
                    batch.extend(map(_half_of, tail.halves.take_unfinished()))
    except (AttributeError, TypeError) as cause:
        raise MalformedEvent(f"an event of the stream has an unknown shape ({cause})", str(chunk)) from cause


def _add_delta(delta: Any, halves: Halves | None, batch: list[Delta]) -> None:
    content = delta.get("content")
    if type(content) is str:
        if halves is not None:
            content = halves.join("content", content)
        if content:
            batch.append(content)
            if len(delta) == 1:  # nearly always, and then there is nothing else to look for
                return
    elif content is not None:
        raise TypeError(f"content is no text: {content!r}")
    reasoning = delta.get("reasoning_content") or delta.get("reasoning")
    if reasoning:
        text = str(reasoning)
        text = text if halves is None else halves.join("reasoning", text)
        if text:
            batch.append(ReasoningDelta(text))
    calls: list[Any] = delta.get("tool_calls") or []
    batch.extend(_call_of(call, halves) for call in calls)


def _half_of(which: Hashable) -> Delta:
    """What becomes of a half that no other one has followed."""
    if isinstance(which, int):
        return ToolCallDelta(which, arguments=REPLACEMENT)
    return ReasoningDelta(REPLACEMENT) if which == "reasoning" else REPLACEMENT


def _call_of(call: Any, halves: Halves | None) -> ToolCallDelta:
    function: dict[str, Any] = call.get("function") or {}
    index = _checked(int, "the index of a tool call", call.get("index") or 0)
    arguments: Any = function.get("arguments") or ""
    if isinstance(arguments, dict):
        arguments = json.dumps(arguments)  # some servers of one's own send the object itself
    arguments = _checked(str, "the arguments of a tool call", arguments)
    return ToolCallDelta(
        index,
        _checked(str, "the id of a tool call", call.get("id") or "") or None,
        _checked(str, "the name of a tool call", function.get("name") or "") or None,
        arguments if halves is None else halves.join(index, arguments),
    )


def _checked(kind: type[T], what: str, value: object) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"{what} is {value!r}")
    return value
