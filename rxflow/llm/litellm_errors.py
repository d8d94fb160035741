"""The litellm class of an error, whatever lane and library it came from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from json import JSONDecodeError
from typing import Any, cast

from rxflow.llm.lanes import ErrorEvent, MalformedEvent
from rxflow.llm.server_sent_events import OversizedEvent

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
    if not isinstance(mapped, litellm.APIConnectionError):
        return mapped
    # "Connection error" is litellm's name for all that it does not know.
    about = {"llm_provider": provider, "model": model}
    found: Any = mapped
    for cause in _chain(error):
        if isinstance(cause, MalformedEvent | OversizedEvent):
            found = litellm.APIResponseValidationError(message=str(cause), **about)
        elif isinstance(cause, JSONDecodeError | UnicodeDecodeError):
            found = litellm.APIResponseValidationError(message=f"an event of the stream is not JSON ({cause})", **about)
        elif isinstance(cause, httpx.TimeoutException):
            found = litellm.Timeout(message=str(cause), **about)
        elif isinstance(cause, httpx.TransportError):
            found = litellm.APIConnectionError(
                message=f"the connection broke before the answer was complete: {cause}", **about
            )
        elif type(cause) is openai.APIError:
            found = litellm.APIError(status_code=500, message=cause.message, **about)
        elif _MISSING_KEY.search(str(cause)):
            found = litellm.AuthenticationError(
                message=str(cause).partition("\nTraceback")[0].removeprefix("litellm.APIConnectionError: "), **about
            )
        if found is not mapped:
            break
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
