"""What the tests of models share."""

import socket
from collections.abc import Iterator

import pytest


@pytest.fixture
def refusing_url() -> Iterator[str]:
    """The address of a port that refuses connections. The port is taken, so that no server of another test gets it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
