"""The JSON Schema of encoded events, made from the classes of the events.

``python -m rxflow.types.event_schema`` prints the schema.
"""

from __future__ import annotations

import json
import sys
from enum import Enum
from inspect import getdoc
from types import NoneType, UnionType
from typing import Any, TypeAlias, Union, get_args, get_origin

from rxflow.types.chunks import StreamChunk
from rxflow.types.codec import KINDS, OWN_TYPES, VERSION, get_hints

Schema: TypeAlias = dict[str, Any]

_ANY: Schema = {"$ref": "#/$defs/value"}
_TAGGED: Schema = {"$ref": "#/$defs/tagged"}
_ERROR: Schema = {
    "description": "An error: the name of its class, its message, and its arguments if they are plain.",
    "type": "object",
    "properties": {"type": {"type": "string"}, "message": {"type": "string"}, "args": {"type": "array"}},
    "required": ["type", "message"],
    "additionalProperties": False,
}
_SIMPLE: dict[Any, Schema] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"anyOf": [{"type": "number"}, _TAGGED]},  # JSON has no infinity, so infinity is written with a tag
    NoneType: {"type": "null"},
}


def build_schema() -> Schema:
    """Return the JSON Schema of one encoded event."""
    kinds = [_describe_kind(name, kind) for name, kind in KINDS.items()]
    users = {
        "title": "An event of a program's own class",
        "properties": {
            "v": {"const": VERSION},
            "kind": {"type": "string", "pattern": ":"},
            "data": {"type": "object", "properties": {"origin": _refer(OWN_TYPES[0])}},
        },
        "required": ["v", "kind", "data"],
    }
    own = {kind.__name__: _describe_fields(kind) for kind in OWN_TYPES}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "An event of rxflow as a line of JSON",
        "description": f"Version {VERSION} of what rxflow.types.codec writes. Made from the classes: `make schema`.",
        "oneOf": [*kinds, users],
        "$defs": own | {"error": _ERROR, "tagged": _describe_tagged(), "value": _describe_value()},
    }


def _describe_kind(name: str, kind: type[Any]) -> Schema:
    return {
        "title": name,
        "description": (getdoc(kind) or "").partition("\n")[0],
        "type": "object",
        "properties": {"v": {"const": VERSION}, "kind": {"const": name}, "data": _describe_fields(kind)},
        "required": ["v", "kind", "data"],
        "additionalProperties": False,
    }


def _describe_fields(kind: type[Any]) -> Schema:
    properties = {name: _describe_hint(hint) for name, hint in get_hints(kind).items()}
    if kind is StreamChunk:
        properties["tool_call"] = {"anyOf": [_refer(OWN_TYPES[2]), {"type": "null"}]}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _describe_hint(hint: Any) -> Schema:
    origin, args = get_origin(hint), get_args(hint)
    if hint in _SIMPLE:
        return _SIMPLE[hint]
    if origin in (Union, UnionType):
        return {"anyOf": [_describe_hint(each) for each in args]}
    if origin in (tuple, list) and (origin is list or args[1:] == (...,)):
        return {"anyOf": [{"type": "array", "items": _describe_hint(args[0])}, _TAGGED]}
    if hint in OWN_TYPES:
        return {"anyOf": [_refer(hint), _TAGGED]}
    if isinstance(hint, type) and issubclass(hint, BaseException):
        return {"anyOf": [{"$ref": "#/$defs/error"}, _TAGGED]}
    if isinstance(hint, type) and issubclass(hint, Enum):
        return {"anyOf": [{"enum": [each.value for each in hint]}, _TAGGED]}
    return _ANY


def _refer(kind: type[Any]) -> Schema:
    return {"$ref": f"#/$defs/{kind.__name__}"}


def _describe_value() -> Schema:
    return {
        "description": "Any value: JSON's own as they are, others as an object whose first key begins with $.",
        "type": ["null", "boolean", "number", "string", "array", "object"],
    }


def _describe_tagged() -> Schema:
    return {
        "description": "A value that is not of the declared type; its first key begins with $ and says what it is.",
        "type": "object",
        "patternProperties": {r"^\$": {}},
        "minProperties": 1,
    }


def format_schema() -> str:
    """Return the schema as the text of ``docs/events.schema.json``."""
    return json.dumps(build_schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(format_schema())
