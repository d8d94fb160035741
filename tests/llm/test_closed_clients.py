"""A program that closes litellm's clients, as litellm advises, does not cut rxflow off from its providers."""

import asyncio
import importlib
from typing import Any

import pytest

from rxflow import LLM
from tests.loopback import Loopback, Reply


def tidied_up() -> None:
    """What programs that use litellm beside us do at the end of an ``asyncio.run``."""

    async def main() -> None:
        close: Any = importlib.import_module("litellm").close_litellm_async_clients
        await close()

    asyncio.run(main())


@pytest.mark.parametrize("model", ["openai/gpt-4o", "hosted_vllm/small"])
def test_the_next_call_brings_its_own(model: str, provider: Loopback) -> None:
    llm = LLM(model, base_url=provider.url, api_key="k", max_retries=0)
    provider.script(Reply(text="fine"), Reply(text="fine"))
    assert llm.call("Hello") == "fine"
    tidied_up()
    assert llm.call("Hello") == "fine"
    assert len(provider.requests) == 2


def test_of_many_calls_at_once_none_fails(provider: Loopback, llm: LLM) -> None:
    async def main() -> list[Any]:
        return await asyncio.gather(*(llm.acall("Hello") for _ in range(20)))

    provider.answer(lambda request: Reply(text="fine"))
    assert llm.call("Hello") == "fine"
    tidied_up()
    assert asyncio.run(main()) == ["fine"] * 20
    assert len(provider.requests) == 21
