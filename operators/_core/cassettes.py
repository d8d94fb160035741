"""Cassettes: the items of a stream with their times, as lines of JSON. ::

    {"cassette": "rxflow", "version": 1}
    {"at":0.0,"v":1,"kind":"LLMStarted","data":{"origin":{…},"model":"openai/gpt-4o","messages":[…]}}
    {"at":0.412,"v":1,"kind":"StreamChunk","data":{"content":"Hello",…}}
    {"at":0.907,"kind":"completed"}

The first line names the format. Each other line has one item, or the end of the stream. ``at`` is the time in seconds
since the subscription. An event is written as :mod:`rxflow.types.codec` describes. An item that is not an event has the
``kind`` ``str`` or ``other``. In the last line, ``kind`` is ``completed``, ``failed`` or ``disposed``. If the stream
failed, the last line also has the error.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any, cast

from rxflow.operators._core.checks import AnyPath
from rxflow.types import Happened, ReasoningChunk, StreamChunk
from rxflow.types.codec import (
    VERSION,
    decode_entry,
    describe_error,
    encode,
    from_json_value,
    restore_error,
    to_json_value,
)

HEADER = b'{"cassette": "rxflow", "version": 1}\n'
_END_KINDS = ("completed", "failed", "disposed")


class CassetteError(ValueError):
    """A file is not a cassette of this version, or is broken or incomplete. The message names the line."""


@dataclass(frozen=True, slots=True)
class Cassette:
    """A recorded stream.

    ``items`` holds each item with its time: ``(time, item)``. ``ended_at`` is the time of the end, or of the last item
    if the recording was cut short. Times are in seconds since the subscription.

    If the stream completed, ``error`` is None. If the stream failed, ``error`` is the stream's error. If the stream was
    disposed, or the recording was cut short, ``error`` is a CassetteError.
    """

    items: list[tuple[float, Any]]
    ended_at: float
    error: Exception | None


def encode_item(at: float, item: object) -> bytes:
    """Encode an item and its time as a line. Mask secrets, but do not search the text of a short chunk for them."""
    if isinstance(item, StreamChunk | Happened):
        line = b'{"at":%a,' % round(at, 6) + encode(item)[1:]
    else:
        line = _dump({"at": round(at, 6), "kind": "str" if type(item) is str else "other", "data": to_json_value(item)})
    if isinstance(item, StreamChunk | ReasoningChunk) and len(item.content) < _MIN_SECRET_CHARACTERS:
        labels = item if isinstance(item, StreamChunk) else item.origin
        if not _contain_secrets(labels.task_name, labels.agent_role):
            return line
    return _mask_secrets(line)  # most chunks return above, because this search takes longer than the encoding


def encode_end(at: float, kind: str, error: BaseException | None = None) -> bytes:
    """Encode the end of the stream as a line."""
    line: dict[str, Any] = {"at": round(at, 6), "kind": kind}
    return _mask_secrets(_dump(line if error is None else line | {"error": describe_error(error)}))


def read_cassette(path: AnyPath) -> Cassette:
    """Read a cassette. If the recording was cut short, the error is in the result, and is not raised.

    Raises:
        OSError: the file cannot be read.
        CassetteError: the file is not a cassette, or one of its lines is broken.
    """
    lines = Path(path).read_bytes().split(b"\n")
    torn = lines.pop()  # empty, unless the program died while it wrote a line
    position = f"{os.fspath(path)}, line "
    if not lines or _parse_line(lines[0], f"{position}1") != json.loads(HEADER):
        first = lines[0] if lines else torn
        raise CassetteError(
            f"{position}1: not a cassette of this version, which begins with {HEADER!r}: {first[:80]!r}"
        )
    items: list[tuple[float, Any]] = []
    last = 0.0
    for number, line in enumerate(lines[1:], 2):
        entry = _parse_line(line, f"{position}{number}")
        try:
            at = float(entry["at"])
            if not isfinite(at):
                raise ValueError(f"the time is not finite: {at!r}")
            if at < last:
                raise ValueError(f"times cannot go back: {at!r} follows {last!r}")
            last = at
            if entry["kind"] in _END_KINDS:
                if number <= len(lines) - 1 or torn:
                    raise ValueError(f"there are lines after the end, which is {entry['kind']!r}")
                return Cassette(items, at, _read_end(entry, f"{position}{number}"))
            items.append((at, _read_item(entry)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CassetteError(f"{position}{number}: {type(error).__name__}: {error}") from error
    cut = CassetteError(
        f"{position}{len(lines) + 1}: the recording is cut short: its program ended before the stream did"
    )
    return Cassette(items, last, cut)


def _parse_line(line: bytes, position: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise CassetteError(f"{position}: not JSON ({error}): {line[:80]!r}") from error
    if not isinstance(entry, dict):
        raise CassetteError(f"{position}: not a JSON object: {line[:80]!r}")
    return cast("dict[str, Any]", entry)


def _read_end(entry: Mapping[str, Any], position: str) -> Exception | None:
    if entry["kind"] == "failed":
        return restore_error(entry["error"])
    if entry["kind"] == "disposed":
        return CassetteError(f"{position}: the recording ends here: the stream was disposed")
    return None


def _read_item(entry: Mapping[str, Any]) -> Any:
    """Return the item of a line, or its stand-in (see :mod:`rxflow.types.codec`). A broken line raises an error."""
    if entry["kind"] in ("str", "other"):
        return from_json_value(entry["data"])
    return decode_entry({"v": VERSION, **entry})


def _dump(line: dict[str, Any]) -> bytes:
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


# rxflow itself puts no API keys into events. But the texts and objects of users may contain secrets, which are masked.

_SECRET_SHAPES = [
    rb"sk-[\w-]{16,}",  # OpenAI, Anthropic, OpenRouter …
    rb"[prs]k_(?:live|test)_\w{16,}",
    rb"(?:gsk|hf|r8|gh[pousr]|github_pat)_\w{20,}",
    rb"(?:xai|glpat|xox[a-z])-[\w-]{16,}",
    rb"AIza[\w-]{30,}",
    rb"A[KS]IA[A-Z0-9]{16}",
    rb"eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]+",  # JSON Web Tokens
]
# The lookahead for the first letter halves the time of the search. A key begins at the start of a word, or directly
# after a JSON escape such as \n or \u00e9. Such an escape ends with a letter or a digit, so (?<!\w) does not match
# after it. Therefore these escapes have cases of their own.
_SECRET = re.compile(
    rb"(?=[sprghxAe])(?:(?<!\w)|(?<=\\[bfnrt])|(?<=\\u[0-9A-Fa-f]{4}))(?:%s)" % b"|".join(_SECRET_SHAPES)
)
_BEARER_TOKEN = re.compile(rb"(?i)(bearer )(?:[\w.~+/=-]|\\+/){8,}")
_SECRET_NAMES = rb"[\w-]*api[_-]?key|[\w-]*authorization|[\w-]*password|[\w-]*secret|[\w-]*access[_-]?token"
# Matches a name and its value. They may be in JSON inside a JSON string, at any depth. Let d be the number of strings
# around them, and n be 2**d - 1. A quote around a name or a value has n backslashes before it. Inside a value, a quote
# has 2n + 1 backslashes before it, and a backslash is written as 2n + 2 backslashes. For example, with d = 1 and
# n = 1, the value a"b is written as \"a\\\"b\".
_NAMED_SECRET = re.compile(
    rb'(?i)("(?:%s)(?P<depth>\\*)"\s*:\s*(?P=depth)")'
    rb'(?:[^"\\]|\\++[^"]|(?:(?P=depth){2}\\\\)*+(?P=depth){2}\\")++' % _SECRET_NAMES
)
_MASK = b"***"

_MIN_SECRET_CHARACTERS = 16
"""If the text of a chunk is shorter than this, only the names of its task and agent are searched for secrets."""


def _mask_secrets(text: bytes) -> bytes:
    """Replace secrets in JSON text by ``***``. The result is still JSON.

    A text is a secret if it looks like an API key or a token, or if its name in the JSON is ``api_key``, ``password``
    or similar. Numbers are not masked.
    """
    text = _SECRET.sub(_MASK, text)
    text = _BEARER_TOKEN.sub(rb"\g<1>" + _MASK, text)
    return _NAMED_SECRET.sub(rb"\g<1>" + _MASK, text)


@lru_cache(maxsize=64)
def _contain_secrets(*labels: str) -> bool:
    """Return whether labels contain secrets. Cached, because all chunks of a task have the same labels."""
    text = _dump({"labels": labels})
    return _mask_secrets(text) != text
