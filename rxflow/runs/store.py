"""The interface of a store: a :class:`Log` that can also claim, find, list and forget runs, for :class:`Runs`."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from rxflow.operators._core.run_log import LIVE, Log, Note, NotTheWriterError, RunExistsError, Status, Writer
from rxflow.types._values import describe_error, from_json_value, restore_error, to_json_value

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
