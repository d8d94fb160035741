"""What the tests with recordings share: the server that plays them, and who asks it."""

from collections.abc import Iterator

import pytest

from rxflow.llm import _io as io_loop
from tests.conftest import closing_clients
from tests.recordings.archive import Server, require_library
from tests.recordings.player import Player


@pytest.fixture(scope="session")
def server(litellm_is_warm: None) -> Iterator[Server]:
    with require_library(__name__).serve() as server:
        yield server


@pytest.fixture(scope="session")
def player(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Player:
    token_file = tmp_path_factory.mktemp("vertex") / "token"
    token_file.write_text("any text")
    return Player(server, token_file)


@pytest.fixture(autouse=True)
def clients_are_closed(litellm_is_warm: None) -> Iterator[None]:
    """Each recording has a base URL of its own, and litellm a client for each: it forgets the oldest unclosed."""
    yield
    io_loop.submit(closing_clients()).result()
