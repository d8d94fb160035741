"""The import paths of CrewAI, for programs that move over by renaming the import.

One table in place of a tree of small modules: what rxflow calls by another path is found under CrewAI's, and what
rxflow does not have is an ImportError that says what to do instead. Type checkers and editors see the real paths only.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING

from rxflow import _lazy

if TYPE_CHECKING:
    from importlib.abc import Loader
else:
    Loader = object  # importlib.abc takes 5 ms, half of the time of our import

_TASK_OUTPUT = {"TaskOutput": "rxflow.types.results"}
_OUTPUT_FORMAT = {"OutputFormat": "rxflow.types.results"}
_CREW_OUTPUT = {"CrewOutput": "rxflow.types.results"}
_BASE_AGENT = {"BaseAgent": "rxflow.crew.agent:Agent"}
_BASE_LLM = {"BaseLLM": "rxflow.llm.base_llm"}

ALIASES: Mapping[str, Mapping[str, _lazy.Home]] = {
    "rxflow.agent": {"Agent": "rxflow.crew.agent"} | _BASE_AGENT,
    "rxflow.agent.core": {"Agent": "rxflow.crew.agent"},
    "rxflow.agents": _BASE_AGENT,
    "rxflow.agents.agent_builder": _BASE_AGENT,
    "rxflow.agents.agent_builder.base_agent": _BASE_AGENT,
    "rxflow.crews": _CREW_OUTPUT,
    "rxflow.crews.crew_output": _CREW_OUTPUT,
    "rxflow.lite_agent_output": {"LiteAgentOutput": "rxflow.types.results:AgentOutput"},
    "rxflow.llms": _BASE_LLM,
    "rxflow.llms.base_llm": _BASE_LLM,
    "rxflow.process": {"Process": "rxflow.crew.crew"},
    "rxflow.task": {"Task": "rxflow.crew.task"},
    "rxflow.tasks": _TASK_OUTPUT | _OUTPUT_FORMAT,
    "rxflow.tasks.output_format": _OUTPUT_FORMAT,
    "rxflow.tasks.task_output": _TASK_OUTPUT,
    "rxflow.tools.base_tool": {"BaseTool": "rxflow.tools", "Tool": "rxflow.tools:FunctionTool", "tool": "rxflow.tools"},
    "rxflow.types.usage_metrics": {"UsageMetrics": "rxflow.types.usage"},
    "rxflow.utilities": {},
    "rxflow.utilities.types": {"LLMMessage": "rxflow.llm.request:Message"},
}
"""For each path of CrewAI's its names, and where they are."""

ABSENT: Mapping[str, str] = {
    "rxflow.a2a": "rxflow does not call remote agents; give the agent a tool that does",
    "rxflow.events": "rxflow has no event bus; subscribe to flow.events(), crew.events() or agent.events()",
    "rxflow.hooks": "rxflow has no hooks; read LLMStarted and ToolStarted in events(), or wrap the tool",
    "rxflow.knowledge": "rxflow has no knowledge sources; give the agent a tool that searches them",
    "rxflow.mcp": "rxflow does not start MCP servers; give the agent tools that call yours",
    "rxflow.memory": "rxflow has no memory; keep what is to be remembered in the flow's state or behind a tool",
    "rxflow.rag": "rxflow has no retrieval; give the agent a tool that searches",
    "rxflow.skills": "rxflow has no skills; write what the agent has to know into its backstory",
    "rxflow.tasks.conditional_task": "rxflow has no ConditionalTask; choose between crews with @router in a flow",
    "rxflow.tasks.hallucination_guardrail": "rxflow has no HallucinationGuardrail; say what to check in guardrail=…",
    "rxflow.tasks.llm_guardrail": "rxflow needs no LLMGuardrail; give its description itself, guardrail=…",
}
"""For each path of CrewAI's that leads nowhere here what to do instead."""


def install() -> None:
    """Have Python look here for modules of rxflow that it finds nowhere else."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


class _Finder:
    """Asked last, so that a real module always goes first."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith("rxflow.") or not (fullname in ALIASES or fullname in ABSENT):
            return None
        is_package = any(other.startswith(f"{fullname}.") for other in (*ALIASES, *ABSENT))
        return ModuleSpec(fullname, _Loader(), is_package=is_package)


class _Loader(Loader):
    def create_module(self, spec: ModuleSpec) -> None:
        """Python's own module will do."""

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        if name in ABSENT:
            raise ModuleNotFoundError(f"there is no {name}: {ABSENT[name]}", name=name)
        homes = ALIASES[name]
        module.__doc__ = f"CrewAI's path; the names are those of {', '.join(sorted(set(map(str, homes.values()))))}."
        module.__dict__["__all__"] = sorted(homes)
        module.__dict__["__getattr__"], module.__dict__["__dir__"] = _lazy.names(name, homes)
