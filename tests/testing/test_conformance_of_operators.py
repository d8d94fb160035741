"""``check_operator`` lets good operators pass, and says of each broken one what it breaks."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import reactivex as rx
from reactivex import Observable, operators as ops
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.scheduler import CurrentThreadScheduler

from rxflow.testing import ConformanceError, check_operator
from rxflow.testing._conformance import check, harness
from tests.testing import broken_operators as broken, careless_operators as careless, sharing_operators as sharing

pytestmark = pytest.mark.slow


def spoken(text: str) -> bool:
    return "o" in text


def counted(count: int, text: str) -> int:
    return count + 1


def longer(one: str, other: str) -> str:
    return one if len(one) > len(other) else other


def twice(text: str) -> Observable[str]:
    return rx.of(text, text)


def numbered(text: str, index: int) -> int:
    return index


LOSSLESS: dict[str, Callable[[Observable[str]], Observable[Any]]] = {
    "map": ops.map(str.upper),
    "filter": ops.filter(spoken),
    "take": ops.take(2),
    "skip": ops.skip(2),
    "scan": ops.scan(counted, 0),
    "pairwise": ops.pairwise(),
    "distinct_until_changed": ops.distinct_until_changed(),
    "do_action": ops.do_action(lambda _: None),
    "start_with": ops.start_with("Well. "),
    "throttle_first": ops.throttle_first(0.5),
    "timeout": ops.timeout(5.0),
    "as_observable": ops.as_observable(),
}
HOLDING: dict[str, Callable[[Observable[str]], Observable[Any]]] = {
    "debounce": ops.debounce(0.5),
    "delay": ops.delay(0.5),
    "buffer_with_count": ops.buffer_with_count(2),
    "reduce": ops.reduce(longer),
    "last": ops.last_or_default(),
    "flat_map": ops.flat_map(twice),
}


class TestGoodOnesPass:
    @pytest.mark.parametrize("operator", LOSSLESS.values(), ids=LOSSLESS)
    def test_that_lose_nothing(self, operator: broken.Operator) -> None:
        check_operator(operator)

    @pytest.mark.parametrize("operator", HOLDING.values(), ids=HOLDING)
    def test_that_hold_back(self, operator: broken.Operator) -> None:
        check_operator(operator, holds_back=True)

    def test_that_emit_while_they_are_subscribed(self) -> None:
        def greet(source: Observable[str]) -> Observable[str]:
            def subscribe(observer: ObserverBase[str], scheduler: SchedulerBase | None = None) -> DisposableBase:
                observer.on_next("hello")
                return source.subscribe(observer, scheduler=scheduler)

            return Observable(subscribe)

        check_operator(greet)

    def test_that_recover(self) -> None:
        check_operator(ops.catch(lambda error, source: rx.of("instead")), recovers=True)

    def test_that_subscribe_anew(self) -> None:
        check_operator(ops.retry(2), recovers=True, resubscribes=True)
        check_operator(ops.repeat(2), resubscribes=True)

    def test_that_choose_a_scheduler(self) -> None:
        check_operator(ops.subscribe_on(CurrentThreadScheduler()), own_scheduler=True)

    def test_with_items_and_a_key(self) -> None:
        check_operator(ops.timestamp(), items=[1, 2, 3], key=lambda item: item.value)

    def test_that_cut_anew_with_each_run(self) -> None:
        runs = itertools.count()

        def cut(source: Observable[str]) -> Observable[str]:
            def of_one_run(scheduler: Any) -> Observable[str]:
                at = next(runs) % 4

                def halves(text: str) -> Observable[str]:
                    return rx.of(text[:at], text[at:])

                return source.pipe(ops.concat_map(halves))

            return rx.defer(of_one_run)

        with pytest.raises(ConformanceError, match="one subscription after another gives the same"):
            check_operator(cut, holds_back=True)
        check_operator(cut, holds_back=True, whole="".join)


ONE_END = "exactly one end, and nothing after it"
FAILING = "subscribe returns, and an error in it becomes on_error"
ERRORS = "an error of the source is passed on, after the items before it"
MANY = "10,000 items at once cause no recursion"
STOPS = "signals stop with the disposal, even if the source continues"
ELSEWHERE = "disposing is quick and idempotent, from any thread, and never raises"
SOURCE_TOO = "disposing also disposes the source, at once"
ENOUGH = "the source is disposed as soon as downstream has enough"
ONCE = "the source is subscribed once, and disposed at the end"
RAISING = "an observer's error is reported, and the source does not stay subscribed forever"

BROKEN: dict[str, tuple[broken.Operator, str, str]] = {
    "eager": (broken.eager, "nothing starts before the subscription", "subscribed the source already"),
    "ending twice": (broken.ending_twice, ONE_END, r"after its end came on_completed\(\)"),
    "speaking after an error": (broken.speaking_after_an_error, ONE_END, r"after its end came on_next\('more'\)"),
    "emitting in threads": (broken.emitting_in_threads, "signals are serial", "came from another thread inside"),
    "raising in subscribe": (broken.raising_in_subscribe, FAILING, "subscribe raised Failure"),
    "deaf to errors in subscribe": (broken.deaf_to_errors_in_subscribe, FAILING, "the operator emitted .*completed"),
    "replacing errors": (broken.replacing_errors, ERRORS, r"the operator emitted .*ValueError\('another'\)"),
    "losing the rest": (broken.losing_the_rest_with_an_error, ERRORS, "holds_back=True"),
    "deaf while subscribing": (
        broken.deaf_while_subscribing,
        "a source that emits while it is subscribed gives the same as one that emits later",
        r"at once: \[\], then completed",
    ),
    "recursive": (broken.recursive, MANY, "ended with RecursionError"),
    "nesting": (broken.nesting, MANY, "calls deep, and a later one"),
    "with a timer that goes on": (careless.with_a_timer_that_goes_on, STOPS, r"3 signal\(s\) came after the disposal"),
    "complaining of late signals": (careless.complaining_of_late_signals, STOPS, "got RuntimeError"),
    "doubling without a net": (
        careless.doubling_without_a_net,
        "no signal follows after the observer has disposed during a signal",
        "disposed during an item",
    ),
    "disposed but in time": (careless.disposed_but_in_time, SOURCE_TOO, "its source was not"),
    "deferring disposal": (careless.deferring_disposal, ENOUGH, "the source stayed subscribed"),
    "endless where empty": (broken.endless_where_empty, "an empty source leads to an end", "no end came"),
    "waiting for the loop": (careless.waiting_for_the_loop, ELSEWHERE, "took longer than"),
    "raising when disposed twice": (careless.raising_when_disposed_twice, ELSEWHERE, "dispose.. raised RuntimeError"),
    "keeping observers": (
        careless.keeping_observers,
        "an ended or disposed stream keeps no reference to its observer",
        "once disposed, it still holds",
    ),
    "subscribing twice": (careless.subscribing_twice, ONCE, "subscribed its source 2×"),
    "coming back at the end": (careless.coming_back_at_the_end, ONCE, "subscribed its source 2×"),
    "holding on in silence": (
        careless.holding_on_in_silence,
        "a source that never emits can be disposed",
        "its source was not",
    ),
    "swallowing errors of observers": (careless.swallowing_errors_of_observers, RAISING, "got the error"),
    "stuck after an error of an observer": (careless.stuck_after_an_error_of_an_observer, RAISING, "did not dispose"),
    "counting in common": (
        sharing.counting_in_common(),
        "one subscription after another gives the same",
        r"the first subscription gave \[.*\], and the second",
    ),
    "reset by its end": (
        sharing.reset_by_its_end(),
        "a disposed subscription leaves nothing to the next",
        "one after another was disposed",
    ),
    "reset by its subscription": (
        sharing.reset_by_its_subscription(),
        "subscriptions to the same stream, at the same time, share nothing",
        "one beside another",
    ),
    "bound to its last source": (
        sharing.BoundToItsLastSource(),
        "two streams through the same operator object share nothing",
        "one beside another",
    ),
    "keeping the scheduler": (
        sharing.keeping_the_scheduler,
        "the scheduler of the subscription is handed on to the source",
        "own_scheduler=True",
    ),
}


class TestBrokenOnesDoNot:
    @pytest.fixture(autouse=True)
    def no_patience(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(harness, "SIGNAL_TIMEOUT_S", 0.1)
        monkeypatch.setattr(harness, "DISPOSAL_LIMIT_S", 0.05)

    @pytest.mark.parametrize(("operator", "named", "seen"), BROKEN.values(), ids=BROKEN)
    def test_the_rule_is_named(
        self, operator: broken.Operator, named: str, seen: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(ConformanceError):
            check_operator(operator)
        # Whoever breaks one rule may break others too, which are tried before it.
        monkeypatch.setattr(check, "OPERATOR_RULES", [each for each in check.OPERATOR_RULES if each.name == named])
        with pytest.raises(ConformanceError, match=seen) as caught:
            check_operator(operator)
        assert caught.value.rule == named
        assert named in str(caught.value)

    def test_what_makes_trying_impossible_is_said(self) -> None:
        with pytest.raises(ConformanceError, match="has not subscribed its source, so it cannot be checked"):
            check_operator(ops.take(0))

    def test_every_rule_has_one_that_breaks_it(self) -> None:
        rules = {each.name for each in check.OPERATOR_RULES}
        assert rules - {named for _, named, _ in BROKEN.values()} == set()

    def test_rxpy_too_where_it_does_not_obey(self) -> None:
        with pytest.raises(ConformanceError, match="the operator of RxPY breaks"):
            check_operator(ops.map_indexed(numbered))
        with pytest.raises(ConformanceError):
            check_operator(ops.share())


class TestUse:
    def test_items_are_needed(self) -> None:
        with pytest.raises(ValueError, match="items is empty"):
            check_operator(ops.map(str), items=[])

    def test_it_brings_its_own_loop(self) -> None:
        async def main() -> None:
            check_operator(ops.as_observable())

        with pytest.raises(RuntimeError, match="uses its own event loop"):
            asyncio.run(main())

    def test_errors_that_nobody_handles_are_said(self) -> None:
        @broken.operator
        def reporting(source: broken.Source, observer: broken.Sink, scheduler: broken.Scheduler) -> Any:
            asyncio.get_running_loop().call_soon(lambda: 1 / 0)
            return broken.passed_on(source, observer, scheduler)

        with pytest.raises(ConformanceError, match=r"nobody handled an error: .*ZeroDivisionError"):
            check_operator(reporting)
