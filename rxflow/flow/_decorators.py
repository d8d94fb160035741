"""``@start``, ``@listen`` and ``@router``, which leave a note on the method, and the conditions for it to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

if TYPE_CHECKING:
    from rxflow.flow._people import Feedback
    from rxflow.flow.persistence import SaveRule


NOTE_ATTRIBUTE = "__rxflow_note__"
"""The decorators keep what they know of a method in this attribute of it."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """A method's completion, or a router's label, by name."""

    name: str


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One of these."""

    items: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AllOf:
    """All of these, in any order; the last to arrive gives the result."""

    items: tuple[Condition, ...]


Condition: TypeAlias = Trigger | AnyOf | AllOf
Conditional: TypeAlias = Condition | str | Callable[..., Any]
"""What the decorators accept: a method, its name, a router's label, or ``or_(…)`` and ``and_(…)`` of such."""


def or_(*conditions: Conditional) -> AnyOf:
    """Fires when the first of ``conditions`` happens; it does not cancel the others. ::

        a         ----a-----------
        b         ---------b------
        or_(a, b) ----a-----------

    It does not fire again until a router emits a label that it names, or until a method that had completed runs again:
    once in each round of a cycle. A method and the routers that it sets off count as one, so ``or_(begin, "ok")`` fires
    once if a router of ``begin`` returns "ok".

    Raises:
        ValueError: a condition is missing, or is not one.
    """
    return AnyOf(_parse_items("or_", conditions))


def and_(*conditions: Conditional) -> AllOf:
    """Fires when all of ``conditions`` have happened, with the result of the last; then it waits for all anew. ::

        a          ----a------------
        b          ---------b-------
        and_(a, b) ---------b-------

    Raises:
        ValueError: a condition is missing, or is not one.
    """
    return AllOf(_parse_items("and_", conditions))


def parse_condition(given: object, where: str) -> Condition:
    """Return ``given`` as a condition. Raises ValueError if it is not one."""
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
    """Whether all that has ``happened`` meets the condition."""
    match condition:
        case Trigger(name):
            return name in happened
        case AnyOf(items):
            return any(is_met(item, happened) for item in items)
        case AllOf(items):
            return all(is_met(item, happened) for item in items)


def is_choice(condition: Condition | None) -> bool:
    """Whether this is an ``or_`` of several. An ``or_`` or ``and_`` of one condition is that condition."""
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
    """What the decorators know of one method."""

    is_start: bool = False
    is_router: bool = False
    condition: Condition | None = None
    emit: tuple[str, ...] | None = None
    persist: SaveRule | None = None
    feedback: Feedback | None = None


def start(condition: Conditional | None = None) -> Callable[[F], F]:
    """The method begins the flow; all unconditional starts run at once.

    With a condition the method runs when that happens. If no start of a flow is unconditional, the flow begins with all
    of them. A start that declares ``crewai_trigger_payload`` receives the input of that name.
    """
    parsed = None if condition is None else parse_condition(condition, "@start")
    return lambda method: add_note(method, "start", parsed, is_start=True)


def listen(condition: Conditional) -> Callable[[F], F]:
    """The method runs when ``condition`` happens; a parameter that it declares receives the trigger's result."""
    parsed = parse_condition(condition, "@listen")
    return lambda method: add_note(method, "listen", parsed)


def router(condition: Conditional | None = None, *, emit: Sequence[str] | None = None) -> Callable[[F], F]:
    """The method returns a label, and those that listen for it run.

    None is not a label, an Enum gives its value, others ``str()``. A label that nothing waits for is a warning.
    Without a condition this turns a ``@start`` or ``@listen`` method into a router. ``emit`` lists the labels, for the
    drawing and so that a misspelt listener is found; a ``Literal`` or Enum return type does the same.
    """
    parsed = None if condition is None else parse_condition(condition, "@router")
    labels = (emit,) if isinstance(emit, str) else None if emit is None else tuple(emit)
    return lambda method: add_note(method, "router", parsed, is_router=True, emit=labels)


def read_note(method: object) -> Note | None:
    """Return what the decorators know of ``method``, if anything."""
    return cast(Note | None, getattr(method, NOTE_ATTRIBUTE, None))


def add_note(method: F, decorator: str, condition: Condition | None, **facts: Any) -> F:
    """Add to what the decorators know of ``method``. Raises ValueError if it already has a condition, or is a class."""
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
