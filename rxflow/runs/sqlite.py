"""Runs in an SQLite file, for the processes of one machine.

One thread of this process owns the connection to the file. So no event loop waits for the disk, and the batches of
several runs can share a transaction. Readers in this process are woken directly. SQLite cannot signal other processes,
so the thread checks every 5 ms whether another process has changed the file (``PRAGMA data_version`` takes 5 µs). The
thread checks only while this process carries out runs or waits for events.
"""

from __future__ import annotations

import atexit
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rxflow.operators._core.run_log import (
    LEASE_S,
    End,
    Head,
    Lease,
    Note,
    OnNote,
    Page,
    RunSpec,
    Status,
    Store,
    StoreError,
    Writer,
    wake,
)
from rxflow.runs.sqlite_tables import Batch, Tables
from rxflow.types import Event

T = TypeVar("T")

POLL_S = 0.005
LAPSE_CHECK_S = 0.05


@dataclass(slots=True)
class _Job:
    function: Callable[[], Any]
    future: Future[Any]
    run_id: str = ""  # the run whose rows the job writes; empty if the job writes nothing to the file


class SQLiteLog(Store):
    """A store that keeps runs in an SQLite file. The file is created if it is missing.

    Args:
        path: the file. Its folder must exist and be on a local disk.
        lease_s: seconds without a renewal after which a worker counts as dead.
        keep_s: a run is kept for at least this many seconds after it has ended or was lost; None: until :meth:`forget`
            is called. Old runs are deleted when another run starts. A paused run has not ended, so it is kept.
        max_events: how many of a run's newest events are kept; None: all.
        busy_s: seconds to wait while another process has locked the file.

    Raises:
        StoreError: the file cannot be read or written, is not a store of runs, or has another version.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        lease_s: float = LEASE_S,
        keep_s: float | None = None,
        max_events: int | None = None,
        busy_s: float = 5.0,
    ) -> None:
        self._path = Path(path).absolute()
        self._pid = os.getpid()
        self._lease = Lease(lease_s)
        self._tables = Tables(self._path, self._lease, keep_s, max_events, busy_s)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._claims: dict[str, tuple[Writer, OnNote]] = {}
        self._waiting: dict[str, list[tuple[int, Future[None]]]] = {}
        self._is_closed = False
        self._has_stopped = False
        self._has_notes = False  # whether this process has added notes that were not yet passed to their runs
        opened: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(opened,), name="rxflow runs", daemon=True)
        self._thread.start()
        opened.result()
        atexit.register(self.close)

    def takes_blocks(self, run_id: str) -> bool:
        return True

    def append(self, writer: Writer, events: Sequence[Event], end: End | None = None) -> Future[None]:
        # Pack the events here, in the calling thread. This is faster than in the store's thread: the calling thread has
        # usually just created the events, so they are probably still in the cache of its CPU.
        try:
            batch = Batch.of(writer, events)
        except TypeError as error:
            refused: Future[None] = Future()
            refused.set_exception(error)
            return refused

        def write() -> None:
            self._tables.append(batch, end)
            if end is not None:
                self._claims.pop(writer.run_id, None)

        return self._write(writer.run_id, write)

    def read(self, run_id: str, after: int, limit: int) -> Future[Page]:
        return self._submit(_Job(lambda: self._tables.read(run_id, after, limit), Future()))

    def wait(self, run_id: str, after: int) -> Future[None]:
        waiting: Future[None] = Future()

        def add(found: Future[int | None]) -> None:
            # Called after the transaction, in the store's thread. If the job was refused, called in any thread.
            last = None if found.exception() is not None else found.result()
            if last is None or last > after:
                wake(waiting)  # after an error too: the reader reads again, and gets the error itself
            else:
                self._waiting.setdefault(run_id, []).append((after, waiting))

        job = _Job(lambda: self._tables.find_last(run_id), Future())
        job.future.add_done_callback(add)
        self._submit(job)
        return waiting

    def note(self, run_id: str, note: Note) -> Future[None]:
        def write() -> None:
            self._tables.add_note(run_id, note)
            self._has_notes = True

        return self._write(run_id, write)

    def claim(self, run_id: str, spec: RunSpec | None, on_note: OnNote) -> Future[tuple[Writer, Head]]:
        def take() -> tuple[Writer, Head]:
            self._tables.forget_old()
            writer = self._tables.begin(run_id, spec) if spec is not None else self._tables.take_over(run_id)
            self._claims[run_id] = writer, on_note
            return writer, self._tables.find(run_id)

        return self._write(run_id, take)

    def release(self, writer: Writer) -> None:
        def drop() -> None:
            if writer.run_id in self._claims and self._claims[writer.run_id][0] == writer:
                del self._claims[writer.run_id]

        self._submit(_Job(drop, Future()))

    def look_up(self, run_id: str) -> Future[Head]:
        return self._submit(_Job(lambda: self._tables.find(run_id), Future()))

    def list(self, status: Status | None = None) -> Future[Sequence[Head]]:
        return self._submit(_Job(lambda: self._tables.list(status), Future()))

    def forget(self, run_id: str) -> Future[None]:
        def delete() -> None:
            self._tables.find(run_id)
            self._tables.delete([run_id])

        return self._write(run_id, delete)

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            atexit.unregister(self.close)
            self._jobs.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # The methods from here to _wake_ready() run in the store's thread.

    def _run(self, opened: Future[None]) -> None:
        try:
            self._tables.open()
        except Exception as error:  # noqa: BLE001 - raised by the constructor
            opened.set_exception(error)
            return
        opened.set_result(None)
        try:
            self._work()
        finally:
            self._tables.db.close()
            for waiting in [each for all_waiting in self._waiting.values() for _, each in all_waiting]:
                waiting.cancel()
            self._has_stopped = True
            self._refuse_all()

    def _work(self) -> None:
        next_renewal, next_check, is_open = 0.0, 0.0, True
        while is_open:
            jobs = self._take_jobs()
            is_open = None not in jobs
            self._do([job for job in jobs if job is not None])
            now = time.monotonic()
            with suppress(sqlite3.Error):  # a later attempt may succeed; if none does, the lease lapses
                if self._claims and now >= next_renewal:
                    next_renewal = now + self._lease.renewal_s
                    self._renew()
                self._look_at_others()
                if now >= next_check:
                    next_check = now + LAPSE_CHECK_S
                    for run_id in list(self._waiting):
                        self._wake_ready(run_id)

    def _take_jobs(self) -> Sequence[_Job | None]:
        is_looking = bool(self._waiting or self._claims)
        try:
            jobs = [self._jobs.get(timeout=POLL_S if is_looking else None)]
        except queue.Empty:
            return []
        with suppress(queue.Empty):
            while True:
                jobs.append(self._jobs.get_nowait())
        return jobs

    def _do(self, jobs: Sequence[_Job]) -> None:
        """Do the jobs in one transaction, and resolve their futures after the transaction has ended."""
        jobs = [job for job in jobs if job.future.set_running_or_notify_cancel()]
        if not jobs:
            return
        written = {job.run_id: None for job in jobs if job.run_id}
        outcomes: list[tuple[_Job, Any, Exception | None]] = []
        try:
            with self._tables.db as db:  # commits the transaction, or rolls it back after an error
                db.execute("BEGIN IMMEDIATE" if written else "BEGIN")
                for job in jobs:
                    try:
                        outcomes.append((job, job.function(), None))
                    except (LookupError, ValueError, TypeError, StoreError) as error:
                        outcomes.append((job, None, error))
        except sqlite3.Error as error:
            outcomes = [(job, None, self._tables.translate(error)) for job in jobs]
        for job, result, failure in outcomes:
            if failure is None:
                job.future.set_result(result)
            else:
                job.future.set_exception(failure)
        with suppress(sqlite3.Error):
            for run_id in written:
                self._wake_ready(run_id)
            if self._has_notes:
                self._hand_on_notes()

    def _renew(self) -> None:
        with self._tables.db as db:  # commits the transaction, or rolls it back after an error
            db.execute("BEGIN IMMEDIATE")
            gone = [run_id for run_id, (writer, _) in self._claims.items() if not self._tables.renew(writer)]
        for run_id in gone:
            _, on_note = self._claims.pop(run_id)
            on_note(Note("cancel", "another worker has taken over, or the run was forgotten"))

    def _look_at_others(self) -> None:
        if (self._claims or self._waiting) and self._tables.has_changed():
            self._hand_on_notes()
            for run_id in list(self._waiting):
                self._wake_ready(run_id)

    def _hand_on_notes(self) -> None:
        self._has_notes = False
        for run_id, note in self._tables.read_new_notes():
            if run_id in self._claims:
                self._claims[run_id][1](note)

    def _wake_ready(self, run_id: str) -> None:
        """Wake the readers for which the run has a new event. If the run is not live, wake all its readers."""
        all_waiting = self._waiting.get(run_id)
        if not all_waiting:
            return
        last = self._tables.find_last(run_id)
        still = [each for each in all_waiting if last is not None and each[0] >= last]
        for each in all_waiting:
            if each not in still:
                wake(each[1])
        still = [each for each in still if not each[1].cancelled()]
        if still:
            self._waiting[run_id] = still
        else:
            del self._waiting[run_id]

    # The methods from here on may be called in any thread.

    def _write(self, run_id: str, function: Callable[[], T]) -> Future[T]:
        return self._submit(_Job(function, Future(), run_id))

    def _submit(self, job: _Job) -> Future[Any]:
        if self._is_closed or os.getpid() != self._pid:
            self._refuse(job)
            return job.future
        self._jobs.put(job)
        if self._has_stopped:  # Check after queueing: the thread may have stopped before it saw the job.
            self._refuse_all()
        return job.future

    def _refuse_all(self) -> None:
        with suppress(queue.Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None:
                    self._refuse(job)

    def _refuse(self, job: _Job) -> None:
        if os.getpid() != self._pid:  # a forked process does not have the threads of its parent
            why = f"was opened by process {self._pid}: open it anew"
        else:
            why = "is closed" if self._is_closed else "has stopped: its thread has died; open it anew"
        if job.future.set_running_or_notify_cancel():
            job.future.set_exception(StoreError(f"the store {self._path} {why}"))
