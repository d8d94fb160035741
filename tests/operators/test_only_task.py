"""``only_task`` keeps what is said and done on some tasks."""

from typing import Any

import pytest

from rxflow import Crew, Task, operators as ops
from rxflow.testing import Marbles
from rxflow.types import Happened, LLMFinished, StreamChunk, TaskFinished, TaskStarted
from tests.operators.pieces import delta, said
from tests.scripted import Scripted
from tests.signals import outcome, signals_of
from tests.team import a_crew, a_task, an_agent

VALUES = {
    "a": said("a", task_name="first", task_id="1"),
    "b": said("b", task_name="second", task_id="2"),
    "x": delta("{}", task_name="first", task_id="1"),
    "o": said("o"),
    "s": "no chunk",
}


def three_tasks() -> tuple[Crew, list[Task]]:
    agent = an_agent(Scripted("one", "two", "three"))
    tasks = [a_task(agent, name="first"), a_task(agent, name="second"), a_task(agent, "Write a poem")]
    return a_crew(*tasks), tasks


def test_it_keeps_all_chunks_of_a_task_and_drops_the_rest(marbles: Marbles) -> None:
    source = marbles.cold("-a-b-x-o-s-a|", VALUES)
    marbles.expect(source.pipe(ops.only_task("first"))).to_be("-a---x-----a|", VALUES)
    marbles.expect_subscriptions(source).to_be("^-----------!")


def test_it_keeps_several_tasks(marbles: Marbles) -> None:
    source = marbles.cold("-a-b-o-|", VALUES)
    marbles.expect(source.pipe(ops.only_task("second", "first"))).to_be("-a-b---|", VALUES)


def test_each_subscription_sees_all(marbles: Marbles) -> None:
    kept = marbles.cold("-a-b|", VALUES).pipe(ops.only_task("first"))
    marbles.expect(kept).to_be("-a--|", VALUES)
    marbles.expect(kept, "--^").to_be("---a--|", VALUES)


def test_a_name_that_nothing_has_gives_nothing(marbles: Marbles) -> None:
    marbles.expect(marbles.cold("-a-b|", VALUES).pipe(ops.only_task("third"))).to_be("----|")


def test_a_task_without_a_name_is_known_by_its_description() -> None:
    crew, _ = three_tasks()
    shown = signals_of(crew.observe().pipe(ops.only_task("Write a poem")))
    assert [str(chunk) for chunk in shown.items] == ["three"]


def test_a_task_can_be_given_itself() -> None:
    crew, tasks = three_tasks()
    shown = signals_of(crew.observe().pipe(ops.only_task(tasks[2], "first")))
    assert [str(chunk) for chunk in shown.items] == ["one", "three"]


def test_events_of_the_task_stay_for_operators_that_come_later() -> None:
    crew, _ = three_tasks()
    kept = outcome(crew.events().pipe(ops.only_task("second")))
    assert {event.origin.task_name for event in kept.events if isinstance(event, Happened)} == {"second"}
    assert [type(kept.events[0]), type(kept.events[-1])] == [TaskStarted, TaskFinished]
    assert len(kept.of(LLMFinished)) == 1


def test_of_the_chunks_of_a_run_it_keeps_chunks_only() -> None:
    crew, _ = three_tasks()
    shown = signals_of(crew.observe().pipe(ops.only_task("second"), ops.words()))
    assert [(type(item), str(item)) for item in shown.items] == [(StreamChunk, "two")]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ((), ValueError, r"^only_task\(\) needs at least one task to keep$"),
        (("",), ValueError, r"^only_task\(\) got an empty name"),
        ((3,), TypeError, r"^only_task\(\) takes names of tasks, or tasks themselves; got \[3\]$"),
        ((an_agent(Scripted("a")),), TypeError, r"^only_task\(\) takes names of tasks, .*; got \[Agent\("),
    ],
)
def test_what_cannot_be_meant_is_refused(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ops.only_task(*given)
