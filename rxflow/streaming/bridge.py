"""The bridge from coroutines to Observables: every leaf of a run goes over it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from contextlib import contextmanager
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Generic, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import CompositeDisposable, Disposable

from rxflow.loops import call_soon, running_loop
from rxflow.streaming.emitter import Emitter, ambient
from rxflow.streaming.scope import Scope
from rxflow.types.events import AgentFailed, Event, MethodFailed, TaskFailed

T = TypeVar("T")


def from_async(work: Callable[[Callable[[T], None]], Awaitable[None]]) -> Observable[T]:
    """An Observable of what the coroutine ``work(emit)`` emits; it completes when the coroutine returns.

    Subscribing starts a task on the running loop and returns at once; disposing cancels it, from any thread, without
    blocking. ::

        work      --emit(a)---emit(b)---return
        result    --a---------b---------|
    """

    def subscribe(observer: ObserverBase[T], scheduler: SchedulerBase | None = None) -> DisposableBase:
        async def main() -> None:
            await work(driven.emit)  # not the observer's: a coroutine that outlives its disposal must not keep that

        driven = _Driven(asyncio.get_running_loop(), main, observer, copy_context())
        return driven

    return Observable(subscribe)


def from_coroutine(scope: Scope, work: Callable[[Emitter], Awaitable[None]]) -> Observable[Event]:
    """The same for a leaf of a run: ``work(emitter)`` can also run other Observables as a part of it.

    Disposing stops those in the caller's thread, so that a loop that is busy does not keep a provider generating.
    """

    def subscribe(observer: ObserverBase[Event], scheduler: SchedulerBase | None = None) -> DisposableBase:
        emitter = Emitter(scope, observer)

        async def main() -> None:
            ambient.set(emitter)
            try:
                await work(emitter)
            except StopAsyncIteration as error:
                # As Python does in async generators: a reader's ``async for`` would take it for the stream's own end.
                name = " / ".join(scope.origin.namespace) or "an LLM call"
                raise RuntimeError(f"{name} raised StopAsyncIteration") from error
            finally:
                emitter.close()

        driven = _Driven(scope.run.loop, main, observer, scope.context.copy())
        scope.run.tasks.add(driven.task)
        driven.task.add_done_callback(scope.run.tasks.discard)
        return CompositeDisposable(Disposable(emitter.cancel), driven)

    return Observable(subscribe)


def on_loop(source: Observable[T], loop: asyncio.AbstractEventLoop) -> Observable[T]:
    """The same items on the loop's thread: users' streams may come from any, a timer's for instance."""

    def subscribe(observer: ObserverBase[T], scheduler: SchedulerBase | None = None) -> DisposableBase:
        is_foreign = False  # once a signal had to hop, all do, so that none overtakes another

        def hop(signal: Callable[[], object]) -> None:
            nonlocal is_foreign
            if is_foreign or running_loop() is not loop:
                is_foreign = True
                call_soon(loop, signal)
            else:
                signal()

        return source.subscribe(
            lambda item: hop(partial(observer.on_next, item)),
            lambda error: hop(partial(observer.on_error, error)),
            lambda: hop(observer.on_completed),
            scheduler=scheduler,
        )

    return Observable(subscribe)


class _Driven(DisposableBase, Generic[T]):
    """A task whose end is the terminal signal of an observer."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        main: Callable[[], Awaitable[None]],
        observer: ObserverBase[T],
        context: Context,
    ) -> None:
        self._loop = loop
        self._observer: ObserverBase[T] | None = observer
        self.task = loop.create_task(self._run(main), context=context)

    async def _run(self, main: Callable[[], Awaitable[None]]) -> None:
        try:
            await main()
        except BaseException as error:
            if not self._fail(error):
                # Disposed: the subscriber has had its end. Cancellation is asyncio's to see; an error in some
                # ``finally`` on the way out is reported by the loop, as for any task that nobody awaits.
                raise
        else:
            observer = self._take_observer()
            if observer is not None:
                observer.on_completed()

    def _fail(self, error: BaseException) -> bool:
        """The terminal; False where the subscriber has had it. Not in the task's frame, which the error holds on to."""
        observer = self._take_observer()
        if observer is None:
            return False
        # RxPY types errors as Exception. A CancelledError from outside (asyncio.run ending with the stream open)
        # or a SystemExit travels the same way, so that no reader waits for a terminal that never comes.
        observer.on_error(unasked(error))  # type: ignore[arg-type]
        return True

    def emit(self, item: T) -> None:
        """Emit an item, unless it is over."""
        observer = self._observer
        if observer is not None:
            observer.on_next(item)

    def _take_observer(self) -> ObserverBase[T] | None:
        observer, self._observer = self._observer, None
        return observer

    def dispose(self) -> None:
        if self._take_observer() is None:
            return
        if running_loop() is self._loop:
            self.task.cancel()
        elif not call_soon(self._loop, self.task.cancel) or not self._loop.is_running():
            # The loop has stopped under the task, which can do nothing more; asyncio would report it as destroyed.
            self.task._log_destroy_pending = False  # type: ignore[attr-defined]


def unasked(error: BaseException) -> BaseException:
    """``error``, but for a CancelledError in a task that nobody cancels: that becomes a RuntimeError.

    The code awaited something that others have cancelled. As it is, such an error ends whatever task it reaches, the
    reader's too, without a word.
    """
    if not isinstance(error, asyncio.CancelledError):
        return error
    task = asyncio.current_task()
    if task is None or task.cancelling():
        return error
    said = RuntimeError("something that this code waited for was cancelled, though its run was not")
    said.__cause__ = error
    return said


@contextmanager
def announcing(emitter: Emitter, failed: type[MethodFailed] | type[TaskFailed] | type[AgentFailed]) -> Generator[None]:
    """Emit ``failed`` for an error of the body, and let it pass. What only looks like a cancellation is told apart."""
    try:
        yield
    except asyncio.CancelledError as error:
        said = unasked(error)
        if emitter.is_closed or said is error:
            raise
        emitter.on_next(failed(origin=emitter.origin, error=said))
        raise said from error
    except (Exception, SystemExit) as error:
        emitter.on_next(failed(origin=emitter.origin, error=error))
        raise


async def all_of(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run ``works`` at once and give their results in order; the first error stops the others and is raised.

    A SystemExit or KeyboardInterrupt is raised here too. In its task it would end the loop.
    """
    first: BaseException
    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(_held(work)) for work in works]
    except ExceptionGroup as failed:
        (error, *_) = failed.exceptions
        first = error.error if isinstance(error, _Stopped) else error
    else:
        return [task.result() for task in running]
    raise first  # not from within the except clause: what users' code gave as its cause and context stays


class _Stopped(Exception):
    """Carries any error out of a task."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


async def _held(work: Coroutine[Any, Any, T]) -> T:
    try:
        return await work
    except (asyncio.CancelledError, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - unwrapped by all_of
        raise _Stopped(error) from None
