"""Events as lines of JSON, and back: the format for logs, cassettes, browsers and other machines. ::

    {"v":1,"kind":"StreamChunk","data":{"content":"Hello","task_name":"research",…,"seq":17,"at":1764356862.1}}
    {"v":1,"kind":"LLMFinished","data":{"origin":{…},"seq":18,"at":1764356862.4,"text":"Hello",…}}

``kind`` is the name of one of rxflow's event classes, or ``"module:Class"`` for an event class of the program.
``data`` holds all fields of the event. If the declared type of a field is an error, an enum, a list, a tuple or one of
rxflow's types, a value of the declared type is written without a tag. Any other value is written as described in
:mod:`rxflow.types._values`, so that dates and pydantic objects are restored too. A value or event that cannot be
restored becomes a stand-in: a :class:`RecordedError`, :class:`RecordedObject`, :class:`RecordedModel` or
:class:`RecordedEvent`.

Reading calls no constructor or validator of the program's classes. It does call ``model_post_init`` of pydantic
classes, so that private attributes are filled.

``docs/events.schema.json`` is the JSON Schema of a line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from functools import cache
from math import isfinite
from types import NoneType, UnionType
from typing import Any, TypeAlias, Union, cast, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from rxflow.types import (
    CompletedToolCall,
    CrewOutput,
    Event,
    Happened,
    Origin,
    StreamChunk,
    TaskOutput,
    ToolCall,
    ToolCallChunk,
    UsageMetrics,
    events as all_events,
)
from rxflow.types._values import (
    Json,
    RecordedError,
    RecordedModel,
    RecordedObject,
    construct_model,
    describe_error as describe_error,
    fill_dataclass,
    find_class,
    from_json_value as from_json_value,
    name_class,
    restore_error as restore_error,
    to_json_value as to_json_value,
)

__all__ = [
    "VERSION",
    "CodecError",
    "RecordedError",
    "RecordedEvent",
    "RecordedModel",
    "RecordedObject",
    "decode",
    "encode",
]

VERSION = 1
"""The version of the format. Lines of another version are refused, because a reader must not guess."""


class CodecError(ValueError):
    """A line is not an encoded event of this version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEvent(Happened):
    """An event whose class is not loaded here, or whose ``model_post_init`` raised an error.

    ``kind`` is the name of the event's class, as "module:Class". ``data`` holds the fields of the event
    except ``origin``, ``seq``, ``at`` and ``replayed``.
    """

    kind: str
    data: Mapping[str, Any]


def encode(event: Event | Happened) -> bytes:
    """Encode an event as one line of JSON, including the line end.

    Raises:
        TypeError: ``event`` is not an event.
    """
    if type(event) is StreamChunk and isfinite(event.at):  # most events are chunks, and this way takes only 2.4 µs
        try:
            return _CHUNK_HEAD + _CHUNK_SERIALIZER.to_json(event, warnings="none") + b"}\n"
        except (PydanticSerializationError, UnicodeError):  # the chunk has half a surrogate pair, or was not validated
            pass
    kind, data = encode_data(event)
    return _dump({"v": VERSION, "kind": kind, "data": data}) + b"\n"


def decode(line: bytes | str) -> Event:
    """Decode a line that :func:`encode` wrote.

    The ``model_post_init`` of pydantic objects in the event is called; if it raises, the object becomes a stand-in.

    Raises:
        CodecError: the line is not JSON, its version or kind is unknown, or its data do not fit the kind.
    """
    text = line.encode("utf-8", "surrogatepass") if isinstance(line, str) else line
    if text.startswith(_CHUNK_HEAD) and text.endswith(b"}\n"):
        try:
            return cast("StreamChunk", _CHUNK_VALIDATOR.validate_json(text[len(_CHUNK_HEAD) : -2]))
        except ValidationError:  # half a surrogate pair, which json.loads() accepts, or a broken line
            pass
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CodecError(f"not JSON ({error}): {text[:80]!r}") from error
    if not isinstance(entry, dict) or "v" not in entry:
        raise CodecError(f'not an encoded event, which begins with {{"v":{VERSION},"kind":…: {text[:80]!r}')
    return decode_entry(cast("dict[str, Json]", entry))


def decode_entry(entry: Mapping[str, Json]) -> Event:
    """Return the event of a parsed line, which must have the key "v".

    Keys other than "v", "kind" and "data" are ignored.

    Raises:
        CodecError: the version or kind is unknown, or the data do not fit the kind.
    """
    if entry["v"] != VERSION:
        raise CodecError(f"an event of version {entry['v']!r}; this rxflow reads version {VERSION}")
    return decode_data(entry.get("kind"), entry.get("data"))


def encode_data(event: object) -> tuple[str, Json]:
    """Return the kind and the data of an event.

    Raises:
        TypeError: ``event`` is not an event.
    """
    kind = type(event)
    if isinstance(event, RecordedEvent):
        shared = {name: _shape_of(RecordedEvent).fields[name].write(getattr(event, name)) for name in _SHARED}
        return event.kind, shared | {name: to_json_value(each) for name, each in event.data.items()}
    if KINDS.get(kind.__name__) is kind:
        return kind.__name__, _shape_of(kind).write(event)
    if isinstance(event, Happened | StreamChunk):
        shape = _shape_of(kind)
        extra = event.model_extra if isinstance(event, StreamChunk) else None
        return name_class(kind), shape.write(event) | {
            name: to_json_value(each) for name, each in (extra or {}).items()
        }
    raise TypeError(f"not an event: {event!r}; rxflow.types.events has their classes")


def decode_data(kind: Json, data: Json) -> Event:
    """Return the event for ``kind`` and ``data``.

    Raises:
        CodecError: the kind is unknown, or the data do not fit the kind.
    """
    known = KINDS.get(str(kind))
    if known is None and ":" not in str(kind):
        raise CodecError(f"unknown kind {kind!r}: it was written by a newer rxflow, or is not an event")
    if not isinstance(data, dict):
        raise CodecError(f"the data of {kind!r} are not a JSON object: {data!r}")
    values = cast("dict[str, Json]", data)
    own = known if known is not None else find_class(str(kind))
    try:
        if known is None and (own is None or not issubclass(own, Happened | StreamChunk)):
            return cast(Event, _stand_in(str(kind), values))
        event = _shape_of(cast(type[Any], own)).read(values)
        return cast(Event, _stand_in(str(kind), values) if event is None else event)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CodecError(f"not a {kind}: {type(error).__name__}: {error}") from error


def _stand_in(kind: str, data: dict[str, Json]) -> RecordedEvent:
    if "origin" not in data:  # StreamChunk and its subclasses have no origin
        data = {"origin": _shape_of(Origin).write(Origin()), "seq": 0, "at": 0.0, "replayed": False, **data}
    shape = _shape_of(RecordedEvent)
    shared = {name: shape.fields[name].read(data[name]) for name in _SHARED}
    rest = {name: from_json_value(each) for name, each in data.items() if name not in _SHARED}
    return RecordedEvent(**shared, kind=kind, data=rest)


_to_text = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_PLAIN = (str, bool, NoneType)
"""Values of these types are written unchanged, whatever type the field declares."""


def _dump(value: Json) -> bytes:
    try:
        return to_json(value, inf_nan_mode="constants")  # takes a third of the time of _to_text()
    except PydanticSerializationError:  # a text has half a surrogate pair
        return _to_text(value).encode()


# The code below writes and reads fields of events. If a declared type is known here, values of that type get no tag.

Convert: TypeAlias = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class _Field:
    write: Convert
    read: Convert


@dataclass(frozen=True, slots=True)
class _Shape:
    """The fields of a class, and how each of them is written and read."""

    kind: type[Any]
    fields: Mapping[str, _Field]

    def write(self, value: Any) -> dict[str, Json]:
        written: dict[str, Json] = {}
        for name, field in self.fields.items():
            each = getattr(value, name)
            written[name] = each if type(each) in _PLAIN else field.write(each)
        return written

    def read(self, data: Mapping[str, Json]) -> Any:
        """Restore an object of the class ``kind`` from ``data``.

        Return None if the program defines ``kind``, and the ``model_post_init`` of ``kind`` raises an error.
        """
        known, kind = self.fields, self.kind
        values = {
            name: known[name].read(each) if name in known else self._read_extra(name, each)
            for name, each in data.items()
        }
        if issubclass(kind, BaseModel):
            return (
                kind.model_validate(values)
                if kind in OWN_TYPES or kind is StreamChunk
                else construct_model(kind, values)
            )
        return kind(**values) if KINDS.get(kind.__name__) is kind or kind in OWN_TYPES else fill_dataclass(kind, values)

    def _read_extra(self, name: str, value: Json) -> Any:
        if issubclass(self.kind, BaseModel) and self.kind.model_config.get("extra") == "allow":
            return from_json_value(value)
        raise ValueError(f"it has no field {name!r}: it was written by a newer rxflow, or by other code")


OWN_TYPES: tuple[type[Any], ...] = (
    Origin,
    ToolCall,
    ToolCallChunk,
    UsageMetrics,
    TaskOutput,
    CrewOutput,
    all_events.InputRequested,
)
"""If a field declares one of these types, a value of this type is written as a JSON object without a tag."""

KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (*get_args(Event), CompletedToolCall)}
"""The event classes of rxflow, by name."""

_SHARED = tuple(each.name for each in fields(Happened))
_CHUNK_HEAD = b'{"v":1,"kind":"StreamChunk","data":'
_CHUNK_SERIALIZER = StreamChunk.__pydantic_serializer__
_CHUNK_VALIDATOR = StreamChunk.__pydantic_validator__
_ANY = _Field(to_json_value, from_json_value)
_ERROR = _Field(describe_error, restore_error)


def get_hints(kind: type[Any]) -> dict[str, Any]:
    """Return the declared types of the fields of the class ``kind``, by the names of the fields."""
    results = {"TaskOutput": TaskOutput, "CrewOutput": CrewOutput}  # names in the annotations of events.py
    hints = get_type_hints(kind, localns=results if kind.__module__ == all_events.__name__ else None)
    names = list(kind.model_fields) if issubclass(kind, BaseModel) else [each.name for each in fields(kind)]
    return {name: hints[name] for name in names}


def _make_shape(kind: type[Any]) -> _Shape:
    try:
        hints = get_hints(kind)
    except Exception:  # noqa: BLE001 - evaluating a text that only type checkers read may raise anything
        hints = dict.fromkeys([each.name for each in fields(kind)], Any) | get_hints(Happened)
    return _Shape(kind, {name: _field_of(hint) for name, hint in hints.items()})


# The cast is needed because mypy 1 does not accept a class as Hashable: the class's own __hash__ hides the __hash__ of
# its metaclass.
_shape_of = cast("Callable[[type[Any]], _Shape]", cache(_make_shape))


def _field_of(hint: Any) -> _Field:
    """Return how a field with the declared type ``hint`` is written and read."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        (inner, *others) = [each for each in args if each is not NoneType]
        return _ANY if others else _field_of(inner)
    if args and origin in (tuple, list) and (origin is list or args[1:] == (...,)):
        return _sequence_field(origin, _field_of(args[0]), is_tagged=origin is tuple)
    if isinstance(hint, type) and issubclass(hint, BaseException):
        return _guard(BaseException, _ERROR, is_exact=False)
    if hint in OWN_TYPES:
        own = cast("type[Any]", hint)
        return _guard(own, _Field(lambda value: _shape_of(own).write(value), lambda data: _shape_of(own).read(data)))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _guard(hint, _Field(_enum_to_json, hint), data_type=(str, int))
    return _ANY


def _enum_to_json(member: Enum) -> Json:
    """Return the member's value if it is a text or an integer. Return any other member with a tag."""
    value = to_json_value(member.value)
    return value if type(value) in (str, int) else to_json_value(member)


def _guard(
    kind: type[Any], field: _Field, *, is_exact: bool = True, data_type: type[Any] | tuple[type[Any], ...] = dict
) -> _Field:
    def write(value: Any) -> Json:
        fits = type(value) is kind if is_exact else isinstance(value, kind)
        return field.write(value) if fits else to_json_value(value)

    def read(data: Json) -> Any:
        if not isinstance(data, data_type) or (isinstance(data, dict) and _is_tagged(cast("dict[str, Json]", data))):
            return from_json_value(data)
        return field.read(data)

    return _Field(write, read)


def _sequence_field(origin: type[Any], item: _Field, *, is_tagged: bool) -> _Field:
    """Return how a field that declares a list or a tuple is written and read.

    A value of the declared type is written as an array. A list in a field that declares a tuple gets a tag. Any other
    value is written by :func:`to_json_value`.
    """

    def write(value: Any) -> Json:
        if type(value) is origin:
            return [item.write(each) for each in cast("Iterable[Any]", value)]
        return {"$list": to_json_value(value)} if is_tagged and type(value) is list else to_json_value(value)

    def read(data: Json) -> Any:
        if isinstance(data, list):
            return origin(item.read(each) for each in cast("list[Json]", data))
        return from_json_value(data)

    return _Field(write, read)


def _is_tagged(data: dict[str, Json]) -> bool:
    return next(iter(data), "").startswith("$")
