"""``frames``: events as JSON that interfaces route and send on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import reactivex as rx
from hypothesis import given, strategies as st
from reactivex import operators as rxops

from rxflow import operators as ops
from rxflow.operators._core.run_log import Log
from rxflow.runs import MemoryLog, SQLiteLog
from rxflow.testing import Marbles, ScriptedLLM, check_operator, tool_call
from rxflow.tools import tool
from rxflow.types.chunks import Origin
from rxflow.types.events import Custom, FlowFinished, FlowStarted, Heartbeat, MethodFinished, MethodStarted
from rxflow.types.frames import Channel, StreamFrame
from rxflow.types.results import UsageMetrics
from tests.operators.pieces import said
from tests.signals import signals_of
from tests.spans import check_frames
from tests.team import solo

FLOW, METHOD = Origin(span_id="r/0", namespace=("Trip",)), Origin(span_id="r/1", parent_span_id="r/0")
EVENTS: dict[str, Any] = {
    "S": FlowStarted(origin=FLOW, inputs={"topic": "tides"}, seq=0, at=1.0),
    "m": MethodStarted(origin=METHOD, seq=1, at=1.0),
    "a": said("a", span_id="r/1", seq=2),
    "e": MethodFinished(origin=METHOD, result={1}, seq=3, at=2.0),
    "F": FlowFinished(origin=FLOW, result="done", usage=UsageMetrics(), seq=4, at=2.0),
}


@tool
def look() -> str:
    """Look."""
    return "seen"


def seq_of(frame: StreamFrame) -> int:
    return frame.seq


def said_by(frames: list[StreamFrame]) -> list[Any]:
    """All but their ids, which are made anew each time."""
    order = {frame.id: number for number, frame in enumerate(frames)}
    return [
        (frame.model_dump(exclude={"id", "parent_id", "previous_id"}), order.get(frame.parent_id or ""))
        for frame in frames
    ]


def as_seen(frame: StreamFrame) -> tuple[int, str, Channel, str | None]:
    return frame.seq, frame.type, frame.channel, frame.content


def test_each_event_is_a_frame_at_once(marbles: Marbles) -> None:
    source = marbles.cold("--S-m-a--(eF|)", EVENTS)

    marbles.expect(source.pipe(ops.frames(), rxops.map(as_seen))).to_be(
        "--S-m-a--(eF|)",
        {
            "S": (0, "flow_started", Channel.FLOW, ""),
            "m": (1, "method_execution_started", Channel.FLOW, ""),
            "a": (2, "llm_stream_chunk", Channel.LLM, "a"),
            "e": (3, "method_execution_finished", Channel.FLOW, ""),
            "F": (4, "flow_finished", Channel.FLOW, ""),
        },
    )


def test_an_error_passes_after_the_frames_before_it(marbles: Marbles) -> None:
    source = marbles.cold("--S-m-#", EVENTS, error := OSError("gone"))

    marbles.expect(source.pipe(ops.frames(), rxops.map(seq_of))).to_be("--S-m-#", {"S": 0, "m": 1}, error)


def test_disposing_disposes_the_source(marbles: Marbles) -> None:
    source = marbles.cold("--S-m-a--", EVENTS)

    marbles.expect(source.pipe(ops.frames(), rxops.map(seq_of)), "^----!").to_be("--S-m", {"S": 0, "m": 1})
    marbles.expect_subscriptions(source).to_be("^----!")


def test_a_frame_names_the_one_that_began_the_span_around_it() -> None:
    frames = signals_of(rx.of(*EVENTS.values()).pipe(ops.frames())).items

    flow, method, chunk, finished, end = frames
    assert (flow.parent_id, method.parent_id, chunk.parent_id) == (None, flow.id, method.id)
    assert (finished.parent_id, end.parent_id) == (method.id, flow.id)


def test_what_is_not_an_event_is_an_error() -> None:
    assert [type(error) for error in signals_of(rx.of("a string").pipe(ops.frames())).errors] == [TypeError]


def test_each_subscription_begins_anew() -> None:
    source = rx.of(*EVENTS.values()).pipe(ops.frames())
    one, other = signals_of(source).items, signals_of(source).items
    assert said_by(one) == said_by(other)
    assert {frame.id for frame in one}.isdisjoint(frame.id for frame in other)


def test_it_keeps_the_rules() -> None:
    check_operator(ops.frames(), items=list(EVENTS.values()), key=seq_of)


def crew() -> Any:
    return solo(ScriptedLLM([tool_call("look")], ["It ", "is"]), agent={"tools": [look]})


def test_the_frames_of_a_run_are_json_and_equal_to_themselves_after_it() -> None:
    frames = signals_of(crew().events().pipe(ops.frames())).items

    assert [frame.seq for frame in frames] == list(range(len(frames)))
    check_frames(frames)
    for frame in frames:
        assert json.loads(frame.model_dump_json()) == frame.model_dump(mode="json")


def test_it_takes_the_events_behind_a_selection() -> None:
    types = [frame.type for frame in signals_of(crew().observe().pipe(ops.frames())).items]
    assert types == [frame.type for frame in signals_of(crew().events().pipe(ops.frames())).items]


@pytest.fixture(params=["memory", "sqlite"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    log = MemoryLog() if request.param == "memory" else SQLiteLog(tmp_path / "runs.db")
    yield log
    log.close()


def test_events_out_of_a_log_give_the_frames_of_their_run(log: Log) -> None:
    live = signals_of(crew().events().pipe(ops.log_to(log, "r"), ops.frames())).items

    replayed = signals_of(ops.from_log(log, "r").pipe(ops.frames())).items

    assert said_by(replayed) == said_by(live)


@given(st.lists(st.sampled_from([*EVENTS.values(), Heartbeat(origin=FLOW, silent_for=1.0)])), st.binary())
def test_any_events_give_frames_that_json_carries(events: list[Any], value: bytes) -> None:
    events = [*events, Custom(origin=METHOD, name="n", value={"raw": value, "set": {1}})]

    frames = signals_of(rx.of(*events).pipe(ops.frames())).items

    assert len(frames) == len(events)
    assert [StreamFrame.model_validate_json(frame.model_dump_json()) for frame in frames] == frames
