"""Rate limits that machines share through Redis: two processes stand for two machines."""

import asyncio
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from rxflow import LLM
from rxflow.llm._limits import RateLimits
from tests.gate import PATIENCE_S, poll
from tests.loopback.server import Loopback
from tests.runs.redis_server import RedisServer
from tests.signals import Signals

pytest.importorskip("limits", reason="needs the extra: pip install 'rxflow[limits]'")

ROOT = Path(__file__).parents[2]
PROGRAM = textwrap.dedent("""
    import sys
    from rxflow import LLM
    url, store, calls = sys.argv[1:]
    llm = LLM("openai/gpt-4o", base_url=url, api_key="both", max_rpm=3, limit_store=store)
    print(*(llm.call("Hi") is not None for _ in range(int(calls))))
""")


def ask_elsewhere(provider: Loopback, store: str, calls: int) -> None:
    command = [sys.executable, "-c", PROGRAM, provider.url, store, str(calls)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.split() == ["True"] * calls


def test_what_one_process_asks_another_one_cannot_ask_any_more(redis: RedisServer) -> None:
    with Loopback() as provider:
        ask_elsewhere(provider, redis.url, 2)
        llm = LLM("openai/gpt-4o", base_url=provider.url, api_key="both", max_rpm=3, limit_store=redis.url)
        assert llm.call("Hi") is not None
        fourth = Signals().subscribe_to(llm.events("Hi"))
        # What was free to go has gone when another call is back.
        assert LLM("openai/gpt-4o", base_url=provider.url, api_key="free").call("Hi") is not None
        keys = [request.headers["authorization"].removeprefix("Bearer ") for request in provider.requests]
        assert keys == ["both", "both", "both", "free"]
        fourth.dispose()


def test_a_wait_that_is_stopped_while_redis_counts_leaves_its_slot_to_the_next(redis: RedisServer) -> None:
    limits = RateLimits(key="stopped", model="m", max_rpm=1, store=redis.url)

    def cli(*words: str) -> str:
        command = ["redis-cli", "-p", str(redis.port), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    async def main() -> None:
        cli("config", "resetstat")
        cli("client", "pause", "60000", "write")  # counting waits, and reading does not
        stopped = asyncio.create_task(limits.acquire("a", 0))
        counted = ("info", "commandstats")
        await asyncio.to_thread(poll, lambda: cli(*counted), lambda said: "cmdstat_get:" in said, "nothing was read")
        stopped.cancel()
        await asyncio.gather(stopped, return_exceptions=True)
        cli("client", "unpause")
        await limits.acquire("b", 0)

    asyncio.run(asyncio.wait_for(main(), PATIENCE_S))
