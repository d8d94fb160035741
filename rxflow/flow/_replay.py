"""The finished methods of a resumed flow. They complete again in their old order, without running."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from rxflow._streaming import Done, Journal, NotResumable, Step
from rxflow.flow._graph import Graph
from rxflow.types import MethodFinished
from rxflow.types._values import RecordedModel, RecordedObject

Repeat = Callable[[MethodFinished], None]


class Replay:
    """Holds back calls of finished methods until it is their turn.

    The order in which methods complete decides what follows: ``and_``, for example, passes on the result of the method
    that completes last. So the methods complete in the order of the log, whichever is called first.
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
        """Return whether this call had finished before the run was resumed.

        If so, ``repeat`` will be called with the call's MethodFinished, when it is the call's turn.
        """
        if step in self._finished:
            self._called[step] = repeat
        return step in self._finished

    def run(self) -> None:
        """Complete all finished methods. Each of them may lead to further calls.

        Raises:
            NotResumable: a finished method was removed from the graph, nothing calls it any more, or its result is
                lost.
        """
        if self._missing:
            raise NotResumable(
                f"{self._graph.name} cannot be resumed: the log has the method {self._missing[0]!r}, which is not in "
                f"the graph any more (it has {', '.join(self._graph.methods)}); restore it, or start a new run"
            )
        while self._due:
            done = self._due.popleft()
            repeat = self._called.pop(done.step, None)
            name, _, number = done.step[-1].rpartition("#")
            if repeat is None:
                raise NotResumable(
                    f"{self._graph.name} cannot be resumed: the log has call {int(number) + 1} of the method {name!r}, "
                    "which nothing triggers any more; the graph has changed"
                )
            self._require_result(name, done.event.result)
            repeat(done.event)

    def _require_result(self, name: str, result: object) -> None:
        """Raise NotResumable if a method needs a result that the log could not carry."""
        takers = [method.name for method in self._waiting.get(name, ()) if method.takes_result]
        if takers and isinstance(result, RecordedObject | RecordedModel):
            kind = result.type if isinstance(result, RecordedObject) else result.recorded_type
            raise NotResumable(
                f"{self._graph.name} cannot be resumed: {takers[0]!r} needs the result of {name!r}, a {kind}, which "
                "the log cannot restore; return a value that JSON can carry, or a pydantic model of a loaded module"
            )
