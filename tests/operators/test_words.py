"""``words``: text word by word."""

import pytest
from reactivex import operators as rxops

from rxflow import operators as ops
from rxflow.testing import Marbles, ScriptedLLM
from rxflow.testing.conformance import check_operator
from rxflow.types.chunks import Origin
from rxflow.types.events import LLMStarted
from tests.operators.cuts import made_of
from tests.operators.pieces import delta, said


def test_a_word_comes_when_the_next_one_begins(marbles: Marbles) -> None:
    source = marbles.cold("a-b-c-d|", {"a": "he", "b": "llo wo", "c": "rld", "d": "! "})
    marbles.expect(source.pipe(ops.words())).to_be("--x---y(z|)", {"x": "hello", "y": " world!", "z": " "})


def test_an_error_comes_after_the_last_word(marbles: Marbles) -> None:
    source = marbles.cold("a-#", {"a": "some wor"})
    marbles.expect(source.pipe(ops.words())).to_be("x-(y#)", {"x": "some", "y": " wor"})


def test_whoever_has_enough_disposes_the_source(marbles: Marbles) -> None:
    source = marbles.cold("a-b-c-d|", {"a": "one ", "b": "two ", "c": "three "})
    marbles.expect(source.pipe(ops.words(), rxops.take(1))).to_be("(x|)", {"x": "one"})
    marbles.expect_subscriptions(source).to_be("(^!)")


def test_each_subscription_has_words_of_its_own(marbles: Marbles) -> None:
    words = marbles.hot("a--b--|", {"a": "one", "b": "two "}).pipe(ops.words())
    marbles.expect(words).to_be("---x--(y|)", {"x": "onetwo", "y": " "})
    marbles.expect(words, "-^").to_be("---x--(y|)", {"x": "two", "y": " "})


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Hello there,  world", ["Hello", " there,", "  world"]),
        ("a\r\nb \u0301c", ["a", "\r\nb", " \u0301c"]),
        ("don’t well-known café-bar", ["don’t", " well-known", " café-bar"]),
        ("привет мир", ["привет", " мир"]),
        ("한국어 텍스트", ["한국어", " 텍스트"]),
        ("你好，世界。好", ["你", "好，", "世", "界。", "好"]),  # noqa: RUF001 - meant
        ("用Python编程 ok", ["用", "Python", "编", "程", " ok"]),
        ("他说「你好」。", ["他", "说", "「你", "好」。"]),
        ("カタカナとかな", ["カタカナ", "と", "か", "な"]),
        ("ที่นี่ทำ", ["ที่", "นี่", "ทำ"]),
        ("f(x) == 3.14", ["f(x)", " ==", " 3.14"]),
    ],
)
def test_where_words_begin(text: str, pieces: list[str]) -> None:
    assert made_of(ops.words(), text) == pieces


def test_text_without_spaces_is_not_held_back_until_the_end(marbles: Marbles) -> None:
    source = marbles.cold("a-b---c|", {"a": "你好", "b": "世界", "c": "。"})
    marbles.expect(source.pipe(ops.words())).to_be("v-(wx)-(y|)", {"v": "你", "w": "好", "x": "世", "y": "界。"})


def test_two_who_speak_at_once_are_not_mixed() -> None:
    chunks = [said("wo", span_id="a"), said("he", span_id="b"), said("rld ", span_id="a"), said("llo ", span_id="b")]
    words = made_of(ops.words(), chunks)
    assert [(word.span_id, word.content) for word in words] == [("a", "world"), ("b", "hello"), ("a", " "), ("b", " ")]


def test_the_same_agent_may_speak_twice_at_once_where_events_tell_the_ends() -> None:
    """As two runs of one crew do, side by side in a flow."""
    begun = LLMStarted(origin=Origin(), model="m", messages=[])
    labels = {"task_id": "t", "agent_id": "a"}
    chunks = [said(text, span_id=place, **labels) for text in ("wo", "rd ") for place in ("a", "b")]
    words = made_of(ops.words(), [begun, *chunks])[1:]
    assert [word.content for word in words] == ["word", "word", " ", " "]


def test_what_is_no_text_keeps_its_place() -> None:
    call = delta("{}", span_id="a")
    words = made_of(ops.words(), [said("let me lo", span_id="a"), call, said("ok", span_id="a")])
    assert [word.content for word in words] == ["let", " me", " lo", "{}", "ok"]
    assert words[3] is call


def test_the_last_word_comes_when_its_call_ends(marbles: Marbles) -> None:
    marbles.expect(ScriptedLLM("one-two|").observe("Hi").pipe(ops.words())).to_be("-------(x|)", {"x": "onetwo"})
    error = ValueError("no")
    failing = ScriptedLLM("one-two#", error=error)
    marbles.expect(failing.observe("Hi").pipe(ops.words())).to_be("-------(x#)", {"x": "onetwo"}, error)


def test_it_keeps_the_rules() -> None:
    check_operator(ops.words())
    check_operator(ops.words(), items=[said("he", span_id="a"), said("llo wo", span_id="a"), said("r ld", span_id="b")])
