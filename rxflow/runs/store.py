"""What :class:`Runs` needs of a store beyond a :class:`Log`: to claim runs, to look at them, and to forget them."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from rxflow.operators._core.run_log import Log, Note, NotTheWriterError, RunExistsError, Status, Writer
from rxflow.types._values import describe_error, from_json_value, restore_error, to_json_value

T = TypeVar("T")

OnNote: TypeAlias = Callable[[Note], None]
"""Called in the store's thread with each note for a run that was claimed here."""

MAX_EVENT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """What a run is, so that another process can begin it again.

    Attributes:
        target: the flow or crew as "module:Name"; empty if it cannot be found by name.
        kind: "flow" or "crew".
        inputs: the inputs of the kickoff.
        when_unread: after how many seconds without a reader it is cancelled; None: never.
    """

    target: str = ""
    kind: str = "flow"
    inputs: Mapping[str, Any] | None = field(default_factory=dict[str, Any])
    when_unread: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A run as the store knows it.

    Attributes:
        first, last: the ``seq`` of the first and last event that are kept; ``last`` is -1 without any.
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
        """Begin a run with ``spec``; with None, take over one that is not running, as its next generation.

        The store keeps the lease of a claimed run until its end is appended or the store is closed. If another worker
        takes the run over, ``on_note`` is told to cancel.

        Raises:
            RunExistsError: there is a run of this id already; without ``spec``: it is running.
            LookupError: without ``spec``: there is none.
        """

    @abstractmethod
    def release(self, writer: Writer) -> None:
        """Stop renewing the lease, because the end of the run could not be appended."""

    @abstractmethod
    def look_up(self, run_id: str) -> Future[Head]:
        """The head of a run. Raises LookupError if it is unknown or was forgotten."""

    @abstractmethod
    def list(self, status: Status | None = None) -> Future[Sequence[Head]]:
        """The runs, oldest first."""

    @abstractmethod
    def forget(self, run_id: str) -> Future[None]:
        """Delete a run with its events. A worker that still writes it is stopped.

        Raises:
            LookupError: the run is unknown, or was forgotten.
        """

    @abstractmethod
    def close(self) -> None:
        """Finish what was begun, and release what the store holds. After that it cannot be used."""


def settle(future: Future[T], function: Callable[[], T]) -> None:
    """Call ``function`` for a future that may have been cancelled."""
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


def too_large(run_id: str, seq: int, size: int) -> str:
    """The message of an EventTooLargeError."""
    return f"event {seq} of run {run_id!r} has {size} bytes; the store takes at most {MAX_EVENT_BYTES} an event"


def refuse(writer: Writer, generation: int | None) -> Exception:
    """The error of a writer that was replaced; ``generation`` is the new one, None if the run was forgotten."""
    if generation is not None and generation == writer.generation:
        return RunExistsError(run_exists(writer.run_id))
    if generation is None:
        return NotTheWriterError(f"run {writer.run_id!r} was forgotten: its worker must stop")
    return NotTheWriterError(
        f"run {writer.run_id!r} is written by another worker now: this one was taken for dead, and must stop"
    )


def run_exists(run_id: str) -> str:
    """The message of a RunExistsError."""
    return f"run {run_id!r} has begun already; read it with runs[{run_id!r}], or choose another run_id"


def is_running(run_id: str) -> str:
    """The message of a RunExistsError for a run that is to begin again."""
    return f"run {run_id!r} is running; cancel it before it begins again"


def write_spec(spec: RunSpec) -> str:
    """As JSON."""
    values = {"target": spec.target, "kind": spec.kind, "when_unread": spec.when_unread}
    return json.dumps({**values, "inputs": to_json_value(spec.inputs)})


def read_spec(text: str | bytes) -> RunSpec:
    """Read what :func:`write_spec` wrote."""
    values = json.loads(text)
    return RunSpec(**{**values, "inputs": from_json_value(values["inputs"])})


def write_error(error: Exception | None) -> str | None:
    """As JSON."""
    return None if error is None else json.dumps(describe_error(error))


def read_error(text: str | bytes | None) -> Exception | None:
    """Read what :func:`write_error` wrote."""
    return restore_error(json.loads(text)) if text else None
