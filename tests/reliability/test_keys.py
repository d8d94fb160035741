"""A key shows nowhere, even where the provider echoes it: not in errors, events, frames, logs or recordings."""

import importlib
import json
import logging
import subprocess
import sys
import traceback
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from pydantic import BaseModel

from rxflow import LLM, operators as ops
from rxflow._streaming.frames import StreamSession
from rxflow.llm._redaction import find_keys, redact_error
from rxflow.llm.source import response_format_for
from rxflow.types.events import LLMFailed, LLMRetrying, LLMStarted
from tests.llm.ways import BY_WRAPPER, Way
from tests.llm.wire import delta, event
from tests.loopback import Loopback, Reply
from tests.reliability.wire import Deed, Script, Wire, script
from tests.scripted import Scripted
from tests.signals import outcome, signals_of
from tests.team import solo

KEY = "Zq93/opaque+key=value"  # of no known shape, and changed where it stands in a URL

Give = Callable[[pytest.MonkeyPatch], dict[str, Any]]


def as_argument(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    return {"api_key": KEY}


def in_the_environment(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    patch.setenv("OPENAI_API_KEY", KEY)
    return {}


def in_a_header(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    return {"api_key": "k", "extra_headers": {"Authorization": f"Bearer {KEY}", "x-custom": "shown"}}


def in_litellm(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    patch.setattr(importlib.import_module("litellm"), "api_key", KEY)
    return {}


GIVEN: dict[str, Give] = {
    "argument": as_argument,
    "environment": in_the_environment,
    "header": in_a_header,
    "litellm.api_key": in_litellm,
}

ECHO = f"Incorrect API key provided: {KEY}, sent as Authorization: Bearer {KEY} to /v1?key={quote(KEY, safe='')}"
ECHOES = {
    "401": Reply(status=401, error=ECHO),
    "400": Reply(status=400, error=ECHO),
    "500": Reply(status=500, error=ECHO),
    "500 in plain text": Reply(status=500, raw=[ECHO.encode()], content_type="text/plain"),
    "an error event": Reply(raw=[delta(content="a"), event({"error": {"message": ECHO, "key": KEY}})]),
    "an error event that is a string": Reply(raw=[delta(content="a"), event({"error": ECHO})]),
    "a malformed event": Reply(raw=[delta(content="a"), f"data: {ECHO}\n\n".encode()]),
    "an odd event": Reply(raw=[delta(content="a"), event({"choices": [ECHO]})]),
    "a header": Reply(status=500, headers={"x-echo": KEY}),
    "a malformed event, across the end of what is shown": Reply(
        raw=[delta(content="a"), f"data: {'x' * 190}{KEY}\n\n".encode()]
    ),
    "an odd event, across the end of what is shown": Reply(
        raw=[delta(content="a"), event({"choices": ["x" * 175 + KEY]})]
    ),
    "an event that is no text": Reply(raw=[delta(content="a"), f"data: {ECHO} \\u".encode() + b"\xff\n\n"]),
}


def all_that_it_says(error: BaseException | None) -> str:
    """Message, notes, attributes and traceback of an error and of all that led to it."""
    assert error is not None
    attributes = [in_full(value) for each in chain_of(error) for value in (*vars(each).values(), *odd_attributes(each))]
    return "\n".join([repr(error), str(error), *traceback.format_exception(error), *attributes])


def odd_attributes(error: BaseException) -> list[object]:
    return [error.object] if isinstance(error, UnicodeDecodeError) else []


def in_full(value: Any) -> str:
    """An attribute of an error, with what httpx's objects hold and do not print."""
    match value:
        case httpx.Headers():
            return str(value.raw)
        case httpx.Request():
            sent = value.content if hasattr(value, "_content") else b""
            return f"{value.url} {value.headers.raw} {sent!r}"
        case httpx.Response():
            said = value.content if value.is_closed and hasattr(value, "_content") else b""
            return f"{value.headers.raw} {said!r} {in_full(value.request)}"
        case _:
            return str(value)


def error_of(session: StreamSession) -> BaseException | None:
    try:
        for _ in session:
            pass
    except Exception as error:  # noqa: BLE001 - of many classes
        return error
    return None


def chain_of(error: BaseException | None) -> list[BaseException]:
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


# Each echo of a key that is an argument, and one of each other key, are quick.
@pytest.mark.parametrize(
    ("give", "echo"),
    [
        pytest.param(
            GIVEN[give],
            ECHOES[echo],
            id=f"{give}-{echo}",
            marks=() if give == "argument" or echo == "401" else pytest.mark.slow,
        )
        for give in GIVEN
        for echo in ECHOES
    ],
)
def test_an_echoed_key_is_masked_wherever_the_error_shows(
    provider: Loopback,
    way: Way,
    give: Give,
    echo: Reply,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    caplog.set_level(logging.DEBUG, logger="rxflow")
    llm = LLM("openai/gpt-4o", base_url=provider.url, max_retries=1, **way.options, **give(monkeypatch))
    crew = solo(llm, crew={"verbose": True})
    cassette = tmp_path / "run.cassette"
    provider.answer(lambda request: echo)
    with way.around():
        seen = outcome(crew.events())
        signals_of(crew.observe().pipe(ops.record(cassette)))
        session = llm.stream_events("Hi")
        raised = error_of(session)
    assert KEY in provider.requests[0].headers["authorization"]
    shown = {
        "error": all_that_it_says(seen.error),
        "raised": all_that_it_says(raised),
        "events": "\n".join(map(repr, seen.events)),
        "errors of events": "\n".join(all_that_it_says(each.error) for each in seen.of(LLMFailed)),
        "retries": "\n".join(all_that_it_says(each.error) for each in seen.of(LLMRetrying)),
        "frames": "\n".join(frame.model_dump_json() for frame in session.frames),
        "cassette": cassette.read_text(encoding="utf-8"),
        "log": "\n".join(each.getMessage() for each in caplog.records if each.name.startswith("rxflow")),
        "objects": repr([llm, crew, crew.agents, crew.tasks]),
    }
    if way is not BY_WRAPPER:  # litellm, in litellm's wrapper, leaves out some of what it was sent
        assert "***" in shown["error"]
    assert "which failed after" in shown["log"]
    for where, text in shown.items():
        assert_no_piece_of(KEY, text, where)


WITHOUT_LITELLM = """
import sys
sys.modules["litellm"] = None
from rxflow import LLM
try:
    LLM("openai/gpt-4o", base_url=sys.argv[1], api_key=sys.argv[2], max_retries=0).call("Hi")
except ImportError as error:
    while error is not None:
        print(repr(error))
        error = error.__cause__ or error.__context__
"""


def test_a_key_is_masked_in_what_led_to_a_failed_import_of_litellm(provider: Loopback) -> None:
    provider.script(ECHOES["401"])
    command = [sys.executable, "-c", WITHOUT_LITELLM, provider.url, KEY]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout
    assert "ModuleNotFoundError" in shown
    assert "***" in shown
    assert_no_piece_of(KEY, shown)


OWN_KEYS = {
    "anthropic_key": "anthropic/claude-sonnet-4-5",
    "azure_key": "azure/gpt-4o",
    "groq_key": "groq/llama3-8b-8192",
    "openrouter_key": "openrouter/openai/gpt-4o",
    "togetherai_api_key": "together_ai/some",
}


@pytest.mark.parametrize(("name", "model"), OWN_KEYS.items())
def test_a_key_that_is_set_on_litellm_for_one_provider_is_masked(
    name: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("litellm"), name, KEY)
    with Wire(refusal(ECHO)) as wire:
        seen = outcome(LLM(model, base_url=wire.url, max_retries=0, api_version="2024-02-01").events("Hi"))
    shown = all_that_it_says(seen.error)
    assert "***" in shown
    assert_no_piece_of(KEY, shown)


@pytest.mark.parametrize(
    "model",
    ["anthropic/claude-sonnet-4-5", "groq/llama3-8b-8192", "mistral/mistral-small-latest", "ollama_chat/llama3"],
)
def test_a_key_is_masked_in_what_providers_other_than_openai_answer(model: str) -> None:
    with Wire(refusal(ECHO)) as wire:
        seen = outcome(LLM(model, base_url=wire.url, api_key=KEY, max_retries=0).events("Hi"))
    shown = all_that_it_says(seen.error)
    assert "***" in shown
    assert_no_piece_of(KEY, shown)


@pytest.mark.parametrize("model", ["openai/gpt-4o", "anthropic/claude-sonnet-4-5", "gemini/gemini-2.0-flash"])
def test_a_key_inside_a_tool_is_masked_in_the_request_that_failed(model: str) -> None:
    tool = {"type": "mcp", "server_url": "http://mcp.example", "headers": {"Authorization": KEY}}
    with Wire(refusal("no")) as wire:
        llm = LLM(model, base_url=wire.url, api_key="k", max_retries=0, via="litellm", additional_tools=[tool])
        seen = outcome(llm.events("Hi"))
    assert_no_piece_of(KEY, all_that_it_says(seen.error))


def test_a_key_in_an_address_that_the_provider_sends_on_to_is_masked(provider: Loopback, way: Way) -> None:
    elsewhere = f"{provider.url}/elsewhere?key={quote(KEY, safe='')}"
    provider.script(Reply(status=302, headers={"location": elsewhere}, raw=[b""]))
    with way.around():
        seen = outcome(LLM("openai/gpt-4o", base_url=provider.url, api_key=KEY, max_retries=0).events("Hi"))
    shown = all_that_it_says(seen.error)
    assert "elsewhere?key=***" in shown
    assert_no_piece_of(KEY, shown)


@pytest.mark.parametrize("password", ["Zq93opaque", quote(KEY, safe="")], ids=["plain", "quoted"])
@pytest.mark.parametrize("named", ["base_url", "OPENAI_BASE_URL"])
def test_a_password_in_base_url_is_masked(
    provider: Loopback, way: Way, monkeypatch: pytest.MonkeyPatch, named: str, password: str
) -> None:
    url = provider.url.replace("://", f"://me:{password}@")
    given: dict[str, Any] = {"base_url": url} if named == "base_url" else {}
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    provider.script(Reply(status=500, error=f"no, {password}"))
    with way.around():
        seen = outcome(LLM("openai/gpt-4o", api_key="k", max_retries=0, **way.options, **given).events("Hi"))
    shown = all_that_it_says(seen.error)
    # The direct way names no more of an address than scheme, host and port; litellm 1.110 does not name it either.
    assert "me:" not in shown or "me:***@" in shown
    assert password not in shown
    assert_no_piece_of(KEY, shown)


def test_a_variable_that_is_no_text_hinders_no_error(
    provider: Loopback, litellm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "\udcff" * 8)  # as Python reads other bytes than UTF-8
    monkeypatch.setenv("SOME_URL", "http://me:\udcff@host")
    provider.script(Reply(status=401, error="no"))
    seen = outcome(LLM("openai/gpt-4o", base_url=provider.url, api_key="k", max_retries=0).events("Hi"))
    assert type(seen.error) is litellm.AuthenticationError


def test_a_key_that_is_part_of_the_address_itself_hinders_no_error(
    provider: Loopback, litellm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", provider.url.partition("127.0.0.1:")[2])
    provider.script(Reply(status=401, error="no"))
    seen = outcome(LLM("openai/gpt-4o", base_url=provider.url, api_key="k", max_retries=0).events("Hi"))
    assert type(seen.error) is litellm.AuthenticationError


def test_secrets_in_lists_and_passwords_in_urls_are_known() -> None:
    keys = find_keys(
        {"fallbacks": [{"model": "openai/gpt-4o", "api_key": KEY}]}, {"proxy": "http://me:opaque-one@host"}
    )
    assert {KEY, "opaque-one"} <= set(keys)


@pytest.mark.parametrize(
    "given",
    [
        {"vertex_credentials": json.dumps({"private_key": KEY})},
        {"vertex_credentials": {"private_key": KEY}},
        {"extra_body": {"api_key": ["short", KEY]}},
        {"api_keys": (KEY,)},
        {"extra_headers": {"Authorization": f"Bearer {KEY}".encode()}},
        {"tools": [{"type": "mcp", "authorization": KEY, "headers": {"x-api-key": KEY}}]},
    ],
    ids=lambda given: next(iter(given)),
)
def test_a_secret_of_any_type_is_known_and_is_not_in_the_start_of_a_call(given: dict[str, Any]) -> None:
    tools = given.pop("tools", None)
    source = Scripted("Hello")

    started = outcome(LLM("scripted", source=source, **given).events("Hi", tools)).one(LLMStarted)

    assert KEY in find_keys(given, *source.requests[0].tools)
    assert_no_piece_of(KEY, repr((started.parameters, started.tools)))


def test_a_schema_may_describe_a_field_with_the_name_of_a_secret() -> None:
    class Account(BaseModel):
        password: str

    wanted = response_format_for(Account)
    llm = LLM("scripted", source=Scripted("{}"), response_format=wanted)

    assert outcome(llm.events("Hi")).one(LLMStarted).parameters["response_format"] == wanted


def test_the_path_of_a_file_with_credentials_is_no_secret() -> None:
    assert find_keys({"vertex_credentials": "/no/such/account.json"}) == find_keys()


def assert_no_piece_of(key: str, text: str, where: str = "") -> None:
    assert key[:4] not in text, where


def refusal(echo: str) -> Script:
    """A 401 whatever is asked of it, in JSON, with a header that echoes the key too."""
    body = json.dumps({"error": {"type": "authentication_error", "message": echo}}).encode()
    echoes = f"x-echo: {KEY}\r\nx-long: {'x' * 5000}{KEY}\r\ncontent-length: {len(body)}"
    head = f"HTTP/1.1 401 No\r\ncontent-type: application/json\r\n{echoes}\r\nconnection: close\r\n\r\n"
    return script(head.encode() + body, Deed.CLOSE)


def test_what_is_no_secret_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "short")
    monkeypatch.setenv("SOME_PATH", "a long value")
    keys = find_keys(None, {"max_tokens": 100, "user": "a long name", "extra_headers": {"x-custom": "a long header"}})
    assert not {"short", "a long value", "a long name", "a long header"} & set(keys)


def test_an_error_that_cannot_be_changed_is_not_shown_as_the_cause() -> None:
    class Stubborn(Exception):
        def __str__(self) -> str:
            return f"the key is {KEY}"

    error, last = RuntimeError("it failed"), ValueError(f"with {KEY}")
    error.__cause__ = last
    last.__cause__ = Stubborn()
    last.__context__ = last.__cause__
    redact_error(error, [KEY])
    assert error.__cause__ is last
    assert KEY not in all_that_it_says(error)
    assert "with ***" in all_that_it_says(error)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"base_url": "http://opaque-token1@host/v1"}, b64encode(b"opaque-token1:").decode()),
        ({"api_key": 'opaque"quoted"key'}, json.dumps('opaque"quoted"key')[1:-1]),
        ({"api_key": "opaque-schlüssel"}, json.dumps("opaque-schlüssel")[1:-1]),
    ],
    ids=["a user without a password", "quotes in JSON", "escapes in JSON"],
)
def test_a_key_is_known_as_it_is_sent(given: dict[str, Any], shown: str) -> None:
    assert any(key in shown for key in find_keys(given))
    error = ValueError(f"refused: {shown}")
    redact_error(error, find_keys(given))
    assert shown not in str(error)


def test_the_key_of_a_prompts_cache_is_no_secret() -> None:
    source = Scripted("Hello")
    llm = LLM("scripted", source=source, prompt_cache_key="a long conversation")
    assert outcome(llm.events("Hi")).one(LLMStarted).parameters["prompt_cache_key"] == "a long conversation"
    assert find_keys({"prompt_cache_key": "a long conversation"}) == find_keys()


@pytest.mark.parametrize(
    "error",
    [OSError(5, f"bad {KEY}"), OSError(5, "bad", f"/{KEY}"), ImportError(f"bad {KEY}"), ValueError(KEY)],
    ids=["OSError", "a file name", "ImportError", "another"],
)
def test_a_key_is_masked_in_every_member_of_a_group(error: Exception) -> None:
    nested = ExceptionGroup("two", [TypeError("no key"), ExceptionGroup("one", [error])])
    outer = RuntimeError("outer")
    outer.__cause__ = nested
    redact_error(outer, [KEY])
    assert outer.__cause__ is nested
    assert KEY not in "".join(traceback.format_exception(outer)) + repr(outer.__cause__)


def test_errors_that_lead_to_each_other_are_cleaned_too() -> None:
    first, second = RuntimeError(KEY), RuntimeError(KEY)
    first.__cause__, second.__context__ = second, first
    redact_error(first, [KEY])
    assert (first.args, second.args) == (("***",), ("***",))
