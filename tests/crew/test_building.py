"""What cannot work is refused when it is built, with words that say where and what."""

import copy
import re
from collections.abc import Awaitable, Callable
from operator import methodcaller
from typing import Any, TypeVar

import pytest
from pydantic import BaseModel, RootModel
from typing_extensions import TypeAliasType

from rxflow import LLM, Agent, Crew, Process, Task
from rxflow.tools import BaseTool, tool
from rxflow.types.events import TaskFinished
from rxflow.types.results import TaskOutput
from tests.scripted import Scripted
from tests.team import a_crew, a_task, an_agent, played, solo

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
        ValueError, match=r"Task 'Early' has a context dependency on a future task 'Later', which is not allowed\. Put"
    ):
        a_crew(a_task(agent, "Early", context=[later]), later)


def test_a_context_from_a_neighbour_that_runs_at_the_same_time_is_refused() -> None:
    agent = an_agent(MODEL)
    one = a_task(agent, "One", async_execution=True)
    with pytest.raises(ValueError, match=r"cannot include other sequential .* 'One' runs at the same time"):
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


class Place(BaseModel):
    name: str


class Wrapped(RootModel[Place]):
    pass


class WrappedTwice(RootModel[Wrapped]):
    pass


class Folder(BaseModel):
    """Its schema is a reference, as is that of any model that contains itself."""

    name: str
    folders: "list[Folder]" = []


@pytest.mark.parametrize("kind", [Wrapped, WrappedTwice, Folder])
def test_a_model_whose_schema_refers_to_that_of_an_object_is_one_of_an_object(kind: type[BaseModel]) -> None:
    model = Scripted('{"name": "Bern"}')
    result = solo(model, output_json=kind).kickoff()
    assert result["name"] == "Bern"
    sent = model.requests[0].hints["response_format"]["json_schema"]["schema"]
    assert sent["type"] == "object"
    assert "$ref" not in sent


@pytest.mark.parametrize("kind", [RootModel[list[Place]], RootModel[str]])
def test_output_json_is_refused_if_the_json_is_not_an_object(kind: type[BaseModel]) -> None:
    with pytest.raises(ValueError, match="is not read from a JSON object; use output_pydantic"):
        a_task(None, output_json=kind)


@pytest.mark.parametrize("name", ["agents", "tasks", "context", "tools"])
def test_one_where_a_list_belongs_is_refused(name: str) -> None:
    agent = an_agent(MODEL)
    task = a_task(agent)
    wrong = {"agents": agent, "tasks": task, "context": task, "tools": search}[name]
    build: Any = Crew if name in ("agents", "tasks") else a_task
    given: dict[str, Any] = {"agents": [agent], "tasks": [task]} if name in ("agents", "tasks") else {"agent": agent}
    given[name] = wrong
    with pytest.raises(ValueError, match=rf"\({name}=…\) takes a list; write {name}=\[…\], also for one "):
        build(**given)


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


@pytest.mark.parametrize("given", [{}, {"llm": None}])
def test_it_is_an_llm_of_the_agent_s_own_that_can_be_changed(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL", "openai/m")
    one, other = (Agent(role="r", goal="g", backstory="b", **given) for _ in range(2))
    assert isinstance(one.llm, LLM)
    assert isinstance(other.llm, LLM)
    assert (one.llm.model, one.llm) == ("openai/m", one.model)
    one.llm.temperature = 0.0
    assert other.llm.temperature is None
    monkeypatch.setenv("MODEL", "openai/n")
    assert one.model.model == "openai/m"
    one.llm = None
    assert one.model.model == "openai/n"


def an_agent_without_a_model() -> Agent:
    return Agent(role="r", goal="g", backstory="b")


def test_a_model_may_be_given_by_its_name() -> None:
    agent = Agent(role="r", goal="g", backstory="b", llm="rxflow/demo")
    assert "terns" in a_crew(a_task(agent, "Write about terns")).kickoff().raw


class TestToolsOfOneName:
    @pytest.mark.parametrize("where", ["agent", "task"])
    def test_they_are_refused(self, where: str) -> None:
        @tool("sea rch")
        def one(query: str) -> str:
            """Search here."""
            return query

        @tool("sea_rch")
        def other(query: str) -> str:
            """Search elsewhere."""
            return query

        agent: dict[str, Any] = {"tools": [one, other]} if where == "agent" else {}
        task: dict[str, Any] = {"tools": [one, other]} if where == "task" else {}
        with pytest.raises(ValueError, match="two different tools are called 'sea_rch'"):
            solo(MODEL, agent=agent, **task)

    def test_those_that_come_later_are_refused_before_anything_runs(self) -> None:
        @tool("search")
        def other(query: str) -> str:
            """Search elsewhere."""
            return query

        model = Scripted("Done")
        second = an_agent(model, "Second", tools=[search])
        crew = a_crew(a_task(an_agent(model)), a_task(second))
        second.tools.append(other)
        with pytest.raises(ValueError, match="two different tools are called 'search'"):
            crew.kickoff()
        assert model.requests == []

    def test_one_that_is_called_like_those_to_delegate_with_is_refused(self) -> None:
        @tool
        def delegate_work_to_coworker(task: str) -> str:
            """Delegate elsewhere."""
            return task

        boss = an_agent(MODEL, "Boss", allow_delegation=True, tools=[delegate_work_to_coworker])
        with pytest.raises(ValueError, match="two different tools are called 'delegate_work_to_coworker'"):
            Crew(agents=[boss, an_agent(MODEL)], tasks=[a_task(boss)])


class TestCoworkersOfOneRole:
    def test_they_are_refused_where_one_may_delegate_to_them(self) -> None:
        boss = an_agent(MODEL, "Boss", allow_delegation=True)
        with pytest.raises(ValueError, match="two coworkers have the role 'writer'"):
            Crew(agents=[boss, an_agent(MODEL, "Writer"), an_agent(MODEL, " writer")], tasks=[a_task(boss)])

    def test_they_are_refused_where_a_manager_delegates(self) -> None:
        with pytest.raises(ValueError, match="two coworkers have the role 'Writer'"):
            Crew(
                agents=[an_agent(MODEL), an_agent(MODEL)],
                tasks=[a_task(None)],
                process=Process.hierarchical,
                manager_llm=MODEL.llm,
            )

    def test_those_whose_roles_are_filled_alike_are_refused_before_anything_runs(self) -> None:
        model = Scripted("Never")
        boss = an_agent(model, "Boss", allow_delegation=True)
        crew = Crew(agents=[boss, an_agent(model, "{one}"), an_agent(model, "{two}")], tasks=[a_task(boss)])
        with pytest.raises(ValueError, match="two coworkers have the role 'Writer'"):
            crew.kickoff({"one": "Writer", "two": "Writer"})
        assert model.requests == []

    def test_they_are_fine_where_nobody_delegates(self) -> None:
        assert a_crew(a_task(an_agent(MODEL)), a_task(an_agent(MODEL))).kickoff().raw == "Done"


@pytest.mark.parametrize("what", ["agent", "task"])
def test_a_plain_function_among_the_tools_is_refused_with_what_to_do(what: str) -> None:
    def fetch(url: str) -> str:
        """Fetch."""
        return url

    agent: dict[str, Any] = {"tools": [fetch]} if what == "agent" else {}
    task: dict[str, Any] = {"tools": [fetch]} if what == "task" else {}
    with pytest.raises(TypeError, match="fetch is a function, not a tool; put @tool on it"):
        solo(MODEL, agent=agent, **task)


def test_a_class_among_the_tools_is_refused_with_what_to_do() -> None:
    class Fetch(BaseTool):
        name: str = "fetch"
        description: str = "Fetch."

        def _run(self, url: str) -> str:
            return url

    tools: Any = [Fetch]
    with pytest.raises(TypeError, match=r"Fetch is a class, not a tool; give an object of it, Fetch\(…\)"):
        an_agent(MODEL, tools=tools)


@pytest.mark.parametrize("wrong", [42, None, Task, MODEL], ids=["a number", "none", "the class", "a model"])
@pytest.mark.parametrize("way", ["observe", "events"])
def test_an_agent_that_is_to_work_on_something_else_than_a_task_says_so(way: str, wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"an agent works on a Task.*; got {re.escape(repr(wrong))}"):
        getattr(an_agent(MODEL), way)(wrong)


def test_an_empty_name_of_a_model_is_refused() -> None:
    with pytest.raises(ValueError, match="the model's name is empty"):
        Agent(role="r", goal="g", backstory="b", llm=" ")
    with pytest.raises(ValueError, match="the model's name is empty"):
        Crew(tasks=[a_task(None)], process=Process.hierarchical, manager_llm="")


class TestAChangedAgent:
    def test_it_asks_the_model_that_it_has_now(self) -> None:
        agent = an_agent(Scripted("One"))
        crew = a_crew(a_task(agent))
        assert crew.kickoff().raw == "One"
        agent.llm = Scripted("Two").llm
        assert crew.kickoff().raw == "Two"

    def test_a_copy_with_another_model_asks_that(self) -> None:
        agent = an_agent(Scripted("One"))
        assert a_crew(a_task(agent)).kickoff().raw == "One"
        assert a_crew(a_task(agent.model_copy(update={"llm": Scripted("Two").llm}))).kickoff().raw == "Two"

    def test_a_model_that_is_named_is_made_once(self) -> None:
        agent = Agent(role="r", goal="g", backstory="b", llm="rxflow/demo")
        assert agent.model is agent.model
        agent.llm = "openai/gpt-4o"
        assert agent.model.model == "openai/gpt-4o"


class TestToolsOfATask:
    """Those of its agent, unless it is given others."""

    def test_they_are_a_list_of_its_agent_s(self) -> None:
        task = a_task(an_agent(MODEL, tools=[search]))
        assert task.tools == [search]
        assert (task.own_tools, a_task(None).tools) == ((), [])

    @pytest.mark.parametrize("copied", [False, True])
    def test_one_that_is_added_comes_beside_them_for_this_task_alone(self, copied: bool) -> None:
        agent = an_agent(MODEL, tools=[search])
        task = a_task(agent).copy() if copied else a_task(agent)
        task.tools.append(other_search())
        assert [each.name for each in task.assign(agent, None).tools] == ["search", "other"]
        assert agent.tools == [search]

    def test_those_that_the_agent_gets_later_count(self) -> None:
        agent = an_agent(MODEL, tools=[search])
        task = a_task(agent)
        agent.tools = [other_search()]
        assert [each.name for each in task.assign(agent, None).tools] == ["other"]

    def test_whoever_else_does_it_uses_their_own(self) -> None:
        task = a_task(an_agent(MODEL, tools=[search]))
        assert task.assign(an_agent(MODEL), None).tools == []

    def test_given_ones_are_for_whoever_does_it(self) -> None:
        task = a_task(an_agent(MODEL), tools=[search])
        assert task.assign(an_agent(MODEL, tools=[other_search()]), None).tools == [search]


def other_search() -> BaseTool:
    return search.model_copy(update={"name": "other"})


class TestCopies:
    """Are others: what keeps things by id keeps them apart."""

    @pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, methodcaller("copy"), methodcaller("model_copy")])
    def test_agents_tasks_and_crews_have_ids_of_their_own(self, way: Callable[[Any], Any]) -> None:
        agent = an_agent(LLM("rxflow/demo"))
        task = a_task(agent, name="writing")
        everything: list[Agent | Task | Crew] = [agent, task, a_crew(task, name="team")]
        for one in everything:
            other = way(one)
            assert type(other) is type(one)
            assert other.id != one.id
            assert other.model_dump(include={"role", "name"}) == one.model_dump(include={"role", "name"})

    def test_an_id_may_be_given(self) -> None:
        assert an_agent(MODEL).model_copy(update={"id": "one"}).id == "one"

    def test_they_have_lists_of_their_own(self) -> None:
        one = an_agent(MODEL)
        one.copy().tools.append(search)
        assert one.tools == []

    def test_a_copy_of_an_agent_counts_its_own_calls(self) -> None:
        one = an_agent(MODEL, max_rpm=3)
        assert one.copy().rate is not one.rate

    def test_a_copy_of_a_task_has_not_run(self) -> None:
        crew = solo(Scripted("Done"))
        crew.kickoff()
        other = crew.tasks[0].copy()
        assert (other.output, other.retry_count) == (None, 0)
        assert crew.tasks[0].output is not None

    def test_a_copy_of_a_crew_works_with_agents_and_tasks_of_its_own(self) -> None:
        agent = an_agent(Scripted("Done"))
        first = a_task(agent, "First")
        crew = a_crew(first, a_task(agent, "Second", context=[first]), a_task(agent, "Third", context=None))
        other = crew.copy()
        assert not {each.id for each in [*crew.agents, *crew.tasks]} & {
            each.id for each in [*other.agents, *other.tasks]
        }
        assert other.tasks[1].context == [other.tasks[0]]
        assert all(task.agent is other.agents[0] for task in other.tasks)
        assert not other.tasks[2].takes_all_context
        assert other.kickoff().raw == "Done"
        assert all(task.output is None for task in crew.tasks)

    def test_managers_of_two_crews_are_two_agents(self) -> None:
        def seen(crew: Crew) -> str:
            return played(crew).one(TaskFinished).origin.agent_id

        one, two = (
            Crew(
                agents=[an_agent(MODEL)],
                tasks=[a_task(None)],
                process=Process.hierarchical,
                manager_llm=Scripted("Done").llm,
            )
            for _ in range(2)
        )
        assert seen(one) != seen(two)


def test_a_models_name_becomes_an_llm_when_it_is_given() -> None:
    agent = Agent(role="R", goal="g", backstory="b", llm="openai/m")
    assert isinstance(agent.llm, LLM)
    assert (agent.llm.model, agent.model) == ("openai/m", agent.llm)
    assert agent.llm.temperature is None


A = TypeVar("A")
Accepted = TypeAliasType("Accepted", bool)
Verdict = TypeAliasType("Verdict", tuple[bool, str])
Judged = TypeAliasType("Judged", tuple[Accepted, A], type_params=(A,))
Answered = TypeAliasType("Answered", tuple[A, str], type_params=(A,))
Misjudged = TypeAliasType("Misjudged", tuple[str, bool])


def annotated_with(returned: object) -> Callable[[TaskOutput], Any]:
    def judge(output: TaskOutput) -> Any:
        return True, output.raw

    judge.__annotations__["return"] = returned
    return judge


@pytest.mark.parametrize("alias", [Verdict, Judged[str], Answered[bool], Verdict | None, Awaitable[Verdict]])
def test_the_type_of_a_guardrail_may_be_an_alias(alias: object) -> None:
    assert solo(Scripted("Terns"), guardrail=annotated_with(alias)).kickoff().raw == "Terns"


def test_a_guardrail_whose_alias_is_not_a_pair_that_begins_with_a_bool_is_refused() -> None:
    with pytest.raises(ValueError, match="its annotation says Misjudged"):
        solo(MODEL, guardrail=annotated_with(Misjudged))
