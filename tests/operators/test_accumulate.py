"""``accumulate``: the whole text so far."""

import reactivex as rx
from reactivex import operators as rxops

from rxflow import operators as ops
from rxflow.testing import Marbles, ScriptedLLM, check_operator
from rxflow.testing._scripted import thinking
from tests.operators.cuts import made_of
from tests.operators.pieces import delta, said
from tests.scripted import Scripted
from tests.signals import signals_of
from tests.team import a_crew, a_task, an_agent


def test_each_item_carries_the_text_so_far_and_the_last_character_waits(marbles: Marbles) -> None:
    source = marbles.cold("a-b-|", {"a": "he", "b": "llo"})
    marbles.expect(source.pipe(ops.accumulate())).to_be("x-y-(z|)", {"x": "h", "y": "hell", "z": "hello"})


def test_each_subscription_begins_anew(marbles: Marbles) -> None:
    texts = marbles.hot("a--b|", {"a": "he", "b": "llo"}).pipe(ops.accumulate())
    marbles.expect(texts).to_be("x--y(z|)", {"x": "h", "y": "hell", "z": "hello"})
    marbles.expect(texts, "-^").to_be("---y(z|)", {"y": "ll", "z": "llo"})


def test_each_call_has_a_text_of_its_own() -> None:
    crew = a_crew(
        a_task(an_agent(Scripted("one two")), name="first"), a_task(an_agent(Scripted("three")), name="second")
    )
    shown = signals_of(crew.observe().pipe(ops.accumulate())).items
    last = {chunk.task_name: chunk.content for chunk in shown}
    assert last == {"first": "one two", "second": "three"}


def test_reasoning_has_a_text_of_its_own() -> None:
    llm = ScriptedLLM([thinking("Hm. "), "Yes, ", thinking("well"), "no."])
    shown = signals_of(llm.events("Why?").pipe(ops.accumulate(), rxops.filter(lambda event: hasattr(event, "content"))))
    assert [item.content for item in shown.items] == [
        *("Hm.", "Hm. "),
        *("Yes,", "Yes, "),
        *("Hm. wel", "Hm. well"),
        *("Yes, no", "Yes, no."),
    ]


def test_text_goes_on_behind_a_tool_call() -> None:
    texts = made_of(ops.accumulate(), [said("ab", span_id="a"), delta("{}", span_id="a"), said("cd", span_id="a")])
    assert [text.content for text in texts] == ["a", "ab", "{}", "abc", "abcd"]


def test_void_text_is_not_gone_on_with() -> None:
    failing = rx.concat(rx.of("ab"), rx.throw(ValueError("no")))
    shown = signals_of(failing.pipe(ops.fallback_to(rx.of("cd")), ops.accumulate()))
    assert [item for item in shown.items if isinstance(item, str)] == ["a", "ab", "c", "cd"]


def test_it_keeps_the_rules() -> None:
    check_operator(ops.accumulate())
