"""``words``: text word by word."""

from typing import Any

import pytest
from reactivex import Observable, Subject, operators as rxops

from rxflow import Flow, operators as ops
from rxflow.flow import listen, start
from rxflow.testing import Marbles, ScriptedLLM
from rxflow.types.chunks import Origin, StreamChunk
from rxflow.types.events import Event, LLMFinished, LLMStarted, MethodFinished, MethodStarted, Retracted
from tests.operators.cuts import made_of
from tests.operators.pieces import bare, delta, said
from tests.signals import outcome, signals_of
from tests.team import solo


def test_a_word_comes_when_the_next_one_begins(marbles: Marbles) -> None:
    source = marbles.cold("a-b-c-d|", {"a": "he", "b": "llo wo", "c": "rld", "d": "! "})
    marbles.expect(source.pipe(ops.words())).to_be("--x---y(z|)", {"x": "hello", "y": " world!", "z": " "})


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
    begun = [LLMStarted(origin=Origin(span_id=place), model="m", messages=[]) for place in ("a", "b")]
    labels = {"task_id": "t", "agent_id": "a"}
    chunks = [said(text, span_id=place, **labels) for text in ("wo", "rd ") for place in ("a", "b")]
    words = made_of(ops.words(), [*begun, *chunks])[2:]
    assert [word.content for word in words] == ["word", "word", " ", " "]


class TestInAFlow:
    """Whose methods return bare chunks of a crew: then no event tells of its calls."""

    def test_the_last_word_comes_before_its_method_ends(self) -> None:
        class Saying(Flow):
            @start()
            def first(self) -> Observable[Any]:
                return solo(ScriptedLLM(["one ", "two"]), name="first").observe().pipe(bare)

            @listen(first)
            def second(self) -> Observable[Any]:
                return solo(ScriptedLLM(["three ", "four"]), name="second").observe().pipe(bare)

        heard = outcome(Saying().events().pipe(ops.words()))
        assert shown_in(heard.events) == ["(", "one", "two", ")", "(", "three", "four", ")"]

    def test_also_where_the_method_cuts_the_call_off(self) -> None:
        class Cutting(Flow):
            @start()
            def first(self) -> Observable[Any]:
                return solo(ScriptedLLM(["one ", "two", "three"])).events().pipe(rxops.filter(is_chunk), rxops.take(2))

            @listen(first)
            async def second(self) -> Any:
                return await solo(ScriptedLLM(["four ", "five"])).kickoff_async()

        heard = outcome(Cutting().events().pipe(ops.words()))
        assert shown_in(heard.events) == ["(", "one", "two", ")", "(", "four", "five", ")"]

    def test_one_crew_twice_at_once_is_two_speakers(self) -> None:
        crew = solo(ScriptedLLM("wo-rd|", "wo-rd|"))

        class Both(Flow):
            @start()
            def left(self) -> Observable[Any]:
                return crew.observe().pipe(bare)

            @start()
            def right(self) -> Observable[Any]:
                return crew.observe().pipe(bare)

        assert [str(word) for word in signals_of(Both().observe().pipe(ops.words())).items] == ["word", "word"]


def is_chunk(event: object) -> bool:
    return isinstance(event, StreamChunk)


def shown_in(events: list[Event]) -> list[str]:
    """Words, and the methods around them in brackets."""
    signs: dict[type[Event], str] = {MethodStarted: "(", MethodFinished: ")"}
    seen = [event.content.strip() if isinstance(event, StreamChunk) else signs.get(type(event)) for event in events]
    return [each for each in seen if each is not None]


def test_a_reader_may_make_calls_end_while_others_end() -> None:
    source: Subject[Any] = Subject()
    heard: list[str] = []

    def hear(item: object) -> None:
        heard.append(str(item) if isinstance(item, StreamChunk) else type(item).__name__)
        if heard == ["one"]:
            source.on_next(LLMFinished(origin=Origin(span_id="b"), text="two"))

    source.pipe(ops.words()).subscribe(hear)
    for item in (said("one", span_id="a"), said("two", span_id="b")):
        source.on_next(item)
    source.on_next(Retracted(origin=Origin(), attempts=(0,), error=OSError()))
    assert heard == ["one", "two", "LLMFinished", "Retracted"]


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
