"""The errors that occur between a program and its workers on a cluster."""

from __future__ import annotations

from rxflow.operators._core.run_log import RunLost


class WorkerLost(RunLost):
    """The worker of a remote branch has died or cannot be reached. The events that had arrived were emitted before."""

    def __init__(self, run_id: str, last: int, why: str) -> None:
        super().__init__(run_id, last)
        self.why = why
        self.args = (
            f"the worker of run {run_id!r} was lost after {last + 1} events: {why}; subscribe again to repeat it",
        )

    def __reduce__(self) -> tuple[type[WorkerLost], tuple[str, int, str]]:  # type: ignore[override]
        return type(self), (self.run_id, self.last, self.why)


class WorkerStartError(RuntimeError):
    """No worker could be started: the cluster lacks the resources, or the process failed."""


class CodeMismatchError(RuntimeError):
    """The worker has another version of rxflow, or of the flow's module, than this program."""
