"""``rxflow runs``, and the lines that name a command to copy: the copied command works."""

import shlex
from pathlib import Path

import pytest

from rxflow.cli._runs import say_paused
from rxflow.operators._core.run_log import RunSpec
from rxflow.runs import Runs
from tests.command import run_here as rxflow
from tests.screens.pseudo_terminal import PseudoTerminal

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


class TestEnds:
    def test_a_cancelled_run_is_shown_as_cancelled(self, folder: Path) -> None:
        run_id, _ = pause(folder, "sqlite:///runs.db")
        assert rxflow(folder, "runs", "cancel", run_id, "--reason", "enough")[0] == 0
        code, out, errors = rxflow(folder, "runs", "follow", run_id, "--plain")
        assert (code, errors) == (1, "")
        *_, error, outcome = out.splitlines()
        assert error == f"/ RunCancelled: run '{run_id}' was cancelled: enough"
        assert outcome.startswith("cancelled after ")

    def test_a_cancelled_run_is_drawn_as_cancelled_in_a_terminal(self, folder: Path) -> None:
        run_id, _ = pause(folder, "sqlite:///runs.db")
        rxflow(folder, "runs", "cancel", run_id)
        with PseudoTerminal("-m", "rxflow", "runs", "follow", run_id, columns=150, cwd=folder) as shown:
            assert shown.finish() == 1
        assert "⊘ cancelled after " in shown.text
        assert "failed" not in shown.text

    def test_a_lost_run_is_shown_as_lost(self, folder: Path) -> None:
        with Runs(f"sqlite:///{folder}/runs.db", lease=0.05) as runs:
            runs.store.claim("a1", RunSpec(target="trips:Curious"), lambda note: None).result()
            runs.store.close()
        code, out, _ = rxflow(folder, "runs", "follow", "a1", "--plain")
        assert code == 1
        assert out.splitlines()[-1].startswith("lost after ")

    def test_a_paused_run_is_shown_as_paused(self, folder: Path) -> None:
        run_id, _ = pause(folder, "sqlite:///runs.db")
        code, out, _ = rxflow(folder, "runs", "follow", run_id, "--plain")
        assert code == 3
        assert out.splitlines()[-1].startswith("paused after ")
