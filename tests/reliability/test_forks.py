"""A fork in the seconds in which litellm is brought in: the child must not be left with half of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.loopback import Loopback, Reply

ROOT = Path(__file__).parents[2]

PROGRAM = """
import os, sys
from rxflow import LLM

llm = LLM("openai/gpt-4o", base_url=sys.argv[1], api_key="none")  # the import begins in the background
child = os.fork()
print(llm.call("Hi"), flush=True)
if child:
    os.waitpid(child, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_parent_and_child_can_both_call_their_model(provider: Loopback) -> None:
    provider.answer(lambda request: Reply(text="here"))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, provider.url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=28,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "here\nhere\n", "")
