"""Runs in the memory of this process: for readers that come and go, and for tests."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

from rxflow.operators._core.run_log import (
    LIVE,
    End,
    Note,
    Page,
    RunExistsError,
    Status,
    Writer,
    check_after,
    no_such_run,
)
from rxflow.runs.history import History
from rxflow.runs.store import Head, OnNote, RunSpec, Store, is_running, refuse, run_exists, settle, wake
from rxflow.types import Event

T = TypeVar("T")


@dataclass(slots=True)
class _Run:
    writer: Writer
    spec: RunSpec
    status: Status = "running"
    end: End | None = None
    events: History = field(default_factory=History)
    begun_at: float = field(default_factory=time.time)
    ended_at: float | None = None
    on_note: OnNote | None = None
    waiting: list[tuple[int, Future[None]]] = field(default_factory=list[tuple[int, Future[None]]])

    def take_ready(self) -> Sequence[Future[None]]:
        """Remove and return the futures of the readers that can go on: there are new events, or the run has ended."""
        if not self.waiting:
            return ()
        last = self.events.last if self.status in LIVE else sys.maxsize + 1
        ready = [waiting for after, waiting in self.waiting if after < last]
        self.waiting = [each for each in self.waiting if each[0] >= last and not each[1].cancelled()]
        return ready


class MemoryLog(Store):
    """Keeps runs in memory, without encoding their values as JSON. They are lost when the process ends.

    Args:
        keep_s: seconds for which a run is kept after its end; None: until :meth:`forget` is called. A paused run has
            not ended.
        max_events: how many of a run's newest events are kept; None: all.
    """

    def __init__(self, *, keep_s: float | None = None, max_events: int | None = None) -> None:
        self._keep_s = keep_s
        self._max_events = max_events
        self._lock = threading.Lock()
        self._runs: dict[str, _Run] = {}

    def takes_blocks(self, run_id: str) -> bool:
        run = self._runs.get(run_id)
        return run is None or not run.events.is_read

    def append(self, writer: Writer, events: Sequence[Event], end: End | None = None) -> Future[None]:
        with self._lock:
            run = self._runs.get(writer.run_id)
            if run is None and writer.may_begin(events):
                run = self._runs[writer.run_id] = _Run(writer, RunSpec())
            if run is None or run.writer.id != writer.id:
                return _failed(refuse(writer, None if run is None else run.writer.generation))
            if end is not None and end.status == "lost":
                if run.status not in LIVE:
                    return _DONE
                run.writer = Writer(writer.run_id, generation=run.writer.generation + 1)
            last = run.events.last
            if events and events[0].seq <= last:  # a batch that was sent twice
                events = [event for event in events if event.seq > last]
            run.events.extend(events)
            if self._max_events is not None:
                run.events.drop_before(run.events.last + 1 - self._max_events)
            run.status = "running" if end is None else end.status
            if end is not None:
                run.end, run.ended_at, run.on_note = end, time.time(), None
            ready = run.take_ready()
        for each in ready:
            wake(each)
        return _DONE

    def read(self, run_id: str, after: int, limit: int) -> Future[Page]:
        def look() -> Page:
            run = self._find(run_id)
            check_after(run_id, after, run.events.first, run.events.last)
            end = run.end or End(run.status)
            return Page(run.events.read(after, limit), run.status, run.events.last, end.error, end.reason)

        return self._locked(look)

    def wait(self, run_id: str, after: int) -> Future[None]:
        waiting: Future[None] = Future()
        with self._lock:
            run = self._runs.get(run_id)
            if run is not None and run.status in LIVE and run.events.last <= after:
                run.waiting = [each for each in run.waiting if not each[1].cancelled()]
                run.waiting.append((after, waiting))
                return waiting
        waiting.set_result(None)
        return waiting

    def note(self, run_id: str, note: Note) -> Future[None]:
        with self._lock:
            run = self._runs.get(run_id)
            on_note = run.on_note if run is not None else None
        if run is None:
            return _failed(no_such_run(run_id))
        if on_note is not None:
            on_note(note)
        return _DONE

    def claim(self, run_id: str, spec: RunSpec | None, on_note: OnNote) -> Future[tuple[Writer, Head]]:
        def take() -> tuple[Writer, Head]:
            self._forget_old()
            if spec is not None:
                if run_id in self._runs:
                    raise RunExistsError(run_exists(run_id))
                run = self._runs[run_id] = _Run(Writer(run_id, generation=1), spec, status="queued")
            else:
                run = self._find(run_id)
                if run.status in LIVE:
                    raise RunExistsError(is_running(run_id))
                run.writer = Writer(run_id, generation=run.writer.generation + 1)
                run.status, run.end, run.ended_at = "queued", None, None
            run.on_note = on_note
            return run.writer, self._head_of(run_id, run)

        return self._locked(take)

    def release(self, writer: Writer) -> None:
        """Do nothing: this store has no leases."""

    def look_up(self, run_id: str) -> Future[Head]:
        return self._locked(lambda: self._head_of(run_id, self._find(run_id)))

    def list(self, status: Status | None = None) -> Future[Sequence[Head]]:
        def look() -> Sequence[Head]:
            self._forget_old()
            return [self._head_of(*each) for each in self._runs.items() if status in (None, each[1].status)]

        return self._locked(look)

    def forget(self, run_id: str) -> Future[None]:
        with self._lock:
            run = self._runs.pop(run_id, None)
        if run is None:
            return _failed(no_such_run(run_id))
        if run.on_note is not None:
            run.on_note(Note("cancel", "the run was forgotten"))
        for _, each in run.waiting:
            wake(each)
        return _DONE

    def close(self) -> None:
        """Do nothing: there is nothing to close."""

    def _locked(self, function: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        with self._lock:
            settle(future, function)
        return future

    def _find(self, run_id: str) -> _Run:
        try:
            return self._runs[run_id]
        except KeyError:
            raise no_such_run(run_id) from None

    def _forget_old(self) -> None:
        if self._keep_s is not None:
            oldest = time.time() - self._keep_s
            for name, run in list(self._runs.items()):
                if run.ended_at is not None and run.ended_at < oldest and run.status != "paused":
                    del self._runs[name]

    def _head_of(self, run_id: str, run: _Run) -> Head:
        end = run.end or End(run.status)
        return Head(
            run_id=run_id,
            status=run.status,
            generation=run.writer.generation,
            spec=run.spec,
            first=run.events.first,
            last=run.events.last,
            begun_at=run.begun_at,
            ended_at=run.ended_at,
            error=end.error,
            reason=end.reason,
        )


def _failed(error: Exception) -> Future[None]:
    future: Future[None] = Future()
    future.set_exception(error)
    return future


_DONE: Future[None] = Future()
_DONE.set_result(None)
