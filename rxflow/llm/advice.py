"""One line that says what to do, for the errors that providers give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

NAMES = (
    'models are written "provider/model", for example "openai/gpt-4.1-mini", "anthropic/claude-sonnet-4-5" or '
    '"ollama_chat/llama3"; "rxflow/demo" needs no key'
)


def advice_for(error: BaseException, litellm: Any, model: str) -> str | None:
    """What the user can do about ``error``; None where the error says it all."""
    match getattr(error, "status_code", None), type(error).__name__:
        case (401, _) | (_, "AuthenticationError"):
            variables = " or ".join(_key_variables(litellm, model)) or "the provider's API key"
            return f"set {variables} to a valid key, or pass LLM(…, api_key=…)"
        case _, "BadRequestError" if "LLM Provider NOT provided" in str(error):
            return NAMES
        case (404, _) | (_, "NotFoundError"):
            return f"check the model's name and base_url; {NAMES}"
        case (403, _) | (_, "PermissionDeniedError"):
            return "this key may not use this model: choose another model, or ask the provider for access"
        case (429, _) | (_, "RateLimitError"):
            return "wait, or lower max_rpm; LLM(…, max_retries=…) tries again by itself"
        case _, "ContextWindowExceededError":
            return "shorten the prompt or the context, or choose a model with a larger context window"
        case _, "Timeout" | "APITimeoutError":
            return "LLM(…, timeout=…, connect_timeout=…) sets the seconds without a byte, and for the connection"
        case _, "InternalServerError" | "APIConnectionError" if _found_no_server(error):
            return f"check that the server runs and that base_url is right{_where_it_went(error)}"
        case _, "APIConnectionError" if "before the answer was complete" in str(error):
            return "try again; where it never works, check base_url"
        case _, "APIResponseValidationError":
            return "check base_url: what answers there does not stream as OpenAI's chat API does"
        case _, "InternalServerError" | "ServiceUnavailableError" | "BadGatewayError" | "APIError":
            return "the provider has a problem: try again later, or raise LLM(…, max_retries=…)"
        case _:
            return None


def add_advice(error: BaseException, advice: str) -> BaseException:
    """Put the line into the error's own text, since most programs print just that."""
    message = getattr(error, "message", None)
    if isinstance(message, str):
        if advice not in message:
            error.message = f"{message}\n→ {advice}"  # type: ignore[attr-defined]
    else:
        error.add_note(f"→ {advice}")
    return error


def _found_no_server(error: BaseException) -> bool:
    """Nothing took the connection, or what did speaks no HTTP."""
    import httpx  # comes with litellm, and only with it: `import rxflow` stays light

    return "Connection error" in str(error) or isinstance(_failed_request(error), httpx.ConnectError)


def _where_it_went(error: BaseException) -> str:
    """Scheme, host and port of the request, where they are known: the rest of a URL may hold secrets."""
    failed = _failed_request(error)
    if failed is None:
        return ""
    try:
        url = failed.request.url
    except RuntimeError:  # httpx's way to say that the error has no request
        return ""
    return f" (the request went to {url.scheme}://{url.netloc.decode('ascii')})"


def _failed_request(error: BaseException) -> httpx.RequestError | None:
    """What led to ``error`` on the wire. The requests that litellm's own errors name are made up."""
    import httpx

    following: BaseException | None = error
    seen: set[int] = set()
    while following is not None and id(following) not in seen:
        if isinstance(following, httpx.RequestError):
            return following
        seen.add(id(following))
        following = following.__cause__ or following.__context__
    return None


def _key_variables(litellm: Any, model: str) -> list[str]:
    """The environment variables that hold the key, as far as litellm knows."""
    # With the variables set to a wrong key nothing is missing; a made-up environment is no option, so ask by provider.
    missing: list[str] = litellm.validate_environment(model).get("missing_keys") or []
    if missing:
        return missing
    provider = litellm.get_llm_provider(model)[1]
    return [f"{provider.upper()}_API_KEY"]
