"""The log of a run, outside the run: the interface that stores implement, and its reader.

A log has four methods: append a batch, read the events after n, wait for more, leave a note for the run. Each returns a
``concurrent.futures.Future``. So all of them work in threads and on event loops, and continue if nobody awaits them.
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
"""The statuses of a run from which more events come: it has not ended, and does not have to be resumed."""

PAGE = 256
"""How many events a reader takes at a time."""


class StoreError(RuntimeError):
    """The store of the runs cannot be read or written."""


class RunLost(RuntimeError):
    """The run's process has died, or cannot reach the store. No more events will come."""

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
    """The run was cancelled before its end. ``reason`` says why."""

    def __init__(self, run_id: str, reason: str) -> None:
        super().__init__(f"run {run_id!r} was cancelled: {reason or 'no reason was given'}")
        self.run_id = run_id
        self.reason = reason

    def __reduce__(self) -> tuple[type[RunCancelled], tuple[str, str]]:
        return type(self), (self.run_id, self.reason)


class RunExistsError(ValueError):
    """A run with this id has already begun."""


class NotTheWriterError(StoreError):
    """Another worker now writes this run, so this one must stop."""


class FallenBehindError(StoreError):
    """The store is slower than the run, and more events wait than may be kept in memory."""


class EventTooLargeError(ValueError):
    """An event has more bytes than the store allows."""


class EventsDroppedError(LookupError):
    """The log no longer keeps the requested events, because of its ``max_events``."""


@dataclass(frozen=True, slots=True)
class Writer:
    """The writer of a run. ``generation`` is the fencing number: the store refuses a writer of an older generation.

    Runs that were not claimed, such as those of ``log_to``, have generation 0: nothing shows whether their writer is
    alive.
    """

    run_id: str
    id: str = field(default_factory=lambda: uuid4().hex)
    generation: int = 0

    def may_begin(self, events: Sequence[Event]) -> bool:
        """Return whether these events may begin an unknown run, rather than continue one that was forgotten."""
        return not self.generation and (not events or events[0].seq == 0)


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended."""

    status: Status
    error: Exception | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """Events of a log in order, and the status of the run.

    ``last`` is the ``seq`` of its last event; -1 if it has none.
    """

    events: Sequence[Event]
    status: Status
    last: int
    error: Exception | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """A message for the run from another process.

    ``kind`` is "cancel" (``value`` is the reason), "answer" (``value`` answers the question ``request_id``) or "reader"
    (reader ``request_id`` is present for ``value`` seconds from now; 0: it leaves).
    """

    kind: Literal["cancel", "answer", "reader"]
    value: Any
    request_id: str = ""


class Log(ABC):
    """The interface of a log. Implement its four methods to keep runs elsewhere, with ``rxflow.types.codec``.

    ``(run_id, seq)`` is unique, so a reader that continues strictly after n gets every event once. All methods may be
    called in any thread. They return at once, and report errors in the future.
    """

    @abstractmethod
    def append(self, writer: Writer, events: Sequence[Event], end: End | None = None) -> Future[None]:
        """Append events, whose numbers continue those in the log, and the run's end if it is given.

        The first append of an unknown run begins it. A batch that this writer has already appended is ignored. A writer
        appends its next batch after the reply to the last one.

        A process that finds a writer dead appends ``End("lost")`` in the writer's name. That begins a new generation,
        so a writer that comes back is refused. A run that has ended keeps its end.

        Raises:
            RunExistsError: another writer has begun this run.
            NotTheWriterError: a writer of a newer generation has taken over.
            EventTooLargeError: an event is too large; the events before it are appended.
            StoreError: the log cannot be written.
        """

    def takes_blocks(self, run_id: str) -> bool:
        """Return whether batches of this run may have chunks as columns (:class:`rxflow.operators._core.blocks.Batch`).

        A store that keeps or encodes columns saves most of the time that writing takes. Other stores do not override
        this method, and get event objects.
        """
        return False

    @abstractmethod
    def read(self, run_id: str, after: int, limit: int) -> Future[Page]:
        """Return at most ``limit`` events whose ``seq`` is above ``after``, and the status at the same moment.

        Raises:
            LookupError: the run is unknown, or was forgotten.
            ValueError: ``after`` is beyond the last event.
            EventsDroppedError: those events are no longer kept.
        """

    @abstractmethod
    def wait(self, run_id: str, after: int) -> Future[None]:
        """Wait until there is an event above ``after``, or the run has ended or is lost. The wait may end early."""

    @abstractmethod
    def note(self, run_id: str, note: Note) -> Future[None]:
        """Leave a note for the run, in whichever process it is. A run that has ended, or begins again, does not get it.

        Raises:
            LookupError: the run is unknown, or was forgotten.
        """


class PageReader(AsyncIterator[Sequence[Event]]):
    """Iterates the events after ``after``: stored ones, then new ones, until the run has ended.

    Each step returns the events that are ready, at most ``PAGE``. Events wait in the log until a slow reader asks for
    them. :meth:`close` ends the iteration.

    Raises:
        LookupError, ValueError: while iterating, as :meth:`Log.read`.
        StoreError: while iterating: the log cannot be read, or has lost events that were already read, as after a
            failover.
        RunLost: after the stored events.
        RunCancelled: after the stored events.
        Exception: the run's own error.
    """

    def __init__(self, log: Log, run_id: str, after: int) -> None:
        self._log = log
        self._run_id = run_id
        self._begun = self._after = max(after, -1)
        self._is_closed = False
        self._waiting: Future[None] | None = None

    async def __anext__(self) -> Sequence[Event]:
        while not self._is_closed:
            page = await self._read()
            if page.events:
                self._after = page.events[-1].seq
                await asyncio.sleep(0)  # so that a long log does not block the loop
                return page.events
            if page.status not in LIVE:
                raise_end(self._run_id, page)
                raise StopAsyncIteration
            await self._wait()
        raise StopAsyncIteration

    def close(self) -> None:
        """Stop reading. The iteration ends, even if it is waiting for the next event."""
        self._is_closed = True
        if self._waiting is not None:
            self._waiting.cancel()

    async def _wait(self) -> None:
        if self._is_closed:
            return
        self._waiting = self._log.wait(self._run_id, self._after)
        with suppress(
            CancelledError
        ):  # raised by the future after close(); asyncio's own CancelledError is another class
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
    """Emit the events of a :class:`PageReader`. Raises the same errors."""
    async for events in PageReader(log, run_id, after):
        for event in events:
            emit(event)


def raise_end(run_id: str, page: Page) -> None:
    """Raise the error that ended a run; return if the run completed or is paused."""
    if page.status == "failed":
        raise page.error or StoreError(f"run {run_id!r} failed, and its log does not say why")
    if page.status == "cancelled":
        raise RunCancelled(run_id, page.reason)
    if page.status == "lost":
        raise RunLost(run_id, page.last)


def no_such_run(run_id: str) -> LookupError:
    """Return the error for an unknown run."""
    return LookupError(f"no run {run_id!r}: it never began in this store, or was forgotten")


def check_after(run_id: str, after: int, first: int, last: int) -> None:
    """Raise an error if the log does not have the events after ``after``."""
    if after > last:
        raise ValueError(f"after={after} is beyond the end of run {run_id!r}, whose last event is {last}")
    if after + 1 < first:
        raise EventsDroppedError(
            f"run {run_id!r} keeps the events from {first} on (max_events); those after {after} are gone"
        )
