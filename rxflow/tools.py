"""Tools: what a model may call. A class with ``_run``, or a function under ``@tool``."""

from __future__ import annotations

import asyncio
import inspect
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any, Self, cast, get_type_hints, overload

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, create_model, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import to_json

from rxflow.json_text import list_problems
from rxflow.loops import off_the_loop, running_loop
from rxflow.types.results import CrewOutput, TaskOutput

__path__: list[str] = []  # makes room for rxflow.tools.base_tool, an alias of this module

_Function = Callable[..., Any]

_counting = threading.Lock()  # runs on several threads may share a tool


class ToolUsageLimit(RuntimeError):
    """A tool was called more often than its ``max_usage_count`` allows."""


class _ReadFromRun(BaseModel):
    """Stands where a tool's arguments are to be read from its ``_run``."""


class BaseTool(BaseModel, ABC):
    """A tool with a name, a description for the model, and ``_run``, which may be a coroutine function.

    ``_run`` may also be a generator or an async generator: its items are the result, as a list. A class may define
    ``_arun`` beside it, which async runs and :meth:`arun` then use.

    Args:
        args_schema: a pydantic model of the arguments; not given: made from the signature of ``_run``.
        result_as_answer: the result ends the task, unchanged.
        max_usage_count: after so many calls it refuses. All calls of this object count, in whatever run or by hand,
            until :meth:`reset_usage_count`.
        cache_function: ``fn(arguments, result) -> bool``: whether an agent may use this result again, in the same run,
            if it makes the same call once more. Not given: it may.

    Raises:
        TypeError: a model cannot give what ``_run`` takes: a positional-only parameter, or one that ``args_schema``
            does not have; or ``args_schema`` has a field that ``_run`` does not take.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    name: str
    description: str
    args_schema: type[BaseModel] = _ReadFromRun
    result_as_answer: bool = False
    max_usage_count: int | None = Field(default=None, gt=0)
    current_usage_count: int = Field(default=0, ge=0)
    cache_function: Callable[[Any, Any], Any] | None = Field(default=None, exclude=True)
    _parameters: _Parameters = PrivateAttr()

    @abstractmethod
    def _run(self, *args: Any, **kwargs: Any) -> Any:
        """Do the work."""

    async def _arun(self, *args: Any, **kwargs: Any) -> Any:
        """Do the work in async code; not defined by a class: its ``_run`` is used."""
        raise NotImplementedError(f"the tool {self.name!r} has no _arun")

    @model_validator(mode="after")
    def _read_signature(self) -> Self:
        function = self._function
        if self._has_arun and not _Parameters.of(function, self.name).names:
            function = self._arun
        self._parameters = _Parameters.of(function, self.name)
        if self.args_schema is _ReadFromRun:
            self.args_schema = self._parameters.make_schema(function, self.name)
        else:
            self._parameters.check_schema(self.args_schema, self.name)
        return self

    @property
    def _function(self) -> _Function:
        return self._run

    @property
    def _has_arun(self) -> bool:
        return type(self)._arun is not BaseTool._arun

    @property
    def is_used_up(self) -> bool:
        """``max_usage_count`` has been reached."""
        return self.max_usage_count is not None and self.current_usage_count >= self.max_usage_count

    @property
    def takes_arguments(self) -> bool:
        """A call may have arguments."""
        return bool(self.args_schema.model_fields) or self.args_schema.model_config.get("extra") == "allow"

    def reset_usage_count(self) -> None:
        """Count from 0 again: before a run, for instance, so that ``max_usage_count`` holds for that run."""
        self.current_usage_count = 0

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Call it from sync code.

        Arguments are converted as those of a model are, and dropped if the tool does not know them.

        Raises:
            ValueError: the arguments do not fit.
            TypeError: it is async, and an event loop runs in this thread; or there are too many arguments.
            ToolUsageLimit: it was called too often. What the tool raises passes.
        """
        arguments = self._convert(args, kwargs)
        result = self.claim(is_async=False)(**arguments)
        if not inspect.iscoroutine(result):
            return result
        if running_loop() is not None:
            result.close()
            raise TypeError(f"the tool {self.name!r} is async: await tool.arun(…)")
        return asyncio.run(result)

    async def arun(self, *args: Any, **kwargs: Any) -> Any:
        """The same for async code; a sync tool runs in a worker thread."""
        arguments = self._convert(args, kwargs)
        function = self.claim()
        return await call_from_async(lambda: function(**arguments), is_async=inspect.iscoroutinefunction(function))

    def read_arguments(self, text: str) -> dict[str, Any]:
        """The arguments that a model wrote as JSON. Raises pydantic's ValidationError if they do not fit."""
        return self._parameters.arguments_of(_read_model(self.args_schema, text))

    def claim(self, *, is_async: bool = True) -> _Function:
        """Count one use and return the function to call with the arguments. Raises :class:`ToolUsageLimit`.

        It is a coroutine function, or one for a worker thread whose result may be a coroutine.
        """
        with _counting:
            if self.is_used_up:
                raise ToolUsageLimit(
                    f"the tool {self.name!r} may be used {self.max_usage_count} times, and that has been done"
                )
            self.current_usage_count += 1
        return _gathering(self._arun if is_async and self._has_arun else self._function)

    def _convert(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        names = self._parameters.names or tuple(self.args_schema.model_fields)
        if len(args) > len(names):
            raise TypeError(f"the tool {self.name!r} takes {len(names)} arguments; got {len(args)}")
        positional = dict(zip(names, args, strict=False))
        if twice := sorted(positional.keys() & kwargs.keys()):
            raise TypeError(f"the tool {self.name!r} got two values for {', '.join(twice)}")
        try:
            model = self.args_schema.model_validate(positional | kwargs, by_alias=True, by_name=True)
        except ValidationError as error:
            problems = list_problems(error, "arguments")
            raise ValueError(f"the tool {self.name!r}: arguments validation failed: {problems}") from error
        return self._parameters.arguments_of(model)

    @property
    def schema_for_model(self) -> dict[str, Any]:
        """The tool as OpenAI's chat API describes it."""
        parameters = self.args_schema.model_json_schema()
        parameters.pop("title", None)
        return {
            "type": "function",
            "function": {
                "name": function_name(self.name),
                "description": self.description,
                "parameters": parameters,
            },
        }


class FunctionTool(BaseTool):
    """A tool made of a function."""

    func: _Function = Field(exclude=True)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        return self.func(*args, **kwargs)

    @property
    def _function(self) -> _Function:
        return self.func

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.func(*args, **kwargs)


@dataclass(frozen=True, slots=True)
class _Parameters:
    """What a tool's function takes.

    ``fields`` maps the fields of a schema that was made here to parameters of other names: a field cannot be called
    ``_id`` or ``copy``.
    """

    names: tuple[str, ...]
    required: frozenset[str]
    takes_others: bool
    fields: Mapping[str, str]

    @classmethod
    def of(cls, function: _Function, tool: str) -> Self:
        """Read from the signature. Raises TypeError for a positional-only parameter."""
        parameters = inspect.signature(function).parameters.values()
        for each in parameters:
            if each.kind is each.POSITIONAL_ONLY:
                raise TypeError(
                    f"the parameter {each.name!r} of the tool {tool!r} is positional-only, and models give arguments "
                    "by name; remove the / from its signature"
                )
        named = [each for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
        names = tuple(each.name for each in named)
        return cls(
            names=names,
            required=frozenset(each.name for each in named if _default_of(each) is inspect.Parameter.empty),
            takes_others=any(each.kind is each.VAR_KEYWORD for each in parameters),
            fields={_field_for(name, names): name for name in names if _field_for(name, names) != name},
        )

    def make_schema(self, function: _Function, tool: str) -> type[BaseModel]:
        """A model of the arguments."""
        hints = get_type_hints(function, include_extras=True)
        signature = inspect.signature(function).parameters
        fields: dict[str, Any] = {}
        for name in self.names:
            hint, default = hints.get(name, Any), signature[name].default
            field = _field_for(name, self.names)
            if field != name:
                hint = Annotated[hint, Field(alias=name, title=name.strip("_").replace("_", " ").title())]
            fields[field] = (hint, ... if default is inspect.Parameter.empty else default)
        config = ConfigDict(extra="allow") if self.takes_others else None
        return create_model(f"{function_name(tool)}_arguments", __config__=config, **fields)

    def check_schema(self, schema: type[BaseModel], tool: str) -> None:
        """Raise TypeError if a call by ``schema`` could not work."""
        fields = set(schema.model_fields)
        if (missing := sorted(self.required - fields)) and schema.model_config.get("extra") != "allow":
            raise TypeError(f"the tool {tool!r} needs {', '.join(missing)}, which its args_schema does not have")
        if not self.takes_others and (unknown := sorted(fields - set(self.names))):
            raise TypeError(f"the args_schema of the tool {tool!r} has {', '.join(unknown)}, which it does not take")

    def arguments_of(self, model: BaseModel) -> dict[str, Any]:
        """The arguments in ``model`` by the names of the parameters.

        Attributes, so that nested models stay models. A default of the function's own goes before that of the schema.
        """
        arguments = {
            self.fields.get(field, field): getattr(model, field)
            for field in type(model).model_fields
            if field in model.model_fields_set or field in self.required or field not in self.names
        }
        others = model.model_extra or {}
        return arguments | {name: value for name, value in others.items() if self.takes_others or name in self.names}


def _default_of(parameter: inspect.Parameter) -> Any:
    """The function's own default. pydantic's ``Field(…)`` is a default of the schema."""
    return inspect.Parameter.empty if isinstance(parameter.default, FieldInfo) else parameter.default


def _field_for(parameter: str, names: tuple[str, ...]) -> str:
    """A name that a pydantic model may use for the field of a parameter."""
    field = parameter
    if field.startswith("_") or hasattr(BaseModel, field):
        field = field.strip("_") + "_"
        while field in names or hasattr(BaseModel, field) or not field.isidentifier() or field == "_":
            field = f"p{field}"
    return field


def _gathering(function: _Function) -> _Function:
    """``function``, but the items of a generator are gathered in a list. The rest is awaited if it can be."""
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):

        @wraps(function)
        async def gather(**arguments: Any) -> Any:
            return await _finish(function(**arguments))

        return gather

    @wraps(function)
    def call(**arguments: Any) -> Any:
        result = function(**arguments)
        if inspect.isgenerator(result):
            return list(cast("list[Any]", result))
        return _finish(result) if inspect.isawaitable(result) or inspect.isasyncgen(result) else result

    return call


async def _finish(result: Any) -> Any:
    if inspect.isawaitable(result):
        result = await result
    if inspect.isasyncgen(result):
        async with aclosing(result) as items:
            return [item async for item in items]
    if inspect.isgenerator(result):
        return await off_the_loop(lambda: list(cast("list[Any]", result)))
    return result


async def call_from_async(call: Callable[[], Any], *, is_async: bool) -> Any:
    """Await ``call``, or run it in a worker thread, for which a cancellation does not wait."""
    if is_async:
        return await call()
    result = await off_the_loop(call)
    return await result if inspect.isawaitable(result) else result


@overload
def tool(name: _Function, /) -> FunctionTool: ...


@overload
def tool(
    name: str | None = None, /, *, result_as_answer: bool = False, max_usage_count: int | None = None
) -> Callable[[_Function], FunctionTool]: ...


def tool(
    name: _Function | str | None = None,
    /,
    *,
    result_as_answer: bool = False,
    max_usage_count: int | None = None,
) -> FunctionTool | Callable[[_Function], FunctionTool]:
    """Make a tool of a function: ``@tool``, or ``@tool("name")``. Its docstring is what the model reads.

    Raises:
        ValueError: the function has no docstring.
        TypeError: it is not a function, a ``partial`` for instance; or models cannot call it (see :class:`BaseTool`).
    """

    def make(function: _Function) -> FunctionTool:
        if not isinstance(getattr(function, "__name__", None), str):
            raise TypeError(
                f"tools are made of functions; put this in one that has a name and a docstring: {function!r}"
            )
        description = inspect.getdoc(function)
        if not description:
            raise ValueError(
                f"the tool {function.__name__!r} has no docstring; write one: it tells the model what the tool is for"
            )
        return FunctionTool(
            name=name if isinstance(name, str) else function.__name__,
            description=description,
            func=function,
            result_as_answer=result_as_answer,
            max_usage_count=max_usage_count,
        )

    return make(name) if callable(name) else make


def read_arguments(schema: type[BaseModel], text: str) -> dict[str, Any]:
    """The arguments that a model wrote as JSON, by a schema alone. Raises pydantic's ValidationError."""
    model = _read_model(schema, text)
    # Only what was given, so that the defaults of the function that it is for hold.
    return {name: getattr(model, name) for name in type(model).model_fields if name in model.model_fields_set}


def _read_model(schema: type[BaseModel], text: str) -> BaseModel:
    return schema.model_validate_json(text.strip() or "{}")


def function_name(name: str) -> str:
    """``name`` as providers accept it: letters, digits, ``_`` and ``-``, at most 64."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in name)[:64]


def as_text(result: Any) -> str:
    """A tool's result as the model reads it: text as it is, a crew's answer as its text, structures as JSON."""
    if isinstance(result, str):
        return result
    if isinstance(result, CrewOutput | TaskOutput):
        return result.raw
    if isinstance(result, BaseModel | dict | list | tuple):
        return to_json(cast(Any, result), fallback=str).decode()
    return str(result)
