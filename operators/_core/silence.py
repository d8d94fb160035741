"""The watch over a stream's silence."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from reactivex.abc import SchedulerBase
from reactivex.disposable import SerialDisposable


class Silence:
    """Rings when nothing has broken it for so long, and again after each further such time.

    One timer at most is pending, and an item only notes the time: a timer that comes too early waits for the rest. ::

        broken    a-b---------
        timer     ---|--|--|--     limit 3: at the first bar it waits for the rest, at the others it rings
    """

    def __init__(self, scheduler: SchedulerBase, seconds: float, ring: Callable[[float], None]) -> None:
        self._scheduler = scheduler
        self._limit = timedelta(seconds=seconds)
        self._ring = ring
        self._since = self._rung = scheduler.now
        self._timer = SerialDisposable()
        self._is_watched = False

    def broken(self) -> None:
        """Something happened."""
        self._since = self._scheduler.now

    def watch(self) -> None:
        """Silence begins now, and is watched from now on."""
        self._since = self._scheduler.now
        if not self._is_watched and not self._timer.is_disposed:
            self._is_watched = True
            self._wait(self._limit)

    def leave(self) -> None:
        """Do not watch until the next :meth:`watch`."""
        if self._is_watched:
            self._is_watched = False
            self._timer.disposable = None

    def dispose(self) -> None:
        """Never ring again."""
        self._timer.dispose()

    def _wait(self, time: timedelta) -> None:
        self._timer.disposable = self._scheduler.schedule_relative(time, self._look)

    def _look(self, scheduler: SchedulerBase, state: object = None) -> None:
        now = self._scheduler.now
        rest = self._limit - (now - max(self._since, self._rung))
        if rest > timedelta():
            self._wait(rest)
            return
        self._rung = now
        self._wait(self._limit)
        self._ring((now - self._since).total_seconds())
