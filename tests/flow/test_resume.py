"""A run that was cut off at any event goes on where it was: nothing that had finished is done, or paid, again."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from rxflow import operators as ops
from rxflow._streaming.journal import Journal, NotResumable
from rxflow.flow import Flow, HumanFeedbackResult, and_, human_feedback, listen, persist, router, start
from rxflow.flow.persistence import SQLiteFlowPersistence
from rxflow.llm.source import Delta, Ending, ToolCallDelta
from rxflow.tools import tool
from rxflow.types.chunks import StreamChunk
from rxflow.types.codec import decode, encode
from rxflow.types.events import (
    CrewFinished,
    Event,
    FlowFinished,
    FlowPaused,
    FlowResumed,
    InputReceived,
    InputRequested,
    LLMFinished,
    MethodFinished,
    MethodStarted,
    ReasoningChunk,
    Retracted,
    StateChanged,
    ToolFailed,
    ToolFinished,
    ToolStarted,
)
from tests.flow.trip import World, text_of
from tests.scripted import Scripted, calls, thinking
from tests.signals import outcome
from tests.team import a_crew, a_task, an_agent, solo


def states_of(events: Sequence[Event]) -> Sequence[Mapping[str, Any]]:
    return [event.state for event in events if isinstance(event, StateChanged)]


UNDISTURBED = World()
WHOLE = UNDISTURBED.begin()
ALL = range(1, len(WHOLE.events) + 1)


def test_the_undisturbed_run_has_all_that_a_kill_could_hit() -> None:
    assert UNDISTURBED.model.asked == ["tides", "tides", "boats"]
    assert WHOLE.one(FlowFinished).result == "booked for Ada"
    assert text_of(WHOLE.events) == "on tides. on boats. booked for Ada"
    assert len(WHOLE.of(ToolStarted)) == len(WHOLE.of(InputRequested)) == 1
    assert len(WHOLE.events) > 40


@pytest.mark.parametrize("cut", ALL)
def test_a_run_that_is_cut_off_after_any_event_ends_as_an_undisturbed_one(cut: int) -> None:
    past = WHOLE.events[:cut]
    world = World()
    seen = world.go_on(past)
    assert seen.errors == []
    assert seen.one(FlowFinished).result == "booked for Ada"
    assert text_of([*past, *seen.events]) == text_of(WHOLE.events)
    answered = sum(isinstance(event, LLMFinished) for event in past)
    assert world.model.asked == UNDISTURBED.model.asked[answered:]
    assert len(world.looked) == (0 if any(isinstance(event, ToolFinished) for event in past) else 1)
    done = sum(isinstance(event, MethodFinished) for event in past)
    assert world.ran == UNDISTURBED.ran[done:]
    assert len(world.answered) == (0 if any(isinstance(event, InputReceived) for event in past) else 1)
    assert states_of([*past, *seen.events])[-1] == states_of(WHOLE.events)[-1]
    assert seen.one(FlowFinished).usage == WHOLE.one(FlowFinished).usage


@pytest.mark.parametrize("cut", range(1, len(WHOLE.events), 4))
def test_it_may_be_cut_off_again_and_again(cut: int) -> None:
    past = WHOLE.events[:cut]
    for survives in (3, 7, 12, 20):
        seen = World().go_on(past)
        past = [*past, *seen.events[:survives]]
    seen = World().go_on(past)
    assert seen.errors == []
    assert seen.one(FlowFinished).result == "booked for Ada"
    assert text_of([*past, *seen.events]) == text_of(WHOLE.events)


def test_what_had_finished_is_repeated_and_marked() -> None:
    cut = next(
        index
        for index, event in enumerate(WHOLE.events)
        if isinstance(event, MethodFinished) and event.origin.flow_method == "choose"
    )
    past = WHOLE.events[: cut + 1]
    seen = World().go_on(past)
    assert isinstance(seen.events[0], FlowResumed)
    replayed = [event for event in seen.events if not isinstance(event, StreamChunk) and event.replayed]
    assert [(type(event).__name__, event.origin.flow_method) for event in replayed] == [
        ("FlowStarted", ""),
        ("MethodStarted", "plan"),
        ("MethodFinished", "plan"),
        ("MethodStarted", "choose"),
        ("MethodFinished", "choose"),
    ]
    before = {event.origin.flow_method: (event.kind, event.triggered_by) for event in WHOLE.of(MethodStarted)}
    assert before["plan"] != before["choose"]
    assert [(event.kind, event.triggered_by) for event in replayed if isinstance(event, MethodStarted)] == [
        before["plan"],
        before["choose"],
    ]
    run_id = seen.one(FlowFinished).origin.span_id.rpartition("/")[0]
    assert run_id == WHOLE.one(FlowFinished).origin.span_id.rpartition("/")[0]
    spans = {event.origin.span_id for event in seen.of(MethodStarted)}
    assert all(span.startswith(f"{run_id}/") for span in spans)
    assert spans.isdisjoint({event.origin.span_id for event in past if not isinstance(event, StreamChunk)})


def test_a_paused_run_goes_on_with_the_answers() -> None:
    world = World()
    paused = outcome(world.flow().events())
    (request,) = paused.one(FlowPaused).pending
    assert world.model.asked == ["tides", "tides", "boats"]
    journal = Journal(paused.events, {request.request_id: "Bob"})
    seen = outcome(world.flow().events().resume_from(journal))
    assert world.model.asked == ["tides", "tides", "boats"]
    assert world.looked == ["north"]
    assert seen.one(InputReceived).value == "Bob"
    assert seen.one(FlowFinished).result == "booked for Bob"
    assert text_of([*paused.events, *seen.events]) == "on tides. on boats. booked for Bob"


def test_a_resumed_run_first_repeats_what_is_still_open() -> None:
    world = World()
    paused = outcome(world.flow().events())
    (request,) = paused.one(FlowPaused).pending
    again = outcome(world.flow().events().resume_from(Journal(paused.events)))
    repeated = again.events[1]
    assert isinstance(repeated, InputRequested)
    assert (repeated.request_id, repeated.replayed) == (request.request_id, True)
    assert [each.request_id for each in again.one(FlowPaused).pending] == [request.request_id]
    past = [*paused.events, *again.events]
    seen = outcome(world.flow().events().resume_from(Journal(past, {request.request_id: "Cy"})))
    assert seen.one(InputReceived).value == "Cy"
    assert text_of([*past, *seen.events]) == "on tides. on boats. booked for Cy"


@pytest.mark.parametrize("has_finished", [False, True])
def test_reasoning_that_was_cut_off_is_retracted(has_finished: bool) -> None:
    model = Scripted([thinking("Let me see. "), "Yes"])

    class Thinks(Flow):
        @start()
        def think(self) -> str:
            return f"{model.llm.call('Is it so?')}"

    whole = outcome(Thinks().events())
    kind = LLMFinished if has_finished else ReasoningChunk
    cut = next(index for index, event in enumerate(whole.events) if isinstance(event, kind))
    past = whole.events[: cut + 1]
    seen = outcome(Thinks().events().resume_from(Journal(past)))
    assert seen.one(FlowFinished).result == "Yes"
    reasoned = [event for event in [*past, *seen.events] if isinstance(event, ReasoningChunk)]
    shown = [event for event in reasoned if not any(each.covers(event) for each in seen.of(Retracted))]
    assert [event.content for event in shown] == ["Let me see. "]
    assert len(reasoned) == (1 if has_finished else 2)


def test_an_answer_to_no_open_question_is_refused() -> None:
    paused = outcome(World().flow().events())
    with pytest.raises(LookupError, match="no question 'x' waits for an answer; those that wait: "):
        Journal(paused.events, {"x": "Bob"})
    with pytest.raises(LookupError, match="those that wait: none"):
        Journal(WHOLE.events, {"x": "Bob"})
    with pytest.raises(ValueError, match="nothing to resume"):
        Journal([])


def test_a_question_that_has_expired_meanwhile_is_answered_by_none() -> None:
    class Asks(Flow):
        @start()
        def first(self) -> str | None:
            return self.ask("Go on?", timeout=60)

    paused = outcome(Asks().events())
    past = [replace(event, expires_at=1.0) if isinstance(event, InputRequested) else event for event in paused.events]
    seen = outcome(Asks().events().resume_from(Journal(past)))
    assert seen.one(InputReceived).value is None
    assert seen.one(FlowFinished).result is None


def test_methods_that_finished_complete_in_their_old_order() -> None:
    class Race(Flow):
        @start()
        async def slow(self) -> str:
            for _ in range(5):
                await asyncio.sleep(0)
            return "slow"

        @start()
        async def fast(self) -> str:
            return "fast"

        @listen(and_(slow, fast))
        def last(self, result: str) -> str:
            return f"{result}{self.ask('Go on?')}"

    paused = outcome(Race().events())
    (request,) = paused.one(FlowPaused).pending
    seen = outcome(Race().events().resume_from(Journal(paused.events, {request.request_id: "!"})))
    assert seen.one(FlowFinished).result == "slow!"


def test_a_cycle_goes_on_in_its_round() -> None:
    ran: list[int] = []

    class Cycle(Flow):
        @start("again")
        def count(self) -> int:
            ran.append(len(ran))
            return ran[-1]

        @router(count)
        def decide(self, number: int) -> str:
            if number == 2:
                return f"{self.ask('Enough?')}"
            return "again"

        @listen("done")
        def end(self) -> str:
            return "end"

    paused = outcome(Cycle().events())
    (request,) = paused.one(FlowPaused).pending
    seen = outcome(Cycle().events().resume_from(Journal(paused.events, {request.request_id: "done"})))
    assert ran == [0, 1, 2]
    assert seen.one(FlowFinished).result == "end"


@pytest.mark.parametrize("condition", ["red", "pick"])
def test_a_router_that_finished_keeps_its_label(condition: str) -> None:
    class Color(Enum):
        RED = "red"

    class Paints(Flow):
        @start()
        def choose(self) -> int:
            return 1

        @router(choose)
        def pick(self) -> Color:
            return Color.RED

        @listen(condition)
        def paint(self, color: str) -> str:
            return f"{color} {self.ask('Go on?')}"

    paused = outcome(Paints().events())
    (request,) = paused.one(FlowPaused).pending
    past = [decode(encode(event)) for event in paused.events]  # a class inside a function cannot be found again
    seen = outcome(Paints().events().resume_from(Journal(past, {request.request_id: "yes"})))
    assert seen.errors == []
    assert seen.one(FlowFinished).result == "red yes"


def test_flows_in_flows_go_on_each_where_it_was() -> None:
    ran: list[str] = []

    class Inner(Flow):
        @start()
        def first(self) -> str:
            ran.append("first")
            return "1"

        @listen(first)
        def second(self, text: str) -> str:
            return f"{text}{self.ask('Inner?')}"

    class Outer(Flow):
        @start()
        def one(self) -> str:
            return f"{Inner().kickoff()}"

        @listen(one)
        def two(self, text: str) -> str:
            return f"{text}{Inner().kickoff()}"

    events: list[Event] = []
    answers: dict[str, str] = {}
    for answer in ("a", "b"):
        source = Outer().events()
        seen = outcome(source.resume_from(Journal(events, answers)) if events else source)
        events += seen.events
        paused = seen.of(FlowPaused)[-1]
        answers = {paused.pending[0].request_id: answer}
    seen = outcome(Outer().events().resume_from(Journal(events, answers)))
    assert seen.errors == []
    assert seen.of(FlowFinished)[-1].result == "1a1b"
    assert ran == ["first", "first"]


def test_feedback_is_asked_for_what_the_method_had_returned() -> None:
    ran: list[str] = []

    class Reviewed(Flow):
        @start()
        @human_feedback("Good?", emit=["yes", "no"], llm="none")
        def draft(self) -> str:
            ran.append("draft")
            return f"draft {len(ran)}"

        @listen("yes")
        def publish(self, result: HumanFeedbackResult) -> str:
            return f"{result.output} is out"

    paused = outcome(Reviewed().events())
    (request,) = paused.one(FlowPaused).pending
    seen = outcome(Reviewed().events().resume_from(Journal(paused.events, {request.request_id: "yes"})))
    assert ran == ["draft"]
    assert seen.one(FlowFinished).result == "draft 1 is out"


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


@pytest.mark.parametrize("is_paused_first", [False, True])
def test_a_worker_may_be_killed_twice_while_one_approval_is_open(is_paused_first: bool) -> None:
    paid: list[float] = []

    @tool(needs_approval=True)
    def pay(amount: float) -> str:
        """Pay."""
        paid.append(amount)
        return "paid"

    crew = solo(Scripted(calls(("pay", {"amount": 5})), "Done"), agent={"tools": [pay]})
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
    paid: list[float] = []

    @tool(needs_approval=True)
    def pay(amount: float) -> str:
        """Pay."""
        paid.append(amount)
        return "paid"

    crew = solo(Scripted(calls(("pay", {"amount": 5})), "Done"), agent={"tools": [pay]})
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


class TestTheStateOfAResumedRun:
    def test_is_the_one_that_was_restored_from_a_store(self, tmp_path: Path) -> None:
        store = SQLiteFlowPersistence(tmp_path / "flows.db")

        @persist(store)
        class Counts(Flow):
            @start()
            def count(self) -> int:
                before = self.state.get("count", 0)
                self.ask("Go on?")
                self.state["count"] = before + 1
                return int(self.state["count"])

        def yes(_: InputRequested) -> str:
            return "yes"

        inputs = {"id": "one"}
        assert Counts(input_provider=yes).kickoff(inputs) == 1
        paused = outcome(Counts().events(inputs))
        for cut in range(1, len(paused.events) + 1):
            store.save_state("one", "count", {"id": "one", "count": 5})
            past = [decode(encode(event)) for event in paused.events[:cut]]
            # until a method begins, the state is read from the store again
            expected = 2 if any(isinstance(event, MethodStarted) for event in past) else 6
            seen = outcome(Counts().events(inputs).resume_from(Journal(past)).pipe(ops.answer_with(yes)))
            assert (seen.errors, seen.of(FlowFinished)[-1].result) == ([], expected)
            assert store.load_state("one") == {"id": "one", "count": expected}

    def test_is_not_what_an_unfinished_method_had_saved_before_it_asked(self, tmp_path: Path) -> None:
        store = SQLiteFlowPersistence(tmp_path / "flows.db")

        @persist(store)
        class Counts(Flow):
            @start()
            def count(self) -> int:
                self.state["count"] = self.state.get("count", 0) + 1
                self.ask("Go on?")
                return int(self.state["count"])

        for inputs, expected in (({"id": "new"}, 1), ({"id": "old"}, 6)):
            store.save_state("old", "count", {"id": "old", "count": 5})
            paused = outcome(Counts().events(inputs))
            (request,) = paused.one(FlowPaused).pending
            assert store.load_state(inputs["id"]) == {**inputs, "count": expected}
            journal = Journal(paused.events, {request.request_id: "yes"})
            assert outcome(Counts().events(inputs).resume_from(journal)).one(FlowFinished).result == expected

    def test_has_no_key_that_a_method_deleted(self) -> None:
        class Deletes(Flow):
            @start()
            def first(self) -> None:
                del self.state["draft"]

            @listen(first)
            def second(self) -> list[str]:
                self.ask("Go on?")
                return sorted(self.state)

        first = Deletes(initial_state={"draft": 1})
        paused = outcome(first.events({"topic": "rain"}))
        (request,) = paused.one(FlowPaused).pending
        journal = Journal(paused.events, {request.request_id: "yes"})
        again = Deletes(initial_state={"draft": 1}).events({"topic": "rain"})
        assert outcome(again.resume_from(journal)).one(FlowFinished).result == ["id", "topic"]

    def test_keeps_its_values_beside_one_that_json_cannot_carry(self) -> None:
        class Nested(BaseModel):
            raw: bytes = b"\xff"
            pages: int = 3

        class Bytes(Flow):
            @start()
            def first(self) -> None:
                self.state["count"] = 5
                self.state["raw"] = b"\xff"
                self.state["parts"] = [1, {"raw": b"\xff", 2: None}]
                self.state["nested"] = Nested()

            @listen(first)
            def second(self) -> dict[str, Any]:
                self.ask("Go on?")
                return {name: value for name, value in self.state.items() if name != "id"}

        paused = outcome(Bytes().events())
        (request,) = paused.one(FlowPaused).pending
        journal = Journal(paused.events, {request.request_id: "yes"})
        assert outcome(Bytes().events().resume_from(journal)).one(FlowFinished).result == {
            "count": 5,
            "raw": "b'\\xff'",
            "parts": [1, {"raw": "b'\\xff'", "2": None}],
            "nested": {"raw": "b'\\xff'", "pages": 3},
        }

    @pytest.mark.parametrize("has_changed", [False, True])
    def test_has_the_lists_as_they_were_although_a_method_had_changed_them(self, has_changed: bool) -> None:
        class Appends(Flow):
            @start()
            def first(self) -> None:
                if has_changed:
                    self.state["others"] = [0]

            @listen(first)
            def second(self) -> Any:
                self.state["items"].append(1)
                self.state.setdefault("others", [0]).append(1)
                self.ask("Go on?")
                return self.state["items"], self.state["others"]

        paused = outcome(Appends().events({"items": []}))
        (request,) = paused.one(FlowPaused).pending
        for _ in range(2):
            journal = Journal(paused.events, {request.request_id: "yes"})
            seen = outcome(Appends().events({"items": []}).resume_from(journal))
            assert seen.one(FlowFinished).result == ([1], [0, 1])

    def test_needs_no_id(self) -> None:
        class Numbered(BaseModel):
            id: int | None = None

        class Asks(Flow[Numbered]):
            @start()
            def first(self) -> str:
                return f"{self.state.id}: {self.ask('Go on?')}"

        paused = outcome(Asks().events())
        (request,) = paused.one(FlowPaused).pending
        seen = outcome(Asks().events().resume_from(Journal(paused.events, {request.request_id: "yes"})))
        assert (seen.errors, [event.result for event in seen.of(FlowFinished)]) == ([], ["None: yes"])

    def test_leaves_out_the_inputs_that_a_strict_model_does_not_have(self) -> None:
        class Strict(BaseModel):
            model_config = ConfigDict(extra="forbid")
            topic: str = "nothing"

        class Asks(Flow[Strict]):
            @start()
            def first(self) -> str:
                return f"{self.state.topic}: {self.ask('Go on?')}"

        inputs = {"topic": "rain", "more": 1}
        paused = outcome(Asks().events(inputs))
        (request,) = paused.one(FlowPaused).pending
        journal = Journal(paused.events, {request.request_id: "yes"})
        seen = outcome(Asks().events(inputs).resume_from(journal))
        assert (seen.errors, seen.one(FlowFinished).result) == ([], "rain: yes")


class TestWhatCannotGoOn:
    def test_a_tool_that_was_at_work_and_may_not_be_called_twice(self) -> None:
        @tool
        def pay() -> str:
            """Pay."""
            return "paid"

        class Pays(Flow):
            @start()
            def first(self) -> str:
                return str(
                    solo(
                        Scripted([ToolCallDelta(0, "c", "pay", "{}"), Ending("tool_calls")], "Done"),
                        agent={"tools": [pay]},
                    ).kickoff()
                )

        whole = outcome(Pays().events())
        cut = next(index for index, event in enumerate(whole.events) if isinstance(event, ToolStarted))
        seen = outcome(Pays().events().resume_from(Journal(whole.events[: cut + 1])))
        assert isinstance(seen.error, NotResumable)
        assert "the tool 'pay' was running when the run was interrupted" in str(seen.error)
        after = outcome(Pays().events().resume_from(Journal(whole.events[: cut + 2])))
        assert after.one(FlowFinished).result == "Done"

    def test_a_method_that_ran_and_is_gone(self) -> None:
        class Other(Flow):
            name = "Trip"

            @start()
            def planning(self) -> str:
                return "other"

        seen = World().go_on(WHOLE.events[:-3], Other)
        assert isinstance(seen.error, NotResumable)
        assert str(seen.error) == (
            "Other cannot be resumed: the log has the method 'book', which is not in the graph any more "
            "(it has planning); restore it, or start a new run"
        )

    def test_a_method_that_nothing_sets_off_any_more(self) -> None:
        def flow(condition: str) -> type[Flow[Any]]:
            class Changed(Flow):
                @start()
                def first(self) -> str:
                    return "1"

                @start()
                def other(self) -> str | None:
                    return self.ask("Go on?")

                @listen(condition)
                def then(self) -> str:
                    return "2"

            return Changed

        paused = outcome(flow("first")().events())
        seen = outcome(flow("other")().events().resume_from(Journal(paused.events)))
        assert isinstance(seen.error, NotResumable)
        assert "the log has call 1 of the method 'then', which nothing triggers any more" in str(seen.error)

    def test_a_result_that_the_log_could_not_carry(self) -> None:
        class Opens(Flow):
            @start()
            def first(self) -> Any:
                return object()

            @listen(first)
            def second(self, given: object) -> str | None:
                return self.ask("Go on?")

        paused = outcome(Opens().events())
        past = [decode(encode(event)) for event in paused.events]
        seen = outcome(Opens().events().resume_from(Journal(past)))
        assert isinstance(seen.error, NotResumable)
        assert "'second' needs the result of 'first', a object, which the log cannot restore" in str(seen.error)

    def test_a_reviewed_result_of_a_router_that_the_log_could_not_carry(self) -> None:
        class Opens(Flow):
            @start()
            @human_feedback("Good?", emit=["yes", "no"], llm="none")
            def first(self) -> Any:
                return object()

            @listen(first)
            def second(self, given: object) -> str | None:
                return self.ask("Go on?")

        paused = outcome(
            Opens().events().pipe(ops.answer_with(lambda each: "yes" if each.kind == "feedback" else None))
        )
        past = [decode(encode(event)) for event in paused.events]
        seen = outcome(Opens().events().resume_from(Journal(past)))
        assert isinstance(seen.error, NotResumable)
        assert "'second' needs the result of 'first', a object, which the log cannot restore" in str(seen.error)

    @pytest.mark.parametrize("emit", [None, ["yes", "no"]])
    def test_a_result_under_review_that_the_log_could_not_carry(self, emit: list[str] | None) -> None:
        class Reviewed(Flow):
            @start()
            @human_feedback("Good?", emit=emit, llm="none")
            def first(self) -> Any:
                return object()

            @listen("yes" if emit else first)
            def second(self, given: HumanFeedbackResult) -> str | None:
                return self.ask("Go on?")

        paused = outcome(Reviewed().events())
        (request,) = paused.one(FlowPaused).pending
        answered = outcome(Reviewed().events().resume_from(Journal(paused.events, {request.request_id: "yes"})))
        assert answered.of(FlowPaused)  # the log has the object itself, since it was never written
        for log in (paused.events, [*paused.events, *answered.events]):
            past = [decode(encode(event)) for event in log]
            answers = {request.request_id: "yes"} if log is paused.events else {}
            seen = outcome(Reviewed().events().resume_from(Journal(past, answers)))
            assert isinstance(seen.error, NotResumable)
            assert "'second' needs the result of 'first', a object, which the log cannot restore" in str(seen.error)

    def test_new_methods_and_new_listeners_are_no_hindrance(self) -> None:
        class Before(Flow):
            @start()
            def first(self) -> str:
                return "1"

            @listen(first)
            def then(self, text: str) -> str:
                return f"{text}{self.ask('Go on?')}"

        class After(Before):
            name = "Before"

            @listen(Before.then)
            def last(self, text: str) -> str:
                return f"{text}!"

        paused = outcome(Before().events())
        (request,) = paused.one(FlowPaused).pending
        seen = outcome(After().events().resume_from(Journal(paused.events, {request.request_id: "2"})))
        assert seen.one(FlowFinished).result == "12!"
