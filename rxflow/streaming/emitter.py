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
from typing import Any, ParamSpec, TypeVar, cast

from reactivex import Observable, Observer
from reactivex.abc import DisposableBase, ObserverBase
from reactivex.disposable import CompositeDisposable, Disposable, SingleAssignmentDisposable

from rxflow.loops import call_soon, context_for_another_thread, running_loop
from rxflow.streaming.hooks import thread_count
from rxflow.streaming.scope import Scope
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import Event

logger = logging.getLogger("rxflow")

_T = TypeVar("_T")


_P = ParamSpec("_P")

ambient: ContextVar[Emitter | None] = ContextVar("rxflow_ambient", default=None)


class Emitter:
    """Emits events of one leaf, and runs other Observables so that their events arrive in the same stream.

    Everything that it starts belongs to the leaf: disposing the leaf stops it, from any thread, without waiting for
    the loop.
    """

    __slots__ = ("_awaited", "_observer", "_owned", "is_cancelled", "origin", "run", "scope")

    def __init__(self, scope: Scope, observer: ObserverBase[Event]) -> None:
        self.scope = scope
        self.run = scope.run
        self.origin = scope.origin
        self.is_cancelled = False
        self._observer: ObserverBase[Event] = observer
        self._owned = CompositeDisposable()
        self._awaited = CompositeDisposable()

    @property
    def is_closed(self) -> bool:
        """The leaf has ended or was disposed: nothing that is emitted now reaches the stream."""
        return self._owned.is_disposed

    def on_next(self, event: Event) -> None:
        """Emit one event. On the run's loop only."""
        if not self._owned.is_disposed:
            self._observer.on_next(event)

    def text(self, content: str) -> None:
        """Emit a TEXT chunk with this leaf's labels."""
        self.on_next(self.origin.chunk(content, seq=next(self.run.seq)))

    def close(self) -> None:
        """The leaf has ended: stop what it left running, but for calls that somebody awaits elsewhere."""
        self._owned.dispose()
        if self._awaited.length and not self.is_cancelled:
            self.run.leftovers.add(self._awaited)
        # Users' threads and tasks may hold on to this emitter for long; the stream must not live that long.
        self._observer = _NOBODY

    def cancel(self) -> None:
        """The leaf was disposed: the same, and what its code asks of rxflow from now on raises. From any thread."""
        if not self.is_closed:
            self.is_cancelled = True
        self.close()
        if self.is_cancelled:
            self._awaited.dispose()

    def over(self) -> BaseException:
        """What waits for something of a leaf that is over is told."""
        if self.is_cancelled:
            return asyncio.CancelledError("the rxflow run that this code belongs to was cancelled")
        name = " / ".join(self.origin.namespace) or "an LLM call"
        return RuntimeError(f"this was started by {name}, which has ended: await it there, or return it")

    def own(self, disposable: DisposableBase) -> DisposableBase:
        """Dispose ``disposable`` when this leaf ends."""
        self._owned.add(disposable)
        return disposable

    def disown(self, disposable: DisposableBase) -> None:
        """Dispose it now and forget it."""
        if not self._owned.remove(disposable):
            disposable.dispose()

    def require_open(self) -> None:
        """Raise CancelledError where the leaf is over: what a cancelled thread asks next must not start work."""
        if self.is_closed:
            raise asyncio.CancelledError("the rxflow run that this code belongs to is over; nothing was started")

    async def forward(self, source: Observable[Event], tap: Callable[[Event], None] | None = None) -> None:
        """Run ``source`` here: its events are emitted (``tap`` sees each but the chunks first), its error is raised."""
        await self.drain(source, self._passing(tap))

    async def drain(self, source: Observable[_T], on_next: Callable[[_T], None]) -> None:
        """Run ``source`` here for its items alone; its error is raised."""
        self.require_open()
        done: asyncio.Future[None] = self.run.loop.create_future()
        work = CompositeDisposable(Disposable(partial(self._cancel, done)))
        self._awaited.add(work)
        self._subscribe(work, source, on_next, partial(_resolve, done))
        del source, on_next  # whoever keeps an error keeps this frame, and must not keep the observer
        try:
            await done
        finally:
            self._let_go(work)

    def _cancel(self, done: asyncio.Future[None]) -> None:
        """Whoever waits is not always the leaf's own task, which is cancelled by itself. From any thread."""
        if done.done():
            return
        if running_loop() is self.run.loop:
            done.cancel()
        else:
            call_soon(self.run.loop, done.cancel)

    def _let_go(self, work: DisposableBase) -> None:
        if not self._awaited.remove(work):
            work.dispose()

    def forward_blocking(self, source: Observable[Event], tap: Callable[[Event], None] | None = None) -> None:
        """The same from a worker thread: the run's loop does the work, this thread waits for it.

        Disposal ends the wait at once with CancelledError, which ``except Exception`` does not catch.
        """
        self.require_open()
        done: concurrent.futures.Future[None] = concurrent.futures.Future()
        work = CompositeDisposable(Disposable(lambda: cast(None, done.cancel())))
        self._awaited.add(work)
        count = thread_count(self.run.loop)
        pause = count.pause() if count is not None else None
        if pause is not None:
            done.add_done_callback(lambda _: pause.ends())

        def start() -> None:
            if not done.cancelled():
                if pause is not None:
                    pause.begins()
                self._subscribe(work, source, self._passing(tap), partial(_resolve, done))

        try:
            if not call_soon(self.run.loop, start):
                raise asyncio.CancelledError("the event loop of the run that this code belongs to was closed")
            done.result()
        except concurrent.futures.CancelledError:
            raise asyncio.CancelledError("the rxflow run was cancelled while this code waited for it") from None
        finally:
            self._let_go(work)

    def _passing(self, tap: Callable[[Event], None] | None) -> Callable[[Event], None]:
        emit = self._observer.on_next
        if tap is None:
            return emit

        def on_next(event: Event) -> None:
            if not isinstance(event, StreamChunk):
                tap(event)
            emit(event)

        return on_next

    def _subscribe(
        self,
        work: CompositeDisposable,
        source: Observable[_T],
        on_next: Callable[[_T], None],
        resolve: Callable[[BaseException | None], None],
    ) -> None:
        subscription = SingleAssignmentDisposable()
        work.add(subscription)
        subscription.disposable = source.subscribe(on_next, resolve, partial(resolve, None))

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


def is_async(function: Callable[..., Any]) -> bool:
    """A coroutine function, also behind ``__call__``."""
    return iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


_NOBODY: ObserverBase[Event] = Observer()


def _resolve(done: asyncio.Future[None] | concurrent.futures.Future[None], error: BaseException | None) -> None:
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
