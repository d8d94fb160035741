"""Flows and crews on Ray: branches of a flow on other machines, and runs that a cluster carries out."""

from __future__ import annotations

import asyncio
import atexit
import sys
import threading
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import aclosing, closing, suppress
from importlib import import_module
from typing import Any, cast

from reactivex.disposable import Disposable

from rxflow._lazy import extra
from rxflow._options import Seconds, read_seconds
from rxflow._streaming import Emitter, EventStream, Unanswered, chunks, from_coroutine
from rxflow.cluster._actor import QuestionRelay, Reply, WorkerLost, describe_flow, refuse_to_pause
from rxflow.cluster._pool import PoolWorker, Settings, WorkerPool, describe_loss, stop
from rxflow.operators._core.run_log import End, NotTheWriterError, RunCancelled, Store, Writer
from rxflow.runs.options import Carrier
from rxflow.types import Event, InputRequested, StreamChunk
from rxflow.types.codec import decode, describe_error, restore_error

with extra("ray"):
    from ray import exceptions as ray_errors


RUNS_PER_WORKER = 64
START_WITHIN_S = 60.0
LEASE_S = 15.0
CLOSE_TIMEOUT_S = 10.0


class Ray:
    """The workers of this program on a Ray cluster. Each worker is a process that carries out many runs at once. ::

        runs = Runs("redis://host:6379/0", on=Ray(num_cpus=1))
        branch = Ray(resources={"gpu": 1}).on(Trip)

    A run gets an idle worker if there is one. Otherwise a new worker is started. When the number of workers has reached
    ``workers``, up to ``runs_per_worker`` runs share a worker, and further runs wait. The workers end with the program.

    Args:
        address: the cluster's address, in the form of ``ray.init()``; ignored if Ray is already connected.
        num_cpus: the CPUs of the cluster that each worker reserves.
        resources: other resources that each worker reserves, by name.
        workers: the greatest number of workers. The default is the number that the cluster's CPUs allow when the first
            run begins. If ``num_cpus`` is 0, the default is 1.
        runs_per_worker: how many runs one worker carries out at once.
        start_within: how long a worker may take to start. After that, the runs that wait for the worker share the
            workers that have started. If no worker has started, the waiting runs fail. For later runs, more workers are
            started when the cluster has room.
        lease: how long a worker counts as alive without answering.
        runtime_env: the environment of the workers, in the form of Ray: ``{"env_vars": {"PYTHONPATH": …}}``. Do not put
            API keys here: set them on the machines.

    Raises:
        ModuleNotFoundError: ``rxflow[ray]`` is not installed. Raised when this class is imported.
        ValueError: ``workers``, ``runs_per_worker``, ``start_within`` or ``lease`` is not above 0.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        num_cpus: float = 1,
        resources: Mapping[str, float] | None = None,
        workers: int | None = None,
        runs_per_worker: int = RUNS_PER_WORKER,
        start_within: Seconds = START_WITHIN_S,
        lease: Seconds = LEASE_S,
        runtime_env: Mapping[str, Any] | None = None,
    ) -> None:
        if runs_per_worker < 1 or (workers is not None and workers < 1):
            raise ValueError(f"workers and runs_per_worker must be at least 1: {workers!r}, {runs_per_worker!r}")
        self._pool = WorkerPool(
            Settings(
                address=address,
                num_cpus=num_cpus,
                resources=dict(resources or {}),
                workers=workers,
                runs_per_worker=runs_per_worker,
                start_within_s=read_seconds("start_within", start_within),
                lease_s=read_seconds("lease", lease),
                runtime_env=dict(runtime_env or {}),
            )
        )
        atexit.register(self.close)

    def on(self, target: object) -> OnRay:
        """Return a flow or crew whose runs are carried out on these workers.

        Raises:
            ValueError: ``target`` has no import path, or its module cannot be imported.
        """
        return OnRay(name_target(target), self._pool)

    def check_store(self, name: object) -> None:
        """Raise ValueError unless ``name`` is the URL of a Redis store, which other machines can open."""
        if not (isinstance(name, str) and name.startswith(("redis://", "rediss://"))):
            raise ValueError(
                f'a cluster needs a store that all its machines can reach, such as "redis://host:6379/0"; got {name!r}'
            )

    def open(self, store: Store, options: Mapping[str, Any]) -> Carrier:
        """Connect to the cluster, and return an object that begins the runs of ``store`` there. Used by ``Runs``.

        Raises:
            ConnectionError: the cluster cannot be reached.
        """
        self._pool.connect()
        return _RunsOnRay(self._pool, store, dict(options))

    def close(self) -> None:
        """Stop the workers and their runs. A second call does nothing.

        Runs that wait for a worker, or that are started later, fail with :class:`WorkerStartError`.
        """
        atexit.unregister(self.close)
        self._pool.close()

    def __enter__(self) -> Ray:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_shared: dict[tuple[Any, ...], Ray] = {}
_shared_lock = threading.Lock()


def on_ray(target: object, *, num_cpus: float = 1, resources: Mapping[str, float] | None = None) -> OnRay:
    """Return a flow or crew whose runs are carried out on a Ray cluster. ::

        @listen(plan)
        def research(self):
            return on_ray("trips:research_crew", num_cpus=2).observe({"topic": self.state.topic})

    The cluster is the one that this program is connected to. If there is none, ``ray.init()`` finds or starts one.
    Workers import ``target`` by its path, so they need the code. API keys come from the environment of the workers.
    Targets with the same ``num_cpus`` and ``resources`` share workers. :class:`Ray` has more settings.

    Args:
        target: an import path such as ``"trips:Trip"``, or a class, function or module-level object that has one.
        num_cpus: the CPUs of the cluster that each worker reserves.
        resources: other resources that each worker reserves, by name.

    Raises:
        ValueError: ``target`` has no import path, or its module cannot be imported.
        ModuleNotFoundError: ``rxflow[ray]`` is not installed. Raised when this function is imported.
    """
    key = (num_cpus, *sorted((resources or {}).items()))
    with _shared_lock:
        if key not in _shared:
            _shared[key] = Ray(num_cpus=num_cpus, resources=resources)
        return _shared[key].on(target)


def close_workers() -> None:
    """Stop the workers that :func:`on_ray` started, and their runs. They also stop when the program ends."""
    with _shared_lock:
        closing = list(_shared.values())
        _shared.clear()
    for each in closing:
        each.close()


class OnRay:
    """A flow or crew that is carried out on a cluster. :func:`on_ray` and :meth:`Ray.on` create it."""

    def __init__(self, target: str, pool: WorkerPool) -> None:
        self.target = target
        self._pool = pool

    def events(self, inputs: Mapping[str, Any] | None = None) -> EventStream[Event]:
        """Return a cold Observable of all events of a run. Each subscription is a new run on a worker. ::

            worker     S--a-b---c--F|
            result     --S--a-b---c--F|

        Disposing the subscription cancels the run, including its connections to providers.

        Raises:
            WorkerLost: the worker has died or cannot be reached. Raised as the stream's error, after the events that
                had arrived.
            WorkerStartError, CodeMismatchError: no worker could take the run. Raised as the stream's error.
            ConnectionError: the cluster cannot be reached. Raised as the stream's error.
            NotResumable: a question was not answered. Raised in the code that asked, or as the stream's error.
            Exception: the run's own error.
        """

        async def work(emitter: Emitter) -> None:
            await _follow(self._pool, self.target, inputs, emitter)

        return EventStream(lambda scope: from_coroutine(scope, work))

    def observe(self, inputs: Mapping[str, Any] | None = None) -> EventStream[StreamChunk]:
        """Return a cold Observable of the chunks of a run: a selection from :meth:`events`."""
        return self.events(inputs).select(chunks)

    def __repr__(self) -> str:
        return f"<{self.target} on Ray>"


def name_target(target: object) -> str:
    """Return the import path of a flow, a crew, or a function that creates one. An import path is returned unchanged.

    Raises:
        ValueError: ``target`` has no import path, or its module cannot be imported, or it is a string of another form.
    """
    if isinstance(target, str):
        if not all(target.partition(":")):
            raise ValueError(f"not an import path such as 'package.module:Name': {target!r}")
        return target
    module, name = getattr(target, "__module__", ""), getattr(target, "__qualname__", "")
    if name and module != "__main__":
        # ImportError: the module was loaded from a file, under a name that cannot be imported.
        with suppress(ImportError, AttributeError):
            found: Any = import_module(module)
            for each in name.split("."):
                found = getattr(found, each)
            if found is target:
                return f"{module}:{name}"
    for module_name, loaded in list(sys.modules.items()):
        if module_name != "__main__":
            for name, value in list(getattr(loaded, "__dict__", {}).items()):
                if value is target:
                    return f"{module_name}:{name}"
    raise ValueError(
        f"{target!r} cannot be found by name on another machine: put it into a module (not the program itself), at its "
        "top, or give its class, or an import path such as 'trips:Trip'"
    )


async def _follow(pool: WorkerPool, target: str, inputs: Mapping[str, Any] | None, emitter: Emitter) -> None:
    """Emit the events of a run that a worker carries out."""
    label = emitter.origin.run_id
    last = -1
    arguments = target, describe_flow(target), inputs, emitter.origin
    async with _RemoteRun(pool) as remote, aclosing(remote.messages("stream", *arguments, emitter=emitter)) as messages:
        with closing(QuestionRelay(emitter, remote.answer)) as questions:
            async for kind, data in messages:
                if kind == "events":
                    for line in data.splitlines(keepends=True):
                        event = decode(line)
                        # Most events are chunks, and comparing the type is faster than isinstance().
                        if type(event) is not StreamChunk and isinstance(event, InputRequested):
                            questions.expect(event)
                        emitter.on_next(event)
                        last += 1
                elif kind == "asks":
                    questions.ask(cast(InputRequested, decode(data)))
                elif kind == "forgets":
                    questions.forget(data)
                elif kind == "failed":
                    raise restore_error(data)
                elif kind == "unanswered":
                    raise refuse_to_pause(Unanswered(tuple(cast(InputRequested, decode(line)) for line in data)))
                elif kind == "lost":
                    raise WorkerLost(label, last, data)
                else:
                    return


class _RemoteRun:
    """Lets a worker carry out one run: reserves a worker, yields its messages, and on exit cancels an unfinished run.

    Entering ``async with`` waits for a worker.
    """

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._reserved: Future[PoolWorker] | None = None
        self._worker: PoolWorker | None = None
        self._stream: Any = None
        self._cancelled = threading.Event()
        self._is_over = False
        self._loss = ""

    async def __aenter__(self) -> _RemoteRun:
        self._reserved = reserved = self._pool.reserve()
        if self._cancelled.is_set():
            reserved.cancel()
        try:
            self._worker = await asyncio.wrap_future(reserved)
        except asyncio.CancelledError:
            reserved.add_done_callback(self._return_late)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()
        if self._worker is not None:
            self._pool.give_back(self._worker, self._loss)

    async def messages(
        self, method: str, *arguments: Any, emitter: Emitter | None = None
    ) -> AsyncGenerator[tuple[str, Any]]:
        """Call the worker's ``method``, and yield the messages of this call.

        If the method raises, the last message is ("failed", a description of the error). If the worker is lost, the
        last message is ("lost", reason).
        """
        worker = cast(PoolWorker, self._worker)
        loop, task = asyncio.get_running_loop(), cast("asyncio.Task[Any]", asyncio.current_task())
        is_lost = False
        if self._cancelled.is_set():
            raise asyncio.CancelledError

        def interrupt() -> None:
            nonlocal is_lost
            if not self._is_over:
                is_lost = True
                task.cancel()

        def on_loss() -> None:
            with suppress(RuntimeError):  # raised if the loop is closed
                loop.call_soon_threadsafe(interrupt)

        self._stream = getattr(worker.actor, method).options(num_returns="streaming").remote(*arguments)
        if self._cancelled.is_set():  # another thread has called cancel() before self._stream was set
            self.cancel()
        if emitter is not None:
            # The thread that disposes calls cancel() itself, because this loop may be blocked.
            emitter.own(Disposable(self.cancel))
        worker.on_loss[self] = on_loss
        try:
            async for reference in self._stream:
                yield await reference
        except ray_errors.TaskCancelledError:
            raise asyncio.CancelledError from None
        except ray_errors.RayTaskError as error:  # raised by ``method`` itself: the worker is alive
            self._is_over = True
            yield "failed", describe_error(cast(Exception, error.cause or error))
        except ray_errors.RayError as error:
            self._is_over = True
            self._loss = worker.loss or describe_loss(error)
            yield "lost", self._loss
        except asyncio.CancelledError:
            if not is_lost:
                raise
            task.uncancel()
            self._is_over = True
            yield "lost", worker.loss
        else:
            self._is_over = True
        finally:
            worker.on_loss.pop(self, None)

    def answer(self, request_id: str, reply: Reply) -> None:
        """Send the worker the answer to the question ``request_id``."""
        cast(PoolWorker, self._worker).actor.answer.remote(request_id, reply)

    def cancel(self) -> None:
        """Stop the run on the worker, or stop waiting for a worker. May be called in any thread.

        If the run has ended, this does nothing.
        """
        self._cancelled.set()
        if self._reserved is not None:
            self._reserved.cancel()
        if not self._is_over and self._stream is not None:
            self._is_over = True
            with suppress(ray_errors.RayError):
                stop(self._stream)

    def _return_late(self, reserved: Future[PoolWorker]) -> None:
        if not reserved.cancelled() and reserved.exception() is None:
            self._pool.give_back(reserved.result())


class _RunsOnRay:
    """Lets workers carry out the runs of one store."""

    def __init__(self, pool: WorkerPool, store: Store, options: Mapping[str, Any]) -> None:
        self._pool = pool
        self._store = store
        self._options = options
        self._remote_runs: dict[_RemoteRun, Future[None]] = {}

    def begin(self, verb: str, run_id: str, **arguments: Any) -> Future[str]:
        """Make a worker start, restart or resume a run.

        ``verb`` is the name of a method of ``Runs`` or ``Run``, and ``arguments`` are for that method. The returned
        future gets the run's id as its result when the run has begun. Cancelling the future before it has a result
        cancels the run.
        """
        if arguments.get("target") is not None:
            arguments["target"] = name_target(arguments["target"])
        begun: Future[str] = Future()
        remote = _RemoteRun(self._pool)
        self._remote_runs[remote] = over = self._pool.submit(self._carry_out(remote, verb, run_id, arguments, begun))
        over.add_done_callback(lambda done: self._remote_runs.pop(remote, None))
        over.add_done_callback(lambda done: _fail(begun, done, run_id))
        begun.add_done_callback(lambda begun: remote.cancel() if begun.cancelled() else None)
        return begun

    def close(self) -> None:
        """Cancel the runs that were begun here, and wait at most ``CLOSE_TIMEOUT_S`` until they have ended."""
        remote_runs = dict(self._remote_runs)
        for remote in remote_runs:
            remote.cancel()
        wait(remote_runs.values(), CLOSE_TIMEOUT_S)

    async def _carry_out(
        self, remote: _RemoteRun, verb: str, run_id: str, arguments: Mapping[str, Any], begun: Future[str]
    ) -> None:
        writer: Writer | None = None
        target = arguments.get("target") or (await asyncio.wrap_future(self._store.look_up(run_id))).spec.target
        sent = self._options, verb, run_id, describe_flow(target), arguments
        async with remote, aclosing(remote.messages("carry_out", *sent)) as messages:
            async for kind, data in messages:
                if kind == "begun":
                    writer = data
                    with suppress(
                        InvalidStateError
                    ):  # ``begun`` was cancelled already; its callback cancels ``remote``
                        begun.set_result(run_id)
                elif kind == "failed":
                    if writer is None:
                        raise restore_error(data)
                    return  # the end of the run could not be written: readers get RunLost when the lease ends
                elif writer is None:
                    raise WorkerLost(run_id, -1, data)
                else:  # "lost": store this ending, so that readers need not wait until the lease ends
                    with suppress(NotTheWriterError):  # raised if another worker has taken over the run
                        await asyncio.wrap_future(self._store.append(writer, [], End("lost")))


def _fail(begun: Future[str], done: Future[None], run_id: str) -> None:
    error = RunCancelled(run_id, _NOT_BEGUN) if done.cancelled() else done.exception()
    with suppress(InvalidStateError):  # raised if the run has begun, or if ``begun`` was cancelled
        begun.set_exception(error or RuntimeError("the run ended before it had begun"))


_NOT_BEGUN = "the Runs object that started it was closed before the run had begun"
