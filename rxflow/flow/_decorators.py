"""``@start``, ``@listen`` and ``@router``, which mark methods, and the conditions on which methods run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

if TYPE_CHECKING:
    from rxflow.flow._people import Feedback
    from rxflow.flow.persistence import SaveRule


NOTE_ATTRIBUTE = "__rxflow_note__"
"""The attribute of a method in which the decorators keep their marks."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """The completion of a method, or the label of a router, by name."""

    name: str


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Any one of these conditions."""

    items: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AllOf:
    """All of these conditions, in any order. The last one to be met provides the result."""

    items: tuple[Condition, ...]


Condition: TypeAlias = Trigger | AnyOf | AllOf
Conditional: TypeAlias = Condition | str | Callable[..., Any]
"""What the decorators accept: a method, its name, a router's label, or a combination by ``or_(…)`` and ``and_(…)``."""


def or_(*conditions: Conditional) -> AnyOf:
    """Return a condition that is met when the first of ``conditions`` is met. The others are not cancelled. ::

        a         ----a-----------
        b         ---------b------
        or_(a, b) ----a-----------

    After that, it is met again only in two cases: a router emits a label that it names, or a new round of a cycle has
    begun, because a method that had completed runs again. A method and the routers that it triggers count together, so
    ``or_(begin, "ok")`` is met once if a router of ``begin`` returns "ok".

    Raises:
        ValueError: there is no condition, or one of them is invalid.
    """
    return AnyOf(_parse_items("or_", conditions))


def and_(*conditions: Conditional) -> AllOf:
    """Return a condition that is met when all of ``conditions`` are met. The last one provides the result.

    After that, it waits for all of them again. ::

        a          ----a------------
        b          ---------b-------
        and_(a, b) ---------b-------

    Raises:
        ValueError: there is no condition, or one of them is invalid.
    """
    return AllOf(_parse_items("and_", conditions))


def parse_condition(given: object, where: str) -> Condition:
    """Return ``given`` as a condition. Raises ValueError if it is not a condition."""
    if isinstance(given, Trigger | AnyOf | AllOf):
        return given
    if isinstance(given, str) and given:
        return Trigger(given)
    if hasattr(given, NOTE_ATTRIBUTE):
        return Trigger(str(getattr(given, "__name__", given)))
    if callable(given):
        raise ValueError(
            f"{where}: {getattr(given, '__name__', given)!r} is not a method of a graph; decorate it with @start(), "
            f"@listen(…) or @router(…), each with parentheses"
        )
    raise ValueError(
        f"Invalid condition for {where}: {given!r}; give it a method, its name, a router's label, or or_(…) / and_(…) "
        "of such"
    )


def iterate_names(condition: Condition | None) -> Iterator[str]:
    """Yield the names of all methods and labels in a condition."""
    if isinstance(condition, Trigger):
        yield condition.name
    elif condition is not None:
        for item in condition.items:
            yield from iterate_names(item)


def is_met(condition: Condition, happened: Set[str]) -> bool:
    """Return whether the names in ``happened`` meet the condition."""
    match condition:
        case Trigger(name):
            return name in happened
        case AnyOf(items):
            return any(is_met(item, happened) for item in items)
        case AllOf(items):
            return all(is_met(item, happened) for item in items)


def is_choice(condition: Condition | None) -> bool:
    """Return whether this is an ``or_`` of several conditions.

    An ``or_`` or ``and_`` of one condition is the same as that condition.
    """
    if isinstance(condition, AnyOf | AllOf) and len(condition.items) == 1:
        return is_choice(condition.items[0])
    return isinstance(condition, AnyOf)


def _parse_items(where: str, conditions: tuple[Conditional, ...]) -> tuple[Condition, ...]:
    if not conditions:
        raise ValueError(f"{where}() needs at least one condition")
    return tuple(parse_condition(each, where) for each in conditions)


F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """The marks of one method."""

    is_start: bool = False
    is_router: bool = False
    condition: Condition | None = None
    emit: tuple[str, ...] | None = None
    persist: SaveRule | None = None
    feedback: Feedback | None = None


def start(condition: Conditional | None = None) -> Callable[[F], F]:
    """Mark a method that begins the flow. All start methods without a condition run at once.

    With a condition, the method runs when the condition is met. If all start methods have conditions, the flow begins
    with all of them. A start method with a parameter ``crewai_trigger_payload`` receives the input of that name.
    """
    parsed = None if condition is None else parse_condition(condition, "@start")
    return lambda method: add_note(method, "start", parsed, is_start=True)


def listen(condition: Conditional) -> Callable[[F], F]:
    """Mark a method that runs when ``condition`` is met.

    If the method has a parameter, it receives the result of the trigger.
    """
    parsed = parse_condition(condition, "@listen")
    return lambda method: add_note(method, "listen", parsed)


def router(condition: Conditional | None = None, *, emit: Sequence[str] | None = None) -> Callable[[F], F]:
    """Mark a method that returns a label. The methods that listen for the label run next.

    None is not a label. The label of an Enum is its value; the label of any other object is its ``str()``. A label that
    no method waits for causes a warning. Without a condition, this turns a ``@start`` or ``@listen`` method into a
    router. ``emit`` lists the labels, for drawings and to find misspelt listeners; a ``Literal`` or Enum as return type
    has the same effect.
    """
    parsed = None if condition is None else parse_condition(condition, "@router")
    labels = (emit,) if isinstance(emit, str) else None if emit is None else tuple(emit)
    return lambda method: add_note(method, "router", parsed, is_router=True, emit=labels)


def read_note(method: object) -> Note | None:
    """Return the marks of ``method``; None if it has none."""
    return cast(Note | None, getattr(method, NOTE_ATTRIBUTE, None))


def add_note(method: F, decorator: str, condition: Condition | None, **facts: Any) -> F:
    """Add to the marks of ``method``. Raises ValueError for a second condition, or if ``method`` is a class."""
    name = getattr(method, "__name__", repr(method))
    if isinstance(method, type):
        raise ValueError(f"@{decorator}(…) goes on a method of a Flow; got the class {name}")
    note = read_note(method) or Note()
    if condition is not None:
        if note.condition is not None:
            raise ValueError(f"{name} has two conditions; join them with or_(…) or and_(…)")
        facts["condition"] = condition
    setattr(method, NOTE_ATTRIBUTE, replace(note, **facts))
    return method
