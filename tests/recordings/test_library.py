"""Where the recordings are looked for."""

from pathlib import Path

import pytest

from tests.recordings.archive import VARIABLE, find_library


def test_a_folder_that_is_named_and_holds_none_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"RXFLOW_RECORDINGS=.*: there is no recordings\.zip in it"):
        find_library()


def test_a_folder_that_is_named_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "recordings.zip").touch()
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    library = find_library()
    assert library is not None
    assert library.folder == tmp_path
