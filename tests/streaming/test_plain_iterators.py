"""Outputs of plain iterators, which programs use in their tests."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import trio
import trio.testing

from rxflow.types.streaming import (
    CrewStreamingOutput,
    FlowStreamingOutput,
    StreamChunk,
)
from tests.gate import PATIENCE_S
from tests.streaming.test_output import EARLY, read, read_in_thread


class TestPlainIterators:
    """Outputs that are built from iterators, as the tests of streaming programs do."""

    @staticmethod
    def chunk(content: str) -> StreamChunk:
        return StreamChunk(content=content)

    def sync_chunks(self, *contents: str, error: Exception | None = None) -> Iterator[StreamChunk]:
        yield from map(self.chunk, contents)
        if error is not None:
            raise error

    async def async_chunks(self, *contents: str, error: Exception | None = None) -> AsyncIterator[StreamChunk]:
        for content in contents:
            yield self.chunk(content)
        if error is not None:
            raise error

    def test_a_sync_iterator_is_read_by_for(self) -> None:
        output = FlowStreamingOutput(sync_iterator=self.sync_chunks("a", "b"))
        assert read_in_thread(output) == ["a", "b"]
        assert output.is_completed
        assert output.get_full_text() == "ab"
        assert read_in_thread(output) == ["a", "b"]

    def test_an_async_iterator_is_read_by_async_for(self) -> None:
        async def main() -> list[list[str]]:
            return [await read(output), await read(output)]

        output = FlowStreamingOutput(async_iterator=self.async_chunks("a", "b"))
        assert asyncio.run(main()) == [["a", "b"]] * 2
        assert output.is_completed

    def test_an_async_iterator_is_read_under_trio(self) -> None:
        output = FlowStreamingOutput(async_iterator=self.async_chunks("a", "b"))
        assert trio.run(read, output) == ["a", "b"]

    def test_an_iterator_is_pulled_one_item_at_a_time(self) -> None:
        pulled: list[str] = []

        def chunks() -> Iterator[StreamChunk]:
            for content in "ab":
                pulled.append(content)
                yield self.chunk(content)

        output = FlowStreamingOutput(sync_iterator=chunks())
        assert pulled == []
        cursor = iter(output)
        next(cursor)
        assert pulled == ["a"]

    def test_two_readers_share_one_iterator(self) -> None:
        output = FlowStreamingOutput(sync_iterator=self.sync_chunks("a", "b"))
        both = [[left.content, right.content] for left, right in zip(output, output, strict=True)]
        assert both == [["a", "a"], ["b", "b"]]

    def test_two_threads_share_one_generator(self) -> None:
        def chunks() -> Iterator[StreamChunk]:
            for content in words:
                time.sleep(0)  # lets the other thread in, which must not enter the generator now
                yield self.chunk(content)

        def reader() -> list[str]:
            begun.wait(PATIENCE_S)
            return read_in_thread(output)

        words = [str(number) for number in range(300)]
        begun = threading.Barrier(2)
        output = FlowStreamingOutput(sync_iterator=chunks())
        with ThreadPoolExecutor(2) as pool:
            reading = [pool.submit(reader), pool.submit(reader)]
            assert [each.result(PATIENCE_S) for each in reading] == [words] * 2

    def test_two_tasks_share_one_async_generator(self) -> None:
        async def main() -> None:
            async def chunks() -> AsyncIterator[StreamChunk]:
                await asyncio.sleep(0)  # the other reader comes while this one is inside
                yield self.chunk("a")

            output = FlowStreamingOutput(async_iterator=chunks())
            first, second = await asyncio.gather(read(output), read(output))
            assert first == second == ["a"]

        asyncio.run(main())

    def test_the_result_can_be_given(self) -> None:
        output = FlowStreamingOutput(sync_iterator=self.sync_chunks("a"), result={"topic": "rain"})
        with pytest.raises(RuntimeError, match=EARLY):
            _ = output.result
        list(output)
        assert output.result == {"topic": "rain"}

    def test_an_error_of_the_iterator_comes_after_its_items_and_again_by_result(self) -> None:
        output = FlowStreamingOutput(sync_iterator=self.sync_chunks("a", error=ValueError("no more")))
        cursor = iter(output)
        assert next(cursor).content == "a"
        with pytest.raises(ValueError, match="no more"):
            next(cursor)
        with pytest.raises(ValueError, match="no more"):
            _ = output.result
        assert output.is_completed

    def test_an_error_of_an_async_iterator_comes_after_its_items(self) -> None:
        async def main() -> None:
            cursor = aiter(output)
            assert (await anext(cursor)).content == "a"
            with pytest.raises(ValueError, match="no more"):
                await anext(cursor)

        output = CrewStreamingOutput(async_iterator=self.async_chunks("a", error=ValueError("no more")))
        asyncio.run(main())
        with pytest.raises(ValueError, match="no more"):
            _ = output.result

    def test_close_ends_it_after_what_had_arrived(self) -> None:
        output = FlowStreamingOutput(sync_iterator=self.sync_chunks("a", "b"))
        next(iter(output))
        output.close()
        assert (output.is_cancelled, output.is_completed) == (True, True)
        assert read_in_thread(output) == ["a"]

    def test_aclose_ends_it_after_what_had_arrived(self) -> None:
        async def main() -> list[str]:
            async with output:
                await anext(aiter(output))
            return await read(output)

        output = FlowStreamingOutput(async_iterator=self.async_chunks("a", "b"))
        assert asyncio.run(main()) == ["a"]
        assert output.is_cancelled

    def test_a_generator_that_a_cancelled_reader_has_ended_is_not_complete(self) -> None:
        async def main() -> None:
            async def chunks() -> AsyncIterator[StreamChunk]:
                yield self.chunk("a")
                begun.set()
                await asyncio.Event().wait()
                yield self.chunk("b")

            begun = asyncio.Event()
            output = FlowStreamingOutput(async_iterator=chunks(), result="ab")
            reading = asyncio.create_task(read(output))
            await begun.wait()
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert await read(output) == ["a"]
            assert output.is_cancelled
            with pytest.raises(RuntimeError, match="cancelled"):
                _ = output.result

        asyncio.run(main())

    def test_a_generator_that_an_interrupt_has_ended_is_not_complete(self) -> None:
        def chunks() -> Iterator[StreamChunk]:
            yield self.chunk("a")
            raise KeyboardInterrupt

        output = FlowStreamingOutput(sync_iterator=chunks(), result="a")
        with pytest.raises(KeyboardInterrupt):
            list(output)
        assert [chunk.content for chunk in output] == ["a"]
        assert output.is_cancelled

    def test_an_iterator_that_outlives_a_cancelled_reader_goes_on(self) -> None:
        class Chunks:
            def __init__(self) -> None:
                self.asked = asyncio.Event()
                self.waiting = asyncio.Queue[StreamChunk | None]()

            def __aiter__(self) -> AsyncIterator[StreamChunk]:
                return self

            async def __anext__(self) -> StreamChunk:
                self.asked.set()
                chunk = await self.waiting.get()
                if chunk is None:
                    raise StopAsyncIteration
                return chunk

        async def main() -> None:
            chunks = Chunks()
            output = FlowStreamingOutput(async_iterator=chunks)
            reading = asyncio.create_task(read(output))
            await chunks.asked.wait()
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            for each in (self.chunk("a"), None):
                chunks.waiting.put_nowait(each)
            assert await read(output) == ["a"]
            assert not output.is_cancelled

        asyncio.run(main())

    def test_an_iterator_whose_output_is_closed_while_a_reader_waits_is_closed_by_the_cancelled_reader(self) -> None:
        class Chunks:
            def __init__(self) -> None:
                self.asked = asyncio.Event()
                self.closed = 0

            def __aiter__(self) -> AsyncIterator[StreamChunk]:
                return self

            async def __anext__(self) -> StreamChunk:
                self.asked.set()
                await asyncio.Event().wait()
                raise StopAsyncIteration

            async def aclose(self) -> None:
                self.closed += 1

        async def main() -> None:
            chunks = Chunks()
            output = FlowStreamingOutput(async_iterator=chunks)
            reading = asyncio.create_task(read(output))
            await chunks.asked.wait()
            await output.aclose()
            assert chunks.closed == 0  # the reader is inside
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert chunks.closed == 1

        asyncio.run(main())

    @pytest.mark.parametrize("readers", [1, 2])
    @pytest.mark.parametrize("steps", range(4))
    def test_a_generator_is_closed_however_far_its_cancelled_readers_had_come(self, readers: int, steps: int) -> None:
        """A reference to the generator is kept, so that the garbage collection does not close it."""

        async def main() -> None:
            async def chunks() -> AsyncGenerator[StreamChunk]:
                try:
                    for content in "ab":
                        yield self.chunk(content)
                    await asyncio.Event().wait()
                finally:
                    is_closed.set()

            is_closed = asyncio.Event()
            generator = chunks()
            output = FlowStreamingOutput(async_iterator=generator)
            await anext(aiter(output))
            reading = [asyncio.create_task(read(output)) for _ in range(readers)]
            for _ in range(steps):
                await asyncio.sleep(0)
            await output.aclose()
            for each in reading:
                each.cancel()
            await asyncio.gather(*reading, return_exceptions=True)
            assert is_closed.is_set()

        asyncio.run(main())

    def test_a_generator_whose_reader_is_in_a_cancelled_scope_of_trio_is_closed(self) -> None:
        async def main() -> None:
            async def chunks() -> AsyncGenerator[StreamChunk]:
                try:
                    yield self.chunk("a")
                    await trio.sleep_forever()
                finally:
                    ended.append("closed")

            ended: list[str] = []
            generator = chunks()
            output = FlowStreamingOutput(async_iterator=generator)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, output)
                await trio.testing.wait_all_tasks_blocked()
                await output.aclose()
                nursery.cancel_scope.cancel()
            assert ended == ["closed"]

        trio.run(main)

    def test_an_iterator_whose_output_is_closed_while_a_reader_waits_is_closed_by_the_interrupted_reader(self) -> None:
        class Chunks:
            def __init__(self) -> None:
                self.closed = 0

            def __iter__(self) -> Iterator[StreamChunk]:
                return self

            def __next__(self) -> StreamChunk:
                output.close()  # as another thread would do while this reader waits
                assert self.closed == 0
                raise KeyboardInterrupt

            def close(self) -> None:
                self.closed += 1

        chunks = Chunks()
        output = FlowStreamingOutput(sync_iterator=chunks)
        with pytest.raises(KeyboardInterrupt):
            list(output)
        assert chunks.closed == 1

    def test_reading_it_the_wrong_way_says_which_is_the_right_one(self) -> None:
        with pytest.raises(RuntimeError, match="`async for`"):
            list(FlowStreamingOutput(async_iterator=self.async_chunks("a")))
        with pytest.raises(RuntimeError, match="`for`"):
            asyncio.run(read(FlowStreamingOutput(sync_iterator=self.sync_chunks("a"))))

    def test_it_takes_exactly_one_iterator(self) -> None:
        with pytest.raises(TypeError, match="exactly one"):
            FlowStreamingOutput()
        with pytest.raises(TypeError, match="exactly one"):
            CrewStreamingOutput(sync_iterator=self.sync_chunks(), async_iterator=self.async_chunks())
