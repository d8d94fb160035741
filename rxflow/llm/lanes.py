"""The two ways of reading litellm's answer. Both deliver the same deltas; a test holds one against the other.

litellm prepares and sends the request. Its stream wrapper then costs 300-600 µs a chunk, so where the answer behind it
is OpenAI's own stream, the *fast lane* reads the server-sent events of that response directly. Everything else goes
through the wrapper, the *general lane*, and so does any program that has registered litellm callbacks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, cast

from pydantic_core import from_json

from rxflow.llm.batches import Deliver
from rxflow.llm.request import Delta, ReasoningDelta, ToolCallDelta
from rxflow.llm.server_sent_events import EventData

_LINGER = 0.2  # seconds to wait for the end of the body after the last event, so that the connection can be reused


class Tail:
    """What the end of an answer says."""

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.usage: Mapping[str, Any] | None = None


class MalformedEvent(ValueError):
    """A server-sent event that is not what OpenAI's API sends."""


class ErrorEvent(Exception):
    """An error that the provider sent as an event in mid-stream."""

    def __init__(self, body: object) -> None:
        self.body: Any = body
        said = cast(dict[str, Any], body) if isinstance(body, dict) else {}
        super().__init__(str(said.get("message") or self.body))


async def read_fast(stream: Any, deliver: Deliver) -> Tail:
    """Read an ``openai.AsyncStream`` by its events, one delivery a network read."""
    tail = Tail()
    events = EventData()
    try:
        reads = stream.response.aiter_bytes()
        async for block in reads:
            if _deliver(events.feed(block), tail, deliver):
                # Reading on to the end of the body lets the connection be used again.
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LINGER):
                        async for _ in reads:
                            pass
                return tail
            # A source that is always ready would starve the loop, and with it every disposal.
            await asyncio.sleep(0)
        _deliver(events.flush(), tail, deliver)
        return tail
    finally:
        await stream.close()


def _deliver(events: Iterator[bytes | bytearray], tail: Tail, deliver: Deliver) -> bool:
    """Deliver the deltas of some events, those before a malformed one too; True at the end of the stream."""
    batch: list[Delta] = []
    try:
        for data in events:
            if data.lstrip().startswith(b"[DONE]"):
                return True
            batch.extend(_deltas(_parse(data), tail))
        return False
    finally:
        if batch:
            deliver(batch)


async def read_general(wrapper: Any, deliver: Deliver, *, to_the_end: bool) -> Tail:
    """Read litellm's wrapper. ``to_the_end`` lets it log the call, as callbacks expect, at 50 µs × chunks."""
    tail = Tail()
    async for chunk in wrapper:
        batch = list(_deltas(chunk.model_dump(), tail))
        if batch:
            deliver(batch)
        await asyncio.sleep(0)
        if tail.finish_reason is not None and not to_the_end:
            # What is left is the usage chunk; reading it also frees the connection for reuse.
            with suppress(TimeoutError):
                async with asyncio.timeout(_LINGER):
                    async for rest in wrapper.completion_stream:
                        tail.usage = _usage_of(rest) or tail.usage
            break
    if to_the_end:
        # litellm closes with a usage that it has added estimates to; what the provider counted stands in its chunks.
        tail.usage = next(filter(None, map(_usage_of, reversed(wrapper.chunks))), tail.usage)
    # litellm 1.106 reports a stream that was cut short as finish_reason="stop".
    if wrapper.received_finish_reason is None:
        tail.finish_reason = None
    return tail


def _usage_of(chunk: Any) -> Mapping[str, Any] | None:
    usage: Any = cast(Any, chunk).get("usage") if isinstance(chunk, dict) else getattr(chunk, "usage", None)
    reported: Mapping[str, Any] | None = usage.model_dump() if hasattr(usage, "model_dump") else usage
    return reported


def _parse(data: bytes | bytearray) -> dict[str, Any]:
    try:
        chunk: Any = from_json(data)
    except ValueError as error:
        raise MalformedEvent(f"an event of the stream is not JSON ({error}): {_shown(data)}") from error
    if not isinstance(chunk, dict):
        raise MalformedEvent(f"an event of the stream is not a JSON object: {_shown(data)}")
    return cast(dict[str, Any], chunk)


def _shown(data: bytes | bytearray) -> str:
    return repr(data[:200].decode(errors="replace"))


def _deltas(chunk: dict[str, Any], tail: Tail) -> Iterator[Delta]:
    """The deltas of one chunk of OpenAI's chat API."""
    if chunk.get("error"):
        raise ErrorEvent(chunk["error"])
    tail.usage = chunk.get("usage") or tail.usage
    choices: list[Any] = chunk.get("choices") or []
    try:
        for choice in choices:
            if choice.get("index"):
                continue  # with n > 1, the answers beyond the first
            yield from _deltas_of(choice.get("delta") or {})
            tail.finish_reason = choice.get("finish_reason") or tail.finish_reason
    except (AttributeError, TypeError) as cause:
        raise MalformedEvent(f"an event of the stream has an unknown shape: {str(chunk)[:200]}") from cause


def _deltas_of(delta: Any) -> Iterator[Delta]:
    content = delta.get("content")
    if type(content) is str:
        if content:
            yield content
    elif content is not None:
        raise TypeError(f"content is no text: {content!r}")
    reasoning = delta.get("reasoning_content") or delta.get("reasoning")
    if reasoning:
        yield ReasoningDelta(str(reasoning))
    calls: list[Any] = delta.get("tool_calls") or []
    for call in calls:
        function: dict[str, Any] = call.get("function") or {}
        yield ToolCallDelta(
            call.get("index") or 0, call.get("id"), function.get("name"), function.get("arguments") or ""
        )
