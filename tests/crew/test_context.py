"""What a task is told of the answers before it, and in which order tasks run."""

import asyncio
import threading

import pytest

from rxflow.llm.source import Request
from rxflow.types.events import TaskFinished, TaskStarted
from tests.gate import PATIENCE_S
from tests.scripted import Scripted
from tests.signals import outcome
from tests.team import a_crew, a_task, an_agent, played, prompt, solo


def known(model: Scripted, number: int = 0) -> str:
    """What the model was told to be known so far."""
    return prompt(model, number).partition("What is known so far:\n")[2]


def test_without_a_context_a_task_is_told_all_earlier_answers() -> None:
    one, two, three = Scripted("First answer"), Scripted("Second answer"), Scripted("Third answer")
    crew = a_crew(*(a_task(an_agent(model)) for model in (one, two, three)))
    assert crew.kickoff().raw == "Third answer"
    assert known(one) == ""
    assert known(two) == "First answer"
    assert known(three) == "First answer\n\n----------\n\nSecond answer"


@pytest.mark.parametrize("context", [None, []])
def test_an_empty_context_tells_nothing(context: list[object] | None) -> None:
    one, two = Scripted("First answer"), Scripted("Second answer")
    a_crew(a_task(an_agent(one)), a_task(an_agent(two), context=context)).kickoff()
    assert known(two) == ""


def test_a_context_tells_the_answers_of_its_tasks_in_its_order() -> None:
    models = [Scripted(f"Answer {number}") for number in range(4)]
    first, second, third = (a_task(an_agent(model)) for model in models[:3])
    last = a_task(an_agent(models[3]), context=[third, first])
    a_crew(first, second, third, last).kickoff()
    assert known(models[3]) == "Answer 2\n\n----------\n\nAnswer 0"


def test_a_task_that_a_crew_does_twice_has_two_answers() -> None:
    turns = ["Draft", "Criticism", "Better draft"]
    model = Scripted(*turns, *turns)
    agent = an_agent(model)
    write = a_task(agent)
    crew = a_crew(write, a_task(agent, "Judge", context=[write]), write)
    for each in (crew, crew.copy()):
        output = each.kickoff()
        assert [task.raw for task in output.tasks_output] == turns
        assert output.raw == "Better draft"
        assert known(model, -2) == "Draft"
        assert known(model, -1) == "Draft\n\n----------\n\nCriticism"


def test_a_context_may_name_the_newest_answer_of_a_task_done_twice() -> None:
    model = Scripted("Draft", "Better draft", "Done")
    agent = an_agent(model)
    write = a_task(agent)
    a_crew(write, write, a_task(agent, context=[write])).kickoff()
    assert known(model, -1) == "Better draft"


def test_a_context_may_name_a_task_of_another_crew_that_has_run() -> None:
    model = Scripted("Done")
    elsewhere = a_task(an_agent(Scripted("Findings")), "Elsewhere")
    crew = a_crew(a_task(an_agent(model), context=[elsewhere]))
    a_crew(elsewhere).kickoff()
    for each in (crew, crew.copy()):
        each.kickoff()
        assert known(model, -1) == "Findings"


def test_a_context_from_a_task_that_never_ran_is_refused_before_any_task() -> None:
    model = Scripted("Never")
    agent = an_agent(model)
    crew = a_crew(a_task(agent), a_task(agent, context=[a_task(agent, "Elsewhere")]))
    with pytest.raises(ValueError, match="dependency on 'Elsewhere', which is not in this crew, and has no answer yet"):
        crew.kickoff()
    assert model.requests == []


def test_neighbours_with_async_execution_run_at_once_and_what_follows_waits_for_both() -> None:
    meeting = threading.Barrier(2, timeout=PATIENCE_S)

    async def meet(_: Request) -> None:
        await asyncio.to_thread(meeting.wait)

    one, two, last = Scripted("One", before=meet), Scripted("Two", before=meet), Scripted("Last")
    crew = a_crew(
        a_task(an_agent(one), async_execution=True),
        a_task(an_agent(two), async_execution=True),
        a_task(an_agent(last)),
    )
    result = crew.kickoff()
    assert [each.raw for each in result.tasks_output] == ["One", "Two", "Last"]
    assert known(one) == known(two) == ""
    assert known(last) == "One\n\n----------\n\nTwo"


def test_the_answers_of_neighbours_stand_in_the_order_of_the_tasks() -> None:
    second_is_done = asyncio.Event()

    async def wait(_: Request) -> None:
        await second_is_done.wait()

    async def go(_: Request) -> None:
        second_is_done.set()

    crew = a_crew(
        a_task(an_agent(Scripted("One", before=wait)), "one", async_execution=True),
        a_task(an_agent(Scripted("Two", before=go)), "two", async_execution=True),
        a_task(an_agent(Scripted("Last")), "last"),
    )
    seen = played(crew)
    assert [each.result.raw for each in seen.of(TaskFinished)] == ["Two", "One", "Last"]
    assert [each.raw for each in crew.kickoff().tasks_output] == ["One", "Two", "Last"]


def test_a_trailing_async_task_gives_the_answer_and_knows_those_before_it() -> None:
    one, two = Scripted("One"), Scripted("Two")
    crew = a_crew(a_task(an_agent(one)), a_task(an_agent(two), async_execution=True))
    assert crew.kickoff().raw == "Two"
    assert known(two) == "One"


def test_a_failing_task_ends_the_crew_and_no_later_one_starts() -> None:
    never = Scripted("Never")
    crew = a_crew(a_task(an_agent(Scripted(LookupError("lost")))), a_task(an_agent(never)))
    seen = outcome(crew.events())
    assert isinstance(seen.error, LookupError)
    assert len(seen.of(TaskStarted)) == 1
    assert never.requests == []


def test_a_crew_can_run_again_and_each_run_begins_anew() -> None:
    one, two = Scripted("One"), Scripted("Two")
    crew = a_crew(a_task(an_agent(one)), a_task(an_agent(two)))
    assert crew.kickoff().raw == crew.kickoff().raw == "Two"
    assert prompt(two, 0) == prompt(two, 1)


def test_two_runs_of_one_crew_at_once_do_not_mix() -> None:
    meeting = threading.Barrier(2, timeout=PATIENCE_S)

    async def meet(_: Request) -> None:
        await asyncio.to_thread(meeting.wait)

    model = Scripted("Done", before=meet)
    crew = solo(model, description="Write about {topic}")

    async def both() -> list[str]:
        results = await asyncio.gather(crew.akickoff({"topic": "terns"}), crew.akickoff({"topic": "gulls"}))
        return [result.tasks_output[0].description for result in results]

    assert asyncio.run(both()) == ["Write about terns", "Write about gulls"]


def test_the_agent_is_told_who_it_is_and_what_is_expected() -> None:
    model = Scripted("Done")
    solo(model, description="Write about terns", markdown=True).kickoff()
    system, user = model.conversations[0]
    assert system == {"role": "system", "content": "You are Writer. Has written a lot\nYour goal: Write well"}
    assert user["content"].startswith("Write about terns\n\nExpected of your answer: A text")
    assert (
        "Your final answer MUST be formatted in Markdown syntax.\nFollow these guidelines:\n- Use # for headers"
        in (user["content"])
    )
