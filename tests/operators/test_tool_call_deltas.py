"""``tool_call_deltas`` shows tool calls as they are being written."""

from rxflow import operators as ops
from rxflow.testing import Marbles
from tests.operators.pieces import delta, said
from tests.scripted import Scripted, calls
from tests.signals import signals_of
from tests.team import solo

VALUES = {"a": said("he"), "x": delta('{"a":'), "y": delta("1}"), "s": "no chunk"}


def test_it_keeps_the_deltas_as_they_are(marbles: Marbles) -> None:
    source = marbles.cold("-a-x-s-y|", VALUES)
    marbles.expect(source.pipe(ops.tool_call_deltas())).to_be("---x---y|", VALUES)
    marbles.expect_subscriptions(source).to_be("^-------!")


def test_each_subscription_sees_all(marbles: Marbles) -> None:
    deltas = marbles.cold("-x-y|", VALUES).pipe(ops.tool_call_deltas())
    marbles.expect(deltas).to_be("-x-y|", VALUES)
    marbles.expect(deltas, "--^").to_be("---x-y|", VALUES)


def test_of_a_run_it_shows_what_the_model_asks_for() -> None:
    crew = solo(Scripted(["Let me look.", *calls(("look", {"where": "north"}))], "Done."))
    shown = signals_of(crew.observe().pipe(ops.tool_call_deltas()))
    assert "".join(map(str, shown.items)) == '{"where": "north"}'
    assert {chunk.tool_call.tool_name for chunk in shown.items} == {"look"}
