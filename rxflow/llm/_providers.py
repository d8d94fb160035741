"""Chooses the source for a model: the embedded model, direct calls to OpenAI-compatible servers, or LiteLLM."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

from reactivex import Observable

from rxflow.llm._litellm.source import LiteLLMSource, uses_litellm
from rxflow.llm._openai_compatible import SERVERS, OpenAICompatibleSource
from rxflow.llm.demo import PROVIDER as DEMO_PROVIDER, DemoSource
from rxflow.llm.source import Delta, Request, Source, check_url, split_model

# If a model's name contains one of these texts, OpenAI offers the model only through its Responses API. Calls of such a
# model go through LiteLLM.
_RESPONSES_ONLY = ("responses/", "codex", "-pro", "deep-research", "computer-use", "daybreak")

# Parameters of OpenAI's chat API. A call with any other parameter goes through LiteLLM.
_CHAT_PARAMETERS = frozenset(
    {
        "audio",
        "extra_body",
        "extra_headers",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "metadata",
        "modalities",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "stream_options",
        "temperature",
        "tool_choice",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        "web_search_options",
    }
)
_LITELLM_SETTINGS = (
    "aclient_session",
    "add_function_to_prompt",
    "api_base",
    "api_key",
    "disable_aiohttp_transport",
    "drop_params",
    "headers",
    "model_alias_map",
    "modify_params",
    "openai_key",
    "organization",
    "ssl_certificate",
)
"""Settings of the litellm module that affect OpenAI's models. If the program has set one, calls go through LiteLLM."""

_DEMO_PARAMETERS = frozenset({"tool_choice"})


def source_for(
    model: str,
    *,
    base_url: str | None,
    api_key: str | None,
    timeout: float | None,
    connect_timeout: float,
    pace: float,
    parameters: Mapping[str, Any],
    via: Literal["litellm"] | None,
) -> Source:
    """Return the source for ``model``.

    Raises:
        ValueError: ``via`` is unknown, ``base_url`` is not an HTTP URL, ``model`` begins with "rxflow/" but is not
            "rxflow/demo", or ``model`` is "rxflow/demo" and ``pace`` is negative.
        TypeError: ``model`` is "rxflow/demo", and ``parameters`` has a parameter that the embedded model lacks.
    """
    if via not in (None, "litellm"):
        raise ValueError(f'via is "litellm" or None: {via!r}')
    if base_url:
        check_url("base_url", base_url)
    provider, name = split_model(model)
    if provider == DEMO_PROVIDER:
        return _demo_source(model, name, pace, parameters)
    settings: dict[str, Any] = {
        "base_url": base_url,
        "api_key": api_key,
        "read_timeout": timeout,
        "connect_timeout": connect_timeout,
    }
    if via == "litellm" or not _is_direct(provider, name, parameters):
        return LiteLLMSource(**settings)
    return _DirectSource(provider, name, settings)


def find_account(provider: str, base_url: str | None, api_key: str | None) -> tuple[str | None, str | None]:
    """Return the address of a provider's server and the API key. Each is None if it is not known.

    If ``api_key`` is not given, the key comes from the environment. If ``base_url`` is not given, the address is known
    only for the providers in :data:`SERVERS`.
    """
    if provider in SERVERS:
        server = OpenAICompatibleSource(provider, "", base_url=base_url, api_key=api_key)
        return server.find_url(), server.api_key
    return base_url, api_key or os.environ.get(f"{provider.upper()}_API_KEY")


def _is_direct(provider: str, name: str, parameters: Mapping[str, Any]) -> bool:
    if provider not in SERVERS or not parameters.keys() <= _CHAT_PARAMETERS:
        return False
    return provider != "openai" or not any(word in name for word in _RESPONSES_ONLY)


def is_litellm_in_use() -> bool:
    """Return whether the program has configured LiteLLM: callbacks, a cache, or one of ``_LITELLM_SETTINGS``."""
    litellm: Any = sys.modules.get("litellm")
    if litellm is None or not hasattr(litellm, "acompletion"):  # the import may still be in progress
        return False
    return any(getattr(litellm, name, None) for name in _LITELLM_SETTINGS) or uses_litellm(litellm)


class _DirectSource:
    """Calls an OpenAI-compatible server, usually without LiteLLM.

    A call goes through LiteLLM if the program has configured LiteLLM, or if a parameter of the call needs LiteLLM.
    """

    def __init__(self, provider: str, name: str, settings: Mapping[str, Any]) -> None:
        self._provider = provider
        self._name = name
        self._settings = settings
        self._direct = OpenAICompatibleSource(provider, name, **settings)

    @cached_property
    def _litellm(self) -> LiteLLMSource:
        return LiteLLMSource(**self._settings)

    def stream(self, request: Request) -> Observable[Delta]:
        is_direct = _is_direct(self._provider, self._name, request.parameters) and not is_litellm_in_use()
        return (self._direct if is_direct else self._litellm).stream(request)

    @property
    def base_url(self) -> str | None:
        return self._direct.base_url

    @property
    def api_key(self) -> str | None:
        return self._direct.api_key

    def find_url(self) -> str | None:
        return self._direct.find_url()

    async def calls_functions(self, model: str) -> bool:
        return await self._direct.calls_functions(model)

    def retry_delay(self, error: BaseException, attempt: int, of: int) -> float | None:
        return self._direct.retry_delay(error, attempt, of)

    def explain(self, error: BaseException, model: str) -> BaseException:
        return self._direct.explain(error, model)


def _demo_source(model: str, name: str, pace: float, parameters: Mapping[str, Any]) -> Source:
    if name != "demo":
        raise ValueError(f'the only embedded model is "rxflow/demo"; got {model!r}')
    unknown = sorted(parameters.keys() - _DEMO_PARAMETERS)
    if unknown:
        raise TypeError(f"the embedded model does not have the parameters {', '.join(unknown)}")
    return DemoSource(pace)
