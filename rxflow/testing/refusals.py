"""What cannot be done in virtual time: whatever the world outside has to answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

SOCKET_METHODS = (
    "add_reader",
    "add_writer",
    "connect_accepted_socket",
    "connect_read_pipe",
    "connect_write_pipe",
    "create_connection",
    "create_datagram_endpoint",
    "create_server",
    "create_unix_connection",
    "create_unix_server",
    "getaddrinfo",
    "getnameinfo",
    "sendfile",
    "sock_accept",
    "sock_connect",
    "sock_recv",
    "sock_recv_into",
    "sock_recvfrom",
    "sock_recvfrom_into",
    "sock_sendall",
    "sock_sendfile",
    "sock_sendto",
    "start_tls",
    "subprocess_exec",
    "subprocess_shell",
)
"""The methods of an event loop that go out to the world."""


class RealSocketInVirtualTime(RuntimeError):
    """Something asked for a socket, a pipe or a process on a loop whose time is virtual."""


class ProviderInVirtualTime(RuntimeError):
    """A model of a real provider was asked on a loop whose time is virtual."""

    def __init__(self) -> None:
        super().__init__(
            "a real provider cannot be called in virtual time, which would have passed before its answer came; "
            "give this code a ScriptedLLM, or run it on a real event loop (asyncio.run)"
        )


def refusal(name: str) -> Callable[..., NoReturn]:
    """A method that refuses."""

    def refuse(self: object, *args: Any, **kwargs: Any) -> NoReturn:
        given = ", ".join([*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())])
        raise RealSocketInVirtualTime(
            f"loop.{name}({given}) needs the world outside, which does not wait for virtual time; "
            "replace what calls it in this test, or run the test on a real event loop (asyncio.run)"
        )

    refuse.__name__ = name
    return refuse
