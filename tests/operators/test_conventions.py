"""What all operators share: the rules of streams, RxPY's conventions for arguments, and where their time comes from."""

import inspect
import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import reactivex as rx
from pydantic import BaseModel
from reactivex import Observable, operators as rxops
from reactivex.abc import SchedulerBase
from reactivex.testing import TestScheduler

from rxflow import operators as ops
from rxflow.testing import check_operator
from rxflow.types.chunks import Origin
from rxflow.types.events import LLMFinished, LLMStarted, ReasoningChunk, TaskFinished, TaskStarted
from rxflow.types.results import TaskOutput
from tests.operators.pieces import delta, said
from tests.signals import signals_of

Operator = Callable[[Observable[Any]], Observable[Any]]

FIRST, SECOND = Origin(span_id="r/1", task_name="first"), Origin(span_id="r/2", task_name="second")
RESULT = TaskOutput(description="", raw="one two")
RUN: Sequence[Any] = [
    TaskStarted(origin=FIRST, description=""),
    LLMStarted(origin=FIRST, model="m", messages=[]),
    ReasoningChunk(origin=FIRST, content="hm"),
    said("one ", task_name="first", agent_role="Writer", flow_method="write", span_id="r/1"),
    said("x", task_name="second", agent_role="Editor", flow_method="check", span_id="r/2"),
    delta('{"a": ', task_name="first", span_id="r/1"),
    delta("1}", task_name="first", span_id="r/1"),
    said("two.", task_name="first", agent_role="Writer", flow_method="write", span_id="r/1"),
    LLMFinished(origin=FIRST, text="one two."),
    TaskFinished(origin=FIRST, result=RESULT),
    said("y", task_name="second", agent_role="Editor", flow_method="check", span_id="r/2"),
    "a string",
]


class Answer(BaseModel):
    a: int = 0


FILTERS: dict[str, Callable[[], Operator]] = {
    "only_agent": lambda: ops.only_agent("Writer"),
    "only_method": lambda: ops.only_method("write"),
    "only_task": lambda: ops.only_task("first"),
    "reasoning": ops.reasoning,
    "text": ops.text,
    "tool_call_deltas": ops.tool_call_deltas,
}
OTHERS: dict[str, Callable[[], Operator]] = {
    "fallback_to": lambda: ops.fallback_to(rx.empty()),
    "first_chunk_timeout": lambda: ops.first_chunk_timeout(100),
    "heartbeat": lambda: ops.heartbeat(100),
    "idle_timeout": lambda: ops.idle_timeout(100),
    "in_graph_order": ops.in_graph_order,
    "limit_cost": lambda: ops.limit_cost(1, input_price=1, output_price=1),
    "limit_tokens": lambda: ops.limit_tokens(10**6),
    "lines": ops.lines,
    "redact": lambda: ops.redact("never said"),
    "sentences": ops.sentences,
    "stop_at": lambda: ops.stop_at("never said"),
    "usage": ops.usage,
    "words": ops.words,
}
Timed = Callable[[Any, SchedulerBase | None], Operator]
TIMED: dict[str, Timed] = {
    "coalesce": lambda seconds, scheduler: ops.coalesce(seconds=seconds, scheduler=scheduler),
    "first_chunk_timeout": lambda seconds, scheduler: ops.first_chunk_timeout(seconds, scheduler=scheduler),
    "heartbeat": lambda seconds, scheduler: ops.heartbeat(seconds, scheduler=scheduler),
    "idle_timeout": lambda seconds, scheduler: ops.idle_timeout(seconds, scheduler=scheduler),
    "smooth": lambda seconds, scheduler: ops.smooth(10, catch_up=seconds, scheduler=scheduler),
}
FUNCTIONS = sorted(name for name in ops.__all__ if inspect.isfunction(getattr(ops, name)))
SCHEDULED = [name for name in FUNCTIONS if "scheduler" in inspect.signature(getattr(ops, name)).parameters]


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_keeps_the_rules(name: str) -> None:
    check_operator(FILTERS[name](), items=RUN)


@pytest.mark.parametrize("name", OTHERS)
def test_an_operator_keeps_the_rules(name: str) -> None:
    check_operator(OTHERS[name](), recovers=name == "fallback_to")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_first_line_of_its_docstring_names_a_relative_in_rx(name: str) -> None:
    first_line = (inspect.getdoc(getattr(ops, name)) or "").partition("\n")[0]
    relatives = re.findall(r"``(\w+)``", "".join(re.findall(r"\(like [^)]*", first_line)))
    assert relatives, first_line
    assert all(hasattr(rxops, relative) or hasattr(rx, relative) for relative in relatives if relative != "ref_count")


@pytest.mark.parametrize("name", SCHEDULED)
def test_its_scheduler_is_given_by_name(name: str) -> None:
    parameter = inspect.signature(getattr(ops, name)).parameters["scheduler"]
    assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
    assert parameter.default is None


def test_only_creation_operators_are_called_from_something() -> None:
    assert [name for name in ops.__all__ if name.startswith("from_")] == ["from_cassette", "from_log"]


@pytest.mark.parametrize("name", TIMED)
def test_a_timedelta_means_the_same_as_its_seconds(name: str) -> None:
    def play(seconds: object) -> list[tuple[float, str]]:
        clock = TestScheduler()
        seen: list[tuple[float, str]] = []

        def note(signal: object) -> None:
            seen.append((clock.clock, str(signal)))

        source = rx.concat(rx.of("ab", "cd"), rx.never())
        source.pipe(TIMED[name](seconds, clock)).subscribe(note, note)
        clock.advance_by(20)
        return seen

    numbers, times = play(5), play(timedelta(seconds=5))
    assert numbers
    assert times == numbers


@pytest.mark.parametrize("name", TIMED)
@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), timedelta(), timedelta(seconds=-1)])
def test_a_time_that_is_not_above_0_is_refused(name: str, seconds: object) -> None:
    with pytest.raises(
        ValueError, match=rf"^{name}\(\w+\) must be a number of seconds \(or a timedelta\) above 0; got"
    ):
        TIMED[name](seconds, None)


@pytest.mark.parametrize("name", TIMED)
def test_a_time_that_is_something_else_is_refused(name: str) -> None:
    with pytest.raises(TypeError, match=rf"^{name}\(\w+\) is not a number of seconds \(or a timedelta\): '5'"):
        TIMED[name]("5", None)


@pytest.mark.parametrize("name", TIMED)
def test_without_a_loop_and_a_scheduler_the_stream_fails_and_says_what_to_do(name: str) -> None:
    (error,) = signals_of(rx.never().pipe(TIMED[name](5, None))).errors
    assert re.match(rf"{name}.* needs a clock, and no event loop runs here: .* or pass scheduler=", str(error))


def test_the_times_of_share_log_and_retry_stream_may_be_timedeltas_too() -> None:
    clock = TestScheduler()
    gone: list[float] = []
    source = rx.never().pipe(rxops.finally_action(lambda: gone.append(clock.clock)))
    source.pipe(ops.share_log(timedelta(seconds=3), scheduler=clock)).subscribe().dispose()
    begun: list[float] = []

    def fail(_: object) -> Observable[Any]:
        begun.append(clock.clock)
        return rx.throw(OSError())

    retrying = ops.retry_stream(2, delay=lambda number: timedelta(seconds=number), scheduler=clock)
    rx.defer(fail).pipe(retrying).subscribe(on_error=lambda _: None)
    clock.advance_by(10)
    assert (gone, begun) == ([3.0], [0.0, 1.0, 3.0])


def test_each_operator_has_a_file_of_its_own_or_shares_it_with_those_of_the_same_first_word() -> None:
    files = {path.stem.removeprefix("_") for path in Path(inspect.getfile(ops)).parent.glob("_[a-z]*.py")}
    homes = {name: getattr(ops, name).__module__.rpartition("._")[2] for name in FUNCTIONS}
    assert set(homes.values()) == files
    assert all(home == name or home.partition("_")[0] == name.partition("_")[0] for name, home in homes.items())
