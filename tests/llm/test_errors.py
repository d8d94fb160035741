"""Providers fail in many ways: the error is litellm's, with a line of advice, and the text that had come is kept."""

import importlib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rxflow import LLM, Agent, Crew, Flow, Task
from rxflow.flow.flow import start
from rxflow.types.events import LLMFailed, LLMRetrying
from tests.llm.ways import WAYS
from tests.llm.wire import delta, event
from tests.loopback import Loopback, Reply
from tests.reliability.wire import Deed, Wire, script
from tests.signals import outcome

KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "GEMINI_API_KEY", "GOOGLE_API_KEY")

BEDROCK = "bedrock/converse/us.anthropic.claude-sonnet-4-5-20250929-v1:0"
OR_AWS = "or pass LLM(…, aws_access_key_id=…, aws_secret_access_key=…)"


@pytest.fixture(params=WAYS.values(), ids=list(WAYS))
def llm(request: pytest.FixtureRequest, provider: Loopback) -> Iterator[LLM]:
    with request.param.model(provider.url, max_retries=0) as llm:
        yield llm


@pytest.fixture
def litellm(litellm_is_warm: None) -> Any:
    return importlib.import_module("litellm")


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("status", "kind", "advice"),
    [
        (401, "AuthenticationError", "set OPENAI_API_KEY to a valid key"),
        (403, "PermissionDeniedError", "choose another model, or ask the provider for access"),
        (404, "NotFoundError", 'models are written "provider/model"'),
        (429, "RateLimitError", "wait, or lower max_rpm"),
        (500, "InternalServerError", "try again later"),
        (503, "ServiceUnavailableError", "try again later"),
        (529, "APIError", "try again later"),
    ],
)
def test_a_status_has_its_litellm_class_and_one_line_of_advice(
    provider: Loopback, llm: LLM, litellm: Any, status: int, kind: str, advice: str
) -> None:
    provider.script(Reply(status=status, error=f"Incorrect API key provided: {status}"))
    seen = outcome(llm.events("Hi"))
    assert type(seen.error) is getattr(litellm, kind)
    said, _, line = str(seen.error).partition("\n→ ")
    assert f"provided: {status}" in said
    assert advice in line
    assert "\n" not in line
    assert seen.one(LLMFailed).error is seen.error
    assert len(provider.requests) == 1


def test_a_401_in_words_that_litellm_does_not_know_has_the_same_advice(provider: Loopback, llm: LLM) -> None:
    provider.script(Reply(status=401, error="go away"))
    assert "set OPENAI_API_KEY" in str(outcome(llm.events("Hi")).error)


def test_a_status_counts_although_the_body_of_the_error_does_not_arrive_whole(litellm: Any) -> None:
    head = b"HTTP/1.1 429 No\r\nretry-after: 7\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n"
    body = b'{"error": {"message": "slow dow'
    with Wire(script(head + body, Deed.CLOSE)) as wire:
        llm = LLM("openai/gpt-4o", base_url=wire.url, api_key="k", max_retries=0)
        error: Any = outcome(llm.events("Hi")).error
    assert isinstance(error, litellm.RateLimitError)
    assert {name.lower(): value for name, value in error.litellm_response_headers.items()}["retry-after"] == "7"


def test_a_refused_connection_says_what_to_check(litellm: Any, refusing_url: str) -> None:
    seen = outcome(LLM("openai/gpt-4o", base_url=refusing_url, api_key="k", max_retries=0).events("Hi"))
    assert isinstance(seen.error, litellm.InternalServerError)
    assert "check that the server runs and that base_url is right" in str(seen.error)


@pytest.mark.parametrize(
    "model", ["openai/gpt-4o", "mistral/mistral-small", "anthropic/claude-sonnet-4-5", "ollama_chat/llama3"]
)
def test_a_refused_connection_names_the_server(litellm: Any, model: str, refusing_url: str) -> None:
    error = outcome(LLM(model, base_url=refusing_url, api_key="k", max_retries=0).events("Hi")).error
    server = refusing_url.removesuffix("/v1")
    assert str(error).partition("\n→ ")[2] == (
        f"check that the server runs and that base_url is right (the request went to {server})"
    )


def test_the_server_is_named_without_what_its_url_says_in_confidence(
    litellm: Any, monkeypatch: pytest.MonkeyPatch, refusing_url: str
) -> None:
    monkeypatch.setattr(litellm, "disable_aiohttp_transport", True)  # the other transport refuses a user in the URL
    confiding = f"{refusing_url.replace('//', '//user:secret@')}?token=secret"
    error = outcome(LLM("openai/gpt-4o", base_url=confiding, api_key="k", max_retries=0).events("Hi")).error
    assert str(error).endswith(f"(the request went to {refusing_url.removesuffix('/v1')})")
    assert "secret" not in str(error)


@pytest.mark.parametrize("broken", [{"reset_after": -1}, {"end_after": -1}], ids=["reset", "closed"])
def test_a_connection_that_ends_without_an_answer_says_what_to_check(
    provider: Loopback, llm: LLM, broken: dict[str, int]
) -> None:
    provider.script(Reply(text="a", **broken))  # type: ignore[arg-type]
    assert "check that the server runs and that base_url is right" in str(outcome(llm.events("Hi")).error)


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("how", ["reset_after", "end_after"])
def test_a_connection_that_breaks_is_an_error_with_the_text_kept(
    provider: Loopback, llm: LLM, litellm: Any, how: str, after: int
) -> None:
    provider.script(Reply(text=["a", "b"], **{how: after}))  # type: ignore[arg-type]
    seen = outcome(llm.events("Hi"))
    assert type(seen.error) is litellm.APIConnectionError
    assert "before the answer was complete" in str(seen.error)
    assert "try again" in str(seen.error)
    assert seen.one(LLMFailed).text == seen.text == "a" * after


@pytest.mark.slow
@pytest.mark.parametrize("after", [-1, 0, 1])
def test_a_provider_that_falls_silent_runs_into_the_time_limit(
    provider: Loopback, llm: LLM, litellm: Any, after: int
) -> None:
    timeout = 1.0 if after > 0 else 0.05  # a busy machine needs its time for the first chunk
    hasty = LLM("openai/gpt-4o", base_url=provider.url, api_key="k", max_retries=0, timeout=timeout)
    provider.script(Reply(text=["a", "b"], stall_after=after))
    seen = outcome(hasty.events("Hi"))
    assert type(seen.error) is litellm.Timeout
    assert "LLM(…, timeout=…, connect_timeout=…)" in str(seen.error)
    assert seen.one(LLMFailed).text == seen.text == "a" * max(after, 0)
    provider.wait_until(lambda p: p.disconnects)


def test_a_server_that_does_not_take_the_connection_runs_into_the_connect_time_limit(litellm: Any) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        # The system completes as many connections as the backlog has room for; the next one waits.
        waiting = [socket.socket() for _ in range(3)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(address)
        hasty = LLM(
            "openai/gpt-4o",
            base_url=f"http://127.0.0.1:{address[1]}/v1",
            api_key="k",
            max_retries=0,
            timeout=60,
            connect_timeout=0.05,
        )
        error = outcome(hasty.events("Hi")).error
        for each in waiting:
            each.close()
    assert type(error) is litellm.Timeout


@pytest.mark.parametrize(
    "malformed",
    [b"data: {nope\n\n", b"data: \xff\n\n", b'data: {"choices": [\n\n'],
    ids=["no JSON", "no text", "half an object"],
)
def test_a_malformed_event_is_an_error_with_the_text_kept(
    provider: Loopback, llm: LLM, litellm: Any, malformed: bytes
) -> None:
    provider.script(Reply(raw=[delta(content="a"), malformed]))
    seen = outcome(llm.events("Hi"))
    assert type(seen.error) is litellm.APIResponseValidationError
    assert "not JSON" in str(seen.error)
    assert "check base_url" in str(seen.error)
    assert seen.one(LLMFailed).text == seen.text == "a"


@pytest.mark.parametrize(
    "odd", [b"data: [1]\n\n", event({"choices": [1]}), event({"choices": 1}), delta(content=5), delta(tool_calls=[1])]
)
def test_an_event_of_unknown_shape_is_an_error_with_the_text_kept(provider: Loopback, litellm: Any, odd: bytes) -> None:
    fast = LLM("openai/gpt-4o", base_url=provider.url, api_key="k", max_retries=0)
    provider.script(Reply(raw=[delta(content="a"), odd]))
    seen = outcome(fast.events("Hi"))
    assert type(seen.error) is litellm.APIResponseValidationError
    assert seen.one(LLMFailed).text == seen.text == "a"


def test_text_in_the_same_network_read_as_a_malformed_event_is_kept(provider: Loopback, llm: LLM) -> None:
    provider.script(Reply(raw=[delta(content="a") + delta(content="b") + b"data: {nope\n\n"]))
    assert outcome(llm.events("Hi")).text == "ab"


def test_an_error_event_in_mid_stream_is_raised_in_the_providers_words(
    provider: Loopback, llm: LLM, litellm: Any
) -> None:
    provider.script(Reply(raw=[delta(content="a"), event({"error": {"message": "the machine is on fire"}})]))
    seen = outcome(llm.events("Hi"))
    assert type(seen.error) is litellm.APIError
    assert "the machine is on fire" in str(seen.error)
    assert "the provider has a problem" in str(seen.error)
    assert seen.one(LLMFailed).text == seen.text == "a"


def test_an_error_event_that_tells_of_a_rate_limit_is_a_rate_limit_error(
    provider: Loopback, llm: LLM, litellm: Any
) -> None:
    limit = {"message": "Rate limit reached", "type": "rate_limit_error", "code": "rate_limit_exceeded"}
    provider.script(Reply(raw=[delta(content="a"), event({"error": limit})]))
    assert isinstance(outcome(llm.events("Hi")).error, litellm.RateLimitError)


@pytest.mark.parametrize(
    ("model", "variable"),
    [
        ("gpt-4o", "OPENAI_API_KEY"),
        ("openai/gpt-4o", "OPENAI_API_KEY"),
        ("anthropic/claude-sonnet-4-5", "ANTHROPIC_API_KEY"),
        ("gemini/gemini-2.5-flash", "GEMINI_API_KEY"),
    ],
)
def test_a_missing_key_is_named_by_its_variable(no_keys: None, litellm: Any, model: str, variable: str) -> None:
    seen = outcome(LLM(model).events("Hi"))
    assert type(seen.error) is litellm.AuthenticationError
    assert variable in str(seen.error).partition("\n→ ")[2]
    assert not seen.of(LLMRetrying)


@pytest.fixture
def no_cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without keys of clouds, which reads no metadata of the machine that it runs on."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "CLOUDSDK_", "GOOGLE_", "VERTEX")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_GCE_CHECK", "true")


MISSING = {
    "text-completion-openai/gpt-3.5-turbo-instruct": "set OPENAI_API_KEY to a valid key, or pass LLM(…, api_key=…)",
    "gemini/gemini-2.5-flash": "set GEMINI_API_KEY or GOOGLE_API_KEY to a valid key, or pass LLM(…, api_key=…)",
    "azure/gpt-4o": "set AZURE_API_BASE and AZURE_API_KEY, or pass LLM(…, base_url=…, api_key=…)",
    BEDROCK: f"set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, {OR_AWS}",
    "sagemaker/any": f"set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, {OR_AWS}",
    "vertex_ai/gemini-2.5-flash": "set GOOGLE_APPLICATION_CREDENTIALS, or pass LLM(…, vertex_credentials=…)",
}


@pytest.mark.parametrize(("model", "advice"), MISSING.items())
def test_all_that_is_missing_is_named(no_keys: None, no_cloud: None, litellm: Any, model: str, advice: str) -> None:
    options: dict[str, Any] = {} if model.startswith("azure") else {"aws_region_name": "us-east-1"}
    seen = outcome(LLM(model, **options).events("Hi"))
    assert type(seen.error) is litellm.AuthenticationError
    assert str(seen.error).partition("\n→ ")[2] == advice
    assert not seen.of(LLMRetrying)


def test_what_is_set_or_given_is_not_named_as_missing(
    no_cloud: None, litellm: Any, monkeypatch: pytest.MonkeyPatch, refusing_url: str
) -> None:
    monkeypatch.setenv("AZURE_API_KEY", "k")
    without_base = outcome(LLM("azure/gpt-4o").events("Hi")).error
    assert str(without_base).endswith("\n→ set AZURE_API_BASE, or pass LLM(…, base_url=…)")
    monkeypatch.delenv("AZURE_API_KEY")
    without_key = outcome(LLM("azure/gpt-4o", base_url=refusing_url).events("Hi")).error
    assert str(without_key).endswith("\n→ set AZURE_API_KEY to a valid key, or pass LLM(…, api_key=…)")


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (BEDROCK, {"aws_access_key_id": "x", "aws_secret_access_key": "y", "aws_region_name": "us-east-1"}),
        ("ollama_chat/llama3", {}),
    ],
    ids=["bedrock", "ollama"],
)
def test_a_request_that_cannot_be_prepared_is_not_blamed_on_a_key(
    no_cloud: None, litellm: Any, model: str, options: dict[str, Any]
) -> None:
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:nonsense"}}]}
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": object}}}
    error = outcome(LLM(model, **options).events([image], [tool])).error
    assert type(error) is litellm.BadRequestError
    assert "check the messages, tools and parameters" in str(error)


REFUSED = {
    "cohere_chat/command-a-03-2025": "set COHERE_API_KEY to a valid key, or pass LLM(…, api_key=…)",
    "text-completion-openai/gpt-3.5-turbo-instruct": "set OPENAI_API_KEY to a valid key, or pass LLM(…, api_key=…)",
    "ollama_chat/llama3": "set OLLAMA_API_KEY to a valid key, or pass LLM(…, api_key=…)",
    "azure/gpt-4o": "set AZURE_API_KEY to a valid key, or pass LLM(…, api_key=…)",
    BEDROCK: f"set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, {OR_AWS}",
}


@pytest.mark.parametrize("is_set", [True, False])
@pytest.mark.parametrize(("model", "advice"), REFUSED.items())
def test_a_refused_key_is_named_by_a_variable_that_exists(
    litellm: Any,
    no_keys: None,
    no_cloud: None,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    advice: str,
    is_set: bool,
) -> None:
    head = b"HTTP/1.1 401 No\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n"
    aws = {"aws_access_key_id": "x", "aws_secret_access_key": "y", "aws_region_name": "us-east-1"}
    options: dict[str, Any] = aws if model == BEDROCK else {"api_version": "2024-06-01"}
    if is_set:
        for name in re.findall("[A-Z]+_[A-Z_]+", advice):
            monkeypatch.setenv(name, "wrong")
    with Wire(script(head + b"{}", Deed.CLOSE)) as wire:
        error = outcome(LLM(model, base_url=wire.url, api_key="k", max_retries=0, **options).events("Hi")).error
    assert str(error).partition("\n→ ")[2] == advice


@pytest.mark.parametrize("model", ["nonsense", "nonsense/foo"])
def test_an_unknown_model_is_told_how_names_are_written(litellm: Any, model: str) -> None:
    seen = outcome(LLM(model).events("Hi"))
    assert type(seen.error) is litellm.BadRequestError
    assert 'models are written "provider/model"' in str(seen.error)
    assert "rxflow/demo" in str(seen.error)


@pytest.mark.parametrize("model", ["", "  "])
def test_an_empty_model_name_is_refused_where_it_is_given(model: str) -> None:
    with pytest.raises(ValueError, match="model is empty"):
        LLM(model)


def test_an_embedded_model_of_another_name_is_refused_where_it_is_given() -> None:
    with pytest.raises(ValueError, match="the only embedded model is"):
        LLM("rxflow/gpt-4o")


def test_an_agent_with_no_usable_model_names_both_ways_out(
    no_keys: None, monkeypatch: pytest.MonkeyPatch, litellm: Any
) -> None:
    for name in ("MODEL", "MODEL_NAME", "OPENAI_MODEL_NAME"):
        monkeypatch.delenv(name, raising=False)
    agent = Agent(role="Writer", goal="Write", backstory="None")
    crew = Crew(agents=[agent], tasks=[Task(description="Write", expected_output="Text", agent=agent)])
    with pytest.raises(litellm.AuthenticationError) as caught:
        crew.kickoff()
    assert "gpt-4.1-mini was taken" in str(caught.value)
    assert "Agent(llm=…), or MODEL" in str(caught.value)
    assert 'LLM("rxflow/demo")' in str(caught.value)


def test_the_chunks_of_a_flow_that_failed_in_mid_stream_stay_readable(provider: Loopback, litellm: Any) -> None:
    llm = LLM("openai/gpt-4o", base_url=provider.url, api_key="k")
    provider.script(Reply(text=["It ", "was "], reset_after=2))

    class Tale(Flow[dict[str, Any]]):
        stream = True

        @start()
        def tell(self) -> Any:
            return llm.call("Tell me")

    streaming = Tale().kickoff()
    with pytest.raises(litellm.APIConnectionError):
        for _ in streaming:
            pass
    assert streaming.get_full_text() == "It was "
    assert streaming.is_completed
    with pytest.raises(litellm.APIConnectionError):
        _ = streaming.result
