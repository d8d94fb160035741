"""``rxflow runs``, and the lines that name a command to copy: the copied command works."""

import json
import shlex
from pathlib import Path

import pytest

from rxflow import Flow
from rxflow.cli._runs import say_paused
from rxflow.flow import start
from rxflow.operators._core.run_log import RunSpec
from rxflow.runs import Runs
from rxflow.types import RunPaused
from tests.command import run_here as rxflow
from tests.screens.pseudo_terminal import PseudoTerminal

pytestmark = pytest.mark.timeout(200)

TRIPS = """
from rxflow import LLM, Agent, Crew, Flow, Task
from rxflow.flow import listen, start
from rxflow.tools import tool

def crew_of(*tools):
    agent = Agent(role="Writer", goal="g", backstory="b", llm=LLM("rxflow/demo"), tools=tools)
    return Crew(agents=[agent], tasks=[Task(description="Write about tides", expected_output="x", agent=agent)])

@tool(needs_approval=True)
def pay(subject: str) -> str:
    "Pay."
    return f"{subject} is paid"

class Paying(Flow):
    @start()
    def order(self):
        return crew_of(pay).kickoff().raw

class Writing(Flow):
    @start()
    def write(self):
        return crew_of().kickoff().raw + self.ask("Where to?")

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


class Curious(Flow):
    """A flow that is in no module of the folder."""

    @start()
    def choose(self) -> str:
        return str(self.ask("Where to?"))


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


class TestResume:
    def test_in_a_terminal_the_named_command_asks_and_carries_the_run_out(self, folder: Path) -> None:
        _, said = pause(folder, "sqlite:///my runs.db")
        arguments = copy(said, "resume", " takes the answer")
        with PseudoTerminal("-m", "rxflow", *arguments, cwd=folder) as shown:
            shown.wait_for("Where to?", ">>>")
            shown.press(b"Porto\n")
            assert shown.finish() == 0
        assert "done after" in shown.text
        assert shown.text.endswith("Porto")
        assert rxflow(folder, "runs", "list", "--store", "sqlite:///my runs.db", "--status", "completed")[1]

    def test_without_a_terminal_the_answers_are_options(self, folder: Path) -> None:
        run_id, _ = pause(folder, "sqlite:///runs.db", "trips:Twice")
        code, _, errors = rxflow(folder, "runs", "resume", run_id, "--answer", "Porto", "--plain")
        assert (code, errors.startswith(f"rxflow: run {run_id} is paused")) == (3, True)
        assert "When?" in rxflow(folder, "runs", "show", run_id)[1]
        code, out, errors = rxflow(folder, "runs", "resume", run_id, "--answer", "Monday", "--json")
        assert (code, errors) == (0, "")
        assert json.loads(out.splitlines()[-1])["data"]["result"] == "Porto on Monday"

    @pytest.mark.parametrize(("answer", "is_paid"), [("y", True), ("no, too dear", False)])
    def test_an_approval_is_answered_as_on_the_console(self, folder: Path, answer: str, is_paid: bool) -> None:
        run_id, _ = pause(folder, "sqlite:///runs.db", "trips:Paying")
        code, out, errors = rxflow(folder, "runs", "resume", run_id, "--answer", answer, "--plain")
        assert (code, errors) == (0, "")
        assert (" is paid" in out) == is_paid
        assert ("too dear" in out) != is_paid

    def test_a_run_that_was_started_without_a_name_needs_a_target(self, folder: Path) -> None:
        with Runs(f"sqlite:///{folder}/runs.db") as runs:
            run = runs.start(Curious())
            with pytest.raises(RunPaused):
                run.result()
        code, _, errors = rxflow(folder, "runs", "resume", run.id, "--answer", "Porto")
        assert (code, errors.count("\n")) == (2, 1)
        named = [each.replace("MODULE:NAME", "trips:Curious") for each in copy(errors, "resume", "\n")]
        assert rxflow(folder, *named, "--answer", "Porto", "--plain")[0] == 0

    def test_a_run_that_has_completed_is_not_resumed(self, folder: Path) -> None:
        run_id, _ = pause(folder, "sqlite:///runs.db")
        assert rxflow(folder, "runs", "resume", run_id, "--answer", "Porto", "--text")[0] == 0
        code, _, errors = rxflow(folder, "runs", "resume", run_id)
        said = f"rxflow: run {run_id} is completed: rxflow runs follow {run_id} shows it\n"
        assert (code, errors) == (2, said)

    def test_answers_that_no_question_waits_for_are_refused(self, folder: Path) -> None:
        run_id, _ = pause(folder, "sqlite:///runs.db")
        code, _, errors = rxflow(folder, "runs", "resume", run_id, "-a", "Porto", "-a", "Faro")
        assert (code, errors) == (2, "rxflow: 2 × --answer is too many: the run has 1 open question\n")
        assert rxflow(folder, "runs", "list", "--status", "paused")[1].startswith(run_id)

    def test_text_that_a_resumed_run_repeats_is_printed_once(self, folder: Path) -> None:
        run_id, _ = pause(folder, "sqlite:///runs.db", "trips:Writing")
        assert rxflow(folder, "runs", "resume", run_id, "--answer", "Porto", "--text") == (0, "", "")
        assert rxflow(folder, "runs", "follow", run_id, "--text")[1].count("My notes on") == 1
