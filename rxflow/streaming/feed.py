"""What fills a log while readers pull; here: a run."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import anyio
import anyio.to_thread
from reactivex.abc import DisposableBase, ObserverBase
from reactivex.disposable import Disposable

from rxflow.loops import call_soon, running_loop
from rxflow.streaming.emitter import Emitter
from rxflow.streaming.launch import RunObservable, open_place, start
from rxflow.streaming.log import Log
from rxflow.streaming.loop_thread import RunHandle
from rxflow.streaming.once import Once
from rxflow.streaming.thread_count import Pause
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import CrewFinished, Event, FlowFinished, LLMFinished

E = TypeVar("E", bound=Event)
Item = TypeVar("Item")

_CLOSE_WAIT = 0.05  # seconds that close() gives the run's coroutines to clean up


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


class RunFeed(ObserverBase[Event], Generic[Item, E]):
    """Starts a run at the first pull, logs what ``select`` makes of its events, and keeps the last that ended it."""

    def __init__(
        self, log: Log[Item], source: RunObservable, finished: type[E], select: Callable[[Event], Item | None]
    ) -> None:
        self.finished: E | None = None
        self._log = log
        self._finished_type = finished
        self._select = select
        self._source: RunObservable | None = source
        self._start_token = Once()
        self._handle: RunHandle | None = None
        self._place: Emitter | None = None
        self._in_place: DisposableBase | None = None
        self._to_show: deque[Event] = deque()

    @property
    def result(self) -> Any:
        ended = self.finished
        if isinstance(ended, LLMFinished):
            return ended.text
        return ended.result if isinstance(ended, FlowFinished | CrewFinished) else None

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
        self._log.wait(position, self._pause)
        if self._to_show and self._place is not None and running_loop() is self._place.run.loop:
            self._show_waiting()  # this wait blocked the loop that was to do it

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
        place = open_place()
        if not self._start_token.take():
            return
        source, self._source = self._source, None  # it holds the flow, which must not live as long as its chunks
        if source is None:
            return
        self._place = place
        if place is not None:
            self._in_place = place.own(Disposable(self.close))
        try:
            start(source.build, self, place=place, blocking=blocking, is_read=True, hold=self._hold)
        except BaseException as error:  # for other readers too, lest they wait for a run that never began
            self._end(error)
            raise

    def _hold(self, handle: RunHandle) -> None:
        # Published before the look at the log, as close() does the reverse: one of the two sees the other.
        self._handle = handle
        if self._log.is_cancelled:
            handle.dispose()

    def on_next(self, value: Event) -> None:
        if self._log.is_ended:
            return
        try:
            item = self._select(value)
        except Exception as error:
            self._end(error)  # readers wait for nothing more; whoever emits hears of it too
            raise
        if item is not None:
            self._log.append(item)
        if not isinstance(value, StreamChunk) and isinstance(value, self._finished_type):
            self.finished = value
        if self._place is not None:
            self._show(self._place, value)

    def on_error(self, error: Exception) -> None:
        self._end(error)

    def on_completed(self) -> None:
        self._end(None)

    def _end(self, error: BaseException | None) -> None:
        self._log.end(error)
        if self._place is not None and self._in_place is not None:
            self._place.disown(self._in_place)

    def _show(self, place: Emitter, event: Event) -> None:
        """What runs inside another run appears in its stream too."""
        if running_loop() is place.run.loop:
            place.on_next(event)
        else:
            self._to_show.append(event)
            if len(self._to_show) == 1:
                call_soon(place.run.loop, self._show_waiting)

    def _show_waiting(self) -> None:
        while self._to_show and self._place is not None:
            self._place.on_next(self._to_show.popleft())

    def close(self) -> None:
        if self._dispose() and self._handle is not None:
            self._handle.join(_CLOSE_WAIT)

    async def aclose(self) -> None:
        if not self._dispose() or self._handle is None:
            return
        run = self._handle.run
        # Shielded: it is short, and where the caller is being cancelled the clean-up matters as much.
        with anyio.CancelScope(shield=True):
            if run is None or run.loop is not running_loop():
                await anyio.to_thread.run_sync(self._handle.join, _CLOSE_WAIT)
                return
            leftover = run.tasks - {asyncio.current_task()}
            if leftover:
                await asyncio.wait(leftover, timeout=2 * _CLOSE_WAIT)

    def _dispose(self) -> bool:
        """False where the stream had ended by itself."""
        if not self._log.end(cancelled=True):
            return False
        self._start_token.take()  # a closed stream never starts
        self._source = None
        if self._handle is not None:
            self._handle.dispose()
        return True
