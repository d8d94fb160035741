"""What our own pages say is so: their programs run, and the operators that they name exist."""

import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import rxflow.operators
from rxflow import LLM, _aliases, _options, operators as ops
from rxflow.runs import Runs
from rxflow.runs.memory import MemoryLog
from rxflow.tools import tool
from tests.gate import PATIENCE_S

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TRIPS = """
from rxflow.flow import Flow, start

class Trip(Flow):
    @start()
    def book(self):
        return f"booked for {self.ask('In whose name?')}"
"""
WHICH = (ROOT / "docs" / "which-operator.md").read_text(encoding="utf-8")
OPERATORS = [name for name in rxflow.operators.__all__ if name[0].islower()]


def programs(page: str) -> list[str]:
    return FENCE.findall((ROOT / page).read_text(encoding="utf-8"))


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    env = os.environ | {"RXFLOW_STORAGE_DIR": str(cwd)}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.slow
def test_the_program_that_answers_a_run_of_another_process_finishes_it(tmp_path: Path) -> None:
    (tmp_path / "trips.py").write_text(TRIPS, encoding="utf-8")
    (program,) = (each for each in programs("docs/runs.md") if "target=" in each)
    begin = """
from contextlib import suppress
from trips import Trip
from rxflow.runs import Runs
from rxflow.types.answers import RunPaused
with Runs("sqlite:///runs.db") as runs, suppress(RunPaused):
    runs.start(Trip(), run_id="r").result()
"""
    paused = run("-W", "error", "-c", begin, cwd=tmp_path)
    assert paused.returncode == 0, paused.stderr
    done = run("-W", "error", "-c", program, "r", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "booked for Ada\n"


@pytest.mark.slow
def test_the_tests_of_the_testing_page_pass(tmp_path: Path) -> None:
    pages = programs("docs/testing.md")
    for number, program in enumerate(pages):
        (tmp_path / f"test_block_{number}.py").write_text(program, encoding="utf-8")
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", ".", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{sum(program.count('def test_') for program in pages)} passed" in done.stdout


def test_what_is_no_test_on_that_page_runs_too(tmp_path: Path) -> None:
    (program,) = (each for each in programs("docs/testing.md") if "def test_" not in each)
    done = run("-W", "error", "-c", program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_first_program_of_the_readme_runs(tmp_path: Path) -> None:
    done = run("-W", "error", "-c", programs("README.md")[0].replace("pace=0.05", "pace=0"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "postcard from Lisbon" in done.stdout


def test_its_pipeline_runs_behind_that_program(tmp_path: Path) -> None:
    first, pipeline = (next(each for each in programs("README.md") if word in each) for word in ("class", "ops.words"))
    done = run(
        "-W", "error", "-c", f"{first.replace('pace=0.05', 'pace=0')}\nflow = Postcard()\n{pipeline}", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("postcard from Lisbon") == 2  # by either


PROGRAM_AND_OUTPUT = re.compile(r"^```python\n([^`]*)^```\n\n```text\n([^`]*)^```$", re.MULTILINE)
FLOWS = PROGRAM_AND_OUTPUT.findall((ROOT / "docs" / "flows.md").read_text(encoding="utf-8"))


def test_each_program_of_the_page_about_flows_stands_before_its_output() -> None:
    assert [program for program, _ in FLOWS] == programs("docs/flows.md")


def test_the_programs_of_that_page_print_what_it_says(tmp_path: Path) -> None:
    shown = [each for each in FLOWS if "close()" not in each[0]]
    done = run(
        "-W", "error", "-c", "\n".join(program for program, _ in shown).replace("pace=0.05", "pace=0"), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(printed for _, printed in shown)


def test_its_flow_is_stopped(tmp_path: Path) -> None:
    definitions = FLOWS[0][0].partition("\nprint(")[0]
    ((program, printed),) = (each for each in FLOWS if "close()" in each[0])
    done = run("-W", "error", "-c", definitions + program, cwd=tmp_path)  # with its pace: there is something to stop
    assert done.returncode == 0, done.stderr
    assert done.stdout == printed


def test_a_run_on_the_page_about_people_is_answered_from_another_process(tmp_path: Path) -> None:
    asking, answering = (each for each in programs("docs/people.md") if "sqlite:///runs.db" in each)
    command = [sys.executable, "-W", "error", "-c", asking]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as asked:
        try:
            with Runs(f"sqlite:///{tmp_path}/runs.db") as runs:
                wait_for_question(runs, "booking")
                assert runs["booking"].status == "running"
            done = run("-W", "error", "-c", answering, cwd=tmp_path)
            said, _ = asked.communicate(timeout=PATIENCE_S)
        finally:
            asked.kill()
    assert (done.stdout, done.stderr) == ("In whose name?\n", "")
    assert said == "booked for Ada\n"


def test_a_reader_of_a_resumed_run_can_drop_what_is_void(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "runs.md").read_text(encoding="utf-8")
    ((program, printed),) = PROGRAM_AND_OUTPUT.findall(page)
    done = run("-W", "error", "-c", program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == printed


def wait_for_question(runs: Runs, run_id: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        with suppress(LookupError):
            if runs[run_id].pending():
                return
        time.sleep(0.01)
    raise TimeoutError(f"no question in run {run_id!r}")


@pytest.mark.parametrize("name", OPERATORS)
def test_each_operator_has_its_place_on_the_page(name: str) -> None:
    assert f"`{name}(" in WHICH


@pytest.mark.slow
def test_the_operator_of_that_page_changes_words_and_keeps_the_rules(tmp_path: Path) -> None:
    (program,) = (each for each in programs("docs/which-operator.md") if "def test_" in each)
    (tmp_path / "test_page.py").write_text(program, encoding="utf-8")
    done = run("-W", "error", "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", ".", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " NOTES\n “TIDES”.\n" in done.stdout
    assert "1 passed" in done.stdout


class Report(BaseModel):
    title: str = ""


class Draft(BaseModel):
    text: str = ""


class WeatherQuery(BaseModel):
    place: str = ""


@tool
def search(query: str) -> str:
    """Search for something."""
    return query


def is_fine(text: str) -> ops.Verdict:
    return ops.Release()


CALLS = re.findall(rf"`((?:{'|'.join(OPERATORS)})\(.*?\))`", WHICH)


@pytest.mark.parametrize("call", CALLS)
def test_each_call_on_the_page_is_one_that_can_be_made(call: str) -> None:
    given: dict[str, Any] = {name: getattr(ops, name) for name in OPERATORS} | {
        "Report": Report,
        "Draft": Draft,
        "WeatherQuery": WeatherQuery,
        "search": search,
        "is_fine": is_fine,
        "ops": ops,
        "other": LLM("rxflow/demo"),
        "log": MemoryLog(),
        "run_id": "a run",
        "question": "Why?",
        "scheduler": None,
    }
    assert callable(eval(call, given)) or call.startswith(("from_cassette", "from_log"))


@pytest.mark.parametrize("name", OPERATORS)
def test_each_operator_shows_itself_with_a_diagram_and_an_example(name: str) -> None:
    said = getattr(ops, name).__doc__ or ""
    assert re.search(r"^ *\S.*[-(].*\|", said, re.MULTILINE), "it has no marble diagram"
    assert "Example::" in said


MOVING = (ROOT / "docs" / "moving-over.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", _options.IGNORED)
def test_the_page_on_moving_over_names_every_option_that_changes_nothing(kind: str) -> None:
    options = ", ".join(f"`{name}`" for name in sorted(_options.IGNORED[kind]))
    assert f"| {kind} | {options} |" in MOVING


@pytest.mark.parametrize("option", _options.REFUSED)
def test_it_says_of_every_refused_option_what_to_do_instead(option: str) -> None:
    would, instead = _options.REFUSED[option]
    assert f"| `{option}` | {would} | {instead} |" in MOVING


@pytest.mark.parametrize("path", [path for path, names in _aliases.ALIASES.items() if names])
def test_it_has_every_import_path_of_crewai(path: str) -> None:
    names = ", ".join(f"`{name}`" for name in sorted(_aliases.ALIASES[path]))
    assert f"| `{path}` | {names} |" in MOVING


def test_its_programs_run(tmp_path: Path) -> None:
    program = "from rxflow import LLM, Agent, BaseLLM\n" + "\n".join(programs("docs/moving-over.md"))
    done = run("-W", "error", "-c", program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    tool, *words = done.stdout.splitlines()
    assert "214 metres" in tool
    assert words == ["Say ", "it ", "again "]


OLLAMA = """
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class Answering(BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = f"{asked['model']} heard {asked['messages'][-1]['content']}"
        self.send_response(200)
        self.end_headers()
        for word in said.split():
            self.write({"message": {"content": word + " "}, "done": False})
        counts = {"prompt_eval_count": 2, "eval_count": 3, "done_reason": "stop"}
        self.write({"message": {"content": ""}, "done": True, **counts})

    def write(self, part):
        self.wfile.write(json.dumps(part).encode() + b"\\n")

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
Thread(target=server.serve_forever, daemon=True).start()
"""
ASKING = """
from rxflow import operators as ops

here = LLM("llama3", source=Ollama(f"http://127.0.0.1:{server.server_port}"))
assert [str(chunk) for chunk in here.observe("hello").pipe(ops.to_output())] == ["llama3 ", "heard ", "hello "]
server.shutdown()
server.server_close()
try:
    here.call("hello")
except httpx.ConnectError as error:
    print(*error.__notes__)
"""


@pytest.mark.slow
def test_the_source_of_its_page_streams_and_explains_its_errors(tmp_path: Path) -> None:
    (page,) = programs("docs/writing-a-source.md")
    done = run("-W", "error", "-c", OLLAMA + page.replace("0.5 * attempt", "0.0") + ASKING, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Is Ollama running at http://127.0.0.1:")


@pytest.mark.parametrize(
    "result",
    [
        "",
        "output = Trip(stream=True, input_provider=answer).kickoff()\nassert list(output) == []\nprint(output.result)",
        "print(Trip().events().pipe(ops.answer_with(answer)).run().result)",
    ],
)
def test_the_ways_to_the_result_on_the_page_about_people_lead_there(result: str, tmp_path: Path) -> None:
    flow, kickoff, *_ = programs("docs/people.md")
    answer = "def answer(request):\n    return answers[request.message]\n"
    done = run("-W", "error", "-c", f"{flow}\n{answer}\n{result or kickoff}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "by night train, for Ada\n"
