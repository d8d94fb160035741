"""The clock of operators that know time: the event loop's, so that they fire on the thread where the source emits."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from reactivex.abc import SchedulerBase
from reactivex.internal.constants import UTC_ZERO
from reactivex.scheduler.eventloop import AsyncIOScheduler


class LoopScheduler(AsyncIOScheduler):
    """RxPY's scheduler for asyncio, but with the loop's time: the wall clock may jump, a virtual one runs apart."""

    @property
    def now(self) -> datetime:
        return UTC_ZERO + timedelta(seconds=self._loop.time())


def clock(given: SchedulerBase | None, subscribed: SchedulerBase | None, operator: str) -> SchedulerBase:
    """The scheduler of one subscription: the operator's own, the subscriber's, or the running loop's.

    Raises:
        RuntimeError: there is none of these.
    """
    chosen = given or subscribed
    if chosen is not None:
        return chosen
    try:
        return LoopScheduler(asyncio.get_running_loop())
    except RuntimeError:
        raise RuntimeError(
            f"{operator} needs a clock, and no event loop runs here: put it directly after observe() or events(), "
            "subscribe inside a coroutine, or pass scheduler=…"
        ) from None
