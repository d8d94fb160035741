"""Tools that a model may call: classes with ``_run``, and functions with ``@tool``."""

from __future__ import annotations

import inspect
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from contextlib import aclosing, suppress
from functools import wraps
from typing import Any, Self, cast, get_type_hints, overload

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator
from pydantic_core import PydanticSerializationError, to_json

from rxflow._loops import off_the_loop, running_loop
from rxflow._text import list_problems
from rxflow._tool_parameters import Parameters, as_arguments
from rxflow.types import CrewOutput, TaskOutput

__all__ = ["BaseTool", "FunctionTool", "ToolUsageLimit", "tool"]
__path__: list[str] = []  # so that CrewAI's path rxflow.tools.base_tool can be imported; see rxflow._aliases

_Function = Callable[..., Any]

_counting = threading.Lock()  # guards the usage counts, because runs on several threads may share a tool


class ToolUsageLimit(RuntimeError):
    """A tool was called more often than its ``max_usage_count`` allows."""


class _ReadFromRun(BaseModel):
    """The default of ``args_schema``. In each tool, a schema of the tool's own parameters replaces this class."""


def _always(arguments: Any = None, result: Any = None) -> bool:
    return True


class BaseTool(BaseModel, ABC):
    """A tool with a name, a description for the model, and ``_run``, which may be a coroutine function.

    ``_run`` may also be a generator or an async generator. The result is then a list of the items. If a class also
    defines ``_arun``, agents and :meth:`arun` call ``_arun`` instead. If the ``_run`` of such
    a class has no named parameters, the signature of ``_arun`` is read in place of the signature of ``_run``.

    Args:
        args_schema: a pydantic model of the arguments; by default created from the signature of ``_run``.
        result_schema: a pydantic model of the result. The LLM then reads the result as JSON. By default, this is the
            return annotation of ``_run`` if that is a pydantic model.
        result_as_answer: whether the result becomes the answer of the task, unchanged.
        max_usage_count: how often the tool may be called, in all runs together. Calls by agents and calls of
            :meth:`run` and :meth:`arun` count. :meth:`reset_usage_count` sets the count to 0.
        cache_function: gets the arguments and the result, and returns whether an equal call in the same run may reuse
            the result. If it raises, the result is not reused. By default, each result may be reused.
        needs_approval: whether a person is asked before an agent calls the tool. The person may allow or refuse the
            call, or change the arguments. If ``needs_approval`` is a function, sync or async, the function gets the
            arguments, and returns whether to ask.
        is_idempotent: whether a second call does no harm. Only then may a resumed run repeat an interrupted call.

    Raises:
        ValueError: ``max_usage_count`` is not a positive integer.
        TypeError: ``_run`` has a positional-only parameter, ``args_schema`` lacks a required parameter of ``_run``, or
            ``args_schema`` has a field that ``_run`` does not accept.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    name: str
    description: str
    args_schema: type[BaseModel] = _ReadFromRun
    result_schema: type[BaseModel] | None = None
    result_as_answer: bool = False
    max_usage_count: int | None = None
    current_usage_count: int = Field(default=0, ge=0)
    cache_function: Callable[..., Any] | None = Field(default=_always, exclude=True)
    needs_approval: bool | Callable[..., Any] = Field(default=False, exclude=True)
    is_idempotent: bool = False
    _parameters: Parameters = PrivateAttr()
    _read_schema: type[BaseModel] | None = PrivateAttr(default=None)

    @field_validator("max_usage_count")
    @classmethod
    def _check_count(cls, count: int | None) -> int | None:
        if count is not None and count < 1:
            raise ValueError(f"max_usage_count must be a positive integer: {count}")
        return count

    @abstractmethod
    def _run(self, *args: Any, **kwargs: Any) -> Any:
        """Do the work of the tool."""

    async def _arun(self, *args: Any, **kwargs: Any) -> Any:
        """Do the work of the tool in async code. If a class does not define this method, ``_run`` is used."""
        raise NotImplementedError(f"the tool {self.name!r} has no _arun")

    @model_validator(mode="after")
    def _read_signature(self) -> Self:
        function = self._function
        if self._has_arun and not Parameters.of(function, self.name).names:
            function = self._arun
        self._parameters = Parameters.of(function, self.name)
        if self.result_schema is None:
            self.result_schema = _find_result_schema(function)
        if self.args_schema is _ReadFromRun:
            schema = self._parameters.make_schema(function, f"{function_name(self.name)}_arguments")
            self.args_schema = self._read_schema = schema
        # pydantic validates a tool again when an agent receives it. args_schema is then the schema created above.
        elif self.args_schema is not self._read_schema:
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
        """Whether the tool has been called as often as ``max_usage_count`` allows."""
        return self.max_usage_count is not None and self.current_usage_count >= self.max_usage_count

    @property
    def takes_arguments(self) -> bool:
        """Whether a call may have arguments."""
        return bool(self.args_schema.model_fields) or self.args_schema.model_config.get("extra") == "allow"

    def reset_usage_count(self) -> None:
        """Set the number of counted calls to 0, for example at the start of a run."""
        self.current_usage_count = 0

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Call the tool in sync code.

        The arguments are validated and converted. By default, unknown keyword arguments are dropped.

        Raises:
            ValueError: the arguments are not valid.
            TypeError: there are too many positional arguments, a parameter got two values, or an async tool was called
                in the thread of a running event loop.
            ToolUsageLimit: the tool was called too often.
            Exception: the tool's own error.
        """
        arguments = self._convert(args, kwargs)
        is_in_loop = running_loop() is not None
        if is_in_loop and _is_async(self._function):  # checked before the call counts as a use
            raise self._refuse_to_block()
        result = self.claim(is_async=False)(**arguments)
        if not inspect.iscoroutine(result):
            return result
        if is_in_loop:  # only the result shows that the tool is async
            _close_unstarted(result)
            with _counting:
                self.current_usage_count = max(self.current_usage_count - 1, 0)
            raise self._refuse_to_block()
        from rxflow._streaming import await_blocking  # imported late, because only direct calls of async tools need it

        return await_blocking(result)

    def _refuse_to_block(self) -> TypeError:
        return TypeError(f"the tool {self.name!r} is async: await tool.arun(…)")

    async def arun(self, *args: Any, **kwargs: Any) -> Any:
        """Call the tool in async code. A sync tool runs in a worker thread."""
        arguments = self._convert(args, kwargs)
        function = self.claim()
        return await call_from_async(lambda: function(**arguments), is_async=inspect.iscoroutinefunction(function))

    def invoke(self, input: Mapping[str, Any] | str) -> Any:  # noqa: A002 - the name in LangChain and CrewAI
        """Call :meth:`run` with the arguments in one mapping, or as JSON text."""
        return self.run(**as_arguments(input))

    async def ainvoke(self, input: Mapping[str, Any] | str) -> Any:  # noqa: A002
        """Call :meth:`arun` with the arguments in one mapping, or as JSON text."""
        return await self.arun(**as_arguments(input))

    def format_output_for_agent(self, raw_result: Any) -> str:
        """Return the result as text for the model. A subclass may override this to change the text.

        A result that does not fit ``result_schema`` is converted with ``str``, and a RuntimeWarning is issued.
        """
        schema = self.result_schema
        if schema is None:
            return as_text(raw_result)
        try:
            return schema.model_validate(raw_result).model_dump_json()
        except (ValidationError, PydanticSerializationError) as error:
            warnings.warn(
                f"Failed to validate or serialize the result of the tool {self.name!r} as {schema.__name__} "
                f"({type(error).__name__}); the model reads str(result)",
                RuntimeWarning,
                stacklevel=2,
            )
            return str(raw_result)

    def to_structured_tool(self) -> Self:
        """Return the tool itself: rxflow has one kind of tool. CrewAI has a second kind, for agents."""
        return self

    def read_arguments(self, text: str) -> dict[str, Any]:
        """Return the arguments that a model wrote as JSON. Raises ValidationError if the arguments do not fit."""
        return self._parameters.arguments_of(_read_model(self.args_schema, text))

    def claim(self, *, is_async: bool = True) -> _Function:
        """Count one use, and return the function that does the work. Raises ToolUsageLimit if no use is left.

        If ``is_async`` is True and the class defines ``_arun``, the function calls ``_arun``. Otherwise it calls
        ``_run``. Async code should call a sync function in a worker thread. If a sync function returns a coroutine, the
        caller must await the coroutine.
        """
        with _counting:
            if self.is_used_up:
                raise ToolUsageLimit(
                    f"the tool {self.name!r} has been used max_usage_count={self.max_usage_count} times already"
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
        """The description of the tool for OpenAI's chat API."""
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
    """A tool that calls a function."""

    func: _Function = Field(exclude=True)

    @classmethod
    def from_function(
        cls, func: _Function, name: str | None = None, description: str | None = None, **options: Any
    ) -> Self:
        """Create a tool from ``func``. By default, the tool has the name and the docstring of ``func``.

        Raises:
            ValueError: there is neither a ``description`` nor a docstring.
            TypeError: ``func`` has no ``__name__`` (a ``partial`` has none), has a positional-only parameter, is an
                unbound method, or does not match ``args_schema``.
        """
        own_name = getattr(func, "__name__", None)
        if not isinstance(own_name, str):
            raise TypeError(f"tools are made of functions; put this in one that has a name and a docstring: {func!r}")
        description = description or inspect.getdoc(func)
        if not description:
            raise ValueError(
                f"the tool {own_name!r} has no docstring; write one: it tells the model what the tool is for"
            )
        given = {option: value for option, value in options.items() if value is not None}
        return cls(name=name or own_name, description=description, func=func, **given)

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        return self.func(*args, **kwargs)

    @property
    def _function(self) -> _Function:
        return self.func

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.func(*args, **kwargs)


def _find_result_schema(function: _Function) -> type[BaseModel] | None:
    """Return the return annotation of ``function`` if it is a pydantic model; otherwise None.

    Return None also if the annotation is the class of a crew's or task's output. An LLM reads the text of such an
    output, not its JSON.
    """
    try:
        returned: Any = get_type_hints(function).get("return")
    except Exception:  # noqa: BLE001 - evaluating a text that only type checkers read may raise anything
        return None
    if not isinstance(returned, type) or not issubclass(returned, BaseModel):
        return None
    return None if issubclass(returned, CrewOutput | TaskOutput) else returned


def _is_async(function: _Function) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _gathering(function: _Function) -> _Function:
    """Wrap ``function`` so that a generator becomes a list of its items, and an awaitable is awaited.

    If a sync ``function`` returns an awaitable or an async generator, the wrapper returns a coroutine for the result.
    """
    if _is_async(function):

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
    while inspect.isawaitable(result):  # an async function may return what it has not awaited
        result = await result
    if inspect.isasyncgen(result):
        async with aclosing(result) as items:
            return [item async for item in items]
    if inspect.isgenerator(result):
        return await off_the_loop(lambda: list(cast("list[Any]", result)))
    return result


def _close_unstarted(finishing: Coroutine[Any, Any, Any]) -> None:
    """Close a coroutine of :func:`_finish`, and the coroutine that it would await."""
    awaited = inspect.getcoroutinelocals(finishing)["result"]
    for each in (finishing, awaited):
        if inspect.iscoroutine(each):
            each.close()


async def call_from_async(call: Callable[[], Any], *, is_async: bool) -> Any:
    """Await ``call()`` if ``is_async``; otherwise, use a worker thread. A cancellation does not wait for the thread."""
    result = await call() if is_async else await off_the_loop(call)
    while inspect.isawaitable(result):
        result = await result
    return result


@overload
def tool(name: _Function, /) -> FunctionTool: ...


@overload
def tool(
    name: str | None = None,
    /,
    *,
    result_as_answer: bool = False,
    max_usage_count: int | None = None,
    needs_approval: bool | Callable[..., Any] = False,
    is_idempotent: bool = False,
    result_schema: type[BaseModel] | None = None,
) -> Callable[[_Function], FunctionTool]: ...


def tool(
    name: _Function | str | None = None,
    /,
    *,
    result_as_answer: bool = False,
    max_usage_count: int | None = None,
    needs_approval: bool | Callable[..., Any] = False,
    is_idempotent: bool = False,
    result_schema: type[BaseModel] | None = None,
) -> FunctionTool | Callable[[_Function], FunctionTool]:
    """Turn a function into a tool, with ``@tool`` or ``@tool("name")``.

    The function's docstring becomes the tool's description, which the model reads. :class:`BaseTool` describes the
    options.

    Raises:
        ValueError: the function has no docstring.
        TypeError: the decorated object has no ``__name__`` (a ``partial`` has none), has a positional-only parameter,
            or is an unbound method.
    """

    def make(function: _Function) -> FunctionTool:
        return FunctionTool.from_function(
            function,
            name if isinstance(name, str) else None,
            result_as_answer=result_as_answer,
            max_usage_count=max_usage_count,
            needs_approval=needs_approval,
            is_idempotent=is_idempotent,
            result_schema=result_schema,
        )

    return make(name) if callable(name) else make


def read_arguments(schema: type[BaseModel], text: str) -> dict[str, Any]:
    """Return the arguments that a model wrote as JSON. Raises ValidationError if they do not fit ``schema``."""
    model = _read_model(schema, text)
    # Return only the arguments in the text. For the other arguments, the function's own defaults then apply.
    return {name: getattr(model, name) for name in type(model).model_fields if name in model.model_fields_set}


def _read_model(schema: type[BaseModel], text: str) -> BaseModel:
    return schema.model_validate_json(text.strip() or "{}")


def function_name(name: str) -> str:
    """Return a name that providers accept: up to 64 ASCII letters, digits, ``-`` and ``_``.

    All other characters of ``name`` become ``_``.
    """
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in name)[:64]


def as_text(result: Any) -> str:
    """Return a tool's result as text for the model.

    Text is unchanged. The output of a crew or a task becomes its text. A pydantic object, dict, list or tuple becomes
    JSON, in which NaN and infinity are null, because JSON has no such values. All values of other types are converted
    with ``str``. A structure that JSON cannot represent, such as a list that contains itself, is also converted with
    ``str``.
    """
    if isinstance(result, str):
        return result
    if isinstance(result, CrewOutput | TaskOutput):
        return result.raw
    if isinstance(result, BaseModel | dict | list | tuple):
        with suppress(PydanticSerializationError):  # a result that JSON cannot represent is not an error
            return to_json(cast(Any, result), fallback=str, inf_nan_mode="null").decode()
    return str(cast(object, result))
