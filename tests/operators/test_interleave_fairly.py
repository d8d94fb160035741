"""``interleave_fairly``: those who speak at once take turns."""

import asyncio
from typing import Any

from hypothesis import given, strategies as st
from reactivex import Subject, operators as rxops
from reactivex.testing import TestScheduler

from rxflow import operators as ops
from rxflow.testing import Marbles, ScriptedLLM, check_operator
from rxflow.types.chunks import Origin
from rxflow.types.events import LLMFinished, ReasoningChunk
from tests.operators.pieces import delta, said
from tests.scripted import Scripted
from tests.signals import Signals, outcome, signals_of
from tests.team import a_crew, a_task, an_agent

END_OF_A = LLMFinished(origin=Origin(span_id="a"), text="")


def a(text: str) -> Any:
    return said(text, span_id="a")


def b(text: str) -> Any:
    return said(text, span_id="b")


def in_one_step(*items: Any, complete: bool = True) -> list[Any]:
    """What comes of items that come in one step of the loop."""
    seen = Signals()
    source: Subject[Any] = Subject()
    scheduler = TestScheduler()
    seen.subscribe_to(source.pipe(ops.interleave_fairly(scheduler=scheduler)))
    for item in items:
        source.on_next(item)
    if complete:
        source.on_completed()
    else:
        scheduler.start()
    return seen.items


def test_it_keeps_the_rules() -> None:
    check_operator(ops.interleave_fairly(), items=[a("1"), a("2"), b("3"), END_OF_A, b("4"), "text"])


class TestTurns:
    def test_bursts_are_interleaved(self) -> None:
        burst = [a("1"), a("2"), a("3"), b("4"), b("5")]
        expected = [a("1"), b("4"), a("2"), b("5"), a("3")]
        assert in_one_step(*burst) == expected
        assert in_one_step(*burst, complete=False) == expected

    def test_reasoning_and_tool_calls_keep_their_order_in_the_call(self) -> None:
        thought = ReasoningChunk(origin=Origin(span_id="a"), content="hm")
        call = delta("{}", span_id="a")
        assert in_one_step(thought, a("1"), call, b("2")) == [thought, b("2"), a("1"), call]

    def test_events_come_after_all_that_was_before_them(self) -> None:
        assert in_one_step(a("1"), a("2"), b("3"), END_OF_A, b("4")) == [a("1"), b("3"), a("2"), END_OF_A, b("4")]

    def test_one_speaker_alone_is_passed_on(self) -> None:
        assert in_one_step("x", "y", 7) == ["x", "y", 7]

    def test_what_comes_apart_stays_so(self, marbles: Marbles) -> None:
        source = marbles.cold("-a-b-c|")
        marbles.expect(source.pipe(ops.interleave_fairly())).to_be("-a-b-c|")
        marbles.expect_subscriptions(source).to_be("^-----!")

    def test_an_error_comes_after_what_was_gathered(self, marbles: Marbles) -> None:
        source = marbles.cold("-a-(bc#)", error=OSError("gone"))
        marbles.expect(source.pipe(ops.interleave_fairly())).to_be("-a-(bc#)", error=OSError("gone"))

    def test_disposing_disposes_the_source_and_drops_what_was_gathered(self) -> None:
        async def main() -> list[str]:
            source: Subject[str] = Subject()
            seen: list[str] = []
            subscription = source.pipe(ops.interleave_fairly()).subscribe(seen.append)
            source.on_next("a")
            subscription.dispose()
            assert not source.observers
            await asyncio.sleep(0)
            return seen

        assert asyncio.run(main()) == []

    def test_who_has_enough_gets_no_more(self) -> None:
        source: Subject[Any] = Subject()
        scheduler = TestScheduler()
        looked_at: list[Any] = []
        source.pipe(
            ops.interleave_fairly(scheduler=scheduler), rxops.do_action(looked_at.append), rxops.take(2)
        ).subscribe()
        for item in (a("1"), a("2"), b("3"), b("4")):
            source.on_next(item)
        scheduler.start()
        assert looked_at == [a("1"), b("3")]
        assert not source.observers

    def test_what_an_observer_makes_happen_is_passed_on_too(self) -> None:
        source: Subject[Any] = Subject()
        scheduler = TestScheduler()
        seen: list[Any] = []

        def on_next(item: Any) -> None:
            seen.append(item)
            if item == a("1"):
                source.on_next(END_OF_A)
                source.on_next(b("5"))

        source.pipe(ops.interleave_fairly(scheduler=scheduler)).subscribe(on_next)
        for item in (a("1"), a("2"), b("3")):
            source.on_next(item)
        scheduler.start()
        assert seen[0] == a("1")
        assert [item for item in seen if item == a("2") or item == END_OF_A] == [a("2"), END_OF_A]
        assert [item for item in seen if item in (b("3"), b("5"))] == [b("3"), b("5")]

    def test_each_subscription_gathers_for_itself(self, marbles: Marbles) -> None:
        piped = marbles.cold("-a-b|").pipe(ops.interleave_fairly())
        one, other = marbles.expect(piped), marbles.expect(piped, "-^")
        one.to_be("-a-b|")
        other.to_be("--a-b|")

    def test_without_a_loop_it_fails(self) -> None:
        (error,) = signals_of(Subject[int]().pipe(ops.interleave_fairly())).errors
        assert str(error).startswith("interleave_fairly needs a clock")

    @given(st.lists(st.sampled_from([a("1"), a("2"), b("3"), said("4", span_id="c"), "5", END_OF_A])))
    def test_nothing_is_lost_and_each_speaker_keeps_its_order(self, items: list[Any]) -> None:
        seen = in_one_step(*items)
        assert len(seen) == len(items)
        for place in ("a", "b", "c"):
            assert [each for each in seen if place_is(each, place)] == [each for each in items if place_is(each, place)]
        events = [index for index, item in enumerate(items) if item is END_OF_A]
        assert [index for index, item in enumerate(seen) if item is END_OF_A] == events


class TestInARun:
    def test_tasks_side_by_side_take_turns(self) -> None:
        one, two = Scripted(["a", "b", "c"]), Scripted(["x", "y", "z"])
        crew = a_crew(
            a_task(an_agent(one), name="one", async_execution=True),
            a_task(an_agent(two), name="two", async_execution=True),
            a_task(an_agent(Scripted("end")), name="last"),
        )
        assert outcome(crew.events()).text == "abcxyzend"
        assert sorted(outcome(crew.events().pipe(ops.interleave_fairly())).text) == sorted("abcxyzend")

    def test_a_call_is_shown_as_it_comes(self, marbles: Marbles) -> None:
        llm = ScriptedLLM("he-ll-o|")
        marbles.expect(llm.observe("Hello").pipe(ops.interleave_fairly())).to_say("he-ll-o|")


def place_is(item: Any, place: str) -> bool:
    return getattr(item, "span_id", None) == place
