"""The import paths of CrewAI, for programs that move to rxflow by renaming ``crewai`` to ``rxflow`` in their imports.

:data:`ALIASES` replaces many small modules. It maps each path of CrewAI to the names at that path, and each name to the
module of rxflow that has the object. :data:`ABSENT` has the paths that rxflow does not support. Importing such a path
raises a ModuleNotFoundError with a message that explains what to do instead. In both mappings, the paths begin with
``rxflow`` in place of ``crewai``. Type checkers and editors know only rxflow's real paths.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from rxflow import _lazy

if TYPE_CHECKING:
    from importlib.abc import Loader
else:
    Loader = object  # importing importlib.abc takes 5 ms, half the time of importing rxflow

_TASK_OUTPUT = {"TaskOutput": "rxflow.types.results"}
_OUTPUT_FORMAT = {"OutputFormat": "rxflow.types.results"}
_CREW_OUTPUT = {"CrewOutput": "rxflow.types.results"}
_BASE_AGENT = {"BaseAgent": "rxflow.crew.agent:Agent"}
_BASE_LLM = {"BaseLLM": "rxflow.llm.base_llm"}
_FEEDBACK = {"ConsoleProvider": "rxflow.operators", "HumanFeedbackPending": "rxflow.types.answers"}

ALIASES: Mapping[str, Mapping[str, _lazy.Home]] = {
    "rxflow.agent": {"Agent": "rxflow.crew.agent"} | _BASE_AGENT,
    "rxflow.agent.core": {"Agent": "rxflow.crew.agent"},
    "rxflow.agents": _BASE_AGENT,
    "rxflow.agents.agent_builder": _BASE_AGENT,
    "rxflow.agents.agent_builder.base_agent": _BASE_AGENT,
    "rxflow.crews": _CREW_OUTPUT,
    "rxflow.crews.crew_output": _CREW_OUTPUT,
    "rxflow.flow.async_feedback": _FEEDBACK,
    "rxflow.flow.async_feedback.providers": {"ConsoleProvider": "rxflow.operators"},
    "rxflow.flow.async_feedback.types": {"HumanFeedbackPending": "rxflow.types.answers"},
    "rxflow.flow.human_feedback": {
        "HumanFeedbackResult": "rxflow.types.answers",
        "human_feedback": "rxflow.flow._people",
    },
    "rxflow.flow.input_provider": {"InputResponse": "rxflow.types.answers"},
    "rxflow.flow.persistence.base": {"FlowPersistence": "rxflow.flow.persistence"},
    "rxflow.flow.persistence.decorators": {"persist": "rxflow.flow.persistence"},
    "rxflow.flow.persistence.sqlite": {"SQLiteFlowPersistence": "rxflow.flow.persistence"},
    "rxflow.lite_agent_output": {"LiteAgentOutput": "rxflow.types.results:AgentOutput"},
    "rxflow.llms": _BASE_LLM,
    "rxflow.llms.base_llm": _BASE_LLM,
    "rxflow.process": {"Process": "rxflow.crew.crew"},
    "rxflow.task": {"Task": "rxflow.crew.task"},
    "rxflow.tasks": _TASK_OUTPUT | _OUTPUT_FORMAT,
    "rxflow.tasks.output_format": _OUTPUT_FORMAT,
    "rxflow.tasks.task_output": _TASK_OUTPUT,
    "rxflow.tools.base_tool": {"BaseTool": "rxflow.tools", "Tool": "rxflow.tools:FunctionTool", "tool": "rxflow.tools"},
    "rxflow.tools.structured_tool": {"CrewStructuredTool": "rxflow.tools:FunctionTool"},
    "rxflow.types.usage_metrics": {"UsageMetrics": "rxflow.types.results"},
    "rxflow.utilities": {},
    "rxflow.utilities.types": {"LLMMessage": "rxflow.llm.source:Message"},
}
"""The names at each path of CrewAI. The values have the form of :data:`rxflow._lazy.Home`."""

ABSENT: Mapping[str, str] = {
    "rxflow.a2a": "rxflow does not call remote agents; give the agent a tool that does",
    "rxflow.agents.crew_agent_executor": "rxflow has no executors; call agent.kickoff(…) or agent.execute_task(…)",
    "rxflow.agents.parser": "rxflow calls tools natively, so no text is parsed; read ToolStarted in events()",
    "rxflow.auth": "rxflow knows nothing of CrewAI's platform; leave it out",
    "rxflow.context": "rxflow knows nothing of CrewAI's platform; leave it out",
    "rxflow.events": "rxflow has no event bus; subscribe to flow.events(), crew.events() or agent.events()",
    "rxflow.experimental": "rxflow has nothing of CrewAI's experiments; leave it out",
    "rxflow.flow.conversation": "rxflow has no conversational flows; write a loop around agent.kickoff(messages)",
    "rxflow.flow.visualization": "rxflow draws flows by themselves; call flow.plot() or flow.to_mermaid()",
    "rxflow.hooks": "rxflow has no hooks; read LLMStarted and ToolStarted in events(), or wrap the tool",
    "rxflow.knowledge": "rxflow has no knowledge sources; give the agent a tool that searches them",
    "rxflow.lite_agent": "rxflow has no LiteAgent; an Agent works without a crew, agent.kickoff(…)",
    "rxflow.llms.providers": "rxflow has one class for all providers; write LLM('provider/model')",
    "rxflow.mcp": "rxflow does not start MCP servers; give the agent the tools of rxflow.adapters.mcp.connect(…)",
    "rxflow.memory": "rxflow has no memory; keep what is to be remembered in the flow's state or behind a tool",
    "rxflow.plus_api": "rxflow knows nothing of CrewAI's platform; leave it out",
    "rxflow.rag": "rxflow has no retrieval; give the agent a tool that searches",
    "rxflow.security": "rxflow makes no fingerprints; agents, tasks and crews have an id and a key",
    "rxflow.skills": "rxflow has no skills; write what the agent has to know into its backstory",
    "rxflow.tasks.conditional_task": "rxflow has no ConditionalTask; choose between crews with @router in a flow",
    "rxflow.tasks.hallucination_guardrail": "rxflow has no HallucinationGuardrail; say what to check in guardrail=…",
    "rxflow.tasks.llm_guardrail": "rxflow needs no LLMGuardrail; give its description itself, guardrail=…",
    "rxflow.telemetry": "rxflow sends nothing but requests to models; there is nothing to switch off",
    "rxflow.tools.agent_tools": "rxflow gives agents the tools to delegate; set allow_delegation=True",
    "rxflow.tools.tool_calling": "rxflow carries out the tools of agents; write a function under @tool",
    "rxflow.tools.tool_usage": "rxflow carries out the tools of agents; write a function under @tool",
    "rxflow.utilities.converter": "rxflow reads structured answers itself; give output_pydantic=… or response_model=…",
    "rxflow.utilities.evaluators": "rxflow does not rate crews; run them in tests of your own",
    "rxflow.utilities.events": "rxflow has no event bus; subscribe to flow.events(), crew.events() or agent.events()",
    "rxflow.utilities.exceptions": "rxflow raises the provider's own errors; catch those of litellm.exceptions",
    "rxflow.utilities.guardrail": "rxflow has no classes for guardrails; return a tuple, (accepted, value or reason)",
    "rxflow.utilities.i18n": "rxflow has no texts to translate; write what the model has to know into role and goal",
    "rxflow.utilities.logger": "rxflow logs with logging; use the logger 'rxflow'",
    "rxflow.utilities.paths": "rxflow keeps no files of its own; SQLiteFlowPersistence takes a path",
    "rxflow.utilities.printer": "rxflow logs with logging; use the logger 'rxflow'",
    "rxflow.utilities.prompts": "rxflow has no templates of its own; give Agent(system_template=…, prompt_template=…)",
}
"""Paths of CrewAI that rxflow does not support, and what to do instead."""


def install() -> None:
    """Register the finder for CrewAI's paths below ``rxflow``."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


class _Finder:
    """Finds the paths of CrewAI. The finder is last in ``sys.meta_path``, so rxflow's real modules take precedence."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith("rxflow.") or not (fullname in ALIASES or fullname in ABSENT):
            return None
        is_package = any(other.startswith(f"{fullname}.") for other in (*ALIASES, *ABSENT))
        return ModuleSpec(fullname, _Loader(), is_package=is_package)


class _AliasModule(ModuleType):
    """A module that can be called like the function of the same name.

    ``import rxflow.flow.human_feedback`` replaces the function ``human_feedback`` in ``rxflow.flow`` by this module.
    ``@human_feedback(…)`` must still work afterwards.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(self, self.__name__.rpartition(".")[2])(*args, **kwargs)


class _Loader(Loader):
    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _AliasModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        if name in ABSENT:
            # Without ``name=``: Python drops an error of this name in ``from package import name``, with its advice.
            raise ModuleNotFoundError(f"there is no {name}: {ABSENT[name]}")
        homes = ALIASES[name]
        places = ", ".join(sorted(set(map(str, homes.values()))))
        module.__doc__ = (
            f"CrewAI's path; {f'the names are those of {places}' if homes else 'it has no names in rxflow'}."
        )
        module.__dict__["__all__"] = sorted(homes)
        module.__dict__["__getattr__"], module.__dict__["__dir__"] = _lazy.create_lookup(name, homes)
