"""From the I/O loop to the run's loop: deltas in batches, one wake-up per network read."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import Disposable

from rxflow.llm import io_loop
from rxflow.llm.source import Delta
from rxflow.loops import call_soon, refusal_of
from rxflow.streaming.emitter import ambient

Deliver = Callable[[Sequence[Delta]], None]


def from_io(read: Callable[[Deliver], Awaitable[None]]) -> Observable[Delta]:
    """An Observable of what ``read(deliver)`` delivers on the I/O loop, emitted on the subscriber's loop.

    Disposing cancels the reading task, which closes the provider's connection; from any thread, without waiting. ::

        read      --[a,b]---------[c]--return
        result    ----ab-----------c---|
    """

    def subscribe(observer: ObserverBase[Delta], scheduler: SchedulerBase | None = None) -> DisposableBase:
        loop = asyncio.get_running_loop()
        refused = refusal_of(loop)
        if refused is not None:
            observer.on_error(refused)
            return Disposable()
        handover = _Handover(loop, observer)

        async def work() -> None:
            try:
                await read(handover.deliver)
            except asyncio.CancelledError:
                handover.end(asyncio.CancelledError("the I/O loop was stopped"))
                raise
            except Exception as error:  # noqa: BLE001 - it is the stream's terminal
                handover.end(error)
            else:
                handover.end(None)

        # Without the place: timers of the HTTP client keep their context for minutes, and so its run would live on.
        context = copy_context()
        context.run(ambient.set, None)
        handover.reading = context.run(io_loop.submit, work())
        return Disposable(handover.dispose)

    return Observable(subscribe)


class _Handover:
    """A deque and one pending wake-up: the producer appends, the consumer's loop empties."""

    def __init__(self, loop: asyncio.AbstractEventLoop, observer: ObserverBase[Delta]) -> None:
        self.reading: Future[None] | None = None
        self._loop = loop
        self._observer: ObserverBase[Delta] | None = observer
        self._batches: deque[Sequence[Delta]] = deque()
        self._is_waking = False
        self._is_disposed = False

    def deliver(self, batch: Sequence[Delta]) -> None:
        """On the I/O loop."""
        self._batches.append(batch)
        if not self._is_waking:
            self._is_waking = True
            call_soon(self._loop, self._drain)

    def end(self, error: BaseException | None) -> None:
        """On the I/O loop, once."""
        call_soon(self._loop, partial(self._end, error))

    def dispose(self) -> None:
        self._is_disposed = True
        self._observer = None
        if self.reading is not None:
            self.reading.cancel()

    def _drain(self) -> None:
        # Cleared before the look at the deque, as deliver() appends before its look at the flag.
        self._is_waking = False
        observer = self._observer
        if observer is None:
            return
        emit = observer.on_next
        try:
            while self._batches:
                for delta in self._batches.popleft():
                    if self._is_disposed:
                        return
                    emit(delta)
        except Exception as error:  # noqa: BLE001 - it is the stream's terminal; the loop would only report it, and go on
            self.dispose()
            observer.on_error(error)

    def _end(self, error: BaseException | None) -> None:
        self._drain()
        observer, self._observer = self._observer, None
        if observer is None:
            return
        if error is None:
            observer.on_completed()
        else:
            observer.on_error(error)  # type: ignore[arg-type]  # RxPY's type leaves out CancelledError
