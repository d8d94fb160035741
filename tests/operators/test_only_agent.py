"""``only_agent`` keeps what some agents say and do."""

from typing import Any

import pytest

from rxflow import operators as ops
from rxflow.testing import Marbles
from rxflow.types import Happened
from tests.operators.pieces import said
from tests.scripted import Scripted
from tests.signals import outcome, signals_of
from tests.team import a_crew, a_task, an_agent

VALUES = {"a": said("a", agent_role="Writer"), "b": said("b", agent_role="Editor"), "o": said("o"), "s": "no chunk"}


def test_it_keeps_the_chunks_of_an_agent_and_drops_the_rest(marbles: Marbles) -> None:
    source = marbles.cold("-a-b-o-s-a|", VALUES)
    marbles.expect(source.pipe(ops.only_agent("Writer"))).to_be("-a-------a|", VALUES)
    marbles.expect(source.pipe(ops.only_agent("Writer", "Editor"))).to_be("-a-b-----a|", VALUES)


def test_each_subscription_sees_all(marbles: Marbles) -> None:
    kept = marbles.cold("-a-b|", VALUES).pipe(ops.only_agent("Editor"))
    marbles.expect(kept).to_be("---b|", VALUES)
    marbles.expect(kept, "--^").to_be("-----b|", VALUES)


def test_of_a_run_it_keeps_the_events_too() -> None:
    writer, editor = an_agent(Scripted("draft"), "Writer"), an_agent(Scripted("edited"), "Editor")
    crew = a_crew(a_task(writer, name="write"), a_task(editor, name="edit"))
    kept = outcome(crew.events().pipe(ops.only_agent("Editor")))
    assert {event.origin.agent_role for event in kept.events if isinstance(event, Happened)} == {"Editor"}
    assert kept.text == "edited"


def test_an_agent_whose_role_is_filled_in_can_be_given_itself() -> None:
    agent = an_agent(Scripted("found"), "{topic} Researcher")
    crew = a_crew(a_task(agent, name="look"))
    for given in (agent, "AI Researcher"):
        shown = signals_of(crew.observe({"topic": "AI"}).pipe(ops.only_agent(given)))
        assert [str(chunk) for chunk in shown.items] == ["found"]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ((), ValueError, r"^only_agent\(\) needs at least one agent to keep$"),
        (("Writer", ""), ValueError, r"^only_agent\(\) got an empty name"),
        ((None,), TypeError, r"^only_agent\(\) takes names of agents, or agents themselves; got \[None\]$"),
        ((a_task(an_agent(Scripted("a"))),), TypeError, r"^only_agent\(\) takes names of agents, .*; got \[Task\("),
    ],
)
def test_what_cannot_be_meant_is_refused(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ops.only_agent(*given)
