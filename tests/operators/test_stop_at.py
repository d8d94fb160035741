"""``stop_at``: the end, once something has been said."""

from typing import Any

import pytest
from hypothesis import given, strategies as st

from rxflow import operators as ops
from rxflow.testing import Marbles, ScriptedLLM
from rxflow.testing._scripted import thinking
from rxflow.types.events import LLMCancelled
from tests.operators.cuts import cut_texts, made_of
from tests.operators.pieces import delta, said
from tests.signals import signals_of


def test_it_ends_when_the_text_was_said_over_several_chunks(marbles: Marbles) -> None:
    source = marbles.cold("a-b-c-d|", {"a": "hello ST", "b": "O", "c": "P more", "d": "x"})
    marbles.expect(source.pipe(ops.stop_at("STOP"))).to_be("x---(y|)", {"x": "hello", "y": " "})
    marbles.expect_subscriptions(source).to_be("^---!")


def test_it_can_say_the_text_itself(marbles: Marbles) -> None:
    source = marbles.cold("a-b-c|", {"a": "hello ST", "b": "OP more"})
    marbles.expect(source.pipe(ops.stop_at("STOP", inclusive=True))).to_be("x-(y|)", {"x": "hello", "y": " STOP"})


def test_what_only_began_like_it_is_shown(marbles: Marbles) -> None:
    source = marbles.cold("a-b-|", {"a": "STO", "b": "RE"})
    marbles.expect(source.pipe(ops.stop_at("STOP"))).to_be("--x-(y|)", {"x": "STOR", "y": "E"})


def test_each_subscription_looks_for_itself(marbles: Marbles) -> None:
    stopped = marbles.hot("a--b-|", {"a": "ST", "b": "OP"}).pipe(ops.stop_at("STOP"))
    marbles.expect(stopped).to_be("---|")
    marbles.expect(stopped, "-^").to_be("---x-(y|)", {"x": "O", "y": "P"})


@given(cut=cut_texts(st.text("ab", max_size=20)), wanted=st.text("ab", min_size=1, max_size=4), inclusive=st.booleans())
def test_the_text_is_cut_at_the_same_place_however_it_arrives(
    cut: tuple[str, list[str]], wanted: str, inclusive: bool
) -> None:
    text, chunks = cut
    before, found, _ = text.partition(wanted)
    expected = before + found if inclusive else before
    assert "".join(made_of(ops.stop_at(wanted, inclusive=inclusive), chunks)) == expected


def test_it_closes_the_connection_of_the_call_at_once(marbles: Marbles) -> None:
    llm = ScriptedLLM("one-STOP-more-----------|")
    marbles.expect(llm.observe("Hi").pipe(ops.stop_at("STOP"))).to_say("on--(e|)")
    assert [call.cancelled_at for call in llm.calls] == [0.004]


def test_each_call_is_looked_at_by_itself_and_what_others_said_is_shown() -> None:
    chunks = [said("ST", span_id="a"), said("OP", span_id="b"), said("x ST", span_id="b"), said("OP", span_id="a")]
    made = made_of(ops.stop_at("STOP"), chunks)
    assert [(chunk.span_id, chunk.content) for chunk in made] == [("b", "O"), ("b", "Px"), ("b", " ST")]


def test_reasoning_and_tool_calls_are_not_looked_at() -> None:
    llm = ScriptedLLM([thinking("say STOP"), "no STOP", "x"])
    shown = signals_of(llm.events("Hi").pipe(ops.stop_at("STOP")))
    assert [item.content for item in shown.items[1:-1]] == ["say STOP", "no "]
    assert isinstance(shown.items[-1], LLMCancelled)
    assert llm.calls[0].cancelled_at is not None
    assert [each.content for each in made_of(ops.stop_at("STOP"), [delta("STOP"), said("a")])] == ["STOP", "a"]


@pytest.mark.parametrize(
    ("text", "error", "message"), [("", ValueError, "is empty"), (b"STOP", TypeError, "is not a string: b'STOP'")]
)
def test_arguments_are_checked_at_the_call(text: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ops.stop_at(text)
