"""Occurrences in a run of a flow, and the waves that handle them; see :mod:`rxflow.flow._flow_run`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rxflow.flow._graph import Method

_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Occurrence:
    """A method has completed, or a router has emitted a label; ``causes`` are the wave's routers that led to it."""

    trigger: str
    result: Any
    is_label: bool = False
    causes: frozenset[str] = _NONE


class Wave:
    """The occurrences of a wave that wait to be handled. Later parts of ``parent`` wait until this wave is over.

    Its queues are lists: they are short, every running flow holds two waves, and an empty deque takes 760 bytes. An
    empty set takes 216, and so does each empty frozenset that is made.
    """

    __slots__ = ("called_routers", "due_routers", "fired_before", "for_listeners", "for_routers", "parent", "running")

    def __init__(self, parent: Wave | None = None) -> None:
        self.parent = parent
        self.for_routers: list[Occurrence] = []
        self.for_listeners: list[Occurrence] = []
        self.due_routers: list[tuple[Method, Occurrence, tuple[str, ...]]] = []
        self.called_routers = _NONE
        self.fired_before = _NONE
        self.running = 0  # listeners, each with all that it sets off

    def add(self, occurrence: Occurrence) -> None:
        """Add an occurrence, for the routers and then for the listeners."""
        self.for_routers.append(occurrence)
        self.for_listeners.append(occurrence)
