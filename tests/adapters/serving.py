"""A real server on loopback, and a connection to it that a test can cut."""

import asyncio
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp


@contextmanager
def serve(app: ASGIApp) -> Generator[str]:
    """Serve ``app`` on a thread of its own; the address."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), name="uvicorn")
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


class CuttingProxy:
    """Passes bytes on, and cuts its first connection when it has passed on ``cut_at`` of them."""

    def __init__(self, target: str, cut_at: bytes) -> None:
        host, _, port = target.removeprefix("http://").partition(":")
        self._target = (host, int(port))
        self._cut_at = cut_at
        self.connections = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._sockets = [self._listening]

    def __enter__(self) -> "CuttingProxy":
        self._threads[0].start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            server = socket.create_connection(self._target)
            self._sockets += [client, server]
            cut_at = self._cut_at if self.connections == 1 else None
            for source, sink, limit in ((client, server, None), (server, client, cut_at)):
                thread = threading.Thread(target=_pass_on, args=(source, sink, limit))
                self._threads.append(thread)
                thread.start()


def _pass_on(source: socket.socket, sink: socket.socket, cut_at: bytes | None) -> None:
    seen = b""
    try:
        while data := source.recv(1 << 14):
            seen += data
            if cut_at is not None and cut_at in seen:
                sink.sendall(data[: max(0, len(data) - (len(seen) - seen.index(cut_at)))])
                break
            sink.sendall(data)
    except OSError:
        pass
    for each in (source, sink):
        try:
            each.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
