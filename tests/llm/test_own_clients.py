"""HTTP clients that litellm makes for a call are closed, and not left to the collector.

It closes sockets without the loop's knowledge. The client closes itself at that, and takes the next connection with the
same number from the loop, whose call then waits for its time-out.
"""

import gc
import importlib
from collections.abc import Generator
from typing import Any

import pytest
from reactivex import operators as ops

from rxflow import LLM
from tests.loopback import Loopback, Reply

MODEL = "text-completion-openai/gpt-3.5-turbo-instruct"


@pytest.fixture(scope="module")
def litellm() -> Any:
    return importlib.import_module("litellm")


@pytest.fixture
def no_collection() -> Generator[None]:
    gc.disable()
    yield
    gc.enable()


def make_llm(provider: Loopback, **options: Any) -> LLM:
    return LLM(MODEL, base_url=provider.url, api_key="k", max_retries=0, **options)


def wait_for_no_connection(provider: Loopback) -> None:
    provider.wait_until(lambda seen: seen.connections > 0 and seen.open_connections == 0)


@pytest.mark.usefixtures("no_collection")
class TestATextCompletion:
    def test_closes_its_client_after_its_answer(self, provider: Loopback) -> None:
        provider.script(Reply(text="one"), Reply(text="two"))
        llm = make_llm(provider)
        assert [llm.call("Hello"), llm.call("Hello")] == ["one", "two"]
        wait_for_no_connection(provider)

    def test_closes_its_client_after_an_error(self, provider: Loopback, litellm: Any) -> None:
        provider.script(Reply(status=400, error="no"))
        with pytest.raises(litellm.BadRequestError):
            make_llm(provider).call("Hello")
        wait_for_no_connection(provider)

    @pytest.mark.slow
    def test_closes_its_client_after_a_time_out(self, provider: Loopback, litellm: Any) -> None:
        provider.script(Reply(text=["one", "two"], stall_after=1))
        with pytest.raises(litellm.Timeout):
            make_llm(provider, timeout=2.0).call("Hello")
        wait_for_no_connection(provider)

    def test_closes_its_client_when_it_is_closed_itself(self, provider: Loopback) -> None:
        provider.script(Reply(text=["one", "two", "three", "four"], hold_after=3))
        assert make_llm(provider).observe("Hello").pipe(ops.take(1)).run().content == "one"
        wait_for_no_connection(provider)


@pytest.fixture
def small_cache(litellm: Any) -> Generator[None]:
    """LiteLLM keeps one client, and httpx's own connections, which it does if a program does not want aiohttp's."""
    cache = litellm.in_memory_llm_clients_cache
    before = (cache.max_size_in_memory, litellm.disable_aiohttp_transport)
    cache.max_size_in_memory, litellm.disable_aiohttp_transport = 1, True
    yield
    cache.max_size_in_memory, litellm.disable_aiohttp_transport = before


@pytest.mark.slow
@pytest.mark.usefixtures("small_cache")
def test_a_client_that_litellm_forgets_is_not_collected(provider: Loopback) -> None:
    provider.answer(lambda request: Reply(text="fine"))
    for number in range(3):
        llm = LLM("openai/gpt-4o", base_url=f"{provider.url}/{number}", api_key="k", via="litellm", max_retries=0)
        assert llm.call("Hello") == "fine"
        gc.collect()
    assert (provider.connections, provider.open_connections) == (3, 3)
