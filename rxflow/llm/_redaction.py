"""Removes secrets, such as API keys, from errors and parameters. Shortens the texts of errors to a readable length.

Events, frames, logs and recordings all show errors. A provider's error may contain the API key ("Incorrect API key
provided: sk-…"), the whole request with its headers, or a web page of megabytes.
"""

from __future__ import annotations

import json
import os
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast
from urllib.parse import quote, unquote

from pydantic_core import from_json

# The last alternative matches the environment variable AWS_BEARER_TOKEN_BEDROCK, which litellm reads. The parameter
# prompt_cache_key of OpenAI's API only names a conversation.
_NAMES = re.compile(
    r"(?:(?<!prompt_cache_)keys?|token|secrets?|passwords?|credentials|authorization|cookie|jwt|bearer_token_bedrock)$",
    re.IGNORECASE,
)
_SCHEMA_FIELDS = ("properties", "$defs", "definitions")  # fields of a JSON schema that map names to schemas
_USER_IN_A_URL = re.compile(r"://([^/?#\s]+)@")
_SAFE_IN_A_QUERY = "/?:@!$'()*,;"
_MIN_SECRET_LENGTH = (
    8  # characters. Shorter secrets are not masked: they protect nothing, and may be words of the message.
)
_MASK = "***"
_FIELDS: dict[type[BaseException], tuple[str, ...]] = {  # shown by str(), and not in vars()
    OSError: ("strerror", "filename", "filename2"),
    ImportError: ("msg", "name", "path"),
}
_MAX_TEXT_LENGTH = 4000  # characters. Longer texts in errors are cut off.


def find_keys(*given: object) -> list[str]:
    """Return the secrets in ``given`` and in the environment variables, the longest first.

    These are secrets:

    - a string in ``given``, directly or in a list;
    - a value of a mapping, if its name is that of a secret, such as "api_key";
    - the password in any URL; if the URL has no password, the user.

    Each secret is also returned as it looks in URLs, in JSON and in ``repr()``. Very short secrets are left out.
    """
    found = {key for each in (*given, os.environ) for key in _secrets_in(each)}
    # URLs contain keys in quoted form. Add two forms of each key. In the first, all special characters are quoted. In
    # the second, the characters that a query allows are not quoted. ``errors`` is needed because an environment
    # variable may contain bytes that are not text.
    found |= {quote(key, safe=safe, errors="replace") for key in found for safe in ("", _SAFE_IN_A_QUERY)}
    # Add each key as repr() and JSON show it. For example, both escape the line breaks in a private key.
    found |= {
        shown[1:-1] for key in found for shown in (repr(key), json.dumps(key), json.dumps(key, ensure_ascii=False))
    }
    # The longest first, because a key may contain a shorter one.
    return sorted((key for key in found if len(key) >= _MIN_SECRET_LENGTH), key=len, reverse=True)


def _secrets_in(given: object, *, is_named: bool = True) -> Iterator[str]:
    if isinstance(given, Mapping):
        for name, value in cast(Mapping[object, object], given).items():
            yield from _secrets_in(value, is_named=_is_secret(name, value))
    elif isinstance(given, list | tuple):
        for value in cast(Sequence[object], given):
            yield from _secrets_in(value, is_named=is_named)
    elif isinstance(given, bytes):
        yield from _secrets_in(given.decode(errors="replace"), is_named=is_named)
    elif isinstance(given, str):
        if is_named:
            yield given
            yield given.rpartition(" ")[2]  # the key in "Bearer sk-…"
            if given.lstrip().startswith("{"):  # the content of a file with credentials
                with suppress(ValueError):
                    yield from _secrets_in(from_json(given), is_named=False)
        for user in _USER_IN_A_URL.findall(given):
            name, _, password = user.partition(":")
            yield password or name
            yield unquote(password or name)
            sent = f"{unquote(name)}:{unquote(password)}"  # HTTP sends this after "Basic", encoded
            yield b64encode(sent.encode(errors="replace")).decode()


def _is_secret(name: object, value: object) -> bool:
    """Return whether ``value`` is secret because of its ``name``.

    The path of a file with credentials (``….json``) is not secret: a user needs the path to understand an error.
    """
    if value is None or isinstance(value, bool) or (isinstance(value, str) and value.endswith(".json")):
        return False
    return bool(_NAMES.search(str(name)))


def mask_secrets(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of ``given`` in which secrets are masked, at any depth.

    A value is masked if its name is that of a secret, such as "api_key". In a URL, the user and password are masked.
    """
    return {name: _MASK if _is_secret(name, value) else _mask_inside(name, value) for name, value in given.items()}


def _mask_inside(holder: str, value: Any) -> Any:
    """Return ``value`` with the secrets inside it masked. ``holder`` is the name of ``value``; "" if it has none."""
    if isinstance(value, Mapping):
        inside = {str(name): each for name, each in cast(Mapping[Any, Any], value).items()}
        if holder in _SCHEMA_FIELDS:  # a field may be named like a secret, but its schema is not secret
            schemas = {name: _mask_inside("", each) for name, each in inside.items() if isinstance(each, Mapping)}
            return mask_secrets({**inside, **dict.fromkeys(schemas)}) | schemas
        return mask_secrets(inside)
    if isinstance(value, list | tuple):
        return [_mask_inside("", each) for each in cast(Sequence[Any], value)]
    return _USER_IN_A_URL.sub(f"://{_MASK}@", value) if isinstance(value, str) else value


def redact_error(error: BaseException, keys: Sequence[str]) -> None:
    """Mask the API keys in ``error`` and in its causes, and shorten long texts. The errors are changed in place.

    The members of an exception group count as causes.
    """
    following: list[BaseException] = [error]
    seen: set[int] = set()
    while following:
        each: Any = following.pop()
        seen.add(id(each))
        each.args = tuple(_redact(value, keys) for value in each.args)
        attributes = dict(cast(dict[str, Any], vars(each)))
        for kind, names in _FIELDS.items():
            if isinstance(each, kind):
                attributes |= {name: getattr(each, name, None) for name in names}
        for name, value in attributes.items():
            better = _redact(value, keys)
            if better is not value:
                with suppress(AttributeError, TypeError):  # raised for a read-only property of a subclass
                    setattr(each, name, better)
        if isinstance(each, UnicodeDecodeError):  # keep only the undecodable bytes, at their position
            each.object = bytes(each.start) + each.object[each.start : each.end]
        for link in ("__cause__", "__context__", "original_exception"):
            cause: BaseException | None = getattr(each, link, None)
            if cause is not None and id(cause) not in seen:
                following.append(cause)
        following += _list_members(each)
    _cut_off_what_still_shows(error, keys, set())


def _cut_off_what_still_shows(error: BaseException, keys: Sequence[str], seen: set[int]) -> None:
    """Remove from ``error`` the causes that still show a key. Some errors, such as pydantic's, cannot be changed."""
    seen.add(id(error))
    for link in ("__cause__", "__context__"):
        cause: BaseException | None = getattr(error, link)
        if cause is None or id(cause) in seen:
            continue
        if any(key in f"{cause} {cause!r} {vars(cause)}" for key in keys):
            setattr(error, link, None)
        else:
            _cut_off_what_still_shows(cause, keys, seen)
    for member in _list_members(error):
        if id(member) not in seen:
            _cut_off_what_still_shows(member, keys, seen)


def _list_members(error: BaseException) -> tuple[BaseException, ...]:
    return cast(BaseExceptionGroup[BaseException], error).exceptions if isinstance(error, BaseExceptionGroup) else ()


def _redact(value: Any, keys: Sequence[str]) -> Any:
    """Return ``value`` with the API keys masked and long texts shortened. If nothing changes, return ``value`` itself.

    Only strings, bytes, dicts, lists, tuples and httpx's objects are searched.
    """
    better: Any = value
    if isinstance(value, str):
        better = _mask(value, keys)
    elif isinstance(value, bytes):
        better = _mask(value.decode(errors="surrogateescape"), keys).encode(errors="surrogateescape")
    elif isinstance(value, dict):
        better = {name: _redact(each, keys) for name, each in cast(dict[Any, Any], value).items()}
    elif type(value) in (list, tuple):
        better = type(value)(_redact(each, keys) for each in value)
    elif type(value).__module__ == "httpx":
        better = _redact_http(value, keys)
    return cast(object, value) if better == value else better


def _mask(text: str, keys: Sequence[str]) -> str:
    for key in keys:
        text = text.replace(key, _MASK)
    # Cut only after masking. Otherwise the beginning of a key could be left.
    return (
        text
        if len(text) <= _MAX_TEXT_LENGTH
        else f"{text[:_MAX_TEXT_LENGTH]}… ({len(text) - _MAX_TEXT_LENGTH:,} more characters)"
    )


def _redact_http(value: Any, keys: Sequence[str]) -> Any:
    """Return a copy of ``value``, an object of httpx, with the API keys masked in its URL, headers and body.

    An object that is neither headers, a request nor a response is returned unchanged.
    """
    import httpx  # comes with litellm; imported here, so that `import rxflow` stays light

    if isinstance(value, httpx.Headers):
        return httpx.Headers(
            [
                (name, _MASK.encode() if _NAMES.search(name.decode("latin-1")) else _redact(each, keys))
                for name, each in value.raw
            ]
        )
    if isinstance(value, httpx.Request):
        headers, content = _redact_http(value.headers, keys), None
        with suppress(httpx.RequestNotRead):  # raised if the body is a stream
            content = _redact(value.content, keys)
            headers.pop("content-length", None)  # the masked body has another length
        url = _redact(str(value.url), keys)
        try:
            return httpx.Request(value.method, url, headers=headers, content=content)
        except httpx.InvalidURL:  # with the mask in place of a key, the text is not a URL
            return httpx.Request(value.method, _MASK, headers=headers, content=content)
    if isinstance(value, httpx.Response):
        headers = _redact_http(value.headers, keys)
        for name in ("content-encoding", "content-length"):  # the copy has the decoded content
            headers.pop(name, None)
        request, content = None, b""
        with suppress(RuntimeError):  # raised if the response has no request
            request = _redact_http(value.request, keys)
        with suppress(httpx.ResponseNotRead):
            content = _redact(value.content, keys)
        return httpx.Response(value.status_code, headers=headers, content=content, request=request)
    return value
