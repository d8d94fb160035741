"""``coalesce``: fewer and larger chunks."""

from typing import Any

import pytest
import reactivex as rx
from reactivex import Subject, operators as rxops
from reactivex.testing import TestScheduler

from rxflow import operators as ops
from rxflow.testing import Marbles, ScriptedLLM, check_operator
from tests.operators.cuts import made_of
from tests.operators.pieces import delta, said


class TestByTime:
    def test_what_came_since_the_first_comes_in_one(self, marbles: Marbles) -> None:
        source = marbles.cold("ab-c-----d--e----|")
        marbles.expect(source.pipe(ops.coalesce(seconds=0.005))).to_be(
            # The last character waits for its successor, so the time of "c" begins with "d".
            "------v-------w--(x|)",
            {"v": "ab", "w": "cd", "x": "e"},
        )

    def test_the_end_does_not_wait(self, marbles: Marbles) -> None:
        source = marbles.cold("abc|")
        marbles.expect(source.pipe(ops.coalesce(seconds=1))).to_be("---(x|)", {"x": "abc"})

    def test_an_error_does_not_wait_and_loses_nothing(self, marbles: Marbles) -> None:
        marbles.expect(marbles.cold("abc#").pipe(ops.coalesce(seconds=1))).to_be("---(x#)", {"x": "abc"})

    def test_each_subscription_gathers_for_itself(self, marbles: Marbles) -> None:
        gathered = marbles.hot("abcdefgh|").pipe(ops.coalesce(seconds=0.004))
        marbles.expect(gathered).to_be("-----x--(y|)", {"x": "abcde", "y": "fgh"})
        marbles.expect(gathered, "--^").to_be("-------x(y|)", {"x": "cdefg", "y": "h"})

    def test_one_timer_serves_all_lanes(self) -> None:
        clock = TestScheduler()
        source: Subject[Any] = Subject()
        heard: list[tuple[float, str]] = []
        source.pipe(ops.coalesce(seconds=10, scheduler=clock)).subscribe(
            lambda chunk: heard.append((clock.clock, chunk.content))
        )
        for at, name in enumerate("abc"):
            source.on_next(said(f"{name}{name}!", span_id=name))
            clock.advance_to(at + 1)
            assert len(clock._queue) == 1  # pyright: ignore[reportPrivateUsage]
        clock.start()
        assert heard == [(10, "aa"), (11, "bb"), (12, "cc")]

    def test_without_any_clock_the_stream_fails(self) -> None:
        told: list[Any] = []
        rx.of("a").pipe(ops.coalesce(seconds=1)).subscribe(on_error=told.append)
        assert "needs a clock" in str(told[0])

    def test_it_is_a_part_of_the_run(self, marbles: Marbles) -> None:
        """Its timer is on the run's loop, and the end of the call is the end of what is gathered."""
        llm = ScriptedLLM("one-two---------three-four|")
        marbles.expect(llm.observe("Hi").pipe(ops.coalesce(seconds=0.006))).to_be(
            "------x---------------y---(z|)", {"x": "onetw", "y": "othre", "z": "efour"}
        )

    @pytest.mark.slow
    def test_it_keeps_the_rules(self) -> None:
        check_operator(ops.coalesce(seconds=0.5))
        check_operator(ops.coalesce(seconds=0.5, characters=5))


class TestByCharacters:
    def test_so_many_come_at_once(self, marbles: Marbles) -> None:
        source = marbles.cold("abcdef|")
        marbles.expect(source.pipe(ops.coalesce(characters=3))).to_be("---x--(y|)", {"x": "abc", "y": "def"})

    def test_more_stay_together(self) -> None:
        assert made_of(ops.coalesce(characters=3), ["a", "bcdefgh", "i"]) == ["abcdefg", "hi"]

    def test_whoever_has_enough_disposes_the_source(self, marbles: Marbles) -> None:
        source = marbles.cold("abcdef|")
        marbles.expect(source.pipe(ops.coalesce(characters=2), rxops.take(1))).to_be("--(x|)", {"x": "ab"})
        marbles.expect_subscriptions(source).to_be("^-!")

    def test_nothing_is_merged_across_what_is_no_text_or_another_call(self) -> None:
        chunks = [
            said("a", span_id="a"),
            said("b", span_id="b"),
            said("c", span_id="a"),
            delta("{}", span_id="a"),
            said("d", span_id="a"),
        ]
        made = made_of(ops.coalesce(characters=10), chunks)
        assert [(chunk.span_id, chunk.content) for chunk in made] == [("a", "ac"), ("a", "{}"), ("b", "b"), ("a", "d")]

    def test_the_labels_are_those_of_the_last(self) -> None:
        made = made_of(ops.coalesce(characters=10), [said("a", seq=3), said("b", seq=4)])
        assert [(chunk.content, chunk.seq) for chunk in made] == [("ab", 4)]

    def test_it_keeps_the_rules(self) -> None:
        check_operator(ops.coalesce(characters=5))


class TestWithBoth:
    def test_whichever_comes_first(self, marbles: Marbles) -> None:
        source = marbles.cold("abcd------e-------|")
        marbles.expect(source.pipe(ops.coalesce(seconds=0.005, characters=3))).to_be(
            "---x-----------y--(z|)", {"x": "abc", "y": "d", "z": "e"}
        )


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({}, TypeError, r"seconds=… or characters=…"),
        (
            {"seconds": -1},
            ValueError,
            r"coalesce\(seconds\) must be a number of seconds \(or a timedelta\) above 0; got -1",
        ),
        ({"characters": 0}, ValueError, r"coalesce\(characters\) must be a number of characters above 0; got 0"),
        ({"seconds": "1"}, TypeError, r"coalesce\(seconds\) is not a number of seconds \(or a timedelta\): '1'"),
    ],
)
def test_arguments_are_checked_at_the_call(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ops.coalesce(**given)
