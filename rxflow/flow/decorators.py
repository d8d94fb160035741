"""``@start``, ``@listen`` and ``@router``: they only note on the method what it is; the class reads the notes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from rxflow.flow.conditions import NOTE, Condition, Conditional, condition_of

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What the decorators say of one method."""

    is_start: bool = False
    is_router: bool = False
    condition: Condition | None = None
    emit: tuple[str, ...] | None = None


def start(condition: Conditional | None = None) -> Callable[[F], F]:
    """The method begins the flow; with a condition it also waits for that. All unconditional starts run at once."""
    given = None if condition is None else condition_of(condition, "@start")
    return lambda method: _noted(method, "start", given, is_start=True)


def listen(condition: Conditional) -> Callable[[F], F]:
    """The method runs when ``condition`` happens; a parameter that it declares receives the trigger's result."""
    given = condition_of(condition, "@listen")
    return lambda method: _noted(method, "listen", given)


def router(condition: Conditional | None = None, *, emit: Sequence[str] | None = None) -> Callable[[F], F]:
    """The method's outcome is a label for which others listen: None emits none, an Enum its value, others ``str()``.

    Without a condition it turns a ``@start`` or ``@listen`` method into a router. ``emit`` names the labels, for the
    drawing and so that a misspelt listener is found; a ``Literal`` or Enum return type says the same.
    """
    given = None if condition is None else condition_of(condition, "@router")
    labels = (emit,) if isinstance(emit, str) else None if emit is None else tuple(emit)
    return lambda method: _noted(method, "router", given, is_router=True, emit=labels)


def note_of(method: object) -> Note | None:
    """What the decorators have noted, if anything."""
    return cast(Note | None, getattr(method, NOTE, None))


def _noted(method: F, decorator: str, condition: Condition | None, **said: Any) -> F:
    name = getattr(method, "__name__", repr(method))
    if isinstance(method, type):
        raise ValueError(f"@{decorator}(…) goes on a method of a Flow; got the class {name}")
    note = note_of(method) or Note()
    if condition is not None:
        if note.condition is not None:
            raise ValueError(f"{name} has two conditions; join them with or_(…) or and_(…)")
        said["condition"] = condition
    setattr(method, NOTE, replace(note, **said))
    return method
