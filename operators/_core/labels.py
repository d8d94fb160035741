"""The labels by which a stream is told apart: whose chunk or event something is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol

from rxflow.types.chunks import StreamChunk
from rxflow.types.events import (
    Failed,
    Finished,
    Happened,
    MethodFailed,
    MethodFinished,
    MethodStarted,
    Started,
    TaskFailed,
    TaskFinished,
    TaskStarted,
)


class Identified(Protocol):
    """Something with an id of its own that its chunks carry: a Task, an Agent."""

    @property
    def id(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One label: what it is of, its fields in chunks and origins, and the events between which they are used."""

    what: str
    name: str
    id: str | None
    begins: type[Started]
    ends: tuple[type[Finished], type[Failed]]

    @property
    def of(self) -> Callable[[object], str]:
        """A function that reads the name; empty where there is none, as in what is not rxflow's."""
        return _reader(self.name)

    def wanted(self, given: tuple[str | Identified, ...], operator: str) -> Callable[[object], bool]:
        """Whether something has one of the names, or is of one of the objects, that were ``given``.

        Raises:
            ValueError: none is given, or an empty name.
            TypeError: something else is given.
        """
        if not given:
            raise ValueError(f"{operator}() needs at least one {self.what} to keep")
        names = frozenset(each for each in given if isinstance(each, str))
        if "" in names:
            raise ValueError(f"{operator}() got an empty name, and no {self.what} has one")
        objects = [each for each in given if not isinstance(each, str)]
        if not all(self.id and isinstance(getattr(each, "id", None), str) for each in objects):
            takes = (
                f"names of {self.what}s" if self.id is None else f"names of {self.what}s, or {self.what}s themselves"
            )
            raise TypeError(f"{operator}() takes {takes}; got {objects!r}")
        name_of = self.of
        if self.id is None or not objects:
            return lambda item: name_of(item) in names
        ids = frozenset(each.id for each in objects)
        id_of = _reader(self.id)
        return lambda item: name_of(item) in names or id_of(item) in ids


def _reader(field: str) -> Callable[[object], str]:
    get: Callable[[object], str] = attrgetter(field)

    def read(item: object) -> str:
        if isinstance(item, StreamChunk):
            return get(item)
        return get(item.origin) if isinstance(item, Happened) else ""

    return read


TASK = Label(what="task", name="task_name", id="task_id", begins=TaskStarted, ends=(TaskFinished, TaskFailed))
# An agent is at work as long as its task: each attempt that a guardrail sends back is a bracket of its own.
AGENT = Label(what="agent", name="agent_role", id="agent_id", begins=TaskStarted, ends=(TaskFinished, TaskFailed))
METHOD = Label(what="method", name="flow_method", id=None, begins=MethodStarted, ends=(MethodFinished, MethodFailed))
