"""What code of a run starts by hand belongs to it; and a stream is read on the side on which it lives."""

import asyncio
import threading
from contextlib import suppress
from typing import Any

import pytest

from rxflow import Flow, tool
from rxflow.flow import listen, start
from rxflow.types.streaming import StreamChunk
from tests.gate import Gate
from tests.loopback import Loopback, Reply
from tests.scripted import Scripted
from tests.team import solo
from tests.warned import unawaited


class Background(Flow):
    """Subscribes to a crew by hand, and goes on without it."""

    stream = True
    crew: Any
    heard: list[str]

    @start()
    async def begin(self) -> str:
        arrived = asyncio.Event()

        def hear(chunk: Any) -> None:
            self.heard.append(chunk.content)
            arrived.set()

        self.crew.observe().subscribe(hear)
        await arrived.wait()
        await asyncio.Event().wait()
        return "never"


def test_a_subscription_by_hand_is_stopped_with_the_run(provider: Loopback, llm: Any) -> None:
    async def main() -> None:
        provider.script(Reply(text=["one ", "two"], hold_after=1))
        flow = Background()
        flow.crew = solo(llm)
        flow.heard = []
        streaming = await flow.kickoff_async()
        async with asyncio.TaskGroup() as group:

            async def read() -> None:
                async for _ in streaming:
                    pass

            group.create_task(read())
            await provider.until(lambda p: p.holding)
            await streaming.aclose()
            await provider.until(lambda p: p.disconnects)
        assert flow.heard in ([], ["one "])

    asyncio.run(main())


def test_a_subscription_by_hand_ends_with_the_method_that_made_it() -> None:
    class Leaving(Flow):
        crew: Any = None

        @start()
        async def begin(self) -> str:
            self.crew.observe().subscribe(hear)
            return "left"

        @listen(begin)
        async def go_on(self, said: str) -> str:
            released.set()
            return said

    async def main() -> str:
        async def wait_for_release(request: object) -> None:
            await released.wait()

        flow = Leaving()
        flow.crew = solo(Scripted("too late", before=wait_for_release))
        return str(await flow.kickoff_async())

    heard: list[str] = []

    def hear(chunk: StreamChunk) -> None:
        heard.append(chunk.content)

    released = asyncio.Event()
    assert asyncio.run(main()) == "left"
    assert heard == []


def test_an_async_tool_that_a_stopped_method_runs_is_not_started_and_nothing_warns() -> None:
    @tool
    async def look() -> str:
        """Look."""
        raise AssertionError("it was started")

    class Stopped(Flow):
        @start()
        def work(self) -> None:
            begun.open()
            stopped.wait()
            with suppress(asyncio.CancelledError):
                look.run()
            refused.open()

    begun, stopped, refused = Gate(), Gate(), Gate()
    with unawaited() as warned:
        subscription = Stopped().observe().subscribe()
        begun.wait()
        subscription.dispose()
        stopped.open()
        refused.wait()
    assert warned == []


def test_an_observer_that_raises_in_a_method_ends_its_own_subscription_only() -> None:
    reported: list[dict[str, Any]] = []

    class Careless(Flow):
        @start()
        async def begin(self) -> str:
            done = asyncio.Event()

            def fail(chunk: object) -> None:
                done.set()
                raise LookupError("mine")

            asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))
            solo(Scripted("a few words")).observe().subscribe(fail)
            await done.wait()
            return "unharmed"

    async def main() -> str:
        return str(await Careless().kickoff_async())

    assert asyncio.run(main()) == "unharmed"
    assert [str(context["exception"]) for context in reported] == ["mine"]


def test_a_plain_for_over_a_stream_that_lives_on_this_loop_is_refused() -> None:
    class Slow(Flow):
        stream = True

        @start()
        async def speak(self) -> Any:
            yield "a"
            await asyncio.Event().wait()

    async def main() -> None:
        async with await Slow().kickoff_async() as streaming:
            async for _ in streaming:
                break
            reader = iter(streaming)
            assert next(reader).content == "a"
            with pytest.raises(RuntimeError, match="continue with that"):
                next(reader)

    asyncio.run(main())


def test_another_thread_may_read_it_with_a_plain_for() -> None:
    class Speaking(Flow):
        stream = True

        @start()
        async def speak(self) -> Any:
            yield "a"
            await go_on.wait()
            yield "b"

    heard: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def read() -> None:
            for chunk in streaming:
                heard.append(chunk.content)
                loop.call_soon_threadsafe(go_on.set)

        streaming = await Speaking().kickoff_async()
        async for _ in streaming:
            break
        thread = threading.Thread(target=read)
        thread.start()
        async for _ in streaming:
            pass
        await asyncio.to_thread(thread.join, 5)

    go_on = asyncio.Event()
    asyncio.run(main())
    assert heard == ["a", "b"]
