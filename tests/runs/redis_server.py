"""A Redis of a test's own: Debian's redis-server on a free port, with a folder that goes with it."""

import random
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.gate import PATIENCE_S
from tests.programs import require


def find_free_port() -> int:
    """A port that the kernel does not give to others: below those that it hands out itself."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    while True:
        with suppress(OSError), socket.create_server(("127.0.0.1", random.randrange(10_000, lowest))) as free:
            return int(free.getsockname()[1])


class RedisServer:
    """Started and stopped as a test likes; the data outlive a stop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = find_free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = [
            require("redis-server", "redis-server"),
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(self._folder),
        ]
        command += ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
        self._process = process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 0.2) as connection:
                    connection.sendall(b"PING\r\n")
                    if connection.recv(16).startswith(b"+PONG") and process.poll() is None:
                        return
            except OSError:
                time.sleep(0.01)  # until it listens
        raise RuntimeError(f"redis-server did not start within 10 s on port {self.port}; its code: {process.poll()}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(PATIENCE_S)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
