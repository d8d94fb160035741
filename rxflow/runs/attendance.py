"""Counts the readers of a run, for runs that are cancelled when nobody reads them."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable


class Attendance:
    """Counts the readers of a run, and calls ``on_absence`` when the run has had no reader for ``grace_s`` seconds.

    Each reader announces for how long it counts as present, and announces itself again before that time is over.

    If ``grace_s`` is above 0, ``on_absence`` is also called for a run that never has a reader, ``grace_s`` seconds
    after the run begins. If ``grace_s`` is 0, ``on_absence`` is called as soon as the last reader leaves, but not for a
    run that never has a reader.
    """

    def __init__(self, grace_s: float, on_absence: Callable[[], None]) -> None:
        self._grace_s = grace_s
        self._on_absence = on_absence
        self._lock = threading.Lock()
        self._until: dict[str, float] = {}
        self._due = math.inf
        self._timer: threading.Timer | None = None
        self._timer_due = math.inf
        if grace_s:
            self._wait_until(time.monotonic() + grace_s)

    def note(self, reader: str, seconds: float) -> None:
        """Record that a reader is present for ``seconds`` from now; if ``seconds`` is 0, that the reader has left."""
        now = time.monotonic()
        with self._lock:
            if seconds > 0:
                self._until[reader] = now + seconds
            else:
                self._until.pop(reader, None)
            # Drop readers that have vanished. The run may have had other readers since then.
            self._until = {each: until for each, until in self._until.items() if until > now}
            due = max(self._until.values(), default=now) + self._grace_s
            if due > now:
                self._wait_until(due)
        if due <= now:
            self._on_absence()

    def close(self) -> None:
        """Stop counting, because the run is over."""
        with self._lock:
            self._due = math.inf
            if self._timer is not None:
                self._timer.cancel()

    def _wait_until(self, due: float) -> None:
        """Make sure that a timer fires at ``due`` or earlier.

        If a timer is already set for an earlier time, that timer is kept. When it fires, :meth:`_look` sets a new one.
        Each timer is a thread, so keeping a timer saves a thread.
        """
        self._due = due
        if due < self._timer_due:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_due = due
            self._timer = threading.Timer(due - time.monotonic(), self._look, args=[due])
            self._timer.daemon = True
            self._timer.start()

    def _look(self, due: float) -> None:
        """Call ``on_absence`` if the run has had no reader for ``grace_s`` seconds.

        Otherwise set the next timer, unless :meth:`close` was called. This method runs in the timer's thread.
        """
        with self._lock:
            if due != self._timer_due:
                return  # a newer timer has replaced this one
            self._timer_due = math.inf
            is_absent = self._due <= due
            if not is_absent and self._due < math.inf:
                self._wait_until(self._due)
        if is_absent:
            self._on_absence()
