"""Provider I/O: one background event loop has all connections, and hands the deltas over to the loops of the runs.

The I/O loop does not execute the code of runs. So a method that blocks the loop of its run does not stall the streams
of other runs. But async callbacks that a program has registered with LiteLLM run on the I/O loop. The connections
outlive ``asyncio.run`` and are reused. LiteLLM's first call blocks its event loop for hundreds of milliseconds. On the
I/O loop, this only delays the deltas of other calls.
"""

from __future__ import annotations

import asyncio
import atexit
import inspect
import os
import select
import selectors
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import Any, ParamSpec, TypeVar, cast

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow._loops import call_soon, refusal_of, running_loop
from rxflow._streaming import Run, RunPart, ambient, loop_thread
from rxflow.llm.source import Delta

P = ParamSpec("P")
T = TypeVar("T")

MAX_STEP_DELTAS = 128
"""After a call has emitted about this many deltas, other code on the run's loop can run."""

Deliver = Callable[[Sequence[Delta]], None]


class _IOLoop:
    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_default_executor(_Threads())
        self.resources: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._run, name="rxflow I/O", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(self.loop)
            for task in tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            for resource in self.resources.values():
                self.loop.run_until_complete(resource.close())
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()

    def stop(self) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(2.0)

    def detach(self) -> None:
        """Replace the inherited file descriptors in a forked child, so that the child cannot affect the parent.

        LiteLLM closes all its clients at exit. In the child, this would close the parent's connections, and remove them
        from the epoll object that both processes share. The parent would then wait forever.
        """
        selector = getattr(self.loop, "_selector", None)
        if not isinstance(selector, selectors.BaseSelector):
            return  # the loop is not one of asyncio's own
        nothing = os.open(os.devnull, os.O_RDWR)
        for key in list(selector.get_map().values()):
            os.dup2(nothing, key.fd, inheritable=False)
        os.close(nothing)
        if sys.platform == "linux" and isinstance(selector, selectors.EpollSelector):
            with select.epoll() as empty:
                os.dup2(empty.fileno(), selector.fileno(), inheritable=False)


_current: _IOLoop | None = None
_starting = threading.Lock()  # two simultaneous first calls in two threads must not create two loops


def submit(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Run ``work`` on the I/O loop. The first call starts the loop. Cancelling the returned future cancels ``work``."""
    return asyncio.run_coroutine_threadsafe(work, _get().loop)


def _get() -> _IOLoop:
    global _current
    with _starting:
        if _current is None:
            # Use an empty context, because the loop's handles would keep the first caller's context alive.
            _current = Context().run(_IOLoop)
        return _current


def is_io_loop() -> bool:
    """Return whether the calling code runs on the I/O loop."""
    return _current is not None and running_loop() is _current.loop


def get_resource(name: str, create: Callable[[], T]) -> T:
    """Return the resource ``name`` of the I/O loop. If it does not exist, ``create()`` creates it.

    When the loop stops, it awaits ``close()`` of each resource. A forked child has an I/O loop of its own, and so its
    own resources. Call this function on the I/O loop.
    """
    assert _current is not None
    if name not in _current.resources:
        _current.resources[name] = create()
    return cast(T, _current.resources[name])


def stop() -> None:
    """Stop the loop, and wait at most 2 s for its thread to end.

    A later call of :func:`submit` starts a new loop.
    """
    global _current
    with _starting:
        io, _current = _current, None
    if io is not None:
        io.stop()


@atexit.register
def _stop_at_exit() -> None:
    # Stop the runs before the I/O loop. Otherwise the runs would report the end of the I/O loop as an error. Without
    # this call of stop_all(), the order would depend on which module was imported first.
    loop_thread.stop_all()
    stop()


def _forget() -> None:
    # Threads do not survive a fork. The child starts a loop of its own when it needs one.
    global _current, _starting
    io, _current = _current, None
    _starting = threading.Lock()
    if io is not None:
        io.detach()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def from_io(read: Callable[[Deliver], Awaitable[None]]) -> Observable[Delta]:
    """Return an Observable of the deltas that the coroutine ``read(deliver)`` passes to ``deliver``.

    The coroutine runs in a task on the I/O loop. The Observable emits the deltas on the subscriber's loop.

    Disposing cancels the task, and the task closes the provider's connection. ``dispose()`` can be called in any
    thread, and does not wait. ::

        read      --[a,b]---------[c]--return
        result    ----ab-----------c---|
    """

    def subscribe(observer: ObserverBase[Delta], scheduler: SchedulerBase | None = None) -> DisposableBase:
        loop = asyncio.get_running_loop()
        refused = refusal_of(loop)
        leaf = ambient.get()
        hop = _Hop(loop, observer, None if leaf is None else leaf.run)
        if refused is not None:
            observer.on_error(refused)
            return hop
        # The task gets a context without the run. Timers of the HTTP client keep the task's context for minutes, and
        # would keep the run in memory.
        context = copy_context()
        context.run(ambient.set, None)
        hop.begin(read, _get().loop, context)
        return hop

    return RunPart(subscribe)


class _Hop(DisposableBase):
    """Hands the deltas of one call over from the I/O loop to the subscriber's loop.

    The reading task appends batches of deltas to a list, and schedules a callback on the subscriber's loop. The
    callback emits the deltas. If there are many, it emits only some of them, and is scheduled again.

    There may be thousands of calls, so this object must be small. An empty deque would take 760 bytes, so the batches
    are in a list. The future of asyncio.run_coroutine_threadsafe() would take another 1,200 bytes, so it is not used.
    """

    __slots__ = ("_batches", "_io", "_is_disposed", "_is_waking", "_loop", "_observer", "_reading", "_run")

    def __init__(self, loop: asyncio.AbstractEventLoop, observer: ObserverBase[Delta], run: Run | None) -> None:
        self._loop = loop
        self._observer: ObserverBase[Delta] | None = observer
        self._batches: list[Sequence[Delta]] = []
        self._is_waking = False
        self._is_disposed = False
        self._io: asyncio.AbstractEventLoop | None = None
        self._reading: asyncio.Task[None] | None = None
        self._run = run

    def begin(
        self, read: Callable[[Deliver], Awaitable[None]], io: asyncio.AbstractEventLoop, context: Context
    ) -> None:
        """Start the reading task on the loop ``io``."""
        self._io = io

        def start() -> None:
            if not self._is_disposed:
                self._reading = io.create_task(self._read(read), context=context)

        io.call_soon_threadsafe(start, context=context)
        if self._run is not None:
            self._run.connections.add(self)

    async def _read(self, read: Callable[[Deliver], Awaitable[None]]) -> None:
        try:
            await read(self.deliver)
        except asyncio.CancelledError:
            self.end(asyncio.CancelledError("the I/O loop was stopped"))
            raise
        except Exception as error:  # noqa: BLE001 - the error is the stream's terminal
            self.end(error)
        else:
            self.end(None)

    def deliver(self, batch: Sequence[Delta]) -> None:
        """Add deltas, and wake the subscriber's loop. Called on the I/O loop."""
        self._batches.extend(batch[first : first + MAX_STEP_DELTAS] for first in range(0, len(batch), MAX_STEP_DELTAS))
        if not self._is_waking:
            self._is_waking = True
            call_soon(self._loop, self._drain)

    def end(self, error: BaseException | None) -> None:
        """Schedule the end of the stream on the subscriber's loop. Called once, on the I/O loop."""
        call_soon(self._loop, partial(self._end, error))

    def dispose(self) -> None:
        if self._is_disposed:
            return
        self._is_disposed = True
        self._observer = None
        self._leave()
        if self._io is not None:
            call_soon(self._io, self._stop, context=Context())

    def _leave(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.connections.forget(self)

    def _stop(self) -> None:
        """Cancel the reading task. Called on the I/O loop."""
        if self._reading is not None:
            self._reading.cancel()

    def _drain(self) -> None:
        # Clear the flag before checking the list, because deliver() appends to the list before it checks the flag.
        self._is_waking = False
        observer = self._observer
        if observer is None:
            return
        emit, run = observer.on_next, self._run
        try:
            emitted = 0
            while self._batches and emitted < MAX_STEP_DELTAS:
                batch = self._batches.pop(0)
                if run is not None:
                    run.clock.read_at = run.clock.time()
                for delta in batch:
                    if self._is_disposed:
                        return
                    emit(delta)
                emitted += len(batch)
        except Exception as error:  # noqa: BLE001 - the error ends the stream; the loop would only log it
            self.dispose()
            observer.on_error(error)
            return
        finally:
            if run is not None:
                run.clock.read_at = 0.0
        if self._batches and not self._is_waking:
            self._is_waking = True
            self._loop.call_soon(self._drain)

    def _end(self, error: BaseException | None) -> None:
        if self._batches and self._observer is not None:  # wait until _drain() has emitted these batches
            self._loop.call_soon(self._end, error)
            return
        observer, self._observer = self._observer, None
        self._io = None  # the reading task has ended, so dispose() need not cancel it
        self._leave()
        if observer is None:
            return
        if error is None:
            observer.on_completed()
        else:
            observer.on_error(error)  # type: ignore[arg-type]  # RxPY's type excludes CancelledError


class UnawaitedCoroutines:
    """Collects coroutines that worker threads create for one call, and closes those that were never awaited.

    LiteLLM creates a coroutine in a thread and awaits it on the loop. If the call is cancelled in between, the
    coroutine is never awaited, and Python would report that on the program's standard error. ::

        with UnawaitedCoroutines():
            await litellm.acompletion(…)
    """

    def __init__(self) -> None:
        self._created: list[Coroutine[Any, Any, Any]] = []
        self._is_over = False

    def __enter__(self) -> None:
        _unawaited.set(self)

    def __exit__(self, *error: object) -> None:
        # First set the flag, and then check the list. keep() runs in a worker thread: it first adds to the list, and
        # then checks the flag. So at least one of the two threads closes the coroutine.
        self._is_over = True
        self._close()

    def keep(self, function: Callable[[], T]) -> T:
        """Call ``function``, and return the result. If the result is a coroutine, collect it.

        Called in a worker thread.
        """
        created = function()
        if inspect.iscoroutine(created):
            self._created.append(created)
            if self._is_over:
                self._close()
        return created

    def _close(self) -> None:
        while self._created:
            try:
                coroutine = self._created.pop()
            except IndexError:  # another thread has just taken the last coroutine
                return
            if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
                coroutine.close()


_unawaited: ContextVar[UnawaitedCoroutines | None] = ContextVar("rxflow_unawaited", default=None)


class _Threads(ThreadPoolExecutor):
    """The thread pool of the I/O loop. For each lookup of a host name, it starts a thread outside the pool.

    A lookup cannot be cancelled, and may take half a minute if no name server answers. In the pool, the lookups of
    cancelled calls would occupy the few threads. This would delay the calls to other providers, and the interpreter's
    exit.
    """

    def __init__(self) -> None:
        super().__init__(thread_name_prefix="rxflow-io-worker")

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        call = partial(fn, *args, **kwargs)
        if fn is socket.getaddrinfo:
            return _run_in_daemon_thread(call)
        unawaited = _unawaited.get()
        return super().submit(call if unawaited is None else partial(unawaited.keep, call))


def _run_in_daemon_thread(call: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()

    def work() -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
            future.set_exception(error)
        else:
            future.set_result(result)

    future.set_running_or_notify_cancel()
    threading.Thread(target=work, name="rxflow-name-lookup", daemon=True).start()
    return future
