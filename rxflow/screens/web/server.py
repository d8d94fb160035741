"""Serves the web application in this process, with uvicorn."""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from rxflow._lazy import extra
from rxflow.flow import Flow
from rxflow.runs import Runs, WhenUnread
from rxflow.screens.web.app import Limits, create_app
from rxflow.screens.web.guard import LOOPBACK

with extra("web"):
    import uvicorn

logger = logging.getLogger("rxflow")

SHUTDOWN_S = 3
"""How many seconds the server waits for open requests when it stops.

The request of a reader may stay open as long as the run is live, so the wait must be limited.
"""


def serve(
    flows: type[Flow[Any]] | Mapping[str, type[Flow[Any]]],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    runs: Runs | None = None,
    token: str | None = None,
    allowed_origins: tuple[str, ...] = (),
    limits: Limits | None = None,
    when_unread: WhenUnread = "detach",
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve ``flows`` until Ctrl-C, then raise KeyboardInterrupt.

    :func:`create_app` describes the arguments that are not listed here.

    Without ``runs``, the server cancels its live runs when it stops. With ``runs``, the live runs continue until you
    close ``runs``.

    Args:
        host: the address to listen on.
        port: the port; 0 chooses a free one.
        token: see :func:`create_app`. If other machines can reach the server and there is no token, one is generated.
        on_ready: called as soon as the server listens. The argument is the page's address. If there is a token, the
            address contains the token. Without ``on_ready``, an address with a generated token is logged as a warning,
            because nobody else knows the token.

    Raises:
        TypeError: ``flows`` are not flow classes, or ``when_unread`` has a wrong type.
        ValueError: ``token`` is too short, or has a character that is not printable ASCII; or ``when_unread`` has a
            wrong value.
        OSError: the server cannot listen on the port, for example because the port is in use.
    """
    if host not in LOOPBACK and token is None:
        token = secrets.token_urlsafe()
        on_ready = on_ready or _log_address
    app = create_app(
        flows, runs=runs, token=token, allowed_origins=allowed_origins, limits=limits, when_unread=when_unread
    )
    # The socket is bound here, because uvicorn would only log that a port is in use, and exit.
    listening = _listen(host, port)
    _limit_unread(listening, (limits or Limits()).unread_s)
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=SHUTDOWN_S)
    )
    try:
        if on_ready is not None:
            on_ready(_address(host, listening.getsockname()[1], token))
        server.run(sockets=[listening])
    finally:
        listening.close()


def _log_address(address: str) -> None:
    logger.warning("the server has generated a token; open %s", address)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listening


def _limit_unread(listening: socket.socket, seconds: float) -> None:
    """Let the kernel close a connection if its client reads nothing for ``seconds`` seconds.

    uvicorn alone would close such a connection only after sending everything that waits for the client. The option
    ``TCP_USER_TIMEOUT`` is set on the listening socket, and its connections inherit the option. On systems without this
    option, the connection stays open until the client leaves.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * seconds))


def _address(host: str, port: int, token: str | None) -> str:
    query = "" if token is None else f"?{urlencode({'token': token})}"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/{query}"
