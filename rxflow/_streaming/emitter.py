"""What a leaf coroutine uses to emit events, to run nested Observables and to call users' code.

An emitter is also *ambient* for users' code: a ``kickoff()`` or ``llm.call()`` deep inside a method, a tool or a
callback finds it in a context variable, and what it runs flows into the same stream.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, ParamSpec, TypeAlias, TypeVar, cast

from reactivex import Observable, Observer
from reactivex.abc import DisposableBase, ObserverBase

from rxflow._loops import call_soon, context_for_another_thread, running_loop
from rxflow._streaming.hooks import thread_count
from rxflow._streaming.scope import Scope
from rxflow._streaming.subscriptions import Cleanup, Holder, Owned, connect
from rxflow.types import Event, ReasoningChunk, StreamChunk

logger = logging.getLogger("rxflow")

_T = TypeVar("_T")


_P = ParamSpec("_P")

_Done: TypeAlias = "asyncio.Future[None] | concurrent.futures.Future[None]"

ambient: ContextVar[Emitter | None] = ContextVar("rxflow_ambient", default=None)


class Emitter:
    """Emits events of one leaf, and runs other Observables so that their events arrive in the same stream.

    Everything that it starts belongs to the leaf: disposing the leaf stops it, from any thread, without waiting for
    the loop.

    Attributes:
        observer: where the events go; nowhere once the leaf is over.
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
        """The leaf has ended or was disposed: nothing that is emitted now reaches the stream."""
        return self._owned.is_disposed

    def on_next(self, event: Event) -> None:
        """Emit one event. On the run's loop only."""
        self.observer.on_next(event)

    def mute(self) -> Emitter:
        """Make an emitter for code whose words are not a part of the stream: no chunk of what it runs gets there.

        Its other events do. Close it after that code; it is cancelled with this one.
        """
        muted = Emitter(self.scope, _Muted(self))
        self.own(Cleanup(muted.cancel))
        return muted

    def text(self, content: str) -> None:
        """Emit a TEXT chunk with this leaf's labels."""
        self.on_next(self.origin.chunk(content))

    def close(self) -> None:
        """The leaf has ended: stop what it left running, except calls that somebody awaits elsewhere."""
        # Users' threads and tasks may hold on to this emitter for long; the stream must not live that long.
        self.observer = _NOBODY
        self._owned.dispose()
        if not (self._awaited.is_empty or self.is_cancelled):
            self.run.leftovers.add(self._awaited)

    def cancel(self) -> None:
        """The leaf was disposed: close it, and refuse what its code asks of rxflow from now on. From any thread."""
        if not self.is_closed:
            self.is_cancelled = True
            self.run.note_stopped(self.origin.span_id)
        self.close()
        if self.is_cancelled:
            self._awaited.dispose()

    def over(self) -> BaseException:
        """The error for code that waits for something of this leaf, which is over."""
        if self.is_cancelled:
            return asyncio.CancelledError("the rxflow run that this code belongs to was cancelled")
        name = " / ".join(self.origin.namespace) or "an LLM call"
        return RuntimeError(f"this was started by {name}, which has ended: await it there, or return it")

    def own(self, disposable: DisposableBase) -> DisposableBase:
        """Dispose ``disposable`` when this leaf ends."""
        self._owned.add(disposable)
        return disposable

    def disown(self, disposable: DisposableBase) -> None:
        """Dispose ``disposable`` now, and forget it."""
        self._owned.remove(disposable)

    def require_open(self) -> None:
        """Raise CancelledError if the leaf is over: what a cancelled thread asks next must not start work."""
        if self.is_closed:
            raise asyncio.CancelledError("the rxflow run that this code belongs to is over; nothing was started")

    def forward(
        self, source: Observable[Event], tap: Callable[[Event], None] | None = None
    ) -> Coroutine[Any, Any, None]:
        """Run ``source`` here: emit its events, raise its error. ``tap`` sees each event but the chunks, first."""
        self.require_open()
        done: asyncio.Future[None] = self.run.loop.create_future()
        return self._wait_for(source, _Forwarded(self, tap, done), done)

    def drain(self, source: Observable[_T], on_next: Callable[[_T], None]) -> Coroutine[Any, Any, None]:
        """Run ``source`` here without emitting its items: ``on_next`` gets them. Its error is raised."""
        self.require_open()
        done: asyncio.Future[None] = self.run.loop.create_future()
        return self._wait_for(source, _Drained(on_next, done), done)

    async def _wait_for(self, source: Observable[_T], work: _Nested[_T], done: asyncio.Future[None]) -> None:
        self._awaited.add(work)
        work.hold(connect(source, work))
        del source  # whoever keeps an error keeps this frame, and must not keep the observer
        try:
            await done
        finally:
            self._awaited.remove(work)

    def forward_blocking(self, source: Observable[Event], tap: Callable[[Event], None] | None = None) -> None:
        """Run ``source`` as :meth:`forward` does, from a worker thread, which waits for the run's loop.

        Disposal ends the wait at once with CancelledError, which ``except Exception`` does not catch.
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
        """Call users' code: coroutine functions on the loop, others in a worker thread with this context.

        If the leaf was disposed a moment ago, from another thread, the code does not begin.
        """
        self.require_open()
        if is_async(function):
            return await cast(Coroutine[Any, Any, Any], function(*args, **kwargs))

        def call() -> Any:
            self.require_open()
            return function(*args, **kwargs)

        try:
            result = await in_thread(call, name=getattr(function, "__name__", "call"))
        except asyncio.CancelledError:
            # The thread goes on, abandoned; also by a time limit or the loop's end, neither of which disposes the leaf.
            self.is_cancelled = True
            raise
        # A lambda or a partial around a coroutine function only shows what it is by its result. A generator is a value:
        # asyncio.iscoroutine of Python 3.11 takes it for a coroutine.
        return await cast(Coroutine[Any, Any, Any], result) if isinstance(result, Coroutine) else result


def require_not_cancelled() -> None:
    """Raise CancelledError if the run that this code belongs to was cancelled."""
    leaf = ambient.get()
    if leaf is not None and leaf.is_cancelled:
        raise leaf.over()


def is_async(function: Callable[..., Any]) -> bool:
    """Whether ``function`` is a coroutine function, or has one as its ``__call__``."""
    return iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


class _Muted(ObserverBase[Event]):
    """Passes on to ``emitter`` what is not a chunk."""

    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter

    def on_next(self, value: Event) -> None:
        if not isinstance(value, StreamChunk | ReasoningChunk):
            self._emitter.on_next(value)

    def on_error(self, error: Exception) -> None:
        """Errors are raised where the code waits."""

    def on_completed(self) -> None:
        """The code goes on."""


class _Nested(Holder, ObserverBase[_T]):
    """The subscription of a nested Observable; whoever runs it waits for ``done``. Disposal ends the wait."""

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
        self._take = _ignore  # whoever keeps an error keeps the frame that holds this
        super().dispose()


class _Forwarded(_Nested[Event]):
    """A nested Observable whose events ``emitter`` emits, as long as it is open."""

    __slots__ = ("_emitter", "_tap")

    def __init__(self, emitter: Emitter, tap: Callable[[Event], None] | None, done: _Done) -> None:
        super().__init__(done)
        self._emitter = emitter
        self._tap = tap

    def on_next(self, value: Event) -> None:
        if type(value) is not StreamChunk and self._tap is not None and not isinstance(value, StreamChunk):
            self._tap(value)
        self._emitter.observer.on_next(value)  # not by its own on_next: a chunk passes several of these


def _cancel(done: _Done) -> None:
    """End the wait: it may be that of another task than the leaf's, which is cancelled anyway. From any thread."""
    if isinstance(done, concurrent.futures.Future) or running_loop() is done.get_loop():
        done.cancel()
    elif not done.done():
        call_soon(done.get_loop(), done.cancel)


def _ignore(value: object) -> None:
    """Drop what comes after the disposal."""


_NOBODY: ObserverBase[Event] = Observer()


def _resolve(done: _Done, error: BaseException | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)


async def in_thread(function: Callable[[], _T], *, name: str) -> _T:
    """Run blocking code in a thread of its own, with the caller's context.

    No pool: a method that waits for its crew holds its thread, so any bound could starve the tool that the crew
    waits for. Daemon threads: code that was abandoned by a cancellation must not hold up the interpreter's exit.
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
            done.set_exception(error)
        elif error is not None:
            report_late(error)

    def report_late(error: BaseException) -> None:
        # Nobody waits for it any more, and an error must not vanish.
        if not isinstance(error, asyncio.CancelledError):
            logger.warning("%s raised after its run was cancelled", name, exc_info=error)

    def work() -> None:
        try:
            result = context.run(call)
        except StopIteration as error:
            # A future refuses StopIteration; raised through a coroutine it would end some generator silently.
            wrapped = RuntimeError(f"{name} raised StopIteration")
            wrapped.__cause__ = error
            call_soon(loop, partial(settle, None, wrapped))
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
