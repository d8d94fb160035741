"""``smooth``: an even pace for people's eyes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import chain
from typing import Any, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import CompositeDisposable, SerialDisposable

from rxflow.operators._core.arguments import positive
from rxflow.operators._core.characters import Characters, end_after
from rxflow.operators._core.clock import timed
from rxflow.operators._core.lift import through
from rxflow.operators._core.rows import Rows
from rxflow.operators._core.texts import place_of, text_of, with_text
from rxflow.operators._core.voices import shaped

T = TypeVar("T")

_TICK = timedelta(seconds=1 / 30)  # pieces come at most so often, which eyes take for a flow


def smooth(
    rate: float = 60, *, catch_up: float = 2, scheduler: SchedulerBase | None = None
) -> Callable[[Observable[T]], Observable[T]]:
    """Show text at an even pace: ``rate`` characters a second, however it arrives, in at most 30 pieces a second.

    It never falls behind for ever: where text comes faster, the pace rises so that each character is out within
    ``catch_up`` seconds of its arrival, and falls back to ``rate`` when all is out. Calls that speak side by side have
    this pace each. Everything stays in order: tool calls and events wait for the text before them, and so does the
    completion. An error does not: what waits comes at once, and then the error.

    A character is never cut, so the last one waits for the next text, or for the end of the call: it may go on (an
    accent, a part of an emoji). Works on chunks and on strings; no timer runs while nothing waits. ::

        source         --abcdef------------|
        smooth(…)      --a-b-c-d-e--------(f)|

    Example::

        flow.observe().pipe(ops.smooth(60)).subscribe(lambda chunk: print(chunk, end="", flush=True))

    Raises:
        RuntimeError: as the stream's error: there is no clock, as no event loop runs here and no scheduler was given.
        ValueError: ``rate`` or ``catch_up`` is not above 0.
    """
    positive(rate, "smooth(rate)", "characters a second")
    positive(catch_up, "smooth(catch_up)", "seconds")

    def paced(source: Observable[Any]) -> Observable[Any]:
        def subscribe(
            observer: ObserverBase[Any], clock: SchedulerBase, subscribed: SchedulerBase | None
        ) -> DisposableBase:
            pace = _Paced(rate, catch_up, clock, observer)
            running = source.subscribe(pace.on_next, pace.on_error, pace.on_completed, scheduler=subscribed)
            return CompositeDisposable(pace.timer, running)

        return timed("smooth", scheduler, subscribe)

    def apply(source: Observable[T]) -> Observable[T]:
        return through(paced)(shaped(Characters)(source))

    return apply


class _Paced:
    """What waits to be shown in one subscription. One timer is pending at most."""

    def __init__(self, rate: float, catch_up: float, scheduler: SchedulerBase, observer: ObserverBase[Any]) -> None:
        self.timer = SerialDisposable()
        self._rate = self._pace = rate
        self._catch_up = catch_up
        self._scheduler = scheduler
        self._observer = observer
        self._emit = observer.on_next
        self._rows = Rows()
        self._is_playing = False
        self._has_ended = False
        self._played_at = scheduler.now - _TICK
        self._credit = 0.0  # what the last tick left of a character

    def on_next(self, item: object) -> None:
        text = text_of(item)
        if text is None and not self._rows:
            self._emit(item)
            return
        section = self._rows.add(item)
        if text:
            place = place_of(item)
            section.sizes[place] = section.sizes.get(place, 0) + len(text)
            waiting = sum(max(each.sizes.values(), default=0) for each in self._rows)
            self._pace = max(self._pace, waiting / self._catch_up)
        if not self._is_playing:
            self._is_playing = True
            idle = self._scheduler.now - self._played_at
            if idle < _TICK:
                self._wait(_TICK - idle)
            else:
                self._play(max(1 / self._pace, _TICK.total_seconds()))

    def on_error(self, error: Exception) -> None:
        self.timer.dispose()
        while self._rows:
            for item in chain.from_iterable(self._rows.first.rows.values()):
                self._emit(item)
            for event in self._rows.end_section():
                self._emit(event)
        self._observer.on_error(error)

    def on_completed(self) -> None:
        self._has_ended = True
        if not self._rows:
            self._observer.on_completed()

    def _wait(self, time: timedelta) -> None:
        self.timer.disposable = self._scheduler.schedule_relative(time, self._tick)

    def _tick(self, scheduler: SchedulerBase, state: object = None) -> None:
        self._play((self._scheduler.now - self._played_at).total_seconds())

    def _play(self, seconds: float) -> None:
        """Show what is due after so much time."""
        self._played_at = self._scheduler.now
        due = self._credit + self._pace * seconds
        characters = int(due + 1e-6)  # clocks count microseconds
        self._credit = due - characters
        while self._rows:
            section = self._rows.first
            shown = max([self._show(place, characters) for place in list(section.rows)], default=0)
            if section.rows:
                self._wait(max(_TICK, timedelta(seconds=(1 - self._credit) / self._pace)))
                return
            characters -= shown
            for event in self._rows.end_section():
                self._emit(event)
        self._pace, self._credit, self._is_playing = self._rate, 0.0, False
        if self._has_ended:
            self._observer.on_completed()

    def _show(self, place: str, characters: int) -> int:
        """Show so many characters of a call, and what needs no time; how many it were."""
        section = self._rows.first
        row = section.rows[place]
        shown = 0
        pieces: list[str] = []
        last: object = None
        while row:
            item = row[0]
            text = text_of(item)
            if pieces and (text is None or type(item) is not type(last)):
                self._emit(with_text(last, "".join(pieces)))
                pieces = []
            if text is None:
                self._emit(row.popleft())
                continue
            if shown >= characters:
                break
            cut = end_after(text, characters - shown)
            if cut < len(text):
                row[0] = with_text(item, text[cut:])
            else:
                row.popleft()
            pieces.append(text[:cut])
            last = item
            shown += cut
        if pieces:
            self._emit(with_text(last, "".join(pieces)))
        section.sizes[place] = section.sizes.get(place, 0) - shown
        if not row:
            self._rows.end_row(place)
        return shown
