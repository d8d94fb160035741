"""Operators that are careless with their source and their observer."""

import asyncio
import threading
from typing import Any

from reactivex import Observable
from reactivex.abc import DisposableBase
from reactivex.disposable import CompositeDisposable, Disposable

from tests.testing.broken_operators import Scheduler, Sink, Source, Unguarded, operator, passed_on


@operator
def with_a_timer_that_goes_on(source: Source, observer: Sink, scheduler: Scheduler) -> DisposableBase:
    loop = asyncio.get_running_loop()
    ended: list[bool] = []

    def on_next(item: Any) -> None:
        observer.on_next(item)
        loop.call_later(5.0, lambda: None if ended else observer.on_next("still here"))

    def on_completed() -> None:
        ended.append(True)
        observer.on_completed()

    def on_error(error: Exception) -> None:
        ended.append(True)
        observer.on_error(error)

    return passed_on(source, observer, scheduler, on_next=on_next, on_completed=on_completed, on_error=on_error)


@operator
def disposed_but_in_time(source: Source, observer: Sink, scheduler: Scheduler) -> DisposableBase:
    """It only looks at the next item whether it was disposed."""
    disposed: list[bool] = []

    def on_next(item: Any) -> None:
        if disposed:
            subscription.dispose()
        else:
            observer.on_next(item)

    subscription = passed_on(source, observer, scheduler, on_next=on_next)
    return Disposable(lambda: disposed.append(True))


def doubling_without_a_net(source: Source) -> Source:
    def subscribe(observer: Sink, scheduler: Scheduler) -> DisposableBase:
        def on_next(item: Any) -> None:
            observer.on_next(item)
            observer.on_next(item)

        return passed_on(source, observer, scheduler, on_next=on_next)

    return Unguarded(subscribe)


@operator
def complaining_of_late_signals(source: Source, observer: Sink, scheduler: Scheduler) -> DisposableBase:
    disposed: list[bool] = []

    def on_next(item: Any) -> None:
        if disposed:
            raise RuntimeError("nobody is here any more")
        observer.on_next(item)

    passed_on(source, observer, scheduler, on_next=on_next)
    return Disposable(lambda: disposed.append(True))


@operator
def deferring_disposal(source: Source, observer: Sink, scheduler: Scheduler) -> DisposableBase:
    """Lets its source go a second later."""
    subscription = passed_on(source, observer, scheduler)
    loop = asyncio.get_running_loop()

    def dispose() -> None:
        loop.call_later(1.0, subscription.dispose)

    return Disposable(dispose)


def waiting_for_the_loop(source: Source) -> Source:
    def subscribe(observer: Sink, scheduler: Scheduler = None) -> DisposableBase:
        subscription = passed_on(source, observer, scheduler)
        loop, thread = asyncio.get_running_loop(), threading.get_ident()

        def dispose() -> None:
            if threading.get_ident() == thread:
                subscription.dispose()
            else:
                disposed = threading.Event()
                loop.call_soon_threadsafe(subscription.dispose)
                loop.call_soon_threadsafe(disposed.set)
                disposed.wait(10)

        return Disposable(dispose)

    return Observable(subscribe)


def raising_when_disposed_twice(source: Source) -> Source:
    class Once(DisposableBase):
        def __init__(self, subscription: DisposableBase) -> None:
            self._subscription = subscription
            self._is_disposed = False

        def dispose(self) -> None:
            if self._is_disposed:
                raise RuntimeError("disposed already")
            self._is_disposed = True
            self._subscription.dispose()

    def subscribe(observer: Sink, scheduler: Scheduler) -> DisposableBase:
        return Once(source.subscribe(observer, scheduler=scheduler))

    return Unguarded(subscribe)


@operator
def subscribing_twice(source: Source, observer: Sink, scheduler: Scheduler) -> DisposableBase:
    return CompositeDisposable(
        passed_on(source, observer, scheduler), source.subscribe(on_error=lambda _: None, scheduler=scheduler)
    )


@operator
def coming_back_at_the_end(source: Source, observer: Sink, scheduler: Scheduler) -> DisposableBase:
    def on_completed() -> None:
        observer.on_completed()
        source.subscribe(scheduler=scheduler)

    return passed_on(source, observer, scheduler, on_completed=on_completed)


kept: list[Sink] = []


@operator
def keeping_observers(source: Source, observer: Sink, scheduler: Scheduler) -> DisposableBase:
    kept.append(observer)
    return passed_on(source, observer, scheduler)


@operator
def holding_on_in_silence(source: Source, observer: Sink, scheduler: Scheduler) -> DisposableBase:
    """After an hour without an item it believes that nobody is going to dispose it."""
    heard: list[Any] = []
    lost: list[bool] = []

    def on_next(item: Any) -> None:
        heard.append(item)
        observer.on_next(item)

    subscription = passed_on(source, observer, scheduler, on_next=on_next)
    timer = asyncio.get_running_loop().call_later(30.0, lambda: None if heard else lost.append(True))

    def dispose() -> None:
        timer.cancel()
        if not lost:
            subscription.dispose()

    return Disposable(dispose)


@operator
def swallowing_errors_of_observers(source: Source, observer: Sink, scheduler: Scheduler) -> DisposableBase:
    def on_next(item: Any) -> None:
        try:
            observer.on_next(item)
        except Exception:  # noqa: BLE001 - what is wrong with it
            pass

    return passed_on(source, observer, scheduler, on_next=on_next)


@operator
def stuck_after_an_error_of_an_observer(source: Source, observer: Sink, scheduler: Scheduler) -> DisposableBase:
    busy: list[bool] = []

    def on_next(item: Any) -> None:
        busy.append(True)
        observer.on_next(item)
        busy.clear()

    subscription = passed_on(source, observer, scheduler, on_next=on_next)
    return Disposable(lambda: None if busy else subscription.dispose())
