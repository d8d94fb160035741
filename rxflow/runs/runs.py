"""``Runs``: runs that outlive their readers."""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, cast, get_args
from uuid import uuid4

from rxflow._options import Seconds, read_seconds
from rxflow.crew.crew import Crew
from rxflow.operators._core import check_choice, check_count
from rxflow.operators._core.run_log import LEASE_S, RunSpec, Status, Store, check_run_id
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
from rxflow.runs.worker import Workers


class Runs:
    """Runs in a store. They continue without readers, and every process with access to the store can read them. ::

        runs = Runs("sqlite:///runs.db")
        run = runs.start(Trip(), {"topic": "tides"})
        for chunk in runs[run.id].output(after=17):
            ...

    Args:
        store: ``"sqlite:///runs.db"``, ``"redis://host:6379/0"``, a :class:`Store`, or None for the memory of this
            process. An SQLite URL with three slashes has a relative path; with four slashes, it has an absolute path.
        keep: a run is kept for at least this time after it has ended or was lost; None: until :meth:`forget` is called.
            A paused run has not ended, so it is kept.
        max_events: how many of a run's newest events are kept; None: all.
        lease: how long a worker counts as alive without renewing its lease; None: 5 s. After this time, readers get
            :class:`RunLost`.
        on: the cluster that carries out the runs, such as ``rxflow.cluster.Ray()``; None: this process.

    ``keep``, ``max_events`` and ``lease`` are only for a store that this object opens. A :class:`Store` has its own
    settings. When this object is closed or the program ends, the live runs that this object has started, restarted or
    resumed are cancelled, except that runs that wait for people are paused; see :meth:`close`.

    Raises:
        TypeError: an argument has a wrong type. For example, ``store`` is a path instead of a URL.
        ValueError: ``store`` is a string of another form, or the cluster ``on`` cannot use the store. Also raised if
            ``keep``, ``max_events`` or ``lease`` is not above 0, or is given with a :class:`Store`.
        StoreError: the store cannot be opened, or has another version.
        ImportError: the store is in Redis, and redis-py is not installed.
    """

    def __init__(
        self,
        store: str | Store | None = None,
        *,
        keep: Seconds | None = None,
        max_events: int | None = None,
        lease: Seconds | None = None,
        on: Cluster | None = None,
    ) -> None:
        limits: dict[str, Any] = {"keep": keep, "max_events": max_events, "lease": lease}
        if on is not None:
            on.check_store(store)  # checked before the store is opened, because opening it may create a file
        self.store = _use_store(store, limits) if isinstance(store, Store) else _open_store(store, **limits)
        try:
            self.carrier = None if on is None else on.open(self.store, {"store": store, **limits})
        except BaseException:
            if self.store is not store:
                self.store.close()
            raise
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
        """Start a run. By default, the run continues even if nobody reads it.

        The run is carried out in this process, or in the cluster that :class:`Runs` got as ``on``. A run in this
        process uses the event loop that is running in this thread. If no loop is running in this thread, the run uses a
        loop on another thread.

        Args:
            target: a flow, a crew, or an import path such as ``"trips:Trip"``. Without an import path,
                :meth:`Run.restart` needs the flow or crew again, unless the run has paused in this ``Runs`` object.
            inputs: the inputs of the flow or crew.
            when_unread: what happens to a run without readers. With ``"detach"``, the run continues. With
                ``"cancel"``, the run is cancelled when its last reader leaves. With a time, the run is cancelled when
                it has had no reader for that long.
            run_id: the name of the run; by default a new, unique one.
            answer_within: how long a question waits for :meth:`Run.answer`; by default, not at all. If no answer comes
                in this time, the run is paused as soon as everything else in it is done.

        Raises:
            RunExistsError: a run with this id exists.
            LookupError: there is nothing at the import path.
            TypeError: ``target`` is not a flow, a crew or the import path of one. Also raised if ``when_unread``,
                ``run_id`` or ``answer_within`` has a wrong type.
            ValueError: ``inputs`` do not fit the flow or crew. Also raised if ``when_unread`` or ``answer_within`` has
                a wrong value.
            StoreError: the store cannot be written.
        """
        if self.carrier is not None:
            return self[self._send(run_id, target, inputs, when_unread, answer_within).result()]
        begin, claim = self._prepare(target, inputs, when_unread, run_id, answer_within)
        return begin(self._workers.await_claim(claim))

    async def start_async(
        self,
        target: Runnable | str,
        inputs: Mapping[str, Any] | None = None,
        *,
        when_unread: WhenUnread = "detach",
        run_id: str | None = None,
        answer_within: Seconds | None = None,
    ) -> Run:
        """Do the same as :meth:`start`, without blocking the event loop while the store works.

        If this coroutine is cancelled before the run has begun, the run is not carried out. If the store already has
        the run, its status becomes "cancelled".
        """
        if self.carrier is not None:
            sent = self._send(run_id, target, inputs, when_unread, answer_within)
            return Run(self._workers, await asyncio.wrap_future(self.store.look_up(await asyncio.wrap_future(sent))))
        begin, claim = self._prepare(target, inputs, when_unread, run_id, answer_within)
        return begin(await self._workers.await_claim_async(claim))

    def __getitem__(self, run_id: str) -> Run:
        """Return the run with this id, whichever process started it.

        Raises:
            LookupError: no run with this id was started in this store, or the run was forgotten.
            TypeError: ``run_id`` is not a string.
        """
        check_run_id(run_id)
        return Run(self._workers, self.store.look_up(run_id).result())

    def list(self, *, status: Status | None = None) -> list[Run]:
        """Return the runs, oldest first; with ``status``, only the runs that have this status.

        Raises:
            ValueError: no run has such a ``status``.
        """
        if status is not None:
            check_choice(status, "status", *get_args(Status))
        return [Run(self._workers, head) for head in self.store.list(status).result()]

    def forget(self, run_id: str) -> None:
        """Delete a run and its events. A running run is cancelled.

        Raises:
            LookupError: no run with this id was started in this store, or the run was already forgotten.
            TypeError: ``run_id`` is not a string.
        """
        check_run_id(run_id)
        self._workers.paused.pop(run_id, None)
        self.store.forget(run_id).result()

    def close(self) -> None:
        """Stop the live runs that this object has started, restarted or resumed, and close the store.

        A run whose questions are open stops waiting for the answers, and is paused if nothing else in it goes on for
        longer than 1 s. All other runs are cancelled. A second call does nothing.
        """
        atexit.unregister(self.close)
        if self.carrier is not None:
            self.carrier.close()
        self._workers.stop("its process ended, or closed the Runs object that started it")
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
            _choose_run_id(run_id),
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
        runnable = find_runnable(target)
        source = runnable.events(inputs)  # raises an error for wrong inputs, before the run is stored
        spec = RunSpec(
            target=target if isinstance(target, str) else "",
            kind="crew" if isinstance(runnable, Crew) else "flow",
            inputs=inputs,
            when_unread=read_grace(when_unread),
            answer_within=None if answer_within is None else read_seconds("answer_within", answer_within),
        )
        worker = self._workers.create(_choose_run_id(run_id), answer_within)

        def begin(claimed: Any) -> Run:
            self._workers.begin(worker, runnable, source, claimed)
            return Run(self._workers, claimed[1], worker)

        return begin, self.store.claim(worker.run_id, spec, worker.on_note)


def _choose_run_id(given: str | None) -> str:
    if given is None:
        return uuid4().hex
    check_run_id(given)
    return given


def _use_store(store: Store, limits: Mapping[str, object]) -> Store:
    for name, value in limits.items():
        if value is not None:
            raise ValueError(
                f"{name} cannot be set for a {type(store).__name__} that is open already: give it to the store "
                f"when you create it, not to Runs; got {name}={value!r}"
            )
    return store


def _open_store(store: str | None, keep: Seconds | None, max_events: int | None, lease: Seconds | None) -> Store:
    if max_events is not None:
        check_count(max_events, "max_events", 1)
    keep_s = None if keep is None else read_seconds("keep", keep)
    return open_store(store, keep_s, max_events, LEASE_S if lease is None else read_seconds("lease", lease))
