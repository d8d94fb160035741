"""A server that takes a connection and never says a word, as one does that hangs."""

import socket
import threading
import time
from types import TracebackType
from typing import Self

from tests.gate import Gate


class SilentServer:
    """Accepts one client; ``heard`` opens at its first byte, ``gone`` when it has closed, at ``gone_at``."""

    def __init__(self) -> None:
        self.heard = Gate()
        self.gone = Gate()
        self.gone_at = 0.0

    @property
    def url(self) -> str:
        """Over TLS, which a client has to negotiate before it is connected."""
        return f"https://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, name="silent server", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        with client:
            while True:
                try:
                    data = client.recv(65536)
                except ConnectionError:
                    data = b""
                if not data:
                    break
                self.heard.open()
            self.gone_at = time.monotonic()
            self.gone.open()
