"""The tables of runs in an SQLite file, and the operations on them.

A row of ``runs`` is a run. A row of ``events`` holds one or more consecutive events of a run, in the form that
:mod:`rxflow.operators._core.blocks` describes. The column ``events.last`` is the ``seq`` of the last event in the row,
and ``(run_id, last)`` is unique. The caller must begin a transaction before it calls a method that writes, so that
``runs.last`` and the rows of ``events`` change together.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rxflow.operators._core.blocks import pack, unpack
from rxflow.operators._core.run_log import (
    LIVE,
    MAX_EVENT_BYTES,
    End,
    EventTooLargeError,
    Head,
    Lease,
    Note,
    Page,
    RunExistsError,
    RunSpec,
    Status,
    StoreError,
    Writer,
    check_after,
    has_lapsed,
    is_running,
    may_hear,
    no_such_run,
    read_error,
    read_spec,
    refuse,
    run_exists,
    too_large,
    write_error,
    write_spec,
)
from rxflow.types import Event
from rxflow.types.codec import from_json_value, to_json_value

VERSION = 3
"""The version of these tables. It is stored as ``PRAGMA user_version``."""
APPLICATION_ID = 0x7278666C  # "rxfl"
BUSY_POLL_S = 0.005

_TABLES = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS runs (
    run_id TEXT PRIMARY KEY, writer TEXT, generation INTEGER, status TEXT, spec TEXT, first INTEGER, last INTEGER,
    lease_until REAL, lease_s REAL, begun_at REAL, ended_at REAL, error TEXT, reason TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
    run_id TEXT, last INTEGER, lines BLOB, PRIMARY KEY (run_id, last)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS notes (
    n INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT, kind TEXT, request_id TEXT, value TEXT
);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
COMMIT;
"""
_HEAD = "run_id, status, generation, spec, first, last, begun_at, ended_at, error, reason, lease_until, lease_s"


@dataclass(frozen=True, slots=True)
class Batch:
    """Events of one run, packed into rows.

    ``first`` is the ``seq`` of the first event; ``sys.maxsize`` if there are no events. If ``may_begin`` is True,
    the store may create the run. Otherwise, events of an unknown run are refused. If an event is too large, ``failure``
    is the error for this event, and ``rows`` has only the events before this event.
    """

    writer: Writer
    may_begin: bool
    first: int
    rows: Sequence[tuple[str, int, bytes]]
    failure: EventTooLargeError | None = None

    @classmethod
    def of(cls, writer: Writer, events: Sequence[Event]) -> Batch:
        """Pack events. Raises TypeError if an element is not an event."""
        rows: list[tuple[str, int, bytes]] = []
        failure = None
        for seq, lines in pack(events):
            if len(lines) > MAX_EVENT_BYTES:
                failure = EventTooLargeError(too_large(writer.run_id, seq, len(lines)))
                break
            rows.append((writer.run_id, seq, lines))
        return cls(writer, writer.may_begin(events), events[0].seq if events else sys.maxsize, rows, failure)

    def find_rows(self, after: int) -> Sequence[tuple[str, int, bytes]]:
        """Return the events with a ``seq`` above ``after``, packed into rows."""
        if self.first > after:
            return self.rows
        new = [event for _, last, lines in self.rows if last > after for event in unpack(lines, after)]
        return Batch.of(self.writer, new).rows


class Tables:
    """One connection to the file, for one thread. Call :meth:`open` first."""

    db: sqlite3.Connection

    def __init__(self, path: Path, lease: Lease, keep_s: float | None, max_events: int | None, busy_s: float) -> None:
        self._path = path
        self._lease = lease
        self._keep_s = keep_s
        self._max_events = max_events
        self._busy_s = busy_s
        self._last_note = 0
        self._version = 0

    def open(self) -> None:
        """Connect, and create the tables if the file is empty. Raises StoreError if the file cannot be used."""
        deadline = time.monotonic() + self._busy_s
        while True:
            try:
                self._connect()
                return
            except sqlite3.Error as error:
                is_busy = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
                if not is_busy or time.monotonic() > deadline:
                    raise self.translate(error) from error
                time.sleep(BUSY_POLL_S)  # SQLite's own time-out does not apply while the journal mode changes

    def _connect(self) -> None:
        self.db = sqlite3.connect(self._path, timeout=self._busy_s, isolation_level=None)
        try:
            self.db.execute("PRAGMA synchronous = NORMAL")
            # Look for tables before reading application_id and user_version. In the other order, another process could
            # create the tables between the two queries. The tables would then seem to have neither id nor version.
            is_empty = not self.db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            application, version = (
                self.db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
            )
            if not is_empty and application != APPLICATION_ID:
                raise StoreError(f"{self._path} is not a store of runs, but another SQLite file; choose another name")
            if not is_empty and version != VERSION:
                raise StoreError(f"{self._path} has version {version}; this rxflow has version {VERSION}")
            self.db.execute("PRAGMA journal_mode = WAL")
            if is_empty:
                self.db.executescript(_TABLES)
            self._last_note = self.db.execute("SELECT coalesce(max(n), 0) FROM notes").fetchone()[0]
        except BaseException:
            self.db.close()
            raise

    def append(self, batch: Batch, end: End | None) -> None:
        """Append the events that are not yet stored, and the end if there is one.

        If ``end`` is "lost" but the run is not live, nothing is stored.

        Raises:
            EventTooLargeError: an event is too large. The events before it are stored, but the end is not.
            NotTheWriterError: another worker writes the run, or the run was forgotten.
            RunExistsError: another run with the same id has begun.
        """
        writer, failure = batch.writer, batch.failure
        columns = "writer, generation, last, status"
        row = self.db.execute(f"SELECT {columns} FROM runs WHERE run_id = ?", (writer.run_id,)).fetchone()
        if row is None and batch.may_begin:
            self._insert(writer, RunSpec(), "running", None)
            row = (writer.id, writer.generation, -1, "running")
        if row is None or row[0] != writer.id:
            raise refuse(writer, None if row is None else row[1])
        if end is not None and end.status == "lost":
            if row[3] not in LIVE:
                return
            fenced = "writer = '', generation = generation + 1"
            self.db.execute(f"UPDATE runs SET {fenced} WHERE run_id = ?", (writer.run_id,))
        last: int = row[2]
        rows = batch.find_rows(last)  # only the new events, because the batch may have been appended before
        self.db.executemany("INSERT INTO events VALUES (?, ?, ?)", rows)
        last = rows[-1][1] if rows else last
        if end is None or failure is not None:
            self.db.execute("UPDATE runs SET last = ?, status = 'running' WHERE run_id = ?", (last, writer.run_id))
        else:
            values = (last, end.status, time.time(), write_error(end.error), end.reason, writer.run_id)
            ended = "last = ?, status = ?, ended_at = ?, error = ?, reason = ?, lease_until = NULL"
            self.db.execute(f"UPDATE runs SET {ended} WHERE run_id = ?", values)
            self.db.execute("DELETE FROM notes WHERE run_id = ?", (writer.run_id,))
        if self._max_events is not None and last >= self._max_events:
            first = last - self._max_events + 1  # a row that also holds newer events is kept whole
            self.db.execute("DELETE FROM events WHERE run_id = ? AND last < ?", (writer.run_id, first))
            self.db.execute("UPDATE runs SET first = ? WHERE run_id = ?", (first, writer.run_id))
        if failure is not None:
            raise failure

    def _insert(self, writer: Writer, spec: RunSpec, status: Status, lease_until: float | None) -> None:
        names = "run_id, writer, generation, status, spec, first, last, lease_until, lease_s, begun_at, reason"
        values = (writer.run_id, writer.id, writer.generation, status, write_spec(spec), 0, -1, lease_until)
        self.db.execute(
            f"INSERT INTO runs ({names}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '')",
            (*values, self._lease.seconds, time.time()),
        )

    def begin(self, run_id: str, spec: RunSpec) -> Writer:
        """Begin a new run. Raises RunExistsError if the id is taken."""
        if self.db.execute("SELECT 1 FROM runs WHERE run_id = ?", (run_id,)).fetchone():
            raise RunExistsError(run_exists(run_id))
        writer = Writer(run_id, generation=1)
        self._insert(writer, spec, "queued", self._lease.until())
        return writer

    def take_over(self, run_id: str) -> Writer:
        """Begin the next generation of a run.

        Raises RunExistsError if the run is live, and LookupError if the run is unknown.
        """
        head = self.find(run_id)
        if head.status in LIVE:
            raise RunExistsError(is_running(run_id))
        writer = Writer(run_id, generation=head.generation + 1)
        values = (writer.id, writer.generation, self._lease.until(), self._lease.seconds, run_id)
        again = "writer = ?, generation = ?, lease_until = ?, lease_s = ?, status = 'queued', ended_at = NULL"
        self.db.execute(f"UPDATE runs SET {again}, error = NULL, reason = '' WHERE run_id = ?", values)
        self.db.execute("DELETE FROM notes WHERE run_id = ?", (run_id,))  # the notes were for the earlier generation
        return writer

    def read(self, run_id: str, after: int, limit: int) -> Page:
        """Read a page of events, as :meth:`Log.read` does."""
        head = self.find(run_id)
        check_after(run_id, after, head.first, head.last)
        query = "SELECT lines FROM events WHERE run_id = ? AND last > ? ORDER BY last LIMIT ?"
        events: list[Event] = []
        with closing(self.db.execute(query, (run_id, after, limit))) as rows:
            for (lines,) in rows:
                events += unpack(lines, after)
                if len(events) >= limit:
                    break
        return Page(events[:limit], head.status, head.last, head.error, head.reason)

    def find(self, run_id: str) -> Head:
        """Return the head of a run. Raises LookupError if the run is unknown."""
        row = self.db.execute(f"SELECT {_HEAD} FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        if row is None:
            raise no_such_run(run_id)
        return _read_head(row)

    def find_last(self, run_id: str) -> int | None:
        """Return the ``seq`` of the last event of a live run; None if the run is unknown or not live."""
        query = "SELECT status, last, lease_until, lease_s FROM runs WHERE run_id = ?"
        row = self.db.execute(query, (run_id,)).fetchone()
        return row[1] if row is not None and _read_status(row[0], row[2], row[3]) in LIVE else None

    def list(self, status: Status | None) -> Sequence[Head]:
        """Return the heads of the runs, oldest first; with ``status``, only the heads of runs that have this status."""
        rows = self.db.execute(f"SELECT {_HEAD} FROM runs ORDER BY begun_at")
        return [head for head in map(_read_head, rows) if status in (None, head.status)]

    def forget_old(self) -> None:
        """Delete the runs that ended or were lost more than ``keep_s`` seconds ago. Paused runs are kept.

        If ``keep_s`` is None, this does nothing.
        """
        if self._keep_s is not None:
            oldest = time.time() - self._keep_s
            ended = "SELECT run_id FROM runs WHERE ended_at < ? AND status != 'paused'"
            leased = "SELECT run_id, lease_until, lease_s FROM runs WHERE ended_at IS NULL AND lease_until IS NOT NULL"
            old: list[str] = [run_id for (run_id,) in self.db.execute(ended, (oldest,))]
            for run_id, until, seconds in self.db.execute(leased):
                if has_lapsed(until, seconds, ago=self._keep_s):
                    old.append(run_id)
            self.delete(old)

    def delete(self, run_ids: Iterable[str]) -> None:
        """Delete runs with their events and notes."""
        for run_id in run_ids:
            for table in ("events", "notes", "runs"):
                self.db.execute(f"DELETE FROM {table} WHERE run_id = ?", (run_id,))

    def renew(self, writer: Writer) -> bool:
        """Renew the lease of a run. Return False if another worker has the run now, or if the run was forgotten."""
        renewal = "UPDATE runs SET lease_until = ? WHERE run_id = ? AND writer = ?"
        return bool(self.db.execute(renewal, (self._lease.until(), writer.run_id, writer.id)).rowcount)

    def add_note(self, run_id: str, note: Note) -> None:
        """Add a note for a run that is live or lost; otherwise do nothing. Raises LookupError if the run is unknown."""
        if not may_hear(self.find(run_id).status):
            return
        values = (run_id, note.kind, note.request_id, json.dumps(to_json_value(note.value)))
        self.db.execute("INSERT INTO notes (run_id, kind, request_id, value) VALUES (?, ?, ?, ?)", values)

    def read_new_notes(self) -> Sequence[tuple[str, Note]]:
        """Return the notes that were added since the last call, each with the id of its run.

        The first call returns the notes that were added since :meth:`open`.
        """
        query = "SELECT n, run_id, kind, request_id, value FROM notes WHERE n > ? ORDER BY n"
        rows = self.db.execute(query, (self._last_note,)).fetchall()
        if rows:
            self._last_note = rows[-1][0]
        return [
            (run_id, Note(kind, from_json_value(json.loads(value)), request_id))
            for _, run_id, kind, request_id, value in rows
        ]

    def has_changed(self) -> bool:
        """Return whether another connection has written to the file since the last call.

        The first call returns True.
        """
        before, self._version = self._version, self.db.execute("PRAGMA data_version").fetchone()[0]
        return before != self._version

    def translate(self, error: sqlite3.Error) -> StoreError:
        """Return the StoreError for an error of SQLite. The message names the file and describes the error in words."""
        what = _MEANINGS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "failed")
        return StoreError(f"the store {self._path} {what}: {error}")


_MEANINGS = {
    sqlite3.SQLITE_BUSY: "is locked: another process holds it",
    sqlite3.SQLITE_LOCKED: "is locked",
    sqlite3.SQLITE_FULL: "is full: there is no space left",
    sqlite3.SQLITE_READONLY: "cannot be written",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: its folder must exist and be writable",
    sqlite3.SQLITE_NOTADB: "is not an SQLite file",
    sqlite3.SQLITE_CORRUPT: "is damaged",
    sqlite3.SQLITE_IOERR: "cannot be read or written",
}


def _read_head(row: Sequence[Any]) -> Head:
    run_id, status, generation, spec, first, last, begun_at, ended_at, error, reason, lease_until, lease_s = row
    return Head(
        run_id=run_id,
        status=_read_status(status, lease_until, lease_s),
        generation=generation,
        spec=read_spec(spec),
        first=first,
        last=last,
        begun_at=begun_at,
        ended_at=ended_at,
        error=read_error(error),
        reason=reason,
    )


def _read_status(status: Status, lease_until: float | None, lease_s: float) -> Status:
    is_lost = status in LIVE and lease_until is not None and has_lapsed(lease_until, lease_s)
    return "lost" if is_lost else status
