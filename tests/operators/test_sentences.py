"""``sentences``: text sentence by sentence."""

import pytest

from rxflow import operators as ops
from rxflow.testing import Marbles
from tests.operators.cuts import made_of
from tests.operators.pieces import delta, said


def test_a_sentence_comes_when_it_is_seen_to_be_over(marbles: Marbles) -> None:
    source = marbles.cold("a-b-c-d|", {"a": "Hi", "b": ".", "c": " How", "d": " are you?"})
    marbles.expect(source.pipe(ops.sentences())).to_be("----x--(y|)", {"x": "Hi.", "y": " How are you?"})


def test_each_subscription_has_sentences_of_its_own(marbles: Marbles) -> None:
    sentences = marbles.hot("a--b|", {"a": "One", "b": "two. "}).pipe(ops.sentences())
    marbles.expect(sentences).to_be("---x(y|)", {"x": "Onetwo.", "y": " "})
    marbles.expect(sentences, "-^").to_be("---x(y|)", {"x": "two.", "y": " "})


@pytest.mark.parametrize(
    "sentences",
    [
        ["Is it?", " Yes!", "  No…", " Well."],
        ["He said “Yes.”", " (Really.)", " **Bold.**", ' "So!"', " End"],
        ["Pi is 3.14.", " See example.com/a?b=c or v1.2.3.", " Done"],
        ["Dr. Smith and Mrs. J. K. Doe met, e.g. here.", " Then not."],
        ["Made by Acme Inc. and sold.", " Bought by Acme Inc.", " The end."],
        ["At 9 a.m. we left.", " We came at 9 p.m.", " It was late."],
        ["See Fig. 3 and No. 4.", " Is it?", " No.", " Never."],
        ["In the U.S. Senate.", " Yes."],
        ["Well… maybe... yes.", " So it is...", " Then no."],
        ["So did I.", " You too."],
        ["# Title", "\n\nA line\nand another.", " A list:", "\n- one", "\n- two", "\n1. three", "\n2. four", "\n\nEnd"],
        ["One\ntwo", "\r\n\r\nthree"],
        ["你好。", "「真的吗？」", "他问！？", "好"],  # noqa: RUF001 - meant
        ["5\u202f000 km etc.\u00a0p of it.", " End."],
    ],
)
def test_where_sentences_end(sentences: list[str]) -> None:
    text = "".join(sentences)
    assert made_of(ops.sentences(), [text]) == sentences
    assert made_of(ops.sentences(), text) == sentences


def test_what_the_rules_do_not_know() -> None:
    """Their limits, as the documentation says."""
    assert made_of(ops.sentences(), ["Take plan B. Then rest."]) == ["Take plan B. Then rest."]
    assert made_of(ops.sentences(), ["The Hrsg. is known."]) == ["The Hrsg.", " is known."]


def test_many_candidates_take_no_more_than_linear_time() -> None:
    made = made_of(ops.sentences(), ["e.g. "] * 20_000)
    assert len(made) == 1


def test_what_is_no_text_keeps_its_place() -> None:
    chunks = [said("One. Tw", span_id="a"), delta("{}", span_id="a"), said("o.", span_id="a")]
    assert [each.content for each in made_of(ops.sentences(), chunks)] == ["One.", " Tw", "{}", "o."]
