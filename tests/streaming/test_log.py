"""The log: one writer, any number of readers, from threads and from event loops."""

import asyncio
import gc
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import trio
from hypothesis import given, strategies as st

from rxflow._streaming.log import BLOCK_SIZE, KEPT_BLOCKS, Log, LogReader
from rxflow.types.chunks import Origin, StreamChunk, StreamChunkType, ToolCallChunk
from rxflow.types.streaming import FlowStreamingOutput
from tests.gate import PATIENCE_S

MANY = 5000


def take(reader: LogReader[Any]) -> Iterator[Any]:
    """What there is to read now."""
    while not reader.has_read_all():
        yield reader.read()


def read(log: Log[int]) -> list[int]:
    seen: list[int] = []
    reader = LogReader(log)
    while True:
        log.wait(len(seen))
        if len(log) == len(seen):
            return seen
        seen.extend(take(reader))


async def read_async(log: Log[int]) -> list[int]:
    seen: list[int] = []
    reader = LogReader(log)
    while True:
        await log.wait_async(len(seen))
        if len(log) == len(seen):
            return seen
        seen.extend(take(reader))


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
        begun.wait(PATIENCE_S)
        return reader(log)

    with ThreadPoolExecutor(3) as pool:
        reading = [pool.submit(begin) for _ in range(3)]
        begun.wait(PATIENCE_S)
        for number in range(MANY):
            log.append(number)
        log.end()
        assert [each.result(PATIENCE_S) for each in reading] == [list(range(MANY))] * 3


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
        watching.result(PATIENCE_S)
        log.end()
        assert reading.result(PATIENCE_S) == list(range(50))


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
            ready.wait(PATIENCE_S)
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
        await asyncio.wait_for(asyncio.gather(waiting[0], waiting[2]), PATIENCE_S)

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
            waiting.result(PATIENCE_S)
        finally:
            log.end()  # lets go a reader that was forgotten


class Marked(StreamChunk):
    """A user's own kind of chunk."""

    mark: str = "!"


ORIGINS = st.builds(
    Origin,
    agent_role=st.sampled_from(["Reader", "Writer"]),
    task_index=st.integers(0, 2),
    llm_call_id=st.text(max_size=3),
    namespace=st.sampled_from([(), ("flow", "method"), ("flow", "other")]),
    attempt=st.integers(0, 1),
)
TEXTS = st.text(st.characters(codec=None), max_size=6)  # halves of surrogate pairs too


def chunk_of(origin: Origin, text: str, seq: int, call: ToolCallChunk | None) -> StreamChunk:
    chunk = origin.chunk(text) if call is None else origin.tool_chunk(call)
    return chunk.with_seq(seq, seq / 8)


CALLS = st.none() | st.builds(ToolCallChunk, tool_id=st.text(max_size=2), tool_name=st.none(), arguments=TEXTS)
OUR_CHUNKS = st.builds(chunk_of, ORIGINS, TEXTS, st.integers(0, 2**70), CALLS)
FOREIGN = (
    st.builds(StreamChunk, content=TEXTS)
    | st.builds(Marked, content=TEXTS)
    | OUR_CHUNKS.map(lambda chunk: chunk.model_copy(update={"content": 3}))
    | OUR_CHUNKS.map(lambda chunk: chunk.with_attempt(7))
    | st.integers()
    | st.text()
    | st.none()
)
RUNS = st.tuples(ORIGINS, st.lists(TEXTS, min_size=1, max_size=3), st.integers(0, 1000), st.integers(1, 2 * BLOCK_SIZE))


def chunks_in_a_row(run: tuple[Origin, list[str], int, int]) -> list[Any]:
    origin, texts, first, length = run
    return [origin.chunk(texts[number % len(texts)]).with_seq(first + number, 0.5) for number in range(length)]


ITEMS = st.lists(RUNS.map(chunks_in_a_row) | st.lists(OUR_CHUNKS | FOREIGN, max_size=20)).map(
    lambda parts: [item for part in parts for item in part]
)


def seen_of(item: Any) -> Any:
    """All that a reader can see of an item."""
    if isinstance(item, StreamChunk):
        return type(item), item.__dict__, item.model_fields_set
    return item


class TestPacking:
    @given(ITEMS, st.data())
    def test_any_items_read_back_equal_whenever_they_are_read(self, items: list[Any], data: st.DataObject) -> None:
        log: Log[Any] = Log()
        readers: list[tuple[LogReader[Any], list[Any]]] = []
        written = 0
        while written < len(items):
            count = data.draw(st.integers(1, len(items) - written))
            for item in items[written : written + count]:
                log.append(item)
            written += count
            readers.append((LogReader(log), []))
            reader, seen = data.draw(st.sampled_from(readers))
            seen.extend(take(reader))
        log.end()
        readers.append((LogReader(log), []))
        expected = list(map(seen_of, items))
        assert len(log) == len(items)
        assert list(map(seen_of, log.copy())) == expected
        for reader, seen in readers:
            seen.extend(take(reader))
            assert list(map(seen_of, seen)) == expected

    @given(ITEMS)
    def test_the_whole_text_is_that_of_the_text_chunks(self, items: list[Any]) -> None:
        chunks = [item for item in items if isinstance(item, StreamChunk) and type(item.content) is str]
        output = FlowStreamingOutput(sync_iterator=iter(chunks))
        for _ in output:
            pass
        assert output.get_full_text() == "".join(
            chunk.content for chunk in chunks if chunk.chunk_type is StreamChunkType.TEXT
        )
        assert output.chunks == chunks
        assert f"{len(chunks)} chunks" in repr(output)

    def test_a_reader_that_keeps_up_holds_the_originals_and_a_late_one_gets_equal_chunks(self) -> None:
        log: Log[StreamChunk] = Log()
        live = LogReader(log)
        seen: list[StreamChunk] = []
        chunks = [Origin(agent_role="Reader").chunk("tok ").with_seq(seq, 0.5) for seq in range(5 * BLOCK_SIZE + 1)]
        for chunk in chunks:
            log.append(chunk)
            seen.extend(take(live))
        log.end()
        assert all(one is other for one, other in zip(seen, chunks, strict=True))
        late = list(take(LogReader(log)))
        assert late == chunks
        assert all(one is not other for one, other in zip(late, chunks, strict=True))

    def test_a_reader_a_few_blocks_behind_holds_the_originals_too(self) -> None:
        log: Log[StreamChunk] = Log()
        chunks = [Origin().chunk("tok ").with_seq(seq, 0.5) for seq in range(20 * BLOCK_SIZE)]
        behind = LogReader(log)
        seen: list[StreamChunk] = []
        for number, chunk in enumerate(chunks):
            log.append(chunk)
            if number >= KEPT_BLOCKS * BLOCK_SIZE:
                assert not behind.has_read_all()
                seen.append(behind.read())
        assert seen
        assert all(one is other for one, other in zip(seen, chunks, strict=False))

    def test_chunks_of_two_late_readers_are_not_the_same_objects(self) -> None:
        log = filled(Origin().chunk("tok ").with_seq(seq, 0.5) for seq in range(BLOCK_SIZE))
        one, other = list(take(LogReader(log))), list(take(LogReader(log)))
        one[0].content = "changed"
        assert other[0].content == "tok "


CHUNKS = 200 * BLOCK_SIZE


def filled(chunks: Iterator[StreamChunk]) -> Log[StreamChunk]:
    log: Log[StreamChunk] = Log()
    for chunk in chunks:
        log.append(chunk)
    log.end()
    return log


def of_one_call() -> Iterator[StreamChunk]:
    origin = Origin(agent_role="Reader", task_name="reading", namespace=("Flow", "read", "crew"))
    return (origin.chunk(f"tok{seq % 7} ").with_seq(seq, 0.5) for seq in range(CHUNKS))


def of_ten_calls_at_once() -> Iterator[StreamChunk]:
    origins = [Origin(agent_role=f"Reader {n}", task_index=n, llm_call_id=f"call {n}") for n in range(10)]
    return (origins[seq % 10].chunk(f"tok{seq % 7} ").with_seq(seq, 0.5) for seq in range(CHUNKS))


MAX_BYTES_PER_CHUNK = 80


class TestMemory:
    @pytest.mark.slow
    @pytest.mark.parametrize("chunks", [of_one_call, of_ten_calls_at_once])
    def test_a_kept_chunk_is_small_and_no_work_for_the_garbage_collector(
        self, chunks: Callable[[], Iterator[StreamChunk]]
    ) -> None:
        filled(chunks())
        gc.collect()
        objects = len(gc.get_objects())
        tracemalloc.start()
        try:
            log = filled(chunks())
            gc.collect()
            size, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert len(log) == CHUNKS
        assert size / CHUNKS <= MAX_BYTES_PER_CHUNK
        assert (len(gc.get_objects()) - objects) / CHUNKS < 0.12

    def test_a_log_that_grows_starts_no_collection_of_old_objects(self) -> None:
        filled(of_one_call())
        gc.collect()
        before = [generation["collections"] for generation in gc.get_stats()]
        log = filled(of_one_call())
        after = [generation["collections"] for generation in gc.get_stats()]
        assert len(log) == CHUNKS
        assert after[2] == before[2]
        assert after[0] - before[0] < 2 * CHUNKS / 700 / 2  # a chunk is two objects: half as often as without packing
