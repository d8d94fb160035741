"""Deltas on their way from the I/O loop to the loop of a run."""

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any

from rxflow.llm._io import MAX_STEP, Deliver, from_io


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
        deliver([str(number) for number in range(10 * MAX_STEP + 1)])

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
    assert seen == [str(number) for number in range(10 * MAX_STEP + 1)]
    assert steps >= 10


def test_one_that_is_left_in_its_midst_leaves_the_loop_nothing_to_do() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, CountingLoop)
        delivered = asyncio.Event()

        async def read(deliver: Deliver) -> None:
            deliver(["word"] * 10 * MAX_STEP)
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
