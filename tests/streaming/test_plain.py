"""Outputs that are built from plain iterators: closing one closes the generator behind it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import anyio.lowlevel
import pytest

from rxflow.types.streaming import FlowStreamingOutput, StreamChunk
from tests.gate import PATIENCE_S


class Generators:
    """Two endless generators that say when they have cleaned up."""

    def __init__(self) -> None:
        self.ended = 0

    def sync(self) -> Iterator[StreamChunk]:
        try:
            while True:
                yield StreamChunk(content="a")
        finally:
            self.ended += 1

    async def asynchronous(self) -> AsyncIterator[StreamChunk]:
        try:
            while True:
                yield StreamChunk(content="a")
        finally:
            await anyio.lowlevel.checkpoint()
            self.ended += 1


def test_closing_an_output_closes_its_generator() -> None:
    made = Generators()
    generator = made.sync()
    output = FlowStreamingOutput(sync_iterator=generator)
    next(iter(output))
    output.close()
    assert made.ended == 1
    assert next(generator, None) is None


def test_leaving_with_closes_the_generator() -> None:
    made = Generators()
    with FlowStreamingOutput(sync_iterator=(generator := made.sync())) as output:
        next(iter(output))
    assert made.ended == 1
    assert next(generator, None) is None


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_leaving_async_with_closes_an_async_generator(backend: str) -> None:
    async def main() -> None:
        generator = made.asynchronous()
        async with FlowStreamingOutput(async_iterator=generator) as output:
            await anext(aiter(output))
        assert made.ended == 1
        assert await anext(generator, None) is None

    made = Generators()
    anyio.run(main, backend=backend)


def test_aclose_closes_an_async_generator_that_close_could_not_wait_for() -> None:
    async def main() -> None:
        output = FlowStreamingOutput(async_iterator=(generator := made.asynchronous()))
        await anext(aiter(output))
        output.close()
        assert (output.is_cancelled, made.ended) == (True, 0)
        await output.aclose()
        assert made.ended == 1
        assert await anext(generator, None) is None

    made = Generators()
    asyncio.run(main())


def test_aclose_closes_a_sync_generator_too() -> None:
    made = Generators()
    output = FlowStreamingOutput(sync_iterator=(generator := made.sync()))
    next(iter(output))
    asyncio.run(output.aclose())
    assert made.ended == 1
    assert next(generator, None) is None


def test_a_generator_that_a_reader_is_in_is_closed_as_the_reader_comes_out() -> None:
    inside, go_on = threading.Event(), threading.Event()
    ended: list[str] = []

    def chunks() -> Iterator[StreamChunk]:
        try:
            inside.set()
            assert go_on.wait(PATIENCE_S)
            yield StreamChunk(content="too late")
        finally:
            ended.append(threading.current_thread().name)

    output = FlowStreamingOutput(sync_iterator=(generator := chunks()))
    with ThreadPoolExecutor(1, thread_name_prefix="reader") as pool:
        reading = pool.submit(list, output)
        assert inside.wait(PATIENCE_S)
        output.close()
        assert output.is_cancelled
        assert ended == []
        go_on.set()
        assert reading.result(PATIENCE_S) == []
    assert ended == ["reader_0"]
    assert output.chunks == []
    assert next(generator, None) is None


def test_an_async_generator_that_a_reader_is_in_is_closed_as_the_reader_comes_out() -> None:
    async def main() -> None:
        inside, go_on = asyncio.Event(), asyncio.Event()
        ended: list[str] = []

        async def chunks() -> AsyncIterator[StreamChunk]:
            try:
                inside.set()
                await go_on.wait()
                yield StreamChunk(content="too late")
            finally:
                ended.append("ended")

        async def read() -> list[StreamChunk]:
            return [chunk async for chunk in output]

        output = FlowStreamingOutput(async_iterator=(generator := chunks()))
        reading = asyncio.create_task(read())
        await inside.wait()
        await output.aclose()
        assert ended == []
        go_on.set()
        assert await reading == []
        assert ended == ["ended"]
        assert await anext(generator, None) is None

    asyncio.run(main())


def test_a_generator_may_close_its_own_output() -> None:
    def chunks() -> Iterator[StreamChunk]:
        yield StreamChunk(content="a")
        output.close()
        yield StreamChunk(content="too late")

    output = FlowStreamingOutput(sync_iterator=chunks())
    assert [chunk.content for chunk in output] == ["a"]
    assert output.is_cancelled


def test_a_generator_that_fails_to_clean_up_is_reported_and_close_does_not_raise() -> None:
    def chunks() -> Iterator[StreamChunk]:
        try:
            yield StreamChunk(content="a")
        finally:
            raise OSError("the disk is full")

    output = FlowStreamingOutput(sync_iterator=chunks())
    next(iter(output))
    with pytest.warns(RuntimeWarning, match="the disk is full"):
        output.close()
    output.close()
    assert output.is_cancelled


def test_an_iterator_without_a_close_needs_none() -> None:
    output = FlowStreamingOutput(sync_iterator=iter([StreamChunk(content="a"), StreamChunk(content="b")]))
    next(iter(output))
    output.close()
    assert output.is_cancelled


def test_a_generator_that_was_read_to_its_end_is_left_alone() -> None:
    def chunks() -> Iterator[StreamChunk]:
        yield StreamChunk(content="a")

    output = FlowStreamingOutput(sync_iterator=chunks())
    assert len(list(output)) == 1
    output.close()
    assert not output.is_cancelled
