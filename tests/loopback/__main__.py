"""Serve one prepared stream as fast as the socket takes it, in any dialect: `python -m tests.loopback`, for benchmarks.

A request that offers tools, and brings no result of one yet, is answered by a call of its first tool.
"""

import argparse
import sys
import time
from dataclasses import replace
from functools import cache

from tests.loopback import Loopback, Reply, Request, ToolCall, encode
from tests.loopback.dialects import CHAT, Dialect, dialect_of

WRITE_SIZE = 1 << 16


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.loopback", description=__doc__)
    parser.add_argument("--chunks", type=int, default=20_000, help="content chunks of a stream")
    parser.add_argument("--text-per-chunk", default="tok ", help="content of each chunk")
    parser.add_argument("--pace", type=float, default=0.0, help="seconds between chunks")
    parser.add_argument("--hold-after", type=int, help="send so many of them, and then nothing more")
    options = parser.parse_args()
    chunks: int = options.chunks
    text: str = options.text_per_chunk
    pace: float = options.pace
    hold_after: int | None = options.hold_after

    whole = Reply(text=[text] * chunks)
    held = replace(whole, hold_after=hold_after)
    streams = {usage: prepared(events_of(whole, include_usage=usage), pace) for usage in (False, True)}

    @cache
    def stream_of(dialect: Dialect) -> Reply:
        events = dialect.encode(whole, Request(body={}, headers={}, at=time.monotonic(), number=1, path=dialect.path))
        return prepared([events.role, *events.content, *events.end], pace)

    def answer(request: Request) -> Reply:
        dialect = dialect_of(request.path)
        if dialect is not None and dialect is not CHAT:
            return stream_of(dialect)
        if request.tools and not any(message.get("role") == "tool" for message in request.messages):
            return Reply(tool_calls=[ToolCall(request.tools[0]["function"]["name"], {})])
        if not request.stream:
            return whole
        return streams[request.include_usage] if hold_after is None else held

    with Loopback() as provider:
        provider.answer(answer)
        print(provider.url, flush=True)
        sys.stdin.buffer.read()


def prepared(events: list[bytes], pace: float) -> Reply:
    """The events in large writes, or one by one if they are paced."""
    limit = 1 if pace else WRITE_SIZE
    writes: list[bytes] = []
    gathered = bytearray()
    for event in events:
        gathered += event
        if len(gathered) >= limit:
            writes.append(bytes(gathered))
            gathered.clear()
    writes.append(bytes(gathered))
    return Reply(raw=[data for data in writes if data], pace=pace)


def events_of(whole: Reply, *, include_usage: bool) -> list[bytes]:
    """The server-sent events of a streamed reply: the role, the content, and what ends it."""
    body = {"model": "loopback", "stream_options": {"include_usage": include_usage}}
    request = Request(body=body, headers={}, at=time.monotonic(), number=1, path="")
    events = encode.completion_events(whole, request)
    return [events.role, *events.content, *events.end, encode.DONE]


if __name__ == "__main__":
    main()
