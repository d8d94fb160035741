"""One TCP connection: reads requests, plays replies, notices at once when the client goes."""

import asyncio
import json
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, cast

from tests.loopback import encode
from tests.loopback.dialects import Dialect, dialect_of
from tests.loopback.reply import Disconnect, Phase, Reply, Request
from tests.loopback.state import State

READ_SIZE = 1 << 16
HEAD_LIMIT = 1 << 20
MODELS = {
    "object": "list",
    "data": [{"id": "loopback", "object": "model", "created": encode.CREATED, "owned_by": "loopback"}],
}


class Connection:
    """Serves one client until either side closes."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        state: State,
        choose: Callable[[Request], Reply],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._state = state
        self._choose = choose
        self._inbox = asyncio.StreamReader(limit=HEAD_LIMIT)
        self._phase: Phase | None = None  # None: idle, the client may close as it likes
        self._stopping = False
        self._request: Request | None = None
        self._chunks_sent = 0
        self._hold: asyncio.Future[None] | None = None
        # With this, drain() returns once the kernel has everything: that is what "sent" means here.
        writer.transport.set_write_buffer_limits(high=0)
        # asyncio does it only where the listener names its protocol; without it a first chunk waits 40 ms for an ACK.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def _socket(self) -> socket.socket:
        return cast("socket.socket", self._writer.get_extra_info("socket"))

    async def run(self) -> None:
        serving = asyncio.current_task()
        assert serving is not None
        pump = asyncio.create_task(self._pump(serving))
        try:
            with suppress(asyncio.CancelledError):
                while await self._exchange():
                    self._phase = None
        except ConnectionError:
            self._lost()
        finally:
            self._phase = None
            self._disarm()
            pump.cancel()
            self._writer.transport.abort()
            with suppress(OSError):
                await self._writer.wait_closed()

    def stop(self) -> None:
        """Close from our side: no disconnect of the client's."""
        # Not by cancelling run(): a task cancelled before its first step would leave the socket open.
        self._stopping = True
        self._writer.transport.abort()

    async def _pump(self, serving: asyncio.Task[None]) -> None:
        """Read at all times, so that the end of the connection is seen whatever the reply is doing."""
        with suppress(OSError):
            while data := await self._reader.read(READ_SIZE):
                if self._phase is None:
                    self._phase = "body"
                self._inbox.feed_data(data)
        self._lost()
        serving.cancel()

    def _lost(self) -> None:
        """Record that the client has gone, if it still had something to come."""
        at = time.monotonic()
        if self._phase is None or self._stopping:
            return
        gone = Disconnect(at=at, chunks_sent=self._chunks_sent, phase=self._phase, request=self._request)
        self._phase = None
        with self._state.change():
            self._state.disconnects.append(gone)

    async def _exchange(self) -> bool:
        """One request and its reply; False when the connection is to be closed."""
        self._request, self._chunks_sent = None, 0
        head = await self._inbox.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        method, path, version = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await self._inbox.readexactly(int(headers.get("content-length", "0")))
        self._phase = "headers"
        keep_alive = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
        dialect = dialect_of(path) if method == "POST" else None
        if dialect is not None:
            return await self._complete(path, headers, body, dialect) and keep_alive
        if method == "GET" and path.endswith("/models"):
            await self._play(Reply(), encode.whole(HTTPStatus.OK, MODELS))
        else:
            await self._refuse(HTTPStatus.NOT_FOUND, f"nothing at {method} {path}")
        return keep_alive

    async def _complete(self, path: str, headers: dict[str, str], body: bytes, dialect: Dialect) -> bool:
        data = parsed(body)
        if data is None:
            return await self._refuse(HTTPStatus.BAD_REQUEST, "the body is not a JSON object")
        number = len(self._state.requests) + 1
        request = Request(body=data, headers=headers, at=time.monotonic(), number=number, path=path)
        self._request = request
        with self._state.change():
            self._state.requests.append(request)
        reply = self._choose(request)
        complete = await self._play(reply, encode.response(reply, request, dialect.encode, dialect.content_type))
        if complete:
            # Before the count wakes anyone who then lets the client close.
            self._phase = None
            with self._state.change():
                self._state.completed += 1
        return complete

    async def _refuse(self, status: int, message: str) -> bool:
        return await self._play(Reply(), encode.whole(status, encode.error_body(status, message)))

    async def _play(self, reply: Reply, response: encode.Response) -> bool:
        """Send the response as the reply says; False if it was cut short."""
        self._arm(reply, -1)
        if reply.delay:
            await asyncio.sleep(reply.delay)
        if not await self._pass(reply, -1):
            return False
        self._arm(reply, 0)
        await self._write(encode.Piece(response.head, 0))
        self._phase = "first_byte"
        if reply.first_byte_delay:
            await asyncio.sleep(reply.first_byte_delay)
        sent = 0
        for piece in response.pieces:
            if not await self._pass(reply, sent, response.tail):
                return False
            if sent:
                # Without a pace too: a socket that takes everything would keep the loop for this reply alone.
                await asyncio.sleep(reply.pace)
            sent += 1
            self._arm(reply, sent)
            self._phase = "mid_stream"
            await self._write(piece)
        if response.tail is not None:
            if not await self._pass(reply, sent, response.tail):
                return False
            if sent:
                await asyncio.sleep(reply.pace)
            self._phase = "mid_stream"
            await self._write(response.tail)
        return True

    async def _write(self, piece: encode.Piece) -> None:
        # Counted first: a client that has the chunk finds it counted.
        if piece.events:
            self._chunks_sent += piece.events
            with self._state.change():
                self._state.chunks_sent += piece.events
        self._writer.write(piece.data)
        await self._writer.drain()

    def _arm(self, reply: Reply, sent: int) -> None:
        # Before the write that leads up to the hold: a client that has the bytes can release it.
        if reply.hold_after == sent:
            self._hold = asyncio.get_running_loop().create_future()
            with self._state.change():
                self._state.holds.add(self._hold)

    def _disarm(self) -> None:
        if self._hold is not None:
            with self._state.change():
                self._state.holds.discard(self._hold)
            self._hold = None

    async def _pass(self, reply: Reply, sent: int, tail: encode.Piece | None = None) -> bool:
        """What the reply says to do after so many chunks; False if it ends there."""
        if self._hold is not None:
            await self._hold
            self._disarm()
        if reply.stall_after == sent:
            await asyncio.get_running_loop().create_future()
        if reply.reset_after == sent:
            self._reset()
            return False
        if reply.end_after == sent:
            if tail is not None:
                await self._write(encode.Piece(encode.LAST_HTTP_CHUNK, 0))
            return False
        return True

    def _reset(self) -> None:
        # Closing a socket that lingers for no time sends a reset in place of an orderly end.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


def parsed(body: bytes) -> dict[str, Any] | None:
    try:
        data: object = json.loads(body)
    except ValueError:
        return None
    return cast("dict[str, Any]", data) if isinstance(data, dict) else None
