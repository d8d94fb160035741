"""What all operators share, in marbles: errors pass, streams end with their source, and whoever has enough disposes it.

What an operator does with its items is in its own file. That it keeps the rules of streams is in test_conventions.py.
"""

from collections.abc import Callable
from typing import Any

import pytest
import reactivex as rx
from pydantic import BaseModel
from reactivex import Observable, operators as rxops
from reactivex.testing import TestScheduler

from rxflow import operators as ops
from rxflow.runs import MemoryLog
from rxflow.testing import Marbles
from rxflow.tools import tool
from tests.operators.pieces import delta, said

Operator = Callable[[Observable[Any]], Observable[Any]]


class Answer(BaseModel):
    a: int = 0


@tool
def look(a: int) -> str:
    """Look."""
    return str(a)


def is_fine(text: str) -> ops.Verdict:
    return ops.Release()


ALL: dict[str, Callable[[], Operator]] = {
    "accumulate": ops.accumulate,
    "by_agent": ops.by_agent,
    "by_method": ops.by_method,
    "by_task": ops.by_task,
    "coalesce": lambda: ops.coalesce(seconds=1),
    "first_chunk_timeout": lambda: ops.first_chunk_timeout(1),
    "frames": ops.frames,
    "heartbeat": lambda: ops.heartbeat(1),
    "hold_back": lambda: ops.hold_back(is_fine),
    "idle_timeout": lambda: ops.idle_timeout(1),
    "in_graph_order": ops.in_graph_order,
    "interleave_fairly": ops.interleave_fairly,
    "limit_cost": lambda: ops.limit_cost(1, input_price=1, output_price=1),
    "limit_tokens": lambda: ops.limit_tokens(1000),
    "lines": ops.lines,
    "log_to": lambda: ops.log_to(MemoryLog(), "trip-7"),
    "only_agent": lambda: ops.only_agent("Writer"),
    "only_method": lambda: ops.only_method("write"),
    "only_task": lambda: ops.only_task("first"),
    "overflow": lambda: ops.overflow(10, "error"),
    "partial_json": lambda: ops.partial_json(Answer),
    "race": ops.race,
    "reasoning": ops.reasoning,
    "redact": lambda: ops.redact("never said"),
    "sentences": ops.sentences,
    "share_log": lambda: ops.share_log("cancel"),
    "smooth": lambda: ops.smooth(1000),
    "stats": ops.stats,
    "stop_at": lambda: ops.stop_at("never said"),
    "text": ops.text,
    "tool_arguments": lambda: ops.tool_arguments(Answer),
    "tool_call_deltas": ops.tool_call_deltas,
    "tool_calls": lambda: ops.tool_calls(look),
    "usage": ops.usage,
    "words": ops.words,
}
ELSEWHERE = {
    "fallback_to": "an error is what it waits for",
    "retry_stream": "an error is what it waits for",
    "answer_with": "it takes runs only",
    "from_cassette": "it has no source",
    "from_log": "it has no source",
    "record": "it needs a file",
    "to_output": "it makes no Observable",
}
WRITER = said("one ", task_name="first", agent_role="Writer", flow_method="write", span_id="r/1")
ITEMS = {"a": WRITER, "b": delta('{"a": 1}', task_name="first", span_id="r/1")}

every_operator = pytest.mark.parametrize("name", ALL)


def end_of(source: Observable[Any], name: str) -> Observable[Any]:
    """What becomes of the stream, without its items."""
    return source.pipe(ALL[name](), rxops.ignore_elements())


def test_no_operator_is_left_out() -> None:
    operators = {name for name in ops.__all__ if name[0].islower()}
    assert ALL.keys() | ELSEWHERE.keys() == operators


@every_operator
def test_an_error_passes_as_it_is(name: str, marbles: Marbles) -> None:
    source = marbles.cold("-a-b-#", ITEMS, OSError("gone"))
    marbles.expect(end_of(source, name)).to_be("-----#", error=OSError("gone"))


@every_operator
def test_an_error_before_the_first_item_passes_too(name: str, marbles: Marbles) -> None:
    source = marbles.cold("--#", error=OSError("gone"))
    marbles.expect(end_of(source, name)).to_be("--#", error=OSError("gone"))


@every_operator
def test_a_stream_without_items_completes_with_its_source(name: str, marbles: Marbles) -> None:
    marbles.expect(end_of(marbles.cold("--|"), name)).to_be("--|")


@every_operator
def test_disposing_disposes_the_source(name: str, marbles: Marbles) -> None:
    source = marbles.cold("-a---b-|", ITEMS)
    marbles.expect(end_of(source, name), "^---!").to_be("----")
    marbles.expect_subscriptions(source).to_be("^---!")


# An operator of text, a chunk, what it lets go of the chunk at once, and what it holds back.
@pytest.mark.parametrize("name", ["heartbeat", "idle_timeout", "first_chunk_timeout"])
def test_a_source_that_raises_when_it_is_disposed_does_not_keep_the_timer(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = TestScheduler()
    rings: list[float] = []

    def schedule(time: Any, action: Any, state: Any = None) -> Any:
        def ring(*given: Any) -> Any:
            rings.append(clock.clock)
            return action(*given)

        return TestScheduler.schedule_relative(clock, time, ring, state)

    def refuse() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(clock, "schedule_relative", schedule)

    operator: Any = getattr(ops, name)(5, scheduler=clock)
    before = rx.of("a") if name == "idle_timeout" else rx.empty()
    source = rx.concat(before, rx.never()).pipe(rxops.finally_action(refuse))
    subscription = operator(source).subscribe()
    with pytest.raises(ZeroDivisionError):
        subscription.dispose()
    clock.advance_to(20)
    assert rings == []


TEXT: dict[str, tuple[Callable[[], Operator], str, str, str]] = {
    "accumulate": (ops.accumulate, "he", "h", "he"),
    "lines": (ops.lines, "one\ntw", "one\n", "tw"),
    "redact": (lambda: ops.redact(r"\d+", "*"), "a 12", "a", " *"),
    "sentences": (ops.sentences, "One. Tw", "One.", " Tw"),
    "stop_at": (lambda: ops.stop_at("STOP"), "a STO", "a", " STO"),
    "words": (ops.words, "some wor", "some", " wor"),
}
every_operator_of_text = pytest.mark.parametrize(("create", "chunk", "first", "held"), TEXT.values(), ids=TEXT)


@every_operator_of_text
def test_an_error_comes_after_what_was_held_back(
    create: Callable[[], Operator], chunk: str, first: str, held: str, marbles: Marbles
) -> None:
    source = marbles.cold("a-#", {"a": chunk})
    marbles.expect(source.pipe(create())).to_be("x-(y#)", {"x": first, "y": held})


@every_operator_of_text
def test_whoever_has_enough_disposes_the_source(
    create: Callable[[], Operator], chunk: str, first: str, held: str, marbles: Marbles
) -> None:
    source = marbles.cold("a-b|", {"a": chunk})
    marbles.expect(source.pipe(create(), rxops.take(1))).to_be("(x|)", {"x": first})
    marbles.expect_subscriptions(source).to_be("(^!)")
