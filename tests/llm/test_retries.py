"""A call is tried again before its first chunk, and never after it."""

import importlib
import logging
import threading
from typing import Any

import pytest

from rxflow import LLM
from rxflow.types.events import Event, LLMFailed, LLMFinished, LLMRetrying, LLMStarted
from tests.gate import PATIENCE_S
from tests.llm.wire import delta, event
from tests.loopback import Loopback, Reply
from tests.signals import outcome
from tests.team import solo


@pytest.mark.parametrize("status", [429, 503])
def test_what_is_tried_again_is_a_warning_in_the_log(
    provider: Loopback, llm: LLM, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    provider.script(Reply(status=status), Reply(text="Hello"))
    assert llm.call("Hi") == "Hello"
    (record,) = [record for record in caplog.records if record.name == "rxflow"]
    assert record.levelno == logging.WARNING
    assert f"(status {status}); retrying in " in record.getMessage()
    assert record.getMessage().startswith(f"{llm.model}: ")


@pytest.mark.parametrize(
    "failure",
    [
        Reply(status=429),
        Reply(status=500),
        Reply(status=503),
        Reply(text="lost", reset_after=-1),
        Reply(text="lost", reset_after=0),
        Reply(text="lost", end_after=0),
        Reply(raw=[event({"error": {"message": "overloaded"}})]),
    ],
    ids=["429", "500", "503", "reset", "reset after the headers", "ended", "error event"],
)
def test_a_failure_before_the_first_chunk_is_tried_again(provider: Loopback, llm: LLM, failure: Reply) -> None:
    provider.script(failure, failure, Reply(text="Hello"))
    seen = outcome(llm.events("Hi"))
    assert seen.error is None
    assert seen.text == "Hello"
    assert [type(each) for each in seen.events[:3]] == [LLMStarted, LLMRetrying, LLMRetrying]
    assert seen.one(LLMFinished).text == "Hello"
    assert len(provider.requests) == 3


@pytest.mark.parametrize(
    "failure",
    [
        Reply(raw=[delta(role="assistant"), b"data: {nope\n\n"]),
        Reply(raw=[event({"error": {"message": "no", "code": "invalid_api_key"}})]),
        Reply(raw=[event({"error": {"message": "no", "status": 401}})]),
        Reply(raw=[event({"error": {"message": "no", "type": "insufficient_quota"}})]),
        Reply(raw=[b"event: error\n" + event({"error": {"message": "no", "code": 400}})]),
        Reply(raw=[b'error: {"message": "no", "code": 400}\n\n']),
    ],
    ids=["malformed", "key", "401", "no credit", "named error", "llama.cpp's field"],
)
def test_what_cannot_change_is_not_tried_again(provider: Loopback, llm: LLM, failure: Reply) -> None:
    provider.script(failure, Reply(text="never asked"))
    assert outcome(llm.events("Hi")).error is not None
    assert len(provider.requests) == 1


def test_a_silent_provider_is_tried_again(provider: Loopback) -> None:
    llm = LLM("openai/gpt-4o", base_url=provider.url, api_key="k", timeout=0.3, max_retries=20)
    # On a busy machine the second one may come too late as well.
    provider.answer(lambda request: Reply(text="Hello", stall_after=-1 if request.number == 1 else None))
    seen = outcome(llm.events("Hi"))
    assert seen.text == "Hello"
    assert len(seen.of(LLMRetrying)) == len(provider.requests) - 1 >= 1


def test_after_the_last_retry_the_error_is_raised(provider: Loopback) -> None:
    llm = LLM("openai/gpt-4o", base_url=provider.url, api_key="k", max_retries=1)
    provider.script(Reply(status=500), Reply(status=500), Reply(text="too late"))
    seen = outcome(llm.events("Hi"))
    assert len(seen.of(LLMRetrying)) == 1
    assert seen.one(LLMFailed).error is seen.error
    assert len(provider.requests) == 2


def test_a_refused_connection_is_tried_again(refusing_url: str) -> None:
    llm = LLM("openai/gpt-4o", base_url=refusing_url, api_key="k", max_retries=2)
    assert len(outcome(llm.events("Hi")).of(LLMRetrying)) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_what_another_attempt_cannot_mend_is_not_tried_again(provider: Loopback, llm: LLM, status: int) -> None:
    provider.script(Reply(status=status), Reply(text="never asked"))
    seen = outcome(llm.events("Hi"))
    assert seen.error is not None
    assert not seen.of(LLMRetrying)
    assert len(provider.requests) == 1


@pytest.mark.parametrize(
    "broken",
    [
        Reply(text=["It ", "was "], reset_after=1),
        Reply(text=["It ", "was "], end_after=1),
        Reply(raw=[delta(content="It "), b"data: {nope\n\n"]),
        Reply(raw=[delta(content="It "), event({"error": {"message": "overloaded"}})]),
        Reply(reasoning=["Hm. ", "So"], reset_after=1),
        Reply(raw=[delta(tool_calls=[{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}])]),
    ],
    ids=["reset", "ended", "malformed", "error event", "in reasoning", "in a tool call"],
)
def test_a_failure_in_mid_stream_is_never_tried_again(provider: Loopback, llm: LLM, broken: Reply) -> None:
    provider.script(broken, Reply(text="never asked"))
    seen = outcome(llm.events("Hi"))
    assert seen.error is not None
    assert not seen.of(LLMRetrying)
    assert seen.one(LLMFailed).text == seen.text
    assert len(provider.requests) == 1


@pytest.mark.slow
def test_the_wait_that_the_provider_asks_for_is_kept(provider: Loopback, llm: LLM) -> None:
    provider.script(Reply(status=429, headers={"retry-after": "1"}), Reply(text="Hello"))
    seen = outcome(llm.events("Hi"))
    assert seen.text == "Hello"
    assert 1.0 <= seen.one(LLMRetrying).delay < 1.1
    first, second = provider.requests
    assert second.at - first.at >= 1.0


@pytest.mark.parametrize(
    ("headers", "delay"),
    [
        ({"retry-after-ms": "5"}, 0.005),
        ({"retry-after-ms": "5", "retry-after": "60"}, 0.005),
        ({"retry-after-ms": "soon", "retry-after": "0.005"}, 0.005),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"}, None),
        ({"retry-after-ms": "nan", "retry-after": "-1"}, None),
    ],
)
def test_a_header_about_the_wait_that_cannot_be_read_is_as_if_it_was_not_there(
    provider: Loopback, llm: LLM, headers: dict[str, str], delay: float | None
) -> None:
    provider.script(Reply(status=429, headers=headers), Reply(text="Hello"))
    seen = outcome(llm.events("Hi"))
    assert seen.text == "Hello"
    # tests/conftest.py has litellm begin with 1 ms, and add up to 1 ms by chance.
    assert seen.one(LLMRetrying).delay == (pytest.approx(0.0015, abs=0.0005) if delay is None else delay)


@pytest.mark.slow
@pytest.mark.timeout(600)  # a thousand requests, on a busy machine
def test_a_thousand_retries_end_with_the_error_of_the_provider(
    provider: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2 ** 1024 is no float."""
    monkeypatch.setenv("MAX_RETRY_DELAY", "0")
    monkeypatch.setenv("JITTER", "0")
    litellm: Any = importlib.import_module("litellm")
    provider.answer(lambda request: Reply(status=429))
    llm = LLM("openai/gpt-4o", base_url=provider.url, api_key="k", max_retries=1030)
    assert type(outcome(llm.events("Hi")).error) is litellm.RateLimitError
    assert len(provider.requests) == 1031


def test_a_wait_before_a_retry_ends_with_the_subscription(provider: Loopback, llm: LLM) -> None:
    provider.script(Reply(status=429, headers={"retry-after": "60"}))
    waiting = threading.Event()
    seen: list[Event] = []

    def take(event: Event) -> None:
        seen.append(event)
        if isinstance(event, LLMRetrying):
            waiting.set()

    subscription = llm.events("Hi").subscribe(take)
    assert waiting.wait(PATIENCE_S)
    # The check for leaks after this test sees that nothing waits on.
    subscription.dispose()
    assert [type(each) for each in seen] == [LLMStarted, LLMRetrying]
    assert len(provider.requests) == 1


def test_the_retry_limit_of_an_agent_holds_for_its_calls(provider: Loopback, llm: LLM) -> None:
    litellm: Any = importlib.import_module("litellm")
    crew = solo(llm, agent={"max_retry_limit": 0})
    provider.script(Reply(status=500), Reply(text="never asked"))
    with pytest.raises(litellm.InternalServerError):
        crew.kickoff()
    assert len(provider.requests) == 1


def test_a_negative_number_of_retries_is_refused_where_it_is_given() -> None:
    with pytest.raises(ValueError, match="max_retries cannot be negative"):
        LLM("rxflow/demo", max_retries=-1)
