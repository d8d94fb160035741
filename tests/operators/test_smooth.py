"""``smooth``: an even pace for people's eyes."""

from itertools import pairwise
from typing import Any

import pytest
import reactivex as rx
from hypothesis import given, strategies as st
from reactivex import Subject, operators as rxops
from reactivex.abc import DisposableBase
from reactivex.testing import TestScheduler

from rxflow import operators as ops
from rxflow.testing import Marbles, ScriptedLLM, check_operator
from rxflow.types.chunks import Origin, StreamChunk
from rxflow.types.events import LLMFinished, TaskFinished
from tests.operators.pieces import delta, said


class Shown:
    """Items, and the second at which each is shown. TestScheduler counts in seconds."""

    def __init__(self, **given: Any) -> None:
        self.clock = TestScheduler()
        self.source: Subject[Any] = Subject()
        self.items: list[tuple[float, Any]] = []
        self.ends: list[tuple[float, str]] = []
        self.subscription = self.source.pipe(ops.smooth(scheduler=self.clock, **given)).subscribe(
            lambda item: self.items.append((self.clock.clock, item)),
            lambda error: self._ended(repr(error)),
            lambda: self._ended("completed"),
        )

    def _ended(self, how: str) -> None:
        self.ends.append((self.clock.clock, how))

    @property
    def text(self) -> str:
        return "".join(str(item) for _, item in self.items)

    def of(self, place: str) -> str:
        return "".join(item.content for _, item in self.items if getattr(item, "span_id", None) == place)


def test_a_burst_comes_at_an_even_pace(marbles: Marbles) -> None:
    source = marbles.cold("a|", {"a": "abcdefghij"})
    smooth = source.pipe(ops.smooth(10, catch_up=60))
    marbles.expect(smooth.pipe(rxops.map(len), rxops.scan(lambda total, size: total + size))).to_be(
        "a 99ms b 99ms c 99ms d 99ms e 99ms f 99ms g 99ms h 99ms i 99ms (j|)",
        dict(zip("abcdefghij", range(1, 11), strict=True)),
    )


def test_there_are_no_more_than_thirty_pieces_a_second() -> None:
    shown = Shown(rate=600)
    shown.source.on_next("x" * 600 + "\n")
    shown.clock.start()
    times = [at for at, _ in shown.items]
    assert 28 <= len(times) <= 31
    assert min(later - earlier for earlier, later in pairwise(times)) >= 1 / 31


def test_the_pace_rises_with_what_waits() -> None:
    shown = Shown(rate=10, catch_up=2)
    shown.source.on_next("x" * 1000)
    shown.source.on_completed()
    shown.clock.start()
    assert shown.text == "x" * 1000
    assert 1.9 < shown.ends[0][0] <= 2.05
    sizes = [len(item) for _, item in shown.items[1:-1]]
    assert max(sizes) - min(sizes) <= 1


@given(
    arrivals=st.lists(st.tuples(st.floats(0, 3), st.integers(1, 300)), min_size=1, max_size=20),
    rate=st.integers(1, 100),
)
def test_each_character_is_out_within_catch_up(arrivals: list[tuple[float, int]], rate: int) -> None:
    shown = Shown(rate=rate, catch_up=1.5)
    due: list[float] = []
    for wait, size in arrivals:
        shown.clock.advance_by(wait)
        shown.source.on_next("x" * size)
        due += [shown.clock.clock] * size
    shown.source.on_next("\n")
    shown.clock.start()
    came = [at for at, item in shown.items for _ in item]
    # Each arrival ends with a character that waits for the next one: it counts from there.
    sizes = [size for _, size in arrivals]
    ends = {sum(sizes[: number + 1]) - 1 for number in range(len(sizes))}
    late = [out - arrived for number, (out, arrived) in enumerate(zip(came, due, strict=False)) if number not in ends]
    assert max(late, default=0) <= 1.5 + 2 / 30


def test_the_pace_falls_back_when_all_is_out() -> None:
    shown = Shown(rate=10, catch_up=1)
    shown.source.on_next("x" * 1000)
    shown.clock.advance_by(5)
    shown.items.clear()
    shown.source.on_next("y" * 5)
    shown.clock.start()
    assert 0.3 <= shown.items[-1][0] - shown.items[0][0] <= 0.6


def test_completion_waits_for_the_rest() -> None:
    shown = Shown(rate=10)
    shown.source.on_next("abcdef")
    shown.source.on_completed()
    assert not shown.ends
    shown.clock.start()
    assert shown.text == "abcdef"
    assert shown.ends[0][0] == pytest.approx(0.5, abs=0.1)


def test_an_error_brings_the_rest_at_once() -> None:
    shown = Shown(rate=10)
    shown.source.on_next("abcdef")
    shown.source.on_error(ValueError("no"))
    assert (shown.text, shown.ends) == ("abcdef", [(0, "ValueError('no')")])


def test_disposing_disposes_the_source_and_the_timer(marbles: Marbles) -> None:
    source = marbles.cold("a-----------|", {"a": "abcdefghijkl"})
    marbles.expect(source.pipe(ops.smooth(10), rxops.map(str)), "^---!").to_be("x---", {"x": "a"})
    marbles.expect_subscriptions(source).to_be("^---!")


def test_whoever_has_enough_disposes_the_source(marbles: Marbles) -> None:
    source = marbles.cold("a-----------|", {"a": "abcdefghijkl"})
    marbles.expect(source.pipe(ops.smooth(10), rxops.take(1))).to_be("(x|)", {"x": "a"})
    marbles.expect_subscriptions(source).to_be("(^!)")


def test_no_timer_runs_while_nothing_waits() -> None:
    shown = Shown(rate=100)
    shown.source.on_next("abc")
    shown.clock.advance_by(1)
    assert shown.text == "ab"
    assert not shown.clock._queue  # pyright: ignore[reportPrivateUsage]


def test_calls_side_by_side_have_the_pace_each() -> None:
    shown = Shown(rate=10, catch_up=100)
    for place in "ab":
        shown.source.on_next(said("x" * 20 + "\n", span_id=place))
    shown.clock.advance_by(1)
    assert len(shown.of("a")) == pytest.approx(11, abs=1)
    assert len(shown.of("b")) == pytest.approx(11, abs=1)


def test_what_is_no_text_waits_for_the_text_before_it() -> None:
    shown = Shown(rate=10)
    call = delta("{}", span_id="a")
    finished = LLMFinished(origin=Origin(span_id="a", parent_span_id="t"), text="abcdef")
    result: Any = None
    other = TaskFinished(origin=Origin(span_id="t"), result=result)
    for item in (said("abc", span_id="a"), call, said("def", span_id="a"), finished, other, said("x\n", span_id="b")):
        shown.source.on_next(item)
    assert shown.of("a") == "a"
    shown.clock.start()
    kinds = [item.content if isinstance(item, StreamChunk) else type(item).__name__ for _, item in shown.items]
    assert kinds == ["a", "b", "c", "{}", "d", "e", "f", "LLMFinished", "TaskFinished", "x"]


def test_what_an_observer_causes_at_an_event_comes_after_those_that_wait() -> None:
    result: Any = None
    first, second, third = (TaskFinished(origin=Origin(span_id=span), result=result) for span in "123")
    clock, source, seen = TestScheduler(), Subject[Any](), list[Any]()

    def observe(item: Any) -> None:
        seen.append(item)
        if item == "t":
            source.on_next(first)
            source.on_next(second)
        elif item is first:
            source.on_next(third)
            source.on_next("s")
            source.on_completed()

    source.pipe(ops.smooth(60, scheduler=clock)).subscribe(observe, on_completed=lambda: seen.append("completed"))
    source.on_next("te")
    clock.start()
    assert seen == ["t", first, second, third, "es", "completed"]


def test_what_is_no_text_passes_where_nothing_waits() -> None:
    shown = Shown()
    call = delta("{}")
    shown.source.on_next(call)
    assert shown.items == [(0, call)]


def test_it_is_a_part_of_the_run(marbles: Marbles) -> None:
    llm = ScriptedLLM("abcdefgh|")
    marbles.expect(llm.observe("Hi").pipe(ops.smooth(10, catch_up=60), rxops.map(str), rxops.last())).to_be(
        "700ms (h|)"
    )


def test_each_subscription_shows_for_itself(marbles: Marbles) -> None:
    smooth = marbles.cold("a|", {"a": "ab"}).pipe(ops.smooth(10))
    marbles.expect(smooth).to_be("a 99ms (b|)")
    marbles.expect(smooth, "--^").to_be("--a 99ms (b|)")


def test_a_timer_may_fire_before_the_clock_returns_it() -> None:
    class Prompt(TestScheduler):
        """Lets the time of its first timer pass at once."""

        has_timer = False

        def schedule_relative(self, duetime: Any, action: Any, state: Any = None) -> DisposableBase:
            timer = super().schedule_relative(duetime, action, state)
            if not self.has_timer:
                self.has_timer = True
                self.advance_by(self.to_seconds(duetime))
            return timer

    clock, source, seen = Prompt(), Subject[Any](), list[Any]()
    source.pipe(ops.smooth(10, catch_up=60, scheduler=clock)).subscribe(seen.append)
    source.on_next("abcd")
    source.on_completed()
    clock.start()
    assert "".join(seen) == "abcd"


def test_without_any_clock_the_stream_fails() -> None:
    told: list[Any] = []
    rx.of("a").pipe(ops.smooth()).subscribe(on_error=told.append)
    assert "smooth needs a clock" in str(told[0])


def test_arguments_are_checked_at_the_call() -> None:
    with pytest.raises(ValueError, match=r"smooth\(rate\) must be a number of characters a second above 0; got 0"):
        ops.smooth(0)
    with pytest.raises(ValueError, match=r"smooth\(rate\) must be a number of characters a second above 0; got 1000"):
        ops.smooth(10**400)
    with pytest.raises(
        ValueError, match=r"smooth\(catch_up\) must be a number of seconds \(or a timedelta\) above 0; got -1"
    ):
        ops.smooth(catch_up=-1)


def test_it_keeps_the_rules() -> None:
    check_operator(ops.smooth(10, catch_up=60), items="abcdef")


def test_the_observer_may_make_the_source_fail_at_any_character() -> None:
    for number in (1, 2):
        source, clock = Subject[str](), TestScheduler()
        seen: list[object] = []

        def on_next(text: str, source: Subject[str] = source, number: int = number, seen: list[object] = seen) -> None:
            seen.append(text)
            if len(seen) == number:
                source.on_error(OSError("no more"))

        source.pipe(ops.smooth(20, scheduler=clock)).subscribe(on_next, seen.append, scheduler=clock)
        source.on_next("abc")
        clock.advance_to(5)
        *texts, error = seen
        assert "".join(map(str, texts)) == "abc"
        assert isinstance(error, OSError)
