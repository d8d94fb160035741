"""A server that is told its answer byte by byte, for faults below HTTP."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from enum import Enum
from types import TracebackType
from typing import Any, Self, TypeAlias

from tests.gate import PATIENCE_S, Gate


class Deed(Enum):
    """What the server does in place of sending bytes."""

    RESET = "reset the connection"
    CLOSE = "close it in order"
    HALF_CLOSE = "say that no more will come, and go on listening"
    STALL = "never go on"


Step: TypeAlias = bytes | Deed | Gate
"""Bytes of one write, a deed, or a gate to wait at."""

Script: TypeAlias = Callable[[], AsyncIterator[Step]]

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
"""Without a length: the body ends with the connection, so each of its bytes is the stream's."""


class Wire:
    """Answers each request by a script of its own: those that were given, the last one again and again.

    ``gone`` counts the clients that have left, whether by the server's doing or their own.
    """

    def __init__(self, *scripts: Script) -> None:
        self._scripts = list(scripts)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._thread = threading.Thread(target=self._run, name="wire", daemon=True)
        self._left = threading.Condition()
        self._writers: set[asyncio.StreamWriter] = set()
        self.gone = 0
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE_S)

    def wait_until_gone(self, count: int = 1) -> None:
        with self._left:
            if not self._left.wait_for(lambda: self.gone >= count, PATIENCE_S):
                raise AssertionError(f"{self.gone} of {count} clients have left within 5 s")

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accept, sock=self._listener)
        await self._stop.wait()
        for writer in list(self._writers):
            writer.transport.abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        server.close()
        await server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock: Any = writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._writers.add(writer)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await _read_request(reader)
            leaving = asyncio.create_task(_end_of(reader))
            await self._play(writer, leaving)
            await leaving
        writer.transport.abort()
        self._writers.discard(writer)
        with self._left:
            self.gone += 1
            self._left.notify_all()

    async def _play(self, writer: asyncio.StreamWriter, leaving: asyncio.Task[None]) -> None:
        """A script, as long as the client is there."""
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        async for step in script():
            doing = asyncio.create_task(self._do(step, writer))
            await asyncio.wait({doing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                doing.cancel()
                return
            if not doing.result():
                return

    async def _do(self, step: Step, writer: asyncio.StreamWriter) -> bool:
        """One step; False where it was the last."""
        if isinstance(step, bytes):
            writer.write(step)
            await writer.drain()
        elif isinstance(step, Gate):
            await step.passed()
        elif step is Deed.STALL:
            await asyncio.get_running_loop().create_future()
        elif step is Deed.HALF_CLOSE:
            writer.write_eof()
        elif step is Deed.CLOSE:
            writer.close()
            return False
        else:
            # Closing a socket that lingers for no time sends a reset in place of an orderly end.
            sock: Any = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return False
        return True


async def _read_request(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = (line.partition(b":")[2] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    await reader.readexactly(int(next(lengths)))


async def _end_of(reader: asyncio.StreamReader) -> None:
    with suppress(ConnectionError):
        while await reader.read(1 << 16):
            pass


def script(*steps: Step) -> Script:
    """These steps, one after the other."""

    async def play() -> AsyncIterator[Step]:
        for step in steps:
            yield step

    return play


def endless(first: bytes, again: bytes) -> Script:
    """``first``, and then ``again`` for ever."""

    async def play() -> AsyncIterator[Step]:
        yield first
        while True:
            yield again

    return play
