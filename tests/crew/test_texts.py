"""The texts of agents and tasks as a program sees them: filled in place, named by a key, put into templates."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rxflow import Agent, Crew, Process, Task
from rxflow.tools import tool
from tests.scripted import Scripted, calls
from tests.team import a_crew, a_task, an_agent

WHO: dict[str, Any] = {"role": "{topic} writer", "goal": "Know {topic}", "backstory": "Reads {paper}"}
WHAT: dict[str, Any] = {"description": "Write of {topic}", "expected_output": "{number} lines"}


class TestInPlace:
    def test_an_agent_s_texts_are_filled_and_filled_anew(self) -> None:
        agent = Agent(**WHO)
        for topic in ("tea", "{paper}"):
            agent.interpolate_inputs({"topic": topic, "paper": "news"})
            assert (agent.role, agent.goal, agent.backstory) == (f"{topic} writer", f"Know {topic}", "Reads news")

    def test_so_are_a_task_s_with_the_output_file(self) -> None:
        task = Task(**WHAT, output_file="out/{topic}.txt")
        for topic in ("tea", "rice"):
            task.interpolate_inputs_and_add_conversation_history({"topic": topic, "number": 3})
            assert (task.description, task.expected_output) == (f"Write of {topic}", "3 lines")
            assert task.output_file == str(Path("out", f"{topic}.txt"))

    def test_without_inputs_they_stay(self) -> None:
        agent = Agent(**WHO)
        agent.interpolate_inputs({})
        assert agent.role == "{topic} writer"

    def test_a_text_that_was_assigned_since_then_is_filled_next(self) -> None:
        agent, task = Agent(**WHO), Task(**WHAT, output_file="{topic}.txt")
        for topic in ("tea", "rice"):
            agent.interpolate_inputs({"topic": topic, "paper": "news"})
            task.interpolate_inputs({"topic": topic, "number": 3})
            agent.role, task.description, task.output_file = "{topic} cook", "Cook {topic}", "{topic}.md"
        copied = agent.copy()
        copied.goal = "Taste {topic}"
        for each in agent, copied:
            each.interpolate_inputs({"topic": "oats", "paper": "news"})
        task.interpolate_inputs({"topic": "oats", "number": 3})
        assert (agent.role, agent.goal, copied.goal) == ("oats cook", "Know oats", "Taste oats")
        assert (task.description, task.output_file) == ("Cook oats", "oats.md")
        assert agent.key == Agent(config=WHO | {"role": "{topic} cook"}).key
        assert task.key == Task(config=WHAT | {"description": "Cook {topic}"}).key
        task.output_file = None
        task.interpolate_inputs({"topic": "oats", "number": 3})
        assert task.output_file is None

    def test_nothing_is_filled_if_an_input_is_missing(self) -> None:
        agent, task = Agent(**WHO), Task(**WHAT, output_file="{topic}.txt")
        with pytest.raises(ValueError, match=r"^Agent backstory needs the input 'paper'"):
            agent.interpolate_inputs({"topic": "tea"})
        with pytest.raises(ValueError, match=r"^Task expected_output needs the input 'number'"):
            task.interpolate_inputs({"topic": "tea"})
        with pytest.raises(ValueError, match=r"^Task output_file: the input 'topic' would lead out of its folder"):
            task.interpolate_inputs({"topic": "../tea", "number": 3})
        assert (agent.role, task.description) == (WHO["role"], WHAT["description"])

    def test_copies_are_filled_by_themselves(self) -> None:
        agent = Agent(**WHO)
        agent.interpolate_inputs({"topic": "tea", "paper": "news"})
        copied = agent.copy()
        copied.interpolate_inputs({"topic": "rice", "paper": "news"})
        assert (agent.role, copied.role) == ("tea writer", "rice writer")

    def test_a_run_fills_them_without_changing_the_object(self) -> None:
        model = Scripted("Done")
        task = Task(**WHAT, agent=an_agent(model, role="{topic} writer"))
        a_crew(task).kickoff({"topic": "tea", "number": 3})
        assert "Write of tea" in model.requests[0].last_user_text
        assert (task.description, task.agent and task.agent.role) == ("Write of {topic}", "{topic} writer")


class TestKeys:
    def test_equal_texts_have_equal_keys_and_others_have_others(self) -> None:
        assert Agent(**WHO).key == Agent(**WHO, max_iter=3).key != Agent(config=WHO | {"goal": "Sleep"}).key
        assert Task(**WHAT).key == Task(**WHAT, name="a").key != Task(config=WHAT | {"description": "Read"}).key
        one, same, other = (a_crew(a_task(an_agent(Scripted("Done")), what)) for what in ("a", "a", "b"))
        assert one.key == same.key == one.copy().key != other.key

    def test_inputs_that_are_filled_in_do_not_change_them(self) -> None:
        agent, task = Agent(**WHO), Task(**WHAT)
        before = agent.key, task.key
        agent.interpolate_inputs({"topic": "tea", "paper": "news"})
        task.interpolate_inputs({"topic": "tea", "number": 3})
        assert (agent.key, task.key) == before

    def test_they_are_the_same_in_another_process(self) -> None:
        code = "from rxflow import Task; print(Task(description='d', expected_output='e').key)"
        elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        assert elsewhere.stdout.strip() == Task(description="d", expected_output="e").key


class TestTemplates:
    def test_they_stand_around_what_the_model_is_told(self) -> None:
        model = Scripted("Done")
        agent = an_agent(
            model, system_template="<<{{ .System }}>> {goal} {other}", prompt_template="{role}: [{{ .Prompt }}]"
        )
        agent.kickoff("Tell {goal} of {{ .Prompt }}")
        system, question = model.requests[0].messages
        assert system["content"].startswith("<<You are Writer.")
        assert system["content"].endswith(">> Write well {other}")
        assert question["content"] == "Writer: [Tell {goal} of {{ .Prompt }}]"  # what is put in is not filled in

    @pytest.mark.parametrize("given", [{"system_template": "Be kind."}, {"prompt_template": "Be kind."}])
    def test_each_works_alone_and_may_leave_the_text_out(self, given: dict[str, Any]) -> None:
        model = Scripted("Done")
        an_agent(model, **given).kickoff("Go")
        contents = [message["content"] for message in model.requests[0].messages]
        assert contents[0 if "system_template" in given else 1] == "Be kind."

    def test_in_a_task_of_a_crew_the_inputs_are_in_it(self) -> None:
        model = Scripted("Done")
        agent = an_agent(model, role="{topic} writer", prompt_template="{role} {{ .Prompt }}")
        a_crew(a_task(agent, "Write of {topic}")).kickoff({"topic": "tea"})
        assert model.requests[0].last_user_text.startswith("tea writer Write of tea")

    def test_without_a_system_message_both_stand_in_the_first_one(self) -> None:
        model = Scripted("Done")
        templates = {"system_template": "S {{ .System }}", "prompt_template": "P {{ .Prompt }}"}
        an_agent(model, use_system_prompt=False, **templates).kickoff("Go")
        (message,) = model.requests[0].messages
        assert message["content"].startswith("S You are Writer.")
        assert message["content"].endswith("\n\nP Go")


class TestCopies:
    def test_a_task_keeps_what_it_refers_to_unless_others_are_given(self) -> None:
        writer, other = an_agent(Scripted("Done")), an_agent(Scripted("Done"))
        first = a_task(writer, "First")
        second = a_task(writer, "Second", context=[first])
        plain = second.copy()
        assert (plain.agent, plain.context, plain.id != second.id) == (writer, [first], True)
        moved = second.copy([an_agent(Scripted("Done"), role="Cook"), other], {first.key: (new := first.copy())})
        assert moved.agent is other
        assert moved.context is not None
        assert moved.context[0] is new
        assert second.context == [first]

    def test_no_context_stays_none_and_all_context_stays_all(self) -> None:
        assert Task(**WHAT, context=None).copy(agents=[], task_mapping={}).takes_all_context is False
        assert Task(**WHAT).copy().takes_all_context is True


def test_a_task_shows_what_its_model_is_asked() -> None:
    model = Scripted("Done")
    task = a_task(an_agent(model), "Write of {topic}", markdown=True)
    task.execute_sync()
    assert task.prompt() == model.requests[0].last_user_text
    with pytest.raises(ValueError, match="has no agent assigned"):
        a_task(None).prompt()


def test_after_a_run_it_shows_what_that_was_asked() -> None:
    task = a_task(an_agent(Scripted("Done")), "Write of {topic}")
    a_crew(task).kickoff({"topic": "tea"})
    assert task.prompt().startswith("Write of tea")
    assert task.copy().prompt().startswith("Write of {topic}")


class TestTriggerPayload:
    """What has started a crew is told to its first task, and to those that ask for it."""

    @pytest.mark.parametrize(
        ("first", "second", "shown"),
        [
            (None, None, [True, False]),
            (False, None, [False, False]),
            (None, True, [True, True]),
            (False, True, [False, True]),
        ],
    )
    def test_the_first_task_is_told_unless_it_says_no(
        self, first: bool | None, second: bool | None, shown: list[bool]
    ) -> None:
        models = [Scripted("One"), Scripted("Two")]
        tasks = [
            a_task(an_agent(model), f"Do {allow}", allow_crewai_trigger_context=allow, context=None)
            for model, allow in zip(models, (first, second), strict=True)
        ]
        a_crew(*tasks).kickoff({"crewai_trigger_payload": "mail 7"})
        asked = [model.requests[0].last_user_text for model in models]
        assert ["\n\nTrigger Payload: mail 7\n" in each for each in asked] == shown

    @pytest.mark.parametrize("inputs", [None, {}, {"topic": "tea"}, {"crewai_trigger_payload": None}])
    def test_without_one_nothing_is(self, inputs: dict[str, Any] | None) -> None:
        model = Scripted("Done")
        a_crew(a_task(an_agent(model), allow_crewai_trigger_context=True)).kickoff(inputs)
        assert "Trigger Payload" not in model.requests[0].last_user_text

    @pytest.mark.parametrize("allow", [None, True])
    def test_a_manager_is_told_only_if_the_task_asks_for_it(self, allow: bool | None) -> None:
        manager = Scripted("Done")
        task = a_task(an_agent(Scripted("Idle")), allow_crewai_trigger_context=allow)
        a_crew(task, process=Process.hierarchical, manager_llm=manager.llm).kickoff({"crewai_trigger_payload": "mail"})
        assert ("Trigger Payload: mail" in manager.requests[0].last_user_text) is bool(allow)

    def test_a_description_that_shows_it_itself_is_left_alone(self) -> None:
        model = Scripted("Done")
        a_crew(a_task(an_agent(model), "Read {crewai_trigger_payload}")).kickoff({"crewai_trigger_payload": "mail 7"})
        assert model.requests[0].last_user_text.count("mail 7") == 1


class TestTimes:
    def test_a_task_knows_when_its_last_run_began_and_gave_its_answer(self) -> None:
        task = a_task(an_agent(Scripted("Done")))
        assert (task.start_time, task.end_time, task.execution_duration) == (None, None, None)
        task.execute_sync()
        assert task.start_time is not None
        assert task.end_time is not None
        assert task.execution_duration == (task.end_time - task.start_time).total_seconds() >= 0
        assert task.copy().execution_duration is None

    def test_one_that_fails_has_no_end(self) -> None:
        task = a_task(an_agent(Scripted("Done", LookupError("broken"))))
        task.execute_sync()
        with pytest.raises(LookupError):
            task.execute_sync()
        assert task.start_time is not None
        assert (task.end_time, task.execution_duration) == (None, None)


class TestAlone:
    """A task without a crew."""

    def test_it_is_carried_out_by_its_agent(self) -> None:
        model = Scripted("Done")
        task = a_task(an_agent(model), "Write of {topic}")
        assert task.execute_sync().raw == asyncio.run(task.aexecute_sync()).raw == "Done"
        assert "Write of {topic}" in model.requests[0].last_user_text
        assert task.output is not None
        assert task.output.agent == "Writer"

    def test_agent_context_and_tools_may_be_others(self) -> None:
        @tool
        def depth() -> str:
            """Look up how deep it is."""
            return "288"

        own, other = Scripted("Own"), Scripted(calls(("depth", {})), "Other")
        task = a_task(an_agent(own))
        given: dict[str, Any] = {"agent": an_agent(other), "context": "It rains.", "tools": [depth]}
        assert task.execute_sync(**given).raw == "Other"
        assert "It rains." in other.requests[0].last_user_text
        assert [message["content"] for message in other.requests[1].messages if message["role"] == "tool"] == ["288"]
        assert not own.requests

    def test_an_agent_gives_the_text_of_the_answer(self) -> None:
        model = Scripted("Done")
        agent = an_agent(model)
        task = a_task(None, "Write")
        assert agent.execute_task(task, context="It rains.") == asyncio.run(agent.aexecute_task(task)) == "Done"
        assert ["It rains." in request.last_user_text for request in model.requests] == [True, False]

    def test_nobody_to_do_it_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="the task 'Write' has no agent assigned; give it agent="):
            a_task(None).execute_sync()
        with pytest.raises(ValueError, match="has no agent assigned"):
            asyncio.run(a_task(None).aexecute_sync())

    def test_what_stops_it_in_a_crew_is_raised_here_too(self) -> None:
        with pytest.raises(LookupError, match="broken"):
            a_task(an_agent(Scripted(LookupError("broken")))).execute_sync()


def test_a_crew_of_filled_tasks_runs_as_they_are() -> None:
    model = Scripted("Done")
    task = Task(**WHAT, agent=an_agent(model))
    task.interpolate_inputs({"topic": "tea", "number": 3})
    assert task.agent is not None
    Crew(agents=[task.agent], tasks=[task]).kickoff({"topic": "rice"})
    assert "Write of tea" in model.requests[0].last_user_text
