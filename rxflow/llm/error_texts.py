"""What errors say: without keys, and no more than a person reads.

Events, frames, logs and recordings all show errors. Providers echo keys ("Incorrect API key provided: sk-…"), the whole
request with its headers, or send a web page of megabytes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast
from urllib.parse import quote

_NAMES = re.compile(r"(?:key|token|secret|password|authorization|cookie)$", re.IGNORECASE)
_SHORTEST = 8  # characters: what is shorter guards nothing, and may well be a word of the message
_MASK = "***"
_LONGEST = 4000  # characters of a message


def known_keys(*given: object) -> list[str]:
    """The secrets among what was given (strings; and in mappings, what is named like one) and in the environment."""
    found = {key for each in (*given, os.environ) for key in _secrets_in(each)}
    found |= {quote(key, safe="") for key in found}
    # The longest first: one may contain another.
    return sorted((key for key in found if len(key) >= _SHORTEST), key=len, reverse=True)


def _secrets_in(given: object, *, is_named: bool = True) -> Iterator[str]:
    if isinstance(given, Mapping):
        for name, value in cast(Mapping[object, object], given).items():
            yield from _secrets_in(value, is_named=bool(_NAMES.search(str(name))))
    elif isinstance(given, str) and is_named:
        yield given
        yield given.rpartition(" ")[2]  # "Bearer sk-…"


def clean(error: BaseException, keys: Sequence[str]) -> None:
    """Mask the keys in all that ``error``, and what led to it, say of themselves, and cut what is too long."""
    following: list[BaseException] = [error]
    seen: set[int] = set()
    while following:
        each: Any = following.pop()
        seen.add(id(each))
        each.args = tuple(_cleaned(value, keys) for value in each.args)
        attributes = cast(dict[str, Any], vars(each))
        for name, value in list(attributes.items()):
            better = _cleaned(value, keys)
            if better is not value:
                setattr(each, name, better)
        for link in ("__cause__", "__context__", "original_exception"):
            cause: BaseException | None = getattr(each, link, None)
            if cause is not None and id(cause) not in seen:
                following.append(cause)
    _cut_off_what_still_shows(error, keys, set())


def _cut_off_what_still_shows(error: BaseException, keys: Sequence[str], seen: set[int]) -> None:
    """Some errors, pydantic's for one, cannot be changed: then nobody is told that they led to this one."""
    seen.add(id(error))
    for link in ("__cause__", "__context__"):
        cause: BaseException | None = getattr(error, link)
        if cause is None or id(cause) in seen:
            continue
        if any(key in f"{cause} {cause!r}" for key in keys):
            setattr(error, link, None)
        else:
            _cut_off_what_still_shows(cause, keys, seen)


def _cleaned(value: Any, keys: Sequence[str]) -> Any:
    """``value`` itself where nothing is to be done."""
    better: Any = value
    if isinstance(value, str):
        for key in keys:
            better = better.replace(key, _MASK)
        if len(better) > _LONGEST:
            better = f"{better[:_LONGEST]}… ({len(better) - _LONGEST:,} more characters)"
    elif isinstance(value, dict):
        better = {name: _cleaned(each, keys) for name, each in cast(dict[Any, Any], value).items()}
    elif isinstance(value, list):
        better = [_cleaned(each, keys) for each in cast(list[Any], value)]
    return cast(object, value) if better == value else better
