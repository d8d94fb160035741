"""Fills a log while readers pull: from a subscription, or from a plain iterator, which programs use in their tests."""

from __future__ import annotations

import asyncio
import threading
import warnings
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import anyio
from reactivex.abc import DisposableBase, ObserverBase
from reactivex.disposable import Disposable

from rxflow._hooks import Pause
from rxflow._loops import Once, off_the_loop, running_loop
from rxflow._streaming import interrupts
from rxflow._streaming.emitter import Emitter, current_emitter
from rxflow._streaming.log import THE_END, Log
from rxflow._streaming.loop_thread import CLOSE_WAIT_S
from rxflow._streaming.scope import RunHandle
from rxflow.types import StreamChunk

Item = TypeVar("Item")
Signal = TypeVar("Signal")
Source = TypeVar("Source")


class Feed(Protocol):
    """Fills a log while readers pull."""

    @property
    def result(self) -> Any:
        """The result of the run, once the log has ended."""

    @property
    def is_running(self) -> bool:
        """Whether there is something to stop."""
        ...

    @property
    def is_paused(self) -> bool:
        """Whether the run has paused and waits for answers."""
        ...

    def pull(self, position: int) -> None:
        """Block until the log has an item at ``position``, or has ended."""

    async def pull_async(self, position: int) -> None:
        """Wait as :meth:`pull` does, in async code."""

    def close(self) -> None:
        """Stop, if the run has not ended by itself."""

    async def aclose(self) -> None:
        """Stop as :meth:`close` does, in async code."""


class SubscribedFeed(ObserverBase[Signal], Generic[Item, Signal, Source]):
    """Subscribes its source at the first pull. If a leaf pulls, the run is a part of it. Closing disposes the run."""

    def __init__(self, log: Log[Item], source: Source) -> None:
        self._log = log
        self._source: Source | None = source
        self._start_token = Once()
        self._handle: RunHandle | None = None
        self._leaf: Emitter | None = None
        self._owned: DisposableBase | None = None

    @abstractmethod
    def _subscribe(self, source: Source, leaf: Emitter | None, *, blocking: bool) -> None:
        """Subscribe this observer. Call :meth:`_hold` with the handle before any code of the source runs.

        ``blocking`` says that this thread is going to wait for the items.
        """

    @property
    def is_running(self) -> bool:
        handle = self._handle
        return handle is not None and not (handle.is_disposed or handle.is_inherited or self._log.is_ended)

    @property
    def is_paused(self) -> bool:
        return False

    def pull(self, position: int) -> None:
        self._start(blocking=True)
        home = self._handle.home if self._handle is not None else None
        if home is not None and home is running_loop() and not self._log.has(position):
            raise RuntimeError(
                "this stream runs on this thread's event loop, which a plain `for` would block forever; "
                "it was begun by an `async for`: continue with that"
            )
        self._look_for_its_loop(position)
        try:
            self._log.wait(position, self._pause)
        except BaseException:  # raised by a signal handler, for example; perhaps no reader comes back
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
        """Stop, because the waiting thread was interrupted."""
        self.close()

    async def pull_async(self, position: int) -> None:
        self._start(blocking=False)
        self._look_for_its_loop(position)
        await self._log.wait_async(position, self._pause)

    def _look_for_its_loop(self, position: int) -> None:
        """If the loop of the run is gone, end the log, because no more items will come."""
        if self._handle is not None and not self._log.has(position):
            reason = self._handle.why_it_stands_still()
            if reason is not None:
                self._end(RuntimeError(f"this stream has stopped: {reason}"))

    def _pause(self) -> Pause | None:
        return self._handle.pause() if self._handle is not None else None

    def _start(self, *, blocking: bool) -> None:
        if self._start_token.is_taken:
            return
        leaf = current_emitter()
        if not self._start_token.take():
            return
        # forget the source, so that readers of old chunks do not keep the flow alive
        source, self._source = self._source, None
        if source is None:
            return
        self._leaf = leaf
        if leaf is not None:
            self._owned = leaf.own(Disposable(partial(self._end_with, leaf)))
        try:
            self._subscribe(source, leaf, blocking=blocking)
        except BaseException as error:  # other readers must not wait for a run that never started
            self._end(error)
            if self._handle is not None:
                self._handle.dispose()
            raise

    def _end_with(self, leaf: Emitter) -> None:
        """End the stream, because the leaf that started it is over."""
        if leaf.is_cancelled:
            self.close()
        elif self._log.end(leaf.over()) and self._handle is not None:
            self._handle.dispose()

    def _hold(self, handle: RunHandle) -> None:
        # Set before the log is read; close() does these two steps in the reverse order, so one of the two sees the
        # other.
        self._handle = handle
        if self._log.is_cancelled:
            handle.dispose()

    def on_error(self, error: Exception) -> None:
        # Never raise these in a reader: a CancelledError would look like the reader's own, and StopIteration and
        # StopAsyncIteration would silently end its loop.
        reason: Exception = error
        if isinstance(error, asyncio.CancelledError):
            reason = RuntimeError("this stream has stopped: its run was cancelled, as at the end of its event loop")
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
        # Shielded: this is short, and a caller that is being cancelled needs the clean-up too.
        with anyio.CancelScope(shield=True):
            if run is None or run.loop is not running_loop():
                await off_the_loop(partial(self._handle.join, CLOSE_WAIT_S))
                return
            leftover = run.tasks - {asyncio.current_task()}
            if leftover:
                await asyncio.wait(leftover, timeout=2 * CLOSE_WAIT_S)

    def _dispose(self) -> bool:
        """Dispose the subscription; return False if the stream had ended by itself."""
        if not self._log.end(cancelled=True):
            return False
        self._start_token.take()  # a closed stream never starts
        self._source = None
        if self._handle is not None:
            self._handle.dispose()
        return True


class _PlainFeed:
    """Pulls a plain iterator: nothing happens between two pulls.

    A generator that was not read to its end is closed with its output, so that it cleans up at once, and not when it is
    garbage-collected. It cannot be closed while a reader is inside of it; then that reader closes it afterwards.
    """

    is_running = False
    is_paused = False

    def __init__(self, log: Log[StreamChunk], iterator: object, result: Any) -> None:
        self.result = result
        self._log = log
        # The code that closes the iterator takes it from the list: pop() is atomic, so only one thread gets it.
        self._to_close = [iterator]
        # Whether a reader was cancelled or interrupted inside the iterator. That ends a generator, so if no item
        # follows, the items are incomplete.
        self._is_cut = False

    def _take(self, method: str) -> Any:
        """Return the method that closes the iterator; None if it has none, or if this was called before."""
        try:
            return getattr(self._to_close.pop(), method, None)
        except IndexError:
            return None

    def _add(self, chunk: StreamChunk) -> None:
        self._is_cut = False  # the iterator has continued after the interrupt
        if not self._log.is_ended:  # closed while the iterator was working
            self._log.append(chunk)


class PlainFeed(_PlainFeed):
    """Pulls an iterator, one item whenever a reader wants one more."""

    def __init__(self, log: Log[StreamChunk], iterator: Iterator[StreamChunk], result: Any) -> None:
        super().__init__(log, iterator, result)
        self._iterator = iterator
        # A generator cannot be entered by two readers at once, so the second has to wait.
        self._turn = threading.Lock()

    def pull(self, position: int) -> None:
        with self._turn:
            while not self._log.has(position):
                try:
                    chunk = next(self._iterator)
                except StopIteration:
                    self._log.end(cancelled=self._is_cut)
                except Exception as error:  # noqa: BLE001 - raised in the reader, after the items that had arrived
                    self._log.end(error)
                except BaseException:
                    self._is_cut = True
                    raise
                else:
                    self._add(chunk)
        if self._log.is_cancelled:
            self._close_iterator()

    def close(self) -> None:
        if self._log.end(cancelled=True) and not self._turn.locked():
            self._close_iterator()

    async def aclose(self) -> None:
        self.close()

    def _close_iterator(self) -> None:
        close = self._take("close")
        try:
            if close is not None:
                close()
        except Exception as error:  # noqa: BLE001 - close() never raises
            _report(error)

    async def pull_async(self, position: int) -> None:
        raise RuntimeError("This output was built from a sync_iterator: read it with `for`, not `async for`.")


class PlainAsyncFeed(_PlainFeed):
    """Pulls an async iterator, one item whenever a reader wants one more."""

    def __init__(self, log: Log[StreamChunk], iterator: AsyncIterator[StreamChunk], result: Any) -> None:
        super().__init__(log, iterator, result)
        self._iterator = iterator
        self._turn = anyio.Lock()

    def pull(self, position: int) -> None:
        raise RuntimeError("This output was built from an async_iterator: read it with `async for`.")

    async def pull_async(self, position: int) -> None:
        async with self._turn:
            while not self._log.has(position):
                try:
                    chunk = await anext(self._iterator)
                except StopAsyncIteration:
                    self._log.end(cancelled=self._is_cut)
                except Exception as error:  # noqa: BLE001 - raised in the reader, after the items that had arrived
                    self._log.end(error)
                except BaseException:  # the reader was cancelled
                    self._is_cut = True
                    raise
                else:
                    self._add(chunk)
        if self._log.is_cancelled:
            await self._close_iterator()

    def close(self) -> None:
        self._log.end(cancelled=True)  # the iterator is closed by aclose(), or when it is garbage-collected

    async def aclose(self) -> None:
        self._log.end(cancelled=True)
        if self._log.is_cancelled and not self._turn.locked():
            await self._close_iterator()

    async def _close_iterator(self) -> None:
        close = self._take("aclose")
        try:
            if close is not None:
                await close()
        except Exception as error:  # noqa: BLE001 - aclose() never raises
            _report(error)


def _report(error: Exception) -> None:
    warnings.warn(f"the iterator of an output raised when it was closed: {error!r}", RuntimeWarning, stacklevel=4)
