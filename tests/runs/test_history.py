"""How the memory store keeps events: readers cannot tell what is packed from what is not, but by identity."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, strategies as st

from rxflow.operators._core.run_log import Writer
from rxflow.runs import MemoryLog
from rxflow.runs.memory import MAX_UNREAD_EVENTS, MIN_PACKED_EVENTS
from rxflow.types.chunks import Origin, StreamChunk, ToolCallChunk
from rxflow.types.events import Event, MethodStarted

ORIGINS = [Origin(task_name=name, llm_call_id=name, namespace=("Trip", name)) for name in ("plan", "write")]
KINDS = ("text", "tool", "event", "changed", "the user's", "of another attempt")
RUNS = st.lists(
    st.tuples(st.sampled_from(ORIGINS), st.sampled_from(KINDS), st.integers(1, 3 * MIN_PACKED_EVENTS)), max_size=6
)


def make_event(origin: Origin, kind: str, seq: int) -> Event:
    text, at = f"{seq} ", seq / 8
    if kind == "tool":
        return origin.tool_chunk(ToolCallChunk(tool_id="1", tool_name="add", arguments=text)).with_seq(seq, at)
    if kind == "event":
        return MethodStarted(origin=origin, seq=seq, at=at)
    if kind == "the user's":
        return StreamChunk(content=text, seq=seq, at=at)
    chunk = origin.chunk(text).with_seq(seq, at)
    if kind == "changed":
        chunk.task_name = "changed"
    return chunk.with_attempt(2) if kind == "of another attempt" else chunk


def seen_of(events: Sequence[Event]) -> list[Any]:
    return [vars(event) if isinstance(event, StreamChunk) else event for event in events]


@given(RUNS, st.none() | st.integers(1, 200), st.data())
def test_every_read_gives_what_was_written(
    runs: list[tuple[Origin, str, int]], max_events: int | None, data: st.DataObject
) -> None:
    kinds = [(origin, kind) for origin, kind, count in runs for _ in range(count)]
    events = [make_event(origin, kind, seq) for seq, (origin, kind) in enumerate(kinds)]
    expected = seen_of([make_event(origin, kind, seq) for seq, (origin, kind) in enumerate(kinds)])
    log, writer, written = MemoryLog(max_events=max_events), Writer("r"), 0
    log.append(writer, []).result()
    while written < len(events):
        count = data.draw(st.integers(1, len(events) - written))
        log.append(writer, events[written : written + count]).result()
        written += count
        first = log.look_up("r").result().first
        assert first == max(0, written - (max_events or written))
        after, limit = data.draw(st.integers(first - 1, written - 1)), data.draw(st.integers(1, 300))
        page = log.read("r", after, limit).result()
        assert seen_of(page.events) == expected[after + 1 : written][:limit]
        assert page.last == written - 1


def say(count: int, first: int = 0) -> list[StreamChunk]:
    return [ORIGINS[0].chunk(f"tok{seq % 7} ").with_seq(seq, 0.5) for seq in range(first, first + count)]


def test_a_reader_that_keeps_up_gets_the_events_themselves_and_a_late_one_equal_ones() -> None:
    log, writer, live, chunks = MemoryLog(), Writer("r"), list[Event](), say(10 * MIN_PACKED_EVENTS)
    log.append(writer, []).result()
    for first in range(0, len(chunks), 100):
        live += log.read("r", len(live) - 1, 1000).result().events
        log.append(writer, chunks[first : first + 100]).result()
    live += log.read("r", len(live) - 1, 1000).result().events
    late = log.read("r", -1, 1000).result().events

    assert all(one is other for one, other in zip(live, chunks, strict=True))
    assert late == chunks
    assert late[0] is not chunks[0]
    live[0].task_name = "changed"  # type: ignore[union-attr]  # a chunk
    assert log.read("r", -1, 1).result().events == say(1)


@pytest.mark.slow
def test_a_reader_that_stopped_reading_does_not_keep_events_as_they_are() -> None:
    log, writer = MemoryLog(), Writer("r")
    log.append(writer, say(1)).result()
    log.read("r", -1, 1).result()  # it never comes back
    gc.collect()
    before = len(gc.get_objects())
    for first in range(1, 2 * MAX_UNREAD_EVENTS, 100):
        log.append(writer, say(100, first)).result()
    gc.collect()

    assert len(gc.get_objects()) - before < MAX_UNREAD_EVENTS / 10


@pytest.mark.slow
def test_a_kept_chunk_is_small_and_no_work_for_the_garbage_collector() -> None:
    log, writer, count = MemoryLog(), Writer("r"), 200 * MIN_PACKED_EVENTS
    log.append(writer, say(1)).result()
    gc.collect()
    objects = len(gc.get_objects())
    tracemalloc.start()
    try:
        for first in range(1, count, 100):
            log.append(writer, say(100, first)).result()
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert size / count < 120
    assert (len(gc.get_objects()) - objects) / count < 0.1
