"""The two ways of reading litellm's answer. Both deliver the same deltas; a test holds one against the other.

litellm prepares and sends the request. Its stream wrapper then costs 300-600 µs a chunk, so where the answer behind it
is OpenAI's own stream, the *fast lane* reads the server-sent events of that response directly. Everything else goes
through the wrapper, the *general lane*, and so does any program that has registered litellm callbacks.

With its finish reason an answer is complete. What may follow is the usage report, and the end of the body, which is
waited for so that the connection can be used again; a connection that breaks there, or falls silent, costs only these.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from typing import Any, cast

from rxflow.llm.batches import Deliver
from rxflow.llm.deltas import MalformedEvent, Tail, add_deltas, parse
from rxflow.llm.patience import Patience
from rxflow.llm.source import Delta
from rxflow.llm.wires.sse import EventData

_USAGE_WAIT = 2.0  # seconds from the finish reason to the usage report
_LINGER = 0.2  # seconds from the last event to the end of the body


async def read_fast(stream: Any, deliver: Deliver, *, silence: float) -> Tail:
    """Read an ``openai.AsyncStream`` by its events, one delivery a network read; no more than ``silence`` s for one."""
    tail = Tail()
    try:
        async with Patience(silence, lambda: tail.finish_reason) as patience:
            await _read_events(stream.response.aiter_bytes(), tail, deliver, patience)
    finally:
        await stream.close()
    if tail.is_empty:
        _refuse_other_types(stream.response)
    return tail


async def _read_events(reads: AsyncIterator[bytes], tail: Tail, deliver: Deliver, patience: Patience) -> None:
    events = EventData()
    async for block in reads:
        patience.heard()
        if _deliver(events.feed(block), tail, deliver):
            patience.at_most(_LINGER)
            async for _ in reads:
                pass
            return
        if tail.finish_reason is not None:
            patience.at_most(_LINGER if tail.usage else _USAGE_WAIT)
        # A source that is always ready would starve the loop, and with it every disposal.
        await asyncio.sleep(0)
    with suppress(MalformedEvent):  # cut off within an event, which is no news of what the provider sends
        _deliver(events.flush(), tail, deliver)


def _deliver(events: Iterator[bytes | bytearray], tail: Tail, deliver: Deliver) -> bool:
    """Deliver the deltas of some events, those before a malformed one too; True at the end of the stream."""
    batch: list[Delta] = []
    try:
        for data in events:
            chunk = parse(data, tail)
            if chunk is None:
                return True
            add_deltas(chunk, tail, batch)
        return False
    finally:
        if batch:
            deliver(batch)


async def read_general(wrapper: Any, deliver: Deliver, *, to_the_end: bool, silence: float) -> Tail:
    """Read litellm's wrapper. ``to_the_end`` lets it log the call, as callbacks expect, at 50 µs × chunks."""
    tail = Tail(may_have_halves=True)
    patience = Patience(silence, lambda: wrapper.received_finish_reason)
    watch = _Watch(wrapper.completion_stream, patience)
    async with patience:
        async for chunk in wrapper:
            batch: list[Delta] = []
            add_deltas(chunk.model_dump(), tail, batch)
            if batch:
                deliver(batch)
            await asyncio.sleep(0)
            if tail.finish_reason is not None and not to_the_end:
                patience.at_most(_USAGE_WAIT)
                async for each in wrapper.completion_stream:
                    tail.usage = _usage_of(each) or tail.usage
                    if tail.usage:
                        patience.at_most(_LINGER)
                break
    if to_the_end:
        # litellm closes with a usage that it has added estimates to; what the provider counted stands in its chunks.
        tail.usage = next(filter(None, map(_usage_of, reversed(wrapper.chunks))), tail.usage)
    # litellm 1.106 reports a stream that was cut short as finish_reason="stop".
    tail.finish_reason = wrapper.received_finish_reason and (tail.finish_reason or str(wrapper.received_finish_reason))
    if watch.has_seen_no_event:
        _refuse_other_types(watch.response)
    return tail


class _Watch:
    """Reads along with OpenAI's decoder, to refuse an event without end: the decoder would gather it for ever."""

    def __init__(self, stream: Any, patience: Patience) -> None:
        self._patience = patience
        self.has_seen_no_event = False
        self.response = cast(Any, getattr(stream, "response", None))
        self._reads = cast(Any, getattr(self.response, "aiter_bytes", None))
        if self._reads is not None:
            self.has_seen_no_event = True
            self.response.aiter_bytes = self._watched
        else:
            patience.is_deaf = True

    async def _watched(self, *arguments: Any) -> AsyncIterator[bytes]:
        events = EventData()
        async for block in self._reads(*arguments):
            self._patience.heard()
            for _ in events.feed(block):
                self.has_seen_no_event = False
            yield block


def _refuse_other_types(response: Any) -> None:
    """Raise :class:`MalformedEvent` where a body without any event never was a stream."""
    said = str(response.headers.get("content-type", ""))
    if said and not said.startswith("text/event-stream"):
        raise MalformedEvent(f"the answer is no event stream: its content type is {said!r}, and no event is in it")


def _usage_of(chunk: Any) -> Mapping[str, Any] | None:
    usage: Any = cast(Any, chunk).get("usage") if isinstance(chunk, dict) else getattr(chunk, "usage", None)
    reported: Any = usage.model_dump() if hasattr(usage, "model_dump") else usage
    return cast(dict[str, Any], reported) if isinstance(reported, dict) else None
