"""What a crew is going to do, as one run needs to know it: read from the crew, and checked before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rxflow.crew.agent import Agent
from rxflow.crew.assignment import Assignment, Persona
from rxflow.crew.delegation import delegation_tools
from rxflow.crew.rate_limit import RateLimit
from rxflow.crew.task import Task
from rxflow.crew.tool_use import ToolCache, by_function_name
from rxflow.tools import BaseTool
from rxflow.types.results import CrewOutput, TaskOutput
from rxflow.types.usage import UsageMetrics

Inputs = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Who works on what; ``manager`` where the crew is hierarchical."""

    name: str
    agents: Sequence[Agent]
    tasks: Sequence[Task]
    manager: Agent | None
    rate: RateLimit | None
    verbose: bool
    caches_tools: bool
    step_callback: Callable[[Any], Any] | None
    task_callback: Callable[[TaskOutput], Any] | None
    before_kickoff: Sequence[Callable[[Any], Any]]
    after_kickoff: Sequence[Callable[[CrewOutput], Any]]
    keep_usage: Callable[[UsageMetrics], None]

    def check(self, inputs: Inputs | None) -> None:
        """Raise what would stop the run halfway.

        Raises:
            ValueError: a placeholder has no input; tools of one agent, or coworkers of another, share a name.
        """
        for index in range(len(self.tasks)):
            by_function_name(self.assignment(index, inputs).tools)
        for agent in self.agents:
            Persona.of(agent, inputs)

    def assignment(
        self, index: int, inputs: Inputs | None, context: str = "", tool_cache: ToolCache | None = None
    ) -> Assignment:
        """One task for who works on it."""
        task = self.tasks[index]
        agent = self.manager or task.agent
        if agent is None:
            raise ValueError(f"task {index} ({task.description[:40]!r}) has no agent; give it agent=…")
        coworkers = [other for other in self.agents if other is not agent]
        delegates = bool(coworkers) and (self.manager is not None or agent.allow_delegation)
        assignment = task.assigned(
            agent,
            inputs,
            index=index,
            context=context,
            extra_tools=self._delegation_tools(coworkers, inputs, tool_cache) if delegates else (),
            callbacks=[self.task_callback] if self.task_callback else (),
            step_callback=self.step_callback,
            rates=self._rates,
        )
        return self._with_cache(assignment, tool_cache)

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
