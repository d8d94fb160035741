"""rxflow: flows of LLM agents as reactive streams."""

import typing

from rxflow import _aliases, _lazy

__all__ = [
    "LLM",
    "Agent",
    "BaseLLM",
    "Crew",
    "CrewOutput",
    "Flow",
    "Process",
    "StreamChunk",
    "Task",
    "TaskOutput",
    "emit",
    "report_progress",
    "tool",
]

# In every environment with rxflow, pytest loads rxflow's plugin, and so imports this package. Therefore this module
# imports almost nothing.
if typing.TYPE_CHECKING:
    from rxflow import operators as operators
    from rxflow._streaming import emit, report_progress
    from rxflow.crew import Agent, Crew, Process, Task
    from rxflow.flow import Flow
    from rxflow.llm import LLM, BaseLLM
    from rxflow.tools import tool
    from rxflow.types import CrewOutput, StreamChunk, TaskOutput

    __version__: str
else:
    __getattr__, __dir__ = _lazy.create_lookup(
        __name__,
        {
            "LLM": "rxflow.llm.model",
            "Agent": "rxflow.crew.agent",
            "BaseLLM": "rxflow.llm.base_llm",
            "Crew": "rxflow.crew.crew",
            "CrewOutput": "rxflow.types.results",
            "Flow": "rxflow.flow.flow",
            "Process": "rxflow.crew.crew",
            "StreamChunk": "rxflow.types.chunks",
            "Task": "rxflow.crew.task",
            "TaskOutput": "rxflow.types.results",
            "emit": "rxflow._streaming.emitter",
            "report_progress": "rxflow._streaming.emitter",
            "tool": "rxflow.tools",
            "operators": lambda: _lazy.import_module("rxflow.operators"),
            "__version__": lambda: _lazy.import_module("importlib.metadata").version("rxflow"),
        },
    )
    _aliases.install()
