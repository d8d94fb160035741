"""Notes and ends that reach a worker while its run begins, pauses or is read."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from rxflow._loops import running_loop
from rxflow.flow import Flow, listen, start
from rxflow.operators._core.run_log import End, Note, OnNote, RunSpec, Writer, settle
from rxflow.runs import EventsDroppedError, Head, MemoryLog, Page, Run, RunCancelled, Runs
from rxflow.runs.attendance import Attendance
from rxflow.runs.worker import Workers
from rxflow.testing import ScriptedLLM
from rxflow.types import Event
from rxflow.types.answers import RunPaused
from rxflow.types.chunks import Origin, StreamChunk
from rxflow.types.events import InputReceived, InputRequested
from tests.gate import Gate
from tests.runs.flows import Endless, Twice


class Pausing(list[Note]):
    """A list whose ``append`` waits before it adds the note, as if another thread had the processor."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = Gate()
        self.proceed = Gate()

    def append(self, note: Note) -> None:
        self.entered.open()
        self.proceed.wait()
        super().append(note)


class NotingAtTheClaim(MemoryLog):
    """Each claim is followed by a note that another thread is adding when the claim returns."""

    def __init__(self) -> None:
        super().__init__()
        self.notes = Pausing()
        self.noting = threading.Thread()

    def claim(self, run_id: str, spec: RunSpec | None, on_note: OnNote) -> Future[tuple[Writer, Head]]:
        worker: Any = on_note.__self__  # type: ignore[attr-defined]
        worker._early = self.notes
        self.noting = threading.Thread(target=on_note, args=(Note("cancel", "enough"),))
        self.noting.start()
        self.notes.entered.wait()
        return super().claim(run_id, spec, on_note)


def test_a_note_that_arrives_while_the_run_begins_is_obeyed() -> None:
    log = NotingAtTheClaim()
    with Runs(log) as runs:
        run = runs.start(Endless())
        log.notes.proceed.open()
        log.noting.join()
        with pytest.raises(RunCancelled, match="enough"):
            run.result(20)


def test_a_run_that_is_stopped_before_it_begins_ends_when_it_begins() -> None:
    log, flow = MemoryLog(), Endless()
    workers = Workers(log, None)
    worker = workers.create("r")
    claimed = log.claim("r", RunSpec(), worker.on_note).result()
    worker.cancel("closing")
    workers.begin(worker, flow, flow.events(), claimed)
    worker.done.result(20)
    head = log.look_up("r").result()
    assert (head.status, head.reason) == ("cancelled", "closing")
    log.close()


class WakingEarly(MemoryLog):
    """Each wait for a run's end is over at once, as a store may do."""

    def wait(self, run_id: str, after: int) -> Future[None]:
        waited: Future[None] = Future()
        waited.set_result(None)
        return waited


def test_result_gives_up_in_time_although_the_store_wakes_it_early() -> None:
    with Runs(WakingEarly()) as runs:
        run = runs.start(Endless())
        with pytest.raises(TimeoutError, match=r"^run '.*' is still running after 0.05 s$"):
            run.result(0.05)


def test_a_reader_that_has_vanished_does_not_shorten_the_time_after_the_last_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, absences = SimpleNamespace(now=0.0), list[float]()
    monkeypatch.setattr("rxflow.runs.attendance.time", SimpleNamespace(monotonic=lambda: clock.now))
    attendance = Attendance(60, lambda: absences.append(clock.now))
    attendance.note("vanished", 10)
    attendance.note("leaving", 200)
    clock.now = 100
    attendance.note("leaving", 0)
    attendance.close()
    assert absences == []


class Patient(Flow):
    """Asks, and then goes on until it is cancelled."""

    @start()
    def ask_a_person(self) -> str:
        return str(self.ask("Go on?"))

    @listen(ask_a_person)
    async def wait(self) -> Any:
        return await ScriptedLLM("waiting 600000ms done|").acall("Wait")


class Noticing(MemoryLog):
    """Does something when readers can see that a run has paused, but its worker does not know it yet."""

    def __init__(self, on_pause: Callable[[], Run]) -> None:
        super().__init__()
        self.noticed: Future[Run] = Future()
        self._noticing = threading.Thread(target=settle, args=(self.noticed, on_pause))

    def append(self, writer: Writer, events: Sequence[Event], end: End | None = None) -> Future[None]:
        appended = super().append(writer, events, end)
        if end is not None and end.status == "paused":
            self._noticing.start()
            self._noticing.join(20)
        return appended


@pytest.mark.parametrize("target", [None, Patient()])
def test_a_run_can_be_resumed_and_closed_as_soon_as_it_is_seen_to_pause(target: Any) -> None:
    def resume() -> Run:
        run = runs.list(status="paused")[0]
        run.resume({run.pending()[0].request_id: "yes"}, target)
        return run

    log = Noticing(resume)
    with Runs(log) as runs:
        runs.start(Patient())
        run = log.noticed.result(20)
        with run.output() as output:
            assert str(next(iter(output))) == "waiting"
    assert run.status == "cancelled"


class Moving(MemoryLog):
    """A run that goes on, so that old events are dropped between two reads."""

    def __init__(self, *coming: Sequence[Event]) -> None:
        super().__init__(max_events=5)
        self.writer = Writer("r")
        self._coming = list(coming)

    def read(self, run_id: str, after: int, limit: int) -> Future[Page]:
        if self._coming:
            self.append(self.writer, self._coming.pop(0))
        return super().read(run_id, after, limit)


def question(name: str, seq: int) -> InputRequested:
    return InputRequested(origin=Origin(), request_id=name, seq=seq)


TWO_MORE = [StreamChunk(content="so", seq=5), StreamChunk(content="so", seq=6)]


def test_questions_are_found_although_older_events_are_dropped_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rxflow.runs.run.PAGE", 1)
    log = Moving([], TWO_MORE)
    received = InputReceived(origin=Origin(), request_id="answered", value="yes", seq=1)
    chunk = StreamChunk(content="so", seq=2)
    with Runs(log) as runs:
        log.append(log.writer, [question("answered", 0), received, chunk, question("open", 3), question("new", 4)])
        assert [request.request_id for request in runs["r"].pending()] == ["open", "new"]


def test_a_run_whose_first_events_are_dropped_meanwhile_is_not_resumed() -> None:
    log = Moving(TWO_MORE)
    with Runs(log) as runs:
        (log.writer, _) = log.claim("r", RunSpec(), lambda note: None).result()
        log.append(log.writer, [question(str(seq), seq) for seq in range(5)], End("failed", ValueError("out of tea")))
        with pytest.raises(EventsDroppedError, match=r"^run 'r' cannot be resumed: its first events were dropped"):
            runs["r"].resume(target=Twice())


class Reply(Future[Any]):
    """A reply of a store, for which a thread may wait, but not an event loop."""

    def result(self, timeout: float | None = None) -> Any:
        assert self.done() or running_loop() is None, "the event loop is blocked"
        return super().result(timeout)


class Remote(MemoryLog):
    """Replies a step of the event loop later."""

    loop: asyncio.AbstractEventLoop | None = None

    def read(self, run_id: str, after: int, limit: int) -> Future[Page]:
        return self._reply(super().read(run_id, after, limit))

    def look_up(self, run_id: str) -> Future[Head]:
        return self._reply(super().look_up(run_id))

    def _reply(self, found: Future[Any]) -> Future[Any]:
        if self.loop is None:
            return found
        reply = Reply()
        self.loop.call_soon_threadsafe(lambda: reply.set_result(found.result()))
        return reply


def test_a_paused_run_is_awaited_without_blocking_the_event_loop() -> None:
    log = Remote()

    async def main() -> None:
        log.loop = asyncio.get_running_loop()
        try:
            with pytest.raises(RunPaused) as raised:
                await run.result_async()
        finally:
            log.loop = None
        assert [request.message for request in raised.value.pending] == ["Go on?"]

    with Runs(log) as runs:
        run = runs.start(Patient())
        with pytest.raises(RunPaused):
            run.result(20)
        asyncio.run(main())
