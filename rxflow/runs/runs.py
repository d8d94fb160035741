"""``Runs``: runs that outlive their readers."""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, cast
from uuid import uuid4

from rxflow._options import Seconds, read_seconds
from rxflow.crew.crew import Crew
from rxflow.operators._core.run_log import Status
from rxflow.runs.lease import LEASE_S
from rxflow.runs.options import (
    Carrier,
    Cluster,
    Runnable,
    WhenUnread,
    find_runnable,
    open_store,
    read_grace,
)
from rxflow.runs.run import Run
from rxflow.runs.store import RunSpec, Store
from rxflow.runs.worker import Workers


class Runs:
    """Runs that go on when their readers leave, and that can be read from any process. ::

        runs = Runs("sqlite:///runs.db")
        run = runs.start(Trip(), {"topic": "tides"})
        for chunk in runs[run.id].output(after=17):
            ...

    Args:
        store: ``"sqlite:///runs.db"`` (relative; four slashes for an absolute path), ``"redis://host:6379/0"``, a
            :class:`Store`, or None: the memory of this process.
        keep: runs are forgotten so long after their end; None: when :meth:`forget` is called.
        max_events: of each run, so many events are kept; None: all.
        lease: a worker that has not shown itself for so long is taken for dead, and its readers get :class:`RunLost`.
        on: where runs are carried out, such as ``rxflow.cluster.Ray()``; None: in this process.

    The runs that were started here are cancelled when it is closed, and when the program ends.

    Raises:
        ValueError: the store's name is not one of these.
        StoreError: it cannot be opened, or is of another version.
    """

    def __init__(
        self,
        store: str | Store | None = None,
        *,
        keep: Seconds | None = None,
        max_events: int | None = None,
        lease: Seconds = LEASE_S,
        on: Cluster | None = None,
    ) -> None:
        if max_events is not None and max_events < 1:
            raise ValueError(f"max_events must be at least 1: {max_events!r}")
        keep_s = None if keep is None else read_seconds("keep", keep)
        self.store = (
            store if isinstance(store, Store) else open_store(store, keep_s, max_events, read_seconds("lease", lease))
        )
        options = {"store": store, "keep": keep, "max_events": max_events, "lease": lease}
        self.carrier = None if on is None else on.open(self.store, options)
        self._workers = Workers(self.store, self.carrier)
        atexit.register(self.close)

    def start(
        self,
        target: Runnable | str,
        inputs: Mapping[str, Any] | None = None,
        *,
        when_unread: WhenUnread = "detach",
        run_id: str | None = None,
        answer_within: Seconds | None = None,
    ) -> Run:
        """Start a run in this process. It goes on whether it is read or not.

        Where asyncio runs in this thread, the run lives on that loop; else it has a thread.

        Args:
            target: a flow, a crew, or an import path such as ``"trips:Trip"``, which :meth:`Run.restart` needs.
            inputs: the inputs of the kickoff.
            when_unread: ``"detach"``: it runs on without readers; ``"cancel"``: it is cancelled when the last reader
                has left; a time: it is cancelled when nobody has read it for so long.
            run_id: its name; by default a new one.
            answer_within: so long a question waits for :meth:`Run.answer`; then the run is paused. By default it is
                paused as soon as all else is done.

        Raises:
            RunExistsError: there is a run of that id.
            LookupError: the import path leads nowhere.
            ValueError: ``inputs`` do not fit.
            StoreError: the store cannot be written.
        """
        if self.carrier is not None:
            return self[self._send(run_id, target, inputs, when_unread, answer_within).result()]
        begin, claim = self._prepare(target, inputs, when_unread, run_id, answer_within)
        return begin(claim.result())

    async def start_async(
        self,
        target: Runnable | str,
        inputs: Mapping[str, Any] | None = None,
        *,
        when_unread: WhenUnread = "detach",
        run_id: str | None = None,
        answer_within: Seconds | None = None,
    ) -> Run:
        """:meth:`start` for async code: the loop does not wait for the store."""
        if self.carrier is not None:
            sent = self._send(run_id, target, inputs, when_unread, answer_within)
            return Run(self._workers, await asyncio.wrap_future(self.store.look_up(await asyncio.wrap_future(sent))))
        begin, claim = self._prepare(target, inputs, when_unread, run_id, answer_within)
        return begin(await asyncio.wrap_future(claim))

    def __getitem__(self, run_id: str) -> Run:
        """The run of that id, of whichever process.

        Raises:
            LookupError: it never began in this store, or was forgotten.
        """
        return Run(self._workers, self.store.look_up(run_id).result())

    def list(self, *, status: Status | None = None) -> list[Run]:
        """The runs, oldest first; only those of one ``status`` if it is given."""
        return [Run(self._workers, head) for head in self.store.list(status).result()]

    def forget(self, run_id: str) -> None:
        """Delete a run with its events. If it is running, it is cancelled.

        Raises:
            LookupError: it never began in this store, or was forgotten.
        """
        self._workers.paused.pop(run_id, None)
        self.store.forget(run_id).result()

    def close(self) -> None:
        """Cancel the runs that were started here, and give back what the store holds. Idempotent."""
        atexit.unregister(self.close)
        if self.carrier is not None:
            self.carrier.close()
        self._workers.cancel("its process ended, or closed its Runs")
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _send(
        self, run_id: str | None, target: Runnable | str, inputs: Any, when_unread: WhenUnread, answer_within: Any
    ) -> Future[str]:
        return cast(Carrier, self.carrier).begin(
            "start",
            uuid4().hex if run_id is None else run_id,
            target=target,
            inputs=inputs,
            when_unread=when_unread,
            answer_within=answer_within,
        )

    def _prepare(
        self,
        target: Runnable | str,
        inputs: Mapping[str, Any] | None,
        when_unread: WhenUnread,
        run_id: str | None,
        answer_within: Seconds | None,
    ) -> tuple[Callable[[Any], Run], Any]:
        runnable = find_runnable(target) if isinstance(target, str) else target
        source = runnable.events(inputs)  # a mistake in the inputs is the caller's, here and now
        spec = RunSpec(
            target=target if isinstance(target, str) else "",
            kind="crew" if isinstance(runnable, Crew) else "flow",
            inputs=inputs,
            when_unread=read_grace(when_unread),
        )
        worker = self._workers.create(uuid4().hex if run_id is None else run_id, answer_within)

        def begin(claimed: Any) -> Run:
            self._workers.begin(worker, runnable, source, claimed)
            return Run(self._workers, claimed[1], worker)

        return begin, self.store.claim(worker.run_id, spec, worker.on_note)
