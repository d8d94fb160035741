"""What agents, tasks, crews and flows are built from: their own options, those of CrewAI, and ``config=…``."""

from __future__ import annotations

import reprlib
import warnings
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Self, cast
from uuid import uuid4

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Switch = Annotated[bool, BeforeValidator(lambda given: bool(given) if isinstance(given, int) else given)]
"""On or off; CrewAI's levels, ``verbose=2`` for instance, are on."""

_TOOL = "give the agent a tool that looks it up"
_PROMPTS = "write what the model has to know into role, goal, backstory and description"

IGNORED: Mapping[str, frozenset[str]] = {
    "Agent": frozenset(
        [
            "agent_knowledge_context",
            "cache_handler",
            "callbacks",
            "code_execution_mode",
            "crew",
            "crew_knowledge_context",
            "embedder",
            "executor_class",
            "function_calling_llm",
            "i18n",
            "knowledge_config",
            "knowledge_search_query",
            "knowledge_storage",
            "max_reasoning_attempts",
            "max_tokens",
            "respect_context_window",
            "security_config",
            "tracing",
        ]
    ),
    "Task": frozenset(["create_directory", "security_config", "verbose"]),
    "Crew": frozenset(
        [
            "chat_llm",
            "embedder",
            "execution_logs",
            "full_output",
            "function_calling_llm",
            "memory_config",
            "output_log_file",
            "planning_llm",
            "security_config",
            "share_crew",
            "task_execution_output_json_files",
            "token_usage",
            "tracing",
            "usage_metrics",
        ]
    ),
    "Flow": frozenset(["suppress_flow_events", "tracing", "verbose"]),
}
"""CrewAI's options that change nothing here, whatever their value."""

REFUSED: Mapping[str, tuple[str, str]] = {
    "a2a": ("let the agent call agents on other machines", "give it a tool that calls them"),
    "adapted_agent": ("run an agent of another library", "call that agent in a tool"),
    "allow_code_execution": ("run code that the model writes", "give the agent a tool that runs it in a sandbox"),
    "allow_crewai_trigger_context": (
        "add the trigger's payload to the description",
        "write {crewai_trigger_payload} into the description, and give it in the inputs",
    ),
    "apps": ("connect the agent to CrewAI's platform", "give it tools that call those services"),
    "checkpoint": ("save the run, so that it can go on later", "save what you need in the flow's state"),
    "config": ("build the crew from a dict", "give it agents=… and tasks=…, or write a class under @CrewBase"),
    "converter_cls": ("convert the answer by a class of your own", "use output_pydantic, or a guardrail"),
    "entity_memory": ("remember entities", _TOOL),
    "external_memory": ("remember earlier runs", _TOOL),
    "from_repository": ("load the agent from CrewAI's platform", "write its role, goal and backstory"),
    "input_files": ("send files to the model", "give the agent a tool that reads them"),
    "knowledge": ("search documents for each task", _TOOL),
    "knowledge_sources": ("search documents for each task", _TOOL),
    "language": ("change the language of the prompts", _PROMPTS),
    "long_term_memory": ("remember earlier runs", _TOOL),
    "max_retries": ("say how often a guardrail may send the answer back", "call it guardrail_max_retries"),
    "mcps": ("start MCP servers and use their tools", "give the agent tools that call your servers"),
    "memory": ("remember earlier tasks and runs", f"keep it in the flow's state, or {_TOOL}"),
    "multimodal": ("send images to the model", "call llm.acall() with the image in its messages"),
    "planning": ("have a model write a plan first", "write a first task that plans, and give it in context=…"),
    "planning_config": ("have a model write a plan first", "write a first task that plans, and give it in context=…"),
    "prompt_file": ("replace the prompts", _PROMPTS),
    "prompt_template": ("replace the prompts", _PROMPTS),
    "reasoning": (
        "have the agent think before it answers",
        "use a model that reasons, LLM(reasoning_effort=…), or write a first task that plans",
    ),
    "response_model": ("ask for a structured answer", "call it output_pydantic"),
    "response_template": ("replace the prompts", _PROMPTS),
    "short_term_memory": ("remember earlier tasks", "name the tasks in context=…"),
    "skills": ("add instructions from files", "read the files, and put their text into the backstory"),
    "system_template": ("replace the prompts", _PROMPTS),
    "trained_agents_file": ("add what training has taught the agents", "write it into their backstories"),
    "user_memory": ("remember the user", "give what you know of them in the inputs"),
}
"""CrewAI's options that would change the result: what each would do, and what to do instead."""


def check_options(kind: str, given: Mapping[str, Any], own: Collection[str]) -> dict[str, Any]:
    """``given`` without the options that change nothing.

    Raises:
        ValueError: one of them would change the result, or is unknown.
    """
    kept: dict[str, Any] = {}
    for name, value in given.items():
        if name in own:
            kept[name] = value
        elif name in REFUSED:
            if value:
                would, instead = REFUSED[name]
                raise ValueError(f"{kind}({name}={reprlib.repr(value)}) is not supported. It would {would}; {instead}.")
        elif name not in IGNORED[kind]:
            raise ValueError(f"{kind} has no option {name!r}{_suggest(name, own)}")
    return kept


class Configurable(BaseModel):
    """A model whose fields may also come from ``config``, an entry of a YAML file for instance.

    What is given by name goes before what ``config`` says. None stands for the default, if that is not None itself.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")
    kind: ClassVar[str]
    required: ClassVar[tuple[str, ...]] = ()
    id: str = Field(default_factory=lambda: str(uuid4()))

    def copy(self) -> Self:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """Another one with the same options, and an id of its own."""
        return self.model_copy()

    def __copy__(self) -> Self:
        copied = super().__copy__()
        copied._renew()
        return copied

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        copied = super().__deepcopy__(memo)
        copied._renew()
        return copied

    def _renew(self) -> None:
        """Replace what a copy does not share: its id, and its lists."""
        self.id = str(uuid4())
        for name in type(self).model_fields:
            value: Any = getattr(self, name)
            if isinstance(value, list):
                setattr(self, name, cast(list[Any], value).copy())

    @model_validator(mode="before")
    @classmethod
    def _read_options(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        options = {**cast(dict[str, Any], given)}
        if cls.required:  # those that can be configured
            options = cls._with_config(options)
        options = {
            name: value
            for name, value in check_options(cls.kind, options, cls.model_fields).items()
            if value is not None or cls._is_none_by_default(name)
        }
        missing = [name for name in cls.required if name not in options]
        if missing:
            raise ValueError(
                f"{cls.kind} needs {', '.join(cls.required)}, by name or in config=…; missing: {', '.join(missing)}"
            )
        return options

    @classmethod
    def _is_none_by_default(cls, name: str) -> bool:
        field = cls.model_fields[name]
        return field.default is None and field.default_factory is None

    @classmethod
    def _with_config(cls, options: dict[str, Any]) -> dict[str, Any]:
        config = options.pop("config", None)
        if config is None:
            return options
        if not isinstance(config, Mapping):
            raise ValueError(
                f"config is a mapping of options, {{'{cls.required[0]}': …}} for instance; got {reprlib.repr(config)}"
            )
        merged = dict(options)
        for name, value in cast(Mapping[str, Any], config).items():
            if name in cls.model_fields or name in REFUSED or name in IGNORED[cls.kind]:
                if merged.get(name) is None:
                    merged[name] = value
            else:  # programs keep data of their own there, too
                warnings.warn(
                    f"{name!r} in config is not an option of {cls.kind}, and changes nothing"
                    f"{_suggest(name, cls.model_fields)}",
                    UserWarning,
                    stacklevel=4,
                )
        return merged


def _suggest(name: str, own: Collection[str]) -> str:
    close = get_close_matches(name, own, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
