"""``share_log``: one run, and whoever comes sees all of it."""

import asyncio
import gc
import itertools
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import reactivex as rx
from reactivex import Observable, Subject, operators as rxops
from reactivex.disposable import Disposable
from reactivex.scheduler import EventLoopScheduler
from reactivex.scheduler.eventloop import AsyncIOScheduler
from reactivex.testing import TestScheduler

from rxflow import operators as ops
from rxflow.testing import Marbles, ScriptedLLM, check_operator
from rxflow.types.events import FlowFinished, TaskFinished
from tests.gate import PATIENCE_S, Gate
from tests.scripted import Scripted
from tests.signals import Signals, outcome, signals_of
from tests.team import solo


def shared_anew(on_zero: Any) -> Callable[[Observable[Any]], Observable[Any]]:
    """Each subscription has a share of its own: sharing aside, it keeps to the rules of other operators."""
    return lambda source: rx.defer(lambda _: source.pipe(ops.share_log(on_zero)))


def counted(source: Observable[Any]) -> tuple[Observable[Any], list[str]]:
    """A source, and what is done with it."""
    done: list[str] = []

    def subscribe(observer: Any, scheduler: Any = None) -> Any:
        done.append("subscribed")
        subscription = source.subscribe(observer, scheduler=scheduler)

        def dispose() -> None:
            done.append("disposed")
            subscription.dispose()

        return Disposable(dispose)

    return Observable(subscribe), done


@pytest.mark.parametrize("on_zero", ["cancel", 0])
def test_it_keeps_the_rules(on_zero: Any) -> None:
    check_operator(shared_anew(on_zero))


class TestSubscribers:
    def test_one_that_comes_late_is_given_what_has_been_and_goes_on_live(self, marbles: Marbles) -> None:
        source = marbles.cold("a-b------c|")
        shared = source.pipe(ops.share_log("cancel"))
        first = marbles.expect(shared)
        second = marbles.expect(shared, "----^")
        first.to_be("a-b------c|")
        second.to_be("----(ab)-c|")
        marbles.expect_subscriptions(source).to_be("^---------!")

    def test_one_that_comes_after_the_end_gets_all_of_it_without_a_new_run(self, marbles: Marbles) -> None:
        source = marbles.cold("a-b|")
        shared = source.pipe(ops.share_log("cancel"))
        first = marbles.expect(shared)
        second = marbles.expect(shared, "-----^")
        first.to_be("a-b|")
        second.to_be("-----(ab|)")
        marbles.expect_subscriptions(source).to_be("^--!")

    def test_or_all_of_it_and_the_error(self, marbles: Marbles) -> None:
        shared = marbles.cold("a-b#", error=OSError("gone")).pipe(ops.share_log("cancel"))
        first = marbles.expect(shared)
        second = marbles.expect(shared, "-----^")
        first.to_be("a-b#", error=OSError("gone"))
        second.to_be("-----(ab#)", error=OSError("gone"))

    def test_one_that_leaves_leaves_the_others(self, marbles: Marbles) -> None:
        source = marbles.cold("a-b-c|")
        shared = source.pipe(ops.share_log("cancel"))
        first = marbles.expect(shared, "^-!")
        second = marbles.expect(shared, "-^")
        first.to_be("a-")
        second.to_be("-ab-c|")
        marbles.expect_subscriptions(source).to_be("^----!")

    def test_one_that_has_enough_of_what_has_been_is_given_no_more(self) -> None:
        source: Subject[int] = Subject()
        shared = source.pipe(ops.share_log("cancel"))
        shared.subscribe()
        for number in range(5):
            source.on_next(number)
        looked_at: list[int] = []
        first_two = shared.pipe(rxops.do_action(looked_at.append), rxops.take(2))
        assert signals_of(first_two).items == [0, 1]
        assert looked_at == [0, 1]

    def test_what_one_makes_happen_comes_in_order_to_all(self) -> None:
        source: Subject[str] = Subject()
        shared = source.pipe(ops.share_log("cancel"))
        seen: list[str] = []

        def answer(item: str) -> None:
            seen.append(item)
            if item == "ping":
                source.on_next("pong")
                assert seen == ["ping"]  # not in the midst of it

        other = Signals()
        shared.subscribe(answer)
        other.subscribe_to(shared)
        source.on_next("ping")
        assert (seen, other.items) == (["ping", "pong"], ["ping", "pong"])

    def test_one_that_raises_loses_its_own_subscription_only(self) -> None:
        reports: list[dict[str, Any]] = []

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
            source: Subject[str] = Subject()
            shared = source.pipe(ops.share_log("cancel"))
            calls: list[str] = []

            def raising(item: str) -> None:
                calls.append(item)
                raise ZeroDivisionError("oh")

            other = Signals()
            shared.subscribe(raising)
            other.subscribe_to(shared)
            source.on_next("a")
            source.on_next("b")
            source.on_completed()
            assert (calls, other.items, other.ends) == (["a"], ["a", "b"], ["completed"])

        asyncio.run(main())
        assert [repr(report["exception"]) for report in reports] == ["ZeroDivisionError('oh')"]

    def test_without_a_loop_the_threads_hook_hears_of_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        told: list[threading.ExceptHookArgs] = []
        monkeypatch.setattr(threading, "excepthook", told.append)
        source: Subject[int] = Subject()

        def raising(_: int) -> None:
            raise ZeroDivisionError("oh")

        source.pipe(ops.share_log("cancel")).subscribe(raising)
        source.on_next(1)
        assert [repr(each.exc_value) for each in told] == ["ZeroDivisionError('oh')"]
        assert not source.observers

    def test_one_that_has_left_is_forgotten(self) -> None:
        class Observer(Signals):
            pass

        source: Subject[int] = Subject()
        shared = source.pipe(ops.share_log("detach"))
        observer = Observer()
        subscription = observer.subscribe_to(shared)
        source.on_next(1)
        subscription.dispose()
        forgotten = weakref.ref(observer)
        del observer, subscription
        gc.collect()
        assert forgotten() is None


class TestWhenNobodyIsLeft:
    def test_cancel_disposes_the_source_at_once_and_the_next_starts_anew(self, marbles: Marbles) -> None:
        source = marbles.cold("a-b-c|")
        shared = source.pipe(ops.share_log("cancel"))
        first = marbles.expect(shared, "^-!")
        second = marbles.expect(shared, "---^")
        first.to_be("a-")
        second.to_be("---a-b-c|")
        marbles.expect_subscriptions(source).to_be("^-!", "---^----!")

    def test_detach_lets_it_run_on_for_whoever_comes(self, marbles: Marbles) -> None:
        source = marbles.cold("a-b-c|")
        shared = source.pipe(ops.share_log("detach"))
        first = marbles.expect(shared, "^!")
        second = marbles.expect(shared, "------^")
        first.to_be("a")
        second.to_be("------(abc|)")
        marbles.expect_subscriptions(source).to_be("^----!")

    def test_seconds_are_waited_for_a_new_one(self, marbles: Marbles) -> None:
        source = marbles.cold("a-b-------c-d|")
        shared = source.pipe(ops.share_log(0.005))
        first = marbles.expect(shared, "^!")
        second = marbles.expect(shared, "----^")
        first.to_be("a")
        second.to_be("----(ab)--c-d|")
        marbles.expect_subscriptions(source).to_be("^------------!")

    def test_then_it_is_cancelled(self, marbles: Marbles) -> None:
        source = marbles.cold("a-b-------c-d|")
        shared = source.pipe(ops.share_log(0.005))
        first = marbles.expect(shared, "^!")
        second = marbles.expect(shared, "--------^")
        first.to_be("a")
        second.to_be("--------a-b-------c-d|")
        marbles.expect_subscriptions(source).to_be("^-----!", "--------^------------!")

    def test_each_absence_is_waited_for_in_full(self, marbles: Marbles) -> None:
        source = marbles.cold("a 20ms |")
        shared = source.pipe(ops.share_log(0.005))
        first = marbles.expect(shared, "^!")
        second = marbles.expect(shared, "----^!")
        third = marbles.expect(shared, "---------^!")
        first.to_be("a")
        second.to_be("----a")
        third.to_be("---------a")
        marbles.expect_subscriptions(source).to_be("^--------------!")

    def test_a_run_that_ends_meanwhile_is_kept(self, marbles: Marbles) -> None:
        shared = marbles.cold("a-b|").pipe(ops.share_log(0.005))
        first = marbles.expect(shared, "^!")
        second = marbles.expect(shared, "------------^")
        first.to_be("a")
        second.to_be("------------(ab|)")

    def test_a_given_scheduler_counts_the_seconds(self) -> None:
        scheduler = TestScheduler()
        source: Subject[int] = Subject()
        shared = source.pipe(ops.share_log(10, scheduler=scheduler))
        shared.subscribe().dispose()
        scheduler.advance_by(9.9)
        assert source.observers
        scheduler.advance_by(0.2)
        assert not source.observers

    def test_without_a_loop_a_timer_thread_does(self) -> None:
        gone = Gate()
        threads: list[threading.Thread] = []

        def note() -> None:
            threads.append(threading.current_thread())
            gone.open()

        rx.never().pipe(rxops.finally_action(note), ops.share_log(0.01)).subscribe().dispose()
        gone.wait()
        assert threads != [threading.current_thread()]

    def test_the_last_may_leave_in_another_thread_than_the_sources(self) -> None:
        async def main() -> None:
            gone = Gate()
            threads: list[threading.Thread] = []

            def note() -> None:
                threads.append(threading.current_thread())
                gone.open()

            source = rx.never().pipe(rxops.finally_action(note))
            subscription = source.pipe(ops.share_log(0.01)).subscribe()
            await asyncio.to_thread(subscription.dispose)
            await asyncio.wait_for(gone.passed(), PATIENCE_S)
            assert threads == [threading.current_thread()]  # it was waited for on the loop of the source

        asyncio.run(main())

    def test_the_last_may_leave_in_another_thread_than_that_of_a_given_loop(self) -> None:
        async def main() -> None:
            loop, gone = asyncio.get_running_loop(), asyncio.Event()
            loop.set_debug(True)  # asyncio then refuses timers of other threads that would not wake the loop
            scheduler = AsyncIOScheduler(loop)
            source = rx.never().pipe(rxops.finally_action(gone.set))
            subscription = source.pipe(ops.share_log(0.001, scheduler=scheduler)).subscribe()
            await asyncio.to_thread(subscription.dispose)
            await asyncio.wait_for(gone.wait(), PATIENCE_S)

        asyncio.run(main())

    def test_where_a_given_loop_has_ended_nothing_is_waited_for(self) -> None:
        loop = asyncio.new_event_loop()
        loop.close()
        source, done = counted(rx.never())
        source.pipe(ops.share_log(1, scheduler=AsyncIOScheduler(loop))).subscribe().dispose()
        assert done == ["subscribed", "disposed"]

    def test_where_the_sources_loop_has_ended_nothing_is_waited_for(self) -> None:
        source: Subject[int] = Subject()

        async def main() -> Any:
            return source.pipe(ops.share_log(60)).subscribe()

        asyncio.run(main()).dispose()
        assert not source.observers


class TestThreads:
    def test_subscribers_of_many_threads_see_each_item_once_and_in_order(self) -> None:
        source: Subject[int] = Subject()
        shared = source.pipe(ops.share_log("cancel"))
        keeps_it_running = Signals()
        keeps_it_running.subscribe_to(shared)
        go = threading.Barrier(9)
        seen = [Signals() for _ in range(8)]

        def subscribe(signals: Signals) -> None:
            go.wait()
            signals.until_ended(shared)

        threads = [threading.Thread(target=subscribe, args=(signals,)) for signals in seen]
        for thread in threads:
            thread.start()
        go.wait()
        for number in range(20_000):
            source.on_next(number)
        source.on_completed()
        for thread in threads:
            thread.join()
        for signals in [*seen, keeps_it_running]:
            assert signals.items == list(range(20_000))
            assert signals.ends == ["completed"]

    def test_the_first_may_come_in_several_threads_at_once(self) -> None:
        for _ in range(50):
            source, done = counted(rx.never())
            shared = source.pipe(ops.share_log("cancel"))
            go = threading.Barrier(4)
            subscriptions: list[Any] = []

            def subscribe(shared: Any = shared, go: threading.Barrier = go, to: list[Any] = subscriptions) -> None:
                go.wait()
                to.append(shared.subscribe())

            threads = [threading.Thread(target=subscribe) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert done == ["subscribed"]
            for subscription in subscriptions:
                subscription.dispose()
            assert done == ["subscribed", "disposed"]

    def test_one_that_is_slow_with_what_has_been_does_not_hold_up_the_others(self) -> None:
        source: Subject[int] = Subject()
        shared = source.pipe(ops.share_log("cancel"))
        quick = Signals()
        quick.subscribe_to(shared)
        source.on_next(0)
        inside, go_on = Gate(), Gate()
        slow = Signals()

        def hesitate(item: int) -> None:
            if item == 0:
                inside.open()
                go_on.wait()

        thread = threading.Thread(target=lambda: slow.until_ended(shared.pipe(rxops.do_action(hesitate))))
        thread.start()
        inside.wait()
        source.on_next(1)
        source.on_completed()
        assert (quick.items, quick.ends) == ([0, 1], ["completed"])
        go_on.open()
        thread.join()
        assert (slow.items, slow.ends) == ([0, 1], ["completed"])

    def test_one_that_is_slow_live_is_helped_by_overflow(self) -> None:
        source: Subject[int] = Subject()
        shared = source.pipe(ops.share_log("cancel"))
        go_on = Gate()
        slow, quick = Signals(), Signals()
        thread = EventLoopScheduler()
        slow.subscribe_to(
            shared.pipe(ops.overflow(10, "error", scheduler=thread), rxops.do_action(lambda _: go_on.wait()))
        )
        quick.subscribe_to(shared)
        for number in range(5):
            source.on_next(number)
        source.on_completed()
        assert quick.items == list(range(5))
        go_on.open()
        slow.ended.wait()
        assert slow.items == list(range(5))
        thread.dispose()


class TestRuns:
    def test_readers_of_one_run_share_its_requests(self, marbles: Marbles) -> None:
        llm = ScriptedLLM("he-ll-o|")
        shared = llm.observe("Hello").pipe(ops.share_log("cancel"))
        first = marbles.expect(shared)
        second = marbles.expect(shared.pipe(ops.words()), "-^")
        first.to_say("he-ll-o|")
        second.to_be("-------(a|)", {"a": "hello"})

    def test_the_last_to_leave_cancels_the_call(self, marbles: Marbles) -> None:
        llm = ScriptedLLM("he-ll-o|")
        shared = llm.observe("Hello").pipe(ops.share_log("cancel"))
        marbles.expect(shared.pipe(rxops.take(1))).to_be("(a|)", {"a": "he"})
        assert [call.cancelled_at for call in llm.calls] == [0]

    def test_events_are_shared_with_all_that_they_tell(self) -> None:
        shared = solo(Scripted("one two")).events().pipe(ops.share_log("cancel"))
        one, other = outcome(shared), outcome(shared)
        assert one.events == other.events
        assert one.one(TaskFinished).result.raw == "one two"
        assert not one.of(FlowFinished)


@pytest.mark.parametrize("on_zero", [None, [1], True])
def test_it_is_a_word_or_a_time(on_zero: Any) -> None:
    with pytest.raises(
        TypeError, match=r'^share_log\(on_zero\) must be "cancel", "detach" or a time .*; got .*(None|1|True)'
    ):
        ops.share_log(on_zero)


@pytest.mark.parametrize("on_zero", ["stop", "5", -1, float("nan")])
def test_what_happens_with_nobody_left_is_said_in_words_it_knows(on_zero: Any) -> None:
    with pytest.raises(ValueError, match=r"on_zero\).*(stop|5|-1|nan)"):
        ops.share_log(on_zero)


def test_order_holds_however_threads_take_turns() -> None:
    """Subscribers come while items do: of many tries, each way to fall between the two has its turn."""
    for _ in range(200):
        source: Subject[int] = Subject()
        shared = source.pipe(ops.share_log("detach"))
        shared.subscribe()
        late = Signals()
        thread = threading.Thread(target=late.until_ended, args=(shared,))
        numbers = itertools.count()
        thread.start()
        for _ in range(20):
            source.on_next(next(numbers))
        source.on_completed()
        thread.join()
        assert late.items == list(range(20))
        assert late.ends == ["completed"]
