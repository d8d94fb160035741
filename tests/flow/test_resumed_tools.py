"""Tools, approvals and reviews of a resumed run: each is carried out, and asked for, once."""

from typing import Any

import pytest

from rxflow import Crew, operators as ops
from rxflow._streaming.journal import Journal
from rxflow.flow import Flow, human_feedback, start
from rxflow.llm.source import Delta, Ending, ToolCallDelta
from rxflow.tools import BaseTool, tool
from rxflow.types.codec import decode, encode
from rxflow.types.events import (
    CrewFinished,
    Event,
    FlowFinished,
    FlowPaused,
    InputRequested,
    ToolFailed,
    ToolFinished,
    ToolStarted,
)
from tests.scripted import Scripted, calls
from tests.signals import outcome
from tests.team import a_crew, a_task, an_agent, solo


def test_a_tool_call_with_a_set_is_known_again() -> None:
    filed: list[set[int]] = []

    @tool
    def file_under(numbers: set[int]) -> str:
        """File the report."""
        filed.append(numbers)
        return "filed"

    class Files(Flow):
        @start()
        def file_and_ask(self) -> str:
            # the order of these numbers in a set depends on which comes first, and the log sorts them
            model = Scripted(calls(("file_under", {"numbers": [8, 0]})), "Done")
            solo(model, agent={"tools": [file_under]}).kickoff()
            return f"heard {self.ask('Go on?')}"

    paused = outcome(Files().events())
    (request,) = paused.one(FlowPaused).pending
    past = [decode(encode(event)) for event in paused.events]
    seen = outcome(Files().events().resume_from(Journal(past, {request.request_id: "yes"})))
    assert seen.one(FlowFinished).result == "heard yes"
    assert filed == [{0, 8}]


def crew_that_pays() -> tuple[BaseTool, list[float], Crew]:
    """A tool that needs approval, the amounts that it has paid, and a crew that calls it once."""
    paid: list[float] = []

    @tool(needs_approval=True)
    def pay(amount: float) -> str:
        """Pay."""
        paid.append(amount)
        return "paid"

    return pay, paid, solo(Scripted(calls(("pay", {"amount": 5})), "Done"), agent={"tools": [pay]})


@pytest.mark.parametrize("is_paused_first", [False, True])
def test_a_worker_may_be_killed_twice_while_one_approval_is_open(is_paused_first: bool) -> None:
    _, paid, crew = crew_that_pays()
    first = outcome(crew.events())
    (request,) = first.one(FlowPaused).pending
    past = first.events if is_paused_first else first.events[: first.events.index(request) + 1]
    for _ in range(2):
        again = outcome(crew.events().resume_from(Journal(past)))
        assert [each.request_id for each in again.one(FlowPaused).pending] == [request.request_id]
        past = [*past, *again.events[: again.events.index(again.one(ToolStarted)) + 1]]
    seen = outcome(crew.events().resume_from(Journal(past, {request.request_id: "yes"})))
    assert seen.errors == []
    assert seen.one(CrewFinished).result.raw == "Done"
    assert paid == [5]


def test_a_person_who_was_asked_decides_even_if_the_tool_needs_no_approval_any_more() -> None:
    pay, paid, crew = crew_that_pays()
    paused = outcome(crew.events())
    (request,) = paused.one(FlowPaused).pending
    pay.needs_approval = False
    again = outcome(crew.events().resume_from(Journal(paused.events)))
    assert [each.request_id for each in again.one(FlowPaused).pending] == [request.request_id]
    past = [*paused.events, *again.events]
    seen = outcome(crew.events().resume_from(Journal(past, {request.request_id: "no"})))
    assert seen.one(ToolFailed).stage == "denied"
    assert seen.one(CrewFinished).result.raw == "Done"
    assert paid == []


def test_what_ran_inside_of_a_finished_tool_is_not_taken_for_what_runs_after_it() -> None:
    ran: list[int] = []

    class Inner(Flow):
        @start()
        def work(self) -> str:
            ran.append(self.state["number"])
            return f"inner {self.state['number']}"

    class Sure(Flow):
        @start()
        def check(self) -> str:
            return f"{self.ask('Sure?')}"

    @tool
    def run_first() -> str:
        """Ask, and run a flow."""
        return f"{Sure().kickoff()} {Inner().kickoff(inputs={'number': 1})}"

    model = Scripted(calls(("run_first", {})), "One")

    class Outer(Flow):
        @start()
        def run_both(self) -> str:
            said = an_agent(model, tools=[run_first]).kickoff("Go").raw
            heard = self.ask("Go on?")
            return f"{said} {heard} {Inner().kickoff(inputs={'number': 2})} {Sure().kickoff()}"

    past = outcome(Outer().events()).events
    for answer in ("yes", "well", "no"):
        assert isinstance(past[-1], FlowPaused)
        (request,) = past[-1].pending
        past = [*past, *outcome(Outer().events().resume_from(Journal(past, {request.request_id: answer}))).events]
    assert [event.result for event in past if isinstance(event, FlowFinished)][-1] == "One well inner 2 no"
    assert ran == [1, 2]


@pytest.mark.parametrize("second_id", ["call_0", "call_1"])
@pytest.mark.parametrize("is_answered_at_once", [False, True])
def test_an_approved_call_that_ended_leaves_nothing_for_the_next_one(second_id: str, is_answered_at_once: bool) -> None:
    """Models whose tools are described in the prompt number the calls of each turn anew, from 0."""
    paid: list[float] = []

    @tool(needs_approval=True)
    def pay(amount: float) -> str:
        """Pay."""
        paid.append(amount)
        return f"paid {len(paid)}"

    second: list[Delta] = [ToolCallDelta(0, second_id, "pay", '{"amount": 5}'), Ending("tool_calls")]
    model = Scripted(calls(("pay", {"amount": 5})), "One", second, "Two")

    class Pays(Flow):
        @start()
        def pay_twice(self) -> str:
            one = an_agent(model, tools=[pay]).kickoff("Pay").raw
            heard = self.ask("Go on?")
            return f"{one} {heard} {an_agent(model, tools=[pay]).kickoff('Pay again').raw}"

    def approve(request: InputRequested) -> str | None:
        return "yes" if is_answered_at_once and request.kind == "approval" and not paid else None

    past: list[Event] = outcome(Pays().events().pipe(ops.answer_with(approve))).events
    asked: list[str] = []
    while isinstance(past[-1], FlowPaused):
        (request,) = past[-1].pending
        asked.append(request.kind)
        past += outcome(Pays().events().resume_from(Journal(past, {request.request_id: "yes"}))).events
    assert asked == [*([] if is_answered_at_once else ["approval"]), "input", "approval"]
    (finished,) = [event for event in past if isinstance(event, FlowFinished)]
    assert finished.result == "One yes Two"
    assert paid == [5, 5]


def crew_that_sends_twice(send: BaseTool) -> Crew:
    """Its model sends a letter to Ann, signs, which needs an approval, and sends the same letter again."""

    @tool(needs_approval=True)
    def sign(name: str) -> str:
        """Sign."""
        return "signed"

    again = calls(("send", {"to": "Ann"}))
    model = Scripted(calls(("send", {"to": "Ann"})), calls(("sign", {"name": "Bo"})), again, "Done")
    return solo(model, agent={"tools": [send, sign]})


@pytest.mark.parametrize(("is_kept", "sent_in_all"), [(True, 1), (False, 2)])
def test_the_same_call_after_the_resumption_is_not_carried_out_again(is_kept: bool, sent_in_all: int) -> None:
    sent: list[str] = []

    @tool
    def send(to: str) -> str:
        """Send the letter."""
        sent.append(to)
        return f"letter {len(sent)}"

    def may_keep(arguments: dict[str, Any], result: str) -> bool:
        return is_kept

    send.cache_function = may_keep

    crew = crew_that_sends_twice(send)
    paused = outcome(crew.events())
    (request,) = paused.one(FlowPaused).pending
    past = [decode(encode(event)) for event in paused.events]
    seen = outcome(crew.events().resume_from(Journal(past, {request.request_id: "yes"})))
    assert seen.one(CrewFinished).result.raw == "Done"
    assert sent == ["Ann"] * sent_in_all
    assert seen.of(ToolFinished)[-1].result == f"letter {sent_in_all}"


def test_a_call_that_a_person_changed_does_not_answer_the_call_that_the_model_wanted() -> None:
    sent: list[str] = []

    def is_first(to: str) -> bool:
        return not sent

    @tool(needs_approval=is_first)
    def send(to: str) -> str:
        """Send the letter."""
        sent.append(to)
        return f"sent to {to}"

    crew = crew_that_sends_twice(send)
    past: list[Event] = outcome(crew.events()).events
    for answer in ({"approved": True, "arguments": {"to": "Cy"}}, "yes"):
        (request,) = [event for event in past if isinstance(event, FlowPaused)][-1].pending
        journal = Journal([decode(encode(event)) for event in past], {request.request_id: answer})
        past = [*past, *outcome(crew.events().resume_from(journal)).events]
    assert isinstance(past[-1], CrewFinished)
    assert sent == ["Cy", "Ann"]


def test_a_tool_that_changes_its_arguments_and_its_result_is_known_again() -> None:
    sent: list[str] = []
    names: list[list[str]] = []

    @tool
    def send(to: list[str]) -> list[str]:
        """Send the letter."""
        to.append("boss")
        names.append(to)
        sent.extend(to)
        return sent

    @tool(needs_approval=True)
    def sign(name: str) -> str:
        """Sign."""
        sent.clear()
        return "signed"

    model = Scripted(calls(("send", {"to": ["Ann"]})), calls(("sign", {"name": "Bo"})), "Done")
    crew = solo(model, agent={"tools": [send, sign]})
    paused = outcome(crew.events())
    assert [event.arguments for event in paused.of(ToolStarted)] == [{"to": ["Ann"]}, {"name": "Bo"}]
    (request,) = paused.one(FlowPaused).pending
    sent.append("later")
    assert paused.one(ToolFinished).result == ["Ann", "boss"]
    seen = outcome(crew.events().resume_from(Journal(paused.events, {request.request_id: "yes"})))
    assert seen.one(CrewFinished).result.raw == "Done"
    assert names == [["Ann", "boss"]]


def test_feedback_may_be_about_a_dict_whose_keys_cannot_be_sorted() -> None:
    class Reviewed(Flow):
        @start()
        @human_feedback("Good?")
        def draft(self) -> dict[int | str, str]:
            return {1: "one", "b": "two"}

    paused = outcome(Reviewed().events())
    (request,) = paused.one(FlowPaused).pending
    past = [decode(encode(event)) for event in paused.events]
    seen = outcome(Reviewed().events().resume_from(Journal(past, {request.request_id: "yes"})))
    assert seen.one(FlowFinished).result.output == {1: "one", "b": "two"}


def test_the_review_of_a_task_is_not_taken_for_that_of_its_method() -> None:
    model = Scripted("Terns")

    class Reviewed(Flow):
        @start()
        @human_feedback("Good?")
        def draft(self) -> str:
            return f"{a_task(an_agent(model), human_input=True).execute_sync().raw} are birds"

    paused = outcome(Reviewed().events())
    (of_task,) = paused.one(FlowPaused).pending
    assert of_task.arguments == {"output": "Terns"}
    again = outcome(Reviewed().events().resume_from(Journal(paused.events, {of_task.request_id: ""})))
    (of_method,) = again.one(FlowPaused).pending
    assert of_method.arguments == {"output": "Terns are birds"}
    past = [*paused.events, *again.events]
    seen = outcome(Reviewed().events().resume_from(Journal(past, {of_method.request_id: "yes"})))
    assert seen.one(FlowFinished).result.output == "Terns are birds"
    assert len(model.requests) == 1


@pytest.mark.parametrize("in_crew", [False, True])
def test_a_reviewed_method_in_a_tool_is_not_run_again(in_crew: bool) -> None:
    ran: list[str] = []

    class Reviewed(Flow):
        @start()
        @human_feedback("Good?")
        def draft(self) -> str:
            ran.append("draft")
            return f"draft {len(ran)}"

    @tool
    def write() -> str:
        """Write."""
        reviewed: Any = Reviewed().kickoff()
        return f"{reviewed.output}"

    model = Scripted(calls(("write", {})), "Done")
    writer = an_agent(model, tools=[write])
    source: Any = a_crew(a_task(writer)) if in_crew else writer
    given = () if in_crew else ("Write",)
    paused = outcome(source.events(*given))
    (request,) = paused.of(FlowPaused)[-1].pending
    seen = outcome(source.events(*given).resume_from(Journal(paused.events, {request.request_id: "yes"})))
    assert ran == ["draft"]
    assert seen.of(ToolFinished)[-1].result == "draft 1"
