"""``rxflow runs``, and the lines that name a command to copy: the copied command works."""

import shlex
from pathlib import Path

import pytest

from rxflow.cli._runs import say_paused
from tests.command import run_here as rxflow

pytestmark = pytest.mark.timeout(200)

TRIPS = """
from rxflow import Flow
from rxflow.flow import listen, start

class Curious(Flow):
    @start()
    def choose(self):
        return self.ask("Where to?")

class Twice(Flow):
    @start()
    def first(self):
        return self.ask("Where to?")

    @listen(first)
    def second(self, place):
        return f"{place} on {self.ask('When?')}"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a module of flows that ask."""
    (tmp_path / "trips.py").write_text(TRIPS, encoding="utf-8")
    return tmp_path


def pause(folder: Path, store: str, target: str = "trips:Curious") -> tuple[str, str]:
    """The id of a run that is paused, and the line that the command ended with."""
    code, _, errors = rxflow(folder, "run", target, "--text", "--store", store)
    assert code == 3
    run_id = rxflow(folder, "runs", "list", "--store", store)[1].split()[0]
    return run_id, errors


def copy(line: str, verb: str, end: str) -> list[str]:
    """The arguments of the command that ``line`` names, as a shell reads them."""
    return shlex.split(line[line.index(f"rxflow runs {verb}") : line.index(end)])[1:]


class TestHints:
    @pytest.mark.parametrize("store", ["sqlite:///runs.db", "sqlite:///other.db", "sqlite:///my runs.db"])
    def test_the_command_that_a_paused_run_names_finds_it(self, folder: Path, store: str) -> None:
        run_id, said = pause(folder, store)
        code, shown, errors = rxflow(folder, *copy(said, "show", " shows it"))
        assert (code, errors) == (0, "")
        assert run_id in shown
        assert rxflow(folder, "runs", "follow", run_id, "--text", "--store", store)[2] == said

    def test_the_store_is_not_named_where_the_command_finds_it_anyway(self, folder: Path) -> None:
        run_id, _ = pause(folder, "sqlite:///other.db")
        _, _, errors = rxflow(folder, "runs", "follow", run_id, "--text", RXFLOW_STORE="sqlite:///other.db")
        assert "--store" not in errors.partition(" shows it")[0]

    def test_an_unknown_run_names_the_command_that_lists_the_runs(self, folder: Path) -> None:
        run_id, _ = pause(folder, "sqlite:///other.db")
        code, _, errors = rxflow(folder, "runs", "show", "xyz", "--store", "sqlite:///other.db")
        assert code == 2
        assert rxflow(folder, *copy(errors, "list", " lists"))[1].startswith(run_id)

    def test_a_missing_store_names_the_command_that_creates_it(self, folder: Path) -> None:
        _, _, errors = rxflow(folder, "runs", "list", "--store", "sqlite:///my runs.db")
        command = errors[errors.index("rxflow run ") : errors.index(" creates one")].replace(
            "MODULE:NAME", "trips:Curious"
        )
        assert rxflow(folder, *shlex.split(command)[1:])[0] == 3
        assert rxflow(folder, "runs", "list", "--store", "sqlite:///my runs.db")[0] == 0

    def test_a_password_of_a_store_is_not_repeated(self) -> None:
        assert "secret" not in say_paused("a1", "redis://:secret@host:6379/0")

    def test_the_folder_of_a_new_project_is_named_for_the_shell(self, folder: Path) -> None:
        _, out, _ = rxflow(folder, "new", "my trips/north")
        (line,) = (line.strip() for line in out.splitlines() if line.strip().startswith("cd "))
        assert shlex.split(line) == ["cd", "my trips/north"]
