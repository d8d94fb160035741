"""Deltas on their way from the I/O loop to the loop of a run."""

import asyncio
import time
from collections.abc import Callable
from contextvars import Context
from typing import Any

from reactivex import Observable

from rxflow import LLM, Flow
from rxflow.flow import start
from rxflow.llm import Delta, Ending, ReasoningDelta, Request, Source
from rxflow.llm._io import MAX_STEP_DELTAS, Deliver, from_io
from rxflow.types import Event, ReasoningChunk, StreamChunk
from tests.gate import Gate


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts what is to be done in its next steps."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> asyncio.Handle:  # type: ignore[override]
        self.calls += 1
        return super().call_soon(callback, *args, context=context)


def test_a_burst_is_emitted_in_steps_and_in_order() -> None:
    async def read(deliver: Deliver) -> None:
        deliver([str(number) for number in range(10 * MAX_STEP_DELTAS + 1)])

    async def main() -> tuple[list[Any], int]:
        seen: list[Any] = []
        steps = 0
        ended = asyncio.Event()
        from_io(read).subscribe(seen.append, on_completed=ended.set)
        while not ended.is_set():
            await asyncio.sleep(0)
            steps += bool(seen)
        return seen, steps

    seen, steps = asyncio.run(main())
    assert seen == [str(number) for number in range(10 * MAX_STEP_DELTAS + 1)]
    assert steps >= 10


def test_one_that_is_left_in_its_midst_leaves_the_loop_nothing_to_do() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, CountingLoop)
        delivered = asyncio.Event()

        async def read(deliver: Deliver) -> None:
            deliver(["word"] * 10 * MAX_STEP_DELTAS)
            loop.call_soon_threadsafe(delivered.set)

        first = asyncio.Event()
        subscription = from_io(read).subscribe(lambda delta: first.set())
        await first.wait()
        subscription.dispose()
        await delivered.wait()  # the end of the reading was told before or just after
        for _ in range(20):
            await asyncio.sleep(0)
        before = loop.calls
        for _ in range(20):
            await asyncio.sleep(0)
        return loop.calls - before

    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        assert runner.run(main()) <= 30


def test_what_comes_in_one_read_has_one_time() -> None:
    class TwoReads(Source):
        def stream(self, request: Request) -> Observable[Delta]:
            async def read(deliver: Deliver) -> None:
                deliver(["a", ReasoningDelta("why"), "b"])
                await second.passed()
                deliver(["c", "d", Ending()])

            return from_io(read)

    class Hello(Flow[dict[str, Any]]):
        @start()
        async def call(self) -> str:
            return str(await LLM("reads", source=TwoReads()).acall("Hello"))

    second = Gate()
    seen: list[Event] = []

    def keep(event: Event) -> None:
        seen.append(event)
        while time.time() <= event.at:
            pass  # so that a second look at the clock gives another time
        if isinstance(event, StreamChunk) and event.content == "b":
            second.open()

    async def main() -> None:
        ended = asyncio.Event()
        Hello().events().subscribe(keep, on_completed=ended.set)
        await ended.wait()

    asyncio.run(main())
    times = [event.at for event in seen if isinstance(event, StreamChunk | ReasoningChunk)]
    assert len(times) == 5
    assert len(set(times[:3])) == len(set(times[3:])) == 1
    assert times[2] < times[3]
    assert [event.at for event in seen] == sorted(event.at for event in seen)
