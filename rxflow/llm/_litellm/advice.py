"""Adds a line of advice to the errors of providers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from rxflow.llm._litellm.errors import LostConnection, MissingKey, UnpreparedRequest, iterate_causes
from rxflow.llm._litellm.setup import find_imported
from rxflow.llm._wires.sse import OversizedEvent
from rxflow.llm.source import split_model

_AWS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_AZURE = ("AZURE_API_BASE", "AZURE_API_KEY")
_VARIABLES = {
    "anthropic_text": ("ANTHROPIC_API_KEY",),
    "azure": _AZURE,
    "azure_text": _AZURE,
    "bedrock": _AWS,
    "cohere_chat": ("COHERE_API_KEY",),
    "datarobot": ("DATAROBOT_API_TOKEN",),
    "gemini": ("GEMINI_API_KEY or GOOGLE_API_KEY",),
    "gigachat": ("GIGACHAT_CREDENTIALS",),
    "perplexity": ("PERPLEXITYAI_API_KEY or PERPLEXITY_API_KEY",),
    "sagemaker": _AWS,
    "snowflake": ("SNOWFLAKE_JWT",),
    "text-completion-codestral": ("CODESTRAL_API_KEY",),
    "text-completion-openai": ("OPENAI_API_KEY",),
    "vertex_ai": ("GOOGLE_APPLICATION_CREDENTIALS",),
}
"""By provider: the environment variables that a call needs. "A or B" means that one of two variables is enough.

A provider is listed here if LiteLLM's own list is wrong, or if the variables are not named after the provider.
"""

_OPTIONS = {
    "AWS_ACCESS_KEY_ID": "aws_access_key_id",
    "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key",
    "AZURE_API_BASE": "base_url",
    "GOOGLE_APPLICATION_CREDENTIALS": "vertex_credentials",
}
"""By environment variable: the option of ``LLM`` that replaces it. For other variables, the option is ``api_key``."""

_CLOUDS = ("bedrock", "sagemaker", "vertex_ai")  # beginnings of providers' names
_NO_CREDENTIALS = ("DefaultCredentialsError", "NoCredentialsError")  # exception classes of google-auth and botocore

NAMES = (
    'models are written "provider/model", for example "openai/gpt-4.1-mini", "anthropic/claude-sonnet-4-5" or '
    '"ollama_chat/llama3"; "rxflow/demo" needs no key'
)


def explain(error: BaseException, model: str) -> BaseException:
    """Add a line of advice to ``error``, if the user can do something about it. Return ``error``."""
    # A provider's error is an instance of a LiteLLM class. If LiteLLM is not imported, ``error`` does not come from a
    # provider. Do not wait for the import here: that would block the run's loop for seconds.
    litellm = find_imported()
    advice = None if litellm is None else advice_for(error, litellm, model)
    return error if advice is None else add_advice(error, advice)


def advice_for(error: BaseException, litellm: Any, model: str) -> str | None:
    """Return what the user can do about ``error``; None if there is no advice."""
    causes = list(iterate_causes(error))
    match getattr(error, "status_code", None), type(error).__name__:
        case _ if any(isinstance(cause, OversizedEvent) for cause in causes):
            return "ask for less in one answer; if it was not an answer, check base_url"
        case (401, _) | (_, "AuthenticationError"):
            return _advise_on_key(litellm, model, causes)
        case _ if not _has_known_provider(litellm, model):
            return NAMES
        case _ if any(isinstance(cause, UnpreparedRequest) for cause in causes):
            return "check the messages, tools and parameters of the call"
        case (404, _) | (_, "NotFoundError"):
            return f"check the model's name and base_url; {NAMES}"
        case (403, _) | (_, "PermissionDeniedError"):
            return "this key may not use this model: choose another model, or ask the provider for access"
        case (429, _) | (_, "RateLimitError"):
            if getattr(error, "code", None) == "insufficient_quota":
                return "this account has no credit left: see the provider's billing page"
            return "wait, or lower max_rpm; LLM(…, max_retries=…) tries again by itself"
        case _, "ContextWindowExceededError":
            return "shorten the prompt or the context, or choose a model with a larger context window"
        case _, "Timeout" | "APITimeoutError":
            return "LLM(…, timeout=…, connect_timeout=…) sets the seconds without a byte, and for the connection"
        case _, "APIConnectionError" if getattr(error, "cut_short", False):
            return "try again; if it never works, check base_url"
        case _, "InternalServerError" | "APIConnectionError" if _was_not_answered(causes):
            return f"check that the server runs and that base_url is right{_address(causes)}"
        case _, "APIResponseValidationError":
            return "check base_url: what answers there does not stream as this provider's API does"
        case _, "InternalServerError" | "ServiceUnavailableError" | "BadGatewayError" | "APIError":
            return "the provider has a problem: try again later, or raise LLM(…, max_retries=…)"
        case _:
            return None


def add_advice(error: BaseException, advice: str) -> BaseException:
    """Add ``advice`` to the message of ``error``, because most programs print only the message. Return ``error``.

    If ``error`` has no attribute ``message``, or ``message`` is not a string, add a note instead.
    """
    message = getattr(error, "message", None)
    if isinstance(message, str):
        if advice not in message:
            error.message = f"{message}\n→ {advice}"  # type: ignore[attr-defined]
    else:
        error.add_note(f"→ {advice}")
    return error


def _has_known_provider(litellm: Any, model: str) -> bool:
    try:
        litellm.get_llm_provider(model)
    except Exception:  # noqa: BLE001 - litellm raises this if it does not know the provider
        return False
    return True


def _was_not_answered(causes: list[BaseException]) -> bool:
    """Return whether the HTTP client failed, for example because no server accepted the connection."""
    import aiohttp
    import httpx
    import openai

    kinds = (httpx.RequestError, aiohttp.ClientError, ConnectionError, openai.APIConnectionError)
    return any(isinstance(cause, kinds) and not type(cause).__module__.startswith("litellm") for cause in causes)


def _address(causes: list[BaseException]) -> str:
    """Return a remark with the scheme, host and port of the request. If they are not known, return an empty string.

    The rest of the URL is left out, because it may contain secrets.
    """
    import httpx

    for cause in causes:
        if isinstance(cause, httpx.RequestError):
            try:
                url = cause.request.url
            except RuntimeError:  # httpx raises this if the error has no request
                continue
            return f" (the request went to {url.scheme}://{url.netloc.decode('ascii')})"
        if isinstance(cause, LostConnection):
            return f" (the request went to {cause.address})"
    return ""


def find_missing_variables(litellm: Any, model: str, error: BaseException) -> list[str]:
    """Return the names of the environment variables that a call of ``model`` needs, and that are not set.

    "A or B" in the list means that one of two variables is enough. Clouds, such as AWS, also have other sources of
    credentials. So for a cloud, return an empty list unless ``error`` shows that no credentials were found.
    """
    provider = _provider_of(litellm, model)
    if provider.startswith(_CLOUDS) and not lacks_credentials(error):
        return []
    needed = _find_variables(litellm, provider, model)
    return [names for names in needed if not any(map(os.environ.get, names.split(" or ")))]


def lacks_credentials(error: BaseException) -> bool:
    """Return whether ``error`` was raised because the library of a cloud found no credentials."""
    return any(type(cause).__name__ in _NO_CREDENTIALS for cause in iterate_causes(error))


def _advise_on_key(litellm: Any, model: str, causes: list[BaseException]) -> str:
    """Return the advice for keys that are missing or were refused. It names the variables, and the options of LLM."""
    missing = next((cause.variables for cause in causes if isinstance(cause, MissingKey)), None)
    names = missing or _key_variables(litellm, model)
    options = list(dict.fromkeys(_OPTIONS.get(name, "api_key") for name in names)) or ["api_key"]
    value = " to a valid key" if options == ["api_key"] else ""
    variables = " and ".join(names) or "the provider's API key"
    return f"set {variables}{value}, or pass LLM(…, {', '.join(f'{option}=…' for option in options)})"


def _key_variables(litellm: Any, model: str) -> list[str]:
    """Return the environment variables for the key of ``model``; an empty list if its provider is not known."""
    provider = _provider_of(litellm, model)
    keys = [name for name in _find_variables(litellm, provider, model) if not name.endswith("_API_BASE")]
    # If a variable is set to a wrong key, LiteLLM does not report the variable as missing, so ``keys`` may be empty.
    # Then make the name of the variable from the name of the provider.
    return keys or ([f"{provider.removesuffix('_chat').upper()}_API_KEY"] if provider else [])


def _find_variables(litellm: Any, provider: str, model: str) -> Sequence[str]:
    for prefix, variables in _VARIABLES.items():
        if provider == prefix or (prefix in _CLOUDS and provider.startswith(prefix)):
            return variables
    # LiteLLM's list also has the variables for addresses and regions. Leave these out, because most have a default.
    missing: list[str] = litellm.validate_environment(model).get("missing_keys") or []
    return [name for name in missing if name.endswith(("_KEY", "_TOKEN"))]


def _provider_of(litellm: Any, model: str) -> str:
    try:
        return str(litellm.get_llm_provider(model)[1])
    except Exception:  # noqa: BLE001 - litellm raises this if it does not know the provider
        return split_model(model)[0]
