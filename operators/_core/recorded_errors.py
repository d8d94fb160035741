"""Errors in words, and made again from them."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Mapping
from typing import Any, cast


class RecordedError(Exception):
    """An error of a type that cannot be made again from a recording: ``type`` is its name, ``message`` what it said."""

    def __init__(self, type: str, message: str) -> None:  # noqa: A002
        super().__init__(type, message)
        self.type = type
        self.message = message

    def __str__(self) -> str:
        return f"{self.type}: {self.message}"


def in_words(value: object) -> Any:
    """An error as type and message, any other object as what it says of itself: for JSON, which knows neither."""
    if isinstance(value, BaseException):
        if isinstance(value, RecordedError):
            return {"type": value.type, "message": value.message}
        kind = type(value)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        words: dict[str, Any] = {"type": name, "message": _said(value)}
        args = _made_from(value)
        if all(isinstance(each, str | int | float | None) for each in args):
            words["args"] = list(args)
        return words
    return _said(value)


def _made_from(error: BaseException) -> tuple[object, ...]:
    """The arguments that make it again, as pickle asks for them."""
    try:
        return tuple(cast("tuple[Any, ...]", error.__reduce__())[1])
    except Exception:  # noqa: BLE001 - a users' class that cannot be pickled
        return error.args


def error_from(words: Mapping[str, Any]) -> Exception:
    """The error again, where its type is Python's or rxflow's and says the same; else a :class:`RecordedError`."""
    name, message = str(words["type"]), str(words["message"])
    args = cast("list[Any]", words.get("args", [message]))
    kind = _known(name)
    if kind is not None:
        try:
            error = kind(*args)
        except Exception:  # noqa: BLE001 - it wants other arguments than it keeps
            return RecordedError(name, message)
        if _said(error) == message:
            return error
    return RecordedError(name, message)


def _known(name: str) -> type[Exception] | None:
    """Only what is there already: a recording must not make Python import something."""
    module, _, attribute = name.rpartition(".")
    place = builtins if not module else sys.modules.get(module) if module.startswith("rxflow.") else None
    kind = getattr(place, attribute, None)
    return kind if isinstance(kind, type) and issubclass(kind, Exception) else None


def _said(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a users' object that cannot even say what it is
        return f"<{type(value).__name__}>"
