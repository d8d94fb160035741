"""``by_task`` takes a stream apart by tasks, a lane for each. What is said here of lanes holds for all of ``by_…``."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from reactivex import Observable, Subject, operators as rxops

from rxflow import operators as ops
from rxflow.testing import Marbles, check_operator
from rxflow.types import Lane
from rxflow.types.chunks import Origin, StreamChunk
from rxflow.types.events import TaskFinished, TaskStarted
from tests.operators.pieces import said
from tests.scripted import Scripted
from tests.signals import Signals, outcome, signals_of
from tests.team import a_crew, a_task, an_agent, solo


def started(task: str, span: str) -> TaskStarted:
    return TaskStarted(origin=Origin(task_name=task, span_id=span), description=task)


def finished(task: str, span: str) -> TaskFinished:
    return TaskFinished(origin=Origin(task_name=task, span_id=span), result=None)  # type: ignore[arg-type]


A, B = said("a", task_name="A"), said("b", task_name="B")
VALUES = {
    "a": A,
    "b": B,
    "o": said("o"),
    "s": "no chunk",
    "S": started("A", "r/1"),
    "T": started("A", "r/2"),
    "F": finished("A", "r/1"),
    "G": finished("A", "r/2"),
}
KEYS = {"A": "A", "B": "B"}


def key_of(lane: Lane[Any]) -> str:
    return lane.key


def number(index: int) -> Callable[[Observable[Lane[Any]]], Observable[Any]]:
    """All that comes in one of the lanes."""
    return lambda lanes: lanes.pipe(rxops.element_at(index), rxops.merge_all())


def two_tasks(*turns: str) -> Any:
    agent = an_agent(Scripted(*turns))
    return a_crew(a_task(agent, name="A"), a_task(agent, name="B"))


def test_it_keeps_the_rules() -> None:
    check_operator(ops.by_task(), items=[A, B, said("o"), A, said("c", task_name="C"), B], key=key_of)


class TestInAStreamOfChunks:
    def test_a_lane_begins_with_its_first_chunk(self, marbles: Marbles) -> None:
        source = marbles.cold("-a-o-b-s-a-b|", VALUES)
        marbles.expect(source.pipe(ops.by_task(), rxops.map(key_of))).to_be("-A---B------|", KEYS)
        marbles.expect_subscriptions(source).to_be("^-----------!")

    def test_it_holds_what_has_its_key_and_completes_with_the_stream(self, marbles: Marbles) -> None:
        source = marbles.cold("-a-o-b-s-a-b|", VALUES)
        marbles.expect(source.pipe(ops.by_task(), number(0))).to_be("-a-------a--|", VALUES)
        marbles.expect(source.pipe(ops.by_task(), number(1))).to_be("-----b-----b|", VALUES)

    def test_an_error_ends_all_lanes_and_the_result(self, marbles: Marbles) -> None:
        source = marbles.cold("-a-b-#", VALUES, OSError("gone"))
        marbles.expect(source.pipe(ops.by_task(), number(0))).to_be("-a---#", VALUES, OSError("gone"))
        marbles.expect(source.pipe(ops.by_task(), number(1))).to_be("---b-#", VALUES, OSError("gone"))
        marbles.expect(source.pipe(ops.by_task(), rxops.map(key_of))).to_be("-A-B-#", KEYS, OSError("gone"))

    def test_each_subscription_has_lanes_of_its_own(self, marbles: Marbles) -> None:
        lanes = marbles.cold("-a-b-a|", VALUES).pipe(ops.by_task())
        marbles.expect(lanes.pipe(number(0))).to_be("-a---a|", VALUES)
        marbles.expect(lanes.pipe(number(0)), "--^").to_be("---a---a|", VALUES)


class TestWithEvents:
    def test_a_lane_begins_and_ends_with_its_task(self, marbles: Marbles) -> None:
        source = marbles.cold("-S-a-b-F-b|", VALUES)
        marbles.expect(source.pipe(ops.by_task(), rxops.map(key_of))).to_be("-A---B----|", KEYS)
        marbles.expect(source.pipe(ops.by_task(), number(0))).to_be("-S-a---(F|)", VALUES)

    def test_a_task_that_runs_again_gets_another_lane(self, marbles: Marbles) -> None:
        source = marbles.cold("-S-a-F-T-a-G-|", VALUES)
        marbles.expect(source.pipe(ops.by_task(), rxops.map(key_of))).to_be("-A-----A-----|", KEYS)
        marbles.expect(source.pipe(ops.by_task(), number(1))).to_be("-------T-a-(G|)", VALUES)

    def test_tasks_of_one_name_that_run_at_once_share_a_lane(self, marbles: Marbles) -> None:
        source = marbles.cold("-S-T-a-F-a-G-|", VALUES)
        marbles.expect(source.pipe(ops.by_task(), rxops.map(key_of))).to_be("-A-----------|", KEYS)
        marbles.expect(source.pipe(ops.by_task(), number(0))).to_be("-S-T-a-F-a-(G|)", VALUES)


class TestReaders:
    def test_one_that_comes_late_misses_nothing(self) -> None:
        lanes, source = open_lanes()
        source.on_next(A)
        source.on_next(B)
        heard = Signals()
        heard.subscribe_to(lanes[0])
        source.on_next(A)
        assert heard.items == [A, A]

    def test_one_that_comes_after_the_end_gets_it_all(self) -> None:
        lanes, source = open_lanes()
        source.on_next(A)
        source.on_error(OSError("gone"))
        heard = signals_of(lanes[0])
        assert (heard.items, heard.ends) == ([A], [repr(OSError("gone"))])

    def test_what_comes_while_it_catches_up_keeps_its_order(self) -> None:
        lanes, source = open_lanes()
        first, second, third = (said(text, task_name="A") for text in "123")
        source.on_next(first)
        source.on_next(second)
        heard: list[StreamChunk] = []

        def on_next(chunk: StreamChunk) -> None:
            heard.append(chunk)
            if chunk is first:
                source.on_next(third)

        lanes[0].subscribe(on_next)
        assert heard == [first, second, third]

    def test_a_second_one_is_told_to_share(self) -> None:
        lanes, source = open_lanes()
        source.on_next(A)
        lanes[0].subscribe()
        (error,) = signals_of(lanes[0]).errors
        assert str(error).startswith("this lane was already subscribed")

    def test_several_share_a_lane_by_reactivex_means(self) -> None:
        lanes, source = open_lanes()
        source.on_next(A)
        shared = lanes[0].pipe(rxops.share())
        one, other = Signals(), Signals()
        one.subscribe_to(shared)
        other.subscribe_to(shared)
        source.on_next(A)
        assert (one.items, other.items) == ([A, A], [A])

    def test_one_that_leaves_is_not_followed_by_another_lane(self) -> None:
        lanes, source = open_lanes()
        source.on_next(A)
        lanes[0].pipe(rxops.take(1)).subscribe()
        source.on_next(A)
        source.on_next(B)
        assert [lane.key for lane in lanes] == ["A", "B"]

    def test_one_that_raises_ends_all_of_it(self) -> None:
        lanes, source = open_lanes(everything := Signals())
        source.on_next(A)
        source.on_next(B)
        other = Signals()
        other.subscribe_to(lanes[1])
        lanes[0].pipe(rxops.skip(1)).subscribe(raising)
        source.on_next(A)
        assert (everything.ends, other.ends) == ([repr(ZeroDivisionError("oh"))],) * 2
        assert not source.observers

    def test_one_without_an_on_error_does_not_keep_the_error_from_the_others(self) -> None:
        lanes, source = open_lanes(everything := Signals())
        source.on_next(A)
        source.on_next(B)
        other = Signals()
        lanes[0].subscribe()
        other.subscribe_to(lanes[1])
        source.on_error(OSError("gone"))
        assert (everything.ends, other.ends) == ([repr(OSError("gone"))],) * 2

    def test_one_that_raises_at_the_end_does_not_keep_it_from_the_others(self) -> None:
        lanes, source = open_lanes(everything := Signals())
        source.on_next(A)
        source.on_next(B)
        lanes[0].subscribe(on_completed=lambda: raising(None))
        other = Signals()
        other.subscribe_to(lanes[1])
        with pytest.raises(ZeroDivisionError):
            source.on_completed()
        assert (everything.ends, other.ends) == (["completed"],) * 2


class TestDisposal:
    def test_of_the_result_disposes_the_source_where_no_lane_is_read(self, marbles: Marbles) -> None:
        source = marbles.cold("-a-b-a|", VALUES)
        marbles.expect(source.pipe(ops.by_task(), rxops.map(key_of)), "^---!").to_be("-A-B-", KEYS)
        marbles.expect_subscriptions(source).to_be("^---!")

    def test_a_lane_that_is_read_keeps_the_source_until_its_reader_leaves(self, marbles: Marbles) -> None:
        source = marbles.cold("-a-b-a-a|", VALUES)
        lane = source.pipe(ops.by_task(), rxops.take(1), rxops.merge_all(), rxops.take(2))
        marbles.expect(lane).to_be("-a---(a|)", VALUES)
        marbles.expect_subscriptions(source).to_be("^----!")

    def test_of_all_lanes_leaves_the_source_to_the_result(self, marbles: Marbles) -> None:
        source = marbles.cold("-a-a-b|", VALUES)
        heads = source.pipe(ops.by_task(), rxops.flat_map(head))
        marbles.expect(heads).to_be("-a---b|", VALUES)
        marbles.expect_subscriptions(source).to_be("^-----!")

    @pytest.mark.parametrize("is_over", [False, True])
    def test_a_reader_that_raises_at_once_does_not_keep_the_source(self, is_over: bool) -> None:
        source: Subject[Any] = Subject()
        lanes: list[Lane[Any]] = []
        result = source.pipe(ops.by_task()).subscribe(lanes.append)
        for item in VALUES["S"], A, *[VALUES["F"]] * is_over:
            source.on_next(item)
        with pytest.raises(ZeroDivisionError):
            lanes[0].subscribe(None if is_over else raising, raising, lambda: raising(None))
        assert source.observers
        result.dispose()
        assert not source.observers

    def test_whoever_comes_after_it_is_told_so(self) -> None:
        source: Subject[StreamChunk] = Subject()
        lanes: list[Lane[StreamChunk]] = []
        source.pipe(ops.by_task(), rxops.take(1)).subscribe(lanes.append)
        source.on_next(A)
        assert not source.observers
        (error,) = signals_of(lanes[0]).errors
        assert str(error).startswith("this lane was subscribed too late")


class TestInARun:
    def test_lanes_hold_the_chunks_of_their_tasks(self) -> None:
        shown = signals_of(two_tasks("one two", "three").observe().pipe(ops.by_task(), rxops.flat_map(texts)))
        assert shown.items == [("A", ["one", " two"]), ("B", ["three"])]

    def test_or_what_else_was_selected(self) -> None:
        everything = outcome(two_tasks("one", "two").events().pipe(ops.by_task(), number(1)))
        assert [type(everything.events[0]), type(everything.events[-1])] == [TaskStarted, TaskFinished]

    def test_a_lane_is_complete_before_the_next_task_begins(self) -> None:
        told: list[str] = []

        def read(lane: Lane[StreamChunk]) -> None:
            told.append(f"{lane.key} begins")
            lane.subscribe(on_completed=lambda: told.append(f"{lane.key} ends"))

        signals_of(two_tasks("one", "two").observe().pipe(ops.by_task(), rxops.do_action(read)))
        assert told == ["A begins", "A ends", "B begins", "B ends"]

    def test_operators_work_in_a_lane(self) -> None:
        words = two_tasks("o ne", "two").observe().pipe(ops.by_task(), number(0), ops.words())
        assert [str(chunk) for chunk in signals_of(words).items] == ["o", " ne"]

    def test_tasks_side_by_side_each_have_theirs(self) -> None:
        one, other = an_agent(Scripted("a b c")), an_agent(Scripted("x y z"))
        crew = a_crew(
            a_task(one, name="A", async_execution=True),
            a_task(other, name="B", async_execution=True),
            a_task(an_agent(Scripted("end")), name="C"),
        )
        shown = signals_of(crew.observe().pipe(ops.by_task(), rxops.flat_map(texts)))
        assert sorted(shown.items) == [("A", ["a", " b", " c"]), ("B", ["x", " y", " z"]), ("C", ["end"])]

    def test_an_error_of_the_run_reaches_the_result(self) -> None:
        crew = solo(Scripted(ValueError("no")), name="A")
        shown = signals_of(crew.observe().pipe(ops.by_task(), rxops.map(key_of)))
        assert (shown.items, shown.ends) == (["A"], [repr(ValueError("no"))])

    def test_a_reader_that_raises_ends_the_run(self) -> None:
        model = Scripted("one two three")
        seen: list[Lane[StreamChunk]] = []

        def read(lane: Lane[StreamChunk]) -> None:
            seen.append(lane)
            lane.subscribe(raising)

        shown = signals_of(solo(model, name="A").observe().pipe(ops.by_task(), rxops.do_action(read)))
        assert (len(seen), shown.ends) == (1, [repr(ZeroDivisionError("oh"))])

    def test_it_can_be_read_later_from_a_coroutine(self) -> None:
        async def main() -> list[str]:
            lanes: list[Lane[StreamChunk]] = []
            over = asyncio.Event()
            two_tasks("one two", "three").observe().pipe(ops.by_task()).subscribe(lanes.append, on_completed=over.set)
            await over.wait()
            heard: list[str] = []
            for lane in lanes:
                lane.subscribe(lambda chunk: heard.append(str(chunk)))
            return heard

        assert asyncio.run(main()) == ["one", " two", "three"]


def open_lanes(everything: Signals | None = None) -> tuple[list[Lane[StreamChunk]], Subject[StreamChunk]]:
    """A source, and the lanes that it has so far."""
    source: Subject[StreamChunk] = Subject()
    lanes: list[Lane[StreamChunk]] = []
    seen = source.pipe(ops.by_task(), rxops.do_action(lanes.append))
    (everything or Signals()).subscribe_to(seen)
    return lanes, source


def head(lane: Lane[Any]) -> Observable[Any]:
    return lane.pipe(rxops.take(1))


def raising(_: object) -> None:
    raise ZeroDivisionError("oh")


def texts(lane: Lane[StreamChunk]) -> Observable[tuple[str, list[str]]]:
    return lane.map(str).to_list().map(lambda all_of_it: (lane.key, all_of_it))
