"""Where an item comes from, for events and messages of ours."""

from __future__ import annotations

from dataclasses import fields
from reprlib import Repr

from rxflow.types.chunks import Origin, StreamChunk
from rxflow.types.events import Happened

_LABELS = [field.name for field in fields(Origin) if field.name in StreamChunk.model_fields]
_NOWHERE = Origin()
_short = Repr()
_short.maxstring = _short.maxother = 60


def origin_of(item: object) -> Origin:
    """The place of an event or a chunk; an empty one for anything else."""
    if isinstance(item, StreamChunk):
        return Origin(**{name: getattr(item, name) for name in _LABELS})
    return item.origin if isinstance(item, Happened) else _NOWHERE


def namespace_of(item: object) -> tuple[str, ...]:
    """The flows, methods, crews and tasks around an item, outermost first."""
    return item.namespace if isinstance(item, StreamChunk) else origin_of(item).namespace


def described(item: object) -> str:
    """An item in a message: what it is, and whose. ::

    LLMStarted of agent 'Writer', task 'Draft'
    """
    what = type(item).__name__ if isinstance(item, Happened) else _short.repr(str(item))
    origin = origin_of(item)
    labels = {
        "agent": origin.agent_role,
        "task": origin.task_name,
        "crew": origin.crew_name,
        "method": origin.flow_method,
        "flow": origin.flow_name,
    }
    said = [f"{level} {name!r}" for level, name in labels.items() if name][:2]
    return f"{what} of {', '.join(said)}" if said else what
