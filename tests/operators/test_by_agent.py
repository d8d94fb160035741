"""``by_agent`` takes a stream apart by agents; how lanes are read is tried with ``by_task``."""

from typing import Any

from reactivex import Observable, operators as rxops

from rxflow import operators as ops
from rxflow.testing import Marbles, check_operator
from rxflow.types import Lane
from rxflow.types.results import TaskOutput
from tests.operators.pieces import said
from tests.scripted import Scripted
from tests.signals import signals_of
from tests.team import a_crew, a_task, an_agent, solo

VALUES = {"a": said("a", agent_role="A"), "b": said("b", agent_role="B"), "o": said("o"), "A": "A", "B": "B"}


def key_of(lane: Lane[Any]) -> str:
    return lane.key


def texts(lane: Lane[Any]) -> Observable[tuple[str, list[str]]]:
    return lane.map(str).to_list().map(lambda all_of_it: (lane.key, all_of_it))


def is_good(output: TaskOutput) -> tuple[bool, str]:
    return output.raw == "good", output.raw


def test_it_keeps_the_rules() -> None:
    check_operator(ops.by_agent(), items=[VALUES["a"], VALUES["b"], VALUES["o"], VALUES["a"]], key=key_of)


def test_there_is_a_lane_for_each_agent(marbles: Marbles) -> None:
    source = marbles.cold("-a-o-b-a|", VALUES)
    marbles.expect(source.pipe(ops.by_agent(), rxops.map(key_of))).to_be("-A---B--|", VALUES)
    marbles.expect(source.pipe(ops.by_agent(), rxops.take(1), rxops.merge_all())).to_be("-a-----a|", VALUES)


def test_in_a_run_each_task_of_an_agent_has_a_lane() -> None:
    writer, editor = an_agent(Scripted("draft", "note"), "Writer"), an_agent(Scripted("edited"), "Editor")
    crew = a_crew(a_task(writer, name="1"), a_task(editor, name="2"), a_task(writer, name="3"))
    shown = signals_of(crew.observe().pipe(ops.by_agent(), rxops.flat_map(texts)))
    assert shown.items == [("Writer", ["draft"]), ("Editor", ["edited"]), ("Writer", ["note"])]


def test_all_attempts_at_a_task_are_in_one() -> None:
    crew = solo(
        Scripted("bad", "good"),
        agent={"role": "Writer"},
        guardrail=is_good,
    )
    shown = signals_of(crew.observe().pipe(ops.by_agent(), rxops.flat_map(texts)))
    assert shown.items == [("Writer", ["bad", "good"])]
