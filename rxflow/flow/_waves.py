"""Records what has happened in a flow's run, and finds the methods that are due. See :mod:`rxflow.flow._flow_run`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rxflow.flow._graph import Graph, Method, Trigger, is_choice, is_met

_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Occurrence:
    """The completion of a method, or a label that a router emitted. ``trigger`` is the name of the method or the label.

    ``causes`` has the names of those routers of the same wave that led to the occurrence. A router's own completion and
    label have the router among their causes.
    """

    trigger: str
    result: Any
    is_label: bool = False
    causes: frozenset[str] = _NONE


class Wave:
    """A completed method and the routers that it triggers.

    ``parent`` is the wave that waits for this wave. The parent continues when all waves with this parent are over. The
    outermost wave has no parent.

    ``for_routers`` has the occurrences that may still trigger routers. ``for_listeners`` has the occurrences that may
    still trigger listeners. ``due_routers`` are the routers to call next.

    Every running flow holds at least two waves, so a wave must be small. The queues are short lists, because an empty
    deque takes 760 bytes. The empty sets are one shared frozenset, because each new one takes 216 bytes.
    """

    __slots__ = ("called_routers", "due_routers", "fired_before", "for_listeners", "for_routers", "parent", "running")

    def __init__(self, parent: Wave | None = None) -> None:
        self.parent = parent
        self.for_routers: list[Occurrence] = []
        self.for_listeners: list[Occurrence] = []
        self.due_routers: list[tuple[Method, Occurrence, tuple[str, ...]]] = []
        self.called_routers = _NONE
        self.fired_before = _NONE  # the or_ listeners that ran before this wave called its first listener
        self.running = 0  # how many listeners are running. A listener counts until all that it triggers has ended.

    def add(self, occurrence: Occurrence) -> None:
        """Add an occurrence to the queue for routers, and to the queue for listeners."""
        self.for_routers.append(occurrence)
        self.for_listeners.append(occurrence)


class DueMethods:
    """Finds the methods that are due after an occurrence. Keeps the state of all conditions of one run."""

    def __init__(self, graph: Graph) -> None:
        self._waiting = graph.group_by_trigger()
        self._completed: set[str] = set()
        self._arrived: dict[str, set[str]] = {}  # by method: the triggers that came since its condition was last met
        self._fired: set[str] = set()  # the or_ listeners that have run, and may not run again yet

    def is_awaited(self, name: str) -> bool:
        """Return whether any method waits for ``name``, which is the name of a method or a label."""
        return name in self._waiting

    def note_call(self, name: str) -> None:
        """Record the call of a method.

        If the method has completed before, a new round of a cycle begins, in which all or_ listeners may run again.
        """
        if name in self._completed:
            self._completed.remove(name)
            self._fired.clear()

    def note_completion(self, name: str) -> None:
        """Record the completion of a method."""
        self._completed.add(name)

    def note_routers_over(self, wave: Wave) -> None:
        """Record that the routers of ``wave`` are done. Called before the first listener of ``wave`` is called."""
        wave.fired_before = frozenset(self._fired)

    def find_routers(self, wave: Wave, occurrence: Occurrence) -> list[tuple[Method, tuple[str, ...]]]:
        """Return the routers that are due after ``occurrence``, each with its triggers (see :meth:`_find_triggers`).

        A router with ``or_`` runs at most once per wave. The exception is a cycle of routers: a router that is one of
        the causes of ``occurrence`` runs again.
        """
        due: list[tuple[Method, tuple[str, ...]]] = []
        for router in self._waiting.get(occurrence.trigger, ()):
            if not _runs_first(router):
                continue
            is_repeated = router.name in wave.called_routers and router.name not in occurrence.causes
            if is_choice(router.condition) and is_repeated:
                continue
            triggers = self._find_triggers(router, occurrence.trigger)
            if triggers:
                wave.called_routers |= {router.name}
                due.append((router, triggers))
        return due

    def find_listeners(self, wave: Wave, occurrence: Occurrence) -> list[tuple[Method, tuple[str, ...]]]:
        """Return the listeners that are due after ``occurrence``, each with its triggers (see :meth:`_find_triggers`).

        An ``or_`` listener that has run is not due again until a new round of a cycle begins. There is one exception:
        if the listener ran before ``wave`` began to call listeners, one label of ``wave`` can make it due again.
        """
        due: list[tuple[Method, tuple[str, ...]]] = []
        for method in self._waiting.get(occurrence.trigger, ()):
            if _runs_first(method):
                continue
            if occurrence.is_label and method.name in wave.fired_before:
                wave.fired_before -= {method.name}  # so that no second label of this wave makes the method due
                self._fired.discard(method.name)
            triggers = () if method.name in self._fired else self._find_triggers(method, occurrence.trigger)
            if triggers:
                due.append((method, triggers))
                if is_choice(method.condition):
                    self._fired.add(method.name)
        return due

    def _find_triggers(self, method: Method, trigger: str) -> tuple[str, ...]:
        """Record that ``trigger`` has occurred, and check the condition of ``method``.

        If the condition is met, return all triggers that came since the last time. Otherwise return an empty tuple.
        """
        condition = method.condition
        if condition is None or isinstance(condition, Trigger):
            return (trigger,)
        arrived = self._arrived.setdefault(method.name, set())
        arrived.add(trigger)
        if not is_met(condition, arrived):
            return ()
        triggers = tuple(sorted(arrived))
        arrived.clear()
        return triggers


def _runs_first(method: Method) -> bool:
    """Return whether ``method`` runs before the listeners of a wave. This is True for a router.

    The exception is a router that is also a start method: it begins a wave of its own.
    """
    return method.is_router and not method.is_start
