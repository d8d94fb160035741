"""``reasoning`` shows what the models think before they answer."""

import reactivex as rx

from rxflow import operators as ops
from rxflow.testing import Marbles
from rxflow.types.chunks import Origin
from rxflow.types.events import ReasoningChunk
from tests.operators.pieces import said
from tests.scripted import Scripted, thinking
from tests.signals import signals_of
from tests.team import solo

HERE = Origin(agent_role="Writer", span_id="r/1")
VALUES = {
    "a": said("he"),
    "h": ReasoningChunk(origin=HERE, content="Hm, "),
    "m": ReasoningChunk(origin=HERE, content="so."),
}


def test_it_keeps_the_pieces_as_they_are(marbles: Marbles) -> None:
    source = marbles.cold("-h-a-m|", VALUES)
    marbles.expect(source.pipe(ops.reasoning())).to_be("-h---m|", VALUES)
    marbles.expect_subscriptions(source).to_be("^-----!")


def test_each_subscription_sees_all(marbles: Marbles) -> None:
    pieces = marbles.cold("-h-m|", VALUES).pipe(ops.reasoning())
    marbles.expect(pieces).to_be("-h-m|", VALUES)
    marbles.expect(pieces, "--^").to_be("---h-m|", VALUES)


def test_it_finds_the_events_behind_the_chunks_of_a_run() -> None:
    crew = solo(Scripted([thinking("Hm, "), thinking("so."), "Done."]), agent={"role": "Thinker"})
    for source in (crew.observe(), crew.events(), crew.observe().pipe(ops.text())):
        shown = signals_of(source.pipe(ops.reasoning()))
        assert [(piece.content, piece.origin.agent_role) for piece in shown.items] == [
            ("Hm, ", "Thinker"),
            ("so.", "Thinker"),
        ]


def test_a_stream_of_chunks_alone_has_none() -> None:
    shown = signals_of(rx.of(said("he"), said("llo")).pipe(ops.reasoning()))
    assert (shown.items, shown.completions) == ([], 1)
