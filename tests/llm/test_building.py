"""What ``LLM`` and its calls take, and what they refuse at once."""

import copy
import re
from datetime import timedelta
from typing import Any

import pytest

from rxflow import LLM
from rxflow.types import LLMRetrying
from tests.loopback import Loopback
from tests.scripted import Scripted
from tests.signals import outcome


@pytest.mark.parametrize("name", ["base_url", "api_base"])
def test_a_server_of_ones_own_has_two_names_and_needs_no_key(
    provider: Loopback, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    where: dict[str, Any] = {name: provider.url}
    assert LLM("openai/my-own", **where).call("Hi") == "Answer to: Hi"


def test_two_addresses_of_one_server_are_refused() -> None:
    with pytest.raises(TypeError, match="base_url and api_base are two names of one parameter; got 'a' and 'b'"):
        LLM("rxflow/demo", base_url="a", api_base="b")


@pytest.mark.parametrize("model", ["openai/m", "anthropic/m", "rxflow/demo"])
@pytest.mark.parametrize(
    ("wrong", "shown"),
    [
        ("127.0.0.1:8000/v1", "127.0.0.1:8000/v1"),
        ("localhost:8000", "localhost:8000"),
        ("http://[::1/v1", "http://[::1/v1"),
        ("http://host:port/v1", "http://host:port/v1"),
        ("http:///v1", "http:///v1"),
        ("me:secret@host/v1", "***@host/v1"),
        ("me:sec/ret@host/v1", "***@host/v1"),
        ("http://me:sec/ret@host/v1", "http://***@host/v1"),
        ("ftp://me:my secret@host", "ftp://***@host"),
        ("ftp://me:s@cr://et\n@host", "ftp://***@host"),
    ],
)
def test_an_address_that_is_no_url_is_refused_where_it_is_given(model: str, wrong: str, shown: str) -> None:
    with pytest.raises(
        ValueError, match=f"base_url must begin with http:// or https:// .*; got {re.escape(repr(shown))}"
    ):
        LLM(model, base_url=wrong)


@pytest.mark.parametrize("via", [None, "litellm"])
def test_an_address_in_the_environment_that_is_no_url_is_named_by_its_variable(
    provider: Loopback, monkeypatch: pytest.MonkeyPatch, via: Any
) -> None:
    for wrong in ("127.0.0.1:8000/v1", "http://[::1/v1"):
        monkeypatch.setenv("OPENAI_BASE_URL", wrong)
        seen = outcome(LLM("openai/m", api_key="k", via=via).events("Hi"))
        assert type(seen.error).__name__ == "BadRequestError"
        assert f"OPENAI_BASE_URL must begin with http:// or https:// and name a host; got {wrong!r}" in str(seen.error)
        assert not seen.of(LLMRetrying)


@pytest.mark.parametrize("name", ["timeout", "connect_timeout"])
def test_a_time_that_no_float_can_hold_is_refused(name: str) -> None:
    given: Any = {name: 10**400}
    with pytest.raises(ValueError, match=rf"^{name} must be a time that a float can hold: 1000"):
        LLM("openai/gpt-4o", **given)


@pytest.mark.parametrize("name", ["timeout", "connect_timeout"])
def test_a_time_is_a_number_of_seconds_or_a_timedelta(provider: Loopback, name: str) -> None:
    for given in (30, "30", timedelta(seconds=30)):
        where: dict[str, Any] = {name: given}
        llm = LLM("openai/my-own", base_url=provider.url, **where)
        assert llm.call("Hi") == "Answer to: Hi"
        assert llm.timeout == (30 if name == "timeout" else None)
    for wrong, error in ((0, ValueError), (-1, ValueError), ("soon", TypeError), ([1], TypeError)):
        where = {name: wrong}
        with pytest.raises(error, match=f"{name} must be a .*: {re.escape(repr(wrong))}"):
            LLM("openai/my-own", base_url=provider.url, **where)


@pytest.mark.parametrize("model", [None, 7, LLM("rxflow/demo")])
def test_a_model_that_is_no_name_is_refused(model: Any) -> None:
    with pytest.raises(TypeError, match='model must be a name, "provider/model"; got '):
        LLM(model)


def test_the_embedded_model_names_the_parameters_that_it_does_not_know() -> None:
    with pytest.raises(TypeError, match="the embedded model does not have the parameters paec, tone"):
        LLM("rxflow/demo", tone="friendly", paec=1, tool_choice="none")


def test_other_models_hand_on_parameters_that_rxflow_does_not_know() -> None:
    source = Scripted("Hello")
    LLM("scripted", source=source, tone="friendly").call("Hi")
    assert source.requests[0].parameters == {"tone": "friendly"}


class TestMessages:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"role": "user", "content": "Hi"},
            None,
            7,
            b"Hi",
            ["Hi"],
            [None],
            [{"role": "user", "content": "Hi"}, "there"],
        ],
    )
    @pytest.mark.parametrize("ask", ["call", "observe", "events", "stream_events"])
    def test_another_shape_is_refused_before_the_model_is_asked(self, ask: str, wrong: Any) -> None:
        source = Scripted("Hello")
        with pytest.raises(
            TypeError, match=r"messages must be a string or a list of \{'role': …, 'content': …\}; got "
        ):
            getattr(source.llm, ask)(wrong)
        assert source.requests == []

    @pytest.mark.parametrize("gather", [list, tuple, iter])
    def test_any_iterable_of_messages_is_taken(self, gather: Any) -> None:
        source = Scripted("Hello")
        source.llm.call(gather([{"role": "user", "content": "Hi"}]))
        assert source.conversations == [[{"role": "user", "content": "Hi"}]]


class TestOptionsOfCrewAI:
    """Most are for that library alone: a provider would refuse them."""

    def test_they_are_not_sent(self) -> None:
        source = Scripted("Hello")
        given: dict[str, Any] = {"is_litellm": True, "prefer_upload": True, "llm_type": "litellm", "callbacks": []}
        LLM("scripted", source=source, interceptor=None, **given).call("Hi")
        assert source.requests[0].parameters == {}

    def test_they_can_be_read_back(self) -> None:
        given: dict[str, Any] = {"is_litellm": True, "prefer_upload": True, "context_window_size": 8192}
        plain, full = LLM("openai/m"), copy.deepcopy(LLM("openai/m", **given))
        assert {name: getattr(full, name) for name in given} == given
        assert {name: getattr(plain, name) for name in given} == {
            "is_litellm": False,
            "prefer_upload": False,
            "context_window_size": 0,
        }
        with pytest.raises(AttributeError, match="'LLM' object has no attribute 'modell'"):
            getattr(plain, "modell")  # noqa: B009 - a type checker knows that it is not there

    @pytest.mark.parametrize(
        ("model", "expected"),
        [("anthropic/m", True), ("claude-m", True), ("openai/m", False), ("anthropomorphic", False)],
    )
    def test_whether_a_model_is_anthropic_s_can_be_read(self, model: str, expected: bool) -> None:
        assert getattr(LLM(model), "is_anthropic") is expected  # noqa: B009

    @pytest.mark.parametrize(
        ("model", "expected"),
        [("groq/m", True), ("together/m", True), ("anthropic/m", False), ("openai/m", False), ("rxflow/demo", False)],
    )
    def test_whether_crewai_would_ask_a_model_through_litellm_can_be_read(self, model: str, expected: bool) -> None:
        for llm in (LLM(model), LLM(model, is_litellm=False), copy.deepcopy(LLM(model))):
            assert getattr(llm, "is_litellm") is expected  # noqa: B009 - as above
        assert getattr(LLM(model, is_litellm=True), "is_litellm") is True  # noqa: B009

    def test_additional_parameters_are(self) -> None:
        source = Scripted("Hello")
        LLM("scripted", source=source, tone="dry", additional_params={"tone": "kind", "top_k": 3}).call("Hi")
        assert source.requests[0].parameters == {"tone": "kind", "top_k": 3}

    @pytest.mark.parametrize(
        ("model", "provider", "name"),
        [
            ("m", "anthropic", "anthropic/m"),
            ("anthropic/m", "anthropic", "anthropic/m"),
            ("azure/m", "azure_openai", "azure/m"),
            ("m", None, "m"),
            ("meta-llama/m", "openrouter", "openrouter/meta-llama/m"),
            ("openai/m", "openrouter", "openrouter/openai/m"),
            ("openai/m", "groq", "groq/openai/m"),
            ("openai/m", "hosted_vllm", "hosted_vllm/openai/m"),
            ("arn:aws:bedrock:us:1:inference-profile/m", "bedrock", "bedrock/arn:aws:bedrock:us:1:inference-profile/m"),
            ("openrouter/openai/m", "openrouter", "openrouter/openai/m"),
        ],
    )
    def test_a_provider_is_the_prefix_of_a_name_without_one(self, model: str, provider: str | None, name: str) -> None:
        llm = LLM(model, provider=provider)
        assert (llm.model, llm.parameters) == (name, {})

    @pytest.mark.parametrize(
        ("model", "provider"), [("openai/m", "azure"), ("anthropic/m", "aws"), ("azure/m", "openai")]
    )
    def test_a_provider_that_contradicts_the_one_in_the_name_is_refused(self, model: str, provider: str) -> None:
        named = model.partition("/")[0]
        message = rf"^the model '{model}' has the provider '{named}', but provider='{provider}'; give only one$"
        with pytest.raises(ValueError, match=message):
            LLM(model, provider=provider)

    def test_a_provider_that_is_not_a_string_is_refused(self) -> None:
        with pytest.raises(TypeError, match=r"^provider is not a string: 5$"):
            LLM("m", provider=5)

    @pytest.mark.parametrize("name", ["callbacks", "interceptor"])
    def test_what_would_do_something_is_refused(self, name: str) -> None:
        given: dict[str, Any] = {name: [print]}
        with pytest.raises(
            ValueError, match=rf"LLM\({name}=\[<built-in function print>\]\) is not supported. It would"
        ):
            LLM("openai/m", **given)

    def test_the_embedded_model_takes_them_too(self) -> None:
        assert LLM("rxflow/demo", is_litellm=False).call("Hi")


class TestWhereAnLLMAsks:
    def test_the_key_and_the_address_of_the_environment_can_be_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "secret")
        monkeypatch.setenv("OPENAI_API_BASE", "http://127.0.0.1:1")
        monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
        llm = LLM("gpt-4.1-mini")
        assert (llm.api_key, llm.base_url, llm.api_base) == ("secret", "http://127.0.0.1:1", "http://127.0.0.1:1")
        given = LLM("gpt-4.1-mini", api_key="own", base_url="http://127.0.0.1:2")
        assert (given.api_key, given.base_url) == ("own", "http://127.0.0.1:2")

    def test_a_copy_does_not_carry_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "secret")
        copied = copy.deepcopy(LLM("gpt-4.1-mini"))
        assert copied.api_key == "secret"
        monkeypatch.delenv("OPENAI_API_KEY")
        assert copied.api_key is None

    def test_without_them_there_are_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("OPENAI_API_KEY", "OPENAI_API_BASE", "OPENAI_BASE_URL"):
            monkeypatch.delenv(name, raising=False)
        for llm in (LLM("gpt-4.1-mini"), LLM("rxflow/demo"), Scripted("Hello").llm):
            assert (llm.api_key, llm.base_url) == (None, None)

    def test_another_provider_s_key_is_not_openai_s(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "secret")
        assert LLM("anthropic/claude-sonnet-4-5").api_key is None
