"""``text`` shows what the models say, and nothing else."""

from rxflow import operators as ops
from rxflow.testing import Marbles
from rxflow.types.chunks import StreamChunkType
from tests.operators.pieces import delta, said
from tests.scripted import Scripted, calls, thinking
from tests.signals import signals_of
from tests.team import solo

VALUES = {"a": said("he"), "b": said("llo"), "x": delta("{}"), "s": "no chunk"}


def test_it_keeps_text_chunks_as_they_are(marbles: Marbles) -> None:
    source = marbles.cold("-a-x-s-b|", VALUES)
    marbles.expect(source.pipe(ops.text())).to_be("-a-----b|", VALUES)
    marbles.expect_subscriptions(source).to_be("^-------!")


def test_each_subscription_sees_all(marbles: Marbles) -> None:
    texts = marbles.cold("-a-x-b|", VALUES).pipe(ops.text())
    marbles.expect(texts).to_be("-a---b|", VALUES)
    marbles.expect(texts, "--^").to_be("---a---b|", VALUES)


def test_of_a_run_it_shows_neither_tool_calls_nor_reasoning() -> None:
    model = Scripted([thinking("Hm."), "Let me ", "look.", *calls(("look", {}))], "Done.")
    crew = solo(model)
    for source in (crew.observe(), crew.events()):
        shown = signals_of(source.pipe(ops.text()))
        assert {chunk.chunk_type for chunk in shown.items} == {StreamChunkType.TEXT}
        assert "".join(map(str, shown.items)).endswith("Done.")
