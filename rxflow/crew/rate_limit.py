"""At most so many requests a minute."""

from __future__ import annotations

import asyncio
import time
from collections import deque


class RateLimit:
    """Spreads calls so that no 60 seconds hold more than ``per_minute`` of them."""

    def __init__(self, per_minute: int) -> None:
        if per_minute < 1:
            raise ValueError(f"max_rpm must be at least 1 request a minute: {per_minute!r}")
        # The time at which each of the last calls was, or is, allowed to begin.
        self._slots: deque[float] = deque(maxlen=per_minute)

    async def wait(self) -> None:
        """Reserve the next place, and wait until it comes."""
        now = time.monotonic()
        full = len(self._slots) == self._slots.maxlen
        begin = max(now, self._slots[0] + 60) if full else now
        self._slots.append(begin)
        if begin > now:
            await asyncio.sleep(begin - now)
