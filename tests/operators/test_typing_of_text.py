"""What type checkers infer for operators in a pipe. mypy and pyright check it; running it only shows that it is no
nonsense."""

from typing import Any, assert_type

import reactivex as rx
from pydantic import BaseModel
from reactivex import Observable, operators as rxops

from rxflow import operators as ops
from rxflow.tools import tool
from rxflow.types import CompletedToolCall, Lane
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import Event, ReasoningChunk
from tests.scripted import Scripted
from tests.team import solo


class Trip(BaseModel):
    place: str = "Lisbon"


@tool
def look(where: str) -> str:
    """Look somewhere."""
    return where


CREW = solo(Scripted("Hello"))


def place(trip: Trip) -> str:
    return trip.place


def read(lane: Lane[StreamChunk]) -> Observable[StreamChunk]:
    return lane.pipe(ops.words())


def test_selections_have_types_of_their_own() -> None:
    assert_type(CREW.observe().pipe(ops.text()), Observable[StreamChunk])
    assert_type(CREW.events().pipe(ops.tool_call_deltas()), Observable[StreamChunk])
    assert_type(CREW.observe().pipe(ops.reasoning()), Observable[ReasoningChunk])
    assert_type(CREW.observe().pipe(ops.tool_calls(look, trip=Trip)), Observable[CompletedToolCall])


def test_what_is_read_has_the_models_type() -> None:
    assert_type(CREW.observe().pipe(ops.partial_json(Trip)), Observable[Trip])
    assert_type(rx.of("{}").pipe(ops.partial_json(Trip), rxops.map(place)), Observable[str])
    assert_type(CREW.observe().pipe(ops.tool_arguments(Trip, tool="trip")), Observable[Trip])
    assert_type(CREW.observe().pipe(ops.tool_arguments(tool="trip")), Observable[dict[str, Any]])


def test_what_is_kept_keeps_its_type() -> None:
    assert_type(CREW.observe().pipe(ops.only_task("a", CREW.tasks[0])), Observable[StreamChunk])
    assert_type(CREW.events().pipe(ops.only_agent("a", CREW.agents[0])), Observable[Event])
    assert_type(rx.of("a").pipe(ops.only_method("a")), Observable[str])


def test_lanes_hold_what_was_selected() -> None:
    assert_type(CREW.observe().pipe(ops.by_task()), Observable[Lane[StreamChunk]])
    assert_type(CREW.events().pipe(ops.by_agent()), Observable[Lane[Event]])
    assert_type(CREW.observe().pipe(ops.text(), ops.by_method()), Observable[Lane[StreamChunk]])
    assert_type(CREW.observe().pipe(ops.by_task(), rxops.flat_map(read)), Observable[StreamChunk])


def test_what_is_shaped_or_guarded_keeps_its_type() -> None:
    assert_type(CREW.observe().pipe(ops.words(), ops.sentences(), ops.lines()), Observable[StreamChunk])
    assert_type(CREW.events().pipe(ops.coalesce(characters=9), ops.accumulate(), ops.smooth()), Observable[Event])
    assert_type(rx.of("a").pipe(ops.redact("a", lambda match: match[0]), ops.stop_at("b")), Observable[str])
    assert_type(CREW.observe().pipe(ops.hold_back(judge, until=ops.sentences())), Observable[StreamChunk])


async def judge(text: str) -> ops.Verdict:
    return ops.Stop("empty") if not text else ops.Release()
