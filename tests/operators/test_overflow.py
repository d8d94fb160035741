"""``overflow``: a slow reader has a queue, and a policy says what happens when that is full."""

import asyncio
import pickle
import sys
import threading
from collections.abc import Callable
from typing import Any, Literal

import pytest
from hypothesis import given, strategies as st
from reactivex import Observable, Subject, operators as rxops
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import Disposable
from reactivex.scheduler import EventLoopScheduler, ImmediateScheduler, NewThreadScheduler, ThreadPoolScheduler
from reactivex.scheduler.eventloop import AsyncIOScheduler
from reactivex.testing import TestScheduler

from rxflow import operators as ops
from rxflow.testing import Marbles, ScriptedLLM, check_operator
from rxflow.types.chunks import Origin, StreamChunk
from rxflow.types.events import LLMFinished, ReasoningChunk
from tests.gate import PATIENCE_S, Gate, poll
from tests.operators.pieces import delta, said
from tests.signals import Signals, signals_of

Policy = Literal["coalesce", "wait", "latest", "error"]

ENDED = LLMFinished(origin=Origin(span_id="a"), text="")


def a(text: str) -> StreamChunk:
    """Of one call."""
    return said(text, span_id="a")


def b(text: str) -> StreamChunk:
    """Of another one."""
    return said(text, span_id="b")


class CountingScheduler(NewThreadScheduler):
    """Counts what it is asked to carry out."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduled = 0

    def schedule(self, action: Any, state: Any = None) -> DisposableBase:
        self.scheduled += 1
        return super().schedule(action, state)


class Held:
    """A reader that keeps its first item until it is let go; ``source`` is what it reads."""

    def __init__(self, operator: Callable[[Observable[Any]], Observable[Any]]) -> None:
        self.source: Subject[Any] = Subject()
        self.signals = Signals()
        self._busy, self.go_on = Gate(), Gate()
        read = self.source.pipe(operator, rxops.do_action(self._hold))
        self.subscription = self.signals.subscribe_to(read)

    def _hold(self, _: object) -> None:
        self._busy.open()
        self.go_on.wait()

    def begin(self) -> None:
        """Make the reader busy."""
        self.source.on_next("-")
        self._busy.wait()

    def let_go(self) -> list[Any]:
        """What it was told behind the first item, to the end."""
        self.go_on.open()
        self.signals.ended.wait()
        return self.signals.items[1:]


def read_after(items: list[Any], limit: int, policy: Policy) -> tuple[list[Any], list[str]]:
    """What a reader is told in the end that was busy while ``items`` came."""
    held = Held(ops.overflow(limit, policy))
    held.begin()
    for item in items:
        held.source.on_next(item)
    held.source.on_completed()
    return held.let_go(), held.signals.ends


@pytest.mark.parametrize("policy", ["coalesce", "latest", "error"])
def test_it_keeps_the_rules(policy: Policy) -> None:
    check_operator(ops.overflow(100_000, policy))


def test_it_keeps_them_where_too_much_comes() -> None:
    check_operator(ops.overflow(2, "coalesce"), key=lambda _: None)


class TestHandingOver:
    def test_items_come_in_order_then_the_end(self, marbles: Marbles) -> None:
        source = marbles.cold("-a-b-c|")
        marbles.expect(source.pipe(ops.overflow(3))).to_be("-a-b-c|")
        marbles.expect_subscriptions(source).to_be("^-----!")

    def test_an_error_comes_after_what_has_arrived(self, marbles: Marbles) -> None:
        source = marbles.cold("-a-(bc#)", error=OSError("gone"))
        marbles.expect(source.pipe(ops.overflow(3))).to_be("-a-(bc#)", error=OSError("gone"))

    def test_each_subscription_has_its_own_queue(self, marbles: Marbles) -> None:
        piped = marbles.cold("a-b|").pipe(ops.overflow(1))
        one, other = marbles.expect(piped), marbles.expect(piped, "-^")
        one.to_be("a-b|")
        other.to_be("-a-b|")

    def test_a_burst_on_a_loop_waits_for_its_next_step(self) -> None:
        async def main() -> list[str]:
            source: Subject[str] = Subject()
            seen: list[str] = []
            source.pipe(ops.overflow(2)).subscribe(seen.append)
            for letter in "abcde":
                source.on_next(letter)
            assert seen == []
            await asyncio.sleep(0)
            return seen

        assert asyncio.run(main()) == ["abcde"]

    def test_without_a_loop_the_reader_has_a_thread_of_its_own_that_ends_with_it(self) -> None:
        threads: list[threading.Thread] = []
        seen = rx_range(5).pipe(ops.overflow(10), rxops.do_action(lambda _: threads.append(threading.current_thread())))
        assert signals_of(seen).items == list(range(5))
        (thread,) = set(threads)
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
        assert thread is not threading.current_thread()

    @pytest.mark.parametrize("scheduler", [NewThreadScheduler(), ThreadPoolScheduler(3), ImmediateScheduler()])
    def test_other_schedulers_do(self, scheduler: Any) -> None:
        source = rx_range(1000)
        assert signals_of(source.pipe(ops.overflow(1000, "error", scheduler=scheduler))).items == list(range(1000))

    def test_a_reader_that_is_at_work_is_not_given_another_thread(self) -> None:
        """Which would emit beside it."""
        scheduler = CountingScheduler()
        held = Held(ops.overflow(10, scheduler=scheduler))
        held.begin()
        for item in "abc":
            held.source.on_next(a(item))
        assert scheduler.scheduled == 1
        held.source.on_completed()
        assert held.let_go() == [a("a"), a("b"), a("c")]

    def test_a_loop_can_be_given_to_read_from_another_thread(self) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            over = asyncio.Event()
            threads: set[threading.Thread] = set()
            seen: list[int] = []

            def on_next(item: int) -> None:
                threads.add(threading.current_thread())
                seen.append(item)

            for scheduler in (loop, AsyncIOScheduler(loop), None):
                seen.clear()
                over.clear()
                source = Subject[int]()
                source.pipe(ops.overflow(1000, "error", scheduler=scheduler)).subscribe(on_next, on_completed=over.set)
                await asyncio.to_thread(emit, source, 1000)
                await asyncio.wait_for(over.wait(), PATIENCE_S)
                assert seen == list(range(1000))
            assert threads == {threading.current_thread()}

        asyncio.run(main())

    def test_virtual_time_of_reactivex_does(self) -> None:
        scheduler = TestScheduler()
        seen = Signals()
        seen.subscribe_to(rx_range(3).pipe(ops.overflow(5, "coalesce", scheduler=scheduler)))
        assert seen.items == []
        scheduler.start()
        assert (seen.items, seen.ends) == ([0, 1, 2], ["completed"])

    def test_a_reader_that_raises_loses_its_subscription(self) -> None:
        async def main() -> list[str]:
            loop = asyncio.get_running_loop()
            told: asyncio.Future[Any] = loop.create_future()
            loop.set_exception_handler(lambda _, context: told.set_result(context["exception"]))
            source: Subject[int] = Subject()
            source.pipe(ops.overflow(5)).subscribe(raising)
            source.on_next(1)
            error = await told
            assert not source.observers
            return [repr(error)]

        assert asyncio.run(main()) == ["ZeroDivisionError('oh')"]

    def test_where_the_readers_scheduler_has_ended_the_source_is_disposed(self, monkeypatch: Any) -> None:
        told: list[Any] = []
        monkeypatch.setattr(threading, "excepthook", told.append)
        scheduler = EventLoopScheduler()
        scheduler.dispose()
        source: Subject[int] = Subject()
        source.pipe(ops.overflow(5, "coalesce", scheduler=scheduler)).subscribe()
        source.on_next(1)
        assert not source.observers
        assert len(told) == 1

    def test_a_flow_read_in_a_thread_loses_nothing(self) -> None:
        llm = ScriptedLLM("he-ll-o|", repeat=True)
        for policy in ("coalesce", "wait", "error"):
            shown = signals_of(llm.observe("Hello").pipe(ops.overflow(2 if policy != "error" else 9, policy)))
            assert "".join(map(str, shown.items)) == "hello"


class TestCoalesce:
    def test_texts_of_one_call_are_joined(self) -> None:
        assert read_after([a("x"), a("y"), a("z")], 1, "coalesce") == ([a("xyz")], ["completed"])

    def test_as_many_as_may_wait_do_so_as_they_are(self) -> None:
        assert read_after([a("x"), a("y")], 2, "coalesce")[0] == [a("x"), a("y")]

    def test_those_of_different_calls_are_kept_apart(self) -> None:
        items = [a("1"), b("2"), a("3"), b("4")]
        assert read_after(items, 2, "coalesce")[0] == [a("13"), b("24")]

    def test_so_are_those_of_different_agents_where_no_call_is_named(self) -> None:
        one, two = ({"task_id": "task", "agent_id": agent} for agent in ("one", "two"))
        items = [said("1", **one), said("2", **two), said("3", **one), said("4", **two)]
        assert read_after(items, 2, "coalesce")[0] == [said("13", **one), said("24", **two)]

    def test_so_are_answers_and_reasoning(self) -> None:
        thought = ReasoningChunk(origin=Origin(span_id="a"), content="hm")
        assert read_after([thought, thought, a("1"), a("2")], 1, "coalesce")[0] == [
            ReasoningChunk(origin=Origin(span_id="a"), content="hmhm"),
            a("12"),
        ]

    def test_what_one_call_says_keeps_its_order(self) -> None:
        thought = ReasoningChunk(origin=Origin(span_id="a"), content="hm")
        answer = said("1", span_id="a", task_id="task", agent_id="agent")
        items = [thought, answer, thought, answer]
        assert read_after(items, 1, "coalesce")[0] == items
        assert read_after([thought, b("1"), answer, b("2"), thought], 1, "coalesce")[0] == [
            thought,
            b("12"),
            answer,
            thought,
        ]

    def test_what_is_no_text_is_kept_and_not_passed_by(self) -> None:
        items = [a("1"), delta("{", span_id="a"), delta("}", span_id="a"), a("2"), ENDED, a("3"), a("4")]
        assert read_after(items, 1, "coalesce")[0] == [*items[:5], a("34")]

    def test_where_nothing_can_be_joined_more_wait(self) -> None:
        items = [said("x", span_id=str(number)) for number in range(10)]
        assert read_after(items, 3, "coalesce")[0] == items

    def test_attempts_are_not_mixed(self) -> None:
        items = [said("x", span_id="a", attempt=number) for number in range(3)]
        assert read_after(items, 1, "coalesce")[0] == items

    def test_the_joined_chunk_has_the_labels_of_the_last(self) -> None:
        (joined,) = read_after([said("x", seq=1), said("y", seq=2)], 1, "coalesce")[0]
        assert (joined.content, joined.seq) == ("xy", 2)

    @given(
        st.lists(st.sampled_from([a("x"), a("y"), b("x"), b("z"), ENDED, delta("{}", span_id="b")])), st.integers(1, 4)
    )
    def test_no_text_is_lost_and_what_is_no_text_stays_in_its_place(self, items: list[Any], limit: int) -> None:
        source: Subject[Any] = Subject()
        scheduler = TestScheduler()
        seen: list[Any] = []
        source.pipe(ops.overflow(limit, "coalesce", scheduler=scheduler)).subscribe(seen.append)
        for number, item in enumerate(items):
            source.on_next(item)
            if number % 7 == 3:
                scheduler.start()
        source.on_completed()
        scheduler.start()
        assert between_events(seen) == between_events(items)


class TestLatest:
    def test_the_oldest_waiting_text_is_dropped(self) -> None:
        assert read_after([a("1"), b("2"), a("3"), a("4")], 2, "latest") == ([a("3"), a("4")], ["completed"])

    def test_what_is_no_text_is_kept(self) -> None:
        call = delta("{}", span_id="a")
        assert read_after([call, a("1"), ENDED, a("2"), call], 2, "latest")[0] == [call, ENDED, call]


class TestError:
    def test_the_reader_gets_what_waits_then_the_error_and_the_source_is_disposed(self) -> None:
        held = Held(ops.overflow(2, "error"))
        held.begin()
        for number in range(5):
            held.source.on_next(number)
        assert not held.source.observers
        assert held.let_go() == [0, 1]
        (error,) = held.signals.errors
        assert isinstance(error, ops.SlowReaderError)
        assert isinstance(error, OverflowError)
        assert str(error) == "the reader is too slow: 2 items are waiting, which is the limit of overflow"
        assert pickle.loads(pickle.dumps(error)).limit == 2


class TestASourceThatEmitsWhileItIsSubscribed:
    """It cannot be disposed before its ``subscribe`` returns."""

    @pytest.mark.parametrize(("policy", "kind"), [("error", ops.SlowReaderError), ("wait", RuntimeError)])
    def test_its_end_does_not_replace_the_error(self, policy: Policy, kind: type[Exception]) -> None:
        scheduler, seen = TestScheduler(), Signals()
        seen.subscribe_to(rx_range(50).pipe(ops.overflow(2, policy, scheduler=scheduler)))
        scheduler.start()
        assert (seen.items, [type(error) for error in seen.errors], seen.completions) == ([0, 1], [kind], 0)

    @pytest.mark.parametrize("policy", ["error", "wait"])
    def test_no_item_comes_after_one_that_was_dropped(self, policy: Policy) -> None:
        scheduler, seen = TestScheduler(), Signals()
        sources: list[Any] = []

        def subscribe(observer: ObserverBase[Any], _: SchedulerBase | None = None) -> DisposableBase:
            sources.append(observer)
            for number in range(5):
                observer.on_next(number)
            scheduler.start()
            return Disposable()

        def emit_more(_: object) -> None:
            sources[0].on_next("late")

        source: Observable[Any] = Observable(subscribe)
        late = source.pipe(ops.overflow(2, policy, scheduler=scheduler), rxops.do_action(emit_more))
        seen.subscribe_to(late)
        assert (seen.items, len(seen.errors)) == ([0, 1], 1)


class TestWait:
    def test_the_emitting_thread_waits(self) -> None:
        held = Held(ops.overflow(2, "wait"))
        held.begin()
        emitted: list[int] = []
        full = Gate()

        def emit() -> None:
            for number in range(5):
                if number == 2:
                    full.open()
                held.source.on_next(number)
                emitted.append(number)
            held.source.on_completed()

        thread = threading.Thread(target=emit)
        thread.start()
        full.wait()
        until_blocked(thread)
        assert emitted == [0, 1]
        assert held.let_go() == list(range(5))
        thread.join()

    def test_disposing_lets_it_go_on(self) -> None:
        held = Held(ops.overflow(1, "wait"))
        held.begin()
        held.source.on_next(1)
        thread = threading.Thread(target=held.source.on_next, args=(2,))
        thread.start()
        until_blocked(thread)
        held.subscription.dispose()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
        held.go_on.open()

    def test_it_is_refused_where_the_reader_is_on_the_emitting_loop(self, marbles: Marbles) -> None:
        source = marbles.cold("(abc)--d|")
        error = RuntimeError(
            'overflow(policy="wait") would wait forever: the reader gets its items in the thread that emits them; '
            "give the reader another thread, for instance with scheduler=EventLoopScheduler()"
        )
        marbles.expect(source.pipe(ops.overflow(2, "wait"))).to_be("(ab#)", error=error)

    def test_and_where_it_is_on_the_emitting_thread(self) -> None:
        scheduler = EventLoopScheduler()
        source: Subject[int] = Subject()
        seen = Signals()
        seen.subscribe_to(source.pipe(ops.overflow(1, "wait", scheduler=scheduler)))

        def three(_: SchedulerBase, __: object) -> None:
            for number in range(3):
                source.on_next(number)

        scheduler.schedule(three)
        seen.ended.wait()
        assert seen.items == [0]
        assert [type(error) for error in seen.errors] == [RuntimeError]
        scheduler.dispose()

    @pytest.mark.parametrize("scheduler", [None, NewThreadScheduler(), ThreadPoolScheduler(1)])
    def test_a_reader_that_feeds_its_own_source_is_refused(self, scheduler: Any) -> None:
        source: Subject[int] = Subject()
        seen = Signals()

        def feed(item: int) -> None:
            if item == 0:
                source.on_next(1)
                source.on_next(2)

        seen.subscribe_to(source.pipe(ops.overflow(1, "wait", scheduler=scheduler), rxops.do_action(feed)))
        source.on_next(0)
        seen.ended.wait()
        assert (seen.items, [type(error) for error in seen.errors]) == ([0, 1], [RuntimeError])


@pytest.mark.parametrize("limit", [0, -1])
def test_at_least_one_item_may_wait(limit: int) -> None:
    with pytest.raises(ValueError, match=rf"overflow\(limit\) must be at least 1; got {limit}"):
        ops.overflow(limit)


@pytest.mark.parametrize("limit", ["3", 1.5, None, True])
def test_the_limit_is_an_integer(limit: Any) -> None:
    with pytest.raises(TypeError, match=rf"^overflow\(limit\) is not an integer: {limit!r}$"):
        ops.overflow(limit)


def test_the_policy_is_one_that_it_knows() -> None:
    with pytest.raises(ValueError, match=r"policy\) must be one of 'coalesce', 'wait', 'latest', 'error'; got 'drop'"):
        ops.overflow(1, "drop")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def until_blocked(thread: threading.Thread) -> None:
    """Until it waits for another thread, as a wait that begins only now would not have to be ended."""
    waits = threading.Condition.wait.__code__
    stands = poll(
        lambda: sys._current_frames().get(thread.ident or 0),  # pyright: ignore[reportPrivateUsage]
        lambda frame: frame is None or frame.f_code is waits,
        "the thread does not wait",
    )
    assert stands is not None, "the thread has ended"


def emit(source: Subject[int], count: int) -> None:
    for number in range(count):
        source.on_next(number)
    source.on_completed()


def raising(_: object) -> None:
    raise ZeroDivisionError("oh")


def rx_range(count: int) -> Observable[int]:
    """Emits in the subscriber's thread, at once."""

    def subscribe(observer: Any, scheduler: Any = None) -> Any:
        for number in range(count):
            observer.on_next(number)
        observer.on_completed()

    return Observable(subscribe)


def between_events(items: list[Any]) -> list[Any]:
    """The text of each call between what is no text, and that in its place."""
    parts: list[Any] = [{}]
    for item in items:
        if isinstance(item, StreamChunk) and item.tool_call is None:
            parts[-1][item.span_id] = parts[-1].get(item.span_id, "") + item.content
        else:
            parts += [item, {}]
    return parts
