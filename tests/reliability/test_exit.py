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


@pytest.mark.parametrize("first", ["rxflow.llm._io", "rxflow._streaming.loop_thread"])
def test_with_a_subscription_that_takes_no_errors(first: str, provider: Loopback) -> None:
    provider.answer(lambda request: Reply(text="a b", hold_after=1))
    program = Program(SUBSCRIPTION, provider.url, first=first)
    assert program.heard() == "open"
    assert program.ended() == (0, "", "")
