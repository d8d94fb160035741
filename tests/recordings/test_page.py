"""docs/providers.md counts what the recordings hold."""

import pytest

from tests.recordings import page
from tests.recordings.library import VARIABLE, find_library

LIBRARY = find_library()
if LIBRARY is None:
    pytest.skip(f"there are no recordings beside this checkout, and none in {VARIABLE}", allow_module_level=True)


def test_the_tables_of_the_page_are_those_of_the_recordings() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert text == page.fill(text, LIBRARY), "python -m tests.recordings.page writes them anew"
