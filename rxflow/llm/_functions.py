"""Tools of a call: the schemas for the model, and the functions behind its calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from inspect import Signature, iscoroutine, iscoroutinefunction, signature
from typing import Any, TypeAlias, cast

from pydantic import ValidationError
from pydantic_core import from_json

from rxflow._tool_adapter import as_tool
from rxflow.llm.source import ToolSchema, is_list
from rxflow.tools import BaseTool, call_from_async, function_name
from rxflow.types import ToolCall

Offered: TypeAlias = ToolSchema | BaseTool
"""A schema in the form of OpenAI's chat API, or a tool, which has one."""

Functions: TypeAlias = Mapping[str, Callable[..., Any] | BaseTool]
"""Functions, by the names that the model uses for them."""


def schemas_of(tools: Sequence[Offered]) -> tuple[ToolSchema, ...]:
    """Return the schemas of the offered tools. Raises TypeError for anything that is neither a tool nor a schema."""
    given: object = tools
    if not is_list(given):
        raise TypeError(f"tools is a list of tools or schemas; got {given!r}")
    return tuple(map(_schema_of, given))


def _schema_of(tool: Any) -> ToolSchema:
    return cast(ToolSchema, tool) if isinstance(tool, Mapping) else as_tool(tool).schema_for_model


def runnable(tools: Sequence[Offered] | None, available: Functions | None) -> Functions:
    """Return the functions that may run: the tools themselves and ``available``.

    If ``available`` is an empty mapping, no function may run.
    """
    if available is not None and not available:
        return {}
    own = {function_name(each.name): each for each in map(as_tool, _no_schemas(tools or ()))}
    return {**own, **(available or {})}


def _no_schemas(tools: Sequence[Offered]) -> Iterator[object]:
    return (each for each in tools if not isinstance(each, Mapping))


def refuse_async(functions: Functions) -> None:
    """Raise TypeError for a coroutine function, which sync code cannot await. Call this before calling the model."""
    for name, function in functions.items():
        if iscoroutinefunction(function):
            raise _needs_acall(name)


def function_for(calls: Sequence[ToolCall], functions: Functions, *, is_async: bool) -> partial[Any] | None:
    """Return the function of the first call, with its arguments. Return None if there are no calls or no functions.

    Raises:
        ValueError: the model called an unknown function, or with arguments that are missing or do not fit.
        ToolUsageLimit: the tool was used too often.
    """
    if not calls or not functions:
        return None
    call = calls[0]
    function = functions.get(call.name)
    if function is None:
        raise ValueError(
            f"the model called {call.name!r}, which is neither a given tool nor in "
            f"available_functions: {sorted(functions)}"
        )
    arguments = _arguments(call, function)
    return partial(function.claim(is_async=is_async) if isinstance(function, BaseTool) else function, **arguments)


def _arguments(call: ToolCall, function: Callable[..., Any] | BaseTool) -> dict[str, Any]:
    text = call.arguments.strip()
    if not text and _takes_arguments(function):
        raise ValueError(f"the model called {call.name!r}, and its arguments did not arrive")
    text = text or "{}"
    try:
        if isinstance(function, BaseTool):
            return function.read_arguments(text)
        read: Any = from_json(text)
    except ValidationError as error:
        raise _no_fit(call) from error
    except ValueError as error:
        raise _no_object(call) from error
    if not isinstance(read, dict):
        raise _no_object(call)
    arguments = cast(dict[str, Any], read)
    expected = _signature_of(function)
    if expected is not None:
        try:
            expected.bind(**arguments)
        except TypeError as error:
            raise _no_fit(call) from error
    return arguments


def _takes_arguments(function: Callable[..., Any] | BaseTool) -> bool:
    if isinstance(function, BaseTool):
        return function.takes_arguments
    expected = _signature_of(function)
    parameters = () if expected is None else expected.parameters.values()
    return any(each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD) for each in parameters)


def _signature_of(function: Callable[..., Any]) -> Signature | None:
    try:
        return signature(function)
    except ValueError:  # some builtins have no signature
        return None


def _no_fit(call: ToolCall) -> ValueError:
    return ValueError(f"the model called {call.name!r} with arguments that do not fit: {call.arguments!r}")


def _no_object(call: ToolCall) -> ValueError:
    return ValueError(f"the model called {call.name!r} with arguments that are not a JSON object: {call.arguments!r}")


def run_function(function: partial[Any], name: str) -> Any:
    """Call the function in sync code. Raises TypeError if it returns a coroutine, as a lambda may do."""
    result = function()
    if iscoroutine(result):
        result.close()
        raise _needs_acall(name)
    return result


async def arun_function(function: partial[Any]) -> Any:
    """Await an async function; run a sync one in a worker thread. A cancellation does not wait for that thread."""
    return await call_from_async(function, is_async=iscoroutinefunction(function.func))


def _needs_acall(name: str) -> TypeError:
    return TypeError(f"the function {name!r} is async: use acall")
