"""Checks for the arguments of operators."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import TypeAlias, TypeGuard, cast

from pydantic import BaseModel
from reactivex.typing import RelativeTime

ErrorFilter: TypeAlias = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]
"""Selects errors: an exception class, a tuple of classes, or a function that returns True for a selected error."""


AnyPath: TypeAlias = str | os.PathLike[str]


def is_number(value: object) -> TypeGuard[float]:
    """Return whether ``value`` is an int or a float, but not True or False."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_positive(value: float, parameter: str, unit: str, *, allow_zero: bool = False) -> None:
    """Check that ``value`` is a finite number above 0. With ``allow_zero``, it may also be 0.

    Raises:
        TypeError: ``value`` is not a number.
        ValueError: ``value`` is too small, or is not finite.
    """
    if not is_number(value):
        raise TypeError(f"{parameter} is not a number of {unit}: {value!r}")
    is_finite = abs(value) <= sys.float_info.max  # isfinite() raises an OverflowError for an int that no float can hold
    if not is_finite or value < 0 or (value == 0 and not allow_zero):
        least = ", at least 0" if allow_zero else " above 0"
        raise ValueError(f"{parameter} must be a number of {unit}{least}; got {value!r}")


def check_count(value: int, parameter: str, least: int) -> None:
    """Check that ``value`` is an integer, and at least ``least``.

    Raises:
        TypeError: ``value`` is not an integer.
        ValueError: ``value`` is less than ``least``.
    """
    given = cast(object, value)
    if not isinstance(given, int) or isinstance(given, bool):
        raise TypeError(f"{parameter} is not an integer: {value!r}")
    if given < least:
        raise ValueError(f"{parameter} must be at least {least}; got {value!r}")


def check_path(value: AnyPath, parameter: str) -> None:
    """Check that ``value`` has the type of a path. The file need not exist.

    Raises:
        TypeError: ``value`` is neither a string nor an ``os.PathLike``.
    """
    if not isinstance(cast(object, value), str | os.PathLike):
        raise TypeError(f"{parameter} is not a path: {value!r}")


def to_seconds(value: RelativeTime, parameter: str, *, allow_zero: bool = False) -> float:
    """Return a duration in seconds. It must be above 0. With ``allow_zero``, it may also be 0.

    Raises:
        TypeError: ``value`` is neither a number nor a timedelta.
        ValueError: ``value`` is too small, or is not finite.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    check_positive(seconds, parameter, "seconds (or a timedelta)", allow_zero=allow_zero)
    return seconds


def check_choice(value: str, parameter: str, *choices: str) -> None:
    """Check that ``value`` is one of ``choices``.

    Raises:
        ValueError: ``value`` is not one of them.
    """
    if value not in choices:
        raise ValueError(f"{parameter} must be one of {', '.join(map(repr, choices))}; got {value!r}")


def check_model(given: type[BaseModel], operator: str) -> None:
    """Check that ``given`` is a pydantic model class.

    Raises:
        TypeError: ``given`` is something else, such as an instance of a model.
    """
    model = cast(object, given)
    if not isinstance(model, type) or not issubclass(model, BaseModel):
        raise TypeError(f"{operator} takes a pydantic model, which is a class; got {given!r}")


def compile_error_filter(given: ErrorFilter, parameter: str) -> Callable[[BaseException], bool]:
    """Return a function that returns whether ``given`` selects an error.

    An error that is not an Exception, such as a cancellation, is never selected.

    Raises:
        TypeError: ``given`` is neither a subclass of Exception, nor a tuple of such classes, nor a function.
    """
    if isinstance(given, type | tuple):
        kinds = cast("tuple[type[Exception], ...]", given if isinstance(given, tuple) else (given,))
        if not all(
            isinstance(kind, type) and issubclass(kind, Exception) for kind in cast("tuple[object, ...]", kinds)
        ):
            raise TypeError(f"{parameter} takes exception classes, or a function of the error; got {given!r}")
        return lambda error: isinstance(error, kinds)
    if not callable(given):
        raise TypeError(f"{parameter} takes exception classes, or a function of the error; got {given!r}")
    return lambda error: isinstance(error, Exception) and bool(given(error))
