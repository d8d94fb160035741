"""What all operators share, in marbles: errors pass, streams end with their source, and whoever has enough disposes it.

What an operator does with its items is in its own file. That it keeps the rules of streams is in test_conventions.py.
"""

from collections.abc import Callable
from typing import Any

import pytest
import reactivex as rx
from pydantic import BaseModel
from reactivex import Observable, Subject, operators as rxops
from reactivex.abc import DisposableBase, SchedulerBase
from reactivex.disposable import Disposable
from reactivex.testing import TestScheduler

from rxflow import operators as ops
from rxflow.runs import MemoryLog
from rxflow.testing import Marbles
from rxflow.tools import tool
from tests.operators.endings import refuse, stubborn
from tests.operators.pieces import delta, said
from tests.signals import Signals, signals_of

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


class Clock(TestScheduler):
    """Notes which timers ring. Like a window that was closed, it may be unable to cancel them."""

    def __init__(self, *, can_cancel: bool = True) -> None:
        super().__init__()
        self.rings: list[float] = []
        self._can_cancel = can_cancel

    def schedule_absolute(self, duetime: Any, action: Any, state: Any = None) -> DisposableBase:
        def ring(*given: Any) -> Any:
            self.rings.append(self.clock)
            return action(*given)

        timer = super().schedule_absolute(duetime, ring, state)
        return timer if self._can_cancel else Disposable(refuse)


TIMED: dict[str, Callable[[SchedulerBase], Operator]] = {
    "coalesce": lambda clock: ops.coalesce(seconds=5, scheduler=clock),
    "first_chunk_timeout": lambda clock: ops.first_chunk_timeout(5, scheduler=clock),
    "heartbeat": lambda clock: ops.heartbeat(5, scheduler=clock),
    "idle_timeout": lambda clock: ops.idle_timeout(5, scheduler=clock),
    "interleave_fairly": lambda clock: ops.interleave_fairly(scheduler=clock),
    "smooth": lambda clock: ops.smooth(1, scheduler=clock),
}


def begun(name: str) -> Observable[Any]:
    """A source after whose items the operator's timer is set."""
    return rx.concat(rx.empty() if name == "first_chunk_timeout" else rx.of("some text"), rx.never())


@pytest.mark.parametrize("name", TIMED)
def test_a_source_that_raises_when_it_is_disposed_is_reported_and_does_not_keep_the_timer(
    name: str, reported: list[type[BaseException]]
) -> None:
    clock = Clock()
    subscription = stubborn(begun(name)).pipe(TIMED[name](clock)).subscribe()
    subscription.dispose()
    clock.advance_to(20)
    assert clock.rings == []
    assert reported == [ZeroDivisionError]


@pytest.mark.parametrize("name", TIMED)
def test_a_timer_that_cannot_be_cancelled_does_not_keep_the_source(
    name: str, reported: list[type[BaseException]]
) -> None:
    disposed: list[str] = []
    source = begun(name).pipe(rxops.finally_action(lambda: disposed.append(name)))
    subscription = source.pipe(TIMED[name](Clock(can_cancel=False))).subscribe()
    subscription.dispose()
    assert disposed == [name]
    assert reported == [ZeroDivisionError]


def stop(text: str) -> ops.Verdict:
    return ops.Stop("enough")


def fail(item: object) -> Any:
    raise OSError("gone")


def read_badly(lanes: Observable[Any]) -> Observable[Any]:
    return lanes.pipe(ops.by_task(), rxops.flat_map(rxops.do_action(fail)))


def share_badly(source: Observable[Any]) -> Observable[Any]:
    return source.pipe(ops.share_log("cancel"), rxops.do_action(fail))


# An operator that disposes its source, what the source emits, and how the result ends. ``#`` is an error of the source.
ENDING: dict[str, tuple[Callable[[SchedulerBase], Operator], list[Any], str]] = {
    "fallback_to": (lambda _: ops.fallback_to(rx.of("other")), ["#"], "completed"),
    "first_chunk_timeout": (TIMED["first_chunk_timeout"], [], "FirstChunkTimeout"),
    "hold_back, and its guard stops": (
        lambda _: ops.hold_back(stop, until=ops.words()),
        [WRITER, WRITER],
        "GuardStopped",
    ),
    "hold_back, and its guard raises": (lambda _: ops.hold_back(fail, until=ops.words()), [WRITER, WRITER], "OSError"),
    "idle_timeout": (TIMED["idle_timeout"], [WRITER], "IdleTimeout"),
    "limit_cost": (lambda _: ops.limit_cost(1e-9, input_price=1, output_price=1), [WRITER], "completed"),
    "limit_cost without a price": (lambda _: ops.limit_cost(1), [WRITER], "ValueError"),
    "limit_tokens": (lambda _: ops.limit_tokens(1), [said("a long text", span_id="r/1")], "completed"),
    "overflow": (lambda clock: ops.overflow(1, "error", scheduler=clock), ["a", "b"], "SlowReaderError"),
    "race": (lambda _: ops.race(rx.of("other")), [], "completed"),
    "race of three": (lambda _: ops.race(stubborn(rx.never()), rx.of("other")), [], "completed"),
    "retry_stream": (lambda _: ops.retry_stream(1), ["#"], "completed"),
    "retry_stream after a delay": (lambda clock: ops.retry_stream(1, delay=1, scheduler=clock), ["#"], "completed"),
    "stop_at": (lambda _: ops.stop_at("one"), [WRITER], "completed"),
    "by_task, and a reader raises": (lambda _: read_badly, [WRITER], "OSError"),
    "share_log, and its observer raises": (lambda _: share_badly, [WRITER], "OSError"),
}


@pytest.mark.parametrize(("create", "items", "end"), ENDING.values(), ids=ENDING)
def test_a_source_that_raises_when_it_is_disposed_does_not_keep_the_end(
    create: Callable[[SchedulerBase], Operator], items: list[Any], end: str, reported: list[type[BaseException]]
) -> None:
    subject: Subject[Any] = Subject()
    sources = iter([stubborn(subject)])
    clock, seen = TestScheduler(), Signals()
    seen.subscribe_to(rx.defer(lambda _: next(sources, rx.empty())).pipe(create(clock)))
    for item in items:
        if item == "#":
            subject.on_error(OSError("gone"))
        else:
            subject.on_next(item)
    clock.advance_by(100)
    assert [each.partition("(")[0] for each in seen.ends] == [end]
    assert not subject.observers
    assert set(reported) == {ZeroDivisionError}


def test_one_source_of_a_race_that_raises_when_it_is_disposed_does_not_keep_the_others(
    reported: list[type[BaseException]],
) -> None:
    others: list[Subject[Any]] = [Subject(), Subject()]
    subscription = stubborn(rx.never()).pipe(ops.race(*others)).subscribe()
    subscription.dispose()
    assert [each.observers for each in others] == [[], []]
    assert reported == [ZeroDivisionError]


def test_a_lane_is_left_even_if_its_source_raises_when_it_is_disposed(reported: list[type[BaseException]]) -> None:
    subject: Subject[Any] = Subject()
    late: list[Observable[Any]] = []
    subscription = stubborn(subject).pipe(ops.by_task()).subscribe(late.append)
    subject.on_next(WRITER)
    subscription.dispose()
    assert [str(error) for error in signals_of(late[0]).errors] == [
        "this lane was subscribed too late: its stream is disposed"
    ]
    assert reported == [ZeroDivisionError]


# An operator of text, a chunk, what it lets go of the chunk at once, and what it holds back.
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
