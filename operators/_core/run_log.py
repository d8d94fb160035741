"""The log of a run, kept outside the run: the port that stores implement, and what reads it.

A log has four verbs: append a batch, read after n, wait for more, leave a note for the run. Each returns a
``concurrent.futures.Future``, so that it serves threads and event loops alike, and goes on if nobody awaits it.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias
from uuid import uuid4

from rxflow._loops import on_this_loop
from rxflow.types import Event

Status: TypeAlias = Literal["queued", "running", "paused", "completed", "failed", "cancelled", "lost"]
LIVE: tuple[Status, ...] = ("queued", "running")
"""The run has not ended, and nobody has to resume it."""

PAGE = 256
"""Events that a reader takes at a time."""


class StoreError(RuntimeError):
    """The store of the runs cannot be read or written."""


class RunLost(RuntimeError):
    """The run's process has died, or cannot reach the store: what had arrived is all that there is."""

    def __init__(self, run_id: str, last: int) -> None:
        super().__init__(
            f"run {run_id!r} is lost after event {last}: its process has died or cannot reach the store; "
            "restart() begins it anew"
        )
        self.run_id = run_id
        self.last = last

    def __reduce__(self) -> tuple[type[RunLost], tuple[str, int]]:
        return type(self), (self.run_id, self.last)


class RunCancelled(RuntimeError):
    """The run was cancelled before its end; ``reason`` says why."""

    def __init__(self, run_id: str, reason: str) -> None:
        super().__init__(f"run {run_id!r} was cancelled: {reason or 'no reason was given'}")
        self.run_id = run_id
        self.reason = reason

    def __reduce__(self) -> tuple[type[RunCancelled], tuple[str, str]]:
        return type(self), (self.run_id, self.reason)


class RunExistsError(ValueError):
    """A run of this id has begun already."""


class NotTheWriterError(StoreError):
    """Another worker writes this run now: this one must stop."""


class FallenBehindError(StoreError):
    """The store is slower than the run, and more events wait than may be kept in memory."""


class EventTooLargeError(ValueError):
    """An event has more bytes than the store takes."""


class EventsDroppedError(LookupError):
    """The events that a reader asked for are not kept any more (``max_events``)."""


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes a run. ``generation`` is the fencing number: the store refuses a writer of an older one.

    Runs that were not claimed, as those of ``log_to``, are of generation 0: nothing shows whether their writer lives.
    """

    run_id: str
    id: str = field(default_factory=lambda: uuid4().hex)
    generation: int = 0

    def may_begin(self, events: Sequence[Event]) -> bool:
        """Whether these events may begin an unknown run, and do not continue one that was forgotten."""
        return not self.generation and (not events or events[0].seq == 0)


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended."""

    status: Status
    error: Exception | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """Events of a log in order, and how the run stands. ``last`` is the ``seq`` of its last event, -1 without any."""

    events: Sequence[Event]
    status: Status
    last: int
    error: Exception | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """What others leave for the run.

    ``kind`` is "cancel" (``value`` is the reason), "answer" (``value`` answers the question ``request_id``) or
    "reader" (``request_id`` reads; ``value`` says for how many seconds from now, 0 when it leaves).
    """

    kind: Literal["cancel", "answer", "reader"]
    value: Any
    request_id: str = ""


class Log(ABC):
    """The port: four verbs. Implement it to keep runs elsewhere, with ``rxflow.types.codec``.

    ``(run_id, seq)`` is unique, so a reader that goes on strictly after n sees every event once. All methods may be
    called from any thread; they return at once, and raise in the future.
    """

    @abstractmethod
    def append(self, writer: Writer, events: Sequence[Event], end: End | None = None) -> Future[None]:
        """Append events, whose ``seq`` go on from the last one, and the run's end if there is one.

        The first append of an unknown run begins it. A batch that this writer has appended already is left out. A
        writer appends its next batch when it has the reply to the last one.

        Whoever has seen a writer die appends ``End("lost")`` in its name. That begins a new generation: a writer that
        comes back is refused. A run that is over stays as it ended.

        Raises:
            RunExistsError: another writer has begun this run.
            NotTheWriterError: a writer of a newer generation has taken over.
            EventTooLargeError: those before it are appended.
            StoreError: it cannot be written.
        """

    def takes_blocks(self, run_id: str) -> bool:
        """Whether batches of this run may have chunks as columns (:class:`rxflow.operators._core.blocks.Batch`).

        A store that keeps or encodes them so saves most of the time. Any other one leaves this method out, and gets
        events as they are.
        """
        return False

    @abstractmethod
    def read(self, run_id: str, after: int, limit: int) -> Future[Page]:
        """Return at most ``limit`` events whose ``seq`` is above ``after``, and the status, as of one moment.

        Raises:
            LookupError: the run is unknown, or was forgotten.
            ValueError: ``after`` is beyond the last event.
            EventsDroppedError: those events are not kept any more.
        """

    @abstractmethod
    def wait(self, run_id: str, after: int) -> Future[None]:
        """Wait until there is an event above ``after``, or the run is over or lost. It may return early."""

    @abstractmethod
    def note(self, run_id: str, note: Note) -> Future[None]:
        """Leave a note for the run, in whichever process it is.

        Raises:
            LookupError: the run is unknown, or was forgotten.
        """


class PageReader(AsyncIterator[Sequence[Event]]):
    """What there is after ``after``, then what comes, until the run is over: as many events at a time as there are.

    What a slow reader has not asked for stays in the log. :meth:`close` ends the iteration.

    Raises:
        LookupError, ValueError: by iterating, as :meth:`Log.read`.
        StoreError: the same; or the store has lost what was read already, as after a failover.
        RunLost: after what had arrived.
        RunCancelled: the same.
        Exception: the run's own error.
    """

    def __init__(self, log: Log, run_id: str, after: int) -> None:
        self._log = log
        self._run_id = run_id
        self._begun = self._after = after
        self._is_closed = False
        self._waiting: Future[None] | None = None

    async def __anext__(self) -> Sequence[Event]:
        while not self._is_closed:
            page = await self._read()
            if page.events:
                self._after = page.events[-1].seq
                await asyncio.sleep(0)  # a long past must not keep the loop to itself
                return page.events
            if page.status not in LIVE:
                raise_end(self._run_id, page)
                raise StopAsyncIteration
            await self._wait()
        raise StopAsyncIteration

    def close(self) -> None:
        """Stop reading: iterating ends, also if it waits for the next event."""
        self._is_closed = True
        if self._waiting is not None:
            self._waiting.cancel()

    async def _wait(self) -> None:
        if self._is_closed:
            return
        self._waiting = self._log.wait(self._run_id, self._after)
        with suppress(CancelledError):  # of the future, by close(); asyncio's own is another class
            await on_this_loop(self._waiting)

    async def _read(self) -> Page:
        try:
            return await on_this_loop(self._log.read(self._run_id, self._after, PAGE))
        except ValueError as error:
            if self._after == self._begun:
                raise
            lost = f"the store has lost events of run {self._run_id!r} that were read already, as after a failover"
            raise StoreError(lost) from error


async def read_log(log: Log, run_id: str, after: int, emit: Callable[[Event], None]) -> None:
    """Emit the events that a :class:`PageReader` gives. Raises the same."""
    async for events in PageReader(log, run_id, after):
        for event in events:
            emit(event)


def raise_end(run_id: str, page: Page) -> None:
    """Raise what ended a run; nothing if it completed or is paused."""
    if page.status == "failed":
        raise page.error or StoreError(f"run {run_id!r} failed, and its log does not say why")
    if page.status == "cancelled":
        raise RunCancelled(run_id, page.reason)
    if page.status == "lost":
        raise RunLost(run_id, page.last)


def no_such_run(run_id: str) -> LookupError:
    """The error of an unknown run."""
    return LookupError(f"no run {run_id!r}: it never began in this store, or was forgotten")


def check_after(run_id: str, after: int, first: int, last: int) -> None:
    """Raise if a reader asks for what the log does not have."""
    if after > last:
        raise ValueError(f"after={after} is beyond the end of run {run_id!r}, whose last event is {last}")
    if after + 1 < first:
        raise EventsDroppedError(
            f"run {run_id!r} keeps the events from {first} on (max_events); those after {after} are gone"
        )
