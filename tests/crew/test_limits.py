"""Limits of time and of calls."""

import asyncio

import pytest

from rxflow import Crew
from rxflow.crew.rate_limit import RateLimit
from rxflow.llm.request import Request
from rxflow.types.events import AgentFailed
from tests.scripted import Scripted, calls
from tests.signals import outcome
from tests.team import a_crew, a_task, an_agent, solo


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


def test_a_time_out_within_the_work_is_not_taken_for_that_of_the_agent() -> None:
    seen = outcome(solo(Scripted(TimeoutError("the tool's own")), agent={"max_execution_time": 60}).events())
    assert str(seen.error) == "the tool's own"


class TestMaxRpm:
    """The wait is up to a minute, which no test waits: where it begins, a much shorter limit ends it."""

    def test_calls_below_the_limit_do_not_wait_and_the_next_one_does(self) -> None:
        async def main() -> None:
            rate = RateLimit(3)
            async with asyncio.timeout(5.0):
                for _ in range(3):
                    await rate.wait()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(rate.wait(), 0.01)

        asyncio.run(main())

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
