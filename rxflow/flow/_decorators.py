"""``@start``, ``@listen`` and ``@router``: they leave a note on the method; the class reads the notes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from rxflow.flow._conditions import NOTE_ATTRIBUTE, Condition, Conditional, parse_condition

if TYPE_CHECKING:
    from rxflow.flow._human_feedback import Feedback
    from rxflow.flow.persistence import SaveRule

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
