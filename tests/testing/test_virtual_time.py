"""The loop on virtual time: exact, in order, patient with threads, and never stuck."""

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
from hypothesis import given, strategies as st

from rxflow._streaming.emitter import in_thread
from rxflow.llm._io import from_io
from rxflow.testing._virtual_clock import VirtualClock
from rxflow.testing._virtual_time import (
    SOCKET_METHODS,
    Deadlock,
    ProviderInVirtualTime,
    RealSocketInVirtualTime,
    VirtualLoop,
)
from tests.gate import PATIENCE_S

T = TypeVar("T")

DAY = 86_400.0


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


def now() -> float:
    return asyncio.get_running_loop().time()


def test_hours_of_sleep_pass_at_once_and_exactly() -> None:
    async def main() -> None:
        assert now() == 0.0
        await asyncio.sleep(3600)
        assert now() == 3600.0
        await asyncio.sleep(30 * DAY)
        assert now() == 3600.0 + 30 * DAY

    run(main)


def test_sums_of_delays_are_exact() -> None:
    async def main() -> None:
        await asyncio.sleep(0.1)
        await asyncio.sleep(0.2)
        assert now() == 0.3
        begun = now()
        for _ in range(1000):
            await asyncio.sleep(0.001)
        assert now() == 1.3
        assert now() - begun == 1.0

    run(main)


def test_timeouts_of_asyncio_and_anyio_are_exact() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await asyncio.sleep(math.inf)
        with anyio.move_on_after(0.2) as scope:
            await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert now() == 0.3
        with pytest.raises(TimeoutError), anyio.fail_after(3600):
            await anyio.sleep_forever()
        assert now() == 3600.3

    run(main)


def test_who_asks_whether_a_deadline_has_come_is_not_put_off_by_noise() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        deadline = 0.1 + 0.2  # a trifle after 0.3
        asked: list[float] = []
        come = loop.create_future()

        def ask() -> None:
            asked.append(loop.time())
            if loop.time() >= deadline:
                come.set_result(None)
            else:
                loop.call_at(deadline, ask)

        loop.call_at(deadline, ask)
        await come
        assert len(asked) <= 2
        await asyncio.sleep(0.1)
        assert now() == 0.4

    run(main)


@given(st.lists(st.sampled_from([0.0, 0.1, 0.1 + 0.2, 0.3, 1.0, DAY, 100 * DAY]), max_size=60))
def test_timers_of_one_instant_fire_in_the_order_in_which_they_were_made(instants: list[float]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        fired: list[int] = []
        for number, instant in enumerate(instants):
            loop.call_at(instant, fired.append, number)
        await asyncio.sleep(101 * DAY)
        assert fired == sorted(range(len(instants)), key=lambda number: round(instants[number], 9))

    run(main)


def test_a_timer_that_makes_another_for_now_lets_the_others_of_now_go_first() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        fired: list[str] = []

        def first() -> None:
            fired.append("first")
            loop.call_at(5.0, fired.append, "later")

        loop.call_at(5.0, first)
        loop.call_at(5.0, fired.append, "second")
        await asyncio.sleep(6)
        assert fired == ["first", "second", "later"]

    run(main)


def working(loop: asyncio.AbstractEventLoop) -> list[float]:
    """In a thread: asks the loop for the time, again and again."""
    times: list[float] = []
    for _ in range(20):
        told = threading.Event()

        def tell(told: threading.Event = told) -> None:
            times.append(loop.time())
            told.set()

        loop.call_soon_threadsafe(tell)
        told.wait()
    return times


async def in_own_pool(function: Callable[[], T]) -> T:
    with ThreadPoolExecutor(1) as pool:
        return await asyncio.get_running_loop().run_in_executor(pool, function)


async def with_own_limiter(function: Callable[[], T]) -> T:
    return await anyio.to_thread.run_sync(function, limiter=anyio.CapacityLimiter(1))


WAYS_INTO_A_THREAD: dict[str, Callable[[Callable[[], Any]], Coroutine[Any, Any, Any]]] = {
    "rxflow": lambda function: in_thread(function, name="work"),
    "asyncio.to_thread": asyncio.to_thread,
    "an executor": in_own_pool,
    "anyio": anyio.to_thread.run_sync,
    "anyio with a limiter": with_own_limiter,
}


@pytest.mark.parametrize("way", WAYS_INTO_A_THREAD)
def test_time_stands_still_while_a_thread_works(way: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        fired: list[float] = []
        loop.call_later(1.0, lambda: fired.append(loop.time()))
        times = await WAYS_INTO_A_THREAD[way](lambda: working(loop))
        assert (times, fired, loop.time()) == ([0.0] * 20, [], 0.0)
        await asyncio.sleep(1.0)
        assert fired == [1.0]

    run(main)


@pytest.mark.parametrize("way", WAYS_INTO_A_THREAD)
def test_a_sleep_in_a_thread_passes_virtual_time(way: str) -> None:
    async def main() -> tuple[float, list[float]]:
        loop = asyncio.get_running_loop()
        fired: list[float] = []
        loop.call_later(1800.0, lambda: fired.append(loop.time()))
        await WAYS_INTO_A_THREAD[way](lambda: time.sleep(3600))
        return now(), fired

    assert VirtualClock().run(main) == (3600.0, [1800.0])


@pytest.mark.parametrize("way", ["rxflow", "asyncio.to_thread", "anyio"])
def test_sleeps_in_several_threads_overlap(way: str) -> None:
    async def main() -> float:
        await asyncio.gather(*(WAYS_INTO_A_THREAD[way](partial(time.sleep, seconds)) for seconds in (1, 3, 2)))
        return now()

    assert VirtualClock().run(main) == 3.0


@pytest.mark.parametrize("way", WAYS_INTO_A_THREAD)
def test_a_thread_that_waits_for_a_coroutine_on_the_loop_is_not_at_work(way: str) -> None:
    async def main() -> tuple[str, float]:
        loop = asyncio.get_running_loop()

        def work() -> str:
            asyncio.run_coroutine_threadsafe(asyncio.sleep(3600), loop).exception()
            return asyncio.run_coroutine_threadsafe(asyncio.sleep(3600, "slept"), loop).result()

        return await WAYS_INTO_A_THREAD[way](work), now()

    assert VirtualClock().run(main) == ("slept", 7200.0)


def test_a_thread_holds_the_time_before_and_after_it_waits_for_a_coroutine() -> None:
    async def main() -> tuple[list[float], list[float], float]:
        loop = asyncio.get_running_loop()

        def work() -> tuple[list[float], list[float]]:
            slept = asyncio.run_coroutine_threadsafe(asyncio.sleep(2), loop)
            before = working(loop)
            slept.result()
            return before, working(loop)

        return *await in_thread(work, name="work"), now()

    assert VirtualClock().run(main) == ([0.0] * 20, [2.0] * 20, 2.0)


def test_a_coroutine_that_a_thread_waits_for_passes_its_error_on() -> None:
    async def fail() -> None:
        await asyncio.sleep(1)
        raise ValueError("x")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(ValueError, match="x"):
            await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(fail(), loop).result())
        assert now() == 1.0

    VirtualClock().run(main)


def test_a_thread_of_anyio_that_calls_back_is_not_at_work() -> None:
    def work(seconds: float) -> None:
        anyio.from_thread.run(anyio.sleep, seconds)

    async def main() -> float:
        await asyncio.gather(*(anyio.to_thread.run_sync(work, seconds) for seconds in (1, 3, 2)))
        return now()

    assert VirtualClock().run(main) == 3.0


def test_a_thread_that_waits_for_a_stuck_coroutine_is_a_deadlock() -> None:
    async def stuck() -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(stuck(), loop).result())

    with pytest.raises(Deadlock, match=r"in stuck: await asyncio\.Event\(\)\.wait\(\)"):
        VirtualClock().run(main)


def test_what_waits_in_the_queue_of_a_pool_is_not_at_work() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(2) as pool:
            await asyncio.gather(*(loop.run_in_executor(pool, time.sleep, 10) for _ in range(5)))
        return now()

    assert VirtualClock().run(main) == 30.0


def test_a_thread_that_nobody_waits_for_any_more_is_woken_from_its_sleep() -> None:
    ended: list[str] = []
    gone = threading.Event()

    def work() -> None:
        try:
            time.sleep(3600)
        except asyncio.CancelledError as error:
            ended.append(str(error))
        finally:
            gone.set()

    async def main() -> float:
        with anyio.move_on_after(10):
            await in_thread(work, name="work")
        assert gone.wait(PATIENCE_S)
        return now()

    assert VirtualClock().run(main) == 10.0
    assert ended == ["the run no longer waits for this thread, so the thread's wait was ended"]


@pytest.mark.parametrize("wait", [lambda: time.sleep(1), lambda: threading.Event().wait(1)], ids=["sleep", "wait"])
def test_a_thread_whose_call_was_cancelled_while_it_worked_does_not_wait_any_more(wait: Callable[[], object]) -> None:
    lock = threading.Lock()
    lock.acquire()
    gone = threading.Event()
    errors: list[type[BaseException]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def work() -> None:
            loop.call_soon_threadsafe(calling.cancel)
            lock.acquire()  # the clock cannot see this, so the thread counts as working
            try:
                wait()
            except asyncio.CancelledError as error:
                errors.append(type(error))
            finally:
                gone.set()

        calling = asyncio.ensure_future(asyncio.to_thread(work))
        await asyncio.wait([calling])
        lock.release()
        assert await asyncio.to_thread(gone.wait)

    VirtualClock().run(main)
    assert errors == [asyncio.CancelledError]


@pytest.mark.parametrize("seconds", [3600, None])
def test_a_thread_waits_no_longer_for_a_coroutine_than_it_said(seconds: float | None) -> None:
    async def main() -> tuple[str, float]:
        loop = asyncio.get_running_loop()
        held: list[Future[None]] = []

        async def wait() -> None:
            await (asyncio.Event().wait() if seconds is None else asyncio.sleep(seconds))

        def work() -> tuple[str, float]:
            held.append(asyncio.run_coroutine_threadsafe(wait(), loop))
            try:
                held[0].result(timeout=5)
            except TimeoutError:
                return "too late", loop.time()
            return "in time", loop.time()

        try:
            return await asyncio.to_thread(work)
        finally:
            held[0].cancel()

    assert VirtualClock().run(main) == ("too late", 5.0)


def test_the_executor_that_the_program_sets_is_used_and_ended() -> None:
    mine = ThreadPoolExecutor(1, thread_name_prefix="mine")

    async def main() -> tuple[str, float]:
        asyncio.get_running_loop().set_default_executor(mine)
        await asyncio.gather(*(asyncio.to_thread(time.sleep, 10) for _ in range(2)))
        return await asyncio.to_thread(lambda: threading.current_thread().name), now()

    assert VirtualClock().run(main) == ("mine_0", 20.0)
    with pytest.raises(RuntimeError, match="after shutdown"):
        mine.submit(print)


def test_the_end_of_the_loop_waits_for_its_executor_in_virtual_time() -> None:
    clock = VirtualClock()
    slept: list[float] = []

    def work() -> None:
        time.sleep(60)
        slept.append(clock.now)

    async def main() -> None:
        asyncio.get_running_loop().run_in_executor(None, work)

    clock.run(main)
    assert slept == [60.0]


def test_code_on_the_loop_that_sleeps_blocks_the_loop_in_virtual_time() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        fired: list[float] = []
        loop.call_later(1.0, lambda: fired.append(loop.time()))
        time.sleep(5)  # noqa: ASYNC251 - that is what is tested
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return [*fired, loop.time()]

    assert VirtualClock().run(main) == [5.0, 5.0]


def test_a_sleep_of_a_negative_time_is_refused_as_the_real_one_refuses_it() -> None:
    with VirtualClock(), pytest.raises(ValueError, match="non-negative"):
        time.sleep(-1)


def test_a_deadlock_says_when_and_where_everyone_stands() -> None:
    async def waits_for_a_gate() -> None:
        await asyncio.Event().wait()

    async def items() -> AsyncIterator[int]:
        yield 1
        await waits_for_a_gate()

    async def reads() -> None:
        async for _ in items():
            pass

    async def main() -> None:
        await asyncio.sleep(1.5)
        await asyncio.create_task(reads(), name="the reader")

    with pytest.raises(Deadlock) as caught:
        run(main)
    message = str(caught.value)
    assert "at 1.5 s of virtual time" in message
    assert "which waits for the task 'the reader'" in message
    steps = [line.strip() for line in message.split("\n")]
    for step in ("in reads: async for _ in items():", "in items: await waits_for_a_gate()", "in wait: await fut"):
        assert any(line.endswith(step) for line in steps), step
    assert "test_virtual_time.py:" in message


def test_a_deadlock_lets_the_tasks_clean_up() -> None:
    cleaned: list[float] = []

    async def main() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(2)
            cleaned.append(now())

    with pytest.raises(Deadlock):
        run(main)
    assert cleaned == [2.0]


def test_a_thread_that_waits_for_a_stuck_loop_is_no_reason_to_go_on_waiting() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        await in_thread(lambda: time.sleep(1), name="work")
        assert loop.time() == 1.0
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match=r"at 1\.0 s"):
        VirtualClock().run(main)


@pytest.mark.parametrize("name", SOCKET_METHODS)
def test_the_world_outside_is_refused(name: str) -> None:
    async def main() -> None:
        with pytest.raises(RealSocketInVirtualTime, match=rf"loop\.{name}\('here', port=80\)"):
            await getattr(asyncio.get_running_loop(), name)("here", port=80)

    run(main)


def test_the_refusal_reaches_those_who_connect() -> None:
    async def main() -> None:
        with pytest.raises(RealSocketInVirtualTime):
            await asyncio.open_connection("localhost", 80)
        with pytest.raises(RealSocketInVirtualTime):
            await anyio.connect_tcp("localhost", 80)

    run(main)


def test_an_error_in_a_callback_goes_to_the_exception_handler() -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        handled: list[Any] = []
        loop.set_exception_handler(lambda _, context: handled.append(context["exception"]))

        def fail() -> None:
            raise ValueError("x")

        loop.call_later(1, fail)
        await asyncio.sleep(2)
        return handled

    (error,) = run(main)
    assert isinstance(error, ValueError)


def test_idle_is_when_nothing_can_happen_any_more() -> None:
    async def main() -> tuple[bool, float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.call_later(5, lambda: None)
        stuck = asyncio.create_task(asyncio.Event().wait())
        idle = await loop.until_idle()
        stuck.cancel()
        with suppress(asyncio.CancelledError):
            await stuck
        return idle, loop.time()

    assert run(main) == (True, 5.0)


def test_timers_without_end_are_left_after_so_many_jumps() -> None:
    async def main() -> tuple[bool, float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)

        def again() -> None:
            loop.call_later(1, again)

        again()
        return await loop.until_idle(jumps=7, after=3), loop.time()

    assert run(main) == (False, 10.0)


def test_deltas_from_the_io_loop_are_refused() -> None:
    async def read(deliver: object) -> None:
        raise AssertionError("it was asked")

    async def main() -> list[BaseException]:
        errors: list[BaseException] = []
        from_io(read).subscribe(on_error=errors.append)
        return errors

    assert [type(error) for error in run(main)] == [ProviderInVirtualTime]
