"""Hundreds of flows whose methods and tools block, at once: each has the thread that it needs."""

import asyncio
import threading
from collections import Counter
from typing import Any

import pytest

from rxflow import LLM, Flow
from rxflow.flow import listen, start
from rxflow.tools import tool
from tests.loopback import Loopback, Reply, Request, ToolCall
from tests.team import solo

FLOWS = 200
PATIENCE = 40.0


class Blocking(Flow):
    """A sync method that waits for its crew, whose agent waits for a sync tool; then one more."""

    stream = True

    def __init__(self, llm: LLM, met: threading.Barrier) -> None:
        @tool
        def meet() -> str:
            """Wait until the tools of all flows are at work."""
            met.wait(PATIENCE)
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


@pytest.mark.timeout(90)
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
