"""``smooth``: emits text at an even pace."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import SerialDisposable
from reactivex.typing import RelativeTime

from rxflow._streaming import Owned
from rxflow.operators._core import (
    CallQueues,
    Characters,
    check_positive,
    create_timed,
    find_end_after,
    get_span_id,
    get_text,
    replace_text,
    set_timer,
    shape_text,
    through,
    to_seconds,
)

T = TypeVar("T")

_TICK = timedelta(seconds=1 / 30)  # the shortest time between two pieces; 30 pieces a second look continuous


def smooth(
    rate: float = 60, *, catch_up: RelativeTime = 2, scheduler: SchedulerBase | None = None
) -> Callable[[Observable[T]], Observable[T]]:
    """Emit text at an even pace of ``rate`` characters a second (like ``delay_with_mapper`` for each character).

    Text is emitted at most 30 times a second. If text arrives faster than ``rate``, the pace rises: each character is
    emitted within ``catch_up`` (seconds, or a timedelta) of its arrival. The pace falls back to ``rate`` when no text
    is waiting. If several calls run at once, each call has this pace. The items of a call stay in order. Tool calls,
    events and the completion wait for the text before them. An error does not wait: all waiting items are emitted at
    once, and then the error.

    A character is never split. The last character is held until the next item of the call arrives or the call ends,
    because an accent or the rest of an emoji may follow. The operator works on chunks and on strings. A timer runs only
    while items wait. ::

        source         --abcdef------------|
        smooth(…)      --a-b-c-d-e--------(f)|

    Example::

        flow.observe().pipe(ops.smooth(60)).subscribe(lambda chunk: print(chunk, end="", flush=True))

    Raises:
        RuntimeError: no event loop runs at the subscription, and there is no scheduler. The stream ends with this
            error.
        TypeError: ``rate`` is not a number, or ``catch_up`` is neither a number nor a timedelta.
        ValueError: ``rate`` or ``catch_up`` is not above 0.
    """
    check_positive(rate, "smooth(rate)", "characters a second")
    catch_up_s = to_seconds(catch_up, "smooth(catch_up)")

    def keep_pace(source: Observable[Any]) -> Observable[Any]:
        def subscribe(
            observer: ObserverBase[Any], clock: SchedulerBase, subscribed: SchedulerBase | None
        ) -> DisposableBase:
            pace = _Pace(rate, catch_up_s, clock, observer)
            running = source.subscribe(pace.on_next, pace.on_error, pace.on_completed, scheduler=subscribed)
            return Owned(pace.timer, running)

        return create_timed("smooth", scheduler, subscribe)

    def apply(source: Observable[T]) -> Observable[T]:
        return through(keep_pace)(shape_text(Characters)(source))

    return apply


class _Pace:
    """The waiting items of one subscription. At most one timer is pending."""

    def __init__(self, rate: float, catch_up: float, scheduler: SchedulerBase, observer: ObserverBase[Any]) -> None:
        self.timer = SerialDisposable()
        self._rate = self._pace = rate
        self._catch_up = catch_up
        self._scheduler = scheduler
        self._observer = observer
        self._emit = observer.on_next
        self._queues = CallQueues()
        self._is_emitting = False
        self._has_ended = False
        self._emitted_at = scheduler.now - _TICK
        self._credit = 0.0  # the fraction of a character that was due at the last tick, but cannot be emitted alone

    def on_next(self, item: object) -> None:
        text = get_text(item)
        if text is None and not self._queues:
            self._emit(item)
            return
        section = self._queues.add(item)
        if text:
            span_id = get_span_id(item)
            section.sizes[span_id] = section.sizes.get(span_id, 0) + len(text)
            waiting = sum(max(each.sizes.values(), default=0) for each in self._queues)
            self._pace = max(self._pace, waiting / self._catch_up)
        if not self._is_emitting:
            self._is_emitting = True
            idle = self._scheduler.now - self._emitted_at
            if idle < _TICK:
                self._wait(_TICK - idle)
            else:
                self._emit_due(max(1 / self._pace, _TICK.total_seconds()))

    def on_error(self, error: Exception) -> None:
        self.timer.dispose()
        while self._queues:
            for span_id, queue in list(self._queues.first.queues.items()):
                for item in queue:
                    self._emit(item)
                self._queues.end_queue(span_id)
            for event in self._queues.end_section():
                self._emit(event)
        self._observer.on_error(error)

    def on_completed(self) -> None:
        self._has_ended = True
        if not self._queues:
            self._observer.on_completed()

    def _wait(self, time: timedelta) -> None:
        set_timer(self.timer, self._scheduler, time, self._tick)

    def _tick(self, scheduler: SchedulerBase, state: object = None) -> None:
        self._emit_due((self._scheduler.now - self._emitted_at).total_seconds())

    def _emit_due(self, seconds: float) -> None:
        """Emit the text that is due when ``seconds`` have passed since text was last emitted."""
        self._emitted_at = self._scheduler.now
        due = self._credit + self._pace * seconds
        characters = int(due + 1e-6)  # the tolerance is for clocks with a resolution of microseconds
        self._credit = due - characters
        while self._queues:
            section = self._queues.first
            shown = max([self._emit_text(span_id, characters) for span_id in list(section.queues)], default=0)
            if section.queues:
                self._wait(max(_TICK, timedelta(seconds=(1 - self._credit) / self._pace)))
                return
            characters -= shown
            for event in self._queues.end_section():
                self._emit(event)
        self._pace, self._credit, self._is_emitting = self._rate, 0.0, False
        if self._has_ended:
            self._observer.on_completed()

    def _emit_text(self, span_id: str, characters: int) -> int:
        """Emit the next ``characters`` characters of a call. Return the number of emitted characters.

        Items without text do not count, and are emitted in their places. If fewer characters are waiting, emit only
        these. Emit a few more if an emoji, for example, would otherwise be split.
        """
        section = self._queues.first
        queue = section.queues[span_id]
        shown = 0
        pieces: list[str] = []
        last: object = None
        while queue:
            item = queue[0]
            text = get_text(item)
            if pieces and (text is None or type(item) is not type(last)):
                self._emit(replace_text(last, "".join(pieces)))
                pieces = []
            if text is None:
                self._emit(queue.popleft())
                continue
            if shown >= characters:
                break
            cut = find_end_after(text, characters - shown)
            if cut < len(text):
                queue[0] = replace_text(item, text[cut:])
            else:
                queue.popleft()
            pieces.append(text[:cut])
            last = item
            shown += cut
        if pieces:
            self._emit(replace_text(last, "".join(pieces)))
        section.sizes[span_id] = section.sizes.get(span_id, 0) - shown
        if not queue:
            self._queues.end_queue(span_id)
        return shown
