"""Checks of arguments that several operators take."""

from __future__ import annotations

from math import isfinite
from typing import cast

from pydantic import BaseModel


def positive(value: float, what: str, unit: str) -> float:
    """``value`` where it is a number above 0.

    Raises:
        TypeError: it is no number.
        ValueError: it is 0 or less, or endless.
    """
    given = cast(object, value)
    if not isinstance(given, int | float) or isinstance(given, bool):
        raise TypeError(f"{what} is a number of {unit}; got {value!r}")
    if not isfinite(given) or given <= 0:
        raise ValueError(f"{what} is a number of {unit} above 0; got {value!r}")
    return value


def one_of(value: str, what: str, *allowed: str) -> None:
    """Refuse a word that is not ``allowed``.

    Raises:
        ValueError: it is another one.
    """
    if value not in allowed:
        raise ValueError(f"{what} is one of {', '.join(map(repr, allowed))}; got {value!r}")


def a_model(given: type[BaseModel], what: str) -> None:
    """Refuse what is no pydantic model.

    Raises:
        TypeError: it is something else, an object of a model for instance.
    """
    model = cast(object, given)
    if not isinstance(model, type) or not issubclass(model, BaseModel):
        raise TypeError(f"{what} takes a pydantic model, a class; got {given!r}")
