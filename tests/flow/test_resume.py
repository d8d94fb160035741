"""A run that was cut off at any event goes on where it was: nothing that had finished is done, or paid, again."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import Any

import pytest

from rxflow import operators as ops
from rxflow._streaming.journal import Journal, NotResumable
from rxflow.flow import Flow, HumanFeedbackResult, and_, human_feedback, listen, router, start
from rxflow.llm.source import Ending, ToolCallDelta
from rxflow.tools import tool
from rxflow.types.chunks import StreamChunk
from rxflow.types.codec import decode, encode
from rxflow.types.events import (
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
    ToolFinished,
    ToolStarted,
)
from tests.flow.trip import World, text_of
from tests.scripted import Scripted, thinking
from tests.signals import outcome
from tests.team import solo


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
