"""What the tests with recordings share: the server that plays them, and who asks it."""

from collections.abc import Iterator

import pytest

from tests.recordings.library import Server, find_library
from tests.recordings.player import Player


@pytest.fixture(scope="session")
def server(litellm_is_warm: None) -> Iterator[Server]:
    library = find_library()
    assert library is not None, "the modules of these tests are skipped if there are no recordings"
    with library.serve() as server:
        yield server


@pytest.fixture(scope="session")
def player(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Player:
    token_file = tmp_path_factory.mktemp("vertex") / "token"
    token_file.write_text("any text")
    return Player(server, token_file)
