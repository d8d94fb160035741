"""rxflow: flows of LLM agents as reactive streams."""

import typing

from rxflow import _lazy

__all__ = ["LLM", "Agent", "Crew", "Flow", "Process", "Task"]

# pytest loads our plugin, and so this package, wherever rxflow is installed: where nobody uses it, that must cost
# nothing to speak of.
if typing.TYPE_CHECKING:
    from rxflow.crew.agent import Agent
    from rxflow.crew.crew import Crew
    from rxflow.crew.process import Process
    from rxflow.crew.task import Task
    from rxflow.flow.flow import Flow
    from rxflow.llm.model import LLM
else:
    __getattr__, __dir__ = _lazy.names(
        __name__,
        {
            "LLM": "rxflow.llm.model",
            "Agent": "rxflow.crew.agent",
            "Crew": "rxflow.crew.crew",
            "Flow": "rxflow.flow.flow",
            "Process": "rxflow.crew.process",
            "Task": "rxflow.crew.task",
        },
    )
