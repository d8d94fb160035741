"""Manages a program's workers on a cluster: starts workers, gives them runs, and checks that they are alive."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, cast

from rxflow._lazy import extra
from rxflow.cluster._actor import CodeMismatchError, RunActor, WorkerStartError, describe_rxflow

with extra("ray"):
    import ray as _ray
    from ray import exceptions as ray_errors

ray: Any = _ray
"""The package ``ray``, typed as ``Any``, because its own types are incomplete: they lack concurrency groups."""

T = TypeVar("T")
_connecting = threading.Lock()  # held during ray.init(), because a second ray.init() in a process fails

CONNECT_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 5.0
_IS_CLOSED = "the workers of this Ray object were closed; create another one"
HEALTH = "health"
"""The concurrency group of pings. Ray runs each concurrency group in a thread of its own.

So a worker answers pings even while a flow blocks the event loop of the runs.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of the workers; see :class:`rxflow.cluster.Ray`."""

    address: str | None
    num_cpus: float
    resources: Mapping[str, float]
    workers: int | None
    runs_per_worker: int
    start_within_s: float
    lease_s: float
    runtime_env: Mapping[str, Any]


@dataclass(eq=False)
class PoolWorker:
    """One worker process. ``runs`` counts the runs that the worker carries out, or will carry out once it has started.

    When the pool loses or stops the worker, the pool sets ``loss`` to the reason. The pool then calls the functions in
    ``on_loss`` in the pool's thread.

    ``is_trial`` is True while the worker starts only to find out whether the cluster has room for it. No run waits for
    such a worker.
    """

    actor: Any
    is_trial: bool = False
    ready: asyncio.Task[None] | None = None
    watch: asyncio.Task[None] | None = None
    runs: int = 0
    loss: str = ""
    on_loss: dict[object, Callable[[], None]] = field(default_factory=dict[object, Callable[[], None]])

    @property
    def is_ready(self) -> bool:
        """Whether the worker has started without an error."""
        ready = self.ready
        return ready is not None and ready.done() and not ready.cancelled() and not ready.exception()


class WorkerPool:
    """Chooses a worker for each run. The pool has its own event loop, which runs in the pool's own thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._workers: list[PoolWorker] = []
        self._turns: deque[asyncio.Future[None]] = deque()  # a future for each run that waits for a worker
        self._acquiring: set[asyncio.Task[PoolWorker]] = set()
        self._max_workers = settings.workers  # None until _connect() has computed it
        # The number of workers for which the cluster has room, as far as failed starts have shown. The number must be
        # able to grow again, up to ``_max_workers``, because nodes join and other programs end. But in a full cluster,
        # a start fails only after ``start_within_s``, and no run should be delayed that long if another worker can
        # carry it out. So a trial finds out whether there is more room. Only demand causes trials, so an idle program
        # takes no more resources. A trial may fail at once. So after the beginning of a failed trial,
        # ``start_within_s`` must pass before the next trial begins.
        self._room = sys.maxsize
        self._next_trial_at = 0.0  # in the loop's time
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def connect(self) -> None:
        """Connect this program to the cluster if it is not connected.

        Raises ConnectionError if the cluster cannot be reached.
        """
        with _connecting:
            if ray.is_initialized():
                return
            _check_that_one_answers(self._settings.address)
            before = signal.getsignal(signal.SIGTERM)
            ray.init(address=self._settings.address, log_to_driver=False, configure_logging=False)
            is_main = threading.current_thread() is threading.main_thread()
            if is_main and before is not signal.SIG_DFL:  # ray.init() of Ray 2.60 replaces the handler
                signal.signal(signal.SIGTERM, before)

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start ``work`` on the pool's loop, and return a future. Raises WorkerStartError if the pool is closed."""
        with self._lock:
            if self._is_closed:
                work.close()
            # The lock is held here, so that a later close() finds this coroutine on the loop.
            return asyncio.run_coroutine_threadsafe(work, self._open_loop())

    def reserve(self) -> Future[PoolWorker]:
        """Start :meth:`acquire` on the pool's loop, and return a future of the worker. May be called in any thread.

        A caller that gets the worker must return it with :meth:`give_back`. A caller that no longer needs a worker may
        cancel the future, as long as the future has no result.

        Raises:
            WorkerStartError: the pool is closed.
        """
        reserved: Future[PoolWorker] = Future()
        with self._lock:
            loop = self._open_loop()
            loop.call_soon_threadsafe(self._begin_acquiring, reserved, loop)
        return reserved

    def _open_loop(self) -> asyncio.AbstractEventLoop:
        if self._is_closed:
            raise WorkerStartError(_IS_CLOSED)
        if self._loop is None:
            self._loop = loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=_run, args=(loop,), name="rxflow cluster", daemon=True)
            self._thread.start()
        return self._loop

    def _begin_acquiring(self, reserved: Future[PoolWorker], loop: asyncio.AbstractEventLoop) -> None:
        acquiring = loop.create_task(self.acquire())
        self._acquiring.add(acquiring)

        def stop(done: Future[PoolWorker]) -> None:
            if done.cancelled():
                with suppress(RuntimeError):  # raised if the loop is closed
                    loop.call_soon_threadsafe(acquiring.cancel)

        acquiring.add_done_callback(partial(self._hand_over, reserved))
        reserved.add_done_callback(stop)

    def _hand_over(self, reserved: Future[PoolWorker], acquired: asyncio.Task[PoolWorker]) -> None:
        self._acquiring.discard(acquired)
        error = WorkerStartError(_IS_CLOSED) if acquired.cancelled() else acquired.exception()
        try:
            if error is not None:
                reserved.set_exception(error)
            else:
                reserved.set_result(acquired.result())
        except InvalidStateError:
            # ``reserved`` was cancelled. No caller got the worker, so no caller will give the worker back.
            if error is None:
                self.release(acquired.result())

    async def acquire(self) -> PoolWorker:
        """Return a worker with room for one more run. Must be called on the pool's loop.

        Raises:
            WorkerStartError: a new worker could not be started, and no other worker has started.
            CodeMismatchError: a new worker has another version of rxflow than this program.
            ConnectionError: the cluster cannot be reached.
        """
        await self._connect()
        while True:
            worker = self._choose()
            if worker is None:
                turn = asyncio.get_running_loop().create_future()
                self._turns.append(turn)
                try:
                    await turn
                except asyncio.CancelledError:
                    if not turn.cancelled():  # this run had been woken already, so wake another run instead
                        self._call_next()
                    raise
                continue
            worker.runs += 1
            try:
                if worker.ready is not None:
                    await asyncio.shield(worker.ready)
            except WorkerStartError:
                self.release(worker)
                if not any(each.is_ready for each in self._workers):
                    raise
            except BaseException:
                self.release(worker)
                raise
            else:
                return worker

    def release(self, worker: PoolWorker) -> None:
        """Record that a run has left the worker, and wake the next waiting run. Must be called on the pool's loop."""
        worker.runs -= 1
        self._call_next()

    def _call_next(self) -> None:
        while self._turns:
            turn = self._turns.popleft()
            if not turn.done():
                turn.set_result(None)
                break

    def _call_all(self) -> None:
        while self._turns:
            self._call_next()

    def give_back(self, worker: PoolWorker, loss: str = "") -> None:
        """Schedule :meth:`release` on the pool's loop. May be called in any thread.

        If the caller has found the worker dead, ``loss`` is the reason.
        """

        def give_back() -> None:
            if loss:
                self._lose(worker, loss)
            self.release(worker)

        loop = self._loop  # read once, because close() in another thread sets it to None
        if loop is not None:
            with suppress(RuntimeError):  # raised if the loop is closed
                loop.call_soon_threadsafe(give_back)

    def close(self) -> None:
        """Stop the workers and their runs.

        Runs that wait for a worker, or that need one later, fail with WorkerStartError.
        """
        with self._lock:
            self._is_closed = True
            loop, self._loop = self._loop, None
            thread, self._thread = self._thread, None
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._shut(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()

    async def _shut(self) -> None:
        tasks: list[asyncio.Task[Any]] = [*self._acquiring]
        tasks += [each for worker in self._workers for each in (worker.ready, worker.watch) if each is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for worker in list(self._workers):
            self._lose(worker, "its program has closed the cluster's workers")
        following = asyncio.all_tasks() - {asyncio.current_task()}
        if following:  # these tasks record that the runs of the workers are lost
            await asyncio.wait(following, timeout=CLOSE_TIMEOUT_S)

    async def _connect(self) -> None:
        if not ray.is_initialized():
            await asyncio.to_thread(self.connect)
        if self._max_workers is None:
            cpus = (await asyncio.to_thread(_list_resources)).get("CPU", 1)
            self._max_workers = max(1, int(cpus / self._settings.num_cpus)) if self._settings.num_cpus else 1

    def _choose(self) -> PoolWorker | None:
        workers = [each for each in self._workers if not each.is_trial]
        worker = min(workers, key=lambda each: each.runs, default=None)
        max_workers = self._max_workers or 1
        if worker is None or (worker.runs > 0 and len(workers) < min(max_workers, self._room)):
            return self._start()
        if (worker.runs > 0 or self._turns) and self._room <= len(workers) < max_workers:
            self._try_for_room()
        return worker if worker.runs < self._settings.runs_per_worker else None

    def _try_for_room(self) -> None:
        """Start a trial: a worker that shows whether the cluster has more room.

        Do nothing if a trial is in progress, or if a start failed only recently.
        """
        is_going_on = any(each.is_trial for each in self._workers)
        if not is_going_on and self._next_trial_at <= asyncio.get_running_loop().time():
            self._postpone_trials()
            self._start(is_trial=True)

    def _postpone_trials(self) -> None:
        loop = asyncio.get_running_loop()
        self._next_trial_at = loop.time() + self._settings.start_within_s
        loop.call_at(self._next_trial_at, self._call_all)  # the runs that wait then may cause a trial

    def _start(self, *, is_trial: bool = False) -> PoolWorker:
        given = self._settings
        groups = {HEALTH: 1}
        actor = (
            ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups=groups)(RunActor)
            .options(
                num_cpus=given.num_cpus,
                resources=dict(given.resources),
                max_concurrency=2 * given.runs_per_worker,  # a cancelled call keeps its slot until it has ended
                scheduling_strategy="SPREAD",
                runtime_env=dict(given.runtime_env) or None,
            )
            .remote()
        )
        worker = PoolWorker(actor, is_trial)
        self._workers.append(worker)
        worker.ready = asyncio.ensure_future(self._greet(worker))
        worker.ready.add_done_callback(lambda done: None if done.cancelled() else done.exception())
        return worker

    async def _greet(self, worker: PoolWorker) -> None:
        """Wait until the worker answers, and begin to watch it."""
        try:
            await self._check_start(worker)
        except Exception as error:  # whatever the error is, the next run must not get this worker
            if worker.is_trial:
                self._postpone_trials()  # again: the trial may have taken until the end of the first postponement
            elif isinstance(error, WorkerStartError):
                self._limit_room()
            self._lose(worker, describe_loss(error))
            raise
        worker.watch = asyncio.ensure_future(self._watch(worker))
        if worker.is_trial:
            worker.is_trial = False
            self._room = max(self._room, len(self._workers))
            self._next_trial_at = 0.0  # there may be room for one more
            self._call_all()

    def _limit_room(self) -> None:
        """After a failed start, assume that the cluster has room only for the pool's other workers.

        If no worker is ready, do nothing.
        """
        if any(each.is_ready for each in self._workers):
            self._room = sum(not each.is_trial for each in self._workers) - 1
            self._postpone_trials()

    async def _check_start(self, worker: PoolWorker) -> None:
        given = self._settings
        needs = ", ".join(
            f"{name}={value:g}" for name, value in {"num_cpus": given.num_cpus, **given.resources}.items()
        )
        try:
            code = await _ping(worker, given.start_within_s)
        except TimeoutError:
            has = {name: value for name, value in _list_resources().items() if not name.startswith("node:")}
            message = f"no worker with {needs} started within {given.start_within_s:g} s; the cluster has {has}"
            raise WorkerStartError(message) from None
        except ray_errors.RayError as error:
            raise WorkerStartError(f"a worker with {needs} could not start: {type(error).__name__}") from error
        if code != describe_rxflow():
            raise CodeMismatchError(
                f"the worker runs {code}; this program runs {describe_rxflow()}: install the same version on both"
            )

    async def _watch(self, worker: PoolWorker) -> None:
        """Ping the worker until it is lost."""
        lease_s = self._settings.lease_s
        while True:
            began = time.monotonic()
            try:
                await _ping(worker, lease_s)
            except TimeoutError:
                self._lose(worker, f"it has not answered for {lease_s:g} s")
                return
            except ray_errors.RayError as error:
                self._lose(worker, describe_loss(error))
                return
            await asyncio.sleep(max(0.0, began + lease_s / 3 - time.monotonic()))

    def _lose(self, worker: PoolWorker, why: str) -> None:
        if worker not in self._workers:
            return
        self._workers.remove(worker)
        worker.loss = why
        if worker.watch is not None and worker.watch is not asyncio.current_task():
            worker.watch.cancel()
        with suppress(ray_errors.RayError):
            ray.kill(worker.actor, no_restart=True)
        for tell in list(worker.on_loss.values()):
            tell()
        self._call_all()  # because the lost worker can be replaced by a new one


def stop(stream: Any) -> None:
    """Cancel a method call on a worker. ``stream`` is the stream of the call's results.

    Deleting ``stream`` would not cancel the call.
    """
    ray.cancel(stream)


def _list_resources() -> Mapping[str, float]:
    """Return the total resources of the cluster, by name."""
    return cast("Mapping[str, float]", ray.cluster_resources())


async def _ping(worker: PoolWorker, within_s: float) -> Any:
    # asyncio.wait_for() of Python 3.11 would ignore a cancellation that arrives together with the reply.
    async with asyncio.timeout(within_s):
        return await asyncio.wrap_future(worker.actor.ping.options(concurrency_group=HEALTH).remote().future())


def describe_loss(error: BaseException) -> str:
    """Return the class and the first line of a Ray error. The full text would fill a page."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
    loop.close()


def _check_that_one_answers(address: str | None) -> None:
    # Ray itself tries for more than five minutes to connect to an address where nothing listens.
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # an address without a port, such as "auto" or "local"
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise ConnectionError(
            f"no Ray cluster answers at {address!r} ({error}); `ray start --head` starts one on this machine"
        ) from error
