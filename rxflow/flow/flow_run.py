"""One run of a flow: the graph merge.

Methods are Observables; when one completes, those that wait for it are merged in. This is an operator of our own
because RxPY's ``expand`` subscribes once an item; ours expands on results only, not on thousands of chunks.

A completion and the routers that it sets off are a *wave*. The routers run first, one after the other, also those that
wait for a label of the wave. Then come the methods that wait for the completed method, all at once, with all that they
set off; then those that wait for the first label, and so on. So which methods of a wave run, and how often, does not
depend on which is faster. Waves of two starts, or of two listeners of one method, run side by side.
"""

from __future__ import annotations

import warnings
from collections import Counter
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
from rxflow.streaming.scope import Scope, UsageLedger
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import Event, FlowFailed, FlowFinished, FlowStarted, LLMFailed, LLMFinished, MethodFinished

BindMethod = Callable[[str], Callable[..., Any]]


@dataclass(slots=True)
class Record:
    """The outcome of one run: the methods' results in the order of completion, and the tokens of its LLM calls."""

    outputs: list[Any] = field(default_factory=list[Any])
    ledger: UsageLedger = field(default_factory=UsageLedger)


def merge_along(
    graph: Graph,
    bind: BindMethod,
    scope: Scope,
    *,
    inputs: Mapping[str, Any],
    max_method_calls: int,
    record: Record,
) -> Observable[Event]:
    """Return the events of a run; its outcome is in ``record``. ::

    start     S-a-b|
    router          R|                  (waits for start; its label starts another)
    one               O-c---d|          (waits for start)
    two               T---e|            (waits for start)
    another                  A-f|
    result    S-a-b-R-OTc-e-dA-f|
    """

    def subscribe(observer: ObserverBase[Event], scheduler: SchedulerBase | None = None) -> DisposableBase:
        run = _FlowRun(graph, bind, scope, observer, inputs, max_method_calls, record)
        run.begin()
        return run.subscriptions

    return Observable(subscribe)


@dataclass(frozen=True, slots=True)
class _Occurrence:
    """A method has completed, or a router has emitted a label; ``causes`` are the wave's routers that led to it."""

    trigger: str
    result: Any
    is_label: bool = False
    causes: frozenset[str] = frozenset()


class _Wave:
    """What has happened in a wave and is not yet dealt with. Later parts of ``parent`` wait until this one is over.

    Its queues are lists: they are short, every running flow holds two waves, and an empty deque takes 760 bytes.
    """

    __slots__ = ("called_routers", "due_routers", "fired_before", "for_listeners", "for_routers", "parent", "running")

    def __init__(self, parent: _Wave | None = None) -> None:
        self.parent = parent
        self.for_routers: list[_Occurrence] = []
        self.for_listeners: list[_Occurrence] = []
        self.due_routers: list[tuple[Method, _Occurrence]] = []
        self.called_routers: set[str] = set()
        self.fired_before: set[str] = set()
        self.running = 0  # listeners, each with all that it sets off

    def add(self, occurrence: _Occurrence) -> None:
        self.for_routers.append(occurrence)
        self.for_listeners.append(occurrence)


class _FlowRun:
    """All of it happens on the run's loop, so plain attributes are enough."""

    def __init__(
        self,
        graph: Graph,
        bind: BindMethod,
        scope: Scope,
        observer: ObserverBase[Event],
        inputs: Mapping[str, Any],
        max_method_calls: int,
        record: Record,
    ) -> None:
        self.subscriptions = CompositeDisposable()
        self._graph = graph
        self._waiting = graph.group_by_trigger()
        self._bind = bind
        self._scope = scope
        self._observer = observer
        self._inputs = inputs
        self._max_method_calls = max_method_calls
        self._record = record
        self._calls: Counter[str] = Counter()
        self._completed: set[str] = set()
        self._arrived: dict[str, set[str]] = {name: set() for name in graph.methods}
        self._fired: set[str] = set()  # or_ listeners that are not armed

    def begin(self) -> None:
        self._observer.on_next(FlowStarted(origin=self._scope.origin, inputs=self._inputs))
        entry_points = self._graph.entry_points
        whole = _Wave()
        whole.running = len(entry_points)
        for method in entry_points:
            self._call(method, (), _Wave(whole))

    def _call(
        self, method: Method, arguments: tuple[Any, ...], wave: _Wave, causes: frozenset[str] = frozenset()
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
        outcome: list[Any] = []
        emit = self._observer.on_next

        def on_next(event: Event) -> None:
            if not isinstance(event, StreamChunk):
                if isinstance(event, MethodFinished) and event.origin.namespace == namespace:
                    outcome.append(event.result)
                elif isinstance(event, LLMFinished | LLMFailed):
                    self._scope.note_shown(event)
            emit(event)

        def on_completed() -> None:
            self.subscriptions.remove(subscription)
            self._completed.add(method.name)
            self._complete(method, outcome[0], wave, causes)

        namespace = (*self._scope.origin.namespace, method.name)
        subscription = SingleAssignmentDisposable()
        self.subscriptions.add(subscription)
        source = run_method(self._scope, method, self._bind(method.name), arguments, self._read_payload(method))
        subscription.disposable = source.subscribe(on_next, self._fail, on_completed)

    def _read_payload(self, method: Method) -> dict[str, Any]:
        """Return the payload of a trigger as a keyword argument, if ``method`` asks for it and needs it."""
        payload = self._inputs.get(TRIGGER_PAYLOAD)
        if method.payload is None or (payload is None and method.payload.default is not method.payload.empty):
            return {}
        return {TRIGGER_PAYLOAD: payload}

    def _complete(self, method: Method, result: Any, wave: _Wave, causes: frozenset[str]) -> None:
        """Add a method's completion to its wave, and go on with the wave."""
        label = None
        if method.is_router:
            try:
                result = label = self._read_label(method, result)
            except Warning as error:  # the program has made warnings errors
                self._fail(error)
                return
        self._record.outputs.append(result)
        wave.add(_Occurrence(method.name, result, causes=causes))
        if label is not None:
            wave.add(_Occurrence(label, label, is_label=True, causes=causes))
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
        """Call the next router of the wave; its completion comes back here. After the last, call the listeners."""
        while wave.for_routers and not wave.due_routers:
            occurrence = wave.for_routers.pop(0)
            wave.due_routers += ((router, occurrence) for router in self._find_due_routers(wave, occurrence))
        if wave.due_routers:
            router, occurrence = wave.due_routers.pop(0)
            self._call(router, _build_arguments(router, occurrence), wave, occurrence.causes | {router.name})
        else:
            wave.fired_before = set(self._fired)
            self._run_listeners(wave)

    def _run_listeners(self, wave: _Wave) -> None:
        """Call the listeners that are due next. The last of them to be over comes back here, from a wave of its own."""
        while not self.subscriptions.is_disposed:
            if wave.for_listeners:
                occurrence = wave.for_listeners.pop(0)
                # All are found before any is called: a call may begin a new round of a cycle, and arm them for that.
                due = self._find_due_listeners(wave, occurrence)
                if due:
                    if len(due) == 1 and not wave.for_listeners and wave.parent is not None:
                        wave = wave.parent  # nothing else is left of it: a long cycle must not keep one for each round
                    else:
                        wave.running = len(due)
                    for method in due:
                        self._call(method, _build_arguments(method, occurrence), _Wave(wave))
                    return
            elif wave.parent is None:
                self._finish()
                return
            else:
                wave = wave.parent
                wave.running -= 1
                if wave.running:
                    return

    def _find_due_routers(self, wave: _Wave, occurrence: _Occurrence) -> list[Method]:
        """Return the routers that are due.

        One under ``or_`` runs once a wave, unless it has itself led to ``occurrence``: that is a cycle of routers.
        """
        due: list[Method] = []
        for router in self._waiting.get(occurrence.trigger, ()):
            if not _runs_first(router):
                continue
            is_repeated = router.name in wave.called_routers and router.name not in occurrence.causes
            if is_choice(router.condition) and is_repeated:
                continue
            if self._is_due(router, occurrence.trigger):
                wave.called_routers.add(router.name)
                due.append(router)
        return due

    def _find_due_listeners(self, wave: _Wave, occurrence: _Occurrence) -> list[Method]:
        """Return the listeners that are due, once the label has armed those under ``or_`` that name it.

        It arms one that fired before this wave. One that has fired since belongs to this wave, or to what that set off.
        """
        due: list[Method] = []
        for method in self._waiting.get(occurrence.trigger, ()):
            if _runs_first(method):
                continue
            if occurrence.is_label and method.name in wave.fired_before:
                wave.fired_before.remove(method.name)  # once a wave, however many of its labels it names
                self._fired.discard(method.name)
            if method.name not in self._fired and self._is_due(method, occurrence.trigger):
                due.append(method)
                if is_choice(method.condition):
                    self._fired.add(method.name)
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

    def _finish(self) -> None:
        outputs = self._record.outputs
        result = outputs[-1] if outputs else None
        self._observer.on_next(FlowFinished(origin=self._scope.origin, result=result, usage=self._scope.ledger.total))
        self._observer.on_completed()

    def _fail(self, error: Exception) -> None:
        # Siblings first: nothing may arrive after the announcement.
        self.subscriptions.dispose()
        self._observer.on_next(FlowFailed(origin=self._scope.origin, error=error))
        self._observer.on_error(error)


def _runs_first(method: Method) -> bool:
    """Whether it runs before the other methods of a wave. A start that is a router begins a wave of its own."""
    return method.is_router and not method.is_start


def _build_arguments(method: Method, occurrence: _Occurrence) -> tuple[Any, ...]:
    return (occurrence.result,) if method.takes_result else ()
