"""Tools: what a model may call. A class with ``_run``, or a function under ``@tool``."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, cast, get_type_hints, overload

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, create_model
from pydantic_core import to_json

from rxflow.loops import off_the_loop
from rxflow.types.results import CrewOutput, TaskOutput

__path__: list[str] = []  # makes room for rxflow.tools.base_tool, an alias of this module

_Function = Callable[..., Any]


class ToolUsageLimit(RuntimeError):
    """A tool was called more often than its ``max_usage_count`` allows."""


class _ReadFromRun(BaseModel):
    """Stands where a tool's arguments are to be read from its ``_run``."""


class BaseTool(BaseModel, ABC):
    """A tool with a name, a description for the model, and ``_run``, which may be a coroutine function.

    ``args_schema`` is a pydantic model of the arguments, made from the signature of ``_run`` unless given. With
    ``result_as_answer`` the result ends the task, unchanged. After ``max_usage_count`` calls it refuses: all calls
    of this object count, in whatever run or by hand, until :meth:`reset_usage_count`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    name: str
    description: str
    args_schema: type[BaseModel] = _ReadFromRun
    result_as_answer: bool = False
    max_usage_count: int | None = Field(default=None, gt=0)
    _used: int = PrivateAttr(default=0)

    @abstractmethod
    def _run(self, *args: Any, **kwargs: Any) -> Any:
        """Do the work."""

    def model_post_init(self, context: Any, /) -> None:
        if self.args_schema is _ReadFromRun:
            self.args_schema = _schema_of(self._implementation, self.name)

    @property
    def _implementation(self) -> _Function:
        return self._run

    @property
    def usage_count(self) -> int:
        """How often it has been called."""
        return self._used

    def reset_usage_count(self) -> None:
        """Count from 0 again: before a run, for instance, so that ``max_usage_count`` holds for that run."""
        self._used = 0

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Call it from sync code. Raises :class:`ToolUsageLimit`, and whatever the tool raises."""
        if inspect.iscoroutinefunction(self._implementation):
            raise TypeError(f"the tool {self.name!r} is async: await tool.arun(…)")
        self._count()
        return self._implementation(*args, **kwargs)

    async def arun(self, *args: Any, **kwargs: Any) -> Any:
        """Call it from async code; a sync tool runs in a worker thread."""
        self._count()
        if inspect.iscoroutinefunction(self._implementation):
            return await self._implementation(*args, **kwargs)
        # Abandoned where the caller is cancelled: else the cancellation would wait for the tool.
        return await off_the_loop(lambda: self._implementation(*args, **kwargs))

    def read_arguments(self, text: str) -> dict[str, Any]:
        """The arguments that a model wrote as JSON. Raises pydantic's ValidationError where they do not fit."""
        return read_arguments(self.args_schema, text)

    def claim(self) -> _Function:
        """Count one use and give the function to call. Raises :class:`ToolUsageLimit`."""
        self._count()
        return self._implementation

    def _count(self) -> None:
        if self.max_usage_count is not None and self._used >= self.max_usage_count:
            raise ToolUsageLimit(
                f"the tool {self.name!r} may be used {self.max_usage_count} times, and that has been done"
            )
        self._used += 1

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

    function: _Function = Field(exclude=True)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    @property
    def _implementation(self) -> _Function:
        return self.function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


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
        TypeError: it is no function, a ``partial`` for instance.
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
            function=function,
            result_as_answer=result_as_answer,
            max_usage_count=max_usage_count,
        )

    return make(name) if callable(name) else make


def read_arguments(schema: type[BaseModel], text: str) -> dict[str, Any]:
    """The arguments that a model wrote as JSON, by their schema. Raises pydantic's ValidationError."""
    model = schema.model_validate_json(text.strip() or "{}")
    # Only what was given, so that the function's own defaults hold; attributes, so that nested models stay models.
    return {name: getattr(model, name) for name in type(model).model_fields if name in model.model_fields_set}


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


def _schema_of(function: _Function, name: str) -> type[BaseModel]:
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (hints.get(parameter.name, Any), default)
    return create_model(f"{function_name(name)}_arguments", **fields)
