"""One run of a flow: merges the events of the methods along the graph.

Each call of a method is an Observable. When a call completes, the calls that it triggers are merged in. RxPY's
``expand`` would subscribe to another Observable for each item, and a method may emit thousands of chunks. So rxflow has
its own merge, which looks for more methods only when a method completes.

A completed method and the routers that it triggers are a *wave*. The routers run first, one after the other. If the
name or label of a router triggers another router, the other router also belongs to the wave. When all routers of the
wave have run, the listeners follow in groups:

1. The first group is the methods that wait for the completed method. They run at the same time, with everything that
   they trigger.
2. When all of that is over, the second group runs: the methods that wait for the first router.
3. The third group is the methods that wait for the label of the first router. Each further router has two groups too.

So the speed of methods does not decide which methods run in a wave, or how often. The waves of several start methods
run at the same time. The waves of several listeners that wait for the same method also run at the same time.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow._copies import copy_value, copy_values
from rxflow._options import TRIGGER_PAYLOAD
from rxflow._streaming import (
    Emitter,
    Holder,
    NotResumable,
    Owned,
    RunPart,
    Scope,
    Unanswered,
    UsageLedger,
    connect,
    end_with_pause,
    from_coroutine,
    stopping,
)
from rxflow._text import describe
from rxflow.flow._graph import Graph, Method
from rxflow.flow._labels import read_label
from rxflow.flow._method_run import Complete, Replay, name_kind, run_method
from rxflow.flow._waves import DueMethods, Occurrence, Wave
from rxflow.types import (
    Event,
    FlowFailed,
    FlowFinished,
    FlowStarted,
    HumanFeedbackResult,
    LLMCancelled,
    LLMFailed,
    LLMFinished,
    MethodFinished,
    MethodStarted,
    StreamChunk,
)

BindMethod = Callable[[str], Callable[..., Any]]
Prepare = Callable[[Emitter], Awaitable[None]]


@dataclass(slots=True)
class Record:
    """What one run stores for its flow: ``outputs`` are the results of methods, in order of completion."""

    outputs: list[Any] = field(default_factory=list[Any])
    feedback: list[HumanFeedbackResult] = field(default_factory=list[HumanFeedbackResult])
    ledger: UsageLedger = field(default_factory=UsageLedger)
    # The state in the last StateChanged event. Before the first such event, it is the state at the start of the run.
    state: dict[str, Any] = field(default_factory=dict[str, Any])


def merge_along(
    graph: Graph,
    bind: BindMethod,
    scope: Scope,
    *,
    inputs: Mapping[str, Any],
    max_method_calls: int,
    record: Record,
    prepare: Prepare | None,
    complete: Complete | None,
    held: DisposableBase,
) -> Observable[Event]:
    """Return the events of a run. The run stores its outcome in ``record``.

    ``prepare`` is awaited before the first method. ``complete`` is awaited after each method, with the method's return
    value. ``held`` is disposed when the run ends.

    The diagram shows MethodStarted events as capitals, and chunks as small letters. Other events are left out. ::

        start     S-a-b|
        router          R|                  (waits for start; its label is "another")
        one               O-c---d|          (waits for start)
        two               T---e|            (waits for start)
        last                     A-f|       (waits for the label "another")
        result    S-a-b-R-OTc-e-dA-f|
    """

    def subscribe(observer: ObserverBase[Event], scheduler: SchedulerBase | None = None) -> DisposableBase:
        run = _FlowRun(graph, bind, scope, observer, inputs, max_method_calls, record, complete)
        run.subscriptions.add(held)
        try:
            run.begin(prepare)
        except BaseException:
            run.subscriptions.dispose()
            raise
        return run

    return RunPart(subscribe)


class _FlowRun(DisposableBase):
    """The state of one run.

    Only :meth:`dispose` may be called in another thread. All other methods run on the run's loop, so no lock is needed.
    """

    def __init__(
        self,
        graph: Graph,
        bind: BindMethod,
        scope: Scope,
        observer: ObserverBase[Event],
        inputs: Mapping[str, Any],
        max_method_calls: int,
        record: Record,
        complete: Complete | None,
    ) -> None:
        self.subscriptions = Owned()
        self.running_parts = 0
        self._graph = graph
        self._due = DueMethods(graph)
        self._bind = bind
        self._scope = scope
        self._observer = observer
        self._inputs = inputs
        self._max_method_calls = max_method_calls
        self._record = record
        self._complete_method = complete
        self._calls: Counter[str] = Counter()
        self._is_over = False
        self._unanswered: list[Unanswered] = []
        self._replay = None if scope.run.journal is None else Replay(scope.run.journal, graph, scope.step)

    def begin(self, prepare: Prepare | None) -> None:
        is_replayed = self._replay is not None and self._replay.has_begun
        inputs = copy_values(self._inputs)  # a method may change the lists in the inputs, but must not change the event
        self._observer.on_next(FlowStarted(origin=self._scope.origin, inputs=inputs, replayed=is_replayed))
        if prepare is None:
            self._call_entry_points()
            return
        self._run_part(from_coroutine(self._scope, prepare), lambda event: None, self._call_entry_points)

    def _run_part(
        self, source: Observable[Event], note: Callable[[Event], None], on_completed: Callable[[], None]
    ) -> None:
        part = _Part(self, self._observer, note, on_completed)
        self.running_parts += 1
        self.subscriptions.add(part)
        part.hold(connect(source, part))

    def dispose(self) -> None:
        """Stop the run if it has not ended. May be called in any thread."""
        if not self._is_over:
            self._scope.run.note_stopped(self._scope.origin.span_id)
        self.subscriptions.dispose()

    def _call_entry_points(self) -> None:
        entry_points = self._graph.entry_points
        whole = Wave()
        whole.running = len(entry_points)
        for method in entry_points:
            self._call(method, (), Wave(whole))
        if self._replay is not None:
            try:
                self._replay.run()
            except NotResumable as error:
                self.fail(error)

    def _call(
        self,
        method: Method,
        arguments: tuple[Any, ...],
        wave: Wave,
        triggers: tuple[str, ...] = (),
        causes: frozenset[str] = frozenset(),
    ) -> None:
        """Call ``method``, and merge the events of the call into the run.

        When the call completes, :meth:`_complete` adds the completion to ``wave``.

        ``triggers`` are the method names and labels that met the condition of ``method``. If ``method`` is a router of
        the wave, ``causes`` has the name of ``method``, and the names of the routers that led to this call within the
        wave. Otherwise ``causes`` is empty.
        """
        if self.subscriptions.is_disposed:
            return
        self._calls[method.name] += 1
        if self._calls[method.name] > self._max_method_calls:
            self.fail(
                RecursionError(
                    f"{self._graph.name}.{method.name} was called more than max_method_calls="
                    f"{self._max_method_calls} times in one run; raise it if the cycle is meant"
                )
            )
            return
        self._due.note_call(method.name)
        outcome: list[MethodFinished] = []
        results: list[Any] = []  # the object itself, which the event has a copy of

        def take(result: Any) -> None:
            if self._replay is not None:
                self._replay.require_result(method.name, result)
            results.append(result)

        def note(event: Event) -> None:
            if isinstance(event, MethodFinished) and event.origin.namespace == namespace:
                outcome.append(event)
            elif isinstance(event, LLMFinished | LLMFailed | LLMCancelled):
                self._scope.note_shown(event)

        def on_completed() -> None:
            self._due.note_completion(method.name)
            self._complete(method, results[0], outcome[0].label, wave, causes)

        scope = self._scope
        if self._replay is not None:
            step = (*scope.step, f"{method.name}#{self._calls[method.name] - 1}")
            scope = replace(scope, step=step)
            if self._replay.takes(step, partial(self._repeat, scope, method, wave, causes, triggers)):
                return
        namespace = (*self._scope.origin.namespace, method.name)
        source = run_method(
            scope,
            method,
            self._bind(method.name),
            arguments,
            self._read_payload(method),
            triggered_by=triggers,
            complete=self._complete_method,
            take=take,
        )
        self._run_part(source, note, on_completed)

    def _repeat(
        self,
        scope: Scope,
        method: Method,
        wave: Wave,
        causes: frozenset[str],
        triggers: tuple[str, ...],
        finished: MethodFinished,
    ) -> None:
        """Emit MethodStarted and MethodFinished for a call that had finished before the run was resumed.

        Then continue as after a new call.
        """
        origin = scope.within(method.name, flow_method=method.name).origin
        started = MethodStarted(origin=origin, kind=name_kind(method), triggered_by=triggers, replayed=True)
        self._observer.on_next(started)
        self._observer.on_next(replace(finished, origin=origin, replayed=True))
        if isinstance(finished.result, HumanFeedbackResult):
            self._record.feedback.append(finished.result)
        self._due.note_completion(method.name)
        # The log cannot restore every result, so a restored result may have another label. The log has no label if the
        # method was not a router when it finished.
        label = read_label(finished.result) if finished.label is None else finished.label
        self._complete(method, copy_value(finished.result), label, wave, causes)

    def _read_payload(self, method: Method) -> dict[str, Any]:
        """Return the trigger payload as a keyword argument for ``method``.

        If the method has no parameter for the payload, return an empty dict. If the inputs have no payload, a parameter
        with a default keeps its default, and a parameter without a default gets None.
        """
        payload = self._inputs.get(TRIGGER_PAYLOAD)
        if method.payload is None or (payload is None and method.payload.default is not method.payload.empty):
            return {}
        return {TRIGGER_PAYLOAD: payload}

    def _complete(self, method: Method, result: Any, label: str | None, wave: Wave, causes: frozenset[str]) -> None:
        """Add the completion of ``method`` to ``wave``, and continue the wave. ``label`` counts only for routers."""
        payload: Any = None
        reviewed = result if method.feedback is not None and isinstance(result, HumanFeedbackResult) else None
        if method.is_router and reviewed is not None and reviewed.outcome is not None:
            # Listeners of the label get the HumanFeedbackResult. Listeners of the method, and the list of outputs, get
            # the value that the method returned.
            payload, result = result, reviewed.output
        elif method.is_router:
            try:
                self._warn_if_not_awaited(method, result, label)
            except Warning as error:  # the program turns warnings into errors
                self.fail(error)
                return
            result = payload = label if reviewed is None else reviewed
        self._record.outputs.append(result)
        wave.add(Occurrence(method.name, result, causes=causes))
        if method.is_router and label is not None:
            wave.add(Occurrence(label, payload, is_label=True, causes=causes))
        self._run_routers(wave)

    def _warn_if_not_awaited(self, router: Method, outcome: Any, label: str | None) -> None:
        """Warn if no method waits for the label, and none waits for the router itself. ``outcome`` had the label."""
        if label is None or self._due.is_awaited(label) or self._due.is_awaited(router.name):
            return
        where = f"{self._graph.name}.{router.name} returned"
        if isinstance(outcome, list | tuple | set | frozenset):
            warnings.warn(f"{where} {outcome!r}; a router must return one label, so no method follows", stacklevel=1)
        else:
            warnings.warn(
                f"{where} {label!r}, a label that no method waits for; return None if no method should follow",
                stacklevel=1,
            )

    def _run_routers(self, wave: Wave) -> None:
        """Call the next router of the wave. If no router is left, call the listeners.

        When the router completes, :meth:`_complete` calls :meth:`_run_routers` again.
        """
        while wave.for_routers and not wave.due_routers:
            occurrence = wave.for_routers.pop(0)
            due = self._due.find_routers(wave, occurrence)
            wave.due_routers += ((router, occurrence, triggers) for router, triggers in due)
        if wave.due_routers:
            router, occurrence, triggers = wave.due_routers.pop(0)
            causes = occurrence.causes | {router.name}
            self._call(router, _build_arguments(router, occurrence), wave, triggers, causes)
        else:
            self._due.note_routers_over(wave)
            self._run_listeners(wave)

    def _run_listeners(self, wave: Wave) -> None:
        """Call the listeners that are due after the next occurrence of ``wave``.

        Each listener begins a wave of its own. When all of these waves are over, ``wave`` continues with its next
        occurrence. When no occurrence is left, ``wave`` is over. The parent of ``wave`` continues as soon as no other
        wave with this parent is running. Only the outermost wave has no parent: it is the parent of the waves of the
        start methods. When the outermost wave is over, the run finishes.
        """
        while not self.subscriptions.is_disposed:
            if wave.for_listeners:
                occurrence = wave.for_listeners.pop(0)
                # Find all due listeners before calling one, because a call may begin a new round of a cycle, in which
                # more listeners are due.
                due = self._due.find_listeners(wave, occurrence)
                if due:
                    if len(due) == 1 and not wave.for_listeners and wave.parent is not None:
                        # This wave has nothing else left to do, so the parent of the new wave is this wave's parent.
                        # Otherwise a long cycle would keep a wave in memory for each round.
                        wave = wave.parent
                    else:
                        wave.running = len(due)
                    for method, triggers in due:
                        self._call(method, _build_arguments(method, occurrence), Wave(wave), triggers)
                    return
            elif wave.parent is None:
                self._finish()
                return
            else:
                wave = wave.parent
                wave.running -= 1
                if wave.running:
                    return

    def _finish(self) -> None:
        outputs = self._record.outputs
        result = outputs[-1] if outputs else None
        self._is_over = True
        ledger = self._scope.ledger
        self._observer.on_next(
            FlowFinished(origin=self._scope.origin, result=result, usage=ledger.total, cost=ledger.cost)
        )
        self.subscriptions.dispose()
        self._observer.on_completed()

    def wait_for_answers(self, error: Unanswered) -> None:
        """Record that a part of the run waits for answers. The other parts continue until they end."""
        self._unanswered.append(error)

    def pause_if_only_questions_are_left(self) -> None:
        if self._unanswered and not self.running_parts and not self.subscriptions.is_disposed:
            self._is_over = True
            self.subscriptions.dispose()
            is_outermost = not self._scope.origin.parent_span_id
            end_with_pause(self._observer, self._scope.origin, Unanswered.join(self._unanswered), is_outermost)

    def fail(self, error: BaseException) -> None:
        self._is_over = True
        # Dispose the other methods first: they must emit nothing after FlowFailed.
        with stopping(f"another method failed: {describe(error)}"):
            self.subscriptions.dispose()
        self._observer.on_next(FlowFailed(origin=self._scope.origin, error=error))
        self._observer.on_error(error)  # type: ignore[arg-type]  # RxPY's type excludes BaseException


class _Part(Holder, ObserverBase[Event]):
    """The subscription to one call of a method, or to the coroutine that prepares the run.

    ``note`` is called with each event that is not a StreamChunk.
    """

    __slots__ = ("_note", "_observer", "_on_completed", "_run")

    def __init__(
        self,
        run: _FlowRun,
        observer: ObserverBase[Event],
        note: Callable[[Event], None],
        on_completed: Callable[[], None],
    ) -> None:
        super().__init__()
        self._run = run
        self._observer = observer
        self._note = note
        self._on_completed = on_completed

    def on_next(self, value: Event) -> None:
        if type(value) is not StreamChunk:
            self._note(value)
        self._observer.on_next(value)

    def on_error(self, error: BaseException) -> None:
        if not isinstance(error, Unanswered):
            self._run.fail(error)
            return
        self._run.wait_for_answers(error)
        self._end()

    def on_completed(self) -> None:
        self._end(self._on_completed)

    def _end(self, go_on: Callable[[], None] = lambda: None) -> None:
        self._run.subscriptions.remove(self)
        self._run.running_parts -= 1
        go_on()
        self._run.pause_if_only_questions_are_left()


def _build_arguments(method: Method, occurrence: Occurrence) -> tuple[Any, ...]:
    return (occurrence.result,) if method.takes_result else ()
