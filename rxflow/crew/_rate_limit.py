"""Requests-per-minute limit."""

from __future__ import annotations

import asyncio
import threading
from collections import deque

# One lock for all limits, because a call takes a slot in several limits at once, and runs in other threads share them.
_lock = threading.Lock()


class RateLimit:
    """Allows at most ``calls`` calls in each ``period`` of seconds."""

    def __init__(self, calls: int, *, period: float = 60.0) -> None:
        if calls < 1:
            raise ValueError(f"max_rpm must be at least 1 request a minute: {calls!r}")
        self.calls = calls
        self._period = period
        self._begun: deque[float] = deque(maxlen=calls)

    async def wait(self) -> None:
        """Wait for a free slot, and take it."""
        await wait_for_all(self)

    def seconds_until_free(self, now: float) -> float:
        """Return the seconds until a slot is free; 0 or less if one is free now."""
        return self._begun[0] + self._period - now if len(self._begun) == self.calls else 0.0

    def take(self, now: float) -> None:
        """Take a slot, because a call begins."""
        self._begun.append(now)


def limit_of(max_rpm: int | None, known: RateLimit | None) -> RateLimit | None:
    """Return the limit for ``max_rpm``.

    If the number has not changed, the result is ``known``, because it remembers the calls so far.
    """
    if max_rpm is None:
        return None
    return known if known is not None and known.calls == max_rpm else RateLimit(max_rpm)


async def wait_for_all(*limits: RateLimit) -> None:
    """Take a slot in each of ``limits``, as soon as all of them have a free one.

    Nothing is reserved: a cancelled wait leaves its slots to others.
    """
    while (delay := _seconds_until_taken(limits)) > 0:  # noqa: ASYNC110 - a clock has no event to wait for
        await asyncio.sleep(delay)


def _seconds_until_taken(limits: tuple[RateLimit, ...]) -> float:
    with _lock:
        now = asyncio.get_running_loop().time()  # may be virtual; the sleep uses the same time
        delay = max((limit.seconds_until_free(now) for limit in limits), default=0.0)
        if delay <= 0:
            for limit in limits:
                limit.take(now)
        return delay
