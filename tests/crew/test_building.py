"""What cannot work is refused when it is built, with words that say where and what."""

from typing import Any

import pytest
from pydantic import BaseModel

from rxflow import Agent, Crew, Process, Task
from rxflow.tools import tool
from tests.scripted import Scripted
from tests.team import a_crew, a_task, an_agent, solo

MODEL = Scripted("Done")


@tool
def search(query: str) -> str:
    """Search the web."""
    return query


def test_a_task_without_an_agent_is_refused_in_a_sequential_crew() -> None:
    with pytest.raises(ValueError, match=r"task 1 \('Count'\) has no agent"):
        a_crew(a_task(an_agent(MODEL)), a_task(None, "Count"))


def test_a_context_from_a_later_task_is_refused() -> None:
    agent = an_agent(MODEL)
    later = a_task(agent, "Later")
    with pytest.raises(
        ValueError, match=r"task 0 \('Early'\) takes its context from a task that comes later .*'Later'"
    ):
        a_crew(a_task(agent, "Early", context=[later]), later)


def test_a_context_from_a_task_of_no_crew_is_refused() -> None:
    agent = an_agent(MODEL)
    with pytest.raises(ValueError, match="is not in this crew: 'Elsewhere'"):
        a_crew(a_task(agent, context=[a_task(agent, "Elsewhere")]))


def test_a_context_from_a_neighbour_that_runs_at_the_same_time_is_refused() -> None:
    agent = an_agent(MODEL)
    one = a_task(agent, "One", async_execution=True)
    with pytest.raises(ValueError, match="runs at the same time as the task that it takes its context from: 'One'"):
        a_crew(one, a_task(agent, "Two", context=[one], async_execution=True), a_task(agent))


def test_an_async_task_may_take_its_context_from_beyond_a_sync_one() -> None:
    agent = an_agent(MODEL)
    one = a_task(agent, async_execution=True)
    assert a_crew(one, a_task(agent), a_task(agent, context=[one], async_execution=True)).kickoff().raw == "Done"


def test_more_than_one_trailing_async_task_is_refused() -> None:
    agent = an_agent(MODEL)
    with pytest.raises(ValueError, match="at most one task at the end may have async_execution"):
        a_crew(*(a_task(agent, async_execution=True) for _ in range(2)))


def test_both_output_types_at_once_are_refused() -> None:
    class Text(BaseModel):
        text: str

    with pytest.raises(ValueError, match="give output_pydantic or output_json, not both"):
        a_task(None, output_pydantic=Text, output_json=Text)


class TestHierarchicalCrews:
    def test_one_without_a_manager_is_refused(self) -> None:
        with pytest.raises(ValueError, match="needs manager_llm or manager_agent"):
            Crew(agents=[an_agent(MODEL)], tasks=[a_task(None)], process=Process.hierarchical)

    def test_one_that_is_managed_by_an_agent_of_its_own_is_refused(self) -> None:
        agent = an_agent(MODEL)
        with pytest.raises(ValueError, match="manager_agent cannot be one of the agents"):
            Crew(agents=[agent], tasks=[a_task(None)], process=Process.hierarchical, manager_agent=agent)

    def test_a_manager_with_tools_is_refused(self) -> None:
        manager = an_agent(MODEL, tools=[search])
        with pytest.raises(ValueError, match="manager_agent cannot have tools"):
            Crew(agents=[an_agent(MODEL)], tasks=[a_task(None)], process=Process.hierarchical, manager_agent=manager)


@pytest.mark.parametrize("what", [Agent, Task, Crew])
def test_a_misspelt_argument_is_refused(what: type[BaseModel]) -> None:
    with pytest.raises(ValueError, match="bakcstory"):
        what.model_validate({"bakcstory": "Long"})


@pytest.mark.parametrize(
    ("agent", "crew", "task"),
    [
        ({"max_rpm": 0}, {}, {}),
        ({"max_execution_time": 0}, {}, {}),
        ({"max_retry_limit": -1}, {}, {}),
        ({}, {"max_rpm": 0}, {}),
        ({}, {}, {"guardrail_max_retries": -1}),
    ],
)
def test_limits_that_make_no_sense_are_refused(agent: Any, crew: Any, task: Any) -> None:
    (name,) = agent | crew | task
    with pytest.raises(ValueError, match=name):
        solo(MODEL, agent=agent, crew=crew, **task)


def test_the_model_of_an_agent_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("OPENAI_MODEL_NAME", "MODEL_NAME", "MODEL")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    assert an_agent_without_a_model().model.model == "gpt-4.1-mini"
    for name in names:
        # Each outranks those before.
        monkeypatch.setenv(name, f"openai/{name}")
        assert an_agent_without_a_model().model.model == f"openai/{name}"


def an_agent_without_a_model() -> Agent:
    return Agent(role="r", goal="g", backstory="b")


def test_a_model_may_be_given_by_its_name() -> None:
    agent = Agent(role="r", goal="g", backstory="b", llm="rxflow/demo")
    assert "terns" in a_crew(a_task(agent, "Write about terns")).kickoff().raw
