"""One run of a flow: the graph merge.

Methods are Observables; when one completes, those that wait for it are merged in. This is an operator of our own because
RxPY's ``expand`` subscribes once an item; ours expands on results only, not on thousands of chunks.

What a completion sets off is a *wave*. First its routers run, one after the other, then the routers of their labels; when
none is left, all other methods that wait for anything in the wave begin at once.
"""

from __future__ import annotations

import warnings
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import CompositeDisposable, SingleAssignmentDisposable

from rxflow.flow.conditions import Trigger, is_choice, is_met
from rxflow.flow.graph import TRIGGER_PAYLOAD, Graph, Method
from rxflow.flow.method_run import run_method
from rxflow.streaming.scope import Scope
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import Event, FlowFailed, FlowFinished, FlowStarted, LLMFinished, MethodFinished
from rxflow.types.usage import UsageMetrics

Bound = Callable[[str], Callable[..., Any]]


@dataclass(slots=True)
class Record:
    """The outcome of one run: the methods' results in the order of completion, and the tokens of its LLM calls."""

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
    """Return the events of a run; its outcome is in ``record``. ::

    start     S-a-b|
    listen          L-c-d|        (listens to start)
    router          R|            (listens to start; its label starts another)
    another           A-e-f|
    result    S-a-b-R-A-e-L-f-c-d-|
    """

    def subscribe(observer: ObserverBase[Event], scheduler: SchedulerBase | None = None) -> DisposableBase:
        run = _FlowRun(graph, bound, scope, observer, inputs, max_method_calls, record)
        run.begin()
        return run.subscriptions

    return Observable(subscribe)


@dataclass(frozen=True, slots=True)
class _Occurrence:
    """A method has completed, or a router has emitted a label. ``routers`` of this wave have led to it."""

    trigger: str
    result: Any
    is_label: bool = False
    routers: frozenset[str] = frozenset()


class _Wave:
    """A method's completion, and the routers that it sets off."""

    def __init__(self) -> None:
        self.occurrences: list[_Occurrence] = []
        self.unrouted: deque[_Occurrence] = deque()
        self.due_routers: deque[tuple[Method, _Occurrence]] = deque()
        self.called_routers: set[str] = set()

    def add(self, occurrence: _Occurrence) -> None:
        self.occurrences.append(occurrence)
        self.unrouted.append(occurrence)


class _FlowRun:
    """All of it happens on the run's loop, so plain attributes are enough."""

    def __init__(
        self,
        graph: Graph,
        bound: Bound,
        scope: Scope,
        observer: ObserverBase[Event],
        inputs: Mapping[str, Any],
        max_method_calls: int,
        record: Record,
    ) -> None:
        self.subscriptions = CompositeDisposable()
        self._graph = graph
        self._waiting = graph.group_by_trigger()
        self._bound = bound
        self._scope = scope
        self._observer = observer
        self._inputs = inputs
        self._max_method_calls = max_method_calls
        self._record = record
        self._calls: Counter[str] = Counter()
        self._completed: set[str] = set()
        self._arrived: dict[str, set[str]] = {name: set() for name in graph.methods}
        self._fired: dict[str, _Wave] = {}  # or_ listeners that are not armed, with the wave in which each fired
        self._running = 0

    def begin(self) -> None:
        self._observer.on_next(FlowStarted(origin=self._scope.origin, inputs=self._inputs))
        # Held as if one method ran: a start that ends at once must not end the flow before its siblings begin.
        self._running = 1
        for method in self._graph.entry_points:
            self._call(method, (), _Wave())
        self._end_call()

    def _call(
        self, method: Method, arguments: tuple[Any, ...], wave: _Wave, routers: frozenset[str] = frozenset()
    ) -> None:
        """Merge in one call of ``method``; its completion belongs to ``wave``."""
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
        if method.name in self._completed:
            self._completed.remove(method.name)
            self._fired.clear()  # a new round of a cycle: all or_ listeners are armed again
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
            self._completed.add(method.name)
            self._complete(method, outcome[0], wave, routers)
            self._end_call()

        namespace = (*self._scope.origin.namespace, method.name)
        subscription = SingleAssignmentDisposable()
        self.subscriptions.add(subscription)
        source = run_method(self._scope, method, self._bound(method.name), arguments, self._read_payload(method))
        subscription.disposable = source.subscribe(on_next, self._fail, on_completed)

    def _read_payload(self, method: Method) -> dict[str, Any]:
        """Return the payload of a trigger as a keyword argument, if ``method`` asks for it and needs it."""
        payload = self._inputs.get(TRIGGER_PAYLOAD)
        if method.payload is None or (payload is None and method.payload.default is not method.payload.empty):
            return {}
        return {TRIGGER_PAYLOAD: payload}

    def _complete(self, method: Method, result: Any, wave: _Wave, routers: frozenset[str]) -> None:
        """Add a method's completion to the wave, and go on with that."""
        label = None
        if method.is_router:
            try:
                result = label = self._read_label(method, result)
            except Warning as error:  # the program has made warnings errors
                self._fail(error)
                return
        self._record.outputs.append(result)
        wave.add(_Occurrence(method.name, result, routers=routers))
        if label is not None:
            wave.add(_Occurrence(label, label, is_label=True, routers=routers))
        self._run_routers(wave)

    def _read_label(self, router: Method, outcome: Any) -> str | None:
        """Return a router's outcome as a label. One that nothing waits for is a warning."""
        if outcome is None:
            return None
        label = str(outcome.value) if isinstance(outcome, Enum) else str(outcome)
        if label not in self._waiting and router.name not in self._waiting:
            where = f"{self._graph.name}.{router.name} returned"
            if isinstance(outcome, list | tuple | set | frozenset):
                warnings.warn(f"{where} {outcome!r}; a router returns one label, so nothing follows", stacklevel=1)
            else:
                warnings.warn(
                    f"{where} {label!r}, a label that no method waits for; return None if nothing is to follow",
                    stacklevel=1,
                )
        return label

    def _run_routers(self, wave: _Wave) -> None:
        """Call the next router of the wave, which comes back here; after the last, begin all others that are due."""
        while wave.unrouted and not wave.due_routers:
            occurrence = wave.unrouted.popleft()
            wave.due_routers += ((router, occurrence) for router in self._find_due_routers(wave, occurrence))
        if wave.due_routers:
            router, occurrence = wave.due_routers.popleft()
            self._call(router, _arguments(router, occurrence), wave, occurrence.routers | {router.name})
        else:
            # All are found first: a call that begins a new round of a cycle must arm those for that round, not this one.
            for method, occurrence in self._find_due_listeners(wave):
                self._call(method, _arguments(method, occurrence), _Wave())

    def _find_due_routers(self, wave: _Wave, occurrence: _Occurrence) -> list[Method]:
        """An ``or_`` fires once a wave, unless the router itself has led to this: that is a cycle of routers."""
        due: list[Method] = []
        for router in self._waiting.get(occurrence.trigger, ()):
            if not _runs_first(router):
                continue
            is_repeated = router.name in wave.called_routers and router.name not in occurrence.routers
            if is_choice(router.condition) and is_repeated:
                continue
            if self._is_due(router, occurrence.trigger):
                wave.called_routers.add(router.name)
                due.append(router)
        return due

    def _find_due_listeners(self, wave: _Wave) -> list[tuple[Method, _Occurrence]]:
        due: list[tuple[Method, _Occurrence]] = []
        for occurrence in wave.occurrences:
            for method in self._waiting.get(occurrence.trigger, ()):
                if _runs_first(method):
                    continue
                if occurrence.is_label and self._fired.get(method.name) is not wave:
                    self._fired.pop(method.name, None)
                if method.name not in self._fired and self._is_due(method, occurrence.trigger):
                    due.append((method, occurrence))
                    if is_choice(method.condition):
                        self._fired[method.name] = wave
        return due

    def _is_due(self, method: Method, trigger: str) -> bool:
        """Note that ``trigger`` has arrived at ``method``, and report whether its condition is met now."""
        condition = method.condition
        if condition is None or isinstance(condition, Trigger):
            return True
        arrived = self._arrived[method.name]
        arrived.add(trigger)
        if not is_met(condition, arrived):
            return False
        arrived.clear()
        return True

    def _end_call(self) -> None:
        """Count one call less; after the last the flow is done."""
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


def _runs_first(method: Method) -> bool:
    """Whether it runs before the other methods of a wave. A conditional start that is a router begins a wave of its own."""
    return method.is_router and not method.is_start


def _arguments(method: Method, occurrence: _Occurrence) -> tuple[Any, ...]:
    return (occurrence.result,) if method.takes_result else ()
