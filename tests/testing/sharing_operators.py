"""Operators that share between subscriptions what belongs to each."""

import itertools
from typing import Any

from reactivex import Observable, operators as ops
from reactivex.abc import DisposableBase

from tests.testing.broken_operators import Operator, Scheduler, Sink, Source, operator, passed_on


def counting_in_common() -> Operator:
    count = itertools.count()
    return ops.map(lambda _: next(count))


def reset_by_its_end() -> Operator:
    heard: list[Any] = []

    def subscribe(source: Source, observer: Sink, scheduler: Scheduler) -> DisposableBase:
        def on_next(item: Any) -> None:
            heard.append(item)
            observer.on_next(len(heard))

        def on_completed() -> None:
            heard.clear()
            observer.on_completed()

        def on_error(error: Exception) -> None:
            heard.clear()
            observer.on_error(error)

        return passed_on(source, observer, scheduler, on_next=on_next, on_completed=on_completed, on_error=on_error)

    return operator(subscribe)


def reset_by_its_subscription() -> Operator:
    heard: list[Any] = []

    def subscribe(source: Source, observer: Sink, scheduler: Scheduler) -> DisposableBase:
        heard.clear()

        def on_next(item: Any) -> None:
            heard.append(item)
            observer.on_next(len(heard))

        return passed_on(source, observer, scheduler, on_next=on_next)

    return operator(subscribe)


class BoundToItsLastSource:
    def __init__(self) -> None:
        self._count: list[Any] = []

    def __call__(self, source: Source) -> Source:
        self._heard: dict[int, int] = {}
        heard = self._heard

        def subscribe(observer: Sink, scheduler: Scheduler = None) -> DisposableBase:
            key = len(heard)
            heard[key] = 0

            def on_next(item: Any) -> None:
                self._heard[key] = self._heard.get(key, 100) + 1  # of the last stream, whichever this one is
                observer.on_next(self._heard[key])

            return passed_on(source, observer, scheduler, on_next=on_next)

        return Observable(subscribe)


@operator
def keeping_the_scheduler(source: Source, observer: Sink, scheduler: Scheduler) -> DisposableBase:
    return source.subscribe(observer.on_next, observer.on_error, observer.on_completed)
