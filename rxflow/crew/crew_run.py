"""One run of a crew: its tasks as Observables, concatenated, neighbours with ``async_execution`` merged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, cast

import reactivex as rx
from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow.crew.plan import Inputs, Plan
from rxflow.crew.task import Task
from rxflow.crew.task_run import carry_out
from rxflow.crew.tool_use import ToolCache
from rxflow.streaming.bridge import from_coroutine
from rxflow.streaming.emitter import Emitter
from rxflow.streaming.scope import Scope
from rxflow.streaming.verbose import log_events
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import CrewFailed, CrewFinished, CrewStarted, Event, LLMFinished, TaskFinished
from rxflow.types.results import CrewOutput, TaskOutput
from rxflow.types.usage import UsageMetrics


class CrewRun:
    """The state of one run; made anew for each subscription."""

    def __init__(self, plan: Plan, scope: Scope, inputs: Inputs | None) -> None:
        self._plan = plan
        self._scope = scope.within(plan.name, crew_name=plan.name)
        self._inputs = inputs
        self._outputs: dict[str, TaskOutput] = {}
        self._usage = UsageMetrics()
        self._tool_cache = ToolCache()

    def observe(self) -> Observable[Event]:
        """Its events, :class:`CrewFinished` last. ::

        prepare   P|
        task 1      -a-b-|
        tasks 2,3         -c-d-c-|      (async_execution)
        finish                   F|
        result    P--a-b---c-d-c-F|
        """
        events = self._recorded(rx.concat_with_iterable(self._steps()))
        return log_events(events) if self._plan.verbose else events

    def _steps(self) -> Iterator[Observable[Event]]:
        """Each is made when it is due, because what a task is told depends on the answers before it."""
        yield from_coroutine(self._scope, self._prepare)
        for group in self._groups():
            started = [self._carried_out(index, task) for index, task in group]
            yield started[0] if len(started) == 1 else rx.merge(*started)
        yield from_coroutine(self._scope, self._finish)

    def _groups(self) -> Iterator[Sequence[tuple[int, Task]]]:
        for is_async, tasks in groupby(enumerate(self._plan.tasks), key=lambda each: each[1].async_execution):
            if is_async:
                yield list(tasks)
            else:
                yield from ([each] for each in tasks)

    def _carried_out(self, index: int, task: Task) -> Observable[Event]:
        assignment = self._plan.assignment(index, self._inputs, self._context_of(task), self._tool_cache)
        events = carry_out(self._scope, assignment)
        return log_events(events) if assignment.persona.agent.verbose and not self._plan.verbose else events

    def _context_of(self, task: Task) -> str:
        if task.takes_all_context:
            known = [self._outputs[each.id] for each in self._plan.tasks if each.id in self._outputs]
        else:
            known = [self._outputs[wanted.id] for wanted in task.context or ()]
        return "\n\n----------\n\n".join(output.raw for output in known)

    async def _prepare(self, emitter: Emitter) -> None:
        emitter.on_next(CrewStarted(origin=emitter.origin, inputs=self._inputs))
        if not self._plan.before_kickoff:
            return
        inputs = dict(self._inputs or {})  # callbacks may change it
        for callback in self._plan.before_kickoff:
            changed = await emitter.invoke(callback, inputs)
            if changed is None:
                continue
            if not isinstance(changed, Mapping):
                raise _wrong(callback, "before_kickoff", "the inputs", changed)
            inputs = dict(cast(Inputs, changed))
        if inputs or self._inputs is not None:  # with no inputs at all placeholders stay as they are
            self._inputs = inputs
        self._plan.check(self._inputs)  # before any task has run

    async def _finish(self, emitter: Emitter) -> None:
        in_order = [self._outputs[task.id] for task in self._plan.tasks]
        answers = [output for output in in_order if output.raw]
        if in_order and not answers:
            raise ValueError(
                "No valid task outputs available to create crew output: the answers of all tasks are empty"
            )
        last = answers[-1] if answers else None
        output = CrewOutput(
            raw=last.raw if last else "",
            pydantic=last.pydantic if last else None,
            json_dict=last.json_dict if last else None,
            tasks_output=in_order,
            token_usage=self._usage,
        )
        for callback in self._plan.after_kickoff:
            changed = await emitter.invoke(callback, output)
            if changed is None:
                continue
            if not isinstance(changed, CrewOutput):
                raise _wrong(callback, "after_kickoff", "a CrewOutput", changed)
            output = changed
        self._plan.keep_usage(output.token_usage)
        emitter.on_next(CrewFinished(origin=emitter.origin, result=output))

    def _recorded(self, events: Observable[Event]) -> Observable[Event]:
        """Notes answers and usage as they pass, and announces a failure before its terminal."""
        wanted = {task.id for task in self._plan.tasks}

        def subscribe(observer: ObserverBase[Event], scheduler: SchedulerBase | None = None) -> DisposableBase:
            emit = observer.on_next

            def on_next(event: Event) -> None:
                if not isinstance(event, StreamChunk):
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


def _wrong(callback: Callable[..., Any], when: str, what: str, returned: object) -> TypeError:
    name = getattr(callback, "__name__", repr(callback))
    return TypeError(
        f"the {when} callback {name} must return {what}, or None to change nothing; it returned {returned!r}"
    )
