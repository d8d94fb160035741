"""``from_log``: the events of a run, from the log that its process writes."""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import reactivex as rx
from reactivex import operators as rxops

from rxflow import operators as ops
from rxflow.runs import EventsDroppedError, MemoryLog, SQLiteLog
from rxflow.testing import Marbles, ScriptedLLM, check_source
from rxflow.types.chunks import StreamChunk
from rxflow.types.codec import CodecError
from rxflow.types.events import Event
from tests.operators.pieces import said
from tests.signals import signals_of

CHUNKS = {text: said(text, seq=number) for number, text in enumerate("abcd")}


def filled(items: Sequence[Any], log: MemoryLog | None = None) -> MemoryLog:
    log = MemoryLog() if log is None else log
    signals_of(rx.from_iterable(items).pipe(ops.log_to(log, "r")))
    return log


@pytest.mark.slow
def test_it_keeps_the_rules() -> None:
    log = filled(list(CHUNKS.values()))
    check_source(lambda: ops.from_log(log, "r"))


class TestMarbles:
    def test_late_readers_get_what_there_is_and_then_what_comes(self, marbles: Marbles) -> None:
        log = MemoryLog()
        diagram = "--a--b-----c--d|"
        writing = marbles.expect(marbles.cold(diagram, CHUNKS).pipe(ops.log_to(log, "r")))
        all_of_it = marbles.expect(ops.from_log(log, "r"), "------^")
        rest = marbles.expect(ops.from_log(log, "r", after=1), "------^")
        all_of_it.to_be("------(ab)-c--d|", CHUNKS)
        rest.to_be("-----------c--d|", CHUNKS)
        writing.to_be(diagram, CHUNKS)

    def test_disposing_only_leaves(self, marbles: Marbles) -> None:
        log = MemoryLog()
        diagram = "--a--b--c--d|"
        writing = marbles.expect(marbles.cold(diagram, CHUNKS).pipe(ops.log_to(log, "r")))
        reading = marbles.expect(ops.from_log(log, "r"), "---^---!")
        reading.to_be("---a-b", CHUNKS)
        writing.to_be(diagram, CHUNKS)


class TestReading:
    def test_our_operators_work_on_it_as_on_the_run(self) -> None:
        log = MemoryLog()
        signals_of(ScriptedLLM("so-be-it|").observe("Hello").pipe(ops.log_to(log, "r")))
        words = signals_of(ops.from_log(log, "r").pipe(ops.text(), ops.words())).items
        assert [str(word) for word in words] == ["sobeit"]

    @pytest.mark.parametrize("cut", range(-1, 4))
    def test_a_reader_that_goes_on_behind_a_chunk_sees_each_once(self, cut: int) -> None:
        log = filled(list(CHUNKS.values()))
        before = [event for event in signals_of(ops.from_log(log, "r")).items if event.seq <= cut]
        after = signals_of(ops.from_log(log, "r", after=cut)).items
        assert before + after == list(CHUNKS.values())

    def test_a_plain_loop_reads_it_too(self) -> None:
        log = filled(list(CHUNKS.values()))
        with ops.from_log(log, "r").pipe(ops.text(), ops.to_output()) as output:
            assert [str(each) for each in output] == ["a", "b", "c", "d"]

    def test_thousands_of_events_leave_the_loop_to_others(self) -> None:
        log = filled([said("x", seq=number) for number in range(5000)])

        async def main() -> tuple[int, int]:
            turns, reading = 0, asyncio.ensure_future(_count(log))
            while not reading.done():
                turns += 1
                await asyncio.sleep(0)
            return reading.result(), turns

        count, turns = asyncio.run(main())
        assert count == 5000
        assert turns > 10


async def _count(log: MemoryLog) -> int:
    return len(await ops.from_log(log, "r").pipe(rxops.to_list()))


class TestErrors:
    def test_an_unknown_run(self) -> None:
        (error,) = signals_of(ops.from_log(MemoryLog(), "r")).errors
        assert type(error) is LookupError
        assert str(error) == "no run 'r': it never began in this store, or was forgotten"

    def test_beyond_the_end(self) -> None:
        (error,) = signals_of(ops.from_log(filled(list(CHUNKS.values())), "r", after=9)).errors
        assert type(error) is ValueError
        assert str(error) == "after=9 is beyond the end of run 'r', whose last event is 3"

    def test_events_that_are_not_kept(self) -> None:
        log = filled(list(CHUNKS.values()), MemoryLog(max_events=2))
        (error,) = signals_of(ops.from_log(log, "r")).errors
        assert isinstance(error, EventsDroppedError)
        assert str(error) == "run 'r' keeps the events from 2 on (max_events); those after -1 are gone"
        assert [str(item) for item in signals_of(ops.from_log(log, "r", after=1)).items] == ["c", "d"]

    def test_the_runs_own_error_after_what_had_arrived(self) -> None:
        log = MemoryLog()
        source = rx.concat(rx.of(said("a")), rx.throw(ValueError("no")))
        signals_of(source.pipe(ops.log_to(log, "r")))
        seen = signals_of(ops.from_log(log, "r"))
        assert [str(item) for item in seen.items if isinstance(item, StreamChunk)] == ["a"]
        assert seen.ends == [repr(ValueError("no"))]

    def test_an_event_that_cannot_be_read_is_not_reported_as_lost(self, tmp_path: Path) -> None:
        log = SQLiteLog(tmp_path / "runs.db")
        signals_of(rx.range(2000).pipe(rxops.map(lambda seq: said("x", seq=seq)), ops.log_to(log, "r")))
        seen: list[int] = []

        def read(event: Event) -> None:
            if not seen:
                with closing(sqlite3.connect(tmp_path / "runs.db")) as db, db:
                    db.execute("UPDATE events SET lines = x'7B7D' WHERE last = (SELECT max(last) FROM events)")
            seen.append(event.seq)

        (error,) = signals_of(ops.from_log(log, "r").pipe(rxops.do_action(read))).errors
        log.close()
        assert isinstance(error, CodecError)
        assert seen == list(range(len(seen)))
        assert len(seen) > 1
