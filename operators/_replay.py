"""``replay``: a recorded run, played again."""

from __future__ import annotations

from datetime import datetime, timedelta
from math import inf, isinf
from typing import Any

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import Disposable, SerialDisposable, SingleAssignmentDisposable
from reactivex.scheduler import CurrentThreadScheduler, TimeoutScheduler

from rxflow.operators._core.cassettes import AnyPath, Cassette, CassetteError, read
from rxflow.operators._core.clock import clock
from rxflow.operators._core.recorded_errors import RecordedError

__all__ = ["CassetteError", "RecordedError", "replay"]


def replay(path: AnyPath, speed: float | None = 1.0, *, scheduler: SchedulerBase | None = None) -> Observable[Any]:
    """A run again, from the file in which :func:`record` has put it: a cold source, and no operator. ::

        the file           --a--b----|
        replay(path)       --a--b----|
        replay(path, 2)    -a-b--|          (times are halved)

    The items are what they were: chunks, events with their fields, strings. Three things are known in words only:
    objects that JSON does not know, errors of other libraries' types (:class:`RecordedError`), and classes of
    structured answers, whose content comes as a dict. Of a run, all its events come; ``ops.text()`` and the others pick
    from them.

    Each subscription reads the whole file anew, before its first item.

    Args:
        path: the file.
        speed: 2 plays twice as fast; None or infinity all at once.
        scheduler: keeps the time; else the subscriber's, else the running loop, real or virtual, else a timer thread.

    Raises:
        ValueError: ``speed`` is not above 0.
        OSError: as the stream's error: the file cannot be read.
        CassetteError: as the stream's error: the file is broken, or of an unknown version (no item comes then); or its
            recording was cut short, by the reader's disposal or by the end of its program (after what there is).

    Example::

        ops.replay("support.cassette", speed=4).pipe(ops.text()).subscribe(show)
    """
    pace = inf if speed is None else speed
    if not pace > 0:
        raise ValueError(f"speed is a number above 0, or None for all at once; got {speed!r}")

    def subscribe(observer: ObserverBase[Any], subscribed: SchedulerBase | None = None) -> DisposableBase:
        try:
            cassette = read(path)
        except (OSError, CassetteError) as error:
            observer.on_error(error)
            return Disposable()
        player = _Player(cassette, pace, observer, _clock(scheduler, subscribed))
        # By way of the trampoline: a timer thread is quick, and who soon has enough must hold the disposable by then.
        CurrentThreadScheduler.singleton().schedule(player.begin)
        return player.timer

    return Observable(subscribe)


def _clock(given: SchedulerBase | None, subscribed: SchedulerBase | None) -> SchedulerBase:
    """A source is bound to no thread, so one of timers does where there is no loop."""
    try:
        return clock(given, subscribed, "replay")
    except RuntimeError:
        return TimeoutScheduler.singleton()


class _Player:
    """One subscription: one timer at a time, set for the next item."""

    def __init__(self, cassette: Cassette, pace: float, observer: ObserverBase[Any], clock: SchedulerBase) -> None:
        self.timer = SerialDisposable()
        self._cassette = cassette
        self._pace = pace
        self._observer = observer
        self._clock = clock
        self._begun = clock.now
        self._next = 0

    def begin(self, *_: object) -> None:
        """Wait for what comes next."""
        timer = SingleAssignmentDisposable()
        self.timer.disposable = timer  # first: a timer thread may be at the next one before this one is known here
        if isinf(self._pace):
            timer.disposable = self._clock.schedule(self._play)
        else:
            timer.disposable = self._clock.schedule_absolute(self._due(), self._play)

    def _due(self) -> datetime:
        items = self._cassette.items
        at = items[self._next][0] if self._next < len(items) else self._cassette.ended_at
        return self._begun + timedelta(seconds=at / self._pace)

    def _play(self, *_: object) -> None:
        """Give what it was waited for, and all else whose time has come."""
        items, now = self._cassette.items, self._clock.now
        while not self.timer.is_disposed:
            if self._next == len(items):
                self._end()
                return
            self._next += 1
            self._observer.on_next(items[self._next - 1][1])
            if self._due() > now:
                self.begin()
                return

    def _end(self) -> None:
        self.timer.dispose()
        if self._cassette.error is None:
            self._observer.on_completed()
        else:
            self._observer.on_error(self._cassette.error)
