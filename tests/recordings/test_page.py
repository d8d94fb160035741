"""docs/providers.md counts what the recordings hold."""

from tests.recordings import page
from tests.recordings.archive import require_library

LIBRARY = require_library(__name__)


def test_the_tables_of_the_page_are_those_of_the_recordings() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert text == page.fill(text, LIBRARY), "python -m tests.recordings.page writes them anew"
