"""Rate limits that machines share through Redis: two processes stand for two machines."""

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rxflow import LLM
from rxflow.llm._io import submit
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


def ask_redis(redis: RedisServer, *words: str) -> str:
    command = ["redis-cli", "-p", str(redis.port), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_wait_that_is_stopped_while_redis_counts_leaves_its_slot_to_the_next(redis: RedisServer) -> None:
    limits = RateLimits(key="stopped", model="m", max_rpm=1, store=redis.url)

    async def main() -> None:
        ask_redis(redis, "config", "resetstat")
        ask_redis(redis, "client", "pause", "60000", "write")  # counting waits, and reading does not
        stopped = asyncio.create_task(limits.acquire("a", 0))
        await asyncio.to_thread(
            poll,
            lambda: ask_redis(redis, "info", "commandstats"),
            lambda said: "cmdstat_get:" in said,
            "nothing was read",
        )
        stopped.cancel()
        await asyncio.gather(stopped, return_exceptions=True)
        ask_redis(redis, "client", "unpause")
        await limits.acquire("b", 0)

    asyncio.run(asyncio.wait_for(main(), PATIENCE_S))


def test_a_pause_does_not_end_a_longer_one_that_comes_while_it_is_set(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if another machine set the longer one, after this one has looked and before it writes."""
    limits = RateLimits(key="paused", model="m", max_rpm=1, store=redis.url)
    pauses: list[Future[Any]] = []

    def record_and_submit(work: Coroutine[Any, Any, Any]) -> Future[Any]:
        pauses.append(submit(work))
        return pauses[-1]

    def await_held(count: int) -> None:
        poll(
            lambda: ask_redis(redis, "client", "list").count("flags=b"),  # clients whose command Redis holds back
            lambda held: held == count,
            f"Redis does not hold back {count} commands",
        )

    monkeypatch.setattr("rxflow.llm._limits.submit", record_and_submit)
    limits.back_off(600)
    pauses.pop().result(PATIENCE_S)
    (name,) = ask_redis(redis, "--scan", "--pattern", "*pause*paused*").splitlines()
    ask_redis(redis, "rename", name, "elsewhere")
    ask_redis(redis, "client", "pause", "60000", "write")  # writing waits in the order of arrival; reading does not
    with ThreadPoolExecutor(1) as pool:
        longer = pool.submit(ask_redis, redis, "rename", "elsewhere", name)
        await_held(1)
        limits.back_off(1)
        await_held(2)
        ask_redis(redis, "client", "unpause")
        assert longer.result(PATIENCE_S) == "OK\n"
    pauses.pop().result(PATIENCE_S)
    assert int(ask_redis(redis, "ttl", name)) > 500


def test_a_longer_pause_replaces_a_shorter_one(redis: RedisServer) -> None:
    limits = RateLimits(key="replaced", model="m", max_rpm=1, store=redis.url)
    for delay in (60, 600):
        limits.back_off(delay)

    def read_ttls() -> list[int]:
        names = ask_redis(redis, "--scan", "--pattern", "*pause*replaced*").splitlines()
        return [int(ask_redis(redis, "ttl", name)) for name in names]

    poll(read_ttls, lambda ttls: len(ttls) == 1 and ttls[0] > 500, "the longer pause was not set")
