"""Copies nested containers, so that two runs, or a run and an event, do not share them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

_MAX_DEPTH = 200


def copy_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of ``values``, in which the dicts, lists, tuples and sets are copies too.

    Other objects are not copied: some cannot be, and a program may look at an object after the run. Containers that are
    nested very deeply are not copied either.
    """
    return {name: _copy_containers(value, {}, 0) for name, value in values.items()}


def _copy_containers(value: object, copies: dict[int, object], depth: int) -> object:
    """Return ``value`` with copied containers. ``copies`` has the copies so far, by the id of the original."""
    key = id(value)
    if key in copies:
        return copies[key]
    if depth >= _MAX_DEPTH:
        return value
    depth += 1
    if type(value) is dict:
        items = cast(dict[object, object], value).items()
        copies[key] = copied = dict[object, object]()
        copied.update((name, _copy_containers(each, copies, depth)) for name, each in items)
        return copied
    if type(value) is list:
        copies[key] = listed = list[object]()
        listed.extend(_copy_containers(each, copies, depth) for each in cast(list[object], value))
        return listed
    if type(value) is tuple:
        return tuple(_copy_containers(each, copies, depth) for each in cast(tuple[object, ...], value))
    return set(cast(set[object], value)) if type(value) is set else value
