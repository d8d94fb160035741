"""``Crew``: agents, and the tasks that they carry out."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any, ClassVar, Self, cast

from pydantic import Field, PrivateAttr, model_validator
from pydantic_core import from_json

from rxflow._copies import copy_values
from rxflow._options import Configurable, Switch
from rxflow._streaming import CrewStreamingOutput, EventStream, all_of, chunks, run_async, run_blocking
from rxflow.crew._assignment import PLACEHOLDER, LogFile, RateLimit, limit_of, make_key
from rxflow.crew._crew_run import CrewRun, Inputs, Plan, shorten
from rxflow.crew.agent import Agent
from rxflow.crew.task import Task
from rxflow.llm import Model
from rxflow.types import CrewFinished, CrewOutput, Event, StreamChunk, TaskOutput, UsageMetrics


class Process(StrEnum):
    """Who carries out the tasks: the agent of each task (sequential), or a manager who may delegate (hierarchical)."""

    sequential = "sequential"
    hierarchical = "hierarchical"


class Crew(Configurable):
    """Runs tasks one after the other. Adjacent tasks with ``async_execution`` run at the same time.

    Args:
        agents, tasks: the agents, and the tasks in order.
        process: sequential, or hierarchical with ``manager_llm`` or ``manager_agent``.
        stream: ``kickoff`` returns a :class:`CrewStreamingOutput` instead of the result.
        verbose: progress is logged to the ``rxflow`` logger, by default on standard error.
        max_rpm: how many LLM calls all agents together may make in a minute, including the calls that judge answers.
        step_callback: called after each turn with a model and after each tool, for agents without a ``step_callback``.
        task_callback: called with the :class:`TaskOutput` of each task.
        before_kickoff_callbacks: functions ``fn(inputs) -> inputs``, called in order before placeholders are filled in.
            ``inputs`` is a dict that belongs to this run, so a function may change it. It is empty if the run has no
            inputs. A function that returns None keeps the dict.
        after_kickoff_callbacks: functions ``fn(CrewOutput) -> CrewOutput``, called in order. A function that
            returns None keeps the output.
        cache: within a run, all agents share the results of tools. A later call with equal arguments gets the earlier
            result. The tool is called again if the earlier call failed, if the tool's ``cache_function`` rejected the
            result, or if the agent has ``cache=False``.
        output_log_file: a ``.txt`` or ``.json`` file. Each task adds an entry when it starts, and an entry with the
            answer when it has completed. True means ``logs.txt``.
        config: a mapping with any of these options, or the same as JSON text. It must have ``agents`` and ``tasks``,
            which are lists of mappings. In a task, ``agent`` is the role of one of the agents. Keyword arguments take
            precedence.

    Raises:
        ValueError: an option is wrong, or the crew can never run, for example because a task has no agent.
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
    output_log_file: bool | str | None = None
    name: str = "crew"
    config: Mapping[str, Any] | str | None = None  # copied to the other fields when the crew is created
    _rate: RateLimit | None = PrivateAttr(default=None)
    _usage: UsageMetrics = PrivateAttr(default_factory=UsageMetrics)

    def model_post_init(self, context: Any, /) -> None:
        self._rate = limit_of(self.max_rpm, None)

    @classmethod
    def _with_config(cls, options: dict[str, Any]) -> dict[str, Any]:
        config = options.get("config")
        if config is None:
            return super()._with_config(options)
        try:
            read: Any = from_json(config) if isinstance(config, str) else config
        except ValueError as error:
            raise ValueError(f"config of a Crew is not JSON ({error}); got {reprlib.repr(config)}") from error
        if not (isinstance(read, Mapping) and {"agents", "tasks"} <= cast(Mapping[str, Any], read).keys()):
            raise ValueError(f"config of a Crew is a mapping with agents and tasks; got {reprlib.repr(config)}")
        entries = cast(Mapping[str, Any], read)
        agents = [each if isinstance(each, Agent) else Agent(config=each) for each in entries["agents"]]
        tasks = [each if isinstance(each, Task) else _read_task(each, agents) for each in entries["tasks"]]
        return super()._with_config({**options, "config": {**entries, "agents": agents, "tasks": tasks}})

    @model_validator(mode="after")
    def _can_work(self) -> Self:
        if not {"agents", "tasks"} & self.model_fields_set:
            raise ValueError("Crew needs agents and tasks; give it agents=[…] and tasks=[…]")
        if self.process is Process.hierarchical:
            self._check_manager()
        else:
            for index, task in enumerate(self.tasks):
                if task.agent is None:
                    raise ValueError(f"task {index} ({shorten(task)}) has no agent; give it agent=…")
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
        position: dict[str, int] = {}  # for each task id: the first index of the task
        for index, task in enumerate(self.tasks):
            position.setdefault(task.id, index)
        for index, task in enumerate(self.tasks):
            for wanted in task.context or ():
                at = position.get(wanted.id)
                if at is None:  # a task of another crew: it must have its answer when this crew runs
                    continue
                if at >= index:
                    raise ValueError(
                        f"Task {shorten(task)} has a context dependency on a future task {shorten(wanted)}, which is "
                        "not allowed. Put that one before it"
                    )
                if task.async_execution and all(t.async_execution for t in self.tasks[at:index]):
                    raise ValueError(
                        f"Task {shorten(task)} is asynchronous and cannot include other sequential asynchronous tasks "
                        f"in its context. {shorten(wanted)} runs at the same time; put a task without async_execution "
                        "between them"
                    )
        if len(self.tasks) > 1 and all(task.async_execution for task in self.tasks[-2:]):
            raise ValueError(
                "at most one task at the end may have async_execution; the crew has to end with one answer"
            )

    def copy(self) -> Self:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return a copy of this crew, with copies of its agents and tasks. The copies have no results yet."""
        agents: dict[int, Agent] = {}
        tasks: dict[int, Task] = {}

        def copy_of(agent: Agent | None) -> Agent | None:
            return None if agent is None else agents.setdefault(id(agent), agent.copy())

        for task in self.tasks:
            if id(task) in tasks:
                continue
            update: dict[str, Any] = {"agent": copy_of(task.agent)}
            if task.context:
                update["context"] = [tasks.get(id(wanted), wanted) for wanted in task.context]
            tasks[id(task)] = task.model_copy(update=update)
        return self.model_copy(
            update={
                "agents": [copy_of(agent) for agent in self.agents],
                "tasks": [tasks[id(task)] for task in self.tasks],
                "manager_agent": copy_of(self.manager_agent),
            }
        )

    def _repr_html_(self) -> str:
        from rxflow._text import (
            draw_card,
            draw_table,
            show_title,
        )  # imported here, because only notebooks call this method

        rows = [
            (
                show_title(task.name or task.description),
                task.agent.role if task.agent is not None else "",
                ", ".join(tool.name for tool in task.tools),
            )
            for task in self.tasks
        ]
        return draw_card(f"Crew {self.name}", self.process.value, draw_table(("task", "agent", "tools"), rows))

    def _renew(self) -> None:
        super()._renew()
        self._rate = limit_of(self.max_rpm, None)
        self._usage = UsageMetrics()

    @property
    def key(self) -> str:
        """A hash of the texts of agents and tasks, before inputs are filled in. Equal texts have equal keys."""
        return make_key(*(each.key for each in (*self.agents, *self.tasks)))

    @property
    def usage_metrics(self) -> UsageMetrics:
        """The tokens of the last completed run."""
        return self._usage

    def fetch_inputs(self) -> set[str]:
        """Return the names of all placeholders in the texts of agents and tasks."""
        agents = [*self.agents, self.manager_agent, *(task.agent for task in self.tasks)]
        texts = [text for agent in agents if agent is not None for text in (agent.role, agent.goal, agent.backstory)]
        texts += [
            text for task in self.tasks for text in (task.description, task.expected_output, task.output_file or "")
        ]
        return {name for text in texts for name in PLACEHOLDER.findall(text)}

    def events(self, inputs: Inputs | None = None) -> EventStream[Event]:
        """Return a cold Observable of all events. Each subscription is a new run.

        Raises:
            ValueError: ``inputs`` is given, but has no value for a placeholder. If there are
                ``before_kickoff_callbacks``, the stream ends with this error instead, because the callbacks may add
                inputs.
            TypeError: ``inputs`` is not a mapping.
        """
        plan = self._plan()
        given = _check_inputs(plan, inputs)
        return EventStream(lambda scope: CrewRun(plan, scope, given).observe())

    def observe(self, inputs: Inputs | None = None) -> EventStream[StreamChunk]:
        """Return a cold Observable of the chunks of all tasks.

        Each subscription is a new run. ::

            task 1    -he-ll-o|
            task 2             -wo-rld|
            result    -he-ll-o--wo-rld|
        """
        return self.events(inputs).select(chunks)

    def stream_chunks(self, inputs: Inputs | None = None) -> CrewStreamingOutput:
        """Return the chunks of a new run, even if ``stream`` is False. The first iteration starts the run.

        Raises:
            ValueError: ``inputs`` is given, but has no value for a placeholder. Not raised if there are
                ``before_kickoff_callbacks``.
            TypeError: ``inputs`` is not a mapping.
        """
        return CrewStreamingOutput(source=self.events(inputs))

    def kickoff(self, inputs: Inputs | None = None) -> Any:
        """Run the crew and return a :class:`CrewOutput`. If ``stream`` is set, do the same as :meth:`stream_chunks`."""
        if self.stream:
            return self.stream_chunks(inputs)
        return run_blocking(self.events(inputs), CrewFinished).result

    async def kickoff_async(self, inputs: Inputs | None = None) -> Any:
        """Do the same as :meth:`kickoff` in async code."""
        if self.stream:
            return self.stream_chunks(inputs)
        return (await run_async(self.events(inputs), CrewFinished)).result

    akickoff = kickoff_async

    def kickoff_for_each(self, inputs: Sequence[Inputs]) -> list[Any]:
        """Call :meth:`kickoff` for each of ``inputs``, one after the other."""
        self._check_all(inputs)
        return [self.kickoff(each) for each in inputs]

    async def kickoff_for_each_async(self, inputs: Sequence[Inputs]) -> list[Any]:
        """Call :meth:`kickoff_async` for each of ``inputs``, at the same time."""
        self._check_all(inputs)
        return await all_of(self.kickoff_async(each) for each in inputs)

    def _check_all(self, inputs: Sequence[Inputs]) -> None:
        """Raise an error if any of ``inputs`` are wrong, before the first run starts."""
        plan = self._plan()
        for each in inputs:
            _check_inputs(plan, each)

    def _plan(self) -> Plan:
        """Return the plan of the crew in its current state."""
        self._rate = limit_of(self.max_rpm, self._rate)
        return Plan(
            name=self.name,
            agents=tuple(self.agents),
            tasks=tuple(self.tasks),
            manager=self._manager() if self.process is Process.hierarchical else None,
            rate=self._rate,
            verbose=self.verbose,
            caches_tools=self.cache,
            log_file=LogFile.of(self.output_log_file),
            step_callback=self.step_callback,
            task_callback=self.task_callback,
            before_kickoff=tuple(self.before_kickoff_callbacks),
            after_kickoff=tuple(self.after_kickoff_callbacks),
            keep_usage=self._keep_usage,
        )

    def _manager(self) -> Agent:
        return self.manager_agent or Agent(
            role="Crew Manager",
            goal="Get the crew's tasks done well by handing them to the coworkers who can do them best",
            backstory="An experienced manager who knows what each coworker is good at, and checks what they deliver",
            llm=self.manager_llm,
        )

    def _keep_usage(self, usage: UsageMetrics) -> None:
        self._usage = usage


def _read_task(entry: Mapping[str, Any], agents: Sequence[Agent]) -> Task:
    """Return the task for an entry of ``config``. Raises ValueError if no agent has the role that the entry names."""
    role = entry.get("agent")
    if not isinstance(role, str):
        return Task(config=entry)
    known = {agent.role: agent for agent in agents}
    if role not in known:
        raise ValueError(f"a task in config names the agent {role!r}; config has {', '.join(map(repr, known))}")
    return Task(config={**entry, "agent": known[role]})


def _check_inputs(plan: Plan, inputs: object) -> Inputs | None:
    """Return a copy of ``inputs``; None if ``inputs`` is None.

    Raises:
        ValueError: ``inputs`` is given, but has no value for a placeholder. Not raised if there are ``before_kickoff``
            callbacks, because they may add the value.
        TypeError: ``inputs`` is not a mapping.
    """
    if inputs is not None and not isinstance(inputs, Mapping):
        raise TypeError(f"inputs are a mapping of names to values, {{'topic': …}} for instance; got {inputs!r}")
    given = None if inputs is None else copy_values(cast(Inputs, inputs))
    if not plan.before_kickoff:
        plan.check(given)
    return given
