"""What ``to_output()`` gives: the items of any Observable, for ``for`` and ``async for``."""

from __future__ import annotations

from typing import ClassVar, Generic, TypeVar

from reactivex import Observable
from reactivex.internal.exceptions import SequenceContainsNoElementsError

from rxflow.loops import running_loop
from rxflow.streaming.emitter import Emitter
from rxflow.streaming.feed import SubscribedFeed
from rxflow.streaming.handle import RunHandle
from rxflow.streaming.launch import StartingObservable
from rxflow.streaming.log import Log
from rxflow.streaming.loop_scheduler import LoopScheduler
from rxflow.streaming.readable import Readable

T = TypeVar("T")


class PipelineOutput(Readable[T, T], Generic[T]):
    """The items of a pipeline, which the first pull subscribes; see :class:`Readable` for what readers can rely on.

    ``result`` is the last item; SequenceContainsNoElementsError (RxPY's) where there was none.

    Raises:
        TypeError: ``source`` is no Observable.
    """

    _items_are: ClassVar[str] = "items"

    def __init__(self, source: Observable[T]) -> None:
        if not isinstance(source, Observable):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"{type(self).__name__} reads an Observable; got {source!r}")
        log: Log[T] = Log()
        super().__init__(log, _PipelineFeed(log, source))

    @property
    def items(self) -> list[T]:
        """A copy of what has arrived so far."""
        return self._log.items.copy()


class _PipelineFeed(SubscribedFeed[T, T, Observable[T]], Generic[T]):
    """Logs all items. A run chooses its loop; whatever else is subscribed lives where its reader does."""

    def __init__(self, log: Log[T], source: Observable[T]) -> None:
        super().__init__(log, source)
        self._chooses_its_loop = isinstance(source, StartingObservable)

    @property
    def result(self) -> T:
        if not self._log.items:
            raise SequenceContainsNoElementsError("the stream completed without an item, so there is no result")
        return self._log.items[-1]

    def pull(self, position: int) -> None:
        if running_loop() is not None and not (self._chooses_its_loop or self._start_token.is_taken):
            raise RuntimeError(
                "this pipeline would live on this thread's event loop, which a plain `for` blocks: use `async for`"
            )
        super().pull(position)

    def on_next(self, value: T) -> None:
        if not self._log.is_ended:
            self._log.append(value)

    def _subscribe(self, source: Observable[T], place: Emitter | None, *, blocking: bool) -> None:
        if isinstance(source, StartingObservable):
            source.read_by(self, place, blocking=blocking, hold=self._hold)
            return
        loop = running_loop()
        handle = RunHandle(home=loop)
        self._hold(handle)
        # Else RxPY's operators would set their timers by the wall clock, on threads of their own.
        scheduler = LoopScheduler(loop) if loop is not None else None
        handle.disposable = source.subscribe(self, scheduler=scheduler)


class _LastFeed(_PipelineFeed[T]):
    """Keeps the last item alone, and wakes nobody for it."""

    def on_next(self, value: T) -> None:
        if not self._log.is_ended:
            self._log.items[:] = [value]


def last_of(source: Observable[T]) -> T:
    """The last item, for a thread that waits for the end and reads none of the others."""
    log: Log[T] = Log()
    feed = _LastFeed(log, source)
    with Readable[T, T](log, feed) as output:
        feed.pull_to_the_end()
    log.raise_error()
    return output.result
