"""The logs of runs: the interfaces that logs and stores implement, their errors, and the lease of a worker."""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar
from uuid import uuid4

from rxflow.types import Event
from rxflow.types.codec import describe_error, from_json_value, restore_error, to_json_value

Status: TypeAlias = Literal["queued", "running", "paused", "completed", "failed", "cancelled", "lost"]
LIVE: tuple[Status, ...] = ("queued", "running")
"""The statuses of a run that has not ended and is not paused, so that more events may come."""

PAGE = 256
"""How many events a reader takes at once, at most."""


class StoreError(RuntimeError):
    """The store of the runs cannot be read or written."""


class RunLost(RuntimeError):
    """The run's process has died, or cannot reach the store. No more events are expected."""

    def __init__(self, run_id: str, last: int) -> None:
        super().__init__(
            f"run {run_id!r} is lost after event {last}: its process has died or cannot reach the store; "
            "resume() continues it where it was, and restart() begins it again"
        )
        self.run_id = run_id
        self.last = last

    def __reduce__(self) -> tuple[type[RunLost], tuple[str, int]]:
        return type(self), (self.run_id, self.last)


class RunCancelled(RuntimeError):
    """The run was cancelled before its end. ``reason`` is a text; it is empty if no reason was given."""

    def __init__(self, run_id: str, reason: str) -> None:
        super().__init__(f"run {run_id!r} was cancelled: {reason or 'no reason was given'}")
        self.run_id = run_id
        self.reason = reason

    def __reduce__(self) -> tuple[type[RunCancelled], tuple[str, str]]:
        return type(self), (self.run_id, self.reason)


class RunExistsError(ValueError):
    """A run with this id has already begun, or a run that is to be resumed or restarted is running."""


class NotTheWriterError(StoreError):
    """A worker must stop, because another worker now writes the run, or because the run was forgotten."""


class FallenBehindError(StoreError):
    """The store is slower than the run, and more events wait than may be kept in memory."""


class EventTooLargeError(ValueError):
    """An event has more bytes than the store allows."""


class EventsDroppedError(LookupError):
    """The log no longer keeps the requested events, because of its ``max_events``."""


@dataclass(frozen=True, slots=True)
class Writer:
    """The writer of a run. A store refuses a writer if its ``generation`` is older than the generation of the run.

    A run that was not claimed, for example a run of ``log_to``, has generation 0. It has no lease, so nothing shows
    whether its writer is alive.
    """

    run_id: str
    id: str = field(default_factory=lambda: uuid4().hex)
    generation: int = 0

    def may_begin(self, events: Sequence[Event]) -> bool:
        """Return whether the run may begin with ``events``.

        If the result is False, and the log does not know the run, the run was forgotten.
        """
        return not self.generation and (not events or events[0].seq == 0)


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended or paused. ``error`` is set if the run failed, ``reason`` if it was cancelled."""

    status: Status
    error: Exception | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """Events of a log in order, and the status of the run.

    ``last`` is the ``seq`` of the last event in the log, or -1 if the log has no event. ``error`` and ``reason`` are
    those of the run's :class:`End`.
    """

    events: Sequence[Event]
    status: Status
    last: int
    error: Exception | None = None
    reason: str = ""

    def is_of(self, head: Head) -> bool:
        """Return whether ``head`` has the same status and the same last event.

        The caller reads the head first, and then the page. The run may change in between. For example, a run that
        seemed lost may continue, because its worker has renewed the lease late.
        """
        return (self.status, self.last) == (head.status, head.last)


@dataclass(frozen=True, slots=True)
class Note:
    """A message to the worker of a run. The worker may be in another process.

    - ``kind`` "cancel": stop the run. ``value`` is the reason.
    - ``kind`` "answer": ``value`` is the answer to the question ``request_id``.
    - ``kind`` "reader": count the reader with the id ``request_id`` as present for the next ``value`` seconds. If
      ``value`` is 0, the reader has stopped reading.
    """

    kind: Literal["cancel", "answer", "reader"]
    value: Any
    request_id: str = ""


class Log(ABC):
    """The interface of a log.

    For a log of your own, implement the four abstract methods. ``rxflow.types.codec`` turns events into bytes. The
    abstract methods may be called in any thread. Each returns a future at once, and sets any error on this future.

    ``(run_id, seq)`` is unique. So a reader that continues after event n gets each later event once.
    """

    @abstractmethod
    def append(self, writer: Writer, events: Sequence[Event], end: End | None = None) -> Future[None]:
        """Append events, and the end of the run if ``end`` is given. The numbers of the events continue the log.

        If the run is unknown, the first append begins the run. Events that this writer has already appended are
        ignored. A writer waits for the reply to a batch before it appends the next batch.

        If a process finds that a writer is dead, the process appends ``End("lost")`` in the name of that writer. This
        begins a new generation of the run. If the writer is alive after all, the log then refuses the writer. A run
        that has already ended keeps its end.

        Raises:
            RunExistsError: another writer has begun this run.
            NotTheWriterError: a writer of a newer generation has taken over, or the run was forgotten.
            EventTooLargeError: an event is too large. The events before it are appended.
            StoreError: the log cannot be written.
        """

    def takes_blocks(self, run_id: str) -> bool:
        """Return whether :meth:`append` accepts a :class:`~rxflow.operators._core.blocks.Batch` for this run.

        A Batch stores consecutive chunks as columns: a list of their texts, and a list of their times. A store that can
        keep or encode columns needs much less time for writing. Other stores do not override this method, and get event
        objects.
        """
        return False

    @abstractmethod
    def read(self, run_id: str, after: int, limit: int) -> Future[Page]:
        """Return the next events after number ``after``, at most ``limit``, and the run's status at the same moment.

        Raises:
            LookupError: the run is unknown, or was forgotten.
            ValueError: ``after`` is beyond the last event.
            EventsDroppedError: the store has dropped the next events.
        """

    @abstractmethod
    def wait(self, run_id: str, after: int) -> Future[None]:
        """Return a future that resolves when the run has an event after number ``after``, or is not live any more.

        The future may resolve early.
        """

    @abstractmethod
    def note(self, run_id: str, note: Note) -> Future[None]:
        """Send a note to the worker of a run, in whichever process the worker is.

        If the run ends or starts again before the worker gets the note, the note is dropped.

        Raises:
            LookupError: the run is unknown, or was forgotten.
        """


def no_such_run(run_id: str) -> LookupError:
    """Return the error for an unknown run."""
    return LookupError(f"no run {run_id!r}: it never began in this store, or was forgotten")


def check_run_id(run_id: object) -> None:
    """Raise TypeError if ``run_id`` is not a string.

    A store may handle requests of several runs together. A wrong type could then make requests of other runs fail.
    """
    if not isinstance(run_id, str):
        raise TypeError(f"run_id must be a string; got {run_id!r}")


def check_position(after: object) -> None:
    """Raise TypeError if ``after`` is not an integer. It is the number of the event after which to read."""
    if not isinstance(after, int) or isinstance(after, bool):
        raise TypeError(f"after is not an integer: {after!r}")


def check_after(run_id: str, after: int, first: int, last: int) -> None:
    """Check that a log with the events ``first`` to ``last`` can be read after number ``after``.

    Raises:
        ValueError: ``after`` is beyond the last event.
        EventsDroppedError: the log has dropped the next event.
    """
    if after > last:
        raise ValueError(f"after={after} is beyond the end of run {run_id!r}, whose last event is {last}")
    if after + 1 < first:
        raise EventsDroppedError(
            f"run {run_id!r} keeps the events from {first} on (max_events); those after {after} are gone"
        )


LEASE_S = 5.0
"""The default length of a lease in seconds. A dead worker is noticed after at most twice this time."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The time for which a worker counts as alive after a renewal."""

    seconds: float = LEASE_S

    def __post_init__(self) -> None:
        if not (self.seconds > 0 and math.isfinite(self.seconds)):
            raise ValueError(f"lease must be a number of seconds (or a timedelta) above 0: {self.seconds!r}")

    @property
    def renewal_s(self) -> float:
        """The seconds between two renewals. If one renewal is late or fails, the next one is still in time."""
        return self.seconds / 3

    def until(self) -> float:
        """Return the time at which the lease lapses if it is renewed now, and not again."""
        return time.monotonic() + self.seconds


def has_lapsed(until: float, seconds: float, ago: float = 0) -> bool:
    """Return whether a lease lapsed at least ``ago`` seconds ago. The lease lasts ``seconds``, and ends at ``until``.

    A restart of the machine also ends the lease. The clock then starts again at 0. Without a restart, ``until`` is at
    most now plus ``seconds``. If ``until`` is later, the machine was restarted, and the lease counts as lapsed at the
    restart.
    """
    now = time.monotonic()
    return until <= now - ago or (until > now + seconds and now >= ago)


T = TypeVar("T")

OnNote: TypeAlias = Callable[[Note], None]
"""A function that is called with each note to a run that this process has claimed. It may be called in any thread."""

MAX_EVENT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """A description of a run, with which another process can start the run again.

    Attributes:
        target: the flow or crew as "module:Name"; empty if the run was started with an object.
        kind: "flow" or "crew".
        inputs: the inputs of the kickoff.
        when_unread: the seconds without a reader after which the run is cancelled; None: never.
        answer_within: the seconds for which a question waits for an answer before the run pauses; None: no wait.
    """

    target: str = ""
    kind: str = "flow"
    inputs: Mapping[str, Any] | None = field(default_factory=dict[str, Any])
    when_unread: float | None = None
    answer_within: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The data of a run in the store, without its events.

    Attributes:
        first, last: the ``seq`` of the first and the last event that can be read. ``last`` is -1 if the run has no
            event.
        begun_at, ended_at: when the run began, and when it ended or paused, in seconds since the epoch, by the clock of
            the process that wrote the time.
    """

    run_id: str
    status: Status
    generation: int
    spec: RunSpec
    first: int
    last: int
    begun_at: float
    ended_at: float | None = None
    error: Exception | None = None
    reason: str = ""


class Store(Log):
    """A log whose runs can be claimed, listed and forgotten."""

    @abstractmethod
    def claim(self, run_id: str, spec: RunSpec | None, on_note: OnNote) -> Future[tuple[Writer, Head]]:
        """Claim a run, so that only the returned writer may write it.

        With ``spec``, a new run begins. Without ``spec``, the next generation of an existing run begins. That run must
        not be running.

        The store renews the lease of a claimed run until the end of the run is appended, :meth:`release` is called, or
        the store is closed. If another worker takes the run over, or if the run is forgotten, ``on_note`` gets a
        "cancel" note.

        Raises:
            RunExistsError: with ``spec``, a run with this id exists. Without ``spec``, the run is running.
            LookupError: without ``spec``, no run has this id.
        """

    @abstractmethod
    def release(self, writer: Writer) -> None:
        """Stop renewing the lease of a run whose end could not be appended. The run is lost when its lease lapses."""

    @abstractmethod
    def look_up(self, run_id: str) -> Future[Head]:
        """Return the head of a run. Raises LookupError if the run is unknown or was forgotten."""

    @abstractmethod
    def list(self, status: Status | None = None) -> Future[Sequence[Head]]:
        """Return the heads of all runs, oldest first. With ``status``, leave out runs that have another status."""

    @abstractmethod
    def forget(self, run_id: str) -> Future[None]:
        """Delete a run and its events. If a worker still writes the run, stop the worker.

        Raises:
            LookupError: the run is unknown, or was forgotten.
        """

    @abstractmethod
    def close(self) -> None:
        """Finish operations that have begun, and release all resources. The store cannot be used after that."""


def settle(future: Future[T], function: Callable[[], T]) -> None:
    """Call ``function``, and resolve ``future`` with the result or error. If ``future`` was cancelled, do nothing."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function()
    except Exception as error:  # noqa: BLE001 - raised where the future is awaited
        future.set_exception(error)
    else:
        future.set_result(result)


def wake(waiting: Future[None]) -> None:
    """Resolve the future ``waiting``, unless it was cancelled."""
    if waiting.set_running_or_notify_cancel():
        waiting.set_result(None)


def may_hear(status: Status) -> bool:
    """Return whether the worker of a run may still get notes. The worker of a lost run may be alive after all."""
    return status in LIVE or status == "lost"


def too_large(run_id: str, seq: int, size: int) -> str:
    """Return the message of an EventTooLargeError."""
    return f"event {seq} of run {run_id!r} has {size} bytes; the store takes at most {MAX_EVENT_BYTES} an event"


def refuse(writer: Writer, generation: int | None) -> Exception:
    """Return the error for a writer that may not write its run.

    ``generation`` is the present generation of the run, or None if the run was forgotten. If the generation of
    ``writer`` is the same, another writer has begun another run with the same id.
    """
    if generation is not None and generation == writer.generation:
        return RunExistsError(run_exists(writer.run_id))
    if generation is None:
        return NotTheWriterError(f"run {writer.run_id!r} was forgotten: its worker must stop")
    return NotTheWriterError(
        f"run {writer.run_id!r} is written by another worker now: this one was taken for dead, and must stop"
    )


def run_exists(run_id: str) -> str:
    """Return the message of a RunExistsError for a new run."""
    return f"run {run_id!r} has begun already; read it with runs[{run_id!r}], or choose another run_id"


def is_running(run_id: str) -> str:
    """Return the message of a RunExistsError for a run that cannot be resumed or restarted, because it is running."""
    return f"run {run_id!r} is running; cancel it before it is resumed or begins again"


def write_spec(spec: RunSpec) -> str:
    """Return the spec as JSON text."""
    values = {"target": spec.target, "kind": spec.kind, "when_unread": spec.when_unread}
    return json.dumps({**values, "answer_within": spec.answer_within, "inputs": to_json_value(spec.inputs)})


def read_spec(text: str | bytes) -> RunSpec:
    """Return the spec from the text of :func:`write_spec`. Texts in older stores may lack ``answer_within``."""
    values = json.loads(text)
    return RunSpec(**{**values, "inputs": from_json_value(values["inputs"])})


def write_error(error: Exception | None) -> str | None:
    """Return the error as JSON text; None for None."""
    return None if error is None else json.dumps(describe_error(error))


def read_error(text: str | bytes | None) -> Exception | None:
    """Return the error from the text of :func:`write_error`; None if the text is missing."""
    return restore_error(json.loads(text)) if text else None
