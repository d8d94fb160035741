"""Names that no name server answers: a lookup cannot be cancelled, but nobody else may wait for it."""

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from rxflow import LLM
from tests.gate import PATIENCE_S, Gate
from tests.loopback import Loopback, Reply
from tests.streaming.program import Program

LOOKUPS = 40  # more than any pool of the standard library has threads on a small machine


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
        self._answers.wait(3600)  # whoever had to wait for it would run into pytest's limit
        raise socket.gaierror(socket.EAI_AGAIN, "no name server answers")

    def give_up(self) -> None:
        """Let all go."""
        self._answers.open()
        for thread in threading.enumerate():
            if thread.name == "rxflow-name-lookup":
                thread.join(PATIENCE_S)


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
    silent.all_asked.wait(PATIENCE_S)
    for call in calls:
        call.dispose()
    assert llm.call("Hi") == "here"


@pytest.mark.parametrize("last", ["", "call.dispose()"], ids=["under way", "disposed"])
def test_the_interpreter_does_not_wait_for_them_at_its_exit(last: str) -> None:
    program = Program(
        f"""
        import socket

        asked = threading.Event()

        def find(host, *args, **kwargs):
            asked.set()
            threading.Event().wait(60)

        socket.getaddrinfo = find
        llm = LLM("openai/gpt-4o", base_url="http://lost.example/v1", api_key="none", max_retries=0)
        call = llm.events("Hi").subscribe(on_error=lambda _: None)
        asked.wait()
        {last}
        """,
        warnings="error",
    )
    assert program.ended() == (0, "", "")
