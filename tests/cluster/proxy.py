"""A TCP proxy: an address that fails over, and a network that stands still, when a test likes."""

import asyncio
import socket
import threading
from contextlib import suppress
from typing import Self

from tests.gate import Gate


class Proxy:
    """Forwards connections to ``target``, the port of a server on this machine."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._stop = asyncio.Event()
        self._flows = asyncio.Event()
        self._flows.set()
        self.holds = Gate()
        """Something waits in it, since it has been stalled."""
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def move(self, target: int) -> None:
        """From now on, connections go to another port; those that there are break."""

        def move() -> None:
            self._target = target
            for writer in self._writers:
                writer.transport.abort()

        self._loop.call_soon_threadsafe(move)

    def stall(self) -> None:
        """From now on nothing passes, and no connection breaks: what is sent waits here."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def resume(self) -> None:
        """Let pass what waits, and what comes."""
        self._loop.call_soon_threadsafe(self._flows.set)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accept, sock=self._listener)
        await self._stop.wait()
        server.close()
        for writer in self._writers:
            writer.transport.abort()
        others = [each for each in asyncio.all_tasks() if each is not asyncio.current_task()]
        for each in others:
            each.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with suppress(OSError, asyncio.CancelledError):  # asyncio logs tasks of a server that are cancelled
            reader_there, writer_there = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(writer_there)
            try:
                await asyncio.gather(self._copy(reader, writer_there), self._copy(reader_there, writer))
            finally:
                self._writers.discard(writer_there)
                writer_there.transport.abort()
        self._writers.discard(writer)
        writer.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if not self._flows.is_set():
                    self.holds.open()
                    await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
