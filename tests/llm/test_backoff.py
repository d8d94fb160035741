"""Waits between attempts are litellm's, by a private function of it."""

import pytest

from rxflow import LLM
from tests.loopback import Loopback, Reply

pytestmark = pytest.mark.slow


def test_each_wait_is_twice_the_one_before_it(provider: Loopback) -> None:
    llm = LLM("openai/gpt-4o", base_url=provider.url, api_key="k", max_retries=3)
    provider.script(*[Reply(status=500)] * 3, Reply(text="Hello"))
    delays = [frame.data["delay"] for frame in llm.stream_events("Hi") if frame.type == "llm_call_retrying"]
    # tests/conftest.py has litellm begin with 1 ms, and add up to 1 ms by chance.
    assert delays == [pytest.approx(least + 0.0005, abs=0.0005) for least in (0.001, 0.002, 0.004)]
