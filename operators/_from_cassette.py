"""``from_cassette``: replays a recorded run."""

from __future__ import annotations

from datetime import datetime, timedelta
from math import inf, isinf
from typing import Any

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import Disposable, SerialDisposable, SingleAssignmentDisposable
from reactivex.scheduler import CurrentThreadScheduler, TimeoutScheduler

from rxflow._loops import running_loop
from rxflow.operators._core import AnyPath, Cassette, CassetteError, check_path, find_clock, is_number, read_cassette
from rxflow.types.codec import RecordedError

__all__ = ["CassetteError", "RecordedError", "from_cassette"]


def from_cassette(
    path: AnyPath, speed: float | None = 1.0, *, scheduler: SchedulerBase | None = None
) -> Observable[Any]:
    """Create a cold Observable of a recorded run (like ``from_marbles``), from the file that :func:`record` wrote. ::

        the file                  --a---b---|
        from_cassette(path)       --a---b---|
        from_cassette(path, 2)    -a-b-|           (times are halved)

    Chunks, strings, and events with their fields are restored. A value that cannot be restored is replaced by a
    stand-in (see :mod:`rxflow.types.codec`). An error of another library becomes a :class:`RecordedError`. If the class
    of a pydantic object is not loaded, the stand-in has the same fields. The stand-in of any other object holds the
    name of the object's class, and the object's text. All events of the recorded run are emitted. Operators such as
    ``ops.text()`` select from them.

    Args:
        path: the file.
        speed: 2 plays twice as fast; None or infinity emits everything at once.
        scheduler: the clock. By default, this is the subscriber's scheduler, otherwise the running loop, otherwise a
            timer thread.

    Raises:
        TypeError: ``path`` is not a path, or ``speed`` is not a number.
        ValueError: ``speed`` is not above 0.
        OSError: as the stream's error: the file cannot be read.
        CassetteError: as the stream's error. It comes before any item if the file is broken or has an unknown version.
            It comes after the recorded items if the recording was cut short by a disposal, or by the end of the
            program.

    Example::

        ops.from_cassette("support.cassette", speed=4).pipe(ops.text()).subscribe(show)
    """
    check_path(path, "from_cassette(path)")
    pace = inf if speed is None else speed
    if not is_number(pace):
        raise TypeError(f"from_cassette(speed) is not a number: {speed!r}")
    if not pace > 0:
        raise ValueError(f"from_cassette(speed) must be a number above 0, or None for all at once; got {speed!r}")

    def subscribe(observer: ObserverBase[Any], subscribed: SchedulerBase | None = None) -> DisposableBase:
        try:
            cassette = read_cassette(path)
        except (OSError, CassetteError) as error:
            observer.on_error(error)
            return Disposable()
        player = _Player(cassette, pace, observer, _find_any_clock(scheduler, subscribed))
        # The trampoline calls wait() after this function has returned the timer to RxPY. Otherwise a timer thread might
        # emit items while the subscription cannot dispose the timer yet.
        CurrentThreadScheduler.singleton().schedule(player.wait)
        return player.timer

    return Observable(subscribe)


def _find_any_clock(given: SchedulerBase | None, subscribed: SchedulerBase | None) -> SchedulerBase:
    """Return the clock. If there is neither a scheduler nor a loop, return a clock with timer threads.

    Timer threads are allowed, because a source may emit in any thread.
    """
    try:
        return find_clock("from_cassette", given, subscribed, running_loop())
    except RuntimeError:
        return TimeoutScheduler.singleton()


class _Player:
    """One subscription. At most one timer is pending, for the next item or for the end."""

    def __init__(self, cassette: Cassette, pace: float, observer: ObserverBase[Any], clock: SchedulerBase) -> None:
        self.timer = SerialDisposable()
        self._cassette = cassette
        self._pace = pace
        self._observer = observer
        self._clock = clock
        self._started_at = clock.now
        self._next = 0

    def wait(self, *_: object) -> None:
        """Set the timer for the next item, or for the end."""
        timer = SingleAssignmentDisposable()
        # Do this first, because a timer thread may set the next timer before schedule() returns.
        self.timer.disposable = timer
        if isinf(self._pace):
            timer.disposable = self._clock.schedule(self._play)
        else:
            timer.disposable = self._clock.schedule_absolute(self._get_due_time(), self._play)

    def _get_due_time(self) -> datetime:
        items = self._cassette.items
        at = items[self._next][0] if self._next < len(items) else self._cassette.ended_at
        return self._started_at + timedelta(seconds=at / self._pace)

    def _play(self, *_: object) -> None:
        """Emit the next item, and all further items that are due. Then set the timer again, or end the stream."""
        items, now = self._cassette.items, self._clock.now
        while not self.timer.is_disposed:
            if self._next == len(items):
                self._end()
                return
            self._next += 1
            self._observer.on_next(items[self._next - 1][1])
            if self._get_due_time() > now:
                self.wait()
                return

    def _end(self) -> None:
        self.timer.dispose()
        if self._cassette.error is None:
            self._observer.on_completed()
        else:
            self._observer.on_error(self._cassette.error)
