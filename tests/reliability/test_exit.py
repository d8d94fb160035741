"""A process that ends while the provider talks to it says nothing of it, in whichever order its modules came in."""

import pytest

from tests.loopback import Loopback, Reply
from tests.streaming.program import Program

SUBSCRIPTION = """
    llm = LLM("openai/gpt-4o", base_url=sys.argv[1], api_key="k")
    arrived = threading.Event()
    subscriptions = [
        llm.observe("Hello").subscribe(lambda chunk: arrived.set()),
        Research().observe().subscribe(lambda chunk: None),
    ]
    arrived.wait()
    say("open")
"""


EXIT_DURING_THE_START = """
import atexit
from rxflow._streaming import loop_thread

new_event_loop, stop, exiting = asyncio.new_event_loop, loop_thread.LoopThread.stop, threading.Event()

def create_at_the_exit():
    exiting.wait()
    return new_event_loop()

def stop_before_the_loop(thread):
    stop(thread)
    exiting.set()

def count_threads():
    say(sum(thread.name.startswith("rxflow") for thread in threading.enumerate()))

asyncio.new_event_loop, loop_thread.LoopThread.stop = create_at_the_exit, stop_before_the_loop
atexit.unregister(loop_thread.stop_all)
atexit.register(count_threads)  # functions that are registered later are called earlier
atexit.register(loop_thread.stop_all)
Research().observe().subscribe(print)
"""


@pytest.mark.parametrize("first", ["rxflow.llm._io", "rxflow._streaming.loop_thread"])
def test_with_a_subscription_that_takes_no_errors(first: str, provider: Loopback) -> None:
    provider.answer(lambda request: Reply(text="a b", hold_after=1))
    program = Program(SUBSCRIPTION, provider.url, first=first)
    assert program.heard() == "open"
    assert program.ended() == (0, "", "")


def test_before_the_new_thread_of_a_run_has_its_loop() -> None:
    assert Program(EXIT_DURING_THE_START).ended() == (0, "0", "")
