"""The options of agents, tasks, crews, flows and LLMs: those of rxflow, those of CrewAI, and ``config=…``."""

from __future__ import annotations

import copy
import reprlib
import warnings
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Protocol, Self, TypeAlias, TypeVar, cast, overload
from uuid import uuid4

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FieldSerializationInfo,
    PrivateAttr,
    field_serializer,
    model_validator,
)
from pydantic_core import PydanticSerializationError, to_jsonable_python

P = TypeVar("P")

Switch = Annotated[bool, BeforeValidator(lambda given: bool(given) if isinstance(given, int) else given)]
"""On or off. An integer other than 0 means on, for example CrewAI's ``verbose=2``."""

Seconds: TypeAlias = float | timedelta
"""A time, in seconds or as a timedelta."""

TRIGGER_PAYLOAD = "crewai_trigger_payload"
"""The name of an input. The input is the data, for example a mail, that triggered a crew or a flow.

A flow passes this input to each start method that has a parameter of this name. In a crew, the first task shows the
input to its model by default.
"""

_TOOL = "give the agent a tool that looks it up"
_PROMPTS = "write what the model has to know into role, goal, backstory and description"

IGNORED: Mapping[str, Mapping[str, Any]] = {
    "Agent": {
        "agent_knowledge_context": None,
        "cache_handler": None,
        "callbacks": [],
        "code_execution_mode": "safe",
        "crew": None,
        "crew_knowledge_context": None,
        "embedder": None,
        "executor_class": None,
        "function_calling_llm": None,
        "i18n": None,
        "knowledge_config": None,
        "knowledge_search_query": None,
        "knowledge_storage": None,
        "max_reasoning_attempts": None,
        "max_tokens": None,
        "respect_context_window": True,
        "security_config": None,
        "tracing": None,
    },
    "Task": {"create_directory": True, "security_config": None, "verbose": None},
    "Crew": {
        "chat_llm": None,
        "embedder": None,
        "execution_logs": [],
        "full_output": None,
        "function_calling_llm": None,
        "memory_config": None,
        "planning_llm": None,
        "security_config": None,
        "share_crew": False,
        "task_execution_output_json_files": None,
        "token_usage": None,
        "tracing": None,
        "usage_metrics": None,
    },
    "Flow": {"suppress_flow_events": False, "tracing": None},
}
"""CrewAI's options that have no effect in rxflow, with their defaults."""

REFUSED: Mapping[str, tuple[str, str]] = {
    "a2a": ("let the agent call agents on other machines", "give it a tool that calls them"),
    "adapted_agent": ("run an agent of another library", "call that agent in a tool"),
    "allow_code_execution": ("run code that the model writes", "give the agent a tool that runs it in a sandbox"),
    "apps": ("connect the agent to CrewAI's platform", "give it tools that call those services"),
    "checkpoint": (
        "save the run, so that it can go on later",
        "put the crew into a flow, and start that with rxflow.runs",
    ),
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
    "mcps": (
        "start MCP servers and use their tools",
        "give it tools=…, those that rxflow.adapters.mcp.connect(…) gives",
    ),
    "memory": ("remember earlier tasks and runs", f"keep it in the flow's state, or {_TOOL}"),
    "planning": ("have a model write a plan first", "write a first task that plans, and give it in context=…"),
    "planning_config": ("have a model write a plan first", "write a first task that plans, and give it in context=…"),
    "prompt_file": ("replace the prompts", _PROMPTS),
    "reasoning": (
        "have the agent think before it answers",
        "use a model that reasons, LLM(reasoning_effort=…), or write a first task that plans",
    ),
    "response_model": ("ask for a structured answer", "call it output_pydantic"),
    "response_template": ("replace the prompts", _PROMPTS),
    "short_term_memory": ("remember earlier tasks", "name the tasks in context=…"),
    "skills": ("add instructions from files", "read the files, and put their text into the backstory"),
    "trained_agents_file": ("add what training has taught the agents", "write it into their backstories"),
    "user_memory": ("remember the user", "give what you know of them in the inputs"),
}
"""CrewAI's options that rxflow refuses, because they would change the result.

For each option: what the option would do, and what to do instead.
"""

IGNORED_BY_LLM: Mapping[str, Any] = {
    "completion_cost": None,
    "context_window_size": 0,
    "is_anthropic": False,
    "is_litellm": False,
    "llm_type": None,
    "prefer_upload": False,
}
"""CrewAI's options of an LLM that have no effect in rxflow. They are not sent, because a provider would refuse them."""

NATIVE_TO_CREWAI = frozenset(
    {
        "anthropic",
        "aws",
        "azure",
        "azure_openai",
        "bedrock",
        "cerebras",
        "claude",
        "dashscope",
        "deepseek",
        "gemini",
        "google",
        "hosted_vllm",
        "ollama",
        "ollama_chat",
        "openai",
        "openrouter",
        "snowflake",
    }
)
"""The providers that CrewAI calls without LiteLLM. ``LLM.is_litellm`` is False for them by default."""

_OWN_MODELS_ONLY = NATIVE_TO_CREWAI - {"hosted_vllm", "ollama", "ollama_chat", "openrouter"}
"""The names of these providers' models never begin with another provider, unlike Groq's ``openai/gpt-oss-20b``."""

_OTHER_NAMES = {"aws": "bedrock", "azure_openai": "azure", "claude": "anthropic", "google": "gemini"}
"""Other names of providers, and the names under which LiteLLM knows them."""

_REFUSED_BY_LLM = {
    "callbacks": ("call them for each request", "register them with litellm.callbacks, or subscribe to llm.events()"),
    "interceptor": ("change requests and responses", "give base_url=… of a proxy that does, or write a source"),
}
_LISTS = ("agents", "context", "tasks", "tools")
_CALL_OPTIONS = ("callbacks", "from_agent", "from_task")

ABSENT_METHODS: Mapping[str, Mapping[str, str]] = {
    "Agent": {
        "create_agent_executor": "agent.kickoff(…) and agent.execute_task(…) work at once",
        "set_knowledge": f"rxflow has no knowledge; {_TOOL}",
    },
    "Task": {"execute_async": "call await task.aexecute_sync(…)"},
    "Crew": {
        "calculate_usage_metrics": "read crew.usage_metrics",
        "query_knowledge": f"rxflow has no knowledge; {_TOOL}",
        "replay": "rxflow does not replay tasks; start a flow with rxflow.runs, which resumes what was interrupted",
        "reset_memories": "rxflow has no memory, so there is nothing to reset",
        "test": "rxflow does not rate crews; run them in tests of your own, see rxflow.testing",
        "train": "rxflow does not train; write what the agents have to know into their backstories",
    },
}
"""CrewAI's methods that rxflow does not have, and what to do instead."""


def check_options(kind: str, given: Mapping[str, Any], own: Collection[str]) -> dict[str, Any]:
    """Check the given options, and return them. ``own`` has the names of rxflow's own options.

    An option in :data:`REFUSED` is accepted if it is switched off (None, False, empty …). The result leaves it out.

    Raises:
        ValueError: an option in :data:`REFUSED` is switched on, or an option is unknown.
    """
    kept: dict[str, Any] = {}
    for name, value in given.items():
        if name in own or name in IGNORED[kind]:
            kept[name] = value
        elif name in REFUSED:
            if value:
                would, instead = REFUSED[name]
                raise ValueError(f"{kind}({name}={reprlib.repr(value)}) is not supported. It would {would}; {instead}.")
        else:
            raise ValueError(f"{kind} has no option {name!r}{_suggest(name, own)}")
    return kept


def split_llm_options(model: str, given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the full name of the model and the parameters for its provider, from the arguments of an LLM.

    Raises:
        TypeError: ``provider`` is not a string.
        ValueError: an unsupported option of CrewAI would change the result, or ``provider`` is not that of the model.
    """
    _refuse_for_llm("LLM", given)
    provider, more = given.get("provider"), given.get("additional_params")
    taken = {*IGNORED_BY_LLM, *_REFUSED_BY_LLM, "provider", "additional_params"}
    parameters = {name: value for name, value in given.items() if name not in taken} | dict(more or {})
    return _add_provider(model, provider), parameters


def _add_provider(model: str, provider: object) -> str:
    """Return ``model`` with ``provider`` in front of it, unless ``model`` already begins with this provider.

    In ``meta-llama/llama-3`` of OpenRouter, or ``openai/gpt-oss-20b`` of Groq, the part before the slash belongs to the
    model's name, and is not the provider.
    """
    if not provider:
        return model
    if not isinstance(provider, str):
        raise TypeError(f"provider is not a string: {provider!r}")
    first, slash, _ = model.partition("/")
    if slash and _OTHER_NAMES.get(first, first) == _OTHER_NAMES.get(provider, provider):
        return model
    if slash and {first, provider} <= _OWN_MODELS_ONLY:
        raise ValueError(f"the model {model!r} has the provider {first!r}, but provider={provider!r}; give only one")
    return f"{provider}/{model}"


def check_call_options(given: Mapping[str, Any]) -> None:
    """Check the options that CrewAI has for one LLM call.

    Raises:
        ValueError: an unsupported option would change the result.
        TypeError: an option is unknown.
    """
    for name in given:
        if name not in _CALL_OPTIONS:
            raise TypeError(f"a call of an LLM has no argument {name!r}{_suggest(name, _CALL_OPTIONS)}")
    _refuse_for_llm("call", given)


def _refuse_for_llm(where: str, given: Mapping[str, Any]) -> None:
    for name, (would, instead) in _REFUSED_BY_LLM.items():
        if given.get(name):
            raise ValueError(f"{where}({name}={given[name]!r}) is not supported. It would {would}; {instead}.")


class HasParameters(Protocol):
    """The part of an LLM that :class:`Parameter` needs."""

    parameters: dict[str, Any]


class Parameter(Generic[P]):
    """An attribute of an LLM. Its value is kept in the LLM's ``parameters``. None means the provider's default."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, llm: None, owner: type) -> Parameter[P]: ...

    @overload
    def __get__(self, llm: HasParameters, owner: type) -> P | None: ...

    def __get__(self, llm: HasParameters | None, owner: type) -> Parameter[P] | P | None:
        return self if llm is None else llm.parameters.get(self._name)

    def __set__(self, llm: HasParameters, value: P | None) -> None:
        if value is None:
            llm.parameters.pop(self._name, None)
        else:
            llm.parameters[self._name] = value


class Configurable(BaseModel):
    """A pydantic model whose fields may also come from ``config``.

    ``config`` is a mapping, for example an entry of a YAML file. Keyword arguments take precedence over ``config``. A
    keyword argument None counts as not given. The options in :data:`IGNORED` can be set and read, but have no effect.

    JSON cannot represent functions, classes and LLM objects. In the model's JSON, a field with such a value is null,
    and a list lacks such items. A UserWarning reports this.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")
    kind: ClassVar[str]
    required: ClassVar[tuple[str, ...]] = ()
    id: str = Field(default_factory=lambda: str(uuid4()))
    _ignored: dict[str, Any] = PrivateAttr(default_factory=dict[str, Any])

    if not TYPE_CHECKING:  # if type checkers saw __getattr__, they would accept any attribute

        def __getattr__(self, name: str) -> Any:
            kind = type(self).kind
            if name in ABSENT_METHODS[kind]:
                raise AttributeError(f"{kind} has no method {name!r}: {ABSENT_METHODS[kind][name]}")
            return self._read_ignored(name) if name in IGNORED[kind] else super().__getattr__(name)

    def _read_ignored(self, name: str) -> Any:
        return self._ignored.setdefault(name, copy.copy(IGNORED[self.kind][name]))

    def __setattr__(self, name: str, value: Any) -> None:
        if name in IGNORED[type(self).kind] and not hasattr(type(self), name):
            self._ignored[name] = value
        else:
            super().__setattr__(name, value)

    def copy(self) -> Self:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return a copy with the same options and its own id."""
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
        """Give a copy its own id and its own lists."""
        self.id = str(uuid4())
        self._ignored = {**self._ignored}
        for name in type(self).model_fields:
            value: Any = getattr(self, name)
            if isinstance(value, list):
                setattr(self, name, cast(list[Any], value).copy())

    @field_serializer("*", mode="plain", when_used="json")
    def _write_as_json(self, value: Any, info: FieldSerializationInfo) -> Any:
        """Return ``value`` in a form for JSON; None if JSON cannot represent it.

        From a list, leave out the items that JSON cannot represent. Warn about each value that is left out, but not
        about the values in a field's default.
        """
        kept: list[Any] = []
        for item in cast(list[Any], value) if isinstance(value, list) else [value]:
            try:
                kept.append(to_jsonable_python(item))
            except PydanticSerializationError:
                if info.field_name not in self.model_fields_set:
                    continue
                warnings.warn(
                    f"{self.kind}.{info.field_name} is left out: {reprlib.repr(item)} cannot be JSON-serialized",
                    UserWarning,
                    stacklevel=2,
                )
        return kept if isinstance(value, list) else kept[0] if kept else None

    @model_validator(mode="wrap")
    @classmethod
    def _read_options(cls, given: Any, build: Callable[[Any], Self]) -> Self:
        if not isinstance(given, dict):
            return build(given)
        options = cls._with_config({**cast(dict[str, Any], given)})
        options = {
            name: value
            for name, value in check_options(cls.kind, options, cls.model_fields).items()
            if value is not None or cls._is_none_by_default(name)
        }
        for name in options.keys() & _LISTS:
            if isinstance(options[name], BaseModel):  # pydantic would use the fields of the model as items
                one = type(options[name]).__name__
                raise ValueError(f"{cls.kind}({name}=…) takes a list; write {name}=[…], also for one {one}")
        missing = [name for name in cls.required if name not in options]
        if missing:
            raise ValueError(
                f"{cls.kind} needs {', '.join(cls.required)}, by name or in config=…; missing: {', '.join(missing)}"
            )
        ignored = {name: options.pop(name) for name in IGNORED[cls.kind] if name in options}
        made = build(options)
        made._ignored = ignored
        return made

    @classmethod
    def _is_none_by_default(cls, name: str) -> bool:
        field = cls.model_fields.get(name)
        return field is not None and field.default is None and field.default_factory is None

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
            else:  # only warn, because programs also keep other data in config
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


def to_seconds(name: str, given: Seconds) -> float:
    """Return a time in seconds; "5" is a time, too. Raises TypeError for other values, ValueError for huge numbers."""
    try:
        return given.total_seconds() if isinstance(given, timedelta) else float(given)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number of seconds, or a timedelta: {given!r}") from None
    except OverflowError:
        raise ValueError(f"{name} must be a time that a float can hold: {given!r}") from None


def read_seconds(name: str, given: Seconds) -> float:
    """Return a time in seconds. Raises TypeError if ``given`` is not a time, ValueError if the time is not above 0."""
    seconds = to_seconds(name, given)
    if not seconds > 0:
        raise ValueError(f"{name} must be a time above 0: {given!r}")
    return seconds
