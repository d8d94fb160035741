"""Batches of events as few rows, and back."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import reactivex as rx
from hypothesis import given, strategies as st
from reactivex import Observable, operators as rxops

from rxflow import operators as ops
from rxflow.operators._core.blocks import MAX_ROW_BYTES, MAX_ROW_EVENTS, pack, renumber, unpack
from rxflow.operators._core.run_log import End, EventsDroppedError, Writer
from rxflow.runs import SQLiteLog
from rxflow.types.chunks import Origin, ToolCallChunk
from rxflow.types.codec import CodecError, decode, encode
from rxflow.types.events import Event, MethodStarted

ORIGINS = [Origin(task_name=name, llm_call_id=name, namespace=("Trip", name)) for name in ("plan", "write")]
TEXTS = st.text(alphabet=st.characters(exclude_categories=[]), max_size=5) | st.just("\n") | st.just("long" * 2000)


@st.composite
def batches(draw: st.DrawFn) -> list[Event]:
    """Events that go on from some number; half characters, line ends and changes of labels among them."""
    seq, events = draw(st.integers(0, 5)), list[Event]()
    for origin, kind, text in draw(st.lists(st.tuples(st.sampled_from(ORIGINS), st.sampled_from("tttce"), TEXTS))):
        at = draw(st.floats(0, 2e9))
        if kind == "e":
            events.append(MethodStarted(origin=origin, seq=seq, at=at))
        else:
            call = ToolCallChunk(tool_id="1", tool_name="add", arguments=text)
            chunk = origin.chunk(text) if kind == "t" else origin.tool_chunk(call)
            events.append(chunk.with_seq(seq, at))
        seq += 1
    return events


@given(batches(), st.integers(-1, 40))
def test_what_is_unpacked_is_what_a_line_for_each_event_would_give(events: list[Event], after: int) -> None:
    rows = list(pack(events))

    unpacked = [event for last, lines in rows if last > after for event in unpack(lines, after)]

    assert unpacked == [decode(encode(event)) for event in events if event.seq > after]


@given(batches())
def test_so_is_what_a_run_has_written(events: list[Event]) -> None:
    numbered = [renumber(event, seq) for seq, event in enumerate(events)]
    with TemporaryDirectory() as folder, closing(SQLiteLog(Path(folder, "runs.db"))) as log:
        source: Observable[Any] = rx.from_(events)
        source.pipe(ops.log_to(log, "r"), rxops.count()).run()
        page = log.read("r", -1, 1000).result()

    assert page.events == [decode(encode(event)) for event in numbered]


def test_chunks_with_the_same_labels_share_a_line() -> None:
    chunks = [ORIGINS[0].chunk(f"{seq} ").with_seq(seq, 1.5) for seq in range(9)]
    other = ORIGINS[1].chunk("other").with_seq(9, 1.5)

    ((last, lines),) = pack([*chunks, other])

    assert last == 9
    assert lines.splitlines(keepends=True)[1:] == [encode(chunks[0]), encode(other)]


def test_a_row_has_at_most_so_many_events() -> None:
    chunks = [ORIGINS[0].chunk(f"{seq} ").with_seq(seq, 1.5) for seq in range(MAX_ROW_EVENTS + 2)]

    assert [last for last, _ in pack(chunks)] == [MAX_ROW_EVENTS - 1, MAX_ROW_EVENTS + 1]


def test_an_event_that_is_large_has_a_row_of_its_own() -> None:
    texts = ["a", "b" * MAX_ROW_BYTES, "c", "d"]
    chunks = [ORIGINS[0].chunk(text).with_seq(seq, 1.5) for seq, text in enumerate(texts)]

    assert [last for last, _ in pack(chunks)] == [0, 1, 3]


@pytest.mark.parametrize("fields", [{"at": float("inf")}, {"at": 3}, {"content": "x" * 10_000}, {"replayed": True}])
def test_a_chunk_that_does_not_fit_stands_alone(fields: dict[str, Any]) -> None:
    chunks = [ORIGINS[0].chunk("a").with_seq(seq, 1.5) for seq in range(3)]
    chunks[1] = chunks[1].model_copy(update=fields)

    ((_, lines),) = pack(chunks)

    assert lines.splitlines(keepends=True) == [encode(chunk) for chunk in chunks]
    assert unpack(lines, -1) == [decode(encode(chunk)) for chunk in chunks]


class TestInSQLite:
    def test_every_position_in_a_block_can_be_read_on_from(self, tmp_path: Path) -> None:
        chunks = [ORIGINS[0].chunk(f"{seq} ").with_seq(seq, 1.5) for seq in range(20)]
        writer, log = Writer("r"), SQLiteLog(tmp_path / "runs.db")
        for batch in (chunks[:7], chunks[5:], []):  # the second one has two that came before
            log.append(writer, batch, None if batch else End("completed")).result()

        for after in range(-1, 20):
            for limit in (1, 3, 100):
                assert log.read("r", after, limit).result().events == chunks[after + 1 : after + 1 + limit]
        log.close()

    def test_max_events_counts_events_and_not_lines(self, tmp_path: Path) -> None:
        chunks = [ORIGINS[0].chunk(f"{seq} ").with_seq(seq, 1.5) for seq in range(20)]
        log = SQLiteLog(tmp_path / "runs.db", max_events=6)
        log.append(Writer("r"), chunks, End("completed")).result()

        assert log.look_up("r").result().first == 14
        assert log.read("r", 13, 100).result().events == chunks[14:]
        with pytest.raises(EventsDroppedError):
            log.read("r", 12, 100).result()
        log.close()


@pytest.mark.parametrize("damage", ['{"block":[["a"', '{"block":1}', '{"block":[]}'])
def test_a_damaged_row_is_an_error_of_the_codec(damage: str) -> None:
    chunks = [ORIGINS[0].chunk(text).with_seq(seq, 1.0) for seq, text in enumerate("ab")]
    ((_, row),) = pack(chunks)
    _, first = row.splitlines(keepends=True)
    with pytest.raises(CodecError, match="not a block of chunks"):
        unpack(damage.encode() + b"\n" + first, -1)
