"""Serving the application in this process, by uvicorn."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from rxflow._lazy import extra
from rxflow.flow import Flow
from rxflow.runs import Runs
from rxflow.runs.options import WhenUnread
from rxflow.screens.web.app import Limits, create_app
from rxflow.screens.web.guard import LOOPBACK

with extra("web"):
    import uvicorn

SHUTDOWN_S = 3
"""How long requests that go on may take when the server stops. Readers of events would never end by themselves."""


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
    """Serve ``flows`` until Ctrl-C; see :func:`create_app`. Runs that go on then are stopped.

    Args:
        host: where to listen.
        port: 0 takes a free one.
        token: see :func:`create_app`. Where other machines can reach the server and none is given, one is made.
        when_unread: see :func:`create_app`.
        on_ready: is called with the page's address as soon as the server listens. A token is part of it.

    Raises:
        ValueError: the ``token`` is too short, or ``when_unread`` is not a time.
        OSError: the port is in use, or may not be used.
    """
    if host not in LOOPBACK and token is None:
        token = secrets.token_urlsafe()
    app = create_app(
        flows, runs=runs, token=token, allowed_origins=allowed_origins, limits=limits, when_unread=when_unread
    )
    # Bound here: uvicorn would log a port that is in use, and exit.
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
    """Have the kernel cut connections to clients that take nothing for so long.

    uvicorn closes a connection only when all that waits for the client was sent. Connections inherit the option; where
    there is none (only Linux has it), such a one stays until the client goes.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * seconds))


def _address(host: str, port: int, token: str | None) -> str:
    query = "" if token is None else f"?{urlencode({'token': token})}"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/{query}"
