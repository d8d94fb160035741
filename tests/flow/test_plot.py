"""``plot`` writes the page where the caller stands, and opens it where there is a browser."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rxflow.flow import Flow, listen, start


class Drawn(Flow):
    @start()
    def begin(self) -> None: ...

    @listen(begin)
    def end(self) -> None: ...


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_page_is_written_where_the_caller_stands_and_its_path_returned(here: Path) -> None:
    path = Drawn().plot("my_flow", show=False)
    assert path == here / "my_flow.html"
    assert "<svg" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(("given", "written"), [("a.html", "a.html"), ("v1.2", "v1.2.html"), ("sub/b", "sub/b.html")])
def test_the_ending_is_added_where_it_is_missing(here: Path, given: str, written: str) -> None:
    (here / "sub").mkdir()
    assert Drawn().plot(given, show=False) == here / written


def test_the_page_carries_the_name_of_the_flow(here: Path) -> None:
    assert "<h1>Harbour</h1>" in Drawn(name="Harbour").plot("named", show=False).read_text(encoding="utf-8")


# The standard library reads BROWSER: here it is a program that notes what it was to open.
NOTE = "import sys, pathlib; pathlib.Path({opened!r}).write_text(sys.argv[1])"
OPEN = "from tests.flow.test_plot import Drawn; Drawn().plot('my_flow'{arguments})"


def opened(here: Path, *, display: str, arguments: str = "") -> str | None:
    script = here / "browser.py"
    script.write_text(NOTE.format(opened=str(here / "opened.txt")), encoding="utf-8")
    environment = dict(os.environ) | {"BROWSER": f"{sys.executable} {script} %s", "DISPLAY": display}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    environment.pop("WAYLAND_DISPLAY", None)
    subprocess.run([sys.executable, "-c", OPEN.format(arguments=arguments)], cwd=here, env=environment, check=True)
    note = here / "opened.txt"
    return note.read_text(encoding="utf-8") if note.exists() else None


def test_it_is_opened_where_there_is_a_browser(here: Path) -> None:
    assert opened(here, display=":0") == (here / "my_flow.html").as_uri()


def test_it_is_not_opened_where_there_is_no_screen_or_nobody_wants_it(here: Path) -> None:
    assert opened(here, display="") is None
    assert opened(here, display=":0", arguments=", show=False") is None
