"""Direct calls and the settings of the machine: proxies in the environment, and passwords in ~/.netrc."""

from pathlib import Path

import pytest

from rxflow import LLM
from tests.llm.wire import body_of
from tests.loopback import Reply
from tests.reliability.wire import HEAD, Deed, Wire, script
from tests.signals import outcome

ANSWER = script(HEAD + body_of(Reply(text="Hello")), Deed.CLOSE)


def ask(url: str) -> str:
    return outcome(LLM("openai/gpt-4o", base_url=url, api_key="k", max_retries=0).events("Hi")).text


@pytest.fixture(autouse=True)
def netrc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A password for every host, and no proxy."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    path = tmp_path / "netrc"
    path.write_text("default login joe password hunter2\n")
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))


def test_a_password_in_netrc_does_not_stand_in_the_way_of_the_api_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("no_proxy", "example.org")
    with Wire(ANSWER) as server:
        assert ask(server.url) == "Hello"


def test_a_call_goes_through_the_proxy_of_the_environment_whatever_netrc_has(monkeypatch: pytest.MonkeyPatch) -> None:
    with Wire(ANSWER) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        assert ask("http://models.invalid/v1") == "Hello"


def test_a_call_to_a_host_in_no_proxy_goes_past_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.invalid")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Wire(ANSWER) as server:
        assert ask(server.url) == "Hello"
