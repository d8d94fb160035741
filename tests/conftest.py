"""What all tests share: a provider on loopback, a model that speaks to it, and a look at what a test leaves behind."""

import asyncio
import importlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

import rxflow
from rxflow import LLM
from rxflow.llm import io_loop
from tests.loopback import Loopback

# Read when litellm is imported: the wait before a call is tried again.
os.environ.update(INITIAL_RETRY_DELAY="0.001", JITTER="0.001")

# These two serve the whole process, by design.
LASTING = {"rxflow I/O", "rxflow import"}
GRACE = 2.0
PACKAGE = Path(rxflow.__file__).parent


@pytest.fixture(autouse=True)
def leak_check() -> Iterator[None]:
    """No thread and no task of rxflow outlives a test."""
    yield
    assert_nothing_is_left()


def assert_nothing_is_left() -> None:
    for thread in threading.enumerate():
        if thread.name == "rxflow import":
            # After each test pytest resets the filters of warnings, one of which litellm's import sets for itself.
            thread.join()
        if thread.name.startswith("rxflow ") and thread.name not in LASTING:
            thread.join(GRACE)
            assert not thread.is_alive(), f"the test left the thread {thread.name!r} behind"
    # The loops of runs end with their threads, and asyncio.run() leaves nothing: what remains is the I/O loop.
    if any(thread.name == "rxflow I/O" for thread in threading.enumerate()):
        io_loop.submit(io_loop_is_idle()).result(2 * GRACE)


async def io_loop_is_idle() -> None:
    ours = {task for task in asyncio.all_tasks() if is_of_rxflow(task)}
    if ours:
        _, pending = await asyncio.wait(ours, timeout=GRACE)
        assert not pending, f"the test left tasks behind: {pending}"


def is_of_rxflow(task: asyncio.Task[Any]) -> bool:
    """litellm keeps tasks of its own on that loop."""
    code: CodeType | None = getattr(task.get_coro(), "cr_code", None)
    return code is not None and Path(code.co_filename).is_relative_to(PACKAGE)


@pytest.fixture(scope="session")
def litellm_is_warm() -> Iterator[None]:
    """The import of litellm and its first call take seconds: no test that measures time may be the one to pay."""
    with Loopback() as provider:
        LLM("openai/gpt-4o", base_url=provider.url, api_key="k").call("Hello")
    yield
    # Each provider of each test has been a host of its own, to which litellm keeps a client.
    io_loop.submit(closing_clients()).result(2 * GRACE)


async def closing_clients() -> None:
    close: Any = importlib.import_module("litellm").close_litellm_async_clients
    await close()


@pytest.fixture
def provider(litellm_is_warm: None) -> Iterator[Loopback]:
    with Loopback() as provider:
        yield provider
        # Here already: its end would end a stream that was left open.
        assert_nothing_is_left()


@pytest.fixture
def llm(provider: Loopback) -> LLM:
    """A model of the provider on loopback."""
    return LLM("openai/gpt-4o", base_url=provider.url, api_key="k")
