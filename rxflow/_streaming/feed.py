"""Feeds: objects that fill a log with items. A feed starts when a reader asks for the first item.

The items come from a subscription or from a plain iterator. Programs use plain iterators in their tests.
"""

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
    """Fills a log with items. Readers ask for items with :meth:`pull` and :meth:`pull_async`."""

    @property
    def result(self) -> Any:
        """The result of the run, once the log has ended."""

    @property
    def is_running(self) -> bool:
        """Whether there is an active run, which :meth:`close` would stop."""
        ...

    @property
    def is_paused(self) -> bool:
        """Whether the run waits for answers."""
        ...

    def pull(self, position: int) -> None:
        """Block until the log has an item at ``position``, or has ended."""

    async def pull_async(self, position: int) -> None:
        """Wait as :meth:`pull` does, in async code."""

    def close(self) -> None:
        """End the log and stop the run. If the log has already ended, do nothing."""

    async def aclose(self) -> None:
        """Do the same as :meth:`close`, in async code."""


class SubscribedFeed(ObserverBase[Signal], Generic[Item, Signal, Source]):
    """Subscribes to its source at the first pull.

    If the source is a run, subscribing starts the run, and closing the feed disposes the run. If the first pull comes
    from code of a leaf, the new run becomes a part of that leaf's run.
    """

    def __init__(self, log: Log[Item], source: Source) -> None:
        self._log = log
        self._source: Source | None = source
        self._start_token = Once()
        self._handle: RunHandle | None = None
        self._leaf: Emitter | None = None
        self._owned: DisposableBase | None = None

    @abstractmethod
    def _subscribe(self, source: Source, leaf: Emitter | None, *, blocking: bool) -> None:
        """Subscribe this observer to ``source``.

        A subclass implements this method. The method must pass the run's handle to :meth:`_hold` before any code of
        ``source`` runs.

        ``blocking`` is True if this thread will wait for the items.
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
        except BaseException:
            # A signal handler may have raised. Stop the run, because perhaps no reader will pull again.
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
        """Stop the run, because Ctrl-C has interrupted the waiting thread."""
        self.close()

    async def pull_async(self, position: int) -> None:
        self._start(blocking=False)
        self._look_for_its_loop(position)
        await self._log.wait_async(position, self._pause)

    def _look_for_its_loop(self, position: int) -> None:
        """If the run has lost its loop, end the log: no more items can arrive."""
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
        # Drop the reference to the source. A program may keep an output for its chunks, but the output must not keep
        # the flow alive.
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
        """End the stream, because the leaf that started the stream has ended."""
        if leaf.is_cancelled:
            self.close()
        elif self._log.end(leaf.over()) and self._handle is not None:
            self._handle.dispose()

    def _hold(self, handle: RunHandle) -> None:
        # First set the handle, then look whether the log was cancelled. _dispose() first cancels the log, then looks
        # for the handle. So if both methods run at once, at least one of them disposes the run.
        self._handle = handle
        if self._log.is_cancelled:
            handle.dispose()

    def on_error(self, error: Exception) -> None:
        # Replace errors that a reader must not raise. A CancelledError would look like a cancellation of the reader
        # itself. A StopIteration or StopAsyncIteration would silently end the reader's loop.
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
        # This is shielded, because a caller that is being cancelled needs the clean-up too. The wait is short.
        with anyio.CancelScope(shield=True):
            if run is None or run.loop is not running_loop():
                await off_the_loop(partial(self._handle.join, CLOSE_WAIT_S))
                return
            leftover = run.tasks - {asyncio.current_task()}
            if leftover:
                await asyncio.wait(leftover, timeout=2 * CLOSE_WAIT_S)

    def _dispose(self) -> bool:
        """Dispose the subscription. Return False if the stream had already ended."""
        if not self._log.end(cancelled=True):
            return False
        self._start_token.take()  # a closed stream never starts
        self._source = None
        if self._handle is not None:
            self._handle.dispose()
        return True


class _PlainFeed:
    """Takes items from a plain iterator, but only while a reader pulls.

    Closing an output also closes its generator. So the generator cleans up before it is garbage-collected.
    There are two limits:

    - The output's ``aclose()`` closes an async generator. ``close()`` does not, because that needs ``await``.
    - While readers wait for the generator's next item, the generator cannot be closed. In this case, the last waiting
      reader closes the generator, even if that reader was cancelled or interrupted.
    """

    is_running = False
    is_paused = False

    def __init__(self, log: Log[StreamChunk], iterator: object, result: Any) -> None:
        self.result = result
        self._log = log
        # The code that closes the iterator first takes the iterator from this list. list.pop() is atomic, so only one
        # thread gets the iterator.
        self._to_close = [iterator]
        # Whether a reader was cancelled or interrupted inside the iterator. This ends a generator too early, and the
        # generator then looks exhausted. So if no item follows, the items are incomplete.
        self._is_cut = False

    def _take(self, method: str) -> Any:
        """Return the method that closes the iterator; None if the iterator has no such method.

        ``method`` is the name of the method, "close" or "aclose". Every call after the first one returns None.
        """
        try:
            return getattr(self._to_close.pop(), method, None)
        except IndexError:
            return None

    def _add(self, chunk: StreamChunk) -> None:
        self._is_cut = False  # an item has come, so the iterator has not ended
        if not self._log.is_ended:  # the output may have been closed while the iterator produced this item
            self._log.append(chunk)


class PlainFeed(_PlainFeed):
    """Takes the next item from an iterator whenever a reader needs one more."""

    def __init__(self, log: Log[StreamChunk], iterator: Iterator[StreamChunk], result: Any) -> None:
        super().__init__(log, iterator, result)
        self._iterator = iterator
        # Two readers cannot enter a generator at once, so the second reader has to wait.
        self._turn = threading.Lock()

    def pull(self, position: int) -> None:
        try:
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
        finally:
            self._close_if_cancelled()

    def close(self) -> None:
        self._log.end(cancelled=True)
        self._close_if_cancelled()

    async def aclose(self) -> None:
        self.close()

    def _close_if_cancelled(self) -> None:
        """Close the iterator if the output was cancelled. If a reader holds the lock, leave this to that reader."""
        if not self._log.is_cancelled or self._turn.locked():
            return
        close = self._take("close")
        try:
            if close is not None:
                close()
        except Exception as error:  # noqa: BLE001 - close() never raises
            _report(error)

    async def pull_async(self, position: int) -> None:
        raise RuntimeError("This output was built from a sync_iterator: read it with `for`, not `async for`.")


class PlainAsyncFeed(_PlainFeed):
    """Takes the next item from an async iterator whenever a reader needs one more."""

    def __init__(self, log: Log[StreamChunk], iterator: AsyncIterator[StreamChunk], result: Any) -> None:
        super().__init__(log, iterator, result)
        self._iterator = iterator
        self._turn = anyio.Lock()

    def pull(self, position: int) -> None:
        raise RuntimeError("This output was built from an async_iterator: read it with `async for`.")

    async def pull_async(self, position: int) -> None:
        try:
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
        finally:
            # A reader can also be cancelled while it acquires the lock. If aclose() was called at that time, aclose()
            # has left the iterator to this reader.
            await self._close_if_cancelled()

    def close(self) -> None:
        # The iterator is not closed here, because closing it needs ``await``. aclose(), a reader in pull_async() or the
        # garbage collector closes the iterator.
        self._log.end(cancelled=True)

    async def aclose(self) -> None:
        self._log.end(cancelled=True)
        await self._close_if_cancelled()

    async def _close_if_cancelled(self) -> None:
        """Close the iterator if the output was cancelled. If a reader holds the lock, leave this to that reader."""
        if not self._log.is_cancelled or self._turn.locked():
            return
        close = self._take("aclose")
        try:
            if close is not None:
                await close()
        except Exception as error:  # noqa: BLE001 - aclose() never raises
            _report(error)


def _report(error: Exception) -> None:
    warnings.warn(f"the iterator of an output raised when it was closed: {error!r}", RuntimeWarning, stacklevel=4)
