"""``overflow``: what happens to a reader that is slower than the stream."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar, cast, get_args

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import Disposable, SingleAssignmentDisposable
from reactivex.scheduler import EventLoopScheduler, ImmediateScheduler, TrampolineScheduler, VirtualTimeScheduler
from reactivex.scheduler.eventloop import AsyncIOScheduler, AsyncIOThreadSafeScheduler

from rxflow.loops import running_loop
from rxflow.operators._core.reporting import report
from rxflow.operators._core.texts import place_of, speaker_of, text_of, with_text
from rxflow.types.chunks import StreamChunk

T = TypeVar("T")

Policy: TypeAlias = Literal["coalesce", "wait", "latest", "error"]
Scheduler: TypeAlias = SchedulerBase | asyncio.AbstractEventLoop


class SlowReaderError(OverflowError):
    """A reader fell behind by more items than ``overflow(limit, "error")`` lets wait."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the reader is too slow: {limit} items wait for it already, and overflow lets no more wait")
        self.limit = limit

    def __reduce__(self) -> tuple[type[SlowReaderError], tuple[int]]:
        return type(self), (self.limit,)


def overflow(
    limit: int,
    policy: Policy = "coalesce",
    scheduler: Scheduler | None = None,
) -> Callable[[Observable[T]], Observable[T]]:
    """Hand items to a slow reader, one after the other, where it may take its time; at most ``limit`` of them wait.

    The source goes on meanwhile. When as many wait, ``policy`` decides:

    - ``"coalesce"``: waiting texts of one call are joined; no text is lost. Text is joined past that of other calls,
      but never past anything else. Where that makes no room, as all that waits is of different calls or no text, more
      than ``limit`` wait.
    - ``"latest"``: the oldest waiting text is dropped.
    - ``"wait"``: the thread that emits waits, and with it the whole run (back-pressure).
    - ``"error"``: the source is disposed; the reader gets what waits, then :class:`SlowReaderError`.

    Text is what answers and reasoning are made of, and ``str`` items. All else (tool calls, events, the end) is always
    kept, and passed on in its place. An error comes after what has arrived before it, too. ::

        source                     --a-b-c-d-e----|        (all of one call)
        reader, 4 frames an item     [a  ][b  ][cde]
        overflow(1)                --a---b---(cde)|

    Put it last: what follows it works where the reader does. Each subscriber has a queue of its own.

    Args:
        limit: how many items may wait, besides the one that the reader is busy with.
        policy: see above.
        scheduler: where the reader gets its items: an ``EventLoopScheduler()``, an asyncio loop … Without it: the
            subscriber's scheduler, else the event loop that runs where it subscribes, else a thread of its own.

    Raises:
        ValueError: ``limit`` is less than 1, or there is no such policy.
        SlowReaderError: as the stream's error, by the policy "error".
        RuntimeError: as the stream's error: by the policy "wait" the emitting thread would wait for itself, as the
            reader gets its items there, too.

    Example::

        flow.observe().pipe(ops.overflow(100, "coalesce", EventLoopScheduler())).subscribe(send_over_slow_line)
    """
    if limit < 1:
        raise ValueError(f"overflow lets at least 1 item wait; got limit={limit!r}")
    if policy not in get_args(Policy):
        raise ValueError(f"policy is one of {', '.join(map(repr, get_args(Policy)))}; got {policy!r}")

    def operator(source: Observable[T]) -> Observable[T]:
        def subscribe(observer: ObserverBase[T], subscribed: SchedulerBase | None = None) -> DisposableBase:
            queue = _Queue(observer, limit, policy, scheduler or subscribed or running_loop())
            queue.running.disposable = source.subscribe(
                queue.on_next, queue.on_error, queue.on_completed, scheduler=subscribed
            )
            return Disposable(queue.dispose)

        return Observable(subscribe)

    return operator


class _Voice(NamedTuple):
    """Texts of one call that may be joined: its answer, or its reasoning."""

    call: Hashable
    what: object


class _Joined:
    """Waiting texts of one voice, to be handed over as one."""

    __slots__ = ("last", "texts", "voice")

    def __init__(self, voice: _Voice) -> None:
        self.voice = voice
        self.last: object = None
        self.texts: list[str] = []

    def add(self, item: object) -> None:
        self.last = item
        self.texts.append(text_of(item) or "")


class _Queue:
    """One reader's. The lock is held for moments, and never while code of others is called."""

    def __init__(self, observer: ObserverBase[Any], limit: int, policy: Policy, scheduler: Scheduler | None) -> None:
        self.running = SingleAssignmentDisposable()
        self._observer: ObserverBase[Any] | None = observer
        self._limit = limit
        self._makes_room = {
            "coalesce": self._join,
            "latest": self._drop_oldest_text,
            "wait": self._wait,
            "error": self._refuse,
        }[policy]
        self._own_thread = _ReaderThread() if scheduler is None else None
        self._scheduler = _for_any_thread(scheduler or cast(_ReaderThread, self._own_thread))
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._waiting: deque[Any] = deque()
        self._open: dict[Hashable, _Joined] = {}
        """By call: those that wait and can be added to, as behind them waits nothing but joined text of others."""
        self._end: Callable[[ObserverBase[Any]], None] | None = None
        self._is_called = False
        self._read_by: threading.Thread | None = None

    def on_next(self, item: Any) -> None:
        with self._lock:
            if len(self._waiting) < self._limit or self._makes_room(item):
                if self._observer is None:
                    return
                self._open.clear()
                self._waiting.append(item)
            is_refused = self._end is not None
            calls = self._call()
        if is_refused:
            self.running.dispose()
        if calls:
            self._read_soon(self._scheduler)

    def on_error(self, error: Exception) -> None:
        self._finish(lambda observer: observer.on_error(error))

    def on_completed(self) -> None:
        self._finish(lambda observer: observer.on_completed())

    def dispose(self) -> None:
        with self._lock:
            self._let_go()
        self.running.dispose()

    def _finish(self, end: Callable[[ObserverBase[Any]], None]) -> None:
        with self._lock:
            self._end = end
            calls = self._call()
        if calls:
            self._read_soon(self._scheduler)

    def _call(self) -> bool:
        """Whether the reader is to be called: it is at rest."""
        if self._is_called or self._observer is None:
            return False
        self._is_called = True
        return True

    def _let_go(self) -> None:
        self._observer = None
        self._waiting.clear()
        self._open.clear()
        self._changed.notify_all()
        if self._own_thread is not None:
            self._own_thread.dispose()

    # The reader's side.

    def _read_soon(self, scheduler: SchedulerBase) -> None:
        try:
            scheduler.schedule(self._read)
        except Exception as error:  # noqa: BLE001 - reported; the loop or thread of the reader is gone
            if self._observer is not None:
                self.dispose()
                report(error, "the scheduler of overflow has ended; its reader is given up")

    def _read(self, scheduler: SchedulerBase, _: object = None) -> None:
        """Hand over what waits now. What comes meanwhile has another turn, so that a loop can breathe."""
        self._read_by = threading.current_thread()
        try:
            for _turn in range(len(self._waiting) + 1):
                signal = self._next_signal()
                if signal is None:
                    return
                signal()
        except Exception as error:  # noqa: BLE001 - reported
            self.dispose()
            report(error, "a reader behind overflow raised; its subscription is over")
            return
        finally:
            self._read_by = None
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
                    item = with_text(item.last, "".join(item.texts))
                return partial(observer.on_next, item)
            if self._end is None:
                self._is_called = False
                return None
            end = self._end
            self._let_go()
            return partial(end, observer)

    # What the policies do where too many wait, with the lock held: True where the item is to wait, too.

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
        """What a text can be added to: not past something else that its call says."""
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
            if text_of(waiting) is not None:
                del self._waiting[index]
                break
        return True

    def _wait(self, _: object) -> bool:
        while len(self._waiting) >= self._limit and self._observer is not None:
            if self._reads_here():
                self._end_with(
                    RuntimeError(
                        'overflow(policy="wait") would wait for ever, as the reader gets its items in the thread that '
                        "emits them; give it another one, for instance by scheduler=EventLoopScheduler()"
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
        """The thread that waits is the one that would have to make room."""
        scheduler: Any = self._scheduler
        here = threading.current_thread()
        if isinstance(scheduler, ImmediateScheduler | TrampolineScheduler | VirtualTimeScheduler):
            return True
        if isinstance(scheduler, AsyncIOScheduler):
            return _loop_of(scheduler) is running_loop()
        return here is self._read_by or here is getattr(scheduler, "_thread", None)  # of an EventLoopScheduler


def _voice_of(item: object) -> _Voice | None:
    """What texts that may be joined have in common; None for what is no text."""
    if text_of(item) is None:
        return None
    what: object = (StreamChunk, item.attempt) if isinstance(item, StreamChunk) else type(item)
    return _Voice(place_of(item) or speaker_of(item), what)


def _for_any_thread(scheduler: Scheduler) -> SchedulerBase:
    """The source may emit in another thread than the loop's."""
    if isinstance(scheduler, asyncio.AbstractEventLoop):
        return AsyncIOThreadSafeScheduler(scheduler)
    return AsyncIOThreadSafeScheduler(_loop_of(scheduler)) if isinstance(scheduler, AsyncIOScheduler) else scheduler


def _loop_of(scheduler: AsyncIOScheduler) -> asyncio.AbstractEventLoop:
    return scheduler._loop  # pyright: ignore[reportPrivateUsage]


class _ReaderThread(EventLoopScheduler):
    """A thread for one reader, begun with its first item."""

    def __init__(self) -> None:
        super().__init__(lambda target: threading.Thread(target=target, name="rxflow reader", daemon=True))

    def dispose(self) -> None:
        """End it. RxPY's, disposed in its own thread, would wait for ever for what comes next: so something does."""
        if self._thread is not None and not self._is_disposed:
            self.schedule(_nothing)
        super().dispose()


def _nothing(scheduler: SchedulerBase, state: object) -> None:
    pass
