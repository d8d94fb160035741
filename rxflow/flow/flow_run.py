"""One run of a flow: the graph merge.

Methods are Observables; when one completes, those that its result triggers are merged in. This is an operator of our
own because RxPY's ``expand`` subscribes once an item; ours expands on results only, not on thousands of chunks.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import CompositeDisposable, SingleAssignmentDisposable

from rxflow.flow.conditions import AllOf, AnyOf, holds
from rxflow.flow.graph import Graph, Method
from rxflow.flow.method_run import run_method
from rxflow.streaming.scope import Scope
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import Event, FlowFailed, FlowFinished, FlowStarted, LLMFinished, MethodFinished
from rxflow.types.usage import UsageMetrics

Bound = Callable[[str], Callable[..., Any]]


@dataclass(slots=True)
class Record:
    """What one run came to: the methods' results in the order of completion, and the tokens of its LLM calls."""

    outputs: list[Any] = field(default_factory=list[Any])
    usage: UsageMetrics = field(default_factory=UsageMetrics)


def merge_along(
    graph: Graph,
    bound: Bound,
    scope: Scope,
    *,
    inputs: Mapping[str, Any],
    max_method_calls: int,
    record: Record,
) -> Observable[Event]:
    """The events of a run; what it came to is in ``record``. ::

    start     S-a-b|
    listen          L-c-d|        (listens to start)
    router          R|            (listens to start; its label starts another)
    another           A-e-f|
    result    S-a-b-R-A-e-L-f-c-d-|
    """

    def subscribe(observer: ObserverBase[Event], scheduler: SchedulerBase | None = None) -> DisposableBase:
        run = _FlowRun(graph, bound, scope, observer, max_method_calls, record)
        run.begin(inputs)
        return run.subscriptions

    return Observable(subscribe)


class _FlowRun:
    """All of it happens on the run's loop, so plain attributes are enough."""

    def __init__(
        self,
        graph: Graph,
        bound: Bound,
        scope: Scope,
        observer: ObserverBase[Event],
        max_method_calls: int,
        record: Record,
    ) -> None:
        self.subscriptions = CompositeDisposable()
        self._graph = graph
        self._waiting = graph.by_trigger()
        self._bound = bound
        self._scope = scope
        self._observer = observer
        self._max_method_calls = max_method_calls
        self._record = record
        self._calls: Counter[str] = Counter()
        self._arrived: dict[str, set[str]] = {name: set() for name in graph.methods}
        self._fired: set[str] = set()  # or_ listeners that wait for a router to arm them again
        self._running = 0

    def begin(self, inputs: Mapping[str, Any]) -> None:
        self._observer.on_next(FlowStarted(origin=self._scope.origin, inputs=inputs))
        # Held as if one method ran: a start that ends at once must not end the flow before its siblings begin.
        self._running = 1
        for method in self._graph.unconditional_starts:
            self._call(method, ())
        self._ended()

    def _call(self, method: Method, arguments: tuple[Any, ...], then: Callable[[], None] | None = None) -> None:
        """Merge in one call of ``method``; ``then`` runs after its own consequences have begun."""
        if self.subscriptions.is_disposed:
            return
        self._calls[method.name] += 1
        if self._calls[method.name] > self._max_method_calls:
            self._fail(
                RecursionError(
                    f"{self._graph.name}.{method.name} was called more than max_method_calls="
                    f"{self._max_method_calls} times in one run; raise it if the cycle is meant"
                )
            )
            return
        self._running += 1
        outcome: list[Any] = []
        emit = self._observer.on_next

        def on_next(event: Event) -> None:
            if not isinstance(event, StreamChunk):
                if isinstance(event, MethodFinished) and event.origin.namespace == namespace:
                    outcome.append(event.result)
                elif isinstance(event, LLMFinished):
                    self._record.usage += event.usage
            emit(event)

        def on_completed() -> None:
            self.subscriptions.remove(subscription)
            self._completed(method, outcome[0])
            if then is not None:
                then()
            self._ended()

        namespace = (*self._scope.origin.namespace, method.name)
        subscription = SingleAssignmentDisposable()
        self.subscriptions.add(subscription)
        source = run_method(self._scope, method, self._bound(method.name), arguments)
        subscription.disposable = source.subscribe(on_next, self._fail, on_completed)

    def _completed(self, method: Method, result: Any) -> None:
        if method.is_router:
            label = _label(result)
            self._record.outputs.append(label)
            self._fired.clear()
            self._happened(method.name, label)
            if label is not None:
                self._happened(label, label)
        else:
            self._record.outputs.append(result)
            self._happened(method.name, result)

    def _happened(self, trigger: str, result: Any) -> None:
        """Begin what waits for ``trigger``: its routers first, one after the other, then all others at once."""
        due = [method for method in self._waiting.get(trigger, ()) if self._is_due(method, trigger)]
        routers = deque(method for method in due if method.is_router)
        listeners = [method for method in due if not method.is_router]

        def go_on() -> None:
            if routers:
                self._start(routers.popleft(), result, go_on)
            else:
                for method in listeners:
                    if isinstance(method.condition, AnyOf):
                        self._fired.add(method.name)  # again: a router of this same trigger may have armed it meanwhile
                    self._start(method, result)

        go_on()

    def _start(self, method: Method, result: Any, then: Callable[[], None] | None = None) -> None:
        self._call(method, (result,) if method.takes_result else (), then)

    def _is_due(self, method: Method, trigger: str) -> bool:
        condition = method.condition
        if isinstance(condition, AnyOf) and method.name in self._fired:
            return False
        if not isinstance(condition, AnyOf | AllOf):
            return True
        arrived = self._arrived[method.name]
        arrived.add(trigger)
        if not holds(condition, arrived):
            return False
        arrived.clear()
        if isinstance(condition, AnyOf):
            self._fired.add(method.name)
        return True

    def _ended(self) -> None:
        """One call less is under way; after the last the flow is done."""
        self._running -= 1
        if self._running == 0 and not self.subscriptions.is_disposed:
            outputs = self._record.outputs
            result = outputs[-1] if outputs else None
            self._observer.on_next(FlowFinished(origin=self._scope.origin, result=result, usage=self._record.usage))
            self._observer.on_completed()

    def _fail(self, error: Exception) -> None:
        # Siblings first: nothing may arrive after the announcement.
        self.subscriptions.dispose()
        self._observer.on_next(FlowFailed(origin=self._scope.origin, error=error))
        self._observer.on_error(error)


def _label(outcome: Any) -> str | None:
    """A router's outcome as a label."""
    if outcome is None:
        return None
    return str(outcome.value) if isinstance(outcome, Enum) else str(outcome)
