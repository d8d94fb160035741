"""One run of a crew: checks the plan, and then carries out the tasks, one after the other or several at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, cast
from uuid import uuid4

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow._copies import copy_values
from rxflow._streaming import (
    WAITS,
    Emitter,
    EventStream,
    Holder,
    RunPart,
    Scope,
    Unanswered,
    connect,
    end_with_pause,
    from_coroutine,
    log_events,
    merge_patiently,
    run_async,
)
from rxflow.crew._assignment import Assignment, LogFile, Persona, RateLimit
from rxflow.crew._task_run import carry_out
from rxflow.crew._tool_use import ToolCache, by_function_name
from rxflow.crew.agent import Agent
from rxflow.crew.task import Task
from rxflow.tools import BaseTool, FunctionTool
from rxflow.types import (
    CrewCancelled,
    CrewFailed,
    CrewFinished,
    CrewOutput,
    CrewStarted,
    Event,
    LLMCancelled,
    LLMFailed,
    LLMFinished,
    StreamChunk,
    TaskFinished,
    TaskOutput,
    UsageMetrics,
)

Inputs = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The agents, tasks and options of a crew at the start of a run. ``manager`` is None in a sequential crew."""

    name: str
    agents: Sequence[Agent]
    tasks: Sequence[Task]
    manager: Agent | None
    rate: RateLimit | None
    verbose: bool
    caches_tools: bool
    log_file: LogFile | None
    step_callback: Callable[[Any], Any] | None
    task_callback: Callable[[TaskOutput], Any] | None
    before_kickoff: Sequence[Callable[[Any], Any]]
    after_kickoff: Sequence[Callable[[CrewOutput], Any]]
    keep_usage: Callable[[UsageMetrics], None]

    def check(self, inputs: Inputs | None) -> None:
        """Raise errors that would otherwise stop the run halfway.

        Raises:
            ValueError: a task has no agent, ``inputs`` is given but has no value for a placeholder, an ``output_file``
                is not allowed, two tools for a task or two tools of a coworker have the same name, or two coworkers of
                an agent have the same role.
        """
        for index in range(len(self.tasks)):
            by_function_name(self.assignment(index, inputs).offered_tools)
        for agent in self.agents:
            Persona.of(agent, inputs)

    def check_context(self) -> None:
        """Raise ValueError if the ``context`` of a task names a task that is not in the crew and has no answer yet."""
        own = {task.id for task in self.tasks}
        for task in self.tasks:
            for wanted in task.context or ():
                if wanted.id not in own and wanted.output is None:
                    raise ValueError(
                        f"Task {shorten(task)} has a context dependency on {shorten(wanted)}, which is not in this "
                        "crew, and has no answer yet; run it first, or put it into tasks"
                    )

    def assignment(
        self, index: int, inputs: Inputs | None, context: str = "", tool_cache: ToolCache | None = None
    ) -> Assignment:
        """Return the assignment of the task at ``index``.

        If the crew has a manager, the assignment is for the manager. Otherwise, the assignment is for the task's agent.
        """
        task = self.tasks[index]
        agent = self.manager or task.agent
        if agent is None:
            raise ValueError(f"task {index} ({task.description[:40]!r}) has no agent; give it agent=…")
        coworkers = [other for other in self.agents if other is not agent]
        delegates = bool(coworkers) and (self.manager is not None or agent.allow_delegation)
        assignment = task.assign(
            agent,
            inputs,
            index=index,
            context=context,
            extra_tools=self._delegation_tools(coworkers, inputs, tool_cache) if delegates else (),
            callbacks=[self.task_callback] if self.task_callback else (),
            step_callback=self.step_callback,
            rates=self._rates,
            shows_payload=index == 0 and self.manager is None,
        )
        return self._with_cache(replace(assignment, log_file=self.log_file), tool_cache)

    @property
    def _rates(self) -> Sequence[RateLimit]:
        return [self.rate] if self.rate else []

    def _with_cache(self, assignment: Assignment, tool_cache: ToolCache | None) -> Assignment:
        caches = assignment.caches_tools and self.caches_tools
        return replace(assignment, caches_tools=caches, tool_cache=tool_cache)

    def _delegation_tools(
        self, coworkers: Sequence[Agent], inputs: Inputs | None, tool_cache: ToolCache | None
    ) -> Sequence[BaseTool]:
        return delegation_tools(
            coworkers,
            inputs,
            self._rates,
            self.step_callback,
            prepare=lambda assignment: self._with_cache(assignment, tool_cache),
        )


class CrewRun:
    """The state of one run, created for each subscription."""

    def __init__(self, plan: Plan, around: Scope, inputs: Inputs | None) -> None:
        self._plan = plan
        self.is_outermost = around.is_outermost
        scope = around.within(plan.name, crew_name=plan.name).with_own_ledger()
        self._is_verbose = plan.verbose and not around.is_logged
        self.scope = scope.mark_logged() if plan.verbose else scope
        self._inputs = inputs
        self._outputs: dict[int, TaskOutput] = {}  # by the index of the task, because ``tasks`` may have a task twice
        self._tool_cache = ToolCache()

    def observe(self) -> Observable[Event]:
        """Return an Observable of the events of the run.

        A run begins with :class:`CrewStarted`, ``P``. A completed run ends with :class:`CrewFinished`, ``F``. ::

            prepare   P|
            task 1      -a-b-|
            tasks 2,3         -c-d-c-|      (async_execution)
            finish                   F|
            result    P--a-b---c-d-c-F|
        """
        events = RunPart(self._subscribe)
        return log_events(events) if self._is_verbose else events

    def _subscribe(self, observer: ObserverBase[Event], scheduler: SchedulerBase | None = None) -> DisposableBase:
        running = _Running(self, self._steps(), observer)
        running.on_completed()
        return running

    def _steps(self) -> Iterator[Observable[Event]]:
        """Yield an Observable for each step of the run.

        An Observable is created only after the step before it has ended, because a task gets the answers of earlier
        tasks.
        """
        yield from_coroutine(self.scope, self._prepare)
        for group in self._groups():
            started = [self._carry_out(index, task) for index, task in group]
            yield merge_patiently(started)
        yield from_coroutine(self.scope, self._finish)

    def _groups(self) -> Iterator[Sequence[tuple[int, Task]]]:
        for is_async, tasks in groupby(enumerate(self._plan.tasks), key=lambda each: each[1].async_execution):
            if is_async:
                yield list(tasks)
            else:
                yield from ([each] for each in tasks)

    def _carry_out(self, index: int, task: Task) -> Observable[Event]:
        assignment = self._plan.assignment(index, self._inputs, self._context_of(task), self._tool_cache)
        events = carry_out(self.scope, assignment)
        return log_events(events) if assignment.persona.agent.verbose and not self.scope.is_logged else events

    def _context_of(self, task: Task) -> str:
        if task.takes_all_context:
            known = [output for _, output in sorted(self._outputs.items())]
        else:
            newest = {self._plan.tasks[index].id: output for index, output in sorted(self._outputs.items())}
            # A task of another crew is not in ``newest``. Its ``output`` has the answer; see check_context().
            wanted = [newest.get(each.id, each.output) for each in task.context or ()]
            known = [output for output in wanted if output is not None]
        return "\n\n----------\n\n".join(output.raw for output in known)

    async def _prepare(self, emitter: Emitter) -> None:
        emitter.on_next(CrewStarted(origin=emitter.origin, inputs=self._inputs))
        self._plan.check_context()
        if not self._plan.before_kickoff:
            return
        inputs = copy_values(self._inputs or {})  # because callbacks may change the dict, and the lists in it
        for callback in self._plan.before_kickoff:
            changed = await emitter.invoke(callback, inputs)
            if changed is None:
                continue
            if not isinstance(changed, Mapping):
                raise _wrong(callback, "before_kickoff", "the inputs", changed)
            inputs = dict(cast(Inputs, changed))
        if inputs or self._inputs is not None:  # otherwise the inputs stay None: no placeholder is filled in
            self._inputs = inputs
        self._plan.check(self._inputs)  # checked only now, because the callbacks may have added inputs

    async def _finish(self, emitter: Emitter) -> None:
        in_order = [self._outputs[index] for index in range(len(self._plan.tasks))]
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
            token_usage=self.scope.ledger.total,
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

    def note(self, event: Event) -> None:
        """Store the answer from a TaskFinished, or the usage from the end of an LLM call."""
        if isinstance(event, TaskFinished):
            index = event.origin.task_index
            if (
                index < len(self._plan.tasks) and event.origin.task_id == self._plan.tasks[index].id
            ):  # False for delegated work, which has a task_id of its own
                self._outputs[index] = event.result
        elif isinstance(event, LLMFinished | LLMFailed | LLMCancelled):
            self.scope.note_shown(event)


class _Running(Holder, ObserverBase[Event]):
    """One subscription to a run. It subscribes to the steps of the run, one after the other.

    If a step fails, CrewFailed is emitted before the error. If a question in a step gets no answer, the crew is paused:
    CrewCancelled ends the crew's span, and FlowPaused follows.
    """

    __slots__ = ("_is_over", "_observer", "_run", "_steps")

    def __init__(self, run: CrewRun, steps: Iterator[Observable[Event]], observer: ObserverBase[Event]) -> None:
        super().__init__()
        self._run = run
        self._steps = steps
        self._observer = observer
        self._is_over = False

    def on_next(self, value: Event) -> None:
        if type(value) is not StreamChunk:
            self._run.note(value)
        self._observer.on_next(value)

    def on_error(self, error: BaseException) -> None:
        self._is_over = True
        scope = self._run.scope
        if isinstance(error, Unanswered):
            self._observer.on_next(CrewCancelled(origin=scope.origin, reason=WAITS))
            end_with_pause(self._observer, scope.origin, error, self._run.is_outermost)
            return
        self._observer.on_next(CrewFailed(origin=scope.origin, error=error))
        self._observer.on_error(error)  # type: ignore[arg-type]  # RxPY's type excludes BaseException

    def on_completed(self) -> None:
        """Subscribe to the next step. When all steps have ended, complete the stream.

        Calls of this method never nest: a step never ends in the iteration of the event loop in which it begins.
        """
        if self.is_disposed:
            return
        try:
            step = next(self._steps, None)
        except Exception as error:  # noqa: BLE001 - the error is the stream's terminal
            self.on_error(error)
            return
        if step is not None:
            self.hold(connect(step, self))
            return
        self._is_over = True
        self._observer.on_completed()

    def dispose(self) -> None:
        if not self._is_over:
            scope = self._run.scope
            scope.run.note_stopped(scope.origin.span_id)
        super().dispose()


def shorten(task: Task) -> str:
    """Return the task's name, or the beginning of its description, for error messages."""
    return repr(task.name or task.description[:40])


def _wrong(callback: Callable[..., Any], when: str, what: str, returned: object) -> TypeError:
    name = getattr(callback, "__name__", repr(callback))
    return TypeError(f"the {when} callback {name} must return {what}, or None for no change; it returned {returned!r}")


def delegation_tools(
    coworkers: Sequence[Agent],
    inputs: Mapping[str, Any] | None,
    rates: Sequence[RateLimit] = (),
    step_callback: Callable[[Any], Any] | None = None,
    prepare: Callable[[Assignment], Assignment] = lambda assignment: assignment,
) -> list[BaseTool]:
    """Create two tools: one delegates work to a coworker, the other asks a coworker a question.

    The chunks of the coworkers are part of the run's stream. ``prepare`` gets each assignment of a coworker, and
    returns the assignment to carry out. A crew uses ``prepare`` to add the tool cache of the run.

    Raises:
        ValueError: two coworkers have the same role, or two tools of a coworker have the same name.
    """
    personas: dict[str, Persona] = {}
    for persona in (Persona.of(agent, inputs) for agent in coworkers):
        if personas.setdefault(_key(persona.role), persona) is not persona:
            raise ValueError(
                f"two coworkers have the role {persona.role!r}, so delegation could not choose between them; "
                "give one of them another role"
            )
    names = ", ".join(persona.role for persona in personas.values())

    def assign(persona: Persona, what: str = "", context: str = "", expected: str = "") -> Assignment:
        return Assignment(
            persona=persona,
            description=what,
            expected_output=expected,
            task_id=str(uuid4()),
            context=context,
            tools=persona.agent.tools,
            guardrails=[] if persona.agent.guardrail is None else [persona.agent.guardrail],
            guardrail_max_retries=persona.agent.guardrail_max_retries,
            step_callback=persona.agent.step_callback or step_callback,
            rates=[rate for rate in (persona.agent.rate, *rates) if rate is not None],
            caches_tools=persona.agent.cache,
        )

    for persona in personas.values():
        by_function_name(assign(persona).offered_tools)

    async def hand_over(coworker: str, what: str, context: str, expected: str) -> str:
        persona = personas.get(_key(coworker))
        if persona is None:
            raise LookupError(f"there is no coworker {coworker!r}; the coworkers are: {names}")
        assignment = prepare(assign(persona, what, context, expected))
        finished = await run_async(EventStream(lambda scope: carry_out(scope, assignment)), TaskFinished)
        return finished.result.raw

    async def delegate_work_to_coworker(task: str, context: str, coworker: str) -> str:
        return await hand_over(coworker, task, context, "Your best answer to the work given to you")

    async def ask_question_to_coworker(question: str, context: str, coworker: str) -> str:
        return await hand_over(coworker, question, context, "Your best answer to the question")

    said = f"The coworkers are: {names}. They know nothing of your task: give them all the context they need."
    return [
        FunctionTool(
            name="delegate_work_to_coworker",
            description=f"Delegate a piece of work to a coworker. {said}",
            func=delegate_work_to_coworker,
        ),
        FunctionTool(
            name="ask_question_to_coworker",
            description=f"Ask a coworker a question. {said}",
            func=ask_question_to_coworker,
        ),
    ]


def _key(role: str) -> str:
    return " ".join(role.split()).casefold()
