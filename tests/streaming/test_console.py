"""Questions at a terminal: a real one, a pseudo-terminal in which a program runs."""

import asyncio
import io
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from typing import Any

import pytest

from rxflow._streaming.console import ConsoleProvider, has_console, show_request
from rxflow.flow import Flow, start
from rxflow.tools import tool
from rxflow.types.answers import RunPaused
from rxflow.types.chunks import Origin
from rxflow.types.events import InputRequested
from tests.gate import Gate
from tests.scripted import Scripted, calls
from tests.signals import outcome
from tests.team import solo

PATIENCE = 60.0
PROGRAM = """
import asyncio
from rxflow.flow import Flow, human_feedback, listen, start
from rxflow.operators import ConsoleProvider
from rxflow.testing import ScriptedLLM, tool_call
from rxflow.tools import tool
from tests.team import solo

@tool(needs_approval=True)
def pay(amount: float) -> str:
    "Pay."
    return f"paid {amount:g}"

class Asks(Flow):
    @start()
    def first(self):
        return self.ask("Topic?")

class Twice(Flow):
    @start()
    def one(self):
        return self.ask("One?")
    @start()
    def two(self):
        return self.ask("Two?")
    def kickoff(self):
        super().kickoff()
        return sorted(map(str, self.method_outputs))

class Limited(Flow):
    @start()
    async def first(self):
        return await self.ask_async("Quick?", timeout=2)
    @listen(first)
    async def second(self, before):
        return f"{before} {await self.ask_async('Slow?')}"

class Reviewed(Flow):
    @start()
    @human_feedback("Good?", emit=["yes", "no"], llm="none")
    def draft(self):
        return "the draft"

class Pays(Flow):
    @start()
    def first(self):
        return str(solo(ScriptedLLM(tool_call("pay", {"amount": 5}), "do-ne|"), agent={"tools": [pay]}).kickoff())
"""


class Terminal:
    """A program in a terminal of its own."""

    def __init__(self, code: str) -> None:
        self._master, slave = pty.openpty()
        self.program = subprocess.Popen(
            [sys.executable, "-c", PROGRAM + code],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env=os.environ | {"PYTHON_COLORS": "0"},
        )
        os.close(slave)
        self.shown: str = ""

    def until(self, text: str) -> None:
        """Read until the terminal shows ``text``."""
        end = time.monotonic() + PATIENCE
        while text not in self.shown:
            ready, _, _ = select.select([self._master], [], [], max(0, end - time.monotonic()))
            assert ready, f"{text!r} is not shown: {self.shown!r}"
            try:
                self.shown += os.read(self._master, 4096).decode(errors="replace")
            except OSError:  # the program has ended
                assert text in self.shown, f"{text!r} is not shown: {self.shown!r}"

    def type(self, text: str) -> None:
        """Type it, and forget what was shown before."""
        self.shown = ""
        os.write(self._master, text.encode())

    def close(self) -> None:
        self.program.kill()
        self.program.wait()
        os.close(self._master)


@contextmanager
def terminal(code: str) -> Generator[Terminal]:
    program = Terminal(code)
    try:
        yield program
    finally:
        program.close()


def test_a_plain_program_in_a_terminal_is_asked_there() -> None:
    with terminal("print('got', Asks().kickoff())") as shown:
        shown.until("Topic?\r\n>>> ")
        shown.type("tides \n")
        shown.until("got tides\r\n")
        assert shown.program.wait(PATIENCE) == 0


def test_several_questions_are_shown_one_after_the_other() -> None:
    with terminal("print('got', Twice().kickoff())") as shown:
        shown.until("?\r\n>>> ")
        assert ("One?" in shown.shown) is not ("Two?" in shown.shown)
        shown.type("a\n")
        shown.until("?\r\n>>> ")
        shown.type("b\n")
        shown.until("got ['a', 'b']")


@pytest.mark.slow
def test_a_line_that_comes_too_late_answers_the_question_that_is_on_the_screen() -> None:
    with terminal("print('got', Limited().kickoff())") as shown:
        shown.until("Quick?\r\n>>> ")
        shown.until("Slow?\r\n>>> ")
        shown.type("in time\n")
        shown.until("got None in time")


def test_feedback_shows_what_it_is_about() -> None:
    with terminal("flow = Reviewed(); flow.kickoff(); print('got', flow.last_human_feedback.outcome)") as shown:
        shown.until("the draft\r\n\r\nGood? [yes / no] (Type one of these, or your feedback)\r\n>>> ")
        shown.type("no\n")
        shown.until("got no")


@pytest.mark.parametrize("run", ["", "provider = ConsoleProvider()", "provider = ConsoleProvider(verbose=False)"])
def test_enter_selects_no_label_and_the_question_is_asked_again(run: str) -> None:
    program = f"""
{run or "provider = None"}

class Pays(Flow):
    @start()
    @human_feedback("Pay?", emit=["approved", "rejected"], llm="none", provider=provider)
    def pay(self):
        return "100 euros"

    @listen("rejected")
    def refuse(self):
        return "refused"

print("got", Pays().kickoff())
"""
    with terminal(program) as shown:
        shown.until("Pay?")
        shown.type("\n")
        shown.until("it is empty; answer with one of approved, rejected")
        shown.until("Pay?")
        shown.type("rejected\n")
        shown.until("got refused")


def test_a_tool_shows_its_arguments() -> None:
    with terminal("print('got', Pays().kickoff())") as shown:
        shown.until("amount = 5\r\nMay Writer call pay? [yes / no]")
        shown.until(">>> ")
        shown.type('{"amount": 3}\n')
        shown.until("got done")


@pytest.mark.parametrize("run", ["", "flow.input_provider = ConsoleProvider(verbose=False)"])
def test_an_answer_that_does_not_fit_is_asked_for_again_with_the_reason(run: str) -> None:
    with terminal(f"flow = Pays(); {run}\nprint('got', flow.kickoff())") as shown:
        shown.until("May Writer call pay?")
        shown.type('{"amount": \n')
        shown.until("does not fit: ")
        shown.until("May Writer call pay? ")
        shown.type('{"amount": "much"}\n')
        shown.until("amount")
        shown.until("May Writer call pay? ")
        shown.type("y\n")
        shown.until("got done")


def test_a_replaced_input_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    @tool(needs_approval=True)
    def pay(amount: float) -> str:
        """Pay."""
        return f"paid {amount:g}"

    monkeypatch.setattr("builtins.input", lambda prompt="": '{"amount": ')
    model = Scripted(calls(("pay", {"amount": 5})), "Done")
    error = outcome(solo(model, agent={"tools": [pay]}).events()).error
    assert isinstance(error, ValueError)
    assert "the answer to 'May Writer call pay?' does not fit" in str(error)


@pytest.mark.parametrize("run", ["Asks().kickoff()", "asyncio.run(Asks().kickoff_async())"])
def test_ctrl_c_ends_the_wait_at_once(run: str) -> None:
    with terminal(f"{run}") as shown:
        shown.until(">>> ")
        os.kill(shown.program.pid, signal.SIGINT)
        shown.until("KeyboardInterrupt")  # first: a terminal that nobody reads takes 4 kB, and holds the program up
        assert shown.program.wait(PATIENCE) != 0


def test_the_end_of_the_input_pauses_the_run() -> None:
    with terminal("Asks().kickoff()") as shown:
        shown.until(">>> ")
        shown.type("\x04")
        shown.until("RunPaused: the run is paused until someone answers")


def test_a_program_whose_input_is_not_a_terminal_is_paused() -> None:
    command = [sys.executable, "-c", f"{PROGRAM}\nAsks().kickoff()"]
    ran = subprocess.run(command, input="tides\n", capture_output=True, text=True, timeout=60, check=False)
    assert "RunPaused: the run is paused until someone answers" in ran.stderr
    assert not has_console()


def test_a_program_that_replaces_input_is_asked_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Asks(Flow):
        @start()
        def first(self) -> str | None:
            return self.ask("Topic?")

    monkeypatch.setattr("builtins.input", lambda prompt="": " tides ")
    assert Asks().kickoff() == "tides"
    monkeypatch.undo()
    with pytest.raises(RunPaused):
        Asks().kickoff()


def test_an_input_that_runs_out_of_answers_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class Asks(Flow):
        @start()
        def first(self) -> str | None:
            return self.ask("Topic?")

    answers = iter(())
    monkeypatch.setattr("builtins.input", lambda prompt="": next(answers))
    error = outcome(Asks().events()).error
    assert isinstance(error, RuntimeError)
    assert str(error) == "input() raised StopIteration"


def test_a_quiet_console_shows_the_message_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Asks(Flow):
        input_provider = ConsoleProvider(verbose=False)

        @start()
        def first(self) -> str | None:
            return self.ask("Topic?")

    monkeypatch.setattr("builtins.input", lambda prompt="": "tides")
    assert outcome(Asks().events()).error is None
    assert capsys.readouterr().out == "Topic? "


def ask(message: str) -> Coroutine[Any, Any, str | None]:
    request = InputRequested(origin=Origin(), request_id=message, message=message)
    return ConsoleProvider(verbose=False).answer(request)


def use_ascii_screen(monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    """Let the standard output be one that cannot show an ``é``, and return what it shows."""
    shown = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(shown, "ascii"))
    return shown


def test_a_question_that_cannot_be_shown_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> str | None:
        with pytest.raises(UnicodeEncodeError):
            await ask("é?")
        return await ask("Next?")

    shown = use_ascii_screen(monkeypatch)
    lines = iter(["tides"])
    monkeypatch.setattr("builtins.input", lambda prompt="": next(lines))
    assert asyncio.run(main()) == "tides"
    assert shown.getvalue() == b"Next? "


def test_a_question_that_cannot_be_shown_after_another_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> Any:
        return await asyncio.gather(ask("One?"), ask("é?"), ask("Three?"), go_on(), return_exceptions=True)

    async def go_on() -> None:
        asked.open()

    def read(prompt: str = "") -> str:
        asked.wait()
        return next(lines)

    shown = use_ascii_screen(monkeypatch)
    asked, lines = Gate(), iter(["1", "3", "4"])
    monkeypatch.setattr("builtins.input", read)
    one, two, three, _ = asyncio.run(main())
    assert (one, type(two), three) == ("1", UnicodeEncodeError, "3")
    assert asyncio.run(ask("Four?")) == "4"
    assert shown.getvalue() == b"One? Three? Four? "


def test_a_question_for_which_no_thread_can_start_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    shown = use_ascii_screen(monkeypatch)
    monkeypatch.setattr("builtins.input", lambda prompt="": "tides")
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            asyncio.run(ask("One?"))
    assert asyncio.run(ask("Two?")) == "tides"
    assert shown.getvalue() == b"One? Two? "


def test_options_are_shown_behind_the_message() -> None:
    request = InputRequested(origin=Origin(), request_id="1", message="Which?", options=("a", "b"))
    assert show_request(request) == "\nWhich? [a / b]\n>>> "
