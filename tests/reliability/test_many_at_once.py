"""Hundreds of flows whose methods and tools block, at once: each has the thread that it needs."""

import asyncio
import threading
from collections import Counter
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
import trio

from rxflow import LLM, Flow
from rxflow.flow import listen, start
from rxflow.tools import BaseTool, tool
from tests.gate import PATIENCE_S, Gate
from tests.loopback import Loopback, Reply, Request, ToolCall
from tests.streaming.speaking import Speaking
from tests.team import solo

pytestmark = pytest.mark.slow

FLOWS = 200


class Blocking(Flow):
    """A sync method that waits for its crew, whose agent waits for a sync tool; then one more."""

    stream = True

    def __init__(self, llm: LLM, met: threading.Barrier) -> None:
        @tool
        def meet() -> str:
            """Wait until the tools of all flows are at work."""
            met.wait(PATIENCE_S)
            return "met"

        self.crew = solo(llm, agent={"tools": [meet]})
        super().__init__()

    @start()
    def work(self) -> str:
        return str(self.crew.kickoff())

    @listen(work)
    def pass_on(self, result: str) -> str:
        return result


def answer(request: Request) -> Reply:
    used = any(message.get("role") == "tool" for message in request.messages)
    return Reply(text=["do", "ne"]) if used else Reply(tool_calls=[ToolCall("meet", {})])


class Asking(Flow):
    """An async method that calls the model with sync tools at hand."""

    stream = True

    def __init__(self, llm: LLM, name: str, tools: list[BaseTool]) -> None:
        self.llm, self.named, self.tools = llm, name, tools
        super().__init__()

    @start()
    async def question(self) -> str:
        return str(await self.llm.acall(self.named, tools=self.tools))


def call_what_is_named(request: Request) -> Reply:
    return Reply(tool_calls=[ToolCall(request.last_user, {})])


def test_tools_of_a_bare_call_that_wait_for_others_of_their_kind_do_not_starve_them(
    provider: Loopback, llm: LLM
) -> None:
    """anyio has 40 threads, for all who ask."""
    many = 50
    met = threading.Barrier(many)
    provider.answer(call_what_is_named)

    @tool
    def inner() -> str:
        """Find it."""
        return "gold"

    @tool
    def outer() -> str:
        """Have it found, once all are here."""
        met.wait(PATIENCE_S)
        return "".join(chunk.content for chunk in Asking(llm, "inner", [inner]).kickoff())

    async def read(flow: Asking) -> None:
        async for _ in await flow.kickoff_async():
            pass

    async def main() -> None:
        await asyncio.gather(*(read(Asking(llm, "outer", [outer])) for _ in range(many)))

    asyncio.run(main())
    assert len(provider.requests) == provider.completed == 2 * many


def test_aclose_does_not_wait_for_a_thread_of_anyios() -> None:
    busy = Gate()
    at_work: list[None] = []

    async def main() -> None:
        output = await Speaking("a", Gate()).kickoff_async()  # under trio its run has a thread of its own
        await anext(aiter(output))
        all_at_work = anyio.Event()

        def work() -> None:
            at_work.append(None)
            if len(at_work) == 40:
                anyio.from_thread.run_sync(all_at_work.set)
            busy.wait(PATIENCE_S)

        async with anyio.create_task_group() as group:
            for _ in range(40):
                group.start_soon(anyio.to_thread.run_sync, work)
            await all_at_work.wait()
            await output.aclose()
            busy.open()
        assert output.is_cancelled

    trio.run(main)


def test_none_waits_for_a_thread_for_ever(provider: Loopback, llm: LLM) -> None:
    met = threading.Barrier(FLOWS)  # were there any bound on threads below 400, nobody would pass it
    provider.answer(answer)
    before = Counter(thread.name for thread in threading.enumerate())

    async def read(flow: Blocking) -> tuple[str, Any]:
        output = await flow.kickoff_async()
        said = [chunk.content async for chunk in output if chunk.tool_call is None]
        return "".join(said), output.result

    async def main() -> list[tuple[str, Any]]:
        return await asyncio.gather(*(read(Blocking(llm, met)) for _ in range(FLOWS)))

    assert asyncio.run(main()) == [("done", "done")] * FLOWS
    assert not met.broken
    assert len(provider.requests) == provider.completed == 2 * FLOWS
    started = Counter(thread.name for thread in threading.enumerate()) - before
    assert not [name for name in started if name.startswith("rxflow ") and name != "rxflow I/O"]
