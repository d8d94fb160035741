"""Crews: agents, tasks, and the process by which agents carry out tasks."""

import typing

from rxflow import _lazy

__all__ = ["Agent", "AgentOutput", "Crew", "CrewOutput", "Guardrail", "GuardrailError", "Process", "Task", "TaskOutput"]

# The names are resolved lazily, so that importing one module of this package does not import the others.
if typing.TYPE_CHECKING:
    from rxflow.crew._guardrails import Guardrail, GuardrailError
    from rxflow.crew.agent import Agent
    from rxflow.crew.crew import Crew, Process
    from rxflow.crew.task import Task
    from rxflow.types import AgentOutput, CrewOutput, TaskOutput
else:
    __getattr__, __dir__ = _lazy.create_lookup(
        __name__,
        {
            "Agent": "rxflow.crew.agent",
            "AgentOutput": "rxflow.types.results",
            "Crew": "rxflow.crew.crew",
            "CrewOutput": "rxflow.types.results",
            "Guardrail": "rxflow.crew._guardrails",
            "GuardrailError": "rxflow.crew._guardrails",
            "Process": "rxflow.crew.crew",
            "Task": "rxflow.crew.task",
            "TaskOutput": "rxflow.types.results",
        },
    )
