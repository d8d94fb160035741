"""Names that no name server answers: a lookup cannot be cancelled, but nobody else may wait for it."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rxflow import LLM
from tests.bounds import assert_within
from tests.gate import Gate
from tests.loopback import Loopback, Reply

LOOKUPS = 40  # more than any pool of the standard library has threads on a small machine
ROOT = Path(__file__).parents[2]


class NameServer:
    """Does not answer for what ends in .example, until it is let go."""

    def __init__(self) -> None:
        self.asked = 0
        self.all_asked = Gate()
        self._answers = Gate()
        self._find = socket.getaddrinfo

    def find(self, host: Any, *args: Any, **kwargs: Any) -> Any:
        if not str(host).endswith(".example"):
            return self._find(host, *args, **kwargs)
        self.asked += 1
        if self.asked == LOOKUPS:
            self.all_asked.open()
        self._answers.wait(25)
        raise socket.gaierror(socket.EAI_AGAIN, "no name server answers")

    def give_up(self) -> None:
        """Let all go."""
        self._answers.open()
        for thread in threading.enumerate():
            if thread.name == "litellm lookup":
                thread.join(5)


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    server = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", server.find)
    yield server
    server.give_up()


def test_calls_to_other_providers_do_not_wait_for_them(provider: Loopback, llm: LLM, silent: NameServer) -> None:
    provider.answer(lambda request: Reply(text="here"))
    assert llm.call("Hi") == "here"
    lost = [
        LLM("openai/gpt-4o", base_url=f"http://lost{number}.example/v1", api_key="none", max_retries=0)
        for number in range(LOOKUPS)
    ]
    calls = [each.events("Hi").subscribe(on_error=lambda _: None) for each in lost]
    silent.all_asked.wait(20)
    for call in calls:
        call.dispose()
    began = time.monotonic()
    assert llm.call("Hi") == "here"
    assert_within(time.monotonic() - began, 2.0)  # had it to wait, it would be for half a minute


def test_the_interpreter_does_not_wait_for_them_at_its_exit() -> None:
    program = """
import socket, sys, threading
from rxflow import LLM

asked = threading.Event()

def find(host, *args, **kwargs):
    asked.set()
    threading.Event().wait(60)

socket.getaddrinfo = find
llm = LLM("openai/gpt-4o", base_url="http://lost.example/v1", api_key="none", max_retries=0)
call = llm.events("Hi").subscribe(on_error=lambda _: None)
asked.wait()
if len(sys.argv) > 1:
    call.dispose()
"""
    for arguments in ([], ["disposed"]):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program, *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=25,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
