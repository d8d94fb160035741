"""Chooses LiteLLM's exception class for an error: by status, code and type, never by the text of a message.

Programs catch ``litellm.RateLimitError`` and similar classes. So rxflow raises these classes, even if LiteLLM did not
send the request.
"""

from __future__ import annotations

import copyreg
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from json import JSONDecodeError
from os import environ
from time import time
from typing import Any, NoReturn, cast

from rxflow.llm._reading import IncompleteAnswer
from rxflow.llm._redaction import redact_error
from rxflow.llm._wires.sse import ErrorEvent, MalformedEvent, OversizedEvent
from rxflow.llm.source import check_url

_MAX_RETRY_AFTER_S = 60.0
_MAX_DOUBLINGS = 64  # of the delay; from 1,024 on, it would be too large for a float
_RETRYABLE_STATUSES = frozenset({408, 409, 425, 429})
# Errors with these codes are not retried, although their status is retryable: waiting does not help.
_CODES_THAT_STAY = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})

_STATUS_OF_WORD = {
    # OpenAI and compatible servers
    "invalid_api_key": 401,
    "insufficient_quota": 429,
    "rate_limit_exceeded": 429,
    "model_not_found": 404,
    "context_length_exceeded": 400,
    "content_policy_violation": 400,
    "content_filter": 400,
    "server_error": 500,
    # Anthropic: https://docs.anthropic.com/en/api/errors
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
    # Google: https://cloud.google.com/apis/design/errors
    "invalid_argument": 400,
    "failed_precondition": 400,
    "unauthenticated": 401,
    "permission_denied": 403,
    "not_found": 404,
    "resource_exhausted": 429,
    "internal": 500,
    "unavailable": 503,
    "deadline_exceeded": 504,
    # Amazon
    "validationexception": 400,
    "accessdeniedexception": 403,
    "throttlingexception": 429,
    "internalserverexception": 500,
    "serviceunavailableexception": 503,
}


class RefusedRequest(Exception):
    """The provider answered with an HTTP status other than 200."""

    def __init__(self, status: int, body: object, headers: Mapping[str, str]) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body
        self.headers = headers


class UnpreparedRequest(Exception):
    """A request could not be prepared, so nothing was sent."""


class LostConnection(Exception):
    """A connection failed. ``__cause__`` has the details. ``address`` is the scheme, host and port of the server."""

    def __init__(self, address: str) -> None:
        super().__init__(f"the connection to {address} failed")
        self.address = address


class MissingKey(Exception):
    """The API key, or another setting that the provider needs, is missing. Nothing was sent.

    ``variables`` are the environment variables that are not set.
    """

    def __init__(self, *variables: str) -> None:
        are = "is" if len(variables) == 1 else "are"
        super().__init__(f"there is no API key for this model: {' and '.join(variables)} {are} not set")
        self.variables = variables


def find_url(given: Mapping[str, str | None]) -> str | None:
    """Return the first address in ``given`` that is not empty; None if all are empty.

    ``given`` maps the names of settings to addresses. Raises :class:`UnpreparedRequest` if the found address is not an
    HTTP URL.
    """
    for name, url in given.items():
        if url:
            try:
                return check_url(name, url)
            except ValueError as error:
                raise UnpreparedRequest(str(error)) from error
    return None


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is known about an error. The exception class is chosen from these facts."""

    status: int | None
    message: str
    code: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


def iterate_causes(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error``, then its ``__cause__`` or else its ``__context__``, and so on. Yield each exception once."""
    following: BaseException | None = error
    seen: set[int] = set()
    while following is not None and id(following) not in seen:
        yield following
        seen.add(id(following))
        following = following.__cause__ or following.__context__


def is_break(error: BaseException) -> bool:
    """Return whether ``error`` means that the connection was lost or received no data.

    Return False for an error that the provider reports.
    """
    import aiohttp
    import httpx

    kinds = (httpx.RequestError, aiohttp.ClientError, TimeoutError, ConnectionError)
    original = getattr(error, "original_exception", None) or error
    return any(isinstance(cause, kinds) for cause in iterate_causes(original))


def raise_as_litellm(
    litellm: Any, error: Exception, keys: Sequence[str], *, model: str, provider: str, has_begun: bool
) -> NoReturn:
    """Raise LiteLLM's exception for ``error``. The API ``keys`` are masked in the exception and in ``error``.

    See :func:`as_litellm` for ``has_begun``.
    """
    # Mask the keys before the new error is made. The new error may quote only the beginning of a text. If that
    # beginning ended within a key, the rest of the key would be missing, so the key would not be found.
    redact_error(error, keys)
    mapped = as_litellm(litellm, error, model=model, provider=provider, has_begun=has_begun)
    redact_error(mapped, keys)
    if mapped is error:
        raise error
    raise mapped from (error if mapped.__cause__ is None else mapped.__cause__)


def as_litellm(litellm: Any, error: Exception, *, model: str, provider: str, has_begun: bool) -> Exception:
    """Return an exception of LiteLLM for ``error``. It may be ``error`` itself.

    Args:
        has_begun: True if the headers of an answer had arrived. A lost connection then means that the answer is
            incomplete.
    """
    error = cast(Exception, getattr(error, "original_exception", None) or error)
    about = {"llm_provider": provider, "model": model}
    for cause in iterate_causes(error):
        match cause:
            case ErrorEvent():
                return _of_facts(litellm, _facts_in(cause.body, None), about)
            case RefusedRequest():
                facts = _facts_in(cause.body, cause.status)
                return _of_facts(litellm, _Facts(cause.status, facts.message, facts.code, cause.headers), about)
            case MalformedEvent() | OversizedEvent():
                return cast(Exception, litellm.APIResponseValidationError(message=str(cause), **about))
            case JSONDecodeError() | UnicodeDecodeError() | RecursionError() if has_begun:
                message = f"an event of the stream is not JSON ({cause})"
                return cast(Exception, litellm.APIResponseValidationError(message=message, **about))
            case IncompleteAnswer():
                return _cut_short(litellm, str(cause), about)
            case UnpreparedRequest():
                message = f"the request could not be prepared, and nothing was sent: {cause}"
                return cast(Exception, litellm.BadRequestError(message=message, **about))
            case MissingKey():
                return cast(Exception, litellm.AuthenticationError(message=str(cause), **about))
            case _:
                found = _of_another_library(litellm, cause, about, has_begun)
                if found is not None:
                    return found
    if has_begun and isinstance(error, litellm.APIConnectionError):
        # LiteLLM raises APIConnectionError for all unknown errors. If the answer has begun, the error means that the
        # stream ended without a finish reason.
        return _cut_short(
            litellm, f"the stream ended before the answer was complete: {cast(Any, error).message}", about
        )
    if _is_litellms(litellm, error):
        return _correct(litellm, cast(Any, error), about)
    refusal = _of_a_refusal(litellm, error, about)
    if refusal is not None:
        return refusal
    return cast(Exception, litellm.APIError(status_code=500, message=f"{type(error).__name__}: {error}", **about))


def _of_a_refusal(litellm: Any, error: Exception, about: dict[str, str]) -> Exception | None:
    """Return LiteLLM's exception for an ``openai.APIStatusError``; None for any other error.

    LiteLLM does not convert this error of OpenAI's package if the call is a text completion.
    """
    import openai

    if not isinstance(error, openai.APIStatusError):
        return None
    facts = _facts_in(error.body or error.message, error.status_code)
    return _of_facts(litellm, replace(facts, headers=error.response.headers), about)


def _cut_short(litellm: Any, message: str, about: dict[str, str]) -> Exception:
    cut: Any = litellm.APIConnectionError(message=message, **about)
    cut.cut_short = True
    return cast(Exception, cut)


def _of_another_library(litellm: Any, cause: BaseException, about: dict[str, str], has_begun: bool) -> Exception | None:
    """Return LiteLLM's exception if ``cause`` is a time-out, a failed connection or an error event.

    Such exceptions come from httpx, aiohttp, OpenAI's package or Python itself. Return None for any other exception.
    """
    import aiohttp
    import httpx
    import openai

    if type(cause) is openai.APIError:  # an error event that OpenAI's package has parsed
        return _of_facts(litellm, _facts_in(cause.body or cause.message, None), about)
    if isinstance(cause, httpx.TimeoutException | TimeoutError | openai.APITimeoutError):
        return cast(Exception, litellm.Timeout(message=str(cause) or "the time limit was reached", **about))
    if isinstance(cause, httpx.RequestError | aiohttp.ClientError | ConnectionError):
        if has_begun:
            return _cut_short(litellm, f"the connection broke before the answer was complete: {cause}", about)
        # Raise the class that LiteLLM itself raises for an unreachable server.
        return cast(Exception, litellm.InternalServerError(message=f"the connection failed: {cause}", **about))
    return None


def _is_litellms(litellm: Any, error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] == litellm.__name__ and hasattr(error, "status_code")


def _correct(litellm: Any, error: Any, about: dict[str, str]) -> Exception:
    """Return a new exception if the class of ``error`` does not fit the HTTP status.

    Return ``error`` if its class fits, if the status is not known, or if LiteLLM has no class for the status.
    LiteLLM looks at the provider's text before the status, so it often reports a wrong key as a bad request.
    """
    status = _status_of_response(error)
    if status is None:
        status = error.status_code if isinstance(error, litellm.BadRequestError) else None
    right = _class_of(litellm, status)
    if status is None or right is None or isinstance(error, right):
        return cast(Exception, error)
    headers: Mapping[str, str] = getattr(error, "litellm_response_headers", None) or {}
    found = _of_facts(litellm, _Facts(status, str(error.message), headers=headers), about)
    found.__cause__ = error.__cause__ or error.__context__
    return found


def _status_of_response(error: BaseException) -> int | None:
    """Return the HTTP status that the provider sent; None if it is not known.

    The responses in LiteLLM's own exceptions are invented, so only exceptions of httpx and OpenAI's package are used.
    """
    import httpx
    import openai

    for cause in iterate_causes(error):
        if isinstance(cause, httpx.HTTPStatusError):
            return cause.response.status_code
        if isinstance(cause, openai.APIStatusError) and type(cause).__module__.startswith("openai"):
            return cause.status_code
    return None


def _class_of(litellm: Any, status: object) -> Any:
    classes: dict[object, Any] = {
        400: litellm.BadRequestError,
        401: litellm.AuthenticationError,
        403: litellm.PermissionDeniedError,
        404: litellm.NotFoundError,
        408: litellm.Timeout,
        422: litellm.UnprocessableEntityError,
        429: litellm.RateLimitError,
        500: litellm.InternalServerError,
        502: litellm.BadGatewayError,
        503: litellm.ServiceUnavailableError,
        504: litellm.Timeout,
    }
    return classes.get(status)


def _of_facts(litellm: Any, facts: _Facts, about: dict[str, str]) -> Exception:
    import httpx

    kind = _class_of(litellm, facts.status)
    if kind is litellm.BadRequestError:
        kind = {
            "context_length_exceeded": litellm.ContextWindowExceededError,
            "content_policy_violation": litellm.ContentPolicyViolationError,
            "content_filter": litellm.ContentPolicyViolationError,
        }.get(facts.code, kind)
    if kind is None:
        found: Any = litellm.APIError(status_code=facts.status or 500, message=facts.message, **about)
    elif kind in (litellm.PermissionDeniedError, litellm.UnprocessableEntityError):
        response = httpx.Response(facts.status or 500, request=httpx.Request("POST", "https://api.openai.com/v1"))
        found = kind(message=facts.message, response=response, **about)
    else:
        found = kind(message=facts.message, **about)
        found.status_code = facts.status  # otherwise a litellm.Timeout for the status 504 would have the status 408
    if facts.code:
        found.code = facts.code
    if facts.headers:
        found.litellm_response_headers = facts.headers
    return cast(Exception, found)


def _facts_in(body: object, status: int | None) -> _Facts:
    """Return the facts in ``body``, the JSON or text of an error. The formats of all known providers are read.

    ``status`` is the HTTP status. If it is None, the status is read from ``body``.
    """
    given: object = body
    if isinstance(body, list) and body:
        given = cast(list[object], body)[0]  # Google sends a list with one error
    if not isinstance(given, dict):
        return _Facts(status, str(given))
    said = cast(dict[str, Any], given)
    inner = said.get("error")
    if isinstance(inner, dict):
        said = {**said, **cast(dict[str, Any], inner)}
    elif isinstance(inner, str):
        said = {"message": inner, **said}
    words = [str(said[name]).lower() for name in ("code", "type", "status") if isinstance(said.get(name), str)]
    if status is None:
        numbers = (_read_status(said.get(name)) for name in ("status", "status_code", "code", "http_status"))
        status = next((number for number in numbers if number is not None), None)
    if status is None:
        status = next((_STATUS_OF_WORD[word] for word in words if word in _STATUS_OF_WORD), None)
    code = next((word for word in words if not word.isdigit()), "")
    message: object = said.get("message") or said.get("detail") or said
    return _Facts(status, str(message), code)


def _read_status(value: object) -> int | None:
    if not isinstance(value, int | str) or not str(value).isdigit():
        return None
    return int(value) if 400 <= int(value) <= 599 else None


def delay_before_retry(error: BaseException, attempt: int) -> float | None:
    """Return the seconds to wait before retry number ``attempt`` (from 1).

    Return None if the error should not be retried.

    If the response has a ``Retry-After-Ms`` or ``Retry-After`` header with a delay above 0 and of at most a minute, the
    header gives the delay. Otherwise the first delay is 0.5 s, and each further delay is twice as long, up to 8 s. A
    computed delay also has a random jitter of at most 0.75 times the first delay. LiteLLM's environment variables
    INITIAL_RETRY_DELAY, MAX_RETRY_DELAY and JITTER replace the numbers 0.5, 8 and 0.75.
    """
    status = getattr(error, "status_code", None)
    if not isinstance(status, int) or not (status in _RETRYABLE_STATUSES or status >= 500):
        return None
    if getattr(error, "code", None) in _CODES_THAT_STAY or _cannot_change(error):
        return None
    asked = _retry_after(getattr(error, "litellm_response_headers", None) or {})
    if asked is not None and 0 < asked <= _MAX_RETRY_AFTER_S:
        return asked
    initial, longest, jitter = (
        float(environ.get(name) or default)
        for name, default in (("INITIAL_RETRY_DELAY", 0.5), ("MAX_RETRY_DELAY", 8.0), ("JITTER", 0.75))
    )
    doublings = min(attempt - 1, _MAX_DOUBLINGS)
    return min(initial * 2.0**doublings, longest) + jitter * random.random() * initial


def _cannot_change(error: BaseException) -> bool:
    """Return whether ``error`` means that the answer does not fit the provider's API. A retry is then useless."""
    import openai

    return isinstance(error, openai.APIResponseValidationError)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    lowered = {name.lower().removeprefix("llm_provider-"): value for name, value in headers.items()}
    parsers: tuple[tuple[str, Callable[[str], float]], ...] = (
        ("retry-after-ms", lambda value: float(value) / 1000),
        ("retry-after", float),
        ("retry-after", lambda value: parsedate_to_datetime(value).timestamp() - time()),
    )
    for name, parse in parsers:
        with suppress(KeyError, ValueError, OverflowError):  # OverflowError: a date beyond the year 9999
            return parse(lowered[name])
    return None


def make_picklable(litellm: Any) -> None:
    """Let LiteLLM's errors be pickled for queues and process pools. By itself, pickle cannot restore them."""
    exported = cast(dict[str, object], vars(litellm.exceptions))
    for kind in exported.values():
        if isinstance(kind, type) and issubclass(kind, Exception) and kind.__module__ == litellm.exceptions.__name__:
            copyreg.pickle(kind, _reduce)


def _reduce(error: BaseException) -> tuple[Any, ...]:
    plain = (str, int, float, bool, type(None))
    state: dict[str, Any] = {
        name: value
        for name, value in vars(error).items()
        if isinstance(value, plain) or (name == "litellm_response_headers" and isinstance(value, dict))
    }
    return _restore, (type(error), tuple(map(str, error.args)), state)


def _restore(kind: type[BaseException], arguments: tuple[str, ...], state: dict[str, Any]) -> BaseException:
    error = kind.__new__(kind)
    error.args = arguments
    error.__dict__.update(state)
    return error
