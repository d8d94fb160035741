"""Cassettes: the items of a stream with their times, as lines of JSON. ::

    {"cassette": "rxflow", "version": 1}
    {"at": 0.0, "kind": "LLMStarted", "data": {"origin": {...}, "model": "openai/gpt-4o", "messages": [...]}}
    {"at": 0.412, "kind": "StreamChunk", "data": {"content": "Hello", ...}}
    {"at": 0.907, "kind": "completed"}

``at`` counts seconds from the subscription; ``kind`` is a class of ``rxflow.types.events``, ``str``, ``other``, or how
it ended: ``completed``, ``failed`` with its error, ``disposed``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from math import isfinite
from pathlib import Path
from typing import Any, TypeAlias, cast, get_args

from pydantic import BaseModel
from pydantic_core import to_json

from rxflow.operators._core.recorded_errors import error_from, in_words
from rxflow.operators._core.secrets import SHORTEST, mask
from rxflow.types.chunks import Origin, StreamChunk
from rxflow.types.events import CrewFinished, Event, ReasoningChunk, TaskFinished, ToolCall
from rxflow.types.results import CrewOutput, TaskOutput
from rxflow.types.usage import UsageMetrics

AnyPath: TypeAlias = str | os.PathLike[str]

HEADER = b'{"cassette": "rxflow", "version": 1}\n'
_ENDS = ("completed", "failed", "disposed")
_CLASSES: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(Event)}
_DEEPEST = 20


class CassetteError(ValueError):
    """A file that is no cassette of this version, or one that is broken or cut short; it names the place."""


@dataclass(frozen=True, slots=True)
class Cassette:
    """What was recorded: items with their times in seconds, and the end. ``error`` is None where it completed."""

    items: list[tuple[float, Any]]
    ended_at: float
    error: Exception | None


def line_of(at: float, item: object) -> bytes:
    """One item, as it is written. What is no JSON stands there in words."""
    kind = _kind_of(item)
    line = _json({"at": round(at, 6), "kind": kind, "data": item})
    is_too_short = isinstance(item, StreamChunk | ReasoningChunk) and len(item.content) < SHORTEST
    return line if is_too_short else mask(line)  # which takes longer than all the rest


def end_of(at: float, kind: str, error: BaseException | None = None) -> bytes:
    """How it ended, as it is written."""
    said = {"at": round(at, 6), "kind": kind}
    return mask(_json(said if error is None else said | {"error": error}))


def read(path: AnyPath) -> Cassette:
    """What was recorded in a file.

    Raises:
        OSError: it cannot be read.
        CassetteError: it is no cassette.
    """
    lines = Path(path).read_bytes().split(b"\n")
    torn = lines.pop()  # empty, unless the writer died in mid-line
    place = f"{os.fspath(path)}, line "
    if not lines or _parsed(lines[0], f"{place}1") != json.loads(HEADER):
        first = lines[0] if lines else torn
        raise CassetteError(f"{place}1: not a cassette of this version, which begins with {HEADER!r}: {first[:80]!r}")
    items: list[tuple[float, Any]] = []
    last = 0.0
    for number, line in enumerate(lines[1:], 2):
        entry = _parsed(line, f"{place}{number}")
        try:
            at = float(entry["at"])
            if not isfinite(at) or at < last:
                raise ValueError(f"the time {at!r} comes after {last!r}")
            last = at
            if entry["kind"] in _ENDS:
                if number <= len(lines) - 1 or torn:
                    raise ValueError(f"there is more after the end, which is {entry['kind']!r}")
                return Cassette(items, at, _end(entry, f"{place}{number}"))
            items.append((at, _item(entry["kind"], entry["data"])))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CassetteError(f"{place}{number}: {type(error).__name__}: {error}") from error
    cut = CassetteError(f"{place}{len(lines) + 1}: the recording is cut short: it was never closed")
    return Cassette(items, last, cut)


def _parsed(line: bytes, place: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise CassetteError(f"{place}: this is no JSON ({error}): {line[:80]!r}") from error
    if not isinstance(entry, dict):
        raise CassetteError(f"{place}: this is no JSON object: {line[:80]!r}")
    return cast("dict[str, Any]", entry)


def _end(entry: Mapping[str, Any], place: str) -> Exception | None:
    if entry["kind"] == "failed":
        return error_from(entry["error"])
    if entry["kind"] == "disposed":
        return CassetteError(f"{place}: the recording ends here, as its reader had enough and disposed the stream")
    return None


def _item(kind: str, data: Any) -> Any:
    """An item again, of its own type."""
    if kind in ("str", "other"):
        return data
    known = _CLASSES.get(kind)
    if known is None:
        raise ValueError(f"there is no kind {kind!r}")
    if known is StreamChunk:
        return StreamChunk(**data)
    return known(**{name: _field(known, name, value) for name, value in data.items()})


def _field(known: type[Any], name: str, value: Any) -> Any:
    read_one = _FIELDS.get(name)
    if name == "result":
        read_one = {TaskFinished: _task_output, CrewFinished: _crew_output}.get(known)
    return value if read_one is None else read_one(value)


def _task_output(data: dict[str, Any]) -> TaskOutput:
    """The class of a structured answer is not recorded, so what it holds comes as a dict."""
    return TaskOutput.model_validate(_without_model(data))


def _crew_output(data: dict[str, Any]) -> CrewOutput:
    outputs = [_without_model(each) for each in data["tasks_output"]]
    return CrewOutput.model_validate(_without_model(data) | {"tasks_output": outputs})


def _without_model(data: dict[str, Any]) -> dict[str, Any]:
    return data | {"pydantic": None, "json_dict": data["json_dict"] or data["pydantic"]}


def _origin(data: dict[str, Any]) -> Origin:
    values: dict[str, Any] = {**data, "namespace": tuple(data["namespace"])}
    return Origin(**values)


def _tool_calls(data: Iterable[dict[str, Any]]) -> tuple[ToolCall, ...]:
    return tuple(ToolCall(**each) for each in data)


_FIELDS: dict[str, Callable[[Any], Any]] = {
    "origin": _origin,
    "error": error_from,
    "usage": UsageMetrics.model_validate,
    "tool_calls": _tool_calls,
    "attempts": tuple,
    "span_ids": tuple,
}


def _kind_of(item: object) -> str:
    name = type(item).__name__
    if _CLASSES.get(name) is type(item):
        return name
    return "str" if type(item) is str else "other"


def _json(entry: dict[str, Any]) -> bytes:
    try:
        return to_json(entry, fallback=in_words, bytes_mode="base64") + b"\n"
    except ValueError:  # a half surrogate, an object that holds itself, a serializer of users' that fails
        return json.dumps(_plain(entry)).encode() + b"\n"


def _plain(value: Any, depth: int = 0) -> Any:
    """The same by hand: slower, and nothing makes it fail."""
    if value is None or isinstance(value, str | int | float):
        return value
    if depth < _DEEPEST:
        if isinstance(value, BaseModel):
            value = {name: getattr(value, name) for name in type(value).model_fields}
        elif is_dataclass(value) and not isinstance(value, type):
            value = {each.name: getattr(value, each.name) for each in fields(value)}
        if isinstance(value, Mapping):
            return {str(key): _plain(each, depth + 1) for key, each in cast("Mapping[Any, Any]", value).items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [_plain(each, depth + 1) for each in cast("Iterable[Any]", value)]
    return _plain(in_words(value), depth) if isinstance(value, BaseException) else in_words(value)
