"""What fills a log while readers pull."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import anyio
from reactivex.abc import DisposableBase, ObserverBase
from reactivex.disposable import Disposable

from rxflow.loops import off_the_loop, running_loop
from rxflow.streaming import interrupts
from rxflow.streaming.emitter import Emitter
from rxflow.streaming.handle import RunHandle
from rxflow.streaming.launch import current_emitter
from rxflow.streaming.log import THE_END, Log
from rxflow.streaming.loop_thread import CLOSE_WAIT_S
from rxflow.streaming.once import Once
from rxflow.streaming.thread_count import Pause

Item = TypeVar("Item")
Signal = TypeVar("Signal")
Source = TypeVar("Source")


class Feed(Protocol):
    """Fills a log while readers pull."""

    @property
    def result(self) -> Any:
        """What the run returned, once the log has ended."""

    @property
    def is_running(self) -> bool:
        """Something goes on that has to be stopped."""
        ...

    def pull(self, position: int) -> None:
        """Block until the log has something to say about ``position``."""

    async def pull_async(self, position: int) -> None:
        """The same for async code."""

    def close(self) -> None:
        """Stop, if it has not ended by itself."""

    async def aclose(self) -> None:
        """The same for async code."""


class SubscribedFeed(ObserverBase[Signal], Generic[Item, Signal, Source]):
    """Subscribes its source at the first pull, for the leaf of that pull; closing it disposes the subscription."""

    def __init__(self, log: Log[Item], source: Source) -> None:
        self._log = log
        self._source: Source | None = source
        self._start_token = Once()
        self._handle: RunHandle | None = None
        self._leaf: Emitter | None = None
        self._owned: DisposableBase | None = None

    @abstractmethod
    def _subscribe(self, source: Source, leaf: Emitter | None, *, blocking: bool) -> None:
        """Subscribe this observer, and hand the handle to :meth:`_hold` before any code of the source is executed.

        ``blocking`` says that this thread is going to wait for what comes.
        """

    @property
    def is_running(self) -> bool:
        handle = self._handle
        return handle is not None and not (handle.is_disposed or handle.is_inherited or self._log.is_ended)

    def pull(self, position: int) -> None:
        self._start(blocking=True)
        home = self._handle.home if self._handle is not None else None
        if home is not None and home is running_loop() and not self._log.has(position):
            raise RuntimeError(
                "this stream runs on this thread's event loop, which a plain `for` would block for ever; "
                "an `async for` has begun it: go on with that"
            )
        self._look_for_its_loop(position)
        try:
            self._log.wait(position, self._pause)
        except BaseException:  # raised into the wait, as by the handler of a signal: nobody may come back to read
            self.close()
            raise

    def pull_to_the_end(self) -> None:
        """Block until the log has ended."""
        interrupts.watch(self)
        try:
            self.pull(THE_END)
        finally:
            interrupts.unwatch(self)

    def interrupt(self) -> None:
        """The thread that waits was interrupted."""
        self.close()

    async def pull_async(self, position: int) -> None:
        self._start(blocking=False)
        self._look_for_its_loop(position)
        await self._log.wait_async(position, self._pause)

    def _look_for_its_loop(self, position: int) -> None:
        """End a log that nobody is going to write to any more."""
        if self._handle is not None and not self._log.has(position):
            reason = self._handle.why_it_stands_still()
            if reason is not None:
                self._end(RuntimeError(f"this stream goes no further: {reason}"))

    def _pause(self) -> Pause | None:
        return self._handle.pause() if self._handle is not None else None

    def _start(self, *, blocking: bool) -> None:
        if self._start_token.is_taken:
            return
        leaf = current_emitter()
        if not self._start_token.take():
            return
        source, self._source = self._source, None  # it holds the flow, which must not live as long as its chunks
        if source is None:
            return
        self._leaf = leaf
        if leaf is not None:
            self._owned = leaf.own(Disposable(partial(self._end_with, leaf)))
        try:
            self._subscribe(source, leaf, blocking=blocking)
        except BaseException as error:  # for other readers too, lest they wait for a run that never began
            self._end(error)
            if self._handle is not None:
                self._handle.dispose()
            raise

    def _end_with(self, leaf: Emitter) -> None:
        """The leaf that began this stream is over."""
        if leaf.is_cancelled:
            self.close()
        elif self._log.end(leaf.over()) and self._handle is not None:
            self._handle.dispose()

    def _hold(self, handle: RunHandle) -> None:
        # Published before the look at the log, as close() does the reverse: one of the two sees the other.
        self._handle = handle
        if self._log.is_cancelled:
            handle.dispose()

    def on_error(self, error: Exception) -> None:
        # Three errors that readers cannot be given as they are. One they would take for their own cancellation, past
        # every `except Exception`; by the others their loop would end as if all were well.
        reason: Exception = error
        if isinstance(error, asyncio.CancelledError):
            reason = RuntimeError("this stream goes no further: its run was cancelled, as at the end of its event loop")
            reason.__cause__ = error
        elif isinstance(error, StopIteration | StopAsyncIteration):
            reason = RuntimeError(f"this stream failed with {type(error).__name__}")
            reason.__cause__ = error
        self._end(reason, cancelled=isinstance(error, asyncio.CancelledError))

    def on_completed(self) -> None:
        self._end(None)

    def _end(self, error: BaseException | None, *, cancelled: bool = False) -> None:
        self._log.end(error, cancelled=cancelled)
        if self._leaf is not None and self._owned is not None:
            self._leaf.disown(self._owned)

    def close(self) -> None:
        if self._dispose() and self._handle is not None:
            self._handle.join(CLOSE_WAIT_S)

    async def aclose(self) -> None:
        if not self._dispose() or self._handle is None:
            return
        run = self._handle.run
        # Shielded: it is short, and where the caller is being cancelled the clean-up matters as much.
        with anyio.CancelScope(shield=True):
            if run is None or run.loop is not running_loop():
                await off_the_loop(partial(self._handle.join, CLOSE_WAIT_S))
                return
            leftover = run.tasks - {asyncio.current_task()}
            if leftover:
                await asyncio.wait(leftover, timeout=2 * CLOSE_WAIT_S)

    def _dispose(self) -> bool:
        """False where the stream had ended by itself."""
        if not self._log.end(cancelled=True):
            return False
        self._start_token.take()  # a closed stream never starts
        self._source = None
        if self._handle is not None:
            self._handle.dispose()
        return True
