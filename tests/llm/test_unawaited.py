"""Stopping a call while litellm prepares it, in a thread of its own."""

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

from rxflow import LLM
from rxflow.llm import _io as io_loop
from tests.gate import PATIENCE_S, Gate, poll
from tests.loopback import Loopback


class Slow(dict[str, str]):
    """Headers that hold up the thread in which litellm reads them; only the first time."""

    def __init__(self, **given: str) -> None:
        super().__init__(given)
        self.inside = Gate()
        self.free = Gate()

    def __iter__(self) -> Iterator[str]:  # without one of its own it would be copied as the dict that it is
        return super().__iter__()

    def keys(self) -> Any:
        self.inside.open()
        self.free.wait()
        return super().keys()


def test_leaves_no_coroutine_that_was_never_awaited(provider: Loopback) -> None:
    slow = Slow(a="b")
    llm = LLM("openai/gpt-4o", base_url=provider.url, api_key="k", extra_headers=slow, via="litellm")
    subscription = llm.events("Hello").subscribe()
    slow.inside.wait()
    assert io_loop.submit(count_reads()).result(PATIENCE_S) == 1
    subscription.dispose()
    # A busy machine may start the read before the thread that began it knows of it, and can stop it.
    poll(lambda: io_loop.submit(count_reads()).result(PATIENCE_S), lambda count: count == 0, "a call still reads")
    slow.free.open()
    assert llm.call("Hello") == "Answer to: Hello"  # the thread is through with the first by now, or soon
    gc.collect()  # what was forgotten warns, and warnings are errors
    assert len(provider.requests) == 1


async def count_reads() -> int:
    """How many calls read from their providers."""
    return sum("_Hop._read" in repr(task.get_coro()) for task in asyncio.all_tasks())
