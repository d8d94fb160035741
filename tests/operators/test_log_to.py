"""``log_to``: a run's events into a log outside the process."""

import asyncio
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import reactivex as rx
from reactivex import Subject, operators as rxops

from rxflow import operators as ops
from rxflow.operators._core.log_writer import MAX_WAITING_EVENTS
from rxflow.operators._core.run_log import End, FallenBehindError, Log, Writer
from rxflow.runs import EventTooLargeError, MemoryLog, RunCancelled, RunExistsError, SQLiteLog, StoreError
from rxflow.testing import Marbles, ScriptedLLM, check_operator
from rxflow.types.chunks import Origin, StreamChunk
from rxflow.types.events import Custom, Event, LLMCancelled, LLMFinished, LLMStarted
from tests.gate import poll
from tests.operators.endings import stubborn
from tests.operators.pieces import said
from tests.signals import Signals, signals_of
from tests.spans import check_laws

ORIGINS = [Origin(task_name=name, llm_call_id=name) for name in ("plan", "write")]
CHUNKS = {"a": said("a"), "b": said("b", seq=1)}


class SlowLog(MemoryLog):
    """Replies when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[Event]] = []
        self.replies: list[Future[None]] = []

    def append(self, writer: Writer, events: Sequence[Event], end: End | None = None) -> Future[None]:
        super().append(writer, events, end).result()
        self.batches.append(list(events))
        self.replies.append(Future())
        return self.replies[-1]


class AnsweringLog(MemoryLog):
    """Writes in a thread of its own, as the stores of files do."""

    def __init__(self) -> None:
        super().__init__()
        self.thread = ThreadPoolExecutor(1)

    def append(self, writer: Writer, events: Sequence[Event], end: End | None = None) -> Future[None]:
        return self.thread.submit(lambda: super(AnsweringLog, self).append(writer, events, end).result())


class HoldingLog(MemoryLog):
    """Has nothing until it is told to write."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[tuple[Future[None], Callable[[], Any]]] = []

    def append(self, writer: Writer, events: Sequence[Event], end: End | None = None) -> Future[None]:
        reply: Future[None] = Future()
        self.held.append((reply, lambda: super(HoldingLog, self).append(writer, events, end).result()))
        return reply

    def write(self) -> None:
        """Write what is held, and what comes because of that."""
        while self.held:
            reply, write = self.held.pop(0)
            write()
            reply.set_result(None)


class FullLog(MemoryLog):
    """Refuses everything."""

    def append(self, writer: Writer, events: Sequence[Event], end: End | None = None) -> Future[None]:
        reply: Future[None] = Future()
        reply.set_exception(StoreError("the disk is full"))
        return reply


class BrokenLog(MemoryLog):
    """Breaks down ``times`` times, and then writes."""

    def __init__(self, break_down: Callable[[], Future[None]], times: int = sys.maxsize) -> None:
        super().__init__()
        self.break_down = break_down
        self.times = times

    def append(self, writer: Writer, events: Sequence[Event], end: End | None = None) -> Future[None]:
        self.times -= 1
        return super().append(writer, events, end) if self.times < 0 else self.break_down()


def raise_gone() -> Future[None]:
    raise OSError("gone")


def cancel_reply() -> Future[None]:
    reply: Future[None] = Future()
    reply.cancel()
    return reply


def events_in(log: Log, run_id: str = "r") -> list[Any]:
    return list(log.read(run_id, -1, 100_000).result().events)


@pytest.mark.slow
def test_it_keeps_the_rules() -> None:
    chunks = [said(text, seq=number) for number, text in enumerate("abcd")]
    check_operator(lambda source: rx.defer(lambda _: source.pipe(ops.log_to(MemoryLog(), "r"))), items=chunks)


class TestMarbles:
    def test_the_stream_is_unchanged(self, marbles: Marbles) -> None:
        log = MemoryLog()
        marbles.expect(marbles.cold("--a--b----|", CHUNKS).pipe(ops.log_to(log, "r"))).to_be("--a--b----|", CHUNKS)
        assert (events_in(log), log.look_up("r").result().status) == (list(CHUNKS.values()), "completed")

    def test_its_error_is_in_the_log(self, marbles: Marbles) -> None:
        log = MemoryLog()
        source = marbles.cold("--a--#", CHUNKS, ValueError("no"))
        marbles.expect(source.pipe(ops.log_to(log, "r"))).to_be("--a--#", CHUNKS, ValueError("no"))
        page = log.read("r", -1, 9).result()
        assert (page.status, str(page.error)) == ("failed", "no")

    def test_so_is_a_reader_that_leaves(self, marbles: Marbles) -> None:
        log = MemoryLog()
        marbles.expect(marbles.cold("--a--b--|", CHUNKS).pipe(ops.log_to(log, "r")), "^---!").to_be("--a", CHUNKS)
        page = log.read("r", -1, 9).result()
        assert (page.status, page.reason) == ("cancelled", "its subscription was disposed")

    def test_so_is_one_that_leaves_a_source_that_raises_when_it_is_disposed(
        self, reported: list[type[BaseException]]
    ) -> None:
        log = MemoryLog()
        stubborn(rx.never()).pipe(ops.log_to(log, "r")).subscribe().dispose()
        page = log.read("r", -1, 9).result()
        assert (page.status, page.reason) == ("cancelled", "its subscription was disposed")
        assert reported == [ZeroDivisionError]

    def test_others_read_it_live(self, marbles: Marbles) -> None:
        log = MemoryLog()
        writing = marbles.expect(marbles.cold("--a--b--|", CHUNKS).pipe(ops.log_to(log, "r")))
        reading = marbles.expect(ops.from_log(log, "r"), "---^")
        writing.to_be("--a--b--|", CHUNKS)
        reading.to_be("---a-b--|", CHUNKS)


class TestWhatIsWritten:
    def test_everything_if_only_chunks_are_selected(self) -> None:
        log = MemoryLog()
        signals_of(ScriptedLLM("he-llo|").observe("Hello").pipe(ops.log_to(log, "r")))
        kinds: list[Any] = [type(event) for event in events_in(log)]
        assert (kinds[0], kinds[-1]) == (LLMStarted, LLMFinished)
        assert [event.seq for event in events_in(log)] == list(range(len(kinds)))

    def test_numbers_go_on_from_0_without_gaps(self) -> None:
        log = MemoryLog()
        signals_of(rx.of(said("a", seq=7), said("b", seq=7)).pipe(ops.log_to(log, "r")))
        assert [event.seq for event in events_in(log)] == [0, 1]

    def test_the_first_at_once_then_what_has_come_while_the_last_batch_was_written(self) -> None:
        log, source = SlowLog(), Subject[Any]()
        seen = Signals()
        seen.subscribe_to(source.pipe(ops.log_to(log, "r")))
        for number in range(4):
            source.on_next(said(str(number), seq=number))
        assert [len(batch) for batch in log.batches] == [1]
        log.replies[0].set_result(None)
        assert [len(batch) for batch in log.batches] == [1, 3]
        source.on_completed()
        assert seen.ends == []
        log.replies[1].set_result(None)
        log.replies[2].set_result(None)
        assert seen.ends == ["completed"]

    def test_an_event_passes_on_before_a_slow_log_has_it_but_the_end_does_not(self) -> None:
        log, source = HoldingLog(), Subject[Any]()
        seen = Signals()
        seen.subscribe_to(source.pipe(ops.log_to(log, "r")))
        source.on_next(said("a"))
        source.on_next(said("b", seq=1))
        source.on_completed()
        assert ([str(item) for item in seen.items], seen.ends) == (["a", "b"], [])
        with pytest.raises(LookupError):
            log.look_up("r").result()
        log.write()
        assert ([str(event) for event in events_in(log)], seen.ends) == (["a", "b"], ["completed"])

    def test_so_does_not_an_error(self) -> None:
        log, source = HoldingLog(), Subject[Any]()
        seen = Signals()
        seen.subscribe_to(source.pipe(ops.log_to(log, "r")))
        source.on_next(said("a"))
        source.on_error(ValueError("no"))
        assert seen.ends == []
        log.write()
        assert (log.look_up("r").result().status, seen.ends) == ("failed", [repr(ValueError("no"))])

    def test_what_is_open_is_closed_in_the_log_when_it_is_disposed(self) -> None:
        log = MemoryLog()

        async def main() -> None:
            begun = asyncio.Event()
            source = ScriptedLLM("he 5000ms llo|").observe("Hello").pipe(ops.log_to(log, "r"))
            running = source.subscribe(lambda _: begun.set())
            await begun.wait()
            await asyncio.to_thread(running.dispose)

        asyncio.run(main())
        check_laws(events_in(log))
        ended = events_in(log)[-1]
        assert (type(ended), ended.reason, ended.text) == (LLMCancelled, "its subscription was disposed", "he")

    def test_chunks_are_those_that_were_emitted_also_if_a_program_changes_its_own(self) -> None:
        log = MemoryLog()

        def change(chunk: StreamChunk) -> None:
            chunk.content, chunk.task_name = "changed", "changed"

        chunks = [ORIGINS[0].chunk(f"{seq} ").with_seq(seq, 1.5) for seq in range(5)]
        expected = [chunk.model_copy() for chunk in chunks]
        rx.from_(chunks).pipe(ops.log_to(log, "r")).subscribe(change)
        assert events_in(log) == expected

    def test_nothing_is_lost_between_the_thread_that_emits_and_the_one_that_writes(self) -> None:
        log, events = AnsweringLog(), list[Any]()
        for seq in range(30_000):
            origin, is_chunk = ORIGINS[seq // 100 % 2], seq % 7 > 0 or seq % 700 > 300
            event = origin.chunk(f"{seq} ") if is_chunk else LLMStarted(origin=origin, model="m", messages=())
            events.append(event.with_seq(seq, seq / 8) if isinstance(event, StreamChunk) else replace(event, seq=seq))
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            seen = Signals().until_ended(rx.from_(events).pipe(ops.log_to(log, "r")))
            log.thread.shutdown()
        finally:
            sys.setswitchinterval(interval)
        assert (seen.items, events_in(log)) == (events, events)
        assert log.look_up("r").result().status == "completed"

    def test_what_is_not_an_event_is_refused(self) -> None:
        source: Subject[Any] = Subject()
        seen = Signals()
        seen.subscribe_to(source.pipe(ops.log_to(MemoryLog(), "r")))
        source.on_next("a")
        assert seen.ends == [repr(TypeError("log_to writes events and chunks; got 'a'"))]
        assert not source.observers


class TestWhatCannotBeWritten:
    def test_a_second_run_of_the_same_id(self) -> None:
        log = MemoryLog()
        signals_of(rx.of(said("a")).pipe(ops.log_to(log, "r")))
        source: Subject[Any] = Subject()
        seen = Signals()
        seen.subscribe_to(source.pipe(ops.log_to(log, "r")))
        source.on_next(said("b"))
        (error,) = seen.errors
        assert isinstance(error, RunExistsError)
        assert str(error) == "run 'r' has begun already; read it with runs['r'], or choose another run_id"
        assert not source.observers
        assert [str(event) for event in events_in(log)] == ["a"]

    def test_a_store_that_refuses(self) -> None:
        source: Subject[Any] = Subject()
        seen = Signals()
        seen.subscribe_to(source.pipe(ops.log_to(FullLog(), "r")))
        source.on_next(said("a"))
        assert seen.ends == [repr(StoreError("the disk is full"))]
        assert not source.observers

    @pytest.mark.parametrize(
        ("break_down", "error"),
        [(raise_gone, OSError("gone")), (cancel_reply, StoreError("the log cancelled its reply"))],
    )
    @pytest.mark.parametrize("times", [1, sys.maxsize])
    def test_a_log_that_breaks_down_raises_nothing_in_the_source(
        self, break_down: Callable[[], Future[None]], error: Exception, times: int
    ) -> None:
        log, source, seen = BrokenLog(break_down, times), Subject[Any](), Signals()
        seen.subscribe_to(source.pipe(ops.log_to(log, "r")))
        source.on_next(said("a"))
        assert (seen.ends, source.observers) == ([repr(error)], [])
        assert times > 1 or log.look_up("r").result().status == "failed"

    def test_the_end_is_written_although_a_reader_raises(self) -> None:
        log, source = BrokenLog(raise_gone, 1), Subject[Any]()
        source.pipe(ops.log_to(log, "r")).subscribe(lambda _: None)  # without on_error, which RxPY raises
        with pytest.raises(OSError, match="gone"):
            source.on_next(said("a"))
        assert log.look_up("r").result().status == "failed"

    def test_the_error_of_the_source_is_the_context_of_one_of_the_store(self) -> None:
        gone = OSError("gone")
        (error,) = signals_of(rx.throw(gone).pipe(ops.log_to(FullLog(), "r"))).errors
        assert (type(error), error.__context__) == (StoreError, gone)

    def test_a_store_that_falls_behind_stops_the_run_and_loses_nothing(self) -> None:
        log, source = SlowLog(), Subject[Any]()
        seen = Signals()
        seen.subscribe_to(source.pipe(ops.log_to(log, "r")))
        for number in range(MAX_WAITING_EVENTS + 5):
            source.on_next(said("x", seq=number))
        (error,) = seen.errors
        assert isinstance(error, FallenBehindError)
        assert str(error).startswith("the log of run 'r' is 50000 events behind the run, which was stopped: its store")
        assert not source.observers

        def reply() -> str:
            log.replies[-1].set_result(None)
            return log.look_up("r").result().status

        poll(reply, lambda status: status != "running", "the run goes on")
        assert len(events_in(log)) == MAX_WAITING_EVENTS + 2
        assert isinstance(log.read("r", -1, 1).result().error, FallenBehindError)

    def test_an_event_that_is_too_large_ends_it_after_those_before(self, tmp_path: Any) -> None:
        log = SQLiteLog(tmp_path / "runs.db")
        large = Custom(origin=Origin(), name="n", value="x" * (17 * 2**20), seq=1)
        seen = signals_of(rx.of(said("a"), large, said("c", seq=2)).pipe(ops.log_to(log, "r")))
        (error,) = seen.errors
        assert isinstance(error, EventTooLargeError)
        assert str(error).startswith("event 1 of run 'r' has 1782")
        page = log.read("r", -1, 9).result()
        assert ([str(event) for event in page.events], page.status) == (["a"], "failed")
        assert str(page.error) == str(error)
        log.close()


def test_a_loop_that_ends_cancels_the_run() -> None:
    log = MemoryLog()

    async def main() -> None:
        begun = asyncio.Event()
        source = ScriptedLLM("he 5000ms llo|").observe("Hello").pipe(ops.log_to(log, "r"))
        source.subscribe(lambda _: begun.set(), lambda _: None)
        await begun.wait()

    asyncio.run(main())
    with pytest.raises(RunCancelled):
        ops.from_log(log, "r").pipe(rxops.to_list()).run()
