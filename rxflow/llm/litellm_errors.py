"""The litellm class of an error, whatever lane and library it came from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from json import JSONDecodeError
from typing import Any, cast

from rxflow.llm.deltas import ErrorEvent, MalformedEvent
from rxflow.llm.wires.sse import OversizedEvent

_MISSING_KEY = re.compile(r"missing .*\bapi.?key", re.IGNORECASE)


def as_litellm(litellm: Any, error: Exception, *, model: str, provider: str) -> Exception:
    """``error`` itself where it is litellm's already, else the one that litellm makes of it."""
    import httpx  # comes with litellm, and only with it: `import rxflow` stays light
    import openai

    error = getattr(error, "original_exception", None) or error
    if isinstance(error, ErrorEvent):
        # What OpenAI's own client makes of it, so that litellm finds rate limits and the like.
        request = httpx.Request("POST", "https://api.openai.com/v1")
        error = openai.APIError(str(error), request, body=error.body)
    mapped = _by_litellm(litellm, error, model, provider)
    if type(mapped) is litellm.BadRequestError:
        return _by_status(litellm, cast(Any, mapped))
    if not isinstance(mapped, litellm.APIConnectionError):
        return mapped
    # "Connection error" is litellm's name for all that it does not know.
    about = {"llm_provider": provider, "model": model}
    found: Any = mapped
    for cause in _chain(error):
        if isinstance(cause, MalformedEvent | OversizedEvent):
            found = litellm.APIResponseValidationError(message=str(cause), **about)
        elif isinstance(cause, JSONDecodeError | UnicodeDecodeError | RecursionError):
            found = litellm.APIResponseValidationError(message=f"an event of the stream is not JSON ({cause})", **about)
        elif isinstance(cause, httpx.TimeoutException | TimeoutError):
            found = litellm.Timeout(message=str(cause), **about)
        elif isinstance(cause, httpx.TransportError):
            found = litellm.APIConnectionError(
                message=f"the connection broke before the answer was complete: {cause}", **about
            )
        elif type(cause) is openai.APIError:
            # Its own message says nothing where the provider's error is a bare string.
            said = cause.body if isinstance(cause.body, str) else cause.message
            found = litellm.APIError(status_code=500, message=said, **about)
        elif _MISSING_KEY.search(str(cause)):
            found = litellm.AuthenticationError(
                message=str(cause).partition("\nTraceback")[0].removeprefix("litellm.APIConnectionError: "), **about
            )
        if found is not mapped:
            break
    return cast(Exception, found)


def is_a_break(error: BaseException) -> bool:
    """The connection was lost, or fell silent: nothing that the provider has said."""
    import httpx

    broken = (httpx.TransportError, TimeoutError, ConnectionError)
    error = getattr(error, "original_exception", None) or error
    return any(isinstance(cause, broken) for cause in _chain(error))


def _by_status(litellm: Any, error: Any) -> Exception:
    """litellm goes by the provider's words first, and takes many a refusal for a bad request."""
    classes: dict[object, Any] = {401: litellm.AuthenticationError, 408: litellm.Timeout, 429: litellm.RateLimitError}
    kind = classes.get(getattr(error, "status_code", None))
    if kind is None:
        return cast(Exception, error)
    said = str(error.message).removeprefix("litellm.BadRequestError: ")
    found: Any = kind(message=said, llm_provider=error.llm_provider, model=error.model)
    found.litellm_response_headers = getattr(error, "litellm_response_headers", None)
    return cast(Exception, found)


def _by_litellm(litellm: Any, error: Exception, model: str, provider: str) -> Exception:
    try:
        litellm.exception_type(model=model, original_exception=error, custom_llm_provider=provider)
    except Exception as raised:  # noqa: BLE001 - raising is how litellm gives it back
        return raised
    return error  # it was one of litellm's already


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it."""
    following: BaseException | None = error
    seen: set[int] = set()
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__
