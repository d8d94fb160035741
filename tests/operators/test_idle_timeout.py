"""``idle_timeout``: who falls silent is closed; who has not begun, or has nothing to say, is not."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
import reactivex as rx
from reactivex import Observable, operators as rxops
from reactivex.testing import TestScheduler

from rxflow import LLM, Flow, operators as ops
from rxflow.flow import listen, start
from rxflow.testing import Marbles, ScriptedLLM
from rxflow.testing._scripted import thinking, tool_call
from rxflow.tools import tool
from tests.gate import Gate
from tests.loopback import Loopback, Reply
from tests.signals import Signals
from tests.team import solo


class Asking(Flow):
    """Says "a", asks, waits, and says the answer."""

    after = 0.0

    @start()
    async def begin(self) -> AsyncGenerator[str | None]:
        yield "a"
        answer = await self.ask_async("Go on?")
        await asyncio.sleep(self.after)
        yield answer


def idle(seconds: float, seen: str) -> ops.IdleTimeout:
    return ops.IdleTimeout(seconds, seen)


class TestOnAnyStream:
    def test_a_source_that_falls_silent_is_disposed(self, marbles: Marbles) -> None:
        source = marbles.cold("--a--b-------c|")
        piped = source.pipe(ops.idle_timeout(0.005))
        marbles.expect(piped).to_be("--a--b----#", error=idle(0.005, "'b'"))
        marbles.expect_subscriptions(source).to_be("^---------!")

    def test_the_clock_starts_with_the_first_item(self, marbles: Marbles) -> None:
        source = marbles.cold("1h a--b|")
        marbles.expect(source.pipe(ops.idle_timeout(0.005))).to_be("1h a--b|")

    def test_each_subscription_has_a_clock_of_its_own(self, marbles: Marbles) -> None:
        piped = marbles.hot("-a--b----c-|").pipe(ops.idle_timeout(0.006))
        marbles.expect(piped).to_be("-a--b----c-|")
        marbles.expect(piped, "-----^").to_be("---------c-|")

    def test_one_timer_is_pending_however_many_items_come(self) -> None:
        async def main() -> tuple[int, int]:
            loop = asyncio.get_running_loop()
            timers: Any = loop
            source: rx.Subject[str] = rx.Subject()
            before = len(timers._scheduled)
            subscription = source.pipe(ops.idle_timeout(5)).subscribe()
            for _ in range(1000):
                source.on_next("a")
            pending = len(timers._scheduled) - before
            subscription.dispose()
            live = [handle for handle in timers._scheduled if not handle.cancelled()]
            return pending, len(live)

        assert asyncio.run(main()) == (1, 0)


class TestInARun:
    def test_a_model_that_falls_silent_is_cancelled(self, marbles: Marbles) -> None:
        llm = ScriptedLLM("he-----llo|")
        said = marbles.expect(llm.observe("Hello").pipe(ops.idle_timeout(0.005)))
        said.to_say("he---#", error=idle(0.005, "'he'"))
        assert llm.calls[0].cancelled_at == 0.005

    def test_reasoning_sets_it_back(self, marbles: Marbles) -> None:
        llm = ScriptedLLM("a---t---b|", values={"t": thinking("Hm.")})
        marbles.expect(llm.observe("Hello").pipe(ops.idle_timeout(0.005))).to_be("a-------b|")

    def test_a_tool_may_take_its_time(self, marbles: Marbles) -> None:
        @tool
        async def look() -> str:
            """Look around."""
            await asyncio.sleep(60)
            return "seen"

        llm = ScriptedLLM(tool_call("look"), "so-be-it|")
        crew = solo(llm, agent={"tools": [look]})
        said = marbles.expect(crew.observe().pipe(ops.idle_timeout(0.005), ops.text()))
        said.to_say("60s so-be-it|")

    def test_also_one_of_a_crew_whose_chunks_a_method_returns(self, marbles: Marbles) -> None:
        @tool
        async def look() -> str:
            """Look around."""
            await asyncio.sleep(60)
            return "seen"

        crew = solo(ScriptedLLM(tool_call("look"), "so-be-it|"), agent={"tools": [look]})

        class Looking(Flow):
            @start()
            def begin(self) -> Observable[Any]:
                return crew.observe()

        said = marbles.expect(Looking().observe().pipe(ops.idle_timeout(0.005), ops.text()))
        said.to_say("60s so-be-it|")

    def test_the_call_after_it_may_not(self, marbles: Marbles) -> None:
        @tool
        async def look() -> str:
            """Look around."""
            await asyncio.sleep(60)
            return "seen"

        llm = ScriptedLLM(tool_call("look"), "--------so-be-it|")
        crew = solo(llm, agent={"role": "Scout", "tools": [look]}, name="scouting")
        said = marbles.expect(crew.observe().pipe(ops.idle_timeout(0.005), ops.text()))
        said.to_be("60s -----#", error=idle(0.005, "LLMStarted of agent 'Scout', task 'scouting'"))

    def test_a_method_may_take_its_time(self, marbles: Marbles) -> None:
        one, two = ScriptedLLM("one|"), ScriptedLLM("two|")

        class Slow(Flow):
            @start()
            def begin(self) -> Observable[Any]:
                return one.observe("Hello")

            @listen(begin)
            async def work(self) -> None:
                await asyncio.sleep(60)

            @listen(work)
            def end(self) -> Observable[Any]:
                return two.observe("Hello")

        marbles.expect(Slow().observe().pipe(ops.idle_timeout(0.005))).to_say("one 59997ms --- two|")

    def test_so_it_may_after_it_cut_off_a_call(self, marbles: Marbles) -> None:
        llm = ScriptedLLM("a-b-c|")

        class Cutting(Flow):
            @start()
            def begin(self) -> Observable[Any]:
                return llm.events("Hello").pipe(rxops.take(2))

            @listen(begin)
            async def work(self) -> Observable[str]:
                await asyncio.sleep(60)
                return rx.of("z")

        marbles.expect(Cutting().observe().pipe(ops.idle_timeout(0.005))).to_be("a 59999ms (z|)")

    def test_so_may_a_person_whom_a_method_asks_in_the_middle_of_its_text(self, marbles: Marbles) -> None:
        said = Asking().observe().pipe(ops.answer_with(marbles.answers("60s b|")), ops.idle_timeout(0.005))
        marbles.expect(said).to_be("a 59999ms (b|)")

    def test_a_method_that_falls_silent_after_the_answer_may_not(self, marbles: Marbles) -> None:
        class Slow(Asking):
            after = 60.0

        said = Slow().observe().pipe(ops.answer_with(marbles.answers("60s b|")), ops.idle_timeout(0.005))
        marbles.expect(said).to_be("a 60004ms #", error=idle(0.005, "InputReceived of method 'begin', flow 'Slow'"))

    def test_a_model_that_falls_silent_beside_a_person_may_not(self, marbles: Marbles) -> None:
        class Both(Asking):
            @start()
            def beside(self) -> Observable[Any]:
                return ScriptedLLM("x-------y|").observe("Hello")

        said = Both().observe().pipe(ops.answer_with(marbles.answers("60s b|")), ops.idle_timeout(0.005))
        marbles.expect(said).to_be("(ax)-#", error=idle(0.005, "'x' of method 'beside', flow 'Both'"))

    def test_the_providers_connection_closes(self, provider: Loopback, llm: LLM) -> None:
        provider.script(Reply(text=["a", "b"], hold_after=1))
        clock, shown, speaks = TestScheduler(), Signals(), Gate()
        limited = llm.observe("Hello").pipe(ops.idle_timeout(5, scheduler=clock))
        shown.subscribe_to(limited.pipe(rxops.do_action(lambda _: speaks.open())))
        speaks.wait()
        clock.advance_to(6)
        shown.ended.wait()
        assert [str(chunk) for chunk in shown.items] == ["a"]
        assert [type(error) for error in shown.errors] == [ops.IdleTimeout]
        provider.wait_until(lambda p: p.disconnects)


@pytest.mark.parametrize("seconds", [0, -1])
def test_the_limit_is_above_zero(seconds: float) -> None:
    with pytest.raises(
        ValueError, match=r"idle_timeout\(seconds\) must be a number of seconds \(or a timedelta\) above 0; got"
    ):
        ops.idle_timeout(seconds)
