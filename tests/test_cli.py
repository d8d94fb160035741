"""The command ``rxflow``, as a person types it: in terminals and pipes, with mistakes and interruptions."""

import ast
import fcntl
import json
import keyword
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rxflow.operators._core.run_log import RunSpec
from rxflow.runs import Runs
from rxflow.types.codec import decode
from rxflow.types.events import FlowFinished, FlowStarted
from tests.command import run_here as rxflow
from tests.loopback import Loopback, Reply
from tests.screens.pseudo_terminal import CTRL_C, CTRL_D, PseudoTerminal, inherited, run_piped

pytestmark = pytest.mark.timeout(200)

TRIPS = """
from pydantic import BaseModel
from rxflow import LLM, Agent, Crew, Flow, Task
from rxflow.flow import listen, start

class State(BaseModel):
    topic: str = "nothing"
    days: int = 1

def crew_of(model):
    writer = Agent(role="Writer", goal="g", backstory="b", llm=model)
    return Crew(agents=[writer], tasks=[Task(description="Write about {topic}", expected_output="x", agent=writer)])

class Trip(Flow[State]):
    @start()
    def plan(self):
        return crew_of(LLM("rxflow/demo")).kickoff({"topic": self.state.topic}).raw

class Plain(Flow):
    @start()
    def show(self):
        return repr(sorted(self.state.items()))

class Failing(Flow):
    @start()
    def fail(self):
        raise LookupError("no such place")

class Asking(Flow):
    @start()
    def ask(self):
        return crew_of(None).kickoff({"topic": "tides"}).raw

class Waiting(Flow):
    @start()
    def wait(self):
        import threading
        print("waits", flush=True)
        threading.Event().wait()

class Hung(Flow):
    @start()
    def hang_up(self):
        import os, signal
        os.kill(os.getpid(), signal.SIGHUP)

class Curious(Flow):
    @start()
    def choose(self):
        return self.ask("Where to?")

class Provided(Flow):
    def __init__(self):
        super().__init__(input_provider=lambda request: "Faro")

    @start()
    def choose(self):
        return self.ask("Where to?")

class Needy(Flow):
    def __init__(self, place):
        super().__init__()

crew = crew_of(LLM("rxflow/demo"))
number = 42

def count():
    return 42
"""

ALONE = """
from rxflow import Flow
from rxflow.flow import start

class Only(Flow):
    @start()
    def go(self):
        return "gone"
"""

CREWS = """
from alone import Only
from rxflow import project
from rxflow.project import CrewBase, crew

NAME = "Team"
only = Only()

@CrewBase
class Team:
    @crew
    def crew(self):
        raise RuntimeError("no tea")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a module of flows."""
    (tmp_path / "trips.py").write_text(TRIPS, encoding="utf-8")
    (tmp_path / "script.py").write_text("import sys\n\nsys.exit(3)\n", encoding="utf-8")
    (tmp_path / "broken.py").write_text("import trips\n\nx = 1 / 0\n", encoding="utf-8")
    (tmp_path / "alone.py").write_text(ALONE, encoding="utf-8")
    (tmp_path / "torn.cassette").write_text('{"cassette": "rxflow", "version": 1}\n?\n', encoding="utf-8")
    (tmp_path / "crews.py").write_text(CREWS, encoding="utf-8")
    for name, code in (("divided", "x = 1 / 0"), ("lacking", "import tea"), ("leaving", "raise SystemExit(3)")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(code + "\n", encoding="utf-8")
        (tmp_path / name / "flow.py").write_text("", encoding="utf-8")
    return tmp_path


def start(folder: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """The same in a process of its own, for what needs one: a terminal, a pipe, signals, an encoding, a crash."""
    done = run_piped("-m", "rxflow", *arguments, cwd=folder, environment=environment)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_an_error_of_the_call_itself_names_no_place_in_the_command(folder: Path) -> None:
    _, _, errors = rxflow(folder, "run", "trips:Needy")
    assert errors.endswith("missing 1 required positional argument: 'place'\n")


def test_ctrl_c_while_the_command_is_still_being_loaded_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt\n", encoding="utf-8")
    code, out, errors = start(tmp_path, "run", "trips:Trip")
    assert (code, out, errors) == (130, "", "rxflow: interrupted; nothing was run\n")


def test_run_shows_lines_in_a_pipe(folder: Path) -> None:
    code, out, errors = start(folder, "run", "trips:Trip", "--input", "topic=tides")
    assert (code, errors) == (0, "")
    lines = out.splitlines()
    assert lines[:3] == ["> Trip", "> Trip / plan", "> Trip / plan / Writer: Write about tides"]
    assert lines[3].startswith("Writer: My notes on “tides”.")
    assert re.fullmatch(r"done after \d+\.\d s, 1 of 1 method, \d+ tokens, \$0\.00", lines[-1])


@pytest.mark.parametrize("columns", [60, pytest.param(200, marks=pytest.mark.slow)])
def test_run_draws_a_dashboard_in_a_terminal(folder: Path, columns: int) -> None:
    arguments = ("-m", "rxflow", "run", "trips:Trip", "-i", "topic=tides")
    with PseudoTerminal(*arguments, columns=columns, cwd=folder) as shown:
        assert shown.finish() == 0
    assert "└ ✓ Writer · Write about tides" in shown.text
    assert "✓ done after" in shown.text
    assert max(map(len, shown.lines)) <= columns


def test_text_is_what_the_models_write_and_nothing_else(folder: Path) -> None:
    code, out, errors = rxflow(folder, "run", "trips:Trip", "--text", "-i", "topic=tides")
    assert (code, errors) == (0, "")
    assert out.startswith("My notes on “tides”.")
    assert out.endswith("it knows nothing but its prompt.\n")
    assert out.count("\n") == 1


def test_a_character_that_the_output_cannot_hold_ends_nothing(folder: Path) -> None:
    latin = {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    done = run_piped(
        *("-m", "rxflow", "run", "trips:Trip", "--text", "-i", "topic=Évora 日本", "--store", "sqlite:///runs.db"),
        cwd=folder,
        environment=latin,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode("latin-1").startswith("My notes on ?Évora ???.")
    with Runs(f"sqlite:///{folder / 'runs.db'}") as runs:
        (run,) = runs.list()
    shown = run_piped(
        "-m", "rxflow", "runs", "show", run.id, "--store", "sqlite:///runs.db", cwd=folder, environment=latin
    )
    assert shown.returncode == 0
    assert "Évora ??" in shown.stdout.decode("latin-1")


def test_json_is_every_event_in_a_line_that_the_codec_reads(folder: Path) -> None:
    code, out, errors = rxflow(folder, "run", "trips:Trip", "--json", "-i", "topic=tides", "-i", "days:=3")
    assert (code, errors) == (0, "")
    events = [decode(line) for line in out.splitlines()]
    assert isinstance(events[0], FlowStarted)
    assert events[0].inputs == {"topic": "tides", "days": 3}
    assert isinstance(events[-1], FlowFinished)


def test_inputs_are_text_or_json(folder: Path) -> None:
    given = ("-i", "place=Porto = home", "-i", "days:=3", "-i", "empty=", "-i", "id=x")
    _, out, _ = rxflow(folder, "run", "trips:Plain", "--json", *given)
    finished = json.loads(out.splitlines()[-1])["data"]
    assert finished["result"] == repr([("days", 3), ("empty", ""), ("id", "x"), ("place", "Porto = home")])


def test_a_crew_runs_too(folder: Path) -> None:
    code, out, _ = rxflow(folder, "run", "trips:crew", "--text", "-i", "topic=wind")
    assert code == 0
    assert out.startswith("My notes on “wind”.")


def test_the_model_of_agents_that_name_none_is_given(folder: Path) -> None:
    code, out, _ = rxflow(folder, "run", "trips:Asking", "--text", "--model", "rxflow/demo")
    assert code == 0
    assert out.startswith("My notes on “tides”.")


def test_a_run_that_fails_says_why_and_exits_with_1(folder: Path) -> None:
    code, out, errors = rxflow(folder, "run", "trips:Failing")
    assert (code, errors) == (1, "")
    assert "x Failing: LookupError: no such place" in out.splitlines()
    code, out, errors = rxflow(folder, "run", "trips:Failing", "--text")
    assert (code, out, errors) == (1, "", "rxflow: LookupError: no such place\n")
    code, _, errors = start(folder, "run", "trips:Failing", "--text", "--traceback")
    assert code == 1
    assert "Traceback" in errors


@pytest.mark.parametrize("style", ["--plain", "--text"])
def test_a_run_that_asks_where_nobody_answers_is_paused_and_exits_with_3(folder: Path, style: str) -> None:
    code, _, errors = rxflow(folder, "run", "trips:Curious", style)
    assert (code, errors) == (
        3,
        "rxflow: the run is paused, because nobody can answer its question; run it in a terminal\n",
    )


@pytest.mark.parametrize("style", [[], pytest.param(["--plain"], marks=pytest.mark.slow)], ids=" ".join)
@pytest.mark.parametrize("store", [[], ["--store", "sqlite:///runs.db"]], ids=["without a store", "with a store"])
def test_in_a_terminal_the_person_there_is_asked(folder: Path, style: list[str], store: list[str]) -> None:
    with PseudoTerminal("-m", "rxflow", "run", "trips:Curious", *style, *store, cwd=folder) as shown:
        shown.wait_for("Where to?", ">>>")
        shown.press(b"Porto\n")
        assert shown.finish() == 0
    assert "done after" in shown.text
    if store:
        (listed,) = rxflow(folder, "runs", "list", "--status", "completed")[1].splitlines()
        run_id = listed.split()[0]
        assert "asks" not in rxflow(folder, "runs", "show", run_id)[1]
        assert (
            json.loads(rxflow(folder, "runs", "follow", run_id, "--json")[1].splitlines()[-1])["data"]["result"]
            == "Porto"
        )


def test_in_a_terminal_nobody_is_asked_what_the_flow_answers_itself(folder: Path) -> None:
    arguments = ("-m", "rxflow", "run", "trips:Provided", "--plain", "--store", "sqlite:///runs.db")
    with PseudoTerminal(*arguments, cwd=folder) as shown:
        assert shown.finish() == 0
    assert ">>>" not in shown.text


@pytest.mark.parametrize("store", [[], ["--store", "sqlite:///runs.db"]], ids=["without a store", "with a store"])
def test_a_person_who_does_not_answer_leaves_the_run_paused(folder: Path, store: list[str]) -> None:
    arguments = ("-m", "rxflow", "run", "trips:Curious", "--plain", *store)
    with PseudoTerminal(*arguments, columns=300, cwd=folder) as shown:
        shown.wait_for("Where to?", ">>>")
        shown.press(CTRL_D)
        assert shown.finish() == 3
    said = "the run is paused, because its question was not answered; run it again to answer"
    if store:
        run_id = rxflow(folder, "runs", "list", "--status", "paused")[1].split()[0]
        said = answered_elsewhere(run_id)
    assert shown.text.endswith(f"rxflow: {said}")


def answered_elsewhere(run_id: str) -> str:
    return (
        f"run {run_id} is paused until its question is answered: rxflow runs show {run_id} shows it, "
        f"and rxflow runs resume {run_id} takes the answer (without a terminal: with --answer TEXT)"
    )


def test_a_paused_run_in_a_store_says_how_it_is_answered(folder: Path) -> None:
    code, _, errors = rxflow(folder, "run", "trips:Curious", "--text", "--store", "sqlite:///runs.db")
    run_id = rxflow(folder, "runs", "list")[1].split()[0]
    assert (code, errors) == (3, f"rxflow: {answered_elsewhere(run_id)}\n")
    assert rxflow(folder, "runs", "follow", run_id, "--text")[2] == errors


def test_a_recorded_run_that_was_paused_says_so(folder: Path) -> None:
    rxflow(folder, "run", "trips:Curious", "--text", "--record", "a.cassette")
    code, _, errors = rxflow(folder, "replay", "a.cassette", "--text")
    assert (code, errors) == (3, "rxflow: the recorded run was paused, because its question was not answered\n")


def test_without_a_key_one_line_says_which_variable_it_wants(folder: Path) -> None:
    code, out, errors = rxflow(folder, "run", "trips:Asking", "--text", "--model", "openai/gpt-4.1-mini")
    assert (code, out) == (1, "")
    (line,) = errors.splitlines()
    assert "OPENAI_API_KEY is not set" in line
    assert "→ set OPENAI_API_KEY to a valid key" in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "trip:Trip"], "there is no module 'trip', neither in {folder} nor installed"),
        (["run", "trips:Tripp"], "trips has no 'Tripp'; did you mean 'Trip'?"),
        (
            ["run", "trips:xyz"],
            "trips has no 'xyz'; it has Asking, Curious, Failing, Hung, Needy, Plain, Provided, Trip, Waiting, crew",
        ),
        (["run", "trips:number"], "trips:number is an int, not a flow or a crew"),
        (["run", "trips:State"], "trips:State is a subclass of BaseModel, not a flow or a crew"),
        (["run", "trips:count"], "trips:count returns an int, not a flow or a crew"),
        (["serve", "trips:State"], "trips:State is a subclass of BaseModel, not a flow class"),
        (["serve", "trips:count"], "trips:count is a function, not a flow class"),
        (["serve", "trips:crew"], "trips:crew is a Crew, not a flow class"),
        (["serve", "trips:number"], "trips:number is an int, not a flow class"),
        (["serve", "crews:project"], "crews:project is a module, not a flow class"),
        (["serve", "crews:Team"], "crews:Team is a crew class, not a flow class"),
        (["serve", "crews:NAME"], "crews:NAME is a str, not a flow class"),
        (["serve", "crews:only"], "crews:only is a flow; each run needs a flow of its own, so name its class, Only"),
        (["run", "trips.Trip"], "there is no module 'trips.Trip'; did you mean trips:Trip?"),
        (["serve", "trips.Trip"], "there is no module 'trips.Trip'; did you mean trips:Trip?"),
        (["run", "trips.Tripp"], "there is no module 'trips.Tripp', neither in {folder} nor installed"),
        (["run", "trips.py:Trip"], "'trips.py' is a file; name the module, trips:Trip"),
        (["run", "trips:"], "'trips:' is not MODULE:NAME, for example trips:Trip"),
        (
            ["run", "trips"],
            "name one of trips:Asking, trips:Curious, trips:Failing, trips:Hung, trips:Needy, trips:Plain, ",
        ),
        (["run", "broken:Trip"], "importing broken failed: ZeroDivisionError: division by zero (broken.py, line 3)"),
        (
            ["run", "divided.flow:Trip"],
            "importing divided.flow failed: ZeroDivisionError: division by zero (__init__.py",
        ),
        (["run", "lacking.flow:Trip"], "importing lacking.flow failed: ModuleNotFoundError: No module named 'tea' ("),
        (["run", "leaving.flow:Trip"], "importing leaving.flow failed: it ends the program (SystemExit: 3); "),
        (["run", "trips.flow:Trip"], "there is no module 'trips.flow', neither in {folder} nor installed"),
        (["run", ".trips:Trip"], "'.trips' is a relative name; name the module from the current folder"),
        (["run", "crews:Team"], "crews:Team cannot be created: RuntimeError: no tea (crews.py, line 13)"),
        (["run", "trips:Needy"], "trips:Needy cannot be created: TypeError: "),
        (["run", "script:Trip"], "importing script failed: it ends the program (SystemExit: 3); let it do so only if "),
        (["run", "trips:Trip", "-i", "tpic=a"], "the state State has no field 'tpic'; did you mean 'topic'?"),
        (["run", "trips:Trip", "-i", "days=many"], "Invalid inputs for structured state: days: Input should be a "),
        (["run", "trips:Trip", "-i", "days"], "--input 'days' is not NAME=TEXT (or NAME:=JSON)"),
        (["run", "trips:Trip", "-i", "days:=many"], "--input 'days' is not JSON: "),
        (["run", "trips:Trip", "-i", "days=1", "-i", "days=2"], "--input 'days' is given twice"),
        (["run", "trips:Trip", "--json", "--text"], "--json and --text cannot be used together"),
        (
            ["run", "trips:Trip", "--store", "runs.db"],
            "--store 'runs.db' is not the URL of a store; write sqlite:///ru",
        ),
        (
            ["run", "trips:Trip", "--store", "/a/b.db"],
            "--store '/a/b.db' is not the URL of a store; write sqlite:////a",
        ),
        (
            ["serve", "trips:Trip", "--store", "sqlite://a.db"],
            "--store 'sqlite://a.db' is not the URL of a store; write",
        ),
        (
            ["runs", "list", "--store", "runs.db"],
            "--store 'runs.db' is not the URL of a store; write sqlite:///runs.db\n",
        ),
        (
            ["runs", "list", "--store", "postgres://a"],
            "--store 'postgres://a' is not the URL of a store, such as sqlite:///runs.db or redis://host:6379/0",
        ),
        (["runs", "list", "--store", "sqlite:///"], "--store 'sqlite:///' is not the URL of a store, such as sqlite:"),
        (["serve", "trips:Trip", "--cluster", "auto"], "--cluster needs a store that all its machines can reach, such"),
        (["replay", "trips.py"], "trips.py, line 1: not JSON"),
        (["replay", "torn.cassette"], "torn.cassette, line 2: not JSON"),
        (["replay", "no.cassette"], "there is no file 'no.cassette'"),
        (["replay", "trips.py", "--speed", "0"], "from_cassette(speed) must be a number above 0"),
        (["plot", "trips:crew"], "trips:crew is a Crew; only a flow has a graph to draw"),
        (["plot", "trips:Trip", "-o", "no/such/folder/page"], "No such file or directory: "),
        (["plot", "trips:Trip", "-o", "."], "'.' is a folder; name the file to write"),
        (["plot", "trips:Trip", "-o", ".."], "'..' is a folder; name the file to write"),
        (["new", "2trips"], "'2trips' cannot be the name of a project"),
        (["new", "."], "'' cannot be the name of a project"),
        (["new", "none"], "'none' cannot be the name of a project: None, the class of its flow, has another meaning"),
        (["new", "crew"], "'crew' cannot be the name of a project: Crew, the class of its flow, has another meaning"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line_and_nothing_runs(folder: Path, arguments: list[str], said: str) -> None:
    before = sorted(folder.iterdir())
    code, out, errors = rxflow(folder, *arguments)
    assert (code, out) == (2, "")
    (line,) = errors.splitlines()
    assert f"{line}\n".startswith(f"rxflow: {said.format(folder=folder)}")
    assert [path for path in sorted(folder.iterdir()) if path.name != "__pycache__"] == before


def test_a_crew_without_an_input_that_it_needs_says_which(folder: Path) -> None:
    code, _, errors = rxflow(folder, "run", "trips:crew", "--text", "-i", "subject=tides")
    assert code in (1, 2)
    (line,) = errors.splitlines()
    assert "needs the input 'topic', which is missing" in line


def test_without_the_extra_the_line_names_it(folder: Path) -> None:
    (folder / "typer.py").write_text(
        "raise ModuleNotFoundError('No module named typer', name='typer')", encoding="utf-8"
    )
    code, out, errors = start(folder, "--version")
    assert (code, out) == (2, "")
    assert errors == "rxflow: typer is not installed; it comes with: pip install 'rxflow[cli]'\n"


def test_a_recorded_run_is_played_again(folder: Path) -> None:
    _, out, _ = rxflow(folder, "run", "trips:Trip", "--plain", "--record", "a.cassette", "-i", "topic=tides")
    code, again, errors = rxflow(folder, "replay", "a.cassette", "--speed", "inf", "--plain")
    assert (code, errors) == (0, "")
    assert again.splitlines()[:-1] == out.splitlines()[:-1]


def test_plot_writes_a_page_and_says_where(folder: Path) -> None:
    code, out, _ = rxflow(folder, "plot", "trips:Trip")
    assert (code, out) == (0, f"{folder / 'Trip.html'}\n")
    assert "plan" in (folder / "Trip.html").read_text(encoding="utf-8")
    assert rxflow(folder, "plot", "trips:Trip", "--mermaid")[1].startswith("flowchart")


@pytest.mark.slow
def test_a_new_project_runs_offline_and_its_tests_pass(folder: Path) -> None:
    code, out, _ = rxflow(folder, "new", "sea-voyage")
    assert code == 0
    project = folder / "sea-voyage"
    *_, command = (line.strip() for line in out.splitlines() if line.strip().startswith("rxflow "))
    code, out, errors = rxflow(project, *command.split()[1:])
    assert (code, errors) == (0, "")
    assert "Researcher -> look_up(subject='tides')" in out
    tested = run_piped("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=project)
    assert tested.returncode == 0, tested.stdout.decode()
    assert rxflow(folder, "new", "sea-voyage") == (
        2,
        "",
        "rxflow: 'sea-voyage' exists; choose another name, or remove it\n",
    )


def test_a_new_project_never_has_a_name_that_its_module_uses_otherwise(folder: Path) -> None:
    assert rxflow(folder, "new", "probe")[0] == 0
    module = ast.parse((folder / "probe" / "flow.py").read_text(encoding="utf-8"))
    used = {node.id for node in ast.walk(module) if isinstance(node, ast.Name)}
    used |= {node.name for node in ast.walk(module) if isinstance(node, ast.alias | ast.ClassDef)} - {"Probe"}
    for name in sorted(each for each in (*used, *keyword.kwlist) if each[0].isupper()):
        typed = "-".join(re.findall("[A-Z][a-z]*", name)).lower()
        code, _, errors = rxflow(folder, "new", typed)
        said = (
            f"rxflow: '{typed}' cannot be the name of a project: {name}, the class of its flow, has another meaning\n"
        )
        assert (code, errors) == (2, said)


@pytest.mark.parametrize(
    "style",
    [
        [],
        ["--text"],
        pytest.param(["--plain"], marks=pytest.mark.slow),
        pytest.param(["--json"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_ctrl_c_stops_at_the_provider_and_says_in_one_line_what_it_cost(folder: Path, style: list[str]) -> None:
    with Loopback() as provider:
        provider.script(Reply(text=["One ", "two ", "three "], hold_after=3))
        arguments = ("-m", "rxflow", "run", "trips:Asking", "--model", "openai/gpt-4o", *style)
        environment = {"OPENAI_BASE_URL": provider.url, "OPENAI_API_KEY": "k", "COLUMNS": "100"}
        with PseudoTerminal(*arguments, columns=100, cwd=folder, environment=environment) as shown:
            provider.wait_until(lambda seen: seen.chunks_sent >= 3)
            shown.wait_for("Asking" if style != ["--text"] else "three")
            shown.press(CTRL_C)
            assert shown.finish() == 130
        (gone,) = provider.wait_until(lambda seen: seen.disconnects)
        assert gone.phase == "mid_stream"
    last = [line for line in shown.lines if line][-1]
    assert re.search(r"stopped after \d+\.\d s, (0 of 1 method, )?(~\d+ tokens, \$0\.\d+|no tokens)$", last)
    assert "Traceback" not in shown.text


def test_one_ctrl_c_is_enough_when_a_method_blocks(folder: Path) -> None:
    with PseudoTerminal("-m", "rxflow", "run", "trips:Waiting", cwd=folder) as shown:
        shown.wait_for("waits")
        shown.press(CTRL_C)
        assert shown.finish() == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_a_signal_that_ends_it_puts_the_cursor_back(folder: Path, number: signal.Signals) -> None:
    with PseudoTerminal("-m", "rxflow", "run", "trips:Waiting", cwd=folder) as shown:
        shown.wait_for("waits")
        shown.process.send_signal(number)
        assert shown.finish() == 128 + number
    assert shown.raw.rindex(b"\x1b[?25h") > shown.raw.rindex(b"\x1b[?25l")


def test_a_hangup_that_its_caller_ignores_does_not_end_it(folder: Path) -> None:
    """As ``nohup rxflow run …`` does."""
    code = "import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); from rxflow.__main__ import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "run", "trips:Hung", "--text"], cwd=folder, env=inherited(), stdout=subprocess.PIPE
    ) as ignoring:
        assert ignoring.wait(100) == 0


@pytest.mark.parametrize(
    "style", ["--plain", pytest.param("--text", marks=pytest.mark.slow), pytest.param("--json", marks=pytest.mark.slow)]
)
def test_a_closed_pipe_ends_it_quietly(folder: Path, style: str) -> None:
    command = f"{sys.executable} -m rxflow run trips:Trip {style} -i topic=tides | head -c 20"
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=inherited(), capture_output=True, text=True, check=False, timeout=100
    )
    assert len(done.stdout.encode()) <= 20
    assert done.stderr == ""


@pytest.mark.parametrize("options", [["--text"], ["--json"], ["--text", "--traceback"]])
def test_a_broken_pipe_of_the_run_itself_is_an_error_of_the_run(folder: Path, options: list[str]) -> None:
    (folder / "piping.py").write_text(PIPING, encoding="utf-8")
    code, _, errors = rxflow(folder, "run", "piping:Piping", *options)
    assert (code, errors) == (1, "rxflow: BrokenPipeError: [Errno 32] the subprocess is gone\n")


PIPING = """
from rxflow import Flow
from rxflow.flow import start

class Piping(Flow):
    @start()
    def pipe(self):
        raise BrokenPipeError(32, "the subprocess is gone")
"""


def test_help_and_version_are_plain_in_narrow_ascii(folder: Path) -> None:
    narrow = {"COLUMNS": "60", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    code, out, _ = start(folder, "run", "--help", **narrow)
    assert code == 0
    assert out.isascii()
    assert max(map(len, out.splitlines())) <= 60
    assert re.fullmatch(r"\d+\.\d+.*\n", rxflow(folder, "--version")[1])


def test_the_command_is_installed() -> None:
    command = Path(sys.executable).with_name("rxflow" + (".exe" if os.name == "nt" else ""))
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0


def test_a_run_in_a_store_is_listed_shown_and_followed_from_other_processes(folder: Path) -> None:
    assert rxflow(folder, "runs", "list") == (
        2,
        "",
        "rxflow: there is no store 'sqlite:///runs.db': rxflow run MODULE:NAME --store sqlite:///runs.db creates one\n",
    )
    store = {"RXFLOW_STORE": "sqlite:///runs.db"}
    code, out, _ = start(folder, "run", "trips:Trip", "--store", store["RXFLOW_STORE"], "--plain", "-i", "topic=tides")
    assert code == 0
    (listed,) = rxflow(folder, "runs", "list", **store)[1].splitlines()
    run_id, status, *_, target = listed.split()
    assert (status, target) == ("completed", "trips:Trip")
    assert rxflow(folder, "runs", "list", "--status", "running", **store) == (0, "", "")
    shown = dict(line.split(maxsplit=1) for line in rxflow(folder, "runs", "show", run_id[:6], **store)[1].splitlines())
    assert shown["inputs"] == '{"topic": "tides"}'
    assert int(shown["events"]) > 10
    code, followed, errors = rxflow(folder, "runs", "follow", run_id, "--plain", **store)
    assert (code, errors) == (0, "")
    assert followed.splitlines()[:-1] == out.splitlines()[:-1]
    assert rxflow(folder, "runs", "cancel", run_id, **store)[2] == f"rxflow: run {run_id} is already completed\n"
    assert (
        rxflow(folder, "runs", "show", "xyz", **store)[2]
        == "rxflow: there is no run 'xyz': rxflow runs list lists the runs\n"
    )
    assert rxflow(folder, "runs", "list", "--status", "gone", **store)[2].startswith(
        "rxflow: there is no status 'gone'"
    )


def test_a_run_in_a_store_knows_its_flow_if_only_its_module_was_named(folder: Path) -> None:
    assert rxflow(folder, "run", "alone", "--store", "sqlite:///runs.db", "--text")[0] == 0
    assert rxflow(folder, "runs", "list")[1].endswith("  alone:Only\n")


def test_a_run_is_cancelled_from_another_process_down_to_the_provider(folder: Path) -> None:
    store = {"RXFLOW_STORE": "sqlite:///runs.db"}
    with Loopback() as provider:
        provider.script(Reply(text=["One ", "two ", "three "], hold_after=3))
        environment = {"OPENAI_BASE_URL": provider.url, "OPENAI_API_KEY": "k"}
        arguments = ("run", "trips:Asking", "--model", "openai/gpt-4o", "--plain", "--store", store["RXFLOW_STORE"])
        with PseudoTerminal("-m", "rxflow", *arguments, cwd=folder, environment=environment) as shown:
            provider.wait_until(lambda seen: seen.chunks_sent >= 3, timeout=100)
            (listed,) = rxflow(folder, "runs", "list", "--status", "running", **store)[1].splitlines()
            run_id = listed.split()[0]
            assert rxflow(folder, "runs", "cancel", run_id, "--reason", "enough", **store)[0] == 0
            assert shown.finish() == 1
        provider.wait_until(lambda seen: seen.disconnects)
    assert "enough" in shown.text
    assert "cancelled" in rxflow(folder, "runs", "list", **store)[1]


def test_a_paused_run_is_cancelled(folder: Path) -> None:
    assert rxflow(folder, "run", "trips:Curious", "--plain", "--store", "sqlite:///runs.db")[0] == 3
    run_id = rxflow(folder, "runs", "list")[1].split()[0]
    assert rxflow(folder, "runs", "cancel", run_id) == (0, f"{run_id} was asked to stop\n", "")
    assert rxflow(folder, "runs", "list", "--status", "cancelled")[1].startswith(run_id)


def test_a_run_that_is_forgotten_while_the_runs_are_listed_ends_nothing(folder: Path) -> None:
    """The pipe is full long before the last run, so the command waits for its reader there."""
    with Runs(f"sqlite:///{folder}/runs.db") as runs:
        for number in range(100):
            runs.store.claim(f"{number:032}", RunSpec(target="trips:Trip"), lambda note: None).result()
        ours, theirs = os.pipe()
        fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
        listing = subprocess.Popen(
            [sys.executable, "-m", "rxflow", "runs", "list"], cwd=folder, env=inherited(), stdout=theirs
        )
        os.close(theirs)
        with listing, os.fdopen(ours, encoding="utf-8") as lines:
            assert lines.readline().startswith("0" * 32)
            runs.forget(f"{99:032}")
            assert len(lines.readlines()) == 99
        assert listing.returncode == 0
