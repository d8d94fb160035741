"""One run of a crew: its tasks as Observables, concatenated, neighbours with ``async_execution`` merged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Protocol

import reactivex as rx
from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow.crew.agent import Agent
from rxflow.crew.delegation import delegation_tools
from rxflow.crew.process import Process
from rxflow.crew.rate_limit import RateLimit
from rxflow.crew.task import Task
from rxflow.crew.task_run import carry_out
from rxflow.streaming.bridge import from_coroutine
from rxflow.streaming.emitter import Emitter
from rxflow.streaming.scope import Scope
from rxflow.streaming.verbose import log_events
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import CrewFailed, CrewFinished, CrewStarted, Event, LLMFinished, TaskFinished
from rxflow.types.results import CrewOutput, TaskOutput
from rxflow.types.usage import UsageMetrics


class Runnable(Protocol):
    """What a run needs to know of its crew."""

    agents: list[Agent]
    tasks: list[Task]
    process: Process
    verbose: bool
    name: str
    step_callback: Callable[[Any], Any] | None
    task_callback: Callable[[TaskOutput], Any] | None
    before_kickoff_callbacks: list[Callable[[Any], Any]]
    after_kickoff_callbacks: list[Callable[[CrewOutput], Any]]

    @property
    def manager(self) -> Agent: ...

    @property
    def rate(self) -> RateLimit | None: ...

    def check_inputs(self, inputs: Mapping[str, Any] | None) -> None: ...

    def keep_usage(self, usage: UsageMetrics) -> None: ...


class CrewRun:
    """The state of one run; made anew for each subscription."""

    def __init__(self, crew: Runnable, scope: Scope, inputs: Mapping[str, Any] | None) -> None:
        self._crew = crew
        self._scope = scope.within(crew.name, crew_name=crew.name)
        self._inputs = inputs
        self._outputs: dict[str, TaskOutput] = {}
        self._usage = UsageMetrics()

    def observe(self) -> Observable[Event]:
        """Its events, :class:`CrewFinished` last. ::

        prepare   P|
        task 1      -a-b-|
        tasks 2,3         -c-d-c-|      (async_execution)
        finish                   F|
        result    P--a-b---c-d-c-F|
        """
        steps = [
            from_coroutine(self._scope, self._prepare),
            *(self._later(list(group)) for group in self._groups()),
            from_coroutine(self._scope, self._finish),
        ]
        events = self._recorded(rx.concat(*steps))
        return log_events(events) if self._crew.verbose else events

    def _groups(self) -> Iterator[Sequence[tuple[int, Task]]]:
        for is_async, tasks in groupby(enumerate(self._crew.tasks), key=lambda each: each[1].async_execution):
            if is_async:
                yield list(tasks)
            else:
                yield from ([each] for each in tasks)

    def _later(self, group: Sequence[tuple[int, Task]]) -> Observable[Event]:
        # Deferred, because what a task is told depends on the answers before it.
        def begin(_: SchedulerBase) -> Observable[Event]:
            started = [self._carried_out(index, task) for index, task in group]
            return started[0] if len(started) == 1 else rx.merge(*started)

        return rx.defer(begin)

    def _carried_out(self, index: int, task: Task) -> Observable[Event]:
        crew = self._crew
        manages = crew.process is Process.hierarchical
        agent = crew.manager if manages or task.agent is None else task.agent
        coworkers = [other for other in crew.agents if other is not agent]
        delegates = bool(coworkers) and (manages or agent.allow_delegation)
        rates = [crew.rate] if crew.rate else []
        assignment = task.assigned(
            agent,
            self._inputs,
            index=index,
            context=self._context_of(task),
            extra_tools=delegation_tools(coworkers, self._inputs, rates) if delegates else (),
            callbacks=[crew.task_callback] if crew.task_callback else (),
            step_callback=crew.step_callback,
            rates=rates,
        )
        events = carry_out(self._scope, assignment)
        return log_events(events) if agent.verbose and not crew.verbose else events

    def _context_of(self, task: Task) -> str:
        if task.takes_all_context:
            known = [self._outputs[each.id] for each in self._crew.tasks if each.id in self._outputs]
        else:
            known = [self._outputs[wanted.id] for wanted in task.context or ()]
        return "\n\n----------\n\n".join(output.raw for output in known)

    async def _prepare(self, emitter: Emitter) -> None:
        emitter.on_next(CrewStarted(origin=emitter.origin, inputs=self._inputs))
        for callback in self._crew.before_kickoff_callbacks:
            changed = await emitter.invoke(callback, self._inputs)
            self._inputs = self._inputs if changed is None else changed
        if self._crew.before_kickoff_callbacks:
            self._crew.check_inputs(self._inputs)  # before any task has run

    async def _finish(self, emitter: Emitter) -> None:
        in_order = [self._outputs[task.id] for task in self._crew.tasks]
        last = in_order[-1] if in_order else None
        output = CrewOutput(
            raw=last.raw if last else "",
            pydantic=last.pydantic if last else None,
            json_dict=last.json_dict if last else None,
            tasks_output=in_order,
            token_usage=self._usage,
        )
        for callback in self._crew.after_kickoff_callbacks:
            changed = await emitter.invoke(callback, output)
            output = output if changed is None else changed
        self._crew.keep_usage(output.token_usage)
        emitter.on_next(CrewFinished(origin=emitter.origin, result=output))

    def _recorded(self, events: Observable[Event]) -> Observable[Event]:
        """Notes answers and usage as they pass, and announces a failure before its terminal."""
        wanted = {task.id for task in self._crew.tasks}

        def subscribe(observer: ObserverBase[Event], scheduler: SchedulerBase | None = None) -> DisposableBase:
            emit = observer.on_next

            def on_next(event: Event) -> None:
                if type(event) is not StreamChunk:
                    if isinstance(event, TaskFinished) and event.origin.task_id in wanted:
                        self._outputs[event.origin.task_id] = event.result
                    elif isinstance(event, LLMFinished):
                        self._usage += event.usage
                emit(event)

            def on_error(error: Exception) -> None:
                emit(CrewFailed(origin=self._scope.origin, error=error))
                observer.on_error(error)

            return events.subscribe(on_next, on_error, observer.on_completed, scheduler=scheduler)

        return Observable(subscribe)
