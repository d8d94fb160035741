"""Rate limits that machines share through Redis: two processes stand for two machines."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from rxflow import LLM
from tests.loopback.server import Loopback
from tests.runs.redis_server import RedisServer
from tests.signals import Signals

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
    pytest.importorskip("limits", reason="needs the extra: pip install 'rxflow[limits]'")
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
