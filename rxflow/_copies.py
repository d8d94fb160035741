"""Copies nested containers, so that two runs, or a run and its events, do not share them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

T = TypeVar("T")

_MAX_DEPTH = 200
_MAX_CONTAINERS = 10_000
"""How many containers of one value are copied for an event: more would block the event loop for too long."""
_CONTAINERS: frozenset[type[Any]] = frozenset([dict, list, tuple, set])


def copy_value(value: T) -> T:
    """Return a copy of ``value`` if it is a dict, list, tuple or set. The containers in it are copied too.

    Other objects are not copied: some cannot be, and a program may look at an object after the run. Containers that are
    nested very deeply are not copied either, nor those that follow the first ``_MAX_CONTAINERS``.
    """
    return cast(T, _copy(value, {}, 0, _MAX_CONTAINERS)) if type(value) in _CONTAINERS else value


def copy_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a dict of ``values``, copied as by :func:`copy_value`, but with any number of containers."""
    return cast(dict[str, Any], _copy({**values}, {}, 0, math.inf))


def _copy(value: object, copies: dict[int, object], depth: int, limit: float) -> object:
    """Return ``value``, a container, with its containers copied. ``copies`` has the copies so far, by original's id."""
    key = id(value)
    if key in copies:
        return copies[key]
    if depth >= _MAX_DEPTH or len(copies) >= limit:
        return value
    depth += 1
    # Most items are not containers. The check in each loop saves a call for each of them.
    if type(value) is dict:
        entries = cast(dict[object, object], value).copy().items()  # another thread may add an entry meanwhile
        copies[key] = copied = dict[object, object]()
        for name, each in entries:
            copied[name] = _copy(each, copies, depth, limit) if type(each) in _CONTAINERS else each
        return copied
    if type(value) is list:
        items: Iterable[object] = cast(list[object], value)
        copies[key] = listed = list[object]()
        for each in items:
            listed.append(_copy(each, copies, depth, limit) if type(each) in _CONTAINERS else each)
        return listed
    if type(value) is tuple:
        items = cast(tuple[object, ...], value)
        frozen = tuple([_copy(each, copies, depth, limit) if type(each) in _CONTAINERS else each for each in items])
        copies[key] = frozen  # otherwise a tuple that others share would be copied once for each path to it
        return frozen
    return set(cast(set[object], value))
