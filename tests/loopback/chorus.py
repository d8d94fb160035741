"""Thousands of paced streams, cheaply: `python -m tests.loopback.chorus`. They begin together and go in step.

The provider of the tests has a task, a timer and two awaits for each chunk of each connection; at 50,000 chunks a
second it would be what is measured. Here one timer gives every stream of a chorus its next chunk. How many belong to
one is in the URL (`…/together/1000/v1`): none gets a chunk before all are there, so their clients have them all open.
"""

import argparse
import asyncio
import json
import sys
from dataclasses import asdict, dataclass
from typing import Any, cast

from tests.loopback import Reply, ToolCall, encode
from tests.loopback.__main__ import events_of

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
)
"""Closed after each answer: a client with a pool must not find its connections there in the second turn."""


@dataclass
class Counts:
    """What the server has seen."""

    requests: int = 0
    open_now: int = 0
    most_open: int = 0
    completed: int = 0
    lost: int = 0
    """Clients that closed before the end."""


class Chorus:
    """Streams that wait for each other, and then get each chunk from one timer."""

    def __init__(self, size: int, chunks: list[bytes], pace: float, counts: Counts) -> None:
        self._size = size
        self._chunks = chunks
        self._pace = pace
        self._counts = counts
        self._singers: list[Singer] = []
        self._next = 0
        self._due = 0.0

    @property
    def is_full(self) -> bool:
        return len(self._singers) == self._size

    def join(self, singer: "Singer") -> None:
        self._singers.append(singer)
        if self.is_full:
            self._due = asyncio.get_running_loop().time()
            self._sing()

    def _sing(self) -> None:
        chunk = self._chunks[self._next]
        self._next += 1
        for singer in self._singers:
            singer.sing(chunk)
        if self._next < len(self._chunks):
            self._due += self._pace  # by the clock: what the round itself took is not added
            asyncio.get_running_loop().call_at(self._due, self._sing)
            return
        for singer in self._singers:
            singer.end()


class Singer(asyncio.Protocol):
    """One connection, one request."""

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._counts = server.counts
        self._received = bytearray()
        self._is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found or len(body) < content_length(bytes(head)):
            return
        asks_for_a_tool = wants_a_tool(bytes(body))
        self._received.clear()
        self._counts.requests += 1
        self._counts.open_now += 1
        self._counts.most_open = max(self._counts.most_open, self._counts.open_now)
        self._is_open = True
        self._transport.write(HEAD)
        if asks_for_a_tool:
            self._transport.write(self._server.tool_call)
            self.end()
            return
        self._server.chorus(size_in(bytes(head))).join(self)

    def sing(self, chunk: bytes) -> None:
        self._transport.write(chunk)  # also where the client has gone: asyncio drops it

    def end(self) -> None:
        if self._leave():
            self._counts.completed += 1
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._leave():
            self._counts.lost += 1

    def _leave(self) -> bool:
        was_open, self._is_open = self._is_open, False
        self._counts.open_now -= was_open
        return was_open


def content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return int(value)
    return 0


def wants_a_tool(body: bytes) -> bool:
    if b'"tools"' not in body:
        return False
    asked: dict[str, Any] = json.loads(body)
    return all(message["role"] != "tool" for message in asked["messages"])


def size_in(head: bytes) -> int:
    """How many streams belong together, out of the path of a request."""
    _, found, rest = head.partition(b"/together/")
    if not found:
        raise ValueError(f"the URL says how many streams belong together, as /together/1000/v1; got {head[:80]!r}")
    return int(rest.partition(b"/")[0])


class Server:
    def __init__(self, chunks: int, text: str, pace: float) -> None:
        self.counts = Counts()
        self._pace = pace
        events = events_of(Reply(text=[text] * chunks), include_usage=True)
        # As a provider's: the role with the first chunk, all that ends it with the last.
        role, *content = events[: chunks + 1]
        end = b"".join(map(encode.http_chunk, events[chunks + 1 :]))
        self._chunks = [encode.http_chunk(each) for each in content]
        self._chunks[0] = encode.http_chunk(role) + self._chunks[0]
        self._chunks[-1] += end + encode.LAST_HTTP_CHUNK
        called = events_of(Reply(tool_calls=[ToolCall("look", {})]), include_usage=True)
        self.tool_call = b"".join(map(encode.http_chunk, called)) + encode.LAST_HTTP_CHUNK
        self._forming: dict[int, Chorus] = {}

    def chorus(self, size: int) -> Chorus:
        """The one that waits for streams."""
        forming = self._forming.get(size)
        if forming is None or forming.is_full:
            forming = self._forming[size] = Chorus(size, self._chunks, self._pace, self.counts)
        return forming

    async def serve(self) -> None:
        """Until standard input is closed; then it says what it has counted."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Singer(self), "127.0.0.1", 0, backlog=4096)
        print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await asyncio.to_thread(sys.stdin.buffer.read)
        print(json.dumps(asdict(self.counts)), flush=True)
        server.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.loopback.chorus", description=__doc__)
    parser.add_argument("--chunks", type=int, default=50, help="content chunks of a stream")
    parser.add_argument("--text-per-chunk", default="tok ", help="content of each chunk")
    parser.add_argument("--pace", type=float, default=0.02, help="seconds between chunks")
    options = parser.parse_args()
    asyncio.run(Server(options.chunks, options.text_per_chunk, options.pace).serve())


if __name__ == "__main__":
    main()
