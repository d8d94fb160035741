"""The methods of a resumed flow that had finished: they complete again in their old order, without being run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from rxflow._streaming import Done, Journal, NotResumable, Step
from rxflow.flow._graph import Graph
from rxflow.types import MethodFinished
from rxflow.types._values import RecordedModel, RecordedObject

Repeat = Callable[[MethodFinished], None]


class Replay:
    """Holds back calls of methods that had finished until it is their turn.

    The order in which methods complete decides what follows: ``and_`` passes on the result of the last one. So they
    complete in the order of the log, whichever is called first.
    """

    def __init__(self, journal: Journal, graph: Graph, step: Step) -> None:
        self.has_begun = journal.find_start(step) is not None
        self._graph = graph
        self._waiting = graph.group_by_trigger()
        self._due: deque[Done] = deque(journal.done_within(step))
        self._finished = {done.step for done in self._due}
        self._called: dict[Step, Repeat] = {}
        self._missing = sorted(journal.begun_within(step) - graph.methods.keys())

    def takes(self, step: Step, repeat: Repeat) -> bool:
        """Whether this call had finished; ``repeat`` is then called with its end in its turn."""
        if step in self._finished:
            self._called[step] = repeat
        return step in self._finished

    def run(self) -> None:
        """Complete all that had finished; each may call further ones.

        Raises:
            NotResumable: one of them is not in the graph any more, nothing calls it any more, or its result is lost.
        """
        if self._missing:
            raise NotResumable(
                f"{self._graph.name} cannot go on: the log has the method {self._missing[0]!r}, which is not in the "
                f"graph any more (it has {', '.join(self._graph.methods)}); bring it back, or begin a new run"
            )
        while self._due:
            done = self._due.popleft()
            repeat = self._called.pop(done.step, None)
            name, _, number = done.step[-1].rpartition("#")
            if repeat is None:
                raise NotResumable(
                    f"{self._graph.name} cannot go on: the log has call {int(number) + 1} of the method {name!r}, "
                    "which nothing sets off any more; the graph has changed"
                )
            self._require_result(name, done.event.result)
            repeat(done.event)

    def _require_result(self, name: str, result: object) -> None:
        """Raise if somebody waits for a result that the log could not carry."""
        takers = [method.name for method in self._waiting.get(name, ()) if method.takes_result]
        if takers and isinstance(result, RecordedObject | RecordedModel):
            kind = result.type if isinstance(result, RecordedObject) else result.recorded_type
            raise NotResumable(
                f"{self._graph.name} cannot go on: {takers[0]!r} gets what {name!r} returned, a {kind}, which the log "
                "cannot give back; return what JSON can carry, or a pydantic model of a module that is loaded"
            )
