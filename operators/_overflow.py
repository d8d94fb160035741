"""``overflow``: a bounded queue for a reader that is slower than the stream."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar, cast, get_args

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import Disposable
from reactivex.scheduler import EventLoopScheduler, ImmediateScheduler, TrampolineScheduler, VirtualTimeScheduler

from rxflow._loops import LoopScheduler, get_loop, report_error, running_loop
from rxflow._streaming import Holder
from rxflow.operators._core import (
    check_choice,
    check_count,
    get_span_id,
    get_speaker,
    get_text,
    replace_text,
)
from rxflow.types import StreamChunk

T = TypeVar("T")

Policy: TypeAlias = Literal["coalesce", "wait", "latest", "error"]
Scheduler: TypeAlias = SchedulerBase | asyncio.AbstractEventLoop


class SlowReaderError(OverflowError):
    """A reader fell behind by more items than ``overflow(limit, "error")`` allows."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the reader is too slow: {limit} items are waiting, which is the limit of overflow")
        self.limit = limit

    def __reduce__(self) -> tuple[type[SlowReaderError], tuple[int]]:
        return type(self), (self.limit,)


def overflow(
    limit: int,
    policy: Policy = "coalesce",
    *,
    scheduler: Scheduler | None = None,
) -> Callable[[Observable[T]], Observable[T]]:
    """Emit items to a slow reader at the reader's pace (like ``observe_on``). Meanwhile, the next items wait.

    The source continues while the reader works. If an item arrives when ``limit`` items are waiting, ``policy`` decides
    what happens:

    - ``"coalesce"``: the waiting texts of each call are joined, so no text is lost. Answers and reasoning are joined
      separately. Two texts of a call are joined even if texts of other calls wait between them. They are not joined if
      an item without text waits between them. If nothing can be joined, more than ``limit`` items wait.
    - ``"latest"``: the oldest waiting text is dropped. If no text is waiting, more than ``limit`` items wait.
    - ``"wait"``: the emitting thread waits, and with it the whole run (back-pressure).
    - ``"error"``: the source is disposed. The reader gets the waiting items, and then :class:`SlowReaderError`.

    Text means answers, reasoning and ``str`` items. The policies "coalesce" and "latest" never join or drop other
    items, such as tool calls and events. Items stay in order, except that a joined text may overtake texts of other
    calls. The end of the source comes after all items. ::

        source                          --a-b-c-d-e----|        (all of one call)
        reader (busy for 4 columns)     --[a ][b ][cde
        overflow(1)                     --a---b---(cde)|

    Put this operator last, because later operators run in the reader's thread. Each subscriber has its own queue.

    Args:
        limit: how many items may wait before ``policy`` decides. The item that the reader is working on does not count.
        policy: see above.
        scheduler: where the reader gets its items, for example an ``EventLoopScheduler()`` or an asyncio loop. By
            default, this is the subscriber's scheduler, otherwise the event loop that runs at the subscription,
            otherwise a new thread.

    Raises:
        TypeError: ``limit`` is not an integer.
        ValueError: ``limit`` is less than 1, or ``policy`` is unknown.
        SlowReaderError: the policy is "error", and more than ``limit`` items would wait. The stream ends with this
            error.
        RuntimeError: the policy is "wait", and the reader gets its items in the emitting thread, which would wait for
            itself. The stream ends with this error.

    Example::

        flow.observe().pipe(ops.overflow(100, scheduler=EventLoopScheduler())).subscribe(send_over_slow_line)
    """
    check_count(limit, "overflow(limit)", 1)
    check_choice(policy, "overflow(policy)", *get_args(Policy))

    def operator(source: Observable[T]) -> Observable[T]:
        def subscribe(observer: ObserverBase[T], subscribed: SchedulerBase | None = None) -> DisposableBase:
            queue = _Queue(observer, limit, policy, scheduler or subscribed or running_loop())
            queue.running.hold(
                source.subscribe(queue.on_next, queue.on_error, queue.on_completed, scheduler=subscribed)
            )
            return Disposable(queue.dispose)

        return Observable(subscribe)

    return operator


class _Voice(NamedTuple):
    """The key of a text. Waiting texts with the same key may be joined.

    ``kind`` separates answers, reasoning and strings. It also separates the attempts of an answer.
    """

    call: Hashable
    kind: object


class _Joined:
    """Waiting texts of one voice, which will be emitted as one item."""

    __slots__ = ("last", "texts", "voice")

    def __init__(self, voice: _Voice) -> None:
        self.voice = voice
        self.last: object = None
        self.texts: list[str] = []

    def add(self, item: object) -> None:
        self.last = item
        self.texts.append(get_text(item) or "")


class _Queue:
    """The queue of one subscription. The lock is never held while users' code runs."""

    def __init__(self, observer: ObserverBase[Any], limit: int, policy: Policy, scheduler: Scheduler | None) -> None:
        self.running = Holder()
        self._observer: ObserverBase[Any] | None = observer
        self._limit = limit
        self._makes_room = {
            "coalesce": self._join,
            "latest": self._drop_oldest_text,
            "wait": self._wait,
            "error": self._refuse,
        }[policy]
        self._own_thread = _ReaderThread() if scheduler is None else None
        chosen = scheduler or cast(_ReaderThread, self._own_thread)
        self._loop = chosen if isinstance(chosen, asyncio.AbstractEventLoop) else get_loop(chosen)
        self._scheduler = cast(SchedulerBase, chosen) if self._loop is None else LoopScheduler(self._loop)
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._waiting: deque[Any] = deque()
        self._open: dict[Hashable, _Joined] = {}
        """For each call, the joined text that can still grow.

        All items after this text in the queue are joined texts of other calls.
        """
        self._end: Callable[[ObserverBase[Any]], None] | None = None
        self._is_scheduled = False
        self._reading_thread: threading.Thread | None = None

    def on_next(self, item: Any) -> None:
        with self._lock:
            # Items may follow the end: a source that emits inside subscribe() cannot be disposed until subscribe()
            # returns.
            if self._end is not None:
                return
            if len(self._waiting) < self._limit or self._makes_room(item):
                if self._observer is None:
                    return
                self._open.clear()
                self._waiting.append(item)
            is_refused = self._end is not None
            is_due = self._schedule_once()
        if is_refused:
            self.running.dispose()
        if is_due:
            self._read_soon(self._scheduler)

    def on_error(self, error: Exception) -> None:
        self._finish(lambda observer: observer.on_error(error))

    def on_completed(self) -> None:
        self._finish(lambda observer: observer.on_completed())

    def dispose(self) -> None:
        with self._lock:
            self._clear()
        self.running.dispose()

    def _finish(self, end: Callable[[ObserverBase[Any]], None]) -> None:
        with self._lock:
            self._end = self._end or end
            is_due = self._schedule_once()
        if is_due:
            self._read_soon(self._scheduler)

    def _schedule_once(self) -> bool:
        """Return whether the caller must schedule the reader. If so, mark the reader as scheduled."""
        if self._is_scheduled or self._observer is None:
            return False
        self._is_scheduled = True
        return True

    def _clear(self) -> None:
        self._observer = None
        self._waiting.clear()
        self._open.clear()
        self._changed.notify_all()
        if self._own_thread is not None:
            self._own_thread.dispose()

    # The reader's methods: _read() and _next_signal() are called in the reader's thread, _read_soon() in any thread.

    def _read_soon(self, scheduler: SchedulerBase) -> None:
        try:
            scheduler.schedule(self._read)
        except Exception as error:  # noqa: BLE001 - reported; the reader's loop or thread has ended
            if self._observer is not None:
                self.dispose()
                report_error(error, "the scheduler of overflow has ended; its subscription was disposed")

    def _read(self, scheduler: SchedulerBase, _: object = None) -> None:
        """Emit the items that wait now.

        If more items arrive meanwhile, schedule another read for them, so that the loop can do other work in between.
        """
        self._reading_thread = threading.current_thread()
        try:
            for _turn in range(len(self._waiting) + 1):
                signal = self._next_signal()
                if signal is None:
                    return
                signal()
        except Exception as error:  # noqa: BLE001 - reported
            self.dispose()
            report_error(error, "a reader behind overflow raised; its subscription was disposed")
            return
        finally:
            self._reading_thread = None
        if self._observer is not None:
            self._read_soon(scheduler)

    def _next_signal(self) -> Callable[[], None] | None:
        with self._lock:
            observer = self._observer
            if observer is None:
                return None
            if self._waiting:
                item = self._waiting.popleft()
                self._changed.notify_all()
                if isinstance(item, _Joined):
                    if self._open.get(item.voice.call) is item:
                        del self._open[item.voice.call]
                    item = replace_text(item.last, "".join(item.texts))
                return partial(observer.on_next, item)
            if self._end is None:
                self._is_scheduled = False
                return None
            end = self._end
            self._clear()
            return partial(end, observer)

    # The policies. on_next() calls them with the lock held, if ``limit`` items wait. They return True if the new item
    # must be added to the waiting items.

    def _join(self, item: object) -> bool:
        voice = _voice_of(item)
        if voice is None or self._open_for(voice) is None:
            self._join_waiting()
        if voice is None:
            return True
        joined = self._open_for(voice)
        if joined is None:
            joined = self._open[voice.call] = _Joined(voice)
            self._waiting.append(joined)
        joined.add(item)
        return False

    def _open_for(self, voice: _Voice) -> _Joined | None:
        """Return the joined text to which a text of ``voice`` can be added; None if there is none."""
        joined = self._open.get(voice.call)
        return joined if joined is not None and joined.voice == voice else None

    def _join_waiting(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        self._open.clear()
        for item in waiting:
            already = item if isinstance(item, _Joined) else None
            voice = already.voice if already else _voice_of(item)
            if voice is None:
                self._open.clear()
                self._waiting.append(item)
                continue
            joined = self._open_for(voice)
            if joined is None:
                joined = self._open[voice.call] = already or _Joined(voice)
                self._waiting.append(joined)
            if already is None:
                joined.add(item)
            elif already is not joined:
                joined.last = already.last
                joined.texts += already.texts

    def _drop_oldest_text(self, _: object) -> bool:
        for index, waiting in enumerate(self._waiting):
            if get_text(waiting) is not None:
                del self._waiting[index]
                break
        return True

    def _wait(self, _: object) -> bool:
        while len(self._waiting) >= self._limit and self._observer is not None:
            if self._reads_here():
                self._end_with(
                    RuntimeError(
                        'overflow(policy="wait") would wait forever: the reader gets its items in the thread that '
                        "emits them; give the reader another thread, for instance with scheduler=EventLoopScheduler()"
                    )
                )
                return False
            self._changed.wait()
        return True

    def _refuse(self, _: object) -> bool:
        self._end_with(SlowReaderError(self._limit))
        return False

    def _end_with(self, error: Exception) -> None:
        if self._end is None:
            self._end = lambda observer: observer.on_error(error)

    def _reads_here(self) -> bool:
        """Return whether the reader gets its items in this thread. A wait for the reader would then never end."""
        scheduler: Any = self._scheduler
        here = threading.current_thread()
        if isinstance(scheduler, ImmediateScheduler | TrampolineScheduler | VirtualTimeScheduler):
            return True
        if self._loop is not None:
            return self._loop is running_loop()
        return here is self._reading_thread or here is getattr(
            scheduler, "_thread", None
        )  # EventLoopScheduler has a _thread


def _voice_of(item: object) -> _Voice | None:
    """Return the voice of a text; None for other items."""
    if get_text(item) is None:
        return None
    kind: object = (StreamChunk, item.attempt) if isinstance(item, StreamChunk) else type(item)
    return _Voice(get_span_id(item) or get_speaker(item), kind)


class _ReaderThread(EventLoopScheduler):
    """A scheduler with a thread of its own for one reader. The thread starts when the first signal is scheduled."""

    def __init__(self) -> None:
        super().__init__(lambda target: threading.Thread(target=target, name="rxflow reader", daemon=True))

    def dispose(self) -> None:
        """End the thread. Schedule a no-op first: otherwise a thread that disposes itself would wait forever."""
        if self._thread is not None and not self._is_disposed:
            self.schedule(_do_nothing)
        super().dispose()


def _do_nothing(scheduler: SchedulerBase, state: object) -> None:
    pass
