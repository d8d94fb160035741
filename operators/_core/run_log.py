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


LEASE_S = 5.0
"""The default length of a lease. A dead worker is noticed after at most twice this time."""


@dataclass(frozen=True, slots=True)
class Lease:
    """How long a worker counts as alive after a renewal."""

    seconds: float = LEASE_S

    def __post_init__(self) -> None:
        if not (self.seconds > 0 and math.isfinite(self.seconds)):
            raise ValueError(f"lease must be a number of seconds (or a timedelta) above 0: {self.seconds!r}")

    @property
    def renewal_s(self) -> float:
        """Seconds between two renewals. One renewal may be late or fail before the lease lapses."""
        return self.seconds / 3

    def until(self) -> float:
        """Return the time at which a lease that is renewed now will lapse."""
        return time.monotonic() + self.seconds


def has_lapsed(until: float, seconds: float, ago: float = 0) -> bool:
    """Return whether a lease of ``seconds`` that ends at ``until`` lapsed at least ``ago`` seconds ago.

    The clock begins anew when the machine restarts. So if a lease ends later than one that is renewed now, it was
    renewed before the last restart, and has lapsed too.
    """
    now = time.monotonic()
    return until <= now - ago or (until > now + seconds and now >= ago)


T = TypeVar("T")

OnNote: TypeAlias = Callable[[Note], None]
"""Called in the store's thread with each note for a run that this process has claimed."""

MAX_EVENT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """A description of a run from which another process can start it again.

    Attributes:
        target: the flow or crew as "module:Name"; empty if the run was started with an object.
        kind: "flow" or "crew".
        inputs: the inputs of the kickoff.
        when_unread: seconds without a reader after which the run is cancelled; None: never.
        answer_within: seconds for which a question waits for an answer; None: it does not wait.
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
        first, last: the ``seq`` of the first and last stored event; ``last`` is -1 if there is none.
        begun_at, ended_at: seconds since the epoch, by the clock of the process that wrote them.
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

        With ``spec``, this begins a new run. Without it, this takes over a run that is not running, and begins its next
        generation.

        The store renews the lease of a claimed run until its end is appended or the store is closed. If another worker
        takes the run over, or if the run is forgotten, ``on_note`` gets a "cancel" note.

        Raises:
            RunExistsError: with ``spec``, a run with this id exists; without it, the run is running.
            LookupError: without ``spec``, no run has this id.
        """

    @abstractmethod
    def release(self, writer: Writer) -> None:
        """Stop renewing the lease of a run whose end could not be appended, so that readers find the run lost."""

    @abstractmethod
    def look_up(self, run_id: str) -> Future[Head]:
        """Return the head of a run. Raises LookupError if the run is unknown or was forgotten."""

    @abstractmethod
    def list(self, status: Status | None = None) -> Future[Sequence[Head]]:
        """Return the heads of the runs, oldest first; with ``status``, only the heads of runs that have this status."""

    @abstractmethod
    def forget(self, run_id: str) -> Future[None]:
        """Delete a run and its events, and stop a worker that still writes it.

        Raises:
            LookupError: the run is unknown, or was forgotten.
        """

    @abstractmethod
    def close(self) -> None:
        """Finish operations that have begun, and release all resources. The store cannot be used after that."""


def settle(future: Future[T], function: Callable[[], T]) -> None:
    """Resolve ``future`` with the result or error of ``function``, unless it was cancelled."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function()
    except Exception as error:  # noqa: BLE001 - raised where the future is awaited
        future.set_exception(error)
    else:
        future.set_result(result)


def wake(waiting: Future[None]) -> None:
    """Resolve a future that may have been cancelled."""
    if waiting.set_running_or_notify_cancel():
        waiting.set_result(None)


def may_hear(status: Status) -> bool:
    """Return whether a note may reach the worker of a run. The worker of a lost run may come back."""
    return status in LIVE or status == "lost"


def too_large(run_id: str, seq: int, size: int) -> str:
    """Return the message of an EventTooLargeError."""
    return f"event {seq} of run {run_id!r} has {size} bytes; the store takes at most {MAX_EVENT_BYTES} an event"


def refuse(writer: Writer, generation: int | None) -> Exception:
    """Return the error for a writer that may not write its run.

    ``generation`` is the run's current one; None if the run was forgotten. If it equals the writer's, the two writers
    began different runs with the same id.
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
    """Return the message of a RunExistsError for a run that is to start again."""
    return f"run {run_id!r} is running; cancel it before it begins again"


def write_spec(spec: RunSpec) -> str:
    """Return the spec as JSON."""
    values = {"target": spec.target, "kind": spec.kind, "when_unread": spec.when_unread}
    return json.dumps({**values, "answer_within": spec.answer_within, "inputs": to_json_value(spec.inputs)})


def read_spec(text: str | bytes) -> RunSpec:
    """Read what :func:`write_spec` wrote. Older stores lack ``answer_within``."""
    values = json.loads(text)
    return RunSpec(**{**values, "inputs": from_json_value(values["inputs"])})


def write_error(error: Exception | None) -> str | None:
    """Return the error as JSON."""
    return None if error is None else json.dumps(describe_error(error))


def read_error(text: str | bytes | None) -> Exception | None:
    """Read what :func:`write_error` wrote."""
    return restore_error(json.loads(text)) if text else None
