"""``Crew``: agents and the tasks they carry out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, ClassVar, Self, cast

from pydantic import Field, PrivateAttr, model_validator

from rxflow._options import Configurable, Switch
from rxflow.crew.agent import Agent
from rxflow.crew.assignment import PLACEHOLDER
from rxflow.crew.crew_run import CrewRun, Inputs, Plan
from rxflow.crew.rate_limit import RateLimit, limit_of
from rxflow.crew.task import Task
from rxflow.llm.base_llm import Model
from rxflow.streaming.bridge import all_of
from rxflow.streaming.kickoff import run_async, run_blocking
from rxflow.streaming.observable import EventStream, chunks
from rxflow.streaming.output import CrewStreamingOutput
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import CrewFinished, Event
from rxflow.types.results import CrewOutput, TaskOutput
from rxflow.types.usage import UsageMetrics


class Process(StrEnum):
    """Sequential: each task by its own agent. Hierarchical: a manager hands the tasks out."""

    sequential = "sequential"
    hierarchical = "hierarchical"


class Crew(Configurable):
    """Runs tasks one after the other, neighbours with ``async_execution`` at once.

    Args:
        agents, tasks: who works on what.
        process: sequential, or hierarchical with ``manager_llm`` or ``manager_agent``.
        stream: ``kickoff`` gives a :class:`CrewStreamingOutput` in place of the result.
        verbose: show what happens, on standard error: see :mod:`rxflow.streaming.verbose`.
        max_rpm: LLM calls a minute of all agents together, those that judge answers included.
        step_callback: called after each turn with a model and each tool.
        task_callback: called with the :class:`TaskOutput` of each task.
        before_kickoff_callbacks: ``fn(inputs) -> inputs``, in order, before the placeholders are filled; ``inputs`` is
            a dict of this run's own, empty where none were given, and may be changed.
        after_kickoff_callbacks: ``fn(CrewOutput) -> CrewOutput``.
        cache: in one run, the same call to the same tool is carried out once, whichever agent makes it.

    What cannot work is a ValueError when the crew is built.
    """

    kind: ClassVar[str] = "Crew"

    agents: list[Agent] = Field(default_factory=list[Agent])
    tasks: list[Task] = Field(default_factory=list[Task])
    process: Process = Process.sequential
    stream: bool = False
    manager_llm: Model | None = None
    manager_agent: Agent | None = None
    verbose: Switch = False
    max_rpm: int | None = Field(default=None, gt=0)
    step_callback: Callable[[Any], Any] | None = None
    task_callback: Callable[[TaskOutput], Any] | None = None
    before_kickoff_callbacks: list[Callable[[Any], Any]] = Field(default_factory=list[Callable[[Any], Any]])
    after_kickoff_callbacks: list[Callable[[CrewOutput], Any]] = Field(
        default_factory=list[Callable[[CrewOutput], Any]]
    )
    cache: bool = True
    name: str = "crew"
    _rate: RateLimit | None = PrivateAttr(default=None)
    _usage: UsageMetrics = PrivateAttr(default_factory=UsageMetrics)

    def model_post_init(self, context: Any, /) -> None:
        self._rate = limit_of(self.max_rpm, None)

    @model_validator(mode="after")
    def _can_work(self) -> Self:
        if not {"agents", "tasks"} & self.model_fields_set:
            raise ValueError("Crew needs agents and tasks; give it agents=[…] and tasks=[…]")
        if self.process is Process.hierarchical:
            self._check_manager()
        else:
            for index, task in enumerate(self.tasks):
                if task.agent is None:
                    raise ValueError(f"task {index} ({task.description[:40]!r}) has no agent; give it agent=…")
        self._check_order()
        self._plan().check(None)
        return self

    def _check_manager(self) -> None:
        if self.manager_agent is None and self.manager_llm is None:
            raise ValueError("a hierarchical crew needs manager_llm or manager_agent")
        if self.manager_agent is not None:
            if any(agent is self.manager_agent for agent in self.agents):
                raise ValueError("manager_agent cannot be one of the agents that it manages; take it out of agents")
            if self.manager_agent.tools:
                raise ValueError("manager_agent cannot have tools of its own: it works by delegating")

    def _check_order(self) -> None:
        position = {task.id: index for index, task in enumerate(self.tasks)}
        for index, task in enumerate(self.tasks):
            for wanted in task.context or ():
                at = position.get(wanted.id)
                if at is None or at >= index:
                    raise ValueError(
                        f"task {index} ({task.description[:40]!r}) takes its context from a task that comes later or "
                        f"is not in this crew: {wanted.description[:40]!r}"
                    )
                if task.async_execution and all(t.async_execution for t in self.tasks[at:index]):
                    raise ValueError(
                        f"task {index} ({task.description[:40]!r}) runs at the same time as the task that it takes "
                        f"its context from: {wanted.description[:40]!r}"
                    )
        if len(self.tasks) > 1 and all(task.async_execution for task in self.tasks[-2:]):
            raise ValueError(
                "at most one task at the end may have async_execution; the crew has to end with one answer"
            )

    def copy(self) -> Self:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """Another crew with agents and tasks of its own, so that the two share no results."""
        agents: dict[int, Agent] = {}
        tasks: dict[int, Task] = {}

        def copy_of(agent: Agent | None) -> Agent | None:
            return None if agent is None else agents.setdefault(id(agent), agent.copy())

        for task in self.tasks:
            update: dict[str, Any] = {"agent": copy_of(task.agent)}
            if task.context:
                update["context"] = [tasks[id(wanted)] for wanted in task.context]
            tasks[id(task)] = task.model_copy(update=update)
        return self.model_copy(
            update={
                "agents": [copy_of(agent) for agent in self.agents],
                "tasks": list(tasks.values()),
                "manager_agent": copy_of(self.manager_agent),
            }
        )

    def _renew(self) -> None:
        super()._renew()
        self._rate = limit_of(self.max_rpm, None)
        self._usage = UsageMetrics()

    @property
    def usage_metrics(self) -> UsageMetrics:
        """The tokens of the last run that completed."""
        return self._usage

    def fetch_inputs(self) -> set[str]:
        """The names of all inputs that the texts of its agents and tasks ask for."""
        texts = [text for agent in self.agents for text in (agent.role, agent.goal, agent.backstory)]
        texts += [
            text for task in self.tasks for text in (task.description, task.expected_output, task.output_file or "")
        ]
        return {name for text in texts for name in PLACEHOLDER.findall(text)}

    def events(self, inputs: Inputs | None = None) -> EventStream[Event]:
        """A cold Observable of everything that happens; each subscription is a run of its own.

        Raises:
            ValueError: a placeholder has no input.
            TypeError: ``inputs`` is no mapping.
        """
        plan = self._plan()
        given = _checked(plan, inputs)
        return EventStream(lambda scope: CrewRun(plan, scope, given).observe())

    def observe(self, inputs: Inputs | None = None) -> EventStream[StreamChunk]:
        """A cold Observable of the chunks of all tasks. ::

        task 1    -he-ll-o|
        task 2             -wo-rld|
        result    -he-ll-o--wo-rld|
        """
        return self.events(inputs).select(chunks)

    def stream_chunks(self, inputs: Inputs | None = None) -> CrewStreamingOutput:
        """Run the crew as chunks, whatever ``stream`` says; the first pull starts it.

        Raises:
            ValueError: a placeholder has no input.
        """
        return CrewStreamingOutput(source=self.events(inputs))

    def kickoff(self, inputs: Inputs | None = None) -> Any:
        """Run to the end: a :class:`CrewOutput`, or with ``stream`` a :class:`CrewStreamingOutput` at once.

        Inside a flow its chunks are in the flow's stream too.
        """
        if self.stream:
            return self.stream_chunks(inputs)
        return run_blocking(self.events(inputs), CrewFinished).result

    async def kickoff_async(self, inputs: Inputs | None = None) -> Any:
        """:meth:`kickoff` for async code."""
        if self.stream:
            return self.stream_chunks(inputs)
        return (await run_async(self.events(inputs), CrewFinished)).result

    akickoff = kickoff_async

    def kickoff_for_each(self, inputs: Sequence[Inputs]) -> list[Any]:
        """:meth:`kickoff` for each of ``inputs``, one after the other."""
        self._check_all(inputs)
        return [self.kickoff(each) for each in inputs]

    async def kickoff_for_each_async(self, inputs: Sequence[Inputs]) -> list[Any]:
        """The same for async code, all at once."""
        self._check_all(inputs)
        return await all_of(self.kickoff_async(each) for each in inputs)

    def _check_all(self, inputs: Sequence[Inputs]) -> None:
        """Raise before the first run what would stop a later one."""
        plan = self._plan()
        for each in inputs:
            _checked(plan, each)

    def _plan(self) -> Plan:
        """The crew as it is now."""
        self._rate = limit_of(self.max_rpm, self._rate)
        return Plan(
            name=self.name,
            agents=tuple(self.agents),
            tasks=tuple(self.tasks),
            manager=self._manager() if self.process is Process.hierarchical else None,
            rate=self._rate,
            verbose=self.verbose,
            caches_tools=self.cache,
            step_callback=self.step_callback,
            task_callback=self.task_callback,
            before_kickoff=tuple(self.before_kickoff_callbacks),
            after_kickoff=tuple(self.after_kickoff_callbacks),
            keep_usage=self._keep_usage,
        )

    def _manager(self) -> Agent:
        return self.manager_agent or _MANAGER.model_copy(update={"llm": self.manager_llm})

    def _keep_usage(self, usage: UsageMetrics) -> None:
        self._usage = usage


def _checked(plan: Plan, inputs: object) -> Inputs | None:
    """A copy of ``inputs``, complete unless callbacks may still fill in what is missing."""
    if inputs is not None and not isinstance(inputs, Mapping):
        raise TypeError(f"inputs are a mapping of names to values, {{'topic': …}} for instance; got {inputs!r}")
    given = None if inputs is None else dict(cast(Inputs, inputs))
    if not plan.before_kickoff:
        plan.check(given)
    return given


_MANAGER = Agent(
    role="Crew Manager",
    goal="Get the crew's tasks done well by handing them to the coworkers who can do them best",
    backstory="An experienced manager who knows what each coworker is good at, and checks what they deliver",
)
