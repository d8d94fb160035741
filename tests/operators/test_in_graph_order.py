"""``in_graph_order``: what ran side by side, one branch after the other."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, strategies as st
from reactivex import Observable, Subject, operators as rxops

from rxflow import Flow, operators as ops
from rxflow.flow import listen, start
from rxflow.testing import Marbles, ScriptedLLM
from rxflow.types import (
    Failed,
    Finished,
    FlowFailed,
    Happened,
    Heartbeat,
    LLMFailed,
    LLMFinished,
    LLMStarted,
    MethodFinished,
    MethodStarted,
    Origin,
    Started,
    ToolFinished,
    ToolStarted,
)
from tests.operators.pieces import said
from tests.signals import outcome
from tests.team import a_crew, a_task, an_agent


def at(span: str, parent: str = "") -> Origin:
    return Origin(span_id=span, parent_span_id=parent)


def begun(span: str, parent: str = "") -> MethodStarted:
    return MethodStarted(origin=at(span, parent))


def over(span: str, parent: str = "") -> MethodFinished:
    return MethodFinished(origin=at(span, parent), result=None)


def pulse(span: str) -> Heartbeat:
    return Heartbeat(origin=at(span), silent_for=1)


VALUES = {
    "A": begun("a"),
    "a": said("a", span_id="a"),
    "Z": over("a"),
    "B": begun("b"),
    "b": said("b", span_id="b"),
    "p": said("p", span_id="b"),
    "q": said("q", span_id="b"),
    "r": said("r", span_id="b"),
    "Y": over("b"),
    "E": begun("e"),
    "e": said("e", span_id="e"),
    "V": over("e"),
    "G": LLMStarted(origin=at("g", "b"), model="m", messages=[]),
    "g": said("g", span_id="g"),
    "C": LLMStarted(origin=at("c", "a"), model="m", messages=[]),
    "c": said("c", span_id="c"),
    "X": LLMFinished(origin=at("c", "a"), text=""),
    "D": LLMStarted(origin=at("d", "a"), model="m", messages=[]),
    "d": said("d", span_id="d"),
    "W": LLMFailed(origin=at("d", "a"), error=OSError("gone")),
    "T": ToolStarted(origin=at("a"), tool_id="1", tool_name="look", arguments={}),
    "U": ToolFinished(origin=at("a"), tool_id="1", tool_name="look", result=1),
    "h": pulse("b"),
    "s": "text of nobody",
}


def ordered(items: str, caused: dict[str, str] | None = None) -> str:
    """Letters of ``VALUES`` as they come out. At some letters, the observer causes others; "|" ends the source."""
    names = {id(value): name for name, value in VALUES.items()}
    seen: list[str] = []
    source: Subject[Any] = Subject()

    def emit(letters: str) -> None:
        for letter in letters:
            if letter == "|":
                source.on_completed()
            else:
                source.on_next(VALUES[letter])

    def observe(item: Any) -> None:
        seen.append(names[id(item)])
        emit((caused or {}).get(seen[-1], ""))

    ends: list[int] = []
    source.pipe(ops.in_graph_order()).subscribe(observe, on_completed=lambda: ends.append(len(seen)))
    emit(items)
    so_far = len(seen)
    source.on_completed()
    assert ends == [len(seen)]
    letters = "".join(seen)
    return f"{letters[:so_far]}|{letters[so_far:]}"


class TestBranches:
    def test_the_first_is_live_and_the_second_held_until_that_ends(self, marbles: Marbles) -> None:
        source = marbles.cold("A-B-a-b-a-Z------b-Y|", VALUES)
        marbles.expect(source.pipe(ops.in_graph_order())).to_be("A---a---a-(ZBb)--b-Y|", VALUES)

    def test_they_come_in_the_order_in_which_they_began(self) -> None:
        assert ordered("ABbYaZ") == "AaZBbY|"

    def test_what_begins_inside_of_one_is_a_part_of_it(self) -> None:
        assert ordered("ABCcbXZbY") == "ACcXZBbbY|"

    def test_those_inside_of_one_are_ordered_too(self) -> None:
        assert ordered("ACDdcdcXdWaZ") == "ACccXDdddWaZ|"

    def test_a_held_one_is_ordered_when_its_time_comes(self) -> None:
        assert ordered("BACDdcXbWZY") == "BbYACcXDdWZ|"

    def test_what_one_says_by_itself_waits_for_what_is_open_in_it(self) -> None:
        assert ordered("ACacX") == "ACcXa|"

    def test_tools_are_no_branches(self) -> None:
        assert ordered("ATCcUXZ") == "ATCcXUZ|"
        assert ordered("ATUaZ") == "ATUaZ|"

    @pytest.mark.parametrize(
        ("items", "caused", "shown"),
        [
            ("ABbpZq", {"b": "r"}, "AZBbprq|"),
            ("ABbpZ", {"b": "Gg"}, "AZBbpGg|"),
            ("ABEbpeZCceVX", {"b": "Y"}, "AZBbpYEeeVCcX|"),
            ("ABEbpeZCceVX", {"Z": "Y"}, "AZBbpYEeeVCcX|"),
            ("ABEbpeZ", {"b": "Ve|"}, "AZBbpEeVe|"),
        ],
    )
    def test_what_the_observer_causes_comes_after_what_is_held(
        self, items: str, caused: dict[str, str], shown: str
    ) -> None:
        assert ordered(items, caused) == shown

    def test_one_that_was_cut_off_is_over_with_the_one_around_it(self) -> None:
        assert ordered("ACDcdaZBb") == "ACcDdaZBb|"

    def test_a_heartbeat_and_what_is_not_ours_pass_at_once(self) -> None:
        assert ordered("ABhbs") == "Ahs|Bb"

    def test_all_that_is_held_comes_before_the_end(self) -> None:
        assert ordered("ABbab") == "Aa|Bbb"

    def test_and_before_an_error(self, marbles: Marbles) -> None:
        source = marbles.cold("A-B-b-a--#", VALUES, OSError("gone"))
        marbles.expect(source.pipe(ops.in_graph_order())).to_be("A-----a--(Bb#)", VALUES, OSError("gone"))

    def test_disposing_disposes_the_source_and_drops_what_is_held(self, marbles: Marbles) -> None:
        source = marbles.cold("A-B-b-a--|", VALUES)
        marbles.expect(source.pipe(ops.in_graph_order()), "^------!").to_be("A-----a-", VALUES)
        marbles.expect_subscriptions(source).to_be("^------!")

    def test_who_has_enough_gets_no_more_of_what_was_held(self) -> None:
        source: Subject[Any] = Subject()
        looked_at: list[Any] = []
        enough = rxops.take(2)
        source.pipe(ops.in_graph_order(), rxops.do_action(looked_at.append), enough).subscribe()
        for letter in "ABbbbZ":
            source.on_next(VALUES[letter])
        assert looked_at == [VALUES["A"], VALUES["Z"]]
        assert not source.observers

    def test_each_subscription_has_an_order_of_its_own(self, marbles: Marbles) -> None:
        piped = marbles.cold("ABb-a-Z------|", VALUES).pipe(ops.in_graph_order())
        one, other = marbles.expect(piped), marbles.expect(piped, "-^")
        one.to_be("A---a-(ZBb)--|", VALUES)
        other.to_be("-A---a-(ZBb)--|", VALUES)

    @given(st.lists(st.sampled_from(sorted(VALUES)), max_size=40))
    def test_nothing_is_lost_whatever_comes(self, letters: list[str]) -> None:
        assert sorted(ordered("".join(letters)).replace("|", "")) == sorted(letters)


class TestBareChunks:
    def test_tasks_come_in_the_order_of_their_first_chunks_the_first_of_them_live(self, marbles: Marbles) -> None:
        values = {letter: said(letter, task_id=letter.lower(), span_id=str(n)) for n, letter in enumerate("aAbBc")}
        source = marbles.cold("a-b-A-c-B|", values)
        marbles.expect(source.pipe(ops.in_graph_order())).to_be("a---A----(bBc|)", values)

    def test_those_without_labels_pass(self, marbles: Marbles) -> None:
        marbles.expect(marbles.cold("a-b-c|").pipe(ops.in_graph_order())).to_be("a-b-c|")


def asked(llm: ScriptedLLM, shown: str) -> Observable[Any]:
    return llm.observe("Hello") if shown == "observe" else llm.events("Hello")


class Parallel(Flow):
    """Two methods side by side, then a third one after the first of them."""

    one: ScriptedLLM
    two: ScriptedLLM

    shown: str

    @start()
    def begin(self) -> Observable[Any]:
        return asked(self.one, self.shown)

    @start()
    def also(self) -> Observable[Any]:
        return asked(self.two, self.shown)

    @listen(begin)
    async def after(self) -> str:
        await asyncio.sleep(0)
        return "done"


class TestInARun:
    def flow(self, shown: str = "observe", one: ScriptedLLM | None = None) -> Parallel:
        flow = Parallel()
        flow.shown = shown
        flow.one, flow.two = one or ScriptedLLM("a-b-c-|"), ScriptedLLM("-x-y------z|")
        return flow

    def test_methods_that_begin_together_come_in_the_order_of_their_definition(self, marbles: Marbles) -> None:
        marbles.expect(self.flow().observe()).to_be("axbyc-----z|")
        graph = self.flow().observe().pipe(ops.in_graph_order())
        marbles.expect(graph).to_be("a-b-c-(xy)z|")

    def test_every_bracket_is_whole(self) -> None:
        seen = outcome(self.flow("events").events().pipe(ops.in_graph_order()))
        assert seen.ends == ["completed"]
        methods = [
            f"{event.origin.flow_method} {'begins' if isinstance(event, Started) else 'ends'}"
            for event in seen.events
            if isinstance(event, MethodStarted | MethodFinished)
        ]
        assert methods == [f"{name} {what}" for name in ("begin", "also", "after") for what in ("begins", "ends")]
        assert_brackets_are_whole(seen.events)

    def test_tasks_side_by_side_come_in_the_order_of_the_crew(self) -> None:
        one, two, last = ScriptedLLM("---a-b-|"), ScriptedLLM("x-y|"), ScriptedLLM("z|")
        crew = a_crew(
            a_task(an_agent(one), name="one", async_execution=True),
            a_task(an_agent(two), name="two", async_execution=True),
            a_task(an_agent(last), name="last"),
        )
        seen = outcome(crew.events().pipe(ops.in_graph_order()))
        assert seen.text == "abxyz"
        assert_brackets_are_whole(seen.events)

    @pytest.mark.usefixtures("virtual_clock")
    def test_the_end_of_a_run_that_fails_comes_last(self) -> None:
        flow = self.flow(one=ScriptedLLM("a-b--#", error=ValueError("no")))
        seen = outcome(flow.events().pipe(ops.in_graph_order()))
        assert isinstance(seen.events[-1], FlowFailed)
        assert seen.text == "abxy"

    def test_a_shared_run_is_read_both_ways(self, marbles: Marbles) -> None:
        shared = self.flow().events().pipe(ops.share_log("cancel"))
        arrival = marbles.expect(shared.pipe(ops.text()))
        graph = marbles.expect(shared.pipe(ops.in_graph_order(), ops.text(), rxops.map(str), rxops.to_list()))
        arrival.to_be("axbyc-----z|")
        graph.to_be("-----------(r|)", {"r": list("abcxyz")})


def assert_brackets_are_whole(events: list[Any]) -> None:
    """Whatever comes between the beginning and the end of a bracket is inside of it."""
    stack: list[str] = []
    for event in events:
        span = event.origin.span_id if isinstance(event, Happened) else event.span_id
        if isinstance(event, Started):
            stack.append(span)
        assert span == stack[-1]
        if isinstance(event, Finished | Failed):
            stack.pop()
    assert stack == []
