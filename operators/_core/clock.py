"""The clock of operators that know time: the event loop's, so that they fire on the thread where the source emits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeAlias

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import Disposable
from reactivex.scheduler.eventloop import AsyncIOScheduler

from rxflow.loops import LoopScheduler, running_loop


def clock(given: SchedulerBase | None, subscribed: SchedulerBase | None, operator: str) -> SchedulerBase:
    """The scheduler of one subscription: the operator's own, the subscriber's, or the running loop's.

    Raises:
        RuntimeError: there is none of these.
    """
    return clock_on(running_loop(), given, subscribed, operator)


def clock_on(
    loop: asyncio.AbstractEventLoop | None,
    given: SchedulerBase | None,
    subscribed: SchedulerBase | None,
    operator: str,
) -> SchedulerBase:
    """The same for an operator that needs it later: ``loop`` is the one on which it was subscribed.

    That of a signal may be the source's own, which ends with it.
    """
    chosen = given or _by_loop_time(subscribed)
    if chosen is not None:
        return chosen
    if loop is None:
        raise RuntimeError(
            f"{operator} needs a clock, and no event loop runs here: put it directly after observe() or events(), "
            "subscribe inside a coroutine, or pass scheduler=…"
        )
    return LoopScheduler(loop)


def _by_loop_time(subscribed: SchedulerBase | None) -> SchedulerBase | None:
    """RxPY subscribes with its own scheduler for asyncio where an Observable is awaited: the wall clock's."""
    if type(subscribed) is AsyncIOScheduler:
        return LoopScheduler(subscribed._loop)  # pyright: ignore[reportPrivateUsage]
    return subscribed


TimedSubscription: TypeAlias = Callable[[ObserverBase[Any], SchedulerBase, SchedulerBase | None], DisposableBase]
"""Takes the observer, the clock, and the subscriber's scheduler, which its source gets."""


def timed(operator: str, given: SchedulerBase | None, subscribe: TimedSubscription) -> Observable[Any]:
    """An Observable whose subscriptions have a clock each; it fails where there is none."""

    def subscribe_timed(observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
        try:
            its = clock(given, scheduler, operator)
        except RuntimeError as error:
            observer.on_error(error)
            return Disposable()
        return subscribe(observer, its, scheduler)

    return Observable(subscribe_timed)


def stopwatch(given: SchedulerBase | None, subscribed: SchedulerBase | None) -> Callable[[], float]:
    """Reads the seconds since this call: by a scheduler where there is one, else by the running loop or the machine.

    It sets no timer, so it needs no loop.
    """
    scheduler = given or _by_loop_time(subscribed)
    if scheduler is not None:
        clock_of, begun_at = scheduler, scheduler.now

        def passed() -> float:
            return (clock_of.now - begun_at).total_seconds()

        return passed
    try:
        read = asyncio.get_running_loop().time
    except RuntimeError:
        read = time.monotonic
    begun = read()
    return lambda: read() - begun
