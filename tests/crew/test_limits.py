"""Limits of time and of calls."""

import asyncio
from typing import Any

import pytest

from rxflow import LLM, Crew, Flow, operators as ops
from rxflow.crew._assignment import RateLimit, wait_for_all
from rxflow.flow import start
from rxflow.llm.source import Request
from rxflow.testing import Marbles, ScriptedLLM, tool_call
from rxflow.tools import tool
from rxflow.types.events import AgentFailed, TaskFailed
from rxflow.types.results import TaskOutput
from tests.loopback import Loopback, Reply
from tests.scripted import Scripted, calls
from tests.signals import outcome
from tests.team import a_crew, a_task, an_agent, solo


@pytest.mark.usefixtures("virtual_clock")
def test_an_agent_that_takes_too_long_is_stopped_with_a_time_out_that_says_who_and_what() -> None:
    stopped: list[bool] = []

    async def never(_: Request) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(True)

    seen = outcome(solo(Scripted("Done", before=never), agent={"max_execution_time": 0.01}).events())
    assert isinstance(seen.error, TimeoutError)
    assert "agent 'Writer' was not done with task 'Write' within max_execution_time=0.01 seconds" in str(seen.error)
    assert seen.one(AgentFailed).error is seen.error
    assert stopped == [True]


@pytest.mark.usefixtures("virtual_clock")
def test_the_time_of_an_agent_is_that_of_all_attempts() -> None:
    rejected = 0

    def never_good(output: TaskOutput) -> tuple[bool, Any]:
        nonlocal rejected
        rejected += 1
        return (False, "no")

    async def waits(_: Request) -> None:
        await asyncio.sleep(0.02)

    crew = solo(
        Scripted("Done", before=waits),
        guardrail=never_good,
        guardrail_max_retries=10_000,
        agent={"max_execution_time": 0.1},
    )
    with pytest.raises(TimeoutError, match="agent 'Writer' was not done with task 'Write'"):
        crew.kickoff()
    assert rejected > 0


@pytest.mark.usefixtures("virtual_clock")
def test_the_time_of_an_agent_is_that_of_the_judging_too() -> None:
    async def never(output: TaskOutput) -> tuple[bool, Any]:
        await asyncio.Event().wait()
        return (True, None)

    seen = outcome(solo(Scripted("Done"), guardrail=never, agent={"max_execution_time": 0.05}).events())
    assert "within max_execution_time=0.05 seconds" in str(seen.error)
    assert seen.one(TaskFailed).error is seen.error


class TestWhileAPersonIsAsked:
    """The time of an agent stands. Here a tool takes 4 ms, when it may be called, and the turn after it 8 ms."""

    @staticmethod
    def paying(seconds: float, *amounts: float) -> Crew:
        @tool(needs_approval=True)
        async def pay(amount: float) -> str:
            """Pay an amount."""
            await asyncio.sleep(0.004)
            return f"paid {amount:g}"

        model = ScriptedLLM([tool_call("pay", {"amount": amount}) for amount in amounts], "----done|")
        return solo(model, agent={"tools": [pay], "max_execution_time": seconds})

    def test_it_is_not_over(self, marbles: Marbles) -> None:
        said = self.paying(0.014, 5).observe().pipe(ops.answer_with(marbles.answers("60s yes|")), ops.text())
        marbles.expect(said).to_say("60004ms ----done|")

    def test_what_was_left_of_it_goes_on_with_the_answer(self, marbles: Marbles) -> None:
        said = self.paying(0.007, 5).observe().pipe(ops.answer_with(marbles.answers("60s yes|")), ops.text())
        late = "agent 'Writer' was not done with task 'Write' within max_execution_time=0.007 seconds"
        marbles.expect(said).to_be("60007ms #", error=TimeoutError(late))

    def test_until_the_last_of_several_has_answered(self, marbles: Marbles) -> None:
        answers = marbles.answers("20s yes|", "60s yes|")
        said = self.paying(0.014, 1, 2).observe().pipe(ops.answer_with(answers), ops.text())
        marbles.expect(said).to_say("60004ms ----done|")

    def test_also_if_a_guardrail_asks(self, marbles: Marbles) -> None:
        class Asking(Flow):
            @start()
            async def ask_a_person(self) -> str | None:
                return await self.ask_async("Good?")

        async def accept(output: TaskOutput) -> tuple[bool, Any]:
            return await Asking().kickoff_async() == "yes", output.raw

        crew = solo(ScriptedLLM("----done|"), guardrail=accept, agent={"max_execution_time": 0.01})
        said = crew.observe().pipe(ops.answer_with(marbles.answers("60s yes|")), ops.text())
        marbles.expect(said).to_say("----done 60s |")


def test_a_time_out_within_the_work_is_not_taken_for_that_of_the_agent() -> None:
    seen = outcome(solo(Scripted(TimeoutError("the tool's own")), agent={"max_execution_time": 60}).events())
    assert str(seen.error) == "the tool's own"


@pytest.mark.usefixtures("virtual_clock")
class TestMaxRpm:
    """The wait is up to a minute, of virtual time: a shorter limit ends it where it begins, and only then."""

    def test_calls_below_the_limit_do_not_wait_and_the_next_one_does(self) -> None:
        async def main() -> None:
            rate = RateLimit(3)
            async with asyncio.timeout(5.0):
                for _ in range(3):
                    await rate.wait()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(rate.wait(), 0.01)

        asyncio.run(main())

    def test_a_wait_that_is_cancelled_leaves_its_place_to_others(self) -> None:
        async def main() -> None:
            rate = RateLimit(1, period=1.0)
            await rate.wait()
            for _ in range(100):
                waiting = asyncio.create_task(rate.wait())
                await asyncio.sleep(0)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            async with asyncio.timeout(50):  # half of what those would have taken
                await rate.wait()

        asyncio.run(main())

    def test_a_call_that_waits_for_one_limit_takes_no_place_in_another(self) -> None:
        async def main() -> None:
            one, other = RateLimit(1), RateLimit(1)
            await one.wait()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(wait_for_all(other, one), 0.01)
            async with asyncio.timeout(5.0):
                await other.wait()

        asyncio.run(main())

    @pytest.mark.parametrize("whose", ["agent", "crew"])
    def test_a_call_that_judges_an_answer_counts(self, whose: str) -> None:
        model = Scripted("Answer", ['{"accepted": true}'])
        limits: dict[str, Any] = {"max_rpm": 1}
        crew = solo(
            model,
            guardrail="The answer must be good",
            agent={"max_execution_time": 0.05} | (limits if whose == "agent" else {}),
            crew=limits if whose == "crew" else {},
        )
        with pytest.raises(TimeoutError):
            crew.kickoff()
        assert len(model.requests) == 1

    @pytest.mark.parametrize("whose", ["agent", "crew"])
    def test_a_limit_that_is_set_later_holds(self, whose: str) -> None:
        model = Scripted("Done")
        crew = solo(model, agent={"max_execution_time": 0.05})
        (crew.agents[0] if whose == "agent" else crew).max_rpm = 1
        crew.kickoff()
        with pytest.raises(TimeoutError):
            crew.kickoff()
        assert len(model.requests) == 1

    def test_a_limit_may_have_any_size(self) -> None:
        assert str(solo(Scripted("Done"), agent={"max_rpm": 10**400}).kickoff()) == "Done"

    def test_a_limit_below_one_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least 1 request a minute"):
            RateLimit(0)

    def test_the_limit_of_an_agent_holds_over_all_its_tasks(self) -> None:
        model = Scripted("Done")
        agent = an_agent(model, max_rpm=2, max_execution_time=0.05)
        with pytest.raises(TimeoutError):
            a_crew(a_task(agent), a_task(agent), a_task(agent)).kickoff()
        assert len(model.requests) == 2

    def test_the_limit_of_a_crew_holds_for_all_its_agents(self) -> None:
        model = Scripted("Done")
        tasks = [a_task(an_agent(model, role, max_execution_time=0.05)) for role in ("One", "Two", "Three")]
        with pytest.raises(TimeoutError, match="agent 'Three'"):
            a_crew(*tasks, max_rpm=2).kickoff()
        assert len(model.requests) == 2

    def test_the_limit_of_a_crew_holds_over_its_runs(self) -> None:
        model = Scripted("Done")
        crew = solo(model, agent={"max_execution_time": 0.05}, crew={"max_rpm": 1})
        crew.kickoff()
        with pytest.raises(TimeoutError):
            crew.kickoff()
        assert len(model.requests) == 1

    def test_the_limit_of_a_crew_holds_for_coworkers_too(self) -> None:
        order = calls(("ask_question_to_coworker", {"question": "q", "context": "c", "coworker": "Helper"}))
        boss_model, helper_model = Scripted(order, "Done"), Scripted("Never")
        boss = an_agent(boss_model, "Boss", allow_delegation=True, max_execution_time=0.05)
        crew = Crew(agents=[boss, an_agent(helper_model, "Helper")], tasks=[a_task(boss)], max_rpm=1)
        with pytest.raises(TimeoutError):
            crew.kickoff()
        assert helper_model.requests == []


class TestRetries:
    @pytest.mark.parametrize(
        ("of_the_llm", "of_the_agent", "requests"), [(0, None, 1), (3, None, 4), (3, 1, 2), (0, 2, 3)]
    )
    def test_an_agent_tries_as_often_as_its_llm_unless_it_says_otherwise(
        self, provider: Loopback, of_the_llm: int, of_the_agent: int | None, requests: int
    ) -> None:
        provider.script(*(Reply(status=503) for _ in range(requests)))
        llm = LLM("openai/gpt-4o", base_url=provider.url, api_key="k", max_retries=of_the_llm)
        given = {} if of_the_agent is None else {"max_retry_limit": of_the_agent}
        with pytest.raises(Exception, match="Service Unavailable"):
            solo(llm, agent=given).kickoff()
        assert len(provider.requests) == requests
