"""How operators meet a run: they become a part of it, and see what is behind the chunks."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
import reactivex as rx
from reactivex import Observable, Subject, operators as rxops
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import CompositeDisposable, RefCountDisposable, SingleAssignmentDisposable
from reactivex.scheduler.eventloop import AsyncIOScheduler, AsyncIOThreadSafeScheduler

from rxflow import Flow, operators as ops
from rxflow._loops import LoopScheduler
from rxflow.flow import listen, start
from rxflow.operators._core.in_run import also, only, select, through
from rxflow.operators._core.lanes import divide
from rxflow.operators._core.timing import find_clock
from rxflow.types import Lane
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import Event, Heartbeat, LLMFinished, TaskFinished, TaskStarted
from tests.gate import PATIENCE_S
from tests.scripted import Scripted
from tests.signals import outcome, signals_of
from tests.team import a_crew, a_task, an_agent, crew_saying


def two_tasks(first: str = "one two", second: str = "three four") -> Any:
    agent = an_agent(Scripted(first, second))
    return a_crew(a_task(agent, name="first"), a_task(agent, name="second"))


def watched(seen: list[Any]) -> Callable[[Observable[Any]], Observable[Any]]:
    """An operator that notes what passes and in which thread."""

    def operator(source: Observable[Any]) -> Observable[Any]:
        def subscribe(observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
            seen.append(threading.current_thread().name)
            return source.pipe(rxops.do_action(seen.append)).subscribe(observer, scheduler=scheduler)

        return Observable(subscribe)

    return operator


class TestThrough:
    def test_an_operator_sees_the_events_behind_the_chunks(self) -> None:
        seen: list[Any] = []
        shown = signals_of(two_tasks().observe().pipe(through(watched(seen))))
        assert all(isinstance(item, StreamChunk) for item in shown.items)
        assert sum(isinstance(item, LLMFinished) for item in seen) == 2

    def test_it_works_on_the_runs_own_thread(self) -> None:
        seen: list[Any] = []
        signals_of(two_tasks().observe().pipe(through(watched(seen))))
        assert seen[0] == "rxflow run"

    def test_the_last_word_of_a_task_comes_before_the_next_task(self) -> None:
        shown = signals_of(two_tasks().observe().pipe(ops.words()))
        assert [(chunk.task_name, chunk.content) for chunk in shown.items] == [
            ("first", "one"),
            ("first", " two"),
            ("second", "three"),
            ("second", " four"),
        ]

    def test_operators_stand_in_the_order_in_which_they_were_written(self) -> None:
        order: list[Any] = []

        def note(name: str) -> Callable[[Any], Any]:
            return through(lambda source: source.pipe(rxops.do_action(lambda item: order.append((name, type(item))))))

        signals_of(two_tasks().observe().pipe(note("a"), note("b")))
        assert order[0::2] == [("a", kind) for _, kind in order[1::2]]

    def test_each_subscription_is_a_run_with_a_state_of_its_own(self) -> None:
        class Counting(Flow):
            @start()
            def count(self) -> int:
                self.state["n"] = self.state.get("n", 0) + 1
                return int(self.state["n"])

            @listen(count)
            def say(self, n: int) -> Observable[str]:
                return rx.of(str(n))

        def twice(source: Observable[Any]) -> Observable[Any]:
            return rx.concat(source, source)

        observed = Counting().observe().pipe(through(twice))
        assert [chunk.content for chunk in signals_of(observed).items] == ["1", "1"]

    def test_around_any_other_observable_it_is_just_applied(self) -> None:
        assert signals_of(rx.of("a", "b c").pipe(ops.words())).items == ["ab", " c"]

    def test_what_an_operator_calls_belongs_to_the_place_of_the_subscription(self) -> None:
        """A run that begins in an operator's callback is no part of the leaf that happens to emit."""
        inner = crew_saying("inner", name="other")

        def begin_another(chunk: StreamChunk) -> Observable[StreamChunk]:
            return inner.observe() if chunk.task_name == "first" else rx.of(chunk)

        shown = signals_of(two_tasks("one", "two").observe().pipe(through(expand(begin_another))))
        assert sorted((chunk.content, chunk.namespace[0]) for chunk in shown.items) == [
            ("inner", "other"),
            ("two", "crew"),
        ]


def expand(make: Callable[[StreamChunk], Observable[StreamChunk]]) -> Callable[[Observable[Any]], Observable[Any]]:
    return rxops.flat_map(lambda item: make(item) if isinstance(item, StreamChunk) else rx.of(item))


class TestSelect:
    def test_a_selection_looks_at_the_events_whatever_was_selected_before(self) -> None:
        finished = select(only(lambda event: isinstance(event, TaskFinished)))
        shown = signals_of(two_tasks().observe().pipe(ops.text(), finished))
        assert [event.origin.task_name for event in shown.items] == ["first", "second"]

    def test_other_events_can_be_let_through_it(self) -> None:
        shown = signals_of(two_tasks("one", "two").observe().pipe(also(TaskStarted)))
        assert list(map(type, shown.items)) == [TaskStarted, StreamChunk, TaskStarted, StreamChunk]

    def test_they_keep_the_error_and_its_place(self) -> None:
        failing = a_crew(a_task(an_agent(Scripted(ValueError("no"))), name="first"))
        shown = signals_of(failing.observe().pipe(also(TaskStarted)))
        assert [type(item) for item in shown.items] == [TaskStarted]
        assert shown.ends == [repr(ValueError("no"))]

    def test_a_stream_of_plain_items_has_no_others(self) -> None:
        assert signals_of(rx.of("a").pipe(also(Heartbeat))).items == ["a"]

    def test_a_selection_from_shared_events_remembers_them_too(self) -> None:
        shared = two_tasks().events().pipe(ops.share_log("cancel"))
        shown = signals_of(shared.pipe(ops.text(), ops.words()))
        assert [str(chunk) for chunk in shown.items] == ["one", " two", "three", " four"]


class TestDivide:
    def test_lanes_hold_what_was_selected(self) -> None:
        shown = signals_of(two_tasks("one", "two").observe().pipe(divide(in_one_lane), rxops.merge_all()))
        assert [str(chunk) for chunk in shown.items] == ["one", "two"]

    def test_a_lane_is_read_on_when_nobody_waits_for_further_lanes(self) -> None:
        first_lane = two_tasks("one", "two").observe().pipe(divide(in_one_lane), rxops.take(1), rxops.merge_all())
        assert [str(chunk) for chunk in signals_of(first_lane).items] == ["one", "two"]


def in_one_lane(events: Observable[Event]) -> Observable[Lane[Event]]:
    def subscribe(observer: ObserverBase[Lane[Event]], scheduler: SchedulerBase | None = None) -> DisposableBase:
        lane: Subject[Event] = Subject()
        running = SingleAssignmentDisposable()
        counted = RefCountDisposable(running)

        def read(reader: ObserverBase[Event], scheduler: SchedulerBase | None = None) -> DisposableBase:
            return CompositeDisposable(lane.subscribe(reader), counted.disposable)

        def on_completed() -> None:
            lane.on_completed()
            observer.on_completed()

        observer.on_next(Lane("everything", Observable(read)))
        running.disposable = events.subscribe(lane.on_next, lane.on_error, on_completed, scheduler=scheduler)
        return counted

    return Observable(subscribe)


class TestClock:
    def test_the_operators_own_scheduler_comes_first(self) -> None:
        async def main() -> None:
            mine, given = (LoopScheduler(asyncio.get_running_loop()) for _ in range(2))
            loop = asyncio.get_running_loop()
            assert find_clock("test", mine, given, loop) is mine
            assert find_clock("test", None, given, loop) is given
            assert isinstance(find_clock("test", None, None, loop), LoopScheduler)

        asyncio.run(main())

    def test_without_a_loop_the_error_says_what_to_do(self) -> None:
        with pytest.raises(RuntimeError, match=r"^smooth needs a clock, .* pass scheduler="):
            find_clock("smooth", None, None, None)

    @pytest.mark.parametrize("seconds", [0, 0.001, 3600])
    def test_another_thread_can_set_and_cancel_timers_of_the_loop(self, seconds: float) -> None:
        async def main() -> list[str]:
            loop, ran, done = asyncio.get_running_loop(), list[str](), asyncio.Event()

            def note(name: str) -> Callable[..., None]:
                def run(*_: object) -> None:
                    ran.append(name)
                    if name == "last":
                        done.set()

                return run

            loop.set_debug(True)  # asyncio then refuses what would not wake the loop
            clock = LoopScheduler(loop)

            mine = clock.schedule_relative(seconds, note("cancelled"))

            def use() -> None:
                mine.dispose()
                clock.schedule_relative(seconds, note("cancelled")).dispose()
                clock.schedule(note("first"))
                clock.schedule_relative(min(seconds, 0.002), note("last"))

            other = threading.Thread(target=use)
            other.start()
            other.join()  # the loop waits here, so nothing runs before it is cancelled
            await done.wait()
            return ran

        assert asyncio.run(main()) == ["first", "last"]

    @pytest.mark.parametrize("kind", [AsyncIOScheduler, AsyncIOThreadSafeScheduler])
    def test_a_given_scheduler_of_rxpy_is_replaced_too(self, kind: type[AsyncIOScheduler]) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            assert isinstance(find_clock("test", kind(loop), None, None), LoopScheduler)

        asyncio.run(main())

    @pytest.mark.parametrize("kind", [AsyncIOScheduler, AsyncIOThreadSafeScheduler])
    def test_a_timer_can_be_disposed_on_another_loop_while_its_own_loop_is_busy(
        self, kind: type[AsyncIOScheduler]
    ) -> None:
        async def main() -> None:
            clock = kind(asyncio.get_running_loop())
            subscription = rx.never().pipe(ops.heartbeat(3600, scheduler=clock)).subscribe()

            async def dispose() -> None:
                subscription.dispose()

            other = threading.Thread(target=lambda: asyncio.run(dispose()), daemon=True)
            other.start()
            other.join(PATIENCE_S)
            assert not other.is_alive()

        asyncio.run(main())

    def test_a_subscribers_scheduler_reaches_the_source_of_a_run_on_its_loop(self) -> None:
        seen: list[SchedulerBase | None] = []

        def operator(source: Observable[Any]) -> Observable[Any]:
            def subscribe(observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
                seen.append(scheduler)
                return source.subscribe(observer, scheduler=scheduler)

            return Observable(subscribe)

        async def main() -> LoopScheduler:
            scheduler = LoopScheduler(asyncio.get_running_loop())
            done = asyncio.Event()
            two_tasks().observe().pipe(through(operator)).subscribe(on_completed=done.set, scheduler=scheduler)
            await done.wait()
            return scheduler

        scheduler = asyncio.run(main())
        assert seen == [scheduler]


def test_disposing_stops_the_run() -> None:
    model = Scripted("one two three four")
    crew = a_crew(a_task(an_agent(model)))
    shown = signals_of(crew.observe().pipe(ops.words(), rxops.take(1)))
    assert [str(chunk) for chunk in shown.items] == ["one"]
    assert shown.completions == 1


def test_events_pass_the_text_operators_in_their_places() -> None:
    through_words = outcome(two_tasks().events().pipe(ops.words()))
    plain = outcome(two_tasks().events())
    kinds = [type(event) for event in plain.events if not isinstance(event, StreamChunk)]
    assert [type(event) for event in through_words.events if not isinstance(event, StreamChunk)] == kinds
    assert through_words.text == plain.text


def test_chunks_of_one_agent_in_two_calls_are_not_mixed_where_no_event_tells_them_apart() -> None:
    source: Subject[StreamChunk] = Subject()
    heard: list[str] = []
    source.pipe(ops.words()).subscribe(lambda chunk: heard.append(chunk.content))
    source.on_next(StreamChunk(content="let me", task_id="t", agent_id="a", span_id="r/1"))
    source.on_next(StreamChunk(content="done", task_id="t", agent_id="a", span_id="r/2"))
    assert heard == ["let", " me"]
