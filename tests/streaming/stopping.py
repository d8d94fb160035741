"""All ways to stop a run: each starts a flow, waits until it is where it should be, and stops it."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias

import anyio
import anyio.to_thread
import pytest

from rxflow import Flow
from rxflow.types.streaming import FlowStreamingOutput
from tests.gate import PATIENCE_S, Gate


@dataclass
class Scene:
    """A flow, and when it has come to the point where it is to be stopped."""

    flow: Flow
    reached: Callable[[], object]
    shown: Gate
    """Opened at the first chunk."""
    errors: list[BaseException] = field(default_factory=list[BaseException])

    def show(self, chunk: object) -> None:
        self.shown.open()

    def fail(self, error: BaseException) -> None:
        """What a subscriber is told; those who iterate are told by an exception."""
        self.errors.append(error)

    def arrive(self) -> None:
        """Wait until it is there."""
        try:
            self.reached()
        except AssertionError as error:
            caught = getattr(self.flow, "caught", [])
            error.add_note(f"the run had failed with {self.errors!r}; its methods had caught {caught!r}")
            raise


Stopped: TypeAlias = FlowStreamingOutput | None
"""The output of the run that was stopped, where one was held; close() and all others have returned."""


Stop = Callable[[Scene], Stopped]


def by_close(scene: Scene) -> Stopped:
    output = scene.flow.kickoff()
    reader = read_in_thread(scene, output)
    scene.arrive()
    output.close()
    ended(reader)
    return output


def by_with(scene: Scene) -> Stopped:
    with scene.flow.kickoff() as output:
        reader = read_in_thread(scene, output)
        scene.arrive()
    ended(reader)
    return output


def by_aclose(scene: Scene) -> Stopped:
    async def main() -> Stopped:
        output = await scene.flow.kickoff_async()
        reading = asyncio.create_task(read(scene, output))
        await asyncio.to_thread(scene.arrive)
        await output.aclose()
        await reading
        return output

    return in_asyncio(main)


def by_close_in_asyncio(scene: Scene) -> Stopped:
    async def main() -> Stopped:
        output = await scene.flow.kickoff_async()
        reading = asyncio.create_task(read(scene, output))
        await asyncio.to_thread(scene.arrive)
        output.close()
        await reading
        return output

    return in_asyncio(main)


def by_async_with(scene: Scene) -> Stopped:
    async def main() -> Stopped:
        async with await scene.flow.kickoff_async() as output:
            reading = asyncio.create_task(read(scene, output))
            await asyncio.to_thread(scene.arrive)
        await reading
        return output

    return in_asyncio(main)


def by_disposal(scene: Scene) -> Stopped:
    subscription = scene.flow.observe().subscribe(scene.show, scene.fail)
    scene.arrive()
    subscription.dispose()
    return None


def by_disposal_in_asyncio(scene: Scene) -> Stopped:
    async def main() -> Stopped:
        subscription = scene.flow.observe().subscribe(scene.show, scene.fail)
        await asyncio.to_thread(scene.arrive)
        subscription.dispose()
        return None

    return in_asyncio(main)


def by_disposal_from_another_thread(scene: Scene) -> Stopped:
    async def main() -> Stopped:
        def dispose() -> Stopped:
            scene.arrive()
            subscription.dispose()
            return None

        subscription = scene.flow.observe().subscribe(scene.show, scene.fail)
        return await asyncio.to_thread(dispose)

    return in_asyncio(main)


def by_collection(scene: Scene) -> Stopped:
    async def main() -> Stopped:
        output = await scene.flow.kickoff_async()
        reading = asyncio.create_task(read(scene, output))
        await asyncio.to_thread(scene.arrive)
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
        assert not output.is_cancelled
        del reading
        await asyncio.sleep(0)  # asyncio itself holds the task, and so the reader's traceback, until the next step
        with pytest.warns(ResourceWarning, match="FlowStreamingOutput was dropped"):
            del output
        return None

    return in_asyncio(main)


def by_cancelling_the_reading_task(scene: Scene) -> Stopped:
    async def main() -> Stopped:
        output = await scene.flow.kickoff_async()

        async def reader() -> None:
            async with output:
                await read(scene, output)

        reading = asyncio.create_task(reader())
        await asyncio.to_thread(scene.arrive)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        return output

    return in_asyncio(main)


def by_cancelling_the_task_that_awaits_the_result(scene: Scene) -> Stopped:
    async def main() -> Stopped:
        scene.flow.stream = False
        awaiting = asyncio.create_task(scene.flow.kickoff_async())
        await asyncio.to_thread(scene.arrive)
        awaiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await awaiting
        return None

    return in_asyncio(main)


def by_cancel_scope_on(backend: str) -> Stop:
    def stop(scene: Scene) -> Stopped:
        async def main() -> Stopped:
            output = await scene.flow.kickoff_async()
            async with anyio.create_task_group() as group:

                async def reader() -> None:
                    async with output:
                        await read(scene, output)

                group.start_soon(reader)
                await anyio.to_thread.run_sync(scene.arrive)
                group.cancel_scope.cancel()
            return output

        return anyio.run(main, backend=backend)

    return stop


def by_asyncio_ending(scene: Scene) -> Stopped:
    async def main() -> None:
        scene.flow.observe().subscribe(scene.show, scene.fail)
        await asyncio.to_thread(scene.arrive)

    asyncio.run(main())
    return None


WAYS = {
    "close": by_close,
    "with": by_with,
    "aclose": by_aclose,
    "close in asyncio": by_close_in_asyncio,
    "async with": by_async_with,
    "disposal": by_disposal,
    "disposal in asyncio": by_disposal_in_asyncio,
    "disposal from another thread": by_disposal_from_another_thread,
    "collection": by_collection,
    "cancelled reader": by_cancelling_the_reading_task,
    "cancelled await": by_cancelling_the_task_that_awaits_the_result,
    "cancel scope on asyncio": by_cancel_scope_on("asyncio"),
    "cancel scope on trio": by_cancel_scope_on("trio"),
    "asyncio.run ends": by_asyncio_ending,
}


def in_asyncio(main: Callable[[], Awaitable[Stopped]]) -> Stopped:
    """Run it, and see that nothing of the run is left on the loop."""

    async def checked() -> Stopped:
        stopped = await main()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:
            _, pending = await asyncio.wait(left, timeout=PATIENCE_S)
            assert not pending
        return stopped

    return asyncio.run(checked())


def read_in_thread(scene: Scene, output: FlowStreamingOutput) -> threading.Thread:
    def read() -> None:
        for chunk in output:
            scene.show(chunk)

    thread = threading.Thread(target=read, name="reader")
    thread.start()
    return thread


async def read(scene: Scene, output: FlowStreamingOutput) -> None:
    async for chunk in output:
        scene.show(chunk)


def ended(thread: threading.Thread) -> None:
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
