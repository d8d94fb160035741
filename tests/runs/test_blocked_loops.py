"""Runs whose event loop is blocked by code of the program when their ``Runs`` is closed."""

import logging
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import rxflow
from rxflow import Flow
from rxflow.flow import start
from rxflow.operators._core.run_log import PAGE, End
from rxflow.runs import MemoryLog, Runs, Writer, worker
from rxflow.testing import ScriptedLLM
from rxflow.types.events import Custom, Event, FlowCancelled, FlowStarted, MethodCancelled
from tests.gate import PATIENCE_S
from tests.spans import check_laws

CLOSED = "its process ended, or closed the Runs object that started it"


class Stage:
    """What a flow and its test tell each other."""

    def __init__(self) -> None:
        self.is_blocked = threading.Event()
        self.may_go_on = threading.Event()
        self.is_over = threading.Event()


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.may_go_on.set()


class Blocking(Flow):
    """Says something, and then holds its event loop until the test lets it go."""

    stage: Stage

    @start()
    async def hold(self) -> str:
        said = await ScriptedLLM("one-two|").acall("Say")
        self.stage.is_blocked.set()
        self.stage.may_go_on.wait(60)
        try:
            rxflow.emit("too late")
        finally:
            self.stage.is_over.set()
        return str(said)


class Busy(Flow):
    """Holds its event loop, and emits all the time."""

    stage: Stage

    @start()
    async def emit(self) -> None:
        try:
            for number in count():
                rxflow.emit(number)
                self.stage.is_blocked.set()
                self.stage.may_go_on.wait(0.0001)
        finally:
            self.stage.is_over.set()


def begin(runs: Runs, kind: type[Any], stage: Stage) -> str:
    """The id of a run that blocks its loop now."""
    flow = kind()
    flow.stage = stage
    run = runs.start(flow)
    assert stage.is_blocked.wait(20)
    return run.id


def read_all(runs: Runs, run_id: str) -> list[Event]:
    """What is in the log, of a run that is over or not."""
    events: list[Event] = []
    while page := runs.store.read(run_id, len(events) - 1, PAGE).result().events:
        events += page
    return events


def check_end(store: str, run_id: str) -> list[Event]:
    """The run has ended whole, as another process sees it."""
    with Runs(store) as others:
        head = others[run_id].look_up()
        events = read_all(others, run_id)
    assert (head.status, head.reason, head.last) == ("cancelled", CLOSED, len(events) - 1)
    check_laws(events)
    assert isinstance(events[0], FlowStarted)
    ends = [event for event in events[-2:] if isinstance(event, MethodCancelled | FlowCancelled)]
    assert [(type(event), event.reason) for event in ends] == [(MethodCancelled, CLOSED), (FlowCancelled, CLOSED)]
    return events


def test_it_ends_whole(
    store: str, stage: Stage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "STORE_WAIT_S", PATIENCE_S)
    runs = Runs(store)
    run_id = begin(runs, Blocking, stage)
    with caplog.at_level(logging.WARNING, "rxflow"):
        runs.close()
    events = check_end(store, run_id)
    assert "".join(str(event) for event in events if isinstance(event, rxflow.StreamChunk)) == "onetwo"
    (record,) = caplog.records
    assert record.getMessage() == (
        f"run {run_id!r} was ended without its event loop, which has not run for 1 s: code in an async method or "
        "tool waits without await (asyncio's debug mode names it)"
    )
    stage.may_go_on.set()
    assert stage.is_over.wait(20)
    assert check_end(store, run_id) == events


@pytest.mark.slow
def test_what_it_emits_meanwhile_is_in_the_log_or_not_but_never_half(
    store: str, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "STORE_WAIT_S", PATIENCE_S)
    runs = Runs(store)
    run_id = begin(runs, Busy, stage)
    runs.close()
    assert stage.is_over.wait(20)
    events = check_end(store, run_id)
    values = [event.value for event in events if isinstance(event, Custom)]
    assert values == list(range(len(values)))


@pytest.mark.slow
def test_its_end_is_written_though_the_store_still_writes_what_came_before(
    tmp_path: Path, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "STORE_WAIT_S", PATIENCE_S)
    store = f"sqlite:///{tmp_path}/runs.db"
    runs = Runs(store)
    run_id = begin(runs, Busy, stage)
    with closing(sqlite3.connect(tmp_path / "runs.db", isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")  # what is written waits from now on
        let_go = _OnRecord(lambda: other.execute("ROLLBACK"))
        logging.getLogger("rxflow").addHandler(let_go)
        try:
            runs.close()
        finally:
            logging.getLogger("rxflow").removeHandler(let_go)
    stage.may_go_on.set()
    check_end(store, run_id)


def test_a_store_that_does_not_reply_is_named_and_not_waited_for_forever(
    stage: Stage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Silent(MemoryLog):
        """Replies to nothing that ends a run."""

        def append(self, writer: Writer, events: Sequence[Event], end: End | None = None) -> Future[None]:
            return super().append(writer, events) if end is None else Future()

    monkeypatch.setattr(worker, "LOOPS_WAIT_S", 0.01)
    monkeypatch.setattr(worker, "STORE_WAIT_S", 0.01)
    runs = Runs(Silent())
    run_id = begin(runs, Blocking, stage)
    with caplog.at_level(logging.WARNING, "rxflow"):
        runs.close()
    assert caplog.records[-1].getMessage() == (
        f"the store has not written the end of run {run_id!r} for 0.01 s; its readers take the run for lost"
    )


class _OnRecord(logging.Handler):
    """Does something at the first record."""

    def __init__(self, act: Any) -> None:
        super().__init__(logging.WARNING)
        self._act = act

    def emit(self, record: logging.LogRecord) -> None:
        act, self._act = self._act, lambda: None
        act()
