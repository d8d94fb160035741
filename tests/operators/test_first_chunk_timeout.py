"""``first_chunk_timeout``: who says nothing in time is closed."""

import asyncio
import pickle
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import reactivex as rx
from reactivex import Subject, operators as rxops
from reactivex.testing import TestScheduler

from rxflow import LLM, Flow, operators as ops
from rxflow.flow import start
from rxflow.testing import Marbles, ScriptedLLM
from rxflow.testing._scripted import thinking
from rxflow.types.chunks import StreamChunk
from tests.gate import Gate
from tests.loopback import Loopback, Reply
from tests.signals import Signals


class Asking(Flow):
    """Takes 2 ms to ask, and 2 ms to say the answer."""

    @start()
    async def begin(self) -> AsyncGenerator[str | None]:
        await asyncio.sleep(0.002)
        answer = await self.ask_async("Go on?")
        await asyncio.sleep(0.002)
        yield answer


def too_late(seconds: float, seen: str = "nothing") -> ops.FirstChunkTimeout:
    return ops.FirstChunkTimeout(seconds, seen)


class TestOnAnyStream:
    def test_a_source_that_says_nothing_in_time_is_disposed(self, marbles: Marbles) -> None:
        source = marbles.cold("--------a-|")
        marbles.expect(source.pipe(ops.first_chunk_timeout(0.005))).to_be("-----#", error=too_late(0.005))
        marbles.expect_subscriptions(source).to_be("^----!")

    def test_the_first_item_ends_the_wait_for_good(self, marbles: Marbles) -> None:
        source = marbles.cold("--a 60ms b-|")
        marbles.expect(source.pipe(ops.first_chunk_timeout(0.005))).to_be("--a 60ms b-|")

    def test_a_source_that_ends_without_a_word_was_not_too_late(self, marbles: Marbles) -> None:
        marbles.expect(marbles.cold("--|").pipe(ops.first_chunk_timeout(0.005))).to_be("--|")

    def test_each_subscription_has_a_wait_of_its_own(self, marbles: Marbles) -> None:
        piped = marbles.hot("--a-------b---|").pipe(ops.first_chunk_timeout(0.005))
        marbles.expect(piped).to_be("--a-------b---|")
        marbles.expect(piped, "---^").to_be("--------#", error=too_late(0.005))

    def test_it_takes_the_clock_that_it_is_given(self) -> None:
        scheduler = TestScheduler()
        told: list[Any] = []
        rx.never().pipe(ops.first_chunk_timeout(5, scheduler=scheduler)).subscribe(on_error=told.append)
        scheduler.advance_to(4.9)
        assert told == []
        scheduler.advance_to(5.1)
        assert [type(error) for error in told] == [ops.FirstChunkTimeout]

    def test_without_any_clock_the_stream_fails(self) -> None:
        source: Subject[str] = Subject()
        told: list[Any] = []
        source.pipe(ops.first_chunk_timeout(5)).subscribe(on_error=told.append)
        assert [type(error) for error in told] == [RuntimeError]
        assert "first_chunk_timeout needs a clock" in str(told[0])
        assert source.observers == []


class TestInARun:
    def test_events_of_the_run_are_no_word_and_the_error_names_the_last(self, marbles: Marbles) -> None:
        llm = ScriptedLLM("-------he|")
        error = too_late(0.005, "LLMStarted")
        marbles.expect(llm.observe("Hello").pipe(ops.first_chunk_timeout(0.005))).to_be("-----#", error=error)
        assert llm.calls[0].cancelled_at == 0.005

    def test_reasoning_is_one(self, marbles: Marbles) -> None:
        llm = ScriptedLLM("--t-----he|", values={"t": thinking("Hm.")})
        marbles.expect(llm.observe("Hello").pipe(ops.first_chunk_timeout(0.005))).to_say("--------he|")

    def test_while_a_person_is_asked_the_time_stands(self, marbles: Marbles) -> None:
        said = Asking().observe().pipe(ops.answer_with(marbles.answers("60s b|")), ops.first_chunk_timeout(0.005))
        marbles.expect(said).to_be("60004ms (b|)")

    def test_what_was_left_of_it_goes_on_with_the_answer(self, marbles: Marbles) -> None:
        said = Asking().observe().pipe(ops.answer_with(marbles.answers("60s b|")), ops.first_chunk_timeout(0.003))
        marbles.expect(said).to_be("60003ms #", error=too_late(0.003, "InputReceived of method 'begin', flow 'Asking'"))

    def test_the_providers_connection_closes(self, provider: Loopback, llm: LLM) -> None:
        provider.script(Reply(hold_after=0))
        clock, shown = TestScheduler(), Signals()
        shown.subscribe_to(llm.observe("Hello").pipe(ops.first_chunk_timeout(5, scheduler=clock)))
        provider.wait_until(lambda p: p.holding)
        clock.advance_to(6)
        shown.ended.wait()
        assert [type(error) for error in shown.errors] == [ops.FirstChunkTimeout]
        provider.wait_until(lambda p: p.disconnects)

    def test_one_that_speaks_goes_on_after_the_limit(self, provider: Loopback, llm: LLM) -> None:
        provider.script(Reply(text=["a", "b", "c"], hold_after=1))
        clock, shown, speaks = TestScheduler(), Signals(), Gate()
        limited = llm.observe("Hello").pipe(ops.first_chunk_timeout(5, scheduler=clock))
        shown.subscribe_to(limited.pipe(rxops.do_action(lambda _: speaks.open())))
        speaks.wait()
        clock.advance_to(6)
        provider.release()
        shown.ended.wait()
        assert [str(chunk) for chunk in shown.items] == ["a", "b", "c"]
        assert shown.ends == ["completed"]


def test_the_error_can_be_caught_as_a_timeout_and_pickled() -> None:
    error: ops.FirstChunkTimeout = pickle.loads(pickle.dumps(too_late(2.5, "LLMStarted of agent 'Writer'")))
    assert issubclass(type(error), TimeoutError)
    assert (error.seconds, error.seen) == (2.5, "LLMStarted of agent 'Writer'")
    assert str(error) == (
        "no chunk within 2.5 s of subscribing (first_chunk_timeout); the last item: LLMStarted of agent 'Writer'"
    )


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_the_limit_is_above_zero(seconds: float) -> None:
    with pytest.raises(
        ValueError, match=r"first_chunk_timeout\(seconds\) must be a number of seconds \(or a timedelta\) above 0; got"
    ):
        ops.first_chunk_timeout(seconds)


def test_the_limit_is_a_number() -> None:
    wrong: Any = "5"
    with pytest.raises(
        TypeError, match=r"first_chunk_timeout\(seconds\) is not a number of seconds \(or a timedelta\): '5'"
    ):
        ops.first_chunk_timeout(wrong)


def test_items_are_passed_as_they_are() -> None:
    chunk = StreamChunk(content="a")
    scheduler = TestScheduler()
    heard: list[Any] = []
    source: Subject[StreamChunk] = Subject()
    source.pipe(ops.first_chunk_timeout(5)).subscribe(heard.append, scheduler=scheduler)
    source.on_next(chunk)
    assert heard[0] is chunk
