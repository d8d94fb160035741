"""Operators that break one rule each."""

import itertools
import threading
from collections.abc import Callable
from typing import Any, cast

from reactivex import Observable, Observer, operators as ops
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import CompositeDisposable

Source = Observable[Any]
Sink = ObserverBase[Any]
Scheduler = SchedulerBase | None
Operator = Callable[[Source], Source]


def operator(subscribe: Callable[[Source, Sink, Scheduler], DisposableBase]) -> Operator:
    def apply(source: Source) -> Source:
        def subscribe_to_it(observer: Sink, scheduler: Scheduler = None) -> DisposableBase:
            return subscribe(source, observer, scheduler)

        return Observable(subscribe_to_it)

    return apply


def passed_on(
    source: Source,
    observer: Sink,
    scheduler: Scheduler,
    *,
    on_next: Callable[[Any], None] | None = None,
    on_error: Callable[[Exception], None] | None = None,
    on_completed: Callable[[], None] | None = None,
) -> DisposableBase:
    """As it comes, but for what is given."""
    return source.subscribe(
        on_next or observer.on_next,
        on_error or observer.on_error,
        on_completed or observer.on_completed,
        scheduler=scheduler,
    )


def eager(source: Source) -> Source:
    source.subscribe()
    return source


@operator
def ending_twice(source: Source, observer: Sink, scheduler: Scheduler) -> DisposableBase:
    def on_completed() -> None:
        observer.on_completed()
        observer.on_completed()

    return passed_on(source, observer, scheduler, on_completed=on_completed)


@operator
def speaking_after_an_error(source: Source, observer: Sink, scheduler: Scheduler) -> DisposableBase:
    def on_error(error: Exception) -> None:
        observer.on_error(error)
        observer.on_next("more")

    return passed_on(source, observer, scheduler, on_error=on_error)


@operator
def emitting_in_threads(source: Source, observer: Sink, scheduler: Scheduler) -> DisposableBase:
    threads: list[threading.Thread] = []

    def on_next(item: Any) -> None:
        threads.append(threading.Thread(target=observer.on_next, args=(item,)))
        threads[-1].start()

    def on_completed() -> None:
        for thread in threads:
            thread.join()
        observer.on_completed()

    return passed_on(source, observer, scheduler, on_next=on_next, on_completed=on_completed)


class Unguarded(Observable[Any]):
    """Subscribes its observers as they are, without RxPY's safety net."""

    def __init__(self, subscribe_plainly: Callable[[Sink, Scheduler], DisposableBase]) -> None:
        super().__init__(subscribe_plainly)
        self._plainly = subscribe_plainly

    def subscribe(
        self,
        on_next: Any = None,
        on_error: Any = None,
        on_completed: Any = None,
        *,
        scheduler: Scheduler = None,
    ) -> DisposableBase:
        is_observer = isinstance(on_next, ObserverBase)
        given: Sink = cast(Sink, on_next) if is_observer else Observer(on_next, on_error, on_completed)
        return self._plainly(given, scheduler)


def raising_in_subscribe(source: Source) -> Source:
    def subscribe(observer: Sink, scheduler: Scheduler) -> DisposableBase:
        errors: list[Exception] = []
        subscription = source.subscribe(observer.on_next, errors.append, observer.on_completed, scheduler=scheduler)
        if errors:
            raise errors[0]
        return CompositeDisposable(subscription, source.subscribe(on_error=observer.on_error))

    return Unguarded(subscribe)


@operator
def deaf_to_errors_in_subscribe(source: Source, observer: Sink, scheduler: Scheduler) -> DisposableBase:
    begun: list[bool] = []

    def on_error(error: Exception) -> None:
        if begun:
            observer.on_error(error)
        else:
            observer.on_completed()

    subscription = passed_on(source, observer, scheduler, on_error=on_error)
    begun.append(True)
    return subscription


@operator
def replacing_errors(source: Source, observer: Sink, scheduler: Scheduler) -> DisposableBase:
    return passed_on(source, observer, scheduler, on_error=lambda _: observer.on_error(ValueError("another")))


losing_the_rest_with_an_error: Operator = ops.buffer_with_count(4)


@operator
def deaf_while_subscribing(source: Source, observer: Sink, scheduler: Scheduler) -> DisposableBase:
    listens: list[bool] = []
    subscription = passed_on(
        source, observer, scheduler, on_next=lambda item: observer.on_next(item) if listens else None
    )
    listens.append(True)
    return subscription


@operator
def recursive(source: Source, observer: Sink, scheduler: Scheduler) -> DisposableBase:
    items: list[Any] = []

    def emit(at: int) -> None:
        if at < len(items):
            observer.on_next(items[at])
            emit(at + 1)

    def on_completed() -> None:
        emit(0)
        observer.on_completed()

    def on_error(error: Exception) -> None:
        emit(0)
        observer.on_error(error)

    return passed_on(source, observer, scheduler, on_next=items.append, on_completed=on_completed, on_error=on_error)


@operator
def nesting(source: Source, observer: Sink, scheduler: Scheduler) -> DisposableBase:
    """Each item comes one call deeper, as far as that goes."""
    count = itertools.count()

    def deeper(calls: int, item: Any) -> None:
        if calls:
            deeper(calls - 1, item)
        else:
            observer.on_next(item)

    return passed_on(source, observer, scheduler, on_next=lambda item: deeper(min(next(count), 300), item))


@operator
def endless_where_empty(source: Source, observer: Sink, scheduler: Scheduler) -> DisposableBase:
    heard: list[Any] = []

    def on_next(item: Any) -> None:
        heard.append(item)
        observer.on_next(item)

    def on_completed() -> None:
        if heard:
            observer.on_completed()

    return passed_on(source, observer, scheduler, on_next=on_next, on_completed=on_completed)
