"""Runs that are paused, lost or have failed go on in the same log; in the same process, in another, after a kill."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, field_validator
from reactivex import operators as rxops

from rxflow import operators as ops
from rxflow.flow import Flow, listen, start
from rxflow.llm.source import Delta, Ending, ToolCallDelta
from rxflow.operators._core.run_log import Note
from rxflow.runs import (
    End,
    Head,
    MemoryLog,
    NotResumable,
    Run,
    RunCancelled,
    RunLost,
    Runs,
    RunSpec,
    StoreError,
    Writer,
)
from rxflow.screens._drawing import Transcript
from rxflow.screens._run_tree import RunTree
from rxflow.tools import BaseTool, tool
from rxflow.types.answers import RunPaused
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import (
    Event,
    FlowPaused,
    FlowResumed,
    InputReceived,
    InputRequested,
    LLMFinished,
    LLMStarted,
    MethodFinished,
    MethodStarted,
    Retracted,
    ToolFailed,
    ToolFinished,
    ToolStarted,
)
from tests.flow.test_resume import UNDISTURBED, WHOLE
from tests.gate import PATIENCE_S, Gate
from tests.scripted import Scripted, calls
from tests.team import an_agent, solo

ROOT = Path(__file__).parents[2]
STORES = ["memory", "sqlite"]

ran: list[str] = []


class Asks(Flow):
    @start()
    def first(self) -> str:
        ran.append("first")
        return "1"

    @listen(first)
    def second(self, text: str) -> str:
        ran.append("second")
        return f"{text}{self.ask('Go on?')}"


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    ran.clear()
    return None if request.param == "memory" else f"sqlite:///{tmp_path / 'runs.db'}"


def paused(runs: Runs, flow: Any = None, **given: Any) -> tuple[Run, InputRequested]:
    run = runs.start(Asks() if flow is None else flow, **given)
    with pytest.raises(RunPaused):
        run.result(20)
    (request,) = run.pending()
    return run, request


def test_a_run_that_nobody_answers_is_paused_and_goes_on_with_the_answers(store: str | None) -> None:
    with Runs(store) as runs:
        run, request = paused(runs)
        assert [each.id for each in runs.list(status="paused")] == [run.id]
        runs[run.id].resume({request.request_id: "2"})
        assert run.result(20) == "12"
        assert run.status == "completed"
        assert run.pending() == []
    assert ran == ["first", "second", "second"]


def test_readers_see_one_log(store: str | None) -> None:
    with Runs(store) as runs:
        run, request = paused(runs)
        before = list(run.events().pipe(ops.to_output()))
        assert isinstance(before[-1], FlowPaused)
        run.resume({request.request_id: "2"})
        run.result(20)
        after = list(run.events(after=before[-1].seq).pipe(ops.to_output()))
        answered, resumed, *_ = after
        assert isinstance(answered, InputReceived)
        assert isinstance(resumed, FlowResumed)
        assert resumed.after == answered.seq == before[-1].seq + 1
        assert [event.seq for event in [*before, *after]] == list(range(len(before) + len(after)))
        assert [event.replayed for event in after if isinstance(event, MethodFinished)] == [True, False]


def in_another_process(program: str, *arguments: str) -> str:
    """Run ``program`` in a process of its own, and return what it prints."""
    header = "import sys; from rxflow.runs import Runs\n"
    ended = subprocess.run(
        [sys.executable, "-c", header + program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    return ended.stdout


@pytest.mark.slow
def test_another_process_goes_on_by_the_import_path(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'runs.db'}"
    with Runs(store) as runs:
        run, request = paused(runs, "tests.runs.test_resuming:Asks")
    program = "run = Runs(sys.argv[1])[sys.argv[2]]; run.resume({sys.argv[3]: '2'}); print(run.result(20))"
    assert in_another_process(program, store, run.id, request.request_id) == "12\n"
    with Runs(store) as runs:
        assert runs[run.id].result(20) == "12"


@pytest.mark.slow
@pytest.mark.parametrize("way", ["sys.exit()", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_an_answer_is_not_lost_if_its_process_ends_at_once(tmp_path: Path, way: str) -> None:
    store = f"sqlite:///{tmp_path / 'runs.db'}"
    with Runs(store) as runs:
        run, _ = paused(runs, "tests.runs.test_resuming:Asks")
    program = f"""
import os, signal
if os.fork():  # the child answers and ends; this process only lives on to print
    os.wait()
    print("ended")
    sys.exit()
run = Runs(sys.argv[1], lease=0.3)[sys.argv[2]]
run.answer(run.pending()[0].request_id, "2")
{way}
"""
    assert in_another_process(program, store, run.id) == "ended\n"
    with Runs(store, lease=0.3) as runs:
        run = runs[run.id]
        with pytest.raises((RunCancelled, RunLost)):
            run.result(20)
        assert run.pending() == []
        run.resume()
        assert run.result(20) == "12"


def test_an_answer_is_not_lost_if_the_runs_are_closed_at_once(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'runs.db'}"
    gate = Gate()

    class Slow(Flow):
        @start()
        async def ask_late(self) -> str:
            await gate.passed()
            return f"hello {await self.ask_async('Name?')}"

    gate.open()
    with Runs(store) as runs:
        run, request = paused(runs, Slow())
    gate = Gate()  # the resumed run does not come to its question
    with Runs(store) as runs:
        runs[run.id].resume({request.request_id: "Ada"}, Slow())
    with Runs(store) as runs:
        run = runs[run.id]
        assert (run.status, run.pending()) == ("cancelled", [])
        gate.open()
        run.resume(target=Slow())
        assert run.result(20) == "hello Ada"


def test_an_answer_that_the_tool_refuses_is_asked_for_again(store: str | None) -> None:
    class Amount(BaseModel):
        amount: float

        @field_validator("amount")
        @classmethod
        def is_small(cls, amount: float) -> float:
            if amount > 9:
                raise ValueError("too much")
            return amount

    paid: list[float] = []

    class Pay(BaseTool):
        name: str = "pay"
        description: str = "Pay."
        args_schema: type[BaseModel] = Amount
        needs_approval: Any = True

        def _run(self, amount: float) -> str:
            paid.append(amount)
            return "paid"

    model = Scripted(calls(("pay", {"amount": 5})), "Done")
    with Runs(store) as runs:
        run = runs.start(solo(model, agent={"tools": [Pay()]}))
        with pytest.raises(RunPaused):
            run.result(20)
        (request,) = run.pending()
        run.resume({request.request_id: {"approved": True, "arguments": {"amount": 99}}})
        with pytest.raises(ValueError, match="too much"):
            run.result(20)
        (again,) = run.pending()
        assert again.request_id == request.request_id
        run.resume({request.request_id: "yes"})
        assert run.result(20).raw == "Done"
    assert paid == [5]


def test_without_a_path_another_process_has_to_name_the_flow(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'runs.db'}"
    with Runs(store) as runs:
        run, request = paused(runs)
    with Runs(store) as runs:
        with pytest.raises(ValueError, match="pass it as target"):
            runs[run.id].resume({request.request_id: "2"})
        with pytest.raises(ValueError, match="pass it as target"):
            runs[run.id].answer(request.request_id, "2")
        runs[run.id].answer(request.request_id, "2", target=Asks())
        assert runs[run.id].result(20) == "12"


def test_a_flow_of_another_name_is_not_run_in_place_of_the_one_in_the_log(store: str | None) -> None:
    class Renamed(Asks): ...

    with Runs(store) as runs:
        run, request = paused(runs)
        run.resume({request.request_id: "2"}, Renamed())
        with pytest.raises(NotResumable, match=r"Renamed cannot go on: .* \(it has 'Asks'\); if the class was renamed"):
            run.result(20)
        run.resume(target=Renamed(name="Asks"))  # the answer is in the log
        assert run.result(20) == "12"
    assert ran == ["first", "second", "second"]


@pytest.mark.parametrize("way", ["failed", "cancelled"])
def test_a_run_that_did_not_end_well_goes_on_with_what_was_started_here(store: str | None, way: str) -> None:
    fails = [True]

    class Fails(Flow):
        @start()
        def only(self) -> str:
            if fails and way == "failed":
                raise ConnectionError("down")
            return str(self.ask("Go on?"))

    with Runs(store) as runs:
        run = runs.start(Fails(), answer_within=60)
        if way == "cancelled":
            with run.events().pipe(ops.to_output()) as output:
                next(event for event in output if isinstance(event, InputRequested))
            run.cancel("enough")
        with pytest.raises((ConnectionError, RunCancelled)):
            run.result(20)
        fails.clear()
        run.resume()
        with pytest.raises(RunPaused):
            run.result(20)


def test_a_reader_of_the_whole_log_sees_and_counts_each_word_once(store: str | None) -> None:
    @tool
    def look(where: str) -> str:
        """Look."""
        return f"{where} is fine"

    model = Scripted("Plan A", calls(("look", {"where": "north"})), "Looked", "Done")

    class Plans(Flow):
        @start()
        def plan(self) -> str:
            said = f"{model.llm.call('Plan')}, {an_agent(model, tools=[look]).kickoff('Look').raw}"
            return f"{said}, {model.llm.call(str(self.ask('Go on?')))}"

    with Runs(store) as runs:
        run, request = paused(runs, Plans())
        seen = [str(chunk) for chunk in run.output()]
        last = run.look_up().last
        run.resume({request.request_id: "yes"})
        assert run.result(20) == "Plan A, Looked, Done"
        whole = run.output()
        assert [str(chunk) for chunk in whole] == [*seen, "Done"]
        assert whole.get_full_text() == "Plan ALookedDone"
        assert [str(chunk) for chunk in run.output(after=last)] == ["Done"]
        totals = list(run.observe().pipe(ops.usage(), ops.to_output()))
        assert totals[-1].successful_requests == 4 == len(model.requests)
        events = list(run.events().pipe(ops.to_output()))
        assert [str(event) for event in events if isinstance(event, StreamChunk) and event.replayed] != []
        tree = RunTree(("plan",))
        lines = "\n".join(line for event in events for line in Transcript(tree, 80).read(event))
        assert tree.spending.usage.successful_requests == 4
        assert tree.tools == 1
        assert lines.count("Writer -> look") == 1


class OutOfPaper(Exception):
    """An error of the program's own."""


def test_a_model_is_not_asked_again_about_tools_that_had_failed(store: str | None) -> None:
    @tool(needs_approval=True)
    def pay(amount: float) -> str:
        """Pay."""
        return f"paid {amount}"

    @tool(max_usage_count=1)
    def once() -> str:
        """Works once."""
        return "worked"

    @tool
    def print_it() -> str:
        """Print."""
        raise OutOfPaper("tray 2")

    once.run()
    turn = calls(("pay", {"amount": 5}), ("once", {}), ("print_it", {}))
    model = Scripted(turn, "Done")

    class Works(Flow):
        @start()
        def work(self) -> str:
            said = an_agent(model, tools=[pay, once, print_it]).kickoff("Work").raw
            return f"{said}, {self.ask('Go on?')}"

    with Runs(store) as runs:
        run, approval = paused(runs, Works())
        run.resume({approval.request_id: "no, too dear"})
        with pytest.raises(RunPaused):
            run.result(20)
        (request,) = run.pending()
        run.resume({request.request_id: "yes"})
        assert run.result(20) == "Done, yes"
        failed = [event for event in run.events().pipe(ops.to_output()) if isinstance(event, ToolFailed)]
    assert [each["content"] for each in model.conversations[-1] if each["role"] == "tool"] == [
        "Error: a person refused pay. too dear",
        "Error: the tool 'once' has been used max_usage_count=1 times already. Answer without it.",
        "Error: print_it raised OutOfPaper: tray 2",
    ]
    assert {(each.tool_name, each.stage) for each in failed} == {
        ("pay", "denied"),
        ("once", "limit"),
        ("print_it", "run"),
    }
    assert len(model.requests) == 2


def test_what_is_still_open_is_repeated_first(store: str | None) -> None:
    with Runs(store) as runs:
        run, request = paused(runs)
        last = run.look_up().last
        run.resume()
        with pytest.raises(RunPaused):
            run.result(20)
        resumed, repeated, *_ = run.events(after=last).pipe(ops.to_output())
        assert isinstance(resumed, FlowResumed)
        assert isinstance(repeated, InputRequested)
        assert (repeated.request_id, repeated.replayed) == (request.request_id, True)
        assert [each.request_id for each in run.pending()] == [request.request_id]


def test_a_live_run_is_told_at_once(store: str | None) -> None:
    with Runs(store) as runs:
        run = runs.start(Asks(), answer_within=20)
        for event in run.events().pipe(ops.to_output()):
            if isinstance(event, InputRequested):
                run.answer(event.request_id, "2")
        assert run.result(20) == "12"
    assert ran == ["first", "second"]


def test_a_question_that_nobody_answers_in_time_pauses_the_run(store: str | None) -> None:
    with Runs(store) as runs:
        run, request = paused(runs, answer_within=0.05)
        run.answer(request.request_id, "2")
        assert run.result(20) == "12"


@pytest.mark.slow
@pytest.mark.parametrize("way", ["answer", "restart"])
def test_a_run_that_goes_on_waits_for_answers_as_long_as_its_start_said(store: str | None, way: str) -> None:
    class Twice(Flow):
        @start()
        def ask_a_person(self) -> str:
            return f"{self.ask('Go on?')}{self.ask('How far?')}"

    def pauses(runs: Runs, within_s: float) -> int:
        """How often the run pauses, if all questions after the first pause are answered at once."""
        run, request = paused(runs, Twice(), answer_within=within_s)
        last = run.look_up().last
        if way == "answer":
            run.answer(request.request_id, "2")
        else:
            run.restart(Twice())
        for event in run.events(after=last).pipe(ops.to_output()):
            if isinstance(event, InputRequested) and not event.replayed:
                run.answer(event.request_id, "2")
            elif isinstance(event, FlowPaused):
                return 2
        assert run.result(20) == "22"
        return len([event for event in run.events().pipe(ops.to_output()) if isinstance(event, FlowPaused)])

    with Runs(store) as runs:
        # What is at once on a busy machine, is not known before.
        assert any(pauses(runs, within_s) == 1 for within_s in (0.5, 5, 20))


def wait_for_question(run: Run) -> InputRequested:
    """The first question of a run, once it is asked."""
    with run.events().pipe(ops.to_output()) as output:
        return next(event for event in output if isinstance(event, InputRequested))


@pytest.fixture
def patient_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """``close()`` gives runs all the time that a busy machine takes to pause them."""
    monkeypatch.setattr("rxflow.runs.worker.LOOPS_WAIT_S", PATIENCE_S)


@pytest.mark.usefixtures("patient_close")
def test_a_run_that_only_waits_for_a_person_is_paused_when_its_runs_are_closed(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'runs.db'}"
    with Runs(store) as runs:
        run = runs.start("tests.runs.test_resuming:Asks", answer_within=600)
        request = wait_for_question(run)
    with Runs(store) as runs:
        (again,) = runs.list(status="paused")
        assert again.pending() == [request]
        again.answer(request.request_id, "2")
        assert again.result(20) == "12"


@pytest.mark.usefixtures("patient_close")
def test_an_answer_that_arrives_just_before_the_runs_are_closed_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    closing = Gate()

    def wait_for_ends(ends: Sequence[Future[None]], seconds: float) -> None:
        closing.open()
        wait(ends, seconds)

    monkeypatch.setattr("rxflow.runs.worker.wait", wait_for_ends)
    with Runs(MemoryLog()) as runs:
        run = runs.start(Asks(), answer_within=600)
        request = wait_for_question(run)
        worker: Any = run.worker
        worker._border.scope.run.loop.call_soon_threadsafe(closing.wait)
        worker.on_note(Note("answer", "2", request.request_id))
    assert run.result(20) == "12"


@pytest.mark.usefixtures("patient_close")
def test_no_question_is_asked_at_the_console_while_the_runs_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rxflow._streaming.questions.has_console", lambda: True)
    monkeypatch.setattr("builtins.input", lambda prompt="": f"typed {prompt}")
    with Runs(MemoryLog()) as runs:
        run = runs.start(Asks(), answer_within=600)
        wait_for_question(run)
    assert run.status == "paused"


def test_a_run_whose_other_work_goes_on_is_cancelled_when_its_runs_are_closed() -> None:
    class Works(Asks):
        @start()
        async def work(self) -> None:
            await Gate().passed()

    with Runs(MemoryLog()) as runs:
        run = runs.start(Works(), answer_within=600)
        wait_for_question(run)
    assert run.status == "cancelled"


def test_a_run_on_the_loop_that_closes_its_runs_is_cancelled_at_once() -> None:
    async def work() -> str:
        with Runs(MemoryLog()) as runs:
            run = await runs.start_async(Asks(), answer_within=600)
            async with run.events().pipe(ops.to_output()) as output:
                async for event in output:
                    if isinstance(event, InputRequested):
                        break
        return run.status

    assert asyncio.run(work()) == "cancelled"


def test_an_answer_that_does_not_fit_is_refused_and_the_question_stays(store: str | None) -> None:
    with Runs(store) as runs:
        run, request = paused(runs)
        with pytest.raises(ValueError, match=r"the answer to 'Go on\?' does not fit: 2 is not of type 'string'"):
            run.answer(request.request_id, 2)
        with pytest.raises(ValueError, match="does not fit"):
            run.resume({request.request_id: 2})
        with pytest.raises(LookupError, match="no question 'x' is waiting"):
            run.answer("x", "2")
        with pytest.raises(LookupError, match="no question 'x' waits"):
            run.resume({"x": "2"})
        run.answer(request.request_id, "2")
        assert run.result(20) == "12"
        with pytest.raises(LookupError, match="was already answered, or never asked"):
            run.answer(request.request_id, "3")


def test_a_run_that_has_completed_cannot_go_on(store: str | None) -> None:
    with Runs(store) as runs:
        run, request = paused(runs)
        run.answer(request.request_id, "2")
        run.result(20)
        with pytest.raises(NotResumable, match="has completed: there is nothing to resume"):
            run.resume()


class Late(MemoryLog):
    """Something happens just before a run is taken over."""

    def __init__(self, happen: Callable[[], object]) -> None:
        super().__init__()
        self._happen = happen

    def claim(self, run_id: str, spec: RunSpec | None, on_note: Any) -> Future[tuple[Writer, Head]]:
        if spec is None:
            happen, self._happen = self._happen, lambda: None
            happen()
        return super().claim(run_id, spec, on_note)


def test_a_run_that_completes_just_before_it_is_resumed_is_not_repeated() -> None:
    gate = Gate()

    class Slow(Flow):
        @start()
        async def wait(self) -> str:
            ran.append("wait")
            await gate.passed()
            return "done"

    def complete() -> None:
        gate.open()
        log.wait("r", sys.maxsize).result(20)

    ran.clear()
    log = Late(complete)
    with Runs(log) as runs:
        run = runs.start(Slow(), run_id="r")
        run.events().pipe(rxops.first(lambda event: isinstance(event, MethodStarted))).run()
        with pytest.raises(NotResumable, match=r"^run 'r' has completed: there is nothing to resume$"):
            runs["r"].resume(target=Slow())
        assert (run.status, run.result(20)) == ("completed", "done")
    assert ran == ["wait"]


def test_a_run_that_fails_just_before_it_is_resumed_goes_on_behind_what_it_did_last() -> None:
    gate = Gate()

    class Fails(Flow):
        @start()
        async def wait(self) -> str:
            ran.append("wait")
            await gate.passed()
            return "done"

        @listen(wait)
        def end(self, text: str) -> str:
            ran.append("end")
            if ran.count("end") == 1:
                raise ConnectionError("down")
            return text

    def fail() -> None:
        gate.open()
        log.wait("r", sys.maxsize).result(20)

    ran.clear()
    log = Late(fail)
    with Runs(log) as runs:
        run = runs.start(Fails(), run_id="r")
        run.events().pipe(rxops.first(lambda event: isinstance(event, MethodStarted))).run()
        runs["r"].resume(target=Fails())
        assert run.result(20) == "done"
    assert ran == ["wait", "end", "end"]


def test_a_run_whose_question_others_answered_just_before_stays_paused_at_the_next_one() -> None:
    class Twice(Flow):
        @start()
        def ask_a_person(self) -> str:
            return f"{self.ask('Go on?')}{self.ask('How far?')}"

    def answer() -> None:
        runs["r"].answer(request.request_id, "1")
        log.wait("r", sys.maxsize).result(20)

    log = Late(answer)
    with Runs(log) as runs:
        run, request = paused(runs, Twice(), run_id="r")
        with pytest.raises(LookupError, match=rf"no question '{request.request_id}' waits"):
            run.resume({request.request_id: "2"})
        assert run.status == "paused"
        (request,) = run.pending()
        run.answer(request.request_id, "3")
        assert run.result(20) == "13"


@pytest.mark.parametrize("answer", ["2", "fail"])
def test_a_paused_run_that_ends_just_before_it_is_cancelled_keeps_its_end(answer: str) -> None:
    class Fails(Flow):
        @start()
        def ask_a_person(self) -> str:
            heard = str(self.ask("Go on?"))
            if heard == "fail":
                raise ConnectionError("down")
            return heard

    def end() -> None:
        runs["r"].answer(request.request_id, answer)
        log.wait("r", sys.maxsize).result(20)

    log = Late(end)
    with Runs(log) as runs:
        run, request = paused(runs, Fails(), run_id="r")
        run.cancel("nobody came")
        if answer == "fail":
            with pytest.raises(ConnectionError, match=r"^down$"):
                run.result(20)
        else:
            assert (run.status, run.result(20)) == ("completed", "2")


def test_a_paused_run_whose_cancellation_cannot_be_written_is_let_go() -> None:
    """Its lease is not renewed any more, so that it can be resumed."""

    class Full(MemoryLog):
        def __init__(self) -> None:
            super().__init__()
            self.released: list[Writer] = []

        def append(self, writer: Writer, events: Sequence[Event], end: End | None = None) -> Future[None]:
            if end is None or end.status != "cancelled":
                return super().append(writer, events, end)
            refused: Future[None] = Future()
            refused.set_exception(StoreError("full"))
            return refused

        def release(self, writer: Writer) -> None:
            self.released.append(writer)

    log = Full()
    with Runs(log) as runs:
        run, _ = paused(runs)
        with pytest.raises(StoreError, match=r"^full$"):
            run.cancel()
        assert [(writer.run_id, writer.generation) for writer in log.released] == [(run.id, 2)]


def test_a_run_that_failed_goes_on_behind_what_had_finished(store: str | None) -> None:
    fails = [True]

    class Fails(Asks):
        @listen("second")
        def third(self, text: str) -> str:
            if fails:
                raise ConnectionError("down")
            return f"{text}3"

    flow = Fails(input_provider=lambda _: "2")
    with Runs(store) as runs:
        run = runs.start(flow)
        with pytest.raises(ConnectionError):
            run.result(20)
        fails.clear()
        run.resume(target=flow)
        assert run.result(20) == "123"
    assert ran == ["first", "second"]


def test_a_run_that_began_anew_goes_on_from_its_new_beginning(store: str | None) -> None:
    with Runs(store) as runs:
        run, stale = paused(runs)
        run.restart(Asks())
        with pytest.raises(RunPaused, match="Go on") as raised:
            run.result(20)
        (request,) = run.pending()
        assert request.request_id != stale.request_id
        assert raised.value.pending == (request,)
        with pytest.raises(LookupError, match=stale.request_id):
            run.resume({stale.request_id: "no"}, Asks())
        run.resume({request.request_id: "2"}, Asks())
        assert run.result(20) == "12"
    assert ran == ["first", "second", "first", "second", "second"]


def test_results_from_before_a_new_beginning_are_not_used(store: str | None) -> None:
    numbers = iter("ab")

    class Draws(Flow):
        @start()
        def draw(self) -> str:
            return next(numbers)

        @listen(draw)
        def check(self, drawn: str) -> str:
            if drawn == "a":
                raise ConnectionError("down")
            return f"{drawn}{self.ask('Go on?')}"

    with Runs(store) as runs:
        run = runs.start(Draws())
        with pytest.raises(ConnectionError):
            run.result(20)
        run.restart(Draws())
        with pytest.raises(RunPaused):
            run.result(20)
        (request,) = run.pending()
        run.resume({request.request_id: "2"}, Draws())
        assert run.result(20) == "b2"


def test_what_is_taken_back_for_a_new_beginning_says_how_the_run_had_ended(store: str | None) -> None:
    with Runs(store) as runs:
        run, _ = paused(runs)
        run.restart(Asks())
        with pytest.raises(RunPaused):
            run.result(20)
        (retracted,) = [each for each in run.events().pipe(ops.to_output()) if isinstance(each, Retracted)]
        assert str(retracted.error) == f"run {run.id!r} was paused, and starts from the beginning"


def test_a_cancelled_wait_ends_at_once_and_may_go_on(store: str | None) -> None:
    with Runs(store) as runs:
        run = runs.start(Asks(), answer_within=60)
        with run.events().pipe(ops.to_output()) as output:
            next(event for event in output if isinstance(event, InputRequested))
        run.cancel("enough")
        with pytest.raises(RuntimeError, match="enough"):
            run.result(20)
        assert run.status == "cancelled"
        (request,) = run.pending()
        run.resume({request.request_id: "2"}, Asks())
        assert run.result(20) == "12"


def test_a_paused_run_can_be_cancelled(store: str | None) -> None:
    with Runs(store) as runs:
        run, request = paused(runs)
        run.cancel("nobody came")
        assert runs[run.id].status == "cancelled"
        with pytest.raises(RunCancelled, match="nobody came"):
            run.result(20)
        with pytest.raises(RuntimeError):
            run.answer(request.request_id, "2")
        run.resume({request.request_id: "2"})
        assert run.result(20) == "12"


def test_a_crew_alone_is_paused_and_goes_on(store: str | None) -> None:
    paid: list[float] = []

    @tool(needs_approval=True)
    def pay(amount: float) -> str:
        """Pay an amount."""
        paid.append(amount)
        return "paid"

    call: list[Delta] = [ToolCallDelta(0, "c", "pay", '{"amount": 5}'), Ending("tool_calls")]
    model = Scripted(call, "Done")
    with Runs(store) as runs:
        run = runs.start(solo(model, agent={"tools": [pay]}))
        with pytest.raises(RunPaused):
            run.result(20)
        (request,) = run.pending()
        assert request.arguments == {"amount": 5}
        run.answer(request.request_id, {"approved": True, "arguments": {"amount": 3}})
        assert run.result(20).raw == "Done"
    assert paid == [3]
    assert len(model.requests) == 2


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_worker_that_is_killed_at_any_event_leaves_a_run_that_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    events = len(WHOLE.events)
    ended = subprocess.run(
        [sys.executable, "-m", "tests.runs.killing", str(tmp_path), str(events)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=230,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [line["cut"] for line in lines] == list(range(1, events))
    undisturbed: Counter[str] = Counter([*UNDISTURBED.model.asked, *UNDISTURBED.looked])
    for line in lines:
        assert line["result"] == "booked for Ada", line
        assert line["text"] == "on tides. on boats. booked for Ada", line
        # What was under way when the worker died is asked once more; nothing else is.
        asked: list[str] = line["asked"]
        twice = Counter(asked) - undisturbed
        assert sum(twice.values()) <= int(is_under_way(WHOLE.events[: line["cut"]])), line
        assert undisturbed - Counter(asked) == Counter(), line


def is_under_way(past: Sequence[Event]) -> bool:
    """A model call or a tool had begun, and had not ended."""
    began = sum(isinstance(event, LLMStarted | ToolStarted) for event in past)
    return began > sum(isinstance(event, LLMFinished | ToolFinished) for event in past)


def test_the_log_has_the_answer_once(store: str | None) -> None:
    with Runs(store) as runs:
        run, request = paused(runs)
        run.answer(request.request_id, "2")
        run.result(20)
        received = [event for event in run.events().pipe(ops.to_output()) if isinstance(event, InputReceived)]
        assert [(each.request_id, each.value, each.replayed) for each in received] == [
            (request.request_id, "2", False),
            (request.request_id, "2", True),  # the resumed run repeats it where it asks
        ]
