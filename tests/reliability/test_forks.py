"""A fork in the seconds in which litellm is brought in: the child must not be left with half of it."""

import os

import pytest

from tests.loopback import Loopback, Reply
from tests.streaming.program import Program

pytestmark = pytest.mark.slow


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_parent_and_child_can_both_call_their_model(provider: Loopback) -> None:
    provider.answer(lambda request: Reply(text="here"))
    program = Program(
        """
        llm = LLM("openai/gpt-4o", base_url=sys.argv[1], api_key="none")  # the import begins in the background
        child = os.fork()
        say(llm.call("Hi"))
        if child:
            os.waitpid(child, 0)
        """,
        provider.url,
    )
    assert program.ended() == (0, "here\nhere", "")
