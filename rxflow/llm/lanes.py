"""The two ways of reading litellm's answer. Both deliver the same deltas; a test holds one against the other.

litellm prepares and sends the request. Its stream wrapper then costs 300-600 µs a chunk, so where the answer behind it is
OpenAI's own stream, the *fast lane* reads the server-sent events of that response directly. Everything else goes through
the wrapper, the *general lane*, and so does any program that has registered litellm callbacks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, suppress
from typing import Any, cast

from pydantic_core import from_json

from rxflow.llm.batches import Deliver
from rxflow.llm.request import Delta, ReasoningDelta, ToolCallDelta

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


async def read_fast(stream: Any, deliver: Deliver) -> Tail:
    """Read an ``openai.AsyncStream`` by its events, one delivery a network read."""
    tail = Tail()
    batch: list[Delta] = []

    async def network_reads() -> AsyncIterator[bytes]:
        nonlocal batch
        async for block in stream.response.aiter_bytes():
            yield block
            # The decoder asks for more: it has given all events of this read.
            if batch:
                deliver(batch)
                batch = []
            # A source that is always ready would starve the loop, and with it every disposal.
            await asyncio.sleep(0)

    reads = network_reads()
    try:
        async with aclosing(reads):
            async for event in stream._decoder.aiter_bytes(reads):
                data = event.data
                if data.startswith("[DONE]"):
                    if batch:
                        deliver(batch)
                        batch = []
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_LINGER):
                            async for _ in reads:
                                pass
                    break
                if data:
                    batch.extend(_deltas(_parse(data), tail))
    finally:
        if batch:
            deliver(batch)
        await stream.close()
    return tail


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
    # litellm 1.106 reports a stream that was cut short as finish_reason="stop".
    if wrapper.received_finish_reason is None:
        tail.finish_reason = None
    return tail


def _usage_of(chunk: Any) -> Mapping[str, Any] | None:
    usage = chunk.get("usage") if isinstance(chunk, dict) else getattr(chunk, "usage", None)
    dump = cast(Callable[[], Mapping[str, Any]] | None, getattr(usage, "model_dump", None))
    return dump() if dump is not None else cast(Mapping[str, Any] | None, usage)


def _parse(data: str) -> Mapping[str, Any]:
    try:
        chunk = from_json(data)
    except ValueError as error:
        raise MalformedEvent(f"an event of the stream is not JSON ({error}): {data[:200]!r}") from error
    if not isinstance(chunk, dict):
        raise MalformedEvent(f"an event of the stream is not a JSON object: {data[:200]!r}")
    return cast(Mapping[str, Any], chunk)


def _deltas(chunk: Mapping[str, Any], tail: Tail) -> Iterator[Delta]:
    """The deltas of one chunk of OpenAI's chat API."""
    if chunk.get("error"):
        error = chunk["error"]
        raise ErrorEvent(str(error.get("message") or error) if isinstance(error, dict) else str(error))
    tail.usage = chunk.get("usage") or tail.usage
    try:
        for choice in chunk.get("choices") or ():
            if choice.get("index"):
                continue  # with n > 1, the answers beyond the first
            delta = choice.get("delta") or {}
            reasoning = delta.get("reasoning_content") or delta.get("reasoning")
            if reasoning:
                yield ReasoningDelta(reasoning)
            content = delta.get("content")
            if content:
                yield content
            for call in delta.get("tool_calls") or ():
                function = call.get("function") or {}
                yield ToolCallDelta(
                    call.get("index") or 0,
                    call.get("id"),
                    function.get("name"),
                    function.get("arguments") or "",
                )
            tail.finish_reason = choice.get("finish_reason") or tail.finish_reason
    except (AttributeError, TypeError) as error:
        raise MalformedEvent(f"an event of the stream has an unknown shape: {str(chunk)[:200]}") from error
