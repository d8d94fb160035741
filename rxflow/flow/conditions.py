"""Conditions: what has to happen before a method runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from typing import Any, TypeAlias

NOTE = "__rxflow_note__"
"""The attribute in which the decorators note what a method is."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """A method's completion, or a router's label, by name."""

    name: str


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One of these; fires once per cycle, and again after a router's outcome."""

    items: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AllOf:
    """All of these, in any order; the last to arrive gives the result."""

    items: tuple[Condition, ...]


Condition: TypeAlias = Trigger | AnyOf | AllOf
Conditional: TypeAlias = Condition | str | Callable[..., Any]
"""What the decorators take: a method, its name, a router's label, or ``or_(…)`` and ``and_(…)`` of such."""


def or_(*conditions: Conditional) -> AnyOf:
    """Fires when one of ``conditions`` happens. It cancels none of the others. ::

    a         ----a-----------
    b         ---------b------
    or_(a, b) ----a-----------      once, until a router has spoken
    """
    return AnyOf(_items("or_", conditions))


def and_(*conditions: Conditional) -> AllOf:
    """Fires when all of ``conditions`` have happened, with the result of the last. ::

    a          ----a------------
    b          ---------b-------
    and_(a, b) ---------b-------
    """
    return AllOf(_items("and_", conditions))


def condition_of(given: object, where: str) -> Condition:
    """``given`` as a condition. Raises ValueError where it is none."""
    if isinstance(given, Trigger | AnyOf | AllOf):
        return given
    if isinstance(given, str) and given:
        return Trigger(given)
    if hasattr(given, NOTE):
        return Trigger(str(getattr(given, "__name__", given)))
    if callable(given):
        raise ValueError(
            f"{where}: {getattr(given, '__name__', given)!r} is no method of a graph: it needs @start(), @listen(…) or "
            f"@router(…), each with parentheses"
        )
    raise ValueError(
        f"{where}: a condition is a method, its name, a router's label, or or_(…) / and_(…) of such; got {given!r}"
    )


def names_in(condition: Condition) -> Iterator[str]:
    """All triggers that a condition speaks of."""
    if isinstance(condition, Trigger):
        yield condition.name
    else:
        for item in condition.items:
            yield from names_in(item)


def holds(condition: Condition, happened: Set[str]) -> bool:
    """Whether what has ``happened`` fulfils the condition."""
    match condition:
        case Trigger(name):
            return name in happened
        case AnyOf(items):
            return any(holds(item, happened) for item in items)
        case AllOf(items):
            return all(holds(item, happened) for item in items)


def _items(where: str, conditions: tuple[Conditional, ...]) -> tuple[Condition, ...]:
    if not conditions:
        raise ValueError(f"{where}() needs at least one condition")
    return tuple(condition_of(each, where) for each in conditions)
