"""``hold_back``: nothing is shown before a verdict on it."""

import asyncio
import pickle
from typing import Any

import pytest
import reactivex as rx
from reactivex import Subject, operators as rxops
from reactivex.disposable import SingleAssignmentDisposable

from rxflow import operators as ops
from rxflow.testing import Marbles, ScriptedLLM, check_operator
from rxflow.testing._scripted import thinking
from rxflow.testing._virtual_clock import VirtualClock
from rxflow.types.chunks import Origin, StreamChunk
from rxflow.types.events import LLMFinished, TaskFinished
from tests.operators.cuts import made_of
from tests.operators.pieces import delta, said
from tests.scripted import Scripted
from tests.signals import outcome, signals_of
from tests.team import a_crew, a_task, an_agent


def release(text: str) -> ops.Verdict:
    return ops.Release()


def strict(text: str) -> ops.Verdict:
    """Stops at "bad", and replaces what is rude."""
    if "bad" in text:
        return ops.Stop(f"{text!r} is bad")
    return ops.Replace("(…)") if "rude" in text else ops.Release()


class Slow:
    """A guard that takes as many milliseconds as its text has characters, or as it is told to."""

    def __init__(self, takes: dict[str, int] | None = None) -> None:
        self.asked: list[str] = []
        self.cancelled: list[str] = []
        self._takes = takes or {}

    async def __call__(self, text: str) -> ops.Verdict:
        self.asked.append(text)
        try:
            await asyncio.sleep(self._takes.get(text, len(text)) / 1000)
        except asyncio.CancelledError:
            self.cancelled.append(text)
            raise
        return strict(text)


class TestVerdicts:
    def test_text_is_judged_as_a_whole(self) -> None:
        asked: list[str] = []

        def guard(text: str) -> ops.Verdict:
            asked.append(text)
            return ops.Release()

        assert made_of(ops.hold_back(guard), ["a", "b ", "c"]) == ["ab c"]
        assert asked == ["ab c"]

    def test_or_piece_by_piece(self, marbles: Marbles) -> None:
        source = marbles.cold("a-b-c|", {"a": "One", "b": ". rude", "c": " two. Three"})
        marbles.expect(source.pipe(ops.hold_back(strict, until=ops.sentences()))).to_be(
            "--x-y(z|)", {"x": "One.", "y": "(…)", "z": " Three"}
        )

    def test_nothing_can_take_its_place(self) -> None:
        assert made_of(ops.hold_back(lambda _: ops.Replace("")), ["a"]) == []

    def test_one_can_stop_the_stream_and_its_source(self, marbles: Marbles) -> None:
        source = marbles.cold("a-b-c|", {"a": "one\n", "b": "bad\n", "c": "two\n"})
        marbles.expect(source.pipe(ops.hold_back(strict, until=ops.lines()))).to_be(
            "x-#", {"x": "one\n"}, ops.GuardStopped(r"'bad\n' is bad")
        )
        marbles.expect_subscriptions(source).to_be("^-!")

    def test_what_is_no_verdict_ends_the_stream(self, marbles: Marbles) -> None:
        def nothing(text: str) -> Any:
            return None

        error = TypeError("a guard returns Release(), Replace(text) or Stop(reason); this one returned None")
        source = marbles.cold("a---|")
        marbles.expect(source.pipe(ops.hold_back(nothing))).to_be("----#", error=error)

    def test_a_guard_that_raises_ends_the_stream(self, marbles: Marbles) -> None:
        def refuse(text: str) -> ops.Verdict:
            raise ValueError(text)

        source = marbles.cold("a---|", {"a": "one\n"})
        marbles.expect(source.pipe(ops.hold_back(refuse, until=ops.lines()))).to_be("#", error=ValueError("one\n"))
        marbles.expect_subscriptions(source).to_be("(^!)")

    def test_the_reason_survives_pickling(self) -> None:
        stopped = pickle.loads(pickle.dumps(ops.GuardStopped("rude")))
        assert (stopped.reason, str(stopped)) == ("rude", "a guard stopped the stream: rude")


class TestSlowVerdicts:
    def test_they_keep_the_order(self, marbles: Marbles) -> None:
        slow = Slow({"a\n": 5, "b\n": 1})
        source = marbles.cold("a-b-|", {"a": "a\n", "b": "b\n"})
        marbles.expect(source.pipe(ops.hold_back(slow, until=ops.lines()))).to_be(
            "-----x(y|)", {"x": "a\n", "y": "b\n"}
        )

    def test_an_error_comes_after_what_was_said_before_it_is_judged(self, marbles: Marbles) -> None:
        source = marbles.cold("a-#", {"a": "one rude"})
        marbles.expect(source.pipe(ops.hold_back(Slow()))).to_be("----------(x#)", {"x": "(…)"})

    def test_that_error_is_the_context_of_a_guards_that_comes_later(self, virtual_clock: VirtualClock) -> None:
        gone = OSError("gone")

        async def main() -> None:
            await rx.concat(rx.of("bad"), rx.throw(gone)).pipe(ops.hold_back(Slow()))

        with pytest.raises(ops.GuardStopped) as raised:
            virtual_clock.run(main)
        assert raised.value.__context__ is gone

    def test_one_can_stop_the_stream(self, marbles: Marbles) -> None:
        slow = Slow({"bad\n": 4, "late\n": 9})
        chunks = {"a": said("bad\n", span_id="a"), "b": said("late\n", span_id="b")}
        source = marbles.cold("(ab)--------|", chunks)
        marbles.expect(source.pipe(ops.hold_back(slow, until=ops.lines()))).to_be(
            "----#", error=ops.GuardStopped(r"'bad\n' is bad")
        )
        marbles.expect_subscriptions(source).to_be("^---!")
        assert slow.cancelled == ["late\n"]

    def test_a_guard_that_raises_ends_the_stream(self, marbles: Marbles) -> None:
        async def refuse(text: str) -> ops.Verdict:
            await asyncio.sleep(0.002)
            raise ValueError(text)

        source = marbles.cold("a-----|", {"a": "one\n"})
        marbles.expect(source.pipe(ops.hold_back(refuse, until=ops.lines()))).to_be("--#", error=ValueError("one\n"))
        marbles.expect_subscriptions(source).to_be("^-!")

    def test_disposing_cancels_them(self, marbles: Marbles) -> None:
        slow = Slow()
        source = marbles.cold("a-----|", {"a": "one more line\n"})
        marbles.expect(source.pipe(ops.hold_back(slow, until=ops.lines())), "^---!").to_be("----")
        marbles.expect_subscriptions(source).to_be("^---!")
        assert slow.cancelled == ["one more line\n"]

    def test_disposing_inside_of_the_guard_cancels_its_verdict(self) -> None:
        source: Subject[Any] = Subject()
        subscription = SingleAssignmentDisposable()
        asked: list[str] = []

        async def judge(text: str) -> ops.Verdict:
            asked.append(text)
            return ops.Release()

        def guard(text: str) -> Any:
            subscription.dispose()
            return judge(text)

        async def main() -> None:
            subscription.disposable = source.pipe(ops.hold_back(guard, until=ops.lines())).subscribe()
            source.on_next("one\n")
            (verdict,) = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.wait([verdict])
            assert verdict.cancelled()

        asyncio.run(main())
        assert asked == []

    def test_only_the_call_of_one_waits(self, marbles: Marbles) -> None:
        slow = Slow({"slow\n": 8, "fast\n": 1})
        chunks = {
            "a": said("slow\n", span_id="a"),
            "b": said("fast\n", span_id="b"),
            "c": delta("{}", span_id="a"),
            "d": delta("{}", span_id="b"),
        }
        source = marbles.cold("abcd----|", chunks)
        marbles.expect(source.pipe(ops.hold_back(slow, until=ops.lines()))).to_be("--bd----(ac|)", chunks)

    def test_events_keep_their_place(self) -> None:
        crew = a_crew(a_task(an_agent(Scripted("one two"))), a_task(an_agent(Scripted("three"))))
        plain = outcome(crew.events())
        judged = outcome(crew.events().pipe(ops.hold_back(Slow())))

        def shape(items: list[Any]) -> list[Any]:
            """Kinds, where neighbouring chunks are one."""
            kinds: list[type[object]] = [type(item) for item in items]
            return [kind for at, kind in enumerate(kinds) if kind is not StreamChunk or kinds[at - 1 : at] != [kind]]

        assert shape(judged.events) == shape(plain.events)
        assert judged.texts == ["one two", "three"]

    def test_they_need_a_loop(self) -> None:
        told: list[Any] = []
        rx.of("a").pipe(ops.hold_back(Slow())).subscribe(on_error=told.append)
        assert "the guard of hold_back is a coroutine function, and no event loop runs here" in str(told[0])

    def test_the_loop_of_a_run_before_it_is_none(self) -> None:
        behind = ScriptedLLM("one|").observe("Hi").pipe(rxops.filter(bool), ops.hold_back(Slow()))
        (error,) = signals_of(behind).errors
        assert "no event loop runs here: put hold_back directly after observe()" in str(error)

    def test_they_do_not_need_one_of_the_users_in_a_run(self) -> None:
        shown = signals_of(ScriptedLLM("one-rude|").observe("Hi").pipe(ops.hold_back(Slow())))
        assert [str(chunk) for chunk in shown.items] == ["(…)"]


def test_reasoning_is_judged_by_itself() -> None:
    asked: list[str] = []

    def guard(text: str) -> ops.Verdict:
        asked.append(text)
        return ops.Release()

    llm = ScriptedLLM([thinking("Hm, "), thinking("well."), "Yes, ", "no."])
    signals_of(llm.events("Why?").pipe(ops.hold_back(guard)))
    assert asked == ["Hm, well.", "Yes, no."]


def test_what_nobody_says_passes() -> None:
    finished = LLMFinished(origin=Origin(span_id="a"), text="")
    assert made_of(ops.hold_back(release), [finished, 3, delta("{}")]) == [finished, 3, delta("{}")]


def test_an_event_waits_for_all_that_came_before_it(marbles: Marbles) -> None:
    slow = Slow({"one\n": 3, "two\n": 4})
    result: Any = None
    items = {
        "a": said("one\n", span_id="a"),
        "f": TaskFinished(origin=Origin(span_id="t"), result=result),
        "b": said("two\n", span_id="b"),
    }
    source = marbles.cold("(afb)|", items)
    marbles.expect(source.pipe(ops.hold_back(slow, until=ops.lines()))).to_be("---(af)(b|)", items)


def test_what_an_observer_adds_to_another_call_is_judged_at_once() -> None:
    source: Subject[Any] = Subject()
    seen: list[str] = []

    def observe(chunk: StreamChunk) -> None:
        seen.append(str(chunk))
        if len(seen) < 4:
            source.on_next(said(f"{len(seen)}\n", span_id=f"call {len(seen)}"))

    source.pipe(ops.hold_back(release, until=ops.lines())).subscribe(observe)
    source.on_next(said("0\n", span_id="call 0"))
    assert seen == ["0\n", "1\n", "2\n", "3\n"]


def test_events_that_an_observer_adds_come_after_those_that_wait() -> None:
    result: Any = None
    first, second, third = (TaskFinished(origin=Origin(span_id=span), result=result) for span in "123")
    one, two = said("one\n", span_id="a"), said("two\n", span_id="b")
    caused: dict[int, tuple[Any, ...]] = {1: (first, second), 2: (third, two)}
    source: Subject[Any] = Subject()
    seen: list[Any] = []

    def observe(item: Any) -> None:
        seen.append(item)
        for each in caused.get(len(seen), ()):
            source.on_next(each)

    source.pipe(ops.hold_back(release, until=ops.lines())).subscribe(observe)
    source.on_next(one)
    assert seen == [one, first, second, third, two]


def test_each_subscription_has_verdicts_of_its_own(marbles: Marbles) -> None:
    judged = marbles.hot("a--b|", {"a": "one", "b": "two\n"}).pipe(ops.hold_back(strict, until=ops.lines()))
    marbles.expect(judged).to_be("---x|", {"x": "onetwo\n"})
    marbles.expect(judged, "-^").to_be("---x|", {"x": "two\n"})


def test_whoever_has_enough_disposes_the_source(marbles: Marbles) -> None:
    source = marbles.cold("a-b|", {"a": "one\n"})
    marbles.expect(source.pipe(ops.hold_back(strict, until=ops.lines()), rxops.take(1))).to_be("(x|)", {"x": "one\n"})
    marbles.expect_subscriptions(source).to_be("(^!)")


def test_the_guard_must_be_a_function() -> None:
    guard: Any = "strict"
    with pytest.raises(TypeError, match=r"hold_back takes a function of the text; got 'strict'"):
        ops.hold_back(guard)


def test_until_must_be_an_operator() -> None:
    until: Any = "lines"
    with pytest.raises(TypeError, match=r"hold_back\(until=…\) takes an operator, such as ops.lines\(\); got 'lines'"):
        ops.hold_back(release, until=until)


def test_it_keeps_the_rules() -> None:
    check_operator(ops.hold_back(release))
    check_operator(ops.hold_back(release, until=ops.words()))
    check_operator(ops.hold_back(Slow(), until=ops.words()))
