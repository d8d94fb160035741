"""Time for operators on an event loop: the loop's own."""

from __future__ import annotations

from datetime import datetime, timedelta

from reactivex.internal.constants import UTC_ZERO
from reactivex.scheduler.eventloop import AsyncIOScheduler


class LoopScheduler(AsyncIOScheduler):
    """RxPY's scheduler for asyncio, but with the loop's time: the wall clock may jump, a virtual one runs apart."""

    @property
    def now(self) -> datetime:
        return UTC_ZERO + timedelta(seconds=self._loop.time())
