"""The ways in which the benchmark of many flows opens many streams: bare, and as flows."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import aiohttp
import httpx

from benchmarks.provider import BODY, text_of
from rxflow import LLM, Agent, Crew, Flow, Task
from rxflow.flow import start
from rxflow.tools import BaseTool, tool
from tests.team import Asking

Way: TypeAlias = Callable[[str, int], Awaitable[int]]
"""Opens so many streams at a base URL at once, and gives the number of chunks in all."""


async def bare_httpx(url: str, flows: int) -> int:
    """httpx, its lines, and json; all streams through one client, whose limits are lifted."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(timeout=60, limits=limits) as client:

        async def read() -> int:
            async with client.stream("POST", f"{url}/chat/completions", json=BODY) as response:
                return sum([1 async for line in response.aiter_lines() if text_of(line)])

        return sum(await asyncio.gather(*(read() for _ in range(flows))))


async def bare_aiohttp(url: str, flows: int) -> int:
    """aiohttp, its lines, and json."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def read() -> int:
            async with session.post(f"{url}/chat/completions", json=BODY) as response:
                return sum([1 async for line in response.content if text_of(line)])

        return sum(await asyncio.gather(*(read() for _ in range(flows))))


async def rxflow_flows(url: str, flows: int) -> int:
    """Flows of one async method, each read by ``async for``."""
    llm = LLM("openai/gpt-4o", base_url=url, api_key="none", connect_timeout=60)

    async def read() -> int:
        flow = Asking()
        flow.llm = llm
        return sum([1 async for chunk in await flow.kickoff_async() if chunk.content])

    return sum(await asyncio.gather(*(read() for _ in range(flows))))


class Waiting(Flow):
    """A sync method that waits for its crew, whose agent waits for a sync tool."""

    stream = True
    llm: LLM
    look: BaseTool

    @start()
    def work(self) -> str:
        agent = Agent(role="Reader", goal="Read", backstory="Reads", llm=self.llm, tools=[self.look])
        task = Task(description="Look", expected_output="What there is", agent=agent)
        return str(Crew(agents=[agent], tasks=[task]).kickoff())


async def blocking_flows(url: str, flows: int) -> tuple[int, int]:
    """Chunks of text, and the most threads that there were: all tools are held until the last is at work."""
    llm = LLM("openai/gpt-4o", base_url=url, api_key="none", connect_timeout=60)
    met = threading.Barrier(flows)
    threads: list[int] = []

    @tool
    def look() -> str:
        """Look at it."""
        met.wait(60)
        threads.append(threading.active_count())
        return "seen"

    async def read() -> int:
        flow = Waiting()
        flow.llm, flow.look = llm, look
        return sum([1 async for chunk in await flow.kickoff_async() if chunk.tool_call is None])

    return sum(await asyncio.gather(*(read() for _ in range(flows)))), max(threads)


SHARED = "bare httpx + json, one shared client"
OURS = "rxflow"
WAYS: dict[str, Way] = {SHARED: bare_httpx, "bare aiohttp + json": bare_aiohttp, OURS: rxflow_flows}
