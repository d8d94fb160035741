"""The emitter: what the coroutine of a leaf uses to emit events, to run nested Observables and to call users' code.

A context variable holds the emitter, so that users' code finds the emitter. A ``kickoff()`` or ``llm.call()`` inside a
method, a tool or a callback emits its events through this emitter, into the same stream. ``rxflow.emit()`` and
``rxflow.report_progress()`` use this emitter too.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, ParamSpec, TypeAlias, TypeVar, cast

from reactivex import Observable, Observer
from reactivex.abc import DisposableBase, ObserverBase

from rxflow._hooks import thread_count
from rxflow._loops import call_soon, context_for_another_thread, fail_future, running_loop
from rxflow._streaming.scope import Cleanup, Holder, Owned, Scope, connect
from rxflow.types import Custom, Event, ReasoningChunk, StreamChunk, ToolProgress

logger = logging.getLogger("rxflow")

_T = TypeVar("_T")


_P = ParamSpec("_P")

_Done: TypeAlias = "asyncio.Future[None] | concurrent.futures.Future[None]"

ambient: ContextVar[Emitter | None] = ContextVar("rxflow_ambient", default=None)


class Emitter:
    """Emits the events of one leaf, and runs other Observables so that their events arrive in the same stream.

    Everything that the emitter starts belongs to the leaf. Disposing the leaf stops all of it, except the threads that
    carry out sync code. These threads continue, but nobody waits for them any more. Any thread may dispose the leaf,
    without waiting for the loop.

    Attributes:
        observer: receives the events. After the leaf's end, this is an observer that drops them.
    """

    __slots__ = ("_awaited", "_owned", "is_cancelled", "observer", "origin", "run", "scope")

    def __init__(self, scope: Scope, observer: ObserverBase[Event]) -> None:
        self.scope = scope
        self.run = scope.run
        self.origin = scope.origin
        self.is_cancelled = False
        self.observer: ObserverBase[Event] = observer
        self._owned = Owned()
        self._awaited = Owned()

    @property
    def is_closed(self) -> bool:
        """Whether the leaf has ended or was disposed. Events that are emitted later do not reach the stream."""
        return self._owned.is_disposed

    def on_next(self, event: Event) -> None:
        """Emit one event. Call this only on the run's loop."""
        self.observer.on_next(event)

    def announce(self, failed: Event) -> None:
        """Emit the event of an error that the leaf's code is about to raise. Call this only on the run's loop.

        Raises:
            CancelledError: the reader ended the stream at this event. The reader knows the error, and nobody awaits the
                leaf any more. asyncio would report the error as never retrieved.
        """
        was_open = not self.is_closed
        self.observer.on_next(failed)
        if was_open and self.is_closed:
            raise asyncio.CancelledError("the reader ended the stream at the event of an error")

    def mute(self) -> Emitter:
        """Return an emitter that drops StreamChunks and ReasoningChunks. It passes all other events to this emitter.

        Close the new emitter when the code that uses it has ended. When this emitter ends, the new one is cancelled.
        """
        muted = Emitter(self.scope, _Muted(self))
        self.own(Cleanup(muted.cancel))
        return muted

    def text(self, content: str) -> None:
        """Emit a TEXT chunk with this leaf's labels."""
        self.on_next(self.origin.chunk(content))

    def close(self) -> None:
        """End the leaf. Stop what the leaf's code left running, except Observables that some code still waits for."""
        # Users' threads and tasks may keep this emitter for a long time, but must not keep the stream alive.
        self.observer = _NOBODY
        self._owned.dispose()
        if not (self._awaited.is_empty or self.is_cancelled):
            self.run.leftovers.add(self._awaited)

    def cancel(self) -> None:
        """Dispose the leaf, and stop what it started, except threads. May be called from any thread.

        If the leaf's code later tries to start new work, the code gets a CancelledError.
        """
        if not self.is_closed:
            self.is_cancelled = True
            self.run.note_stopped(self.origin.span_id)
        self.close()
        if self.is_cancelled:
            self._awaited.dispose()

    def over(self) -> BaseException:
        """Return the error for code that still waits for work of this leaf after the leaf has ended."""
        if self.is_cancelled:
            return asyncio.CancelledError("the rxflow run that this code belongs to was cancelled")
        name = " / ".join(self.origin.namespace) or "an LLM call"
        return RuntimeError(f"this was started by {name}, which has ended: await it there, or return it")

    def own(self, disposable: DisposableBase) -> DisposableBase:
        """Dispose ``disposable`` when this leaf ends, or now if the leaf has ended. Return ``disposable``."""
        self._owned.add(disposable)
        return disposable

    def disown(self, disposable: DisposableBase) -> None:
        """Dispose ``disposable`` now, and forget it."""
        self._owned.remove(disposable)

    def require_open(self) -> None:
        """Raise CancelledError if the leaf is over, so that code that is still running cannot start new work."""
        if self.is_closed:
            raise asyncio.CancelledError("the rxflow run that this code belongs to is over; nothing was started")

    def forward(
        self, source: Observable[Event], tap: Callable[[Event], None] | None = None
    ) -> Coroutine[Any, Any, None]:
        """Run ``source``, emit its events here, and raise its error.

        ``tap`` is called with each event before it is emitted, but not with StreamChunks.
        """
        self.require_open()
        done: asyncio.Future[None] = self.run.loop.create_future()
        return self._wait_for(source, _Forwarded(self, tap, done), done)

    def drain(self, source: Observable[_T], on_next: Callable[[_T], None]) -> Coroutine[Any, Any, None]:
        """Run ``source``, pass its items to ``on_next`` instead of emitting them, and raise its error."""
        self.require_open()
        done: asyncio.Future[None] = self.run.loop.create_future()
        return self._wait_for(source, _Drained(on_next, done), done)

    async def _wait_for(self, source: Observable[_T], work: _Nested[_T], done: asyncio.Future[None]) -> None:
        self._awaited.add(work)
        work.hold(connect(source, work))
        del source  # an error's traceback keeps local variables alive, and ``source`` would keep the observer alive
        try:
            await done
        finally:
            self._awaited.remove(work)

    def forward_blocking(self, source: Observable[Event], tap: Callable[[Event], None] | None = None) -> None:
        """Run ``source`` as :meth:`forward` does. Call this in a worker thread: the call blocks until ``source`` ends.

        If the leaf is disposed, the wait ends at once with CancelledError, which ``except Exception`` does not catch.
        """
        self.require_open()
        done: concurrent.futures.Future[None] = concurrent.futures.Future()
        work = _Forwarded(self, tap, done)
        self._awaited.add(work)
        count = thread_count(self.run.loop)
        pause = count.pause() if count is not None else None
        if pause is not None:
            done.add_done_callback(lambda _: pause.ends())

        def start() -> None:
            if not done.cancelled():
                if pause is not None:
                    pause.begins()
                work.hold(connect(source, work))

        try:
            if not call_soon(self.run.loop, start):
                raise asyncio.CancelledError("the event loop of the run that this code belongs to was closed")
            done.result()
        except concurrent.futures.CancelledError:
            raise asyncio.CancelledError("the rxflow run was cancelled while this code waited for it") from None
        finally:
            self._awaited.remove(work)

    async def invoke(self, function: Callable[_P, Any], /, *args: _P.args, **kwargs: _P.kwargs) -> Any:
        """Call a function of users' code, and return its result.

        A coroutine function runs on the loop. Any other function runs in its own thread, with the caller's context. If
        another thread disposes the leaf before the function starts, the function is not called. If the function returns
        a coroutine, for example because of a forgotten ``await``, the coroutine is awaited.
        """
        self.require_open()
        if is_async(function):
            # The function may be one that is marked as a coroutine function, and returns a future.
            return await await_result(await cast(Awaitable[Any], function(*args, **kwargs)))

        def call() -> Any:
            self.require_open()
            return function(*args, **kwargs)

        try:
            result = await in_thread(call, name=getattr(function, "__name__", "call"))
        except asyncio.CancelledError:
            # Nobody waits for the thread any more, but the thread continues. Set the flag here, because a time limit or
            # the end of the loop cancels the wait without disposing the leaf. With the flag, the thread cannot start a
            # new run after the leaf's end.
            self.is_cancelled = True
            raise
        return await await_result(result)


async def await_result(returned: Any) -> Any:
    """Await ``returned`` if it is a coroutine, and again if the result is a coroutine. Return the last result."""
    # asyncio.iscoroutine() cannot be used: in Python 3.11 it is also True for generators, which are ordinary results.
    while isinstance(returned, Coroutine):
        returned = await cast(Coroutine[Any, Any, Any], returned)
    return returned


def require_not_cancelled() -> None:
    """Raise CancelledError if the leaf that this code belongs to was cancelled."""
    leaf = ambient.get()
    if leaf is not None and leaf.is_cancelled:
        raise leaf.over()


def is_async(function: Callable[..., Any]) -> bool:
    """Return whether ``function`` is a coroutine function, or has one as its ``__call__``."""
    return iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


class _Muted(ObserverBase[Event]):
    """Passes all events on to ``emitter``, except StreamChunks and ReasoningChunks."""

    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter

    def on_next(self, value: Event) -> None:
        if not isinstance(value, StreamChunk | ReasoningChunk):
            self._emitter.on_next(value)

    def on_error(self, error: Exception) -> None:
        """Ignore the error: the code that waits for the nested Observable gets the error too."""

    def on_completed(self) -> None:
        """Ignore the end: more Observables may emit here."""


class _Nested(Holder, ObserverBase[_T]):
    """The subscription of a nested Observable. The code that runs the Observable waits for ``done``.

    Disposing the subscription ends the wait.
    """

    __slots__ = ("_done",)

    def __init__(self, done: _Done) -> None:
        super().__init__()
        self._done = done

    def on_error(self, error: Exception) -> None:
        _resolve(self._done, error)

    def on_completed(self) -> None:
        _resolve(self._done, None)

    def dispose(self) -> None:
        _cancel(self._done)
        super().dispose()


class _Drained(_Nested[_T]):
    """A nested Observable whose items go to a function."""

    __slots__ = ("_take",)

    def __init__(self, take: Callable[[_T], None], done: _Done) -> None:
        super().__init__(done)
        self._take = take

    def on_next(self, value: _T) -> None:
        self._take(value)

    def dispose(self) -> None:
        self._take = _ignore  # an error's traceback may keep this object alive, but must not keep the function alive
        super().dispose()


class _Forwarded(_Nested[Event]):
    """A nested Observable whose events ``emitter`` emits, as long as the emitter is open."""

    __slots__ = ("_emitter", "_tap")

    def __init__(self, emitter: Emitter, tap: Callable[[Event], None] | None, done: _Done) -> None:
        super().__init__(done)
        self._emitter = emitter
        self._tap = tap

    def on_next(self, value: Event) -> None:
        if type(value) is not StreamChunk and self._tap is not None and not isinstance(value, StreamChunk):
            self._tap(value)
        # emitter.on_next() would cost one more call in each of the emitters that a chunk passes.
        self._emitter.observer.on_next(value)


def _cancel(done: _Done) -> None:
    """End the wait for ``done``. May be called from any thread.

    This is needed because disposing a leaf cancels only the leaf's own task, but another task may be waiting.
    """
    if isinstance(done, concurrent.futures.Future) or running_loop() is done.get_loop():
        done.cancel()
    elif not done.done():
        call_soon(done.get_loop(), done.cancel)


def _ignore(value: object) -> None:
    """Drop an item that arrives after the disposal."""


_NOBODY: ObserverBase[Event] = Observer()


def _resolve(done: _Done, error: BaseException | None) -> None:
    if done.done():
        return
    try:
        if error is None:
            done.set_result(None)
        else:
            fail_future(done, error, "a nested Observable")
    except concurrent.futures.InvalidStateError:
        pass  # another thread has disposed the leaf since done.done() was read


async def in_thread(function: Callable[[], _T], *, name: str) -> _T:
    """Run blocking code in a thread of its own, with the caller's context.

    There is no pool, because a pool limits the number of threads. A method that waits for its crew occupies a thread,
    so the tools of the crew might never get one. The threads are daemons, so that abandoned code does not delay the
    interpreter's exit.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()
    context = context_for_another_thread()
    count = thread_count(loop)
    counted = count.work() if count is not None else None
    call = function if counted is None else partial(counted.run, function)

    def settle(result: _T | None, error: BaseException | None) -> None:
        if error is None and not done.done():
            done.set_result(cast(_T, result))
        elif error is not None and not done.done():
            fail_future(done, error, name)
        elif error is not None:
            report_late(error)

    def report_late(error: BaseException) -> None:
        # Nobody waits for this error any more, but it must not be lost.
        if not isinstance(error, asyncio.CancelledError):
            logger.warning("%s raised after its run was cancelled", name, exc_info=error)

    def work() -> None:
        try:
            result = context.run(call)
        except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
            if not call_soon(loop, partial(settle, None, error)):
                report_late(error)
        else:
            call_soon(loop, partial(settle, result, None))

    try:
        threading.Thread(target=work, name=f"rxflow {name}", daemon=True).start()
        return await done
    finally:
        if counted is not None:
            counted.over()


def current_emitter() -> Emitter | None:
    """Return the emitter of the leaf that this code belongs to; None outside of runs, and if the leaf has ended.

    Raises:
        CancelledError: the leaf was cancelled.
    """
    leaf = ambient.get()
    if leaf is None or (leaf.is_closed and not leaf.is_cancelled):
        return None
    leaf.require_open()
    return leaf


def emit(value: Any, *, name: str = "custom") -> None:
    """Emit ``value`` as a :class:`~rxflow.types.Custom` event of the method or tool that calls this function.

    Async and sync code may call this function. A thread that the program starts may call it if the thread has a copy of
    the method's or tool's context. Outside of runs, nothing is emitted, and a RuntimeWarning is issued.

    Raises:
        CancelledError: the run was cancelled.
    """
    _report("emit", Custom, name=name, value=value)


def report_progress(progress: float, total: float | None = None, message: str = "") -> None:
    """Report the progress of a tool or a method as a :class:`~rxflow.types.ToolProgress` event.

    ``progress`` and ``total`` are amounts in the same unit: how much is done, and how much there is to do. ``total`` is
    None if it is unknown. This function may be called wherever :func:`emit` may be called.
    """
    _report("report_progress", ToolProgress, progress=progress, total=total, message=message)


def _report(function: str, kind: type[Custom] | type[ToolProgress], **values: Any) -> None:
    leaf = current_emitter()
    if leaf is None:
        warnings.warn(
            f"rxflow.{function}() has no run to report to: call it in a method of a flow, in a tool, or in what they "
            "call, before that has returned",
            RuntimeWarning,
            stacklevel=3,
        )
        return
    event = kind(origin=leaf.origin, **values)
    if running_loop() is leaf.run.loop:
        leaf.on_next(event)
    else:
        call_soon(leaf.run.loop, partial(leaf.on_next, event))
