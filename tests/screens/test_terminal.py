"""``rxflow.screens.terminal`` in real terminals, in pipes, and where neither fits."""

import io
import re
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest
import reactivex as rx
from rich.console import Console

from rxflow import Flow, operators as ops
from rxflow.flow import start
from rxflow.screens import terminal
from rxflow.testing import ScriptedLLM
from tests.adapters import flows
from tests.gate import PATIENCE_S
from tests.loopback import Loopback, Reply
from tests.operators.endings import stubborn
from tests.screens import voyages
from tests.screens.pseudo_terminal import CTRL_C, ROOT, PseudoTerminal, inherited, run_piped

pytestmark = pytest.mark.timeout(90)

CONTROL = re.compile(rb"[\x00-\x09\x0b-\x1f\x7f]")
COLOUR = re.compile(rb"\x1b\[[0-9;]*3[0-7]m")


def showing(flow: str) -> tuple[str, str]:
    quiet = "import logging; logging.getLogger('rxflow').addHandler(logging.NullHandler())"
    return "-c", (
        f"{quiet}; from rxflow.screens import terminal; from tests.screens.voyages import *; terminal.show({flow}())"
    )


@pytest.mark.parametrize("columns", [60, pytest.param(200, marks=pytest.mark.slow)])
def test_the_summary_shows_each_method_agent_and_tool_with_its_state_and_time(columns: int) -> None:
    with PseudoTerminal(*showing("Voyage"), columns=columns, rows=40) as shown:
        assert shown.finish() == 0
        lines = shown.lines
    tree = [line for line in lines if re.search(r"\d s$|return_home", line)]
    assert [re.sub(r"(?<=[\w)])  +.*", "", line) for line in tree] == [
        "✓ Voyage",
        "├ ✓ sound",
        "│ └ ✓ Pilot · Sound the bar",
        "│   ├ ✓ depth(place='the bar')",
        "│   └ ✗ broken(place='the cape')",
        "├ ✓ cook",
        "│ └ ✓ Cook · Plan meals",
        "├ ✓ decide",
        "├ ✓ sing",
        "│ └ ⊘ Poet · Sing",
        "├ ✓ brief",
        "│ └ ✓ Captain · Brief the crew",
        "└ ○ return_home",
    ]
    ended = " ".join(lines[lines.index(tree[-1]) + 1 :])
    assert re.search(r"✓ done after 0\.\d s, 5 of 6 methods, 2 tool calls, 1 retry, ~\d+ tokens, ≥ \$[\d.]+", ended)
    assert "We sail at noon." in ended, "the result"
    assert max(map(len, lines)) <= columns
    assert shown.raw.endswith(b"\x1b[?25h") or b"\x1b[?25h" in shown.raw, "the cursor is there again"


@pytest.mark.parametrize("columns", [60, pytest.param(200, marks=pytest.mark.slow)])
def test_while_it_runs_each_speaker_has_a_lane_and_the_figures_stand_below(columns: int) -> None:
    with PseudoTerminal(*showing("Endless"), columns=columns) as shown:
        shown.wait_for("─ Speaker · Count", "One two three.", "0 of 1 method", "~28 tokens · ")
        assert re.search(r"[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏] speak", shown.text)
        shown.press(CTRL_C)
        assert shown.finish() != 0


@pytest.fixture(scope="module")
def piped() -> subprocess.CompletedProcess[bytes]:
    """What a pipe gets of a voyage."""
    return run_piped(*showing("Voyage"))


def test_a_pipe_gets_lines_without_control_codes(piped: subprocess.CompletedProcess[bytes]) -> None:
    assert piped.returncode == 0
    assert not CONTROL.search(piped.stdout)
    lines = piped.stdout.decode().splitlines()
    for expected in (
        "> Voyage / cook / Cook: Plan meals",
        "Pilot -> depth(place='the bar')",
        "Pilot <- depth: '11 metres at the bar'",
        "Pilot <- broken failed: OSError: no echo at the cape",
        "Cook: Plenty of soup",
        "Cook: 14 characters taken back: Rejected: name a figure",
        "Cook: 9 litres of soup",
        "Captain: We sail at noon.",
    ):
        assert expected in lines
    assert lines[-1].startswith("done after ")
    assert max(map(len, lines)) <= 80


def test_words_of_speakers_who_talk_at_once_do_not_mix_in_a_line(piped: subprocess.CompletedProcess[bytes]) -> None:
    lines = piped.stdout.decode().splitlines()
    assert set(" ".join(line.removeprefix("Poet: ") for line in lines if line.startswith("Poet: ")).split()) == {"la"}


class Returning(Flow):
    """Returns what its input says, after a model has said "nine litres"."""

    @start()
    async def measure(self) -> Any:
        await ScriptedLLM("nine 1ms litres|", values={"nine": "nine "}).acall("How much?")
        return self.state["result"]


@pytest.mark.parametrize(
    ("result", "lines"),
    [
        ("nine litres", []),
        ("9 l\n\x1b[2Jof soup", ["= 9 l", "= \N{SYMBOL FOR ESCAPE}[2Jof soup"]),
        ({"litres": 9}, ["= {'litres': 9}"]),
        ("a b " * 12, ["= a b a b a b a b a b a b a b a b a b a", "= b a b a b"]),
        (None, []),
    ],
)
def test_lines_end_with_the_result_unless_a_model_has_just_said_it(result: Any, lines: list[str]) -> None:
    file = io.StringIO()
    terminal.show(Returning(), {"result": result}, console=Console(file=file, width=40))
    *before, outcome = file.getvalue().splitlines()
    assert before[before.index("+ Returning / measure") + 1 :] == lines
    assert outcome.startswith("done after ")


def test_retracted_text_is_struck_out() -> None:
    program = (
        "from rxflow.screens import terminal; from tests.screens.voyages import *\n"
        "class Twice(Flow):\n"
        "    @start()\n"
        "    def cook(self):\n"
        "        model = Scripted('Plenty of soup', ['9 litres', Gate()])\n"
        "        return solo(model, agent={'role': 'Cook'}, guardrail=name_a_figure).kickoff()\n"
        "terminal.show(Twice())"
    )
    with PseudoTerminal("-c", program) as shown:
        shown.wait_for("9 litres", "1 retry")
        assert shown.is_struck_out("Plenty of soup")
        assert not shown.is_struck_out("9 litres")


def test_no_color_leaves_colours_out_and_keeps_the_drawing() -> None:
    with PseudoTerminal(*showing("Voyage"), environment={"NO_COLOR": "1"}) as shown:
        assert shown.finish() == 0
    assert not COLOUR.search(shown.raw)
    assert "✓ done after" in shown.text
    with PseudoTerminal(*showing("Voyage")) as coloured:
        coloured.finish()
    assert COLOUR.search(coloured.raw), "otherwise there are colours"


@pytest.mark.parametrize("columns", [60, pytest.param(120, marks=pytest.mark.slow)])
def test_a_terminal_of_ascii_gets_nothing_else(columns: int) -> None:
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    with PseudoTerminal(*showing("Voyage"), columns=columns, environment=environment) as shown:
        assert shown.finish() == 0
    assert shown.raw.isascii()
    assert "+ done after" in shown.text
    assert "| ` / Poet - Sing" in shown.text
    piped = run_piped(*showing("Hostile"), environment=environment)
    assert piped.returncode == 0
    assert piped.stdout.isascii()


def test_a_dumb_terminal_gets_lines() -> None:
    with PseudoTerminal(*showing("Voyage"), environment={"TERM": "dumb"}) as shown:
        assert shown.finish() == 0
    assert not CONTROL.search(shown.raw.replace(b"\r\n", b"\n"))
    assert "Captain: We sail at noon." in shown.text


def test_a_pipe_that_is_closed_ends_it_without_a_word() -> None:
    program = subprocess.Popen(
        [sys.executable, *showing("Endless")],
        cwd=ROOT,
        env=inherited() | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with program:
        assert program.stdout is not None
        assert program.stderr is not None
        assert program.stdout.readline() == b"> Endless\n"
        while b"Count" not in program.stdout.readline():  # the last line before the model falls silent
            pass
        program.stdout.close()
        program.send_signal(signal.SIGINT)  # it has more to say then
        assert program.stderr.read().count(b"BrokenPipe") == 0


def test_through_head_there_is_no_traceback() -> None:
    command = f'{sys.executable} -c "{showing("Voyage")[1]}" | head -n 2'
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=inherited(), capture_output=True, text=True, check=False, timeout=100
    )
    assert done.stdout.splitlines()[0] == "> Voyage"
    assert done.stderr == ""


@pytest.mark.parametrize("columns", [60, pytest.param(200, marks=pytest.mark.slow)])
def test_text_of_models_is_neither_markup_nor_a_command(columns: int) -> None:
    with PseudoTerminal(*showing("Hostile"), columns=columns, rows=50) as shown:
        assert shown.finish() == 0
    assert "[bold red]not markup[/] ␛[2J␛]0;title␇ esrever" in shown.text.replace("\n", "")
    assert "[/nonsense]" in shown.text
    assert b"\x1b[2J" not in shown.raw
    assert b"\x1b]0;" not in shown.raw
    assert b"\x07" not in shown.raw
    assert "\u202e" not in shown.raw.decode()


def test_an_error_is_shown_and_goes_on_to_the_program() -> None:
    program = (
        "from rxflow.screens import terminal; from tests.screens.voyages import *\n"
        "try: terminal.show(Failing())\n"
        "except OSError as error: print('it raised:', error)"
    )
    with PseudoTerminal("-c", program) as shown:
        assert shown.finish() == 0
    assert "✗ sink  OSError: the keel is gone" in shown.text
    assert "✗ failed after 0." in shown.text
    assert shown.text.endswith("it raised: the keel is gone")


def test_ctrl_c_stops_the_run_at_the_provider_and_says_what_it_cost() -> None:
    program = (
        "import sys; from rxflow import LLM; from rxflow.screens import terminal; from tests.screens.voyages import *\n"
        "class Asking(Flow):\n"
        "    @start()\n"
        "    def ask(self): return solo(LLM('openai/gpt-4o', base_url=sys.argv[1], api_key='k')).kickoff()\n"
        "try: terminal.show(Asking())\n"
        "except KeyboardInterrupt: print('interrupted')"
    )
    with Loopback() as provider:
        provider.script(Reply(text=["One ", "two ", "three "], hold_after=3))
        with PseudoTerminal("-c", program, provider.url) as shown:
            shown.wait_for("One two three")
            shown.press(CTRL_C)
            assert shown.finish() == 0
        (gone,) = provider.wait_until(lambda seen: seen.disconnects)
        assert gone.phase == "mid_stream"
    outcome, last = shown.lines[-2:] if shown.lines[-1] else [line for line in shown.lines if line][-2:]
    assert re.fullmatch(r"⊘ stopped after \d+\.\d s, 0 of 1 method, ~\d+ tokens, \$0\.\d+", outcome)
    assert last == "interrupted"


def test_a_question_is_answered_where_the_frame_was() -> None:
    with PseudoTerminal(*showing("Asking")) as shown:
        shown.wait_for("Where to?", ">>>")
        shown.press(b"Porto Santo\n")
        assert shown.finish() == 0
    assert shown.text.endswith("bound for Porto Santo")
    assert "✓ done after" in shown.text


class FullDisk(io.StringIO):
    """A file that takes the beginning, and not the end."""

    def write(self, text: str) -> int:
        if "after" in text or "no room" in self.getvalue():
            super().write("no room")
            raise OSError("No space left on device")
        return super().write(text)


@pytest.mark.parametrize(
    ("flow", "error"), [(flows.Routed, "No space left on device"), (voyages.Failing, "the keel is gone")]
)
def test_a_run_ends_also_if_its_end_cannot_be_printed(flow: type[Flow[Any]], error: str) -> None:
    drawing = terminal.draw(console=Console(file=FullDisk()), plain=True)
    with flow().events().pipe(drawing, ops.to_output()) as output, pytest.raises(OSError, match=error):
        list(output)


def test_a_source_that_raises_when_it_is_disposed_does_not_keep_the_thread_that_draws(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reported: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", reported.append)
    before = threading.enumerate()
    drawing = terminal.draw(console=Console(file=io.StringIO(), force_terminal=True))
    subscription = stubborn(rx.never()).pipe(drawing).subscribe()
    (thread,) = [each for each in threading.enumerate() if each not in before]
    subscription.dispose()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert [each.exc_type for each in reported] == [ZeroDivisionError]


@pytest.mark.parametrize("given", [42, "trips:Trip", None])
def test_what_has_no_events_is_refused(given: Any) -> None:
    with pytest.raises(TypeError, match="a flow, a crew or an Observable of events can be shown; got"):
        terminal.show(given)
