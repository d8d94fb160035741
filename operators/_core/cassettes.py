"""Cassettes: the items of a stream with their times, as lines of JSON. ::

    {"cassette": "rxflow", "version": 1}
    {"at": 0.0, "kind": "LLMStarted", "data": {"origin": {...}, "model": "openai/gpt-4o", "messages": [...]}}
    {"at": 0.412, "kind": "StreamChunk", "data": {"content": "Hello", ...}}
    {"at": 0.907, "kind": "completed"}

``at`` counts seconds from the subscription. ``kind`` is a class of ``rxflow.types.events``, ``str`` or ``other``; in
the last line it is how the stream ended: ``completed``, ``failed`` with its error, ``disposed``.
"""

from __future__ import annotations

import builtins
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from math import isfinite
from pathlib import Path
from typing import Any, TypeAlias, cast, get_args

from pydantic import BaseModel
from pydantic_core import to_json

from rxflow.types.chunks import Origin, StreamChunk
from rxflow.types.events import CrewFinished, Event, ReasoningChunk, TaskFinished, ToolCall
from rxflow.types.results import CrewOutput, TaskOutput
from rxflow.types.usage import UsageMetrics

AnyPath: TypeAlias = str | os.PathLike[str]

HEADER = b'{"cassette": "rxflow", "version": 1}\n'
_END_KINDS = ("completed", "failed", "disposed")
_CLASSES: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(Event)}
_MAX_DEPTH = 20


class RecordedError(Exception):
    """An error whose class could not be restored from a cassette: ``type`` is the class's name."""

    def __init__(self, type: str, message: str) -> None:  # noqa: A002
        super().__init__(type, message)
        self.type = type
        self.message = message

    def __str__(self) -> str:
        return f"{self.type}: {self.message}"


class CassetteError(ValueError):
    """A file that is not a cassette of this version, or that is broken or cut short. It names the line."""


@dataclass(frozen=True, slots=True)
class Cassette:
    """A recorded stream: items with their times in seconds, and its end. ``error`` is None if it completed."""

    items: list[tuple[float, Any]]
    ended_at: float
    error: Exception | None


def encode_item(at: float, item: object) -> bytes:
    """Encode one item as a line. Values that JSON does not know are described."""
    kind = _get_kind(item)
    line = _encode_json({"at": round(at, 6), "kind": kind, "data": item})
    is_too_short = isinstance(item, StreamChunk | ReasoningChunk) and len(item.content) < _MIN_SECRET_CHARACTERS
    return line if is_too_short else _mask_secrets(line)  # masking takes longer than all the rest


def encode_end(at: float, kind: str, error: BaseException | None = None) -> bytes:
    """Encode the end of the stream as a line."""
    line = {"at": round(at, 6), "kind": kind}
    return _mask_secrets(_encode_json(line if error is None else line | {"error": error}))


def read_cassette(path: AnyPath) -> Cassette:
    """Read a cassette.

    Raises:
        OSError: the file cannot be read.
        CassetteError: the file is not a cassette.
    """
    lines = Path(path).read_bytes().split(b"\n")
    torn = lines.pop()  # empty, unless the writer died within a line
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
            if not isfinite(at) or at < last:
                raise ValueError(f"the time {at!r} comes after {last!r}")
            last = at
            if entry["kind"] in _END_KINDS:
                if number <= len(lines) - 1 or torn:
                    raise ValueError(f"there are lines after the end, which is {entry['kind']!r}")
                return Cassette(items, at, _read_end(entry, f"{position}{number}"))
            items.append((at, _read_item(entry["kind"], entry["data"])))
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
        return _restore_error(entry["error"])
    if entry["kind"] == "disposed":
        return CassetteError(f"{position}: the recording ends here: the stream was disposed")
    return None


def _read_item(kind: str, data: Any) -> Any:
    """Restore an item of its own class."""
    if kind in ("str", "other"):
        return data
    known = _CLASSES.get(kind)
    if known is None:
        raise ValueError(f"unknown kind {kind!r}")
    if known is StreamChunk:
        return StreamChunk(**data)
    return known(**{name: _read_field(known, name, value) for name, value in data.items()})


def _read_field(known: type[Any], name: str, value: Any) -> Any:
    read_one = _FIELD_READERS.get(name)
    if name == "result":
        read_one = {TaskFinished: _read_task_output, CrewFinished: _read_crew_output}.get(known)
    return value if read_one is None else read_one(value)


def _read_task_output(data: dict[str, Any]) -> TaskOutput:
    """The class of a structured answer is not recorded, so its content is restored as a dict."""
    return TaskOutput.model_validate(_drop_model(data))


def _read_crew_output(data: dict[str, Any]) -> CrewOutput:
    outputs = [_drop_model(each) for each in data["tasks_output"]]
    return CrewOutput.model_validate(_drop_model(data) | {"tasks_output": outputs})


def _drop_model(data: dict[str, Any]) -> dict[str, Any]:
    return data | {"pydantic": None, "json_dict": data["json_dict"] or data["pydantic"]}


def _read_origin(data: dict[str, Any]) -> Origin:
    values: dict[str, Any] = {**data, "namespace": tuple(data["namespace"])}
    return Origin(**values)


def _read_tool_calls(data: Iterable[dict[str, Any]]) -> tuple[ToolCall, ...]:
    return tuple(ToolCall(**each) for each in data)


def _get_kind(item: object) -> str:
    name = type(item).__name__
    if _CLASSES.get(name) is type(item):
        return name
    return "str" if type(item) is str else "other"


def _encode_json(entry: dict[str, Any]) -> bytes:
    try:
        return to_json(entry, fallback=_describe_value, bytes_mode="base64") + b"\n"
    except ValueError:  # a half surrogate, an object that contains itself, a user's serializer that fails
        return json.dumps(_simplify(entry)).encode() + b"\n"


def _simplify(value: Any, depth: int = 0) -> Any:
    """Reduce a value to what JSON knows: slower than ``to_json``, and it never fails."""
    if value is None or isinstance(value, str | int | float):
        return value
    if depth < _MAX_DEPTH:
        if isinstance(value, BaseModel):
            value = {name: getattr(value, name) for name in type(value).model_fields}
        elif is_dataclass(value) and not isinstance(value, type):
            value = {each.name: getattr(value, each.name) for each in fields(value)}
        if isinstance(value, Mapping):
            return {str(key): _simplify(each, depth + 1) for key, each in cast("Mapping[Any, Any]", value).items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [_simplify(each, depth + 1) for each in cast("Iterable[Any]", value)]
    return _simplify(_describe_value(value), depth) if isinstance(value, BaseException) else _describe_value(value)


def _describe_value(value: object) -> Any:
    """Describe what JSON does not know: an error as type and message, any other object as its ``str``."""
    if isinstance(value, BaseException):
        if isinstance(value, RecordedError):
            return {"type": value.type, "message": value.message}
        kind = type(value)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        description: dict[str, Any] = {"type": name, "message": _safe_str(value)}
        args = _get_arguments(value)
        if all(isinstance(each, str | int | float | None) for each in args):
            description["args"] = list(args)
        return description
    return _safe_str(value)


def _get_arguments(error: BaseException) -> tuple[object, ...]:
    """Return the arguments from which pickle would restore the error."""
    try:
        return tuple(cast("tuple[Any, ...]", error.__reduce__())[1])
    except Exception:  # noqa: BLE001 - a user's class that cannot be pickled
        return error.args


def _restore_error(description: Mapping[str, Any]) -> Exception:
    """Restore an error whose class is Python's or rxflow's, with the same message; else a :class:`RecordedError`."""
    name, message = str(description["type"]), str(description["message"])
    args = cast("list[Any]", description.get("args", [message]))
    kind = _find_error_class(name)
    if kind is not None:
        try:
            error = kind(*args)
        except Exception:  # noqa: BLE001 - it takes other arguments than it keeps
            return RecordedError(name, message)
        if _safe_str(error) == message:
            return error
    return RecordedError(name, message)


def _find_error_class(name: str) -> type[Exception] | None:
    """Find a class that is loaded already: a cassette must not make Python import a module."""
    module, _, attribute = name.rpartition(".")
    namespace = builtins if not module else sys.modules.get(module) if module.startswith("rxflow.") else None
    kind = getattr(namespace, attribute, None)
    return kind if isinstance(kind, type) and issubclass(kind, Exception) else None


def _safe_str(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a user's object whose __str__ raises
        return f"<{type(value).__name__}>"


_FIELD_READERS: dict[str, Callable[[Any], Any]] = {
    "origin": _read_origin,
    "error": _restore_error,
    "usage": UsageMetrics.model_validate,
    "tool_calls": _read_tool_calls,
    "attempts": tuple,
    "span_ids": tuple,
}

# Secrets. This is a second line of defence: rxflow itself writes no keys.

_SECRET_SHAPES = [
    rb"sk-[\w-]{16,}",  # OpenAI, Anthropic, OpenRouter …
    rb"[prs]k_(?:live|test)_\w{16,}",
    rb"(?:gsk|hf|r8|gh[pousr]|github_pat)_\w{20,}",
    rb"(?:xai|glpat|xox[a-z])-[\w-]{16,}",
    rb"AIza[\w-]{30,}",
    rb"A[KS]IA[A-Z0-9]{16}",
    rb"eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]+",  # signed tokens
]
_SECRET = re.compile(rb"(?<!\w)(?:%s)" % b"|".join(_SECRET_SHAPES))
_BEARER_TOKEN = re.compile(rb"(?i)(bearer )[\w.~+/=-]{8,}")
_SECRET_NAMES = rb"[\w-]*api[_-]?key|[\w-]*authorization|[\w-]*password|[\w-]*secret|[\w-]*access[_-]?token"
_NAMED_SECRET = re.compile(
    rb'(?i)(\\*"(?:%s)\\*" *: *\\*")[^"\\]+' % _SECRET_NAMES
)  # also in JSON that is a string in JSON
_MASK = b"***"

_MIN_SECRET_CHARACTERS = 16
"""A shorter text holds no key."""


def _mask_secrets(text: bytes) -> bytes:
    """Replace what looks like a key, or is named like one, by ``***`` in JSON text. It stays JSON."""
    text = _SECRET.sub(_MASK, text)
    text = _BEARER_TOKEN.sub(rb"\g<1>" + _MASK, text)
    return _NAMED_SECRET.sub(rb"\g<1>" + _MASK, text)
