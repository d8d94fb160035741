"""``Crew``: agents and the tasks they carry out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator
from reactivex import Observable

from rxflow.crew.agent import Agent
from rxflow.crew.assignment import Persona
from rxflow.crew.crew_run import CrewRun
from rxflow.crew.process import Process
from rxflow.crew.rate_limit import RateLimit
from rxflow.crew.task import Task
from rxflow.llm.model import LLM
from rxflow.streaming.kickoff import run_async, run_blocking
from rxflow.streaming.launch import RunObservable
from rxflow.streaming.output import CrewStreamingOutput
from rxflow.streaming.projection import chunks
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import CrewFinished
from rxflow.types.results import CrewOutput, TaskOutput
from rxflow.types.usage import UsageMetrics

Inputs = Mapping[str, Any]


class Crew(BaseModel):
    """Runs tasks one after the other, neighbours with ``async_execution`` at once.

    Args:
        agents, tasks: who works on what.
        process: sequential, or hierarchical with ``manager_llm`` or ``manager_agent``.
        stream: ``kickoff`` gives a :class:`CrewStreamingOutput` in place of the result.
        max_rpm: LLM calls a minute of all agents together.
        step_callback: called after each turn with a model and each tool.
        task_callback: called with the :class:`TaskOutput` of each task.
        before_kickoff_callbacks: ``fn(inputs) -> inputs``, in order, before the placeholders are filled.
        after_kickoff_callbacks: ``fn(CrewOutput) -> CrewOutput``.

    What cannot work is a ValueError when the crew is built.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    agents: list[Agent] = Field(default_factory=list[Agent])
    tasks: list[Task] = Field(default_factory=list[Task])
    process: Process = Process.sequential
    stream: bool = False
    manager_llm: LLM | str | None = None
    manager_agent: Agent | None = None
    verbose: bool = False
    max_rpm: int | None = Field(default=None, gt=0)
    step_callback: Callable[[Any], Any] | None = None
    task_callback: Callable[[TaskOutput], Any] | None = None
    before_kickoff_callbacks: list[Callable[[Any], Any]] = Field(default_factory=list[Callable[[Any], Any]])
    after_kickoff_callbacks: list[Callable[[CrewOutput], Any]] = Field(
        default_factory=list[Callable[[CrewOutput], Any]]
    )
    name: str = "crew"
    _rate: RateLimit | None = PrivateAttr(default=None)
    _usage: UsageMetrics = PrivateAttr(default_factory=UsageMetrics)

    def model_post_init(self, context: Any, /) -> None:
        if self.max_rpm is not None:
            self._rate = RateLimit(self.max_rpm)

    @model_validator(mode="after")
    def _can_work(self) -> Self:
        if self.process is Process.hierarchical:
            self._check_manager()
        else:
            for index, task in enumerate(self.tasks):
                if task.agent is None:
                    raise ValueError(f"task {index} ({task.description[:40]!r}) has no agent; give it agent=…")
        self._check_order()
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

    @property
    def usage_metrics(self) -> UsageMetrics:
        """The tokens of the last run that completed."""
        return self._usage

    def events(self, inputs: Inputs | None = None) -> RunObservable:
        """A cold Observable of everything that happens; each subscription is a run of its own.

        Raises:
            ValueError: a placeholder has no input.
        """
        if not self.before_kickoff_callbacks:
            self.check_inputs(inputs)  # else they may still fill in what is missing
        return RunObservable(lambda scope: CrewRun(self, scope, inputs).observe())

    def observe(self, inputs: Inputs | None = None) -> Observable[StreamChunk]:
        """A cold Observable of the chunks of all tasks. ::

        task 1    -he-ll-o|
        task 2             -wo-rld|
        result    -he-ll-o--wo-rld|
        """
        return chunks(self.events(inputs))

    def kickoff(self, inputs: Inputs | None = None) -> Any:
        """Run to the end: a :class:`CrewOutput`, or with ``stream`` a :class:`CrewStreamingOutput` at once.

        Inside a flow its chunks are in the flow's stream too.
        """
        if self.stream:
            return CrewStreamingOutput(source=self.events(inputs))
        return run_blocking(self.events(inputs), CrewFinished).result

    async def kickoff_async(self, inputs: Inputs | None = None) -> Any:
        """:meth:`kickoff` for async code."""
        if self.stream:
            return CrewStreamingOutput(source=self.events(inputs))
        return (await run_async(self.events(inputs), CrewFinished)).result

    akickoff = kickoff_async

    def kickoff_for_each(self, inputs: Sequence[Inputs]) -> list[Any]:
        """:meth:`kickoff` for each of ``inputs``, one after the other."""
        self._check_all(inputs)
        return [self.kickoff(each) for each in inputs]

    async def kickoff_for_each_async(self, inputs: Sequence[Inputs]) -> list[Any]:
        """The same for async code, all at once."""
        self._check_all(inputs)
        try:
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(self.kickoff_async(each)) for each in inputs]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None  # what stopped the others
        return [task.result() for task in running]

    def _check_all(self, inputs: Sequence[Inputs]) -> None:
        """Raise before the first run what would stop a later one."""
        if not self.before_kickoff_callbacks:
            for each in inputs:
                self.check_inputs(each)

    def check_inputs(self, inputs: Inputs | None) -> None:
        """Raise ValueError where a placeholder of a task or an agent has no input."""
        for index, task in enumerate(self.tasks):
            agent = task.agent or self.manager_agent or _MANAGER
            task.assigned(agent, inputs, index=index)
        for agent in self.agents:
            Persona.of(agent, inputs)

    @property
    def manager(self) -> Agent:
        """Who hands out the tasks of a hierarchical crew."""
        return self.manager_agent or _MANAGER.model_copy(update={"llm": self.manager_llm})

    @property
    def rate(self) -> RateLimit | None:
        """The limit of LLM calls of all agents together."""
        return self._rate

    def keep_usage(self, usage: UsageMetrics) -> None:
        """Remember the tokens of a run that completed."""
        self._usage = usage


_MANAGER = Agent(
    role="Crew Manager",
    goal="Get the crew's tasks done well by handing them to the coworkers who can do them best",
    backstory="An experienced manager who knows what each coworker is good at, and checks what they deliver",
)
