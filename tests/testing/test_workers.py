"""Waits of worker threads in virtual time: what ends them, how long they take, and what if nothing ends them."""

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any

import anyio.to_thread
import pytest

from rxflow import Flow
from rxflow.flow import start
from rxflow.testing import Deadlock, VirtualClock
from tests.gate import Gate


def run_in_method(wait: Callable[[], Any], **options: Any) -> tuple[Any, float]:
    """Call ``wait`` in a sync method; return its result, and the virtual seconds that passed."""

    class Waits(Flow):
        @start()
        def work(self) -> Any:
            return wait()

    clock = VirtualClock(**options)

    async def main() -> Any:
        return await Waits().kickoff_async()

    return clock.run(main), clock.now


def square(number: int) -> int:
    return number * number


def locked() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


def full_queue() -> queue.Queue[int]:
    full: queue.Queue[int] = queue.Queue(1)
    full.put(0)
    return full


def wait_for_condition(timeout: float | None = None) -> bool:
    condition = threading.Condition()
    with condition:
        return condition.wait_for(lambda: False, timeout)


def wait_for_sleeping_thread(timeout: float | None = None) -> bool:
    never = threading.Event()
    thread = threading.Thread(target=never.wait, daemon=True)
    thread.start()
    try:
        thread.join(timeout)
        return not thread.is_alive()
    finally:
        never.set()


def no_result(wait: Callable[[], object], *errors: type[BaseException]) -> bool:
    """Return whether ``wait`` had a result."""
    try:
        wait()
    except errors:
        return False
    return True


WAITS: dict[str, Callable[[float | None], bool]] = {
    "Event.wait": lambda timeout: threading.Event().wait(timeout),
    "Condition.wait_for": wait_for_condition,
    "Semaphore.acquire": lambda timeout: threading.Semaphore(0).acquire(timeout=timeout),
    "Barrier.wait": lambda timeout: no_result(lambda: threading.Barrier(2).wait(timeout), threading.BrokenBarrierError),
    "Queue.get": lambda timeout: no_result(lambda: queue.Queue[int]().get(timeout=timeout), queue.Empty),
    "Queue.put": lambda timeout: no_result(lambda: full_queue().put(1, timeout=timeout), queue.Full),
    "Future.result": lambda timeout: no_result(lambda: futures.Future[int]().result(timeout), TimeoutError),
    "futures.wait": lambda timeout: not futures.wait([futures.Future[int]()], timeout).not_done,
    "as_completed": lambda timeout: no_result(
        lambda: list(futures.as_completed([futures.Future[int]()], timeout)), TimeoutError
    ),
    "Thread.join": wait_for_sleeping_thread,
}


@pytest.mark.parametrize("name", WAITS)
def test_a_wait_that_nothing_can_end_is_a_deadlock_that_says_who_waits_where(name: str) -> None:
    with pytest.raises(
        Deadlock, match=r"(?s)at 0\.0 s of virtual time nothing can happen any more.*the thread 'rxflow"
    ):
        run_in_method(lambda: WAITS[name](None))


@pytest.mark.parametrize("name", WAITS)
def test_a_timed_wait_takes_virtual_time(name: str) -> None:
    assert run_in_method(lambda: WAITS[name](3600.0)) == (False, 3600.0)


@pytest.mark.parametrize("name", WAITS)
def test_a_wait_of_no_time_takes_none(name: str) -> None:
    assert run_in_method(lambda: WAITS[name](0.0)) == (False, 0.0)


def test_the_deadlock_shows_the_line_of_the_user() -> None:
    def wait() -> None:
        threading.Event().wait()

    with pytest.raises(
        Deadlock, match=r"which waits in Event\.wait\n.*test_workers\.py:\d+, in wait: threading\.Event\(\)\.wait"
    ):
        run_in_method(wait)


def test_two_methods_that_wait_for_each_other_are_a_deadlock() -> None:
    first, second = threading.Event(), threading.Event()

    class Both(Flow):
        @start()
        def one(self) -> None:
            second.wait()
            first.set()

        @start()
        def two(self) -> None:
            first.wait()
            second.set()

    async def main() -> None:
        await Both().kickoff_async()

    with pytest.raises(Deadlock, match=r"(?s)(?=.*in one: second\.wait\(\)).*in two: first\.wait\(\)"):
        VirtualClock().run(main)


def test_a_method_ends_the_wait_of_another_one_at_its_instant() -> None:
    event = threading.Event()

    class Both(Flow):
        @start()
        def wait(self) -> float:
            assert event.wait(60)
            return clock.now

        @start()
        def work(self) -> None:
            time.sleep(10)
            event.set()

    async def main() -> list[Any]:
        flow = Both()
        await flow.kickoff_async()
        return flow.method_outputs

    clock = VirtualClock()
    assert 10.0 in clock.run(main)
    assert clock.now == 10.0


def test_the_loop_ends_the_wait_of_a_method() -> None:
    async def main() -> tuple[bool, float]:
        event = threading.Event()
        asyncio.get_running_loop().call_later(5, event.set)
        return await asyncio.to_thread(event.wait, 60), clock.now

    clock = VirtualClock()
    assert clock.run(main) == (True, 5.0)


def test_a_thread_of_the_user_ends_the_wait_of_a_method_and_no_time_passes_meanwhile() -> None:
    def wait() -> int:
        results: queue.Queue[int] = queue.Queue()
        threading.Thread(target=lambda: results.put(sum(range(100_000))), daemon=True).start()
        return results.get(timeout=1)

    assert run_in_method(wait) == (sum(range(100_000)), 0.0)


def test_a_pool_of_the_user_works_while_a_method_waits_for_it() -> None:
    def wait() -> list[int]:
        with futures.ThreadPoolExecutor(2) as pool:
            return list(pool.map(square, range(50)))

    assert run_in_method(wait) == ([n * n for n in range(50)], 0.0)


def test_a_thread_of_the_user_that_has_ended_is_joined_at_once() -> None:
    def wait() -> bool:
        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()
        return thread.is_alive()

    assert run_in_method(wait) == (False, 0.0)


def test_timed_waits_of_several_threads_overlap() -> None:
    async def main() -> float:
        async with asyncio.TaskGroup() as tasks:
            for seconds in (1, 2, 3):
                tasks.create_task(asyncio.to_thread(threading.Event().wait, seconds))
        return clock.now

    clock = VirtualClock()
    assert clock.run(main) == 3.0


def test_a_thread_of_anyio_waits_in_virtual_time_too() -> None:
    async def main() -> tuple[bool, float]:
        return await anyio.to_thread.run_sync(lambda: threading.Event().wait(7)), clock.now

    clock = VirtualClock()
    assert clock.run(main) == (False, 7.0)


def test_a_thread_of_anyio_that_nothing_wakes_is_a_deadlock() -> None:
    async def main() -> None:
        await anyio.to_thread.run_sync(lambda: threading.Event().wait(), abandon_on_cancel=True)

    with pytest.raises(Deadlock, match="nothing can happen any more"):
        VirtualClock().run(main)


def test_a_flow_that_is_cancelled_ends_the_wait_of_its_method() -> None:
    ended = Gate()
    errors: list[BaseException] = []

    class Waits(Flow):
        @start()
        def work(self) -> None:
            try:
                threading.Event().wait(3600)
            except BaseException as error:
                errors.append(error)
                ended.open()
                raise

    async def main() -> None:
        with anyio.move_on_after(5):
            await Waits().kickoff_async()
        await asyncio.to_thread(ended.wait)

    VirtualClock().run(main)
    assert [type(error) for error in errors] == [asyncio.CancelledError]


def test_what_the_clock_cannot_see_is_ended_by_a_watchdog_of_real_seconds() -> None:
    lock = locked()

    def wait() -> None:
        with lock:
            pass

    try:
        with pytest.raises(Deadlock, match=r"(?s)nothing has happened for 0\.2 s of real time.*in wait: with lock:"):
            run_in_method(wait, watchdog_s=0.2)
    finally:
        lock.release()


def test_a_thread_that_can_act_is_waited_for_no_longer_than_the_watchdog_says() -> None:
    lock = locked()

    def acquire() -> None:
        with lock:
            pass

    def wait() -> None:
        thread = threading.Thread(target=acquire, daemon=True)
        thread.start()
        thread.join()

    try:
        with pytest.raises(Deadlock, match=r"in wait: thread\.join\(\)"):
            run_in_method(wait, watchdog_s=0.2)
    finally:
        lock.release()


def test_after_the_clock_all_waits_are_the_real_ones() -> None:
    def find_waits() -> list[object]:
        return [time.sleep, time.monotonic, threading.Condition.wait, threading.Thread.join]

    before = find_waits()
    with VirtualClock(), VirtualClock():
        assert not set(map(id, before)) & set(map(id, find_waits()))
    assert find_waits() == before


def test_a_coroutine_that_blocks_its_loop_is_a_deadlock() -> None:
    async def main() -> None:
        threading.Event().wait()

    with pytest.raises(Deadlock, match=r"(?s)a coroutine blocks its event loop.*in main: threading\.Event\(\)\.wait"):
        VirtualClock(watchdog_s=0.1).run(main)


def test_the_private_names_of_the_standard_library_are_there() -> None:
    condition: Any = threading.Condition()
    private_threading: Any = threading
    private_pool: Any = futures.thread
    private_queue: Any = queue
    with VirtualClock():
        assert private_threading._time is time.monotonic is private_queue.time
    assert private_threading._time is time.monotonic is private_queue.time
    assert list(condition._waiters) == []
    with condition:
        assert condition._is_owned()
        condition._acquire_restore(condition._release_save())
    assert {"waiter", "timeout"} <= {*threading.Condition.wait.__code__.co_varnames}
    assert {"work_queue", "work_item"} <= {*private_pool._worker.__code__.co_varnames}
