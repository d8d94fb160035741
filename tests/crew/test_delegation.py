"""Agents hand work and questions to their coworkers, and a manager hands out all the tasks of a hierarchical crew."""

from typing import Any

import pytest

from rxflow import Crew, Process
from rxflow.tools import tool
from rxflow.types.chunks import StreamChunk, StreamChunkType
from rxflow.types.events import CrewFinished, LLMFinished, TaskFinished, TaskRejected, ToolFailed, ToolFinished
from rxflow.types.results import TaskOutput
from tests.scripted import Scripted, calls
from tests.team import a_task, an_agent, played, prompt

ASKED = {"question": "How many terns?", "context": "By the sea", "coworker": "Counter"}
GIVEN = {"task": "Count the terns", "context": "By the sea", "coworker": "  counter "}


def offered(model: Scripted) -> list[str]:
    return [each["function"]["name"] for each in model.requests[0].tools]


def pair(boss: Scripted, helper: Scripted, **given: Any) -> Crew:
    agents = [an_agent(boss, "Boss", allow_delegation=True), an_agent(helper, "Counter", **given)]
    return Crew(agents=agents, tasks=[a_task(agents[0])])


@pytest.mark.parametrize(
    ("name", "arguments", "asked"),
    [
        ("ask_question_to_coworker", ASKED, "How many terns?"),
        ("delegate_work_to_coworker", GIVEN, "Count the terns"),
    ],
)
def test_a_coworker_is_asked_and_its_answer_comes_back(name: str, arguments: dict[str, Any], asked: str) -> None:
    boss, helper = Scripted(calls((name, arguments)), "There are 42."), Scripted("42 terns")
    seen = played(pair(boss, helper))
    assert seen.one(ToolFinished).result == "42 terns"
    assert prompt(helper).startswith(asked)
    assert "By the sea" in prompt(helper)
    assert seen.one(CrewFinished).result.raw == "There are 42."
    assert [each.raw for each in seen.one(CrewFinished).result.tasks_output] == ["There are 42."]


def test_what_the_coworker_says_is_in_the_stream_under_its_own_name() -> None:
    boss, helper = Scripted(calls(("ask_question_to_coworker", ASKED)), "There are 42."), Scripted("42 terns")
    seen = played(pair(boss, helper))
    told = [
        (each.content, each.agent_role, each.task_name)
        for each in seen.of(StreamChunk)
        if each.chunk_type is StreamChunkType.TEXT
    ]
    assert told == [
        ("42", "Counter", "How many terns?"),
        (" terns", "Counter", "How many terns?"),
        ("There", "Boss", "Write"),
        (" are", "Boss", "Write"),
        (" 42.", "Boss", "Write"),
    ]


def test_the_calls_of_a_coworker_count_for_the_crew() -> None:
    boss, helper = Scripted(calls(("ask_question_to_coworker", ASKED)), "There are 42."), Scripted("42 terns")
    seen = played(pair(boss, helper))
    assert seen.one(CrewFinished).result.token_usage.successful_requests == 3


def test_a_coworker_uses_its_own_tools() -> None:
    @tool
    def count() -> int:
        """Count."""
        return 42

    helper = Scripted(calls(("count", {})), "42 terns")
    seen = played(pair(Scripted(calls(("ask_question_to_coworker", ASKED)), "Done."), helper, tools=[count]))
    assert offered(helper) == ["count"]
    assert [each.result for each in seen.of(ToolFinished)] == [42, "42 terns"]


def test_a_coworker_that_is_not_there_is_told_to_the_model_with_those_that_are() -> None:
    boss = Scripted(calls(("ask_question_to_coworker", ASKED | {"coworker": "Cook"})), "Done.")
    seen = played(pair(boss, Scripted("never asked")))
    assert "there is no coworker 'Cook'; the coworkers are: Counter" in str(seen.one(ToolFailed).error)
    assert "the coworkers are: Counter" in boss.conversations[1][-1]["content"]


def test_a_coworker_that_fails_is_told_to_the_model() -> None:
    boss = Scripted(calls(("ask_question_to_coworker", ASKED)), "Without it.")
    seen = played(pair(boss, Scripted(LookupError("lost"))))
    assert seen.error is None
    assert "raised LookupError: lost" in boss.conversations[1][-1]["content"]


def test_only_who_may_delegate_and_has_coworkers_is_offered_to() -> None:
    boss, helper = Scripted("Done"), Scripted("Done")
    crew = pair(boss, helper)
    crew.tasks.append(a_task(crew.agents[1]))
    crew.kickoff()
    assert offered(boss) == ["delegate_work_to_coworker", "ask_question_to_coworker"]
    assert offered(helper) == []
    alone = Scripted("Done")
    agent = an_agent(alone, allow_delegation=True)
    Crew(agents=[agent], tasks=[a_task(agent)]).kickoff()
    assert offered(alone) == []


class TestHierarchicalCrews:
    def test_the_manager_hands_the_tasks_out(self) -> None:
        manager = Scripted(calls(("delegate_work_to_coworker", GIVEN)), "There are 42.")
        helper = Scripted("42 terns")
        crew = Crew(
            agents=[an_agent(helper, "Counter")],
            tasks=[a_task(None, "Find out how many terns there are")],
            process=Process.hierarchical,
            manager_llm=manager.llm,
        )
        seen = played(crew)
        assert seen.one(CrewFinished).result.raw == "There are 42."
        assert {each.agent_role for each in seen.of(StreamChunk)} == {"Crew Manager", "Counter"}
        assert "Counter" in str(manager.requests[0].tools)

    def test_a_manager_of_ones_own_is_asked(self) -> None:
        manager = Scripted("I did it myself.")
        crew = Crew(
            agents=[an_agent(Scripted("never asked"), "Counter")],
            tasks=[a_task(None), a_task(None)],
            process=Process.hierarchical,
            manager_agent=an_agent(manager, "Chief of {place}"),
        )
        seen = played(crew, {"place": "the coast"})
        assert {each.agent_role for each in seen.of(StreamChunk)} == {"Chief of the coast"}
        assert [each.origin.task_index for each in seen.of(TaskFinished)] == [0, 1]
        assert offered(manager) == ["delegate_work_to_coworker", "ask_question_to_coworker"]

    def test_a_missing_input_of_a_coworker_is_named_before_anything_runs(self) -> None:
        manager = Scripted("Never")
        crew = Crew(
            agents=[an_agent(Scripted("Never"), "Counter of {what}")],
            tasks=[a_task(None)],
            process=Process.hierarchical,
            manager_llm=manager.llm,
        )
        with pytest.raises(ValueError, match="role needs the input 'what'"):
            crew.kickoff({})
        assert manager.requests == []

    @pytest.mark.parametrize("seeing", [False, True], ids=["own", "multimodal"])
    def test_two_tools_of_one_name_of_a_coworker_are_refused_when_the_crew_is_built(self, seeing: bool) -> None:
        def count() -> int:
            """Count."""
            return 42

        name = "add_image_to_content" if seeing else "count"
        helper = an_agent(
            Scripted("Never"),
            "Counter",
            tools=[tool(name)(count)] if seeing else [tool(name)(count), tool(name)(count)],
            multimodal=seeing,
        )
        with pytest.raises(ValueError, match=f"two different tools are called '{name}'"):
            Crew(
                agents=[helper],
                tasks=[a_task(None)],
                process=Process.hierarchical,
                manager_agent=an_agent(Scripted("Never"), "Boss"),
            )


def test_a_missing_input_of_a_coworker_is_named_before_the_first_task_runs() -> None:
    model = Scripted("Done")
    first, second = an_agent(model), an_agent(model, "Boss", allow_delegation=True)
    helper = an_agent(model, "Counter of {what}")
    crew = Crew(agents=[first, second, helper], tasks=[a_task(first), a_task(second)])
    with pytest.raises(ValueError, match="role needs the input 'what'"):
        crew.kickoff({})
    assert model.requests == []


def test_the_guardrail_of_a_coworker_judges_what_it_gives_back() -> None:
    def counted(output: TaskOutput) -> tuple[bool, Any]:
        return (True, output.raw) if "42" in output.raw else (False, "count them")

    boss, helper = Scripted(calls(("ask_question_to_coworker", ASKED)), "Done."), Scripted("Many", "42 terns")
    seen = played(pair(boss, helper, guardrail=counted))
    assert seen.one(ToolFinished).result == "42 terns"
    assert seen.one(TaskRejected).reason == "count them"


def test_a_coworker_tries_again_as_often_as_its_guardrail_allows() -> None:
    def refuse(output: TaskOutput) -> tuple[bool, Any]:
        return False, "count them"

    boss, helper = Scripted(calls(("ask_question_to_coworker", ASKED)), "Done."), Scripted("Many", "Many", "Many")
    seen = played(pair(boss, helper, guardrail=refuse, guardrail_max_retries=1))
    assert "failed its guardrail after 1 retries" in str(seen.one(ToolFailed).error)
    assert len(helper.requests) == 2


def test_the_steps_of_a_coworker_are_steps_of_the_crew() -> None:
    steps: list[Any] = []
    boss, helper = Scripted(calls(("ask_question_to_coworker", ASKED)), "Done."), Scripted("42 terns")
    crew = pair(boss, helper)
    crew.step_callback = steps.append
    crew.kickoff()
    assert [step.text for step in steps if isinstance(step, LLMFinished)] == ["", "42 terns", "Done."]
