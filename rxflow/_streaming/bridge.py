"""Makes Observables from coroutines. All leaves of a run are made this way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Sequence
from contextlib import contextmanager
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Generic, TypeVar, cast

import reactivex as rx
from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow._loops import call_soon, running_loop
from rxflow._streaming.emitter import Emitter, ambient
from rxflow._streaming.scope import RunPart, Scope
from rxflow.types import AgentFailed, Event, InputRequested, MethodFailed, TaskFailed, events as e

T = TypeVar("T")


def from_async(work: Callable[[Callable[[T], None]], Awaitable[None]]) -> Observable[T]:
    """Return an Observable of the items that the coroutine ``work(emit)`` emits. It completes when ``work`` returns.

    Subscribing starts a task on the running loop and returns at once. Disposing cancels the task, from any thread,
    without blocking. ::

        work      --emit(a)---emit(b)---return
        result    --a---------b---------|
    """

    def subscribe(observer: ObserverBase[T], scheduler: SchedulerBase | None = None) -> DisposableBase:
        async def main() -> None:
            # Do not pass observer.on_next: a coroutine that outlives its disposal must not keep the observer alive.
            await work(driven.emit)

        driven = _Driven(asyncio.get_running_loop(), main, observer, copy_context())
        return driven

    return RunPart(subscribe)


def from_coroutine(scope: Scope, work: Callable[[Emitter], Awaitable[None]]) -> Observable[Event]:
    """Return an Observable of the events of a leaf. The leaf is the coroutine ``work(emitter)``.

    ``work`` can also run other Observables through the emitter, as a part of the leaf. Disposing the leaf also
    disposes the subscriptions to these Observables. This happens at once, in the thread that disposes the leaf. So the
    connection to a provider closes even if the loop is busy.
    """

    def subscribe(observer: ObserverBase[Event], scheduler: SchedulerBase | None = None) -> DisposableBase:
        return _Leaf(scope, work, observer)

    return RunPart(subscribe)


def on_loop(source: Observable[T], loop: asyncio.AbstractEventLoop) -> Observable[T]:
    """Emit the items of ``source`` on the loop's thread.

    A user's stream may emit on another thread, such as a timer's.
    """

    def subscribe(observer: ObserverBase[T], scheduler: SchedulerBase | None = None) -> DisposableBase:
        # True after a signal has come from another thread. From then on, all signals are queued, to keep their order.
        is_foreign = False

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
    """A task that emits to an observer. The task's end is the observer's terminal signal."""

    __slots__ = ("_loop", "_observer", "task")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        main: Callable[..., Awaitable[None]],
        observer: ObserverBase[T],
        context: Context,
    ) -> None:
        self._loop = loop
        self._observer: ObserverBase[T] | None = observer
        self.task = loop.create_task(self._run(main), context=context)

    async def _run(self, main: Callable[..., Awaitable[None]]) -> None:
        try:
            await main()
        except BaseException as error:
            if not self._fail(error):
                # The stream was disposed, so its subscriber expects no signal. asyncio ignores a CancelledError here.
                # It reports any other error, for example from a ``finally``, because nobody awaits this task.
                raise
        else:
            self._complete()

    def _complete(self) -> None:
        observer = self._take_observer()
        if observer is not None:
            observer.on_completed()

    def _fail(self, error: BaseException) -> bool:
        """Emit the error. Return False if the stream is over.

        The error keeps the frames of the task alive, and none of these frames may refer to the observer. So the
        observer is a local variable here, and not in ``_run``.
        """
        observer = self._take_observer()
        if observer is None:
            return False
        # RxPY's type for errors is Exception. Other errors are passed on too, so that no reader waits forever:
        # SystemExit, and the CancelledError that asyncio.run() raises here if it ends while the stream is open.
        observer.on_error(replace_stray_cancellation(error))  # type: ignore[arg-type]
        return True

    def emit(self, item: T) -> None:
        """Emit an item, unless the stream is over."""
        observer = self._observer
        if observer is not None:
            observer.on_next(item)

    def _take_observer(self) -> ObserverBase[T] | None:
        observer, self._observer = self._observer, None
        return observer

    def dispose(self) -> None:
        if self._take_observer() is not None:
            self._cancel()

    def _cancel(self) -> None:
        if running_loop() is self._loop:
            self.task.cancel()
        elif not call_soon(self._loop, self.task.cancel) or not self._loop.is_running():
            # The loop stopped before the task had ended. Without this line, asyncio would report the task as destroyed.
            self.task._log_destroy_pending = False  # type: ignore[attr-defined]


class _Leaf(_Driven[Event]):
    """A leaf of a run: a coroutine with its emitter.

    When the coroutine ends, the emitter is closed. Disposing the leaf cancels both.
    """

    __slots__ = ("_emitter",)

    def __init__(self, scope: Scope, work: Callable[[Emitter], Awaitable[None]], observer: ObserverBase[Event]) -> None:
        self._emitter = Emitter(scope, observer)
        super().__init__(scope.run.loop, work, observer, scope.context.copy())
        scope.run.tasks.add(self.task)
        self.task.add_done_callback(scope.run.tasks.discard)

    async def _run(self, main: Callable[..., Awaitable[None]]) -> None:
        emitter = self._emitter
        ambient.set(emitter)
        try:
            try:
                await main(emitter)
            finally:
                emitter.close()
        except Unanswered as error:
            self._fail(error)  # a stream that was disposed cannot pause, so nobody has to answer
        except BaseException as error:
            if not self._fail(error):
                raise
        else:
            self._complete()

    def _fail(self, error: BaseException) -> bool:
        if not isinstance(error, StopAsyncIteration):
            return super()._fail(error)
        # A reader's ``async for`` would take a StopAsyncIteration for the end of the stream. So replace it, as Python
        # does in async generators.
        name = " / ".join(self._emitter.origin.namespace) or "an LLM call"
        raised = RuntimeError(f"{name} raised StopAsyncIteration")
        raised.__cause__ = error
        return super()._fail(raised)

    def dispose(self) -> None:
        # Take the observer first. Cancelling the emitter may end the coroutine, and the stream would then complete
        # without a result.
        is_running = self._take_observer() is not None
        self._emitter.cancel()
        if is_running:
            self._cancel()


def replace_stray_cancellation(error: BaseException) -> BaseException:
    """Return ``error``, or a RuntimeError in place of a stray CancelledError.

    A CancelledError is stray if nobody has cancelled this task. It comes from something that this task awaited and that
    other code cancelled. A stray CancelledError would silently end every task that it reaches, including the reader's.
    """
    if not isinstance(error, asyncio.CancelledError):
        return error
    task = asyncio.current_task()
    if task is None or task.cancelling():
        return error
    said = RuntimeError("this code awaited something that was cancelled, although its run was not cancelled")
    said.__cause__ = error
    return said


@contextmanager
def announce_failure(
    emitter: Emitter, failed: type[MethodFailed] | type[TaskFailed] | type[AgentFailed]
) -> Generator[None]:
    """Emit ``failed`` for an error in the ``with`` block, and raise the error again.

    - For :class:`Unanswered`, the ``…Cancelled`` event is emitted instead.
    - A stray CancelledError becomes a RuntimeError (see :func:`replace_stray_cancellation`).
    - For any other CancelledError, and for a KeyboardInterrupt, nothing is emitted.
    """
    try:
        yield
    except Unanswered:
        emitter.on_next(_CANCELLED[failed](origin=emitter.origin, reason=WAITS))
        raise
    except asyncio.CancelledError as error:
        said = replace_stray_cancellation(error)
        if emitter.is_closed or said is error:
            raise
        emitter.announce(failed(origin=emitter.origin, error=said))
        raise said from error
    except SystemExit as error:
        emitter.on_next(failed(origin=emitter.origin, error=error))
        raise
    except Exception as error:
        emitter.announce(failed(origin=emitter.origin, error=error))
        raise


WAITS = "it waits for an answer"
"""The reason in the events of spans that end because the run pauses."""

_CANCELLED: dict[type[e.Failed], type[e.MethodCancelled] | type[e.TaskCancelled] | type[e.AgentCancelled]] = {
    MethodFailed: e.MethodCancelled,
    TaskFailed: e.TaskCancelled,
    AgentFailed: e.AgentCancelled,
}


class Unanswered(BaseException):
    """Raised in code that asks a question, if nobody answers.

    The other work of the run continues to its end. Then the run pauses.

    This is not a subclass of Exception. Otherwise ``except Exception`` in users' code would catch it, and the code
    would continue without the answer.
    """

    def __init__(self, pending: tuple[InputRequested, ...]) -> None:
        super().__init__(f"nobody answers {', '.join(repr(each.message) for each in pending)}")
        self.pending = pending

    @classmethod
    def join(cls, errors: Iterable[Unanswered]) -> Unanswered:
        """Join several exceptions into one that has all their questions."""
        return cls(tuple(request for error in errors for request in error.pending))


def merge_patiently(sources: Sequence[Observable[T]]) -> Observable[T]:
    """Merge ``sources``. If a source ends with Unanswered, the others continue to their end.

    The result then ends with one Unanswered that has all unanswered questions. ::

        source 1    -a-?            (? is Unanswered)
        source 2    -b---c|
        result      -ab--c?
    """
    if len(sources) == 1:
        return sources[0]

    def subscribe(observer: ObserverBase[T], scheduler: SchedulerBase | None = None) -> DisposableBase:
        unanswered: list[Unanswered] = []

        def hold(source: Observable[T]) -> Observable[T]:
            def subscribe_one(inner: ObserverBase[T], scheduler: SchedulerBase | None = None) -> DisposableBase:
                def on_error(error: BaseException) -> None:
                    if isinstance(error, Unanswered):
                        unanswered.append(error)
                        inner.on_completed()
                    else:
                        inner.on_error(error)  # type: ignore[arg-type]  # RxPY's type leaves out BaseException

                return source.subscribe(inner.on_next, on_error, inner.on_completed, scheduler=scheduler)

            return Observable(subscribe_one)

        def on_completed() -> None:
            if unanswered:
                observer.on_error(Unanswered.join(unanswered))  # type: ignore[arg-type]
            else:
                observer.on_completed()

        merged = rx.merge(*map(hold, sources))
        return merged.subscribe(observer.on_next, observer.on_error, on_completed, scheduler=scheduler)

    return Observable(subscribe)


async def all_of(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run ``works`` concurrently, and return their results in order.

    The first error stops the other works, and is raised. A stray CancelledError is such an error too (see
    :func:`replace_stray_cancellation`). An Unanswered does not stop the other works. It is raised when all works have
    ended.

    Each work has a task of its own. If that task raised SystemExit or KeyboardInterrupt, the loop would end. So only
    the caller's task raises the errors. The task group sees none of them: before Python 3.13, the caller's task would
    count as cancelled after an error in the group.
    """
    errors: list[BaseException] = []
    unanswered: list[Unanswered] = []
    loop = asyncio.get_running_loop()

    async def hold(work: Coroutine[Any, Any, T]) -> T | None:
        try:
            return await work
        except Unanswered as error:
            unanswered.append(error)
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - raised by all_of
            # Stop the others only once: a second cancellation would interrupt their cleanup. Do not stop them now:
            # Python warns of a work that is cancelled before its first step.
            if not errors and not cast("asyncio.Task[Any]", asyncio.current_task()).cancelling():
                loop.call_soon(stop)
            errors.append(error)
        return None

    def stop() -> None:
        for task in running:
            task.cancel()

    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(hold(work)) for work in works]
    except asyncio.CancelledError:  # the caller was cancelled; an error in the cleanup of a work must not be lost
        failed = [error for error in errors if not isinstance(error, asyncio.CancelledError)]
        if failed:
            raise failed[0] from None
        raise
    if errors:
        raise errors[0]
    if unanswered:
        raise Unanswered.join(unanswered)
    return [cast(T, task.result()) for task in running]
