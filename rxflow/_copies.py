"""Copies nested containers, so that two runs, or a run and its events, do not share them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

T = TypeVar("T")

_MAX_DEPTH = 200
_CONTAINERS: frozenset[type[Any]] = frozenset([dict, list, tuple, set])


def copy_value(value: T) -> T:
    """Return a copy of ``value`` if it is a dict, list, tuple or set. The containers in it are copied too.

    Other objects are not copied: some cannot be, and a program may look at an object after the run. Containers that are
    nested very deeply are not copied either.
    """
    return cast(T, _copy(value, {}, 0)) if type(value) in _CONTAINERS else value


def copy_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a dict of ``values``, copied as by :func:`copy_value`."""
    return copy_value({**values})


def _copy(value: object, copies: dict[int, object], depth: int) -> object:
    """Return ``value``, a container, with its containers copied. ``copies`` has the copies so far, by original's id."""
    key = id(value)
    if key in copies:
        return copies[key]
    if depth >= _MAX_DEPTH:
        return value
    depth += 1
    # The check in each comprehension saves a call for each item that is no container, which most items are.
    if type(value) is dict:
        entries = cast(dict[object, object], value).copy().items()  # another thread may add an entry meanwhile
        copies[key] = copied = dict[object, object]()
        copied |= {name: _copy(each, copies, depth) if type(each) in _CONTAINERS else each for name, each in entries}
        return copied
    if type(value) is list:
        items: Iterable[object] = cast(list[object], value)
        copies[key] = listed = list[object]()
        listed += [_copy(each, copies, depth) if type(each) in _CONTAINERS else each for each in items]
        return listed
    if type(value) is tuple:
        items = cast(tuple[object, ...], value)
        frozen = tuple([_copy(each, copies, depth) if type(each) in _CONTAINERS else each for each in items])
        copies[key] = frozen  # otherwise a tuple that others share would be copied once for each path to it
        return frozen
    return set(cast(set[object], value))
