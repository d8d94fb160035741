"""Converts any value to JSON and back.

Most values of JSON's own types are not changed. A value of another type becomes a JSON object. The first key of this
object is the tag, which begins with ``$``::

    (1, 2)                       {"$tuple": [1, 2]}
    datetime(2026, 1, 2)         {"$datetime": "2026-01-02T00:00:00"}
    Report(title="Tides")        {"$model": "reports:Report", "title": "Tides"}
    KeyError("topic")            {"$error": "KeyError", "message": "'topic'", "args": ["topic"]}
    <_io.TextIOWrapper …>        {"$object": "_io.TextIOWrapper", "text": "<_io.TextIOWrapper …>"}

A tag is also needed for a few values of JSON's own types, for example for very long integers. An enum member keeps its
class. Any other object of a subclass of ``str``, ``int``, ``float``, ``dict``, ``list``, ``tuple`` or ``set`` is
written as a plain ``str``, ``int`` and so on.

Reading imports nothing, and calls no constructor or validator of a user's class. Reading does call the
``model_post_init`` of pydantic classes, because that method may fill private attributes, which are not written. Reading
also calls the default factories of fields that the data lacks. A pydantic object, a dataclass object or an enum member
is restored only if the program has already loaded its class. An error is restored only if its class is built into
Python or belongs to rxflow. A value that cannot be restored, such as the file in the last line, becomes a stand-in: a
:class:`RecordedError`, :class:`RecordedObject` or :class:`RecordedModel`.
"""

from __future__ import annotations

import builtins
import json
import math
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from pathlib import Path, PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from types import ModuleType
from typing import Any, TypeAlias, cast
from uuid import UUID

from pydantic import BaseModel, ConfigDict, PrivateAttr

MAX_DEPTH = 200
"""The maximum depth of nested values. Deeper values are written as text, because JSON parsers have a limit too."""
MAX_INT_BITS = 10_000
"""Longer integers are written in hexadecimal.

Python limits the length of decimal numbers (``sys.set_int_max_str_digits``).
"""

Json: TypeAlias = Any
"""A value as ``json.loads`` returns it: a dict, list, str, number, bool or None."""


class RecordedError(Exception):
    """Stands for an error that could not be restored, for example because a user's code defines the error's class.

    ``type`` is the name of the error's class, and ``message`` is the error's text. Two RecordedErrors with the same
    type and message are equal.
    """

    def __init__(self, type: str, message: str) -> None:  # noqa: A002
        super().__init__(type, message)
        self.type = type
        self.message = message

    def __str__(self) -> str:
        return f"{self.type}: {self.message}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RecordedError) and (self.type, self.message) == (other.type, other.message)

    def __hash__(self) -> int:
        return hash((self.type, self.message))


@dataclass(frozen=True, slots=True)
class RecordedObject:
    """Stands for an object that JSON cannot represent, or for an enum member that could not be restored.

    ``type`` is the name of the class. ``text`` is the ``str`` of the object, or the name of the enum member.
    """

    type: str
    text: str

    def __str__(self) -> str:
        return self.text


class RecordedModel(BaseModel):
    """Stands for a pydantic or dataclass object that could not be restored.

    This happens, for example, if the object's class is not loaded, if a dataclass has other fields now, or if the
    ``model_post_init`` or a default factory of a pydantic class raised an error. The stand-in has the fields of the
    object. ``recorded_type`` is the name of the object's class, as "module:Class".
    """

    model_config = ConfigDict(extra="allow")
    _type: str = PrivateAttr(default="")
    _tag: str = PrivateAttr(default="$model")

    @property
    def recorded_type(self) -> str:
        """The name of the original object's class, as "module:Class"."""
        return self._type

    def __hash__(self) -> int:  # needed to restore an object in a set or as a dict's key
        return hash(self._type)

    def __repr_name__(self) -> str:
        return self._type.rpartition(":")[2] or "RecordedModel"


def to_json_value(value: Any, _parents: tuple[int, ...] = ()) -> Json:
    """Return ``value`` as a value that ``json.dumps`` accepts. This never fails."""
    kind = cast("type[Any]", type(value))
    if value is None or kind is str or kind is bool:
        return value
    if kind is int:
        return value if value.bit_length() <= MAX_INT_BITS else {"$int": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"$float": str(value)}
    form = _TEXT_FORMS.get(kind)
    if form is None and (len(_parents) >= MAX_DEPTH or id(value) in _parents):
        return _describe_object(value)
    try:
        if form is not None:
            tag, write, _ = form
            return {tag: write(value)}
        return _nested_to_json(value, (*_parents, id(value)))
    except Exception:  # noqa: BLE001 - raised by a user's object
        return _describe_object(value)


def from_json_value(value: Json) -> Any:
    """Restore a value from what :func:`to_json_value` returned for it.

    Raises:
        ValueError: a tag is unknown, or its value has the wrong form.
    """
    if isinstance(value, list):
        return [from_json_value(each) for each in cast("list[Json]", value)]
    if not isinstance(value, dict):
        return value
    values = cast("dict[str, Json]", value)
    tag = next(iter(values), "")
    if not tag.startswith("$"):
        return {name: from_json_value(each) for name, each in values.items()}
    restore = _RESTORERS.get(tag)
    if restore is None:
        raise ValueError(f"unknown tag {tag!r} in {_shorten(values)}")
    try:
        return restore(values)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"{tag!r} does not have its values: {_shorten(values)}") from error


def describe_error(error: BaseException) -> dict[str, Json]:
    """Return a dict with the class and message of an error, and with its arguments if all of them are plain values."""
    if isinstance(error, RecordedError):
        return {"type": error.type, "message": error.message}
    described: dict[str, Json] = {"type": _dotted_name(type(error)), "message": describe(error)}
    args = _get_arguments(error)
    if all(map(_is_plain, args)):
        described["args"] = list(args)
    return described


def restore_error(described: Mapping[str, Json]) -> Exception:
    """Restore an error from what :func:`describe_error` returned.

    Return a :class:`RecordedError` if the class is neither built into Python nor a class of rxflow. Also return a
    RecordedError if the class cannot create an error with this message.
    """
    name, message = str(described["type"]), str(described["message"])
    kind = _find_error_class(name)
    if kind is not None:
        args = cast("list[Any]", described.get("args", [message]))
        try:
            error = kind(*args)
        except Exception:  # noqa: BLE001 - the constructor takes other arguments than the error keeps
            return RecordedError(name, message)
        if describe(error) == message:
            return error
    return RecordedError(name, message)


def describe(value: object) -> str:
    """Return the ``str`` of an object. If its ``__str__`` raises, return the name of its class in angle brackets."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - raised by a user's object
        return f"<{type(value).__name__}>"


def name_class(kind: type[Any]) -> str:
    """Return the name of a class, as "module:Class"."""
    return f"{kind.__module__}:{kind.__qualname__}"


def find_class(name: str) -> type[Any] | None:
    """Return the class with the name "module:Class"; None if the module is not loaded or lacks the class.

    No module is imported, because reading must not execute code.
    """
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = _look_up(found, part)
    return found if isinstance(found, type) else None


def _look_up(namespace: object, name: str) -> Any:
    # getattr() could call the __getattr__ of a module, which may import other modules.
    return vars(namespace).get(name) if isinstance(namespace, ModuleType | type) else None


def fill_dataclass(kind: type[Any], values: Mapping[str, Any]) -> Any:
    """Create an object of the dataclass ``kind`` without calling the constructor, as pickle does.

    Raises:
        ValueError: a field is missing or unknown, or ``kind`` is a subclass of a class such as dict.
    """
    names = {each.name for each in fields(kind)}
    if names != set(values):
        raise ValueError(
            f"{kind.__qualname__} has the fields {sorted(names)}; got {sorted(values)}; other code wrote the data"
        )
    try:
        made = object.__new__(kind)
    except TypeError as error:  # object.__new__() cannot create a dict, for example
        raise ValueError(str(error)) from error
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


def construct_model(kind: type[BaseModel], values: Mapping[str, Any]) -> BaseModel | None:
    """Create an object of the pydantic class ``kind`` without running validators.

    The values already contain the changes that validators made. The object's ``model_post_init`` and the default
    factories of missing fields are called. Return None if one of them raises an error.
    """
    accepted = {name: value for name, value in values.items() if name not in _PARAMETERS}
    try:
        made = kind.model_construct(None, **accepted)
    except Exception:  # noqa: BLE001 - raised by a user's class
        return None
    for name in values.keys() - accepted.keys():
        target = vars(made) if name in kind.model_fields else made.model_extra
        if target is not None:
            target[name] = values[name]
            made.model_fields_set.add(name)
    return made


def _nested_to_json(value: Any, parents: tuple[int, ...]) -> Json:
    if type(value) in (dict, list, tuple):  # checked first, because the check for BaseModel takes 10 µs
        return _container_to_json(value, parents)
    if isinstance(value, Enum):
        # Flags without a member, such as Flag(0), have no name.
        name = cast("str | None", value.name)
        return {"$enum": name_class(type(value)), "name": str(value.value) if name is None else name}
    if isinstance(value, BaseException):
        described = describe_error(value)
        return {"$error": described.pop("type"), **described}
    if isinstance(value, RecordedObject):
        return {"$object": value.type, "text": value.text}
    if isinstance(value, RecordedModel):
        names, tag = value.model_extra or {}, value._tag  # pyright: ignore[reportPrivateUsage]
        return _tag_items(tag, value.recorded_type, names, parents)
    if isinstance(value, BaseModel):
        values = {name: getattr(value, name) for name in type(value).model_fields} | (value.model_extra or {})
        return _tag_items("$model", name_class(type(value)), values, parents)
    if is_dataclass(value) and not isinstance(value, type):
        values = {each.name: getattr(value, each.name) for each in fields(value)}
        return _tag_items("$dataclass", name_class(type(value)), values, parents)
    if isinstance(value, dict | list | tuple | set | frozenset):
        return _container_to_json(value, parents)
    for base in (str, int, float):  # an object of a subclass is written as its plain value
        if isinstance(value, base):
            return to_json_value(base(value), parents)
    if isinstance(value, Mapping):  # a mapping that is not a dict
        return _nested_to_json(dict(cast("Mapping[Any, Any]", value)), parents)
    return _describe_object(value)


def _container_to_json(value: Any, parents: tuple[int, ...]) -> Json:
    if isinstance(value, dict):
        entries = cast("dict[Any, Any]", value)
        if all(type(key) is str and not key.startswith("$") for key in entries):
            return _items_to_json(entries, parents)
        return {"$dict": [[_key_to_json(key, parents), to_json_value(each, parents)] for key, each in entries.items()]}
    tag = next(tag for base, tag in _SEQUENCES.items() if isinstance(value, base))
    if "set" in tag:  # sorted, because the order of a set differs between processes
        keys = [_key_to_json(each, parents) for each in cast("Iterable[Any]", value)]
        return {tag: sorted(keys, key=json.dumps)}
    each_to_json = [to_json_value(each, parents) for each in cast("Iterable[Any]", value)]
    return {tag: each_to_json} if tag else each_to_json


def _key_to_json(key: Any, parents: tuple[int, ...]) -> Json:
    """Return a dict's key or a set's item as JSON.

    If the restored key would not be hashable, a description of the key is written instead. For example, an object of a
    hashable subclass of dict would be restored as a plain dict.
    """
    written = to_json_value(key, parents)
    if type(written) in (dict, list) and type(key) not in _TEXT_FORMS:
        try:
            hash(from_json_value(written))
        except Exception:  # noqa: BLE001 - also raised by a user's object
            return _describe_object(key)
    return written


def _items_to_json(values: Mapping[str, Any], parents: tuple[int, ...]) -> dict[str, Json]:
    return {name: to_json_value(each, parents) for name, each in values.items()}


def _tag_items(tag: str, kind: str, values: Mapping[str, Any], parents: tuple[int, ...]) -> Json:
    """Return the fields of an object as JSON. A name that equals the tag is written with another ``$`` before it."""
    names = {f"${name}" if _is_like(tag, name) else name: value for name, value in values.items()}
    return {tag: kind, **_items_to_json(names, parents)}


def _is_like(tag: str, name: str) -> bool:
    """Return whether ``name`` is ``tag``, or ``tag`` with more dollar signs before it."""
    return name.endswith(tag) and name.lstrip("$") == tag.lstrip("$")


def _describe_object(value: object) -> Json:
    return {"$object": _dotted_name(type(value)), "text": describe(value)}


def _dotted_name(kind: type[Any]) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _is_plain(value: object) -> bool:
    """Return whether JSON can represent ``value`` without a tag, and ``value`` holds no other values."""
    if type(value) is int:
        return value.bit_length() <= MAX_INT_BITS
    return value is None or type(value) in (str, bool) or (type(value) is float and math.isfinite(value))


def _get_arguments(error: BaseException) -> tuple[object, ...]:
    """Return the arguments with which pickle would restore ``error``; ``error.args`` if it cannot be pickled."""
    try:
        return tuple(cast("tuple[Any, ...]", error.__reduce__())[1])
    except Exception:  # noqa: BLE001 - a user's class that cannot be pickled
        return error.args


def _find_error_class(name: str) -> type[Exception] | None:
    module, _, attribute = name.rpartition(".")
    namespace = builtins if not module else sys.modules.get(module) if module.startswith("rxflow.") else None
    kind = _look_up(namespace, attribute)
    return kind if isinstance(kind, type) and issubclass(kind, Exception) else None


def _restore_model(values: dict[str, Json]) -> Any:
    tag, name = next(iter(values.items()))
    restored = {
        key[1:] if _is_like(tag, key) else key: from_json_value(each) for key, each in values.items() if key != tag
    }
    kind = find_class(name)
    if kind is not None and tag == "$model" and issubclass(kind, BaseModel):
        made = construct_model(kind, restored)
        if made is not None:
            return made
    if kind is not None and tag == "$dataclass" and is_dataclass(kind):
        try:
            return fill_dataclass(kind, restored)
        except ValueError:  # the class has other fields now
            pass
    stand_in = cast("RecordedModel", construct_model(RecordedModel, restored))
    stand_in._type, stand_in._tag = name, tag  # pyright: ignore[reportPrivateUsage]
    return stand_in


def _restore_enum(values: dict[str, Json]) -> Any:
    kind, name = find_class(values["$enum"]), values["name"] or "0"  # old lines have null for Flag(0)
    if kind is not None and issubclass(kind, Enum) and name in kind.__members__:
        return kind[name]
    if kind is not None and issubclass(kind, Flag):
        members, bits = kind.__members__, 0
        try:
            for part in name.split("|"):
                bits |= members[part].value if part in members else int(part)
            return kind(bits)
        except ValueError:  # the class has other members now
            pass
    return RecordedObject(values["$enum"].replace(":", "."), name)


def _restore_text_form(tag: str, read: Callable[[str], Any]) -> Callable[[dict[str, Json]], Any]:
    return lambda values: read(values[tag])


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


_PARAMETERS = ("cls", "_fields_set")
"""The parameters of ``model_construct``. It accepts no field of these names."""
_MICROSECOND = timedelta(microseconds=1)
# A path of another operating system is restored as a pure path, which cannot access files.
_PosixPath: type[PurePosixPath] = PosixPath if isinstance(Path(), PosixPath) else PurePosixPath
_WindowsPath: type[PureWindowsPath] = WindowsPath if isinstance(Path(), WindowsPath) else PureWindowsPath
_TEXT_FORMS: dict[type[Any], tuple[str, Callable[[Any], Json], Callable[[Any], Any]]] = {
    datetime: ("$datetime", datetime.isoformat, datetime.fromisoformat),
    date: ("$date", date.isoformat, date.fromisoformat),
    time: ("$time", time.isoformat, time.fromisoformat),
    timedelta: ("$microseconds", lambda value: value // _MICROSECOND, lambda count: count * _MICROSECOND),
    UUID: ("$uuid", str, UUID),
    Decimal: ("$decimal", str, Decimal),
    bytes: ("$bytes", lambda value: b64encode(value).decode(), b64decode),
    _PosixPath: ("$path", str, _PosixPath),
    _WindowsPath: ("$windows_path", str, _WindowsPath),
}
_SEQUENCES: dict[type[Any], str] = {list: "", tuple: "$tuple", set: "$set", frozenset: "$frozenset"}
_RESTORERS: dict[str, Callable[[dict[str, Json]], Any]] = {
    **{tag: _restore_text_form(tag, read) for tag, _, read in _TEXT_FORMS.values()},
    "$int": lambda values: int(values["$int"], 16),
    "$float": lambda values: float(values["$float"]),
    "$tuple": lambda values: tuple(from_json_value(values["$tuple"])),
    "$set": lambda values: set(from_json_value(values["$set"])),
    "$frozenset": lambda values: frozenset(from_json_value(values["$frozenset"])),
    "$list": lambda values: from_json_value(values["$list"]),  # a list in a field declared as a tuple; see codec.py
    "$dict": lambda values: {from_json_value(key): from_json_value(each) for key, each in values["$dict"]},
    "$enum": _restore_enum,
    "$error": lambda values: restore_error({"type": values["$error"], **values}),
    "$object": lambda values: RecordedObject(values["$object"], values["text"]),
    "$model": _restore_model,
    "$dataclass": _restore_model,
}
