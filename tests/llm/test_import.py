"""The import of litellm, which takes seconds, and what happens meanwhile; in processes of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.loopback import Loopback, Reply

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

PROGRAM = """
import asyncio, sys
from rxflow import LLM
from rxflow.types.events import LLMStarted
from rxflow.llm import _io as io_loop
from rxflow.llm._litellm import setup

llm = LLM("openai/gpt-4o", base_url=sys.argv[1], api_key="k", max_retries=0, via="litellm")

async def turn():
    pass

async def main():
    loop = asyncio.get_running_loop()
    begun = asyncio.Event()
    subscription = llm.events("Hello").subscribe(lambda event: begun.set())
    await begun.wait()
    other = asyncio.create_task(llm.acall("Hello"))
    # The call reaches the I/O loop in one step of ours, and waits for the import after one of that.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.wrap_future(io_loop.submit(turn()))
    print("imported" if setup.begin_import().done() else "importing", flush=True)
    subscription.dispose()
    print(await other, await llm.acall("Hello"))

asyncio.run(main())
"""


def test_a_call_that_is_cancelled_meanwhile_leaves_it_to_the_others(provider: Loopback) -> None:
    provider.answer(lambda request: Reply(text="fine"))
    command = [sys.executable, "-W", "error:::rxflow", "-c", PROGRAM, provider.url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert (done.stdout.splitlines(), done.stderr) == (["importing", "fine fine"], "")
    assert len(provider.requests) == 2


UNREACHABLE = """
import sys
from rxflow import LLM

llm = LLM("openai/gpt-4o", base_url=sys.argv[1], api_key="k", max_rpm=1, limit_store="redis://127.0.0.1:1/0")
try:
    llm.call("Hello")
except Exception as error:
    print(type(error).__name__, "litellm" in sys.modules)
"""


def test_an_error_that_is_not_of_a_provider_does_not_wait_for_it(provider: Loopback) -> None:
    """The import would hold up the loop of the run for seconds."""
    command = [sys.executable, "-c", UNREACHABLE, provider.url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert (done.stdout, done.stderr) == ("ConnectionError False\n", "")


WARNED = """
import importlib.abc, sys, threading, warnings
from rxflow import LLM

class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == sys.argv[2]:
            reached.set()
            left.wait()

reached, left = threading.Event(), threading.Event()
sys.meta_path.insert(0, Watch())

def make():
    return LLM("openai/gpt-4o", base_url=sys.argv[1], api_key="k", max_retries=0, via="litellm")

if sys.argv[3] == "inside":
    with warnings.catch_warnings():
        llm = make()
        reached.wait()
else:
    llm = make()
    with warnings.catch_warnings():
        reached.wait()
left.set()
print(llm.call("Hello"))
"""


@pytest.mark.parametrize("made", ["inside", "before"])
@pytest.mark.parametrize("module", ["litellm", "litellm.types", "litellm.types.utils"])
def test_a_program_that_sets_its_filters_back_meanwhile_sees_no_warning_of_it(
    provider: Loopback, module: str, made: str
) -> None:
    """pytest leaves ``warnings.catch_warnings()`` after each test, FastAPI after each route."""
    provider.answer(lambda request: Reply(text="Hello"))
    command = [sys.executable, "-W", "error", "-c", WARNED, provider.url, module, made]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("Hello\n", "")


WITHOUT_A_THREAD = """
import sys, threading
from rxflow import LLM

def refuse(thread):
    raise RuntimeError("can't start new thread")

def make():
    return LLM("openai/gpt-4o", base_url=sys.argv[1], api_key="k", max_retries=0, via="litellm")

start, threading.Thread.start = threading.Thread.start, refuse
try:
    make()
except RuntimeError as error:
    print(error)
threading.Thread.start = start
print(make().call("Hello"))
"""


def test_if_its_thread_cannot_be_started_the_next_call_tries_again(provider: Loopback) -> None:
    provider.answer(lambda request: Reply(text="fine"))
    command = [sys.executable, "-c", WITHOUT_A_THREAD, provider.url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert (done.stdout.splitlines(), done.stderr) == (["can't start new thread", "fine"], "")
