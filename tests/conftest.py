"""What all tests share: a provider on loopback, and a model that speaks to it. The plugin looks at what they leave."""

import importlib
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from rxflow import LLM
from rxflow.llm import _io as io_loop
from rxflow.testing import leaks
from rxflow.testing.leaks import assert_nothing_is_left
from tests.gate import PATIENCE_S
from tests.loopback import Loopback
from tests.streaming import program

# On a busy machine an example takes as long as it takes.
settings.register_profile("rxflow", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", settings.get_profile("rxflow"), max_examples=25)
settings.load_profile("rxflow")

# A shell starts what runs in its background with SIGINT ignored, and nohup with SIGHUP: programs of tests would inherit
# that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# What ends later than it should on a busy machine ends nevertheless.
leaks.GRACE_S = 20.0

# Read when litellm is imported: the wait before a call is tried again.
os.environ.update(INITIAL_RETRY_DELAY="0.001", JITTER="0.001")


def pytest_configure(config: pytest.Config) -> None:
    """A quarter of the examples where the slow tests are left out."""
    if config.option.markexpr == "not slow":
        settings.load_profile("quick")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test has logged may hold lone surrogates, which a worker of xdist cannot send on."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(autouse=True)
def litellm_is_imported_to_the_end() -> Iterator[None]:
    """After each test pytest resets the filters of warnings, one of which litellm's import sets for itself."""
    yield
    for thread in threading.enumerate():
        if thread.name == "rxflow import":
            thread.join()


@pytest.fixture(autouse=True)
def programs_are_ended() -> Iterator[None]:
    yield
    while program.going:
        program.going.pop().kill()


@pytest.fixture(scope="session")
def litellm_is_warm() -> Iterator[None]:
    """The import of litellm and its first call take seconds: no test that measures time may be the one to pay."""
    with Loopback() as provider:
        for via in (None, "litellm"):
            LLM("openai/gpt-4o", base_url=provider.url, api_key="k", via=via).call("Hello")
    yield
    # Each provider of each test has been a host of its own, to which litellm keeps a client.
    io_loop.submit(closing_clients()).result(PATIENCE_S)


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
