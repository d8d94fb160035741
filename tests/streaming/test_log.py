"""The log: one writer, any number of readers, from threads and from event loops."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import trio

from rxflow.streaming.log import BLOCK_SIZE, Log

MANY = 5000


def item_of(log: Log[int], position: int) -> int:
    return log.block(position // BLOCK_SIZE)[position % BLOCK_SIZE]


def read(log: Log[int]) -> list[int]:
    seen: list[int] = []
    while True:
        log.wait(len(seen))
        if len(log) == len(seen):
            return seen
        seen.append(item_of(log, len(seen)))


async def read_async(log: Log[int]) -> list[int]:
    seen: list[int] = []
    while True:
        await log.wait_async(len(seen))
        if len(log) == len(seen):
            return seen
        seen.append(item_of(log, len(seen)))


def read_in_asyncio(log: Log[int]) -> list[int]:
    return asyncio.run(read_async(log))


def read_in_trio(log: Log[int]) -> list[int]:
    return trio.run(read_async, log)


READERS = pytest.mark.parametrize("reader", [read, read_in_asyncio, read_in_trio], ids=["thread", "asyncio", "trio"])


@READERS
def test_a_reader_misses_no_item_of_a_writer_that_does_not_wait(reader: Callable[[Log[int]], list[int]]) -> None:
    log: Log[int] = Log()
    begun = threading.Barrier(4)

    def begin() -> list[int]:
        begun.wait(5)
        return reader(log)

    with ThreadPoolExecutor(3) as pool:
        reading = [pool.submit(begin) for _ in range(3)]
        begun.wait(5)
        for number in range(MANY):
            log.append(number)
        log.end()
        assert [each.result(10) for each in reading] == [list(range(MANY))] * 3


@READERS
def test_a_reader_that_has_everything_is_woken_by_each_item_and_by_the_end(
    reader: Callable[[Log[int]], list[int]],
) -> None:
    log: Log[int] = Log()
    echo: Log[int] = Log()  # the writer writes on only after the reader has read

    def echoed() -> list[int]:
        return reader(log)

    def watch() -> None:
        for number in range(50):
            log.wait(number)
            echo.append(number)

    with ThreadPoolExecutor(2) as pool:
        reading, watching = pool.submit(echoed), pool.submit(watch)
        for number in range(50):
            log.append(number)
            echo.wait(number)
        watching.result(5)
        log.end()
        assert reading.result(5) == list(range(50))


def test_only_the_first_end_counts() -> None:
    log: Log[int] = Log()
    error = ValueError("first")
    assert log.end(error)
    assert not log.end(cancelled=True)
    assert log.is_ended
    assert not log.is_cancelled
    assert log.error is error


def test_of_threads_that_end_it_at_once_one_succeeds() -> None:
    for _ in range(50):
        log: Log[int] = Log()
        ready = threading.Barrier(4)

        def end(number: int, log: Log[int] = log, ready: threading.Barrier = ready) -> bool:
            ready.wait(5)
            return log.end(cancelled=number % 2 == 0)

        with ThreadPoolExecutor(4) as pool:
            assert sum(pool.map(end, range(4))) == 1


def test_a_reader_that_was_cancelled_is_forgotten_and_the_others_are_woken() -> None:
    async def main() -> None:
        log: Log[int] = Log()
        waiting = [asyncio.create_task(log.wait_async(0)) for _ in range(3)]
        await asyncio.sleep(0)  # one step: they wait
        waiting[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[1]
        log.append(1)
        await asyncio.wait_for(asyncio.gather(waiting[0], waiting[2]), 5)

    asyncio.run(main())


def test_a_reader_whose_loop_has_ended_does_not_disturb_the_writer() -> None:
    async def main() -> None:
        waiting.send(None)  # one step by hand: it registers, and is never stepped again

    log: Log[int] = Log()
    waiting = log.wait_async(0)
    asyncio.run(main())
    log.append(1)
    log.end()
    assert read(log) == [1]
    waiting.close()


def test_waiting_for_what_is_there_does_not_wait() -> None:
    log: Log[int] = Log()
    log.append(1)
    log.wait(0)
    log.end()
    log.wait(1)
    asyncio.run(log.wait_async(0))
    asyncio.run(log.wait_async(1))
    trio.run(log.wait_async, 1)


class Overtaken(Log[int]):
    """A log whose writer is faster: it writes just after a reader has looked and before it waits."""

    def __init__(self) -> None:
        super().__init__()
        self._to_write = [1]

    def has(self, position: int) -> bool:
        seen = super().has(position)
        while self._to_write:
            self.append(self._to_write.pop())
        return seen


WAITS: dict[str, Callable[[Log[int]], object]] = {
    "thread": lambda log: log.wait(0),
    "asyncio": lambda log: asyncio.run(log.wait_async(0)),
    "trio": lambda log: trio.run(log.wait_async, 0),
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_an_item_that_comes_between_the_look_and_the_wait_is_not_missed(wait: Callable[[Log[int]], object]) -> None:
    log = Overtaken()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait, log)
        try:
            waiting.result(5)
        finally:
            log.end()  # lets go a reader that was forgotten
