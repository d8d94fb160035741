"""A probe changes nothing, and knows what went on."""

from typing import assert_type

import pytest
import reactivex as rx
from reactivex import Observable, operators as ops
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import Disposable
from reactivex.scheduler import CurrentThreadScheduler
from reactivex.subject import Subject

from rxflow.testing._probes import Probe, probe
from rxflow.testing.leaks import collecting
from tests.signals import Signals


def test_passes_all_on_and_counts_it() -> None:
    seen = probe()
    told = Signals()
    told.subscribe_to(rx.of(1, 2).pipe(seen))
    assert (told.items, told.ends) == ([1, 2], ["completed"])
    assert (seen.subscribed, seen.completed, seen.failed, seen.cancelled, seen.leaked) == (1, 1, 0, 0, 0)
    assert seen.items == [1, 2]


def test_counts_errors() -> None:
    seen, told = probe(), Signals()
    error = ValueError("no")
    told.subscribe_to(rx.throw(error).pipe(seen))
    assert told.errors == [error]
    assert (seen.failed, seen.errors, seen.completed) == (1, [error], 0)


def test_counts_disposals_before_the_end_only() -> None:
    seen: Probe = probe()
    source: Subject[int] = Subject()
    subscription = source.pipe(seen).subscribe()
    subscription.dispose()
    subscription.dispose()
    source.on_next(1)
    ended = rx.of(1).pipe(seen).subscribe()
    ended.dispose()
    assert (seen.subscribed, seen.cancelled, seen.completed, seen.items) == (2, 1, 1, [1])


def test_downstream_that_has_enough_cancels() -> None:
    seen = probe()
    source: Subject[int] = Subject()
    source.pipe(seen, ops.take(1)).subscribe()
    source.on_next(1)
    seen.assert_cancelled(1)
    seen.assert_not_leaked()


def test_what_neither_ended_nor_was_disposed_is_leaked() -> None:
    with collecting() as dues:
        seen = probe("the tail")
        source: Subject[int] = Subject()
        subscriptions = [source.pipe(seen).subscribe() for _ in range(2)]
    assert len(list(dues.complaints("fixtures"))) == 1
    assert seen.leaked == 2
    with pytest.raises(AssertionError, match=r"2 of the subscriptions through the tail \(subscribed 2,.*neither"):
        seen.assert_not_leaked()
    subscriptions[0].dispose()
    source.on_completed()
    assert seen.complaint() is None


def test_the_scheduler_is_handed_on() -> None:
    given: list[SchedulerBase | None] = []

    def subscribe(observer: ObserverBase[int], scheduler: SchedulerBase | None = None) -> DisposableBase:
        given.append(scheduler)
        return Disposable()

    scheduler = CurrentThreadScheduler()
    with collecting():
        rx.create(subscribe).pipe(probe()).subscribe(scheduler=scheduler)
    assert given == [scheduler]


class TestMessages:
    def test_say_what_was_seen(self) -> None:
        seen = probe()
        with pytest.raises(
            AssertionError, match=r"should be subscribed at least once, and was 0×: probe \(subscribed 0"
        ):
            seen.assert_subscribed()
        rx.of(1).pipe(seen).subscribe()
        with pytest.raises(AssertionError, match="should be cancelled at least once, and was 0×"):
            seen.assert_cancelled()
        with pytest.raises(AssertionError, match="should be completed exactly 2×, and was 1×"):
            seen.assert_completed(2)
        with pytest.raises(AssertionError, match="should be subscribed never, and was 1×"):
            seen.assert_not_subscribed()
        seen.assert_completed()
        seen.assert_not_cancelled()
        seen.assert_subscribed(1)

    def test_name_the_errors(self) -> None:
        seen = probe()
        rx.throw(ValueError("no")).pipe(seen).subscribe(on_error=lambda _: None)
        seen.assert_failed(1)
        with pytest.raises(AssertionError, match=r"errors: \[ValueError\('no'\)\]"):
            seen.assert_completed()


def test_types_go_through_a_pipe() -> None:
    seen = probe()
    assert_type(rx.of(1).pipe(seen), Observable[int])
    assert_type(rx.of("a").pipe(ops.take(1), probe(), ops.take(1)), Observable[str])
