"""Converts tools of other libraries to tools of rxflow, without importing the other libraries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial, wraps
from typing import Annotated, Any, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, create_model
from pydantic.errors import PydanticSchemaGenerationError

from rxflow._streaming import in_thread
from rxflow.tools import BaseTool, FunctionTool


def as_tool(given: object) -> BaseTool:
    """Return ``given`` as a tool of rxflow. If ``given`` is a tool of rxflow already, return it unchanged.

    This adapts tools of LangChain and CrewAI, and any object that has a name, a description and one of the methods
    ``invoke``, ``_run``, ``run`` and ``func``. The LLM sees the schema in the object's ``args_schema``. If there is no
    ``args_schema``, the LLM sees the schema that LangChain's tools have in ``tool_call_schema`` or ``args``. If there
    is none of these, the LLM sees the signature of ``_run``, ``run`` or ``func``.

    Raises:
        TypeError: ``given`` is not a tool, has no description, or has an ``args_schema`` of the wrong type.
    """
    if isinstance(given, BaseTool):
        return given
    name = getattr(given, "__name__", repr(given))
    if isinstance(given, type):
        raise TypeError(f"{name} is a class, not a tool; give an object of it, {name}(…)")
    call = _call_of(given)
    if call is not None and isinstance(getattr(given, "name", None), str):
        return _adapt(given, call)
    if callable(given):
        raise TypeError(f"{name} is a function, not a tool; put @tool on it")
    raise TypeError(f"{given!r} is not a tool; give a @tool function or an object with name, description and _run")


Tool = Annotated[BaseTool, BeforeValidator(as_tool)]
"""The type of a field that accepts a tool, or anything that :func:`as_tool` can convert."""


def _call_of(original: Any) -> Callable[..., Any] | None:
    """Return a function that calls ``original`` with keyword arguments; None if ``original`` has no method for this."""
    if callable(getattr(original, "invoke", None)):
        return _invoking(original)
    ways = (getattr(original, way, None) for way in ("_run", "run", "func"))
    return next((way for way in ways if callable(way)), None)


def _invoking(original: Any) -> Callable[..., Any]:
    """Return a function that calls ``invoke`` or ``ainvoke`` of a LangChain tool.

    The function passes its keyword arguments to the tool as one dict. It calls ``invoke``, or ``ainvoke`` if the tool
    has only async code.
    """
    is_async_only = getattr(original, "coroutine", None) is not None and getattr(original, "func", None) is None

    async def invoke(**arguments: Any) -> Any:
        if is_async_only:
            return await original.ainvoke(arguments)
        try:
            return await in_thread(partial(original.invoke, arguments), name=f"tool {original.name}")
        except NotImplementedError as error:
            if not (_has_async_code(original) and _is_raised_by(original, error)):
                raise  # the tool's own code may have run, and a second call would do the work twice
            return await original.ainvoke(arguments)

    return invoke


def _has_async_code(original: Any) -> bool:
    """Return whether ``original`` has async code of its own.

    LangChain's default async methods do not count, because they only call the sync code.
    """
    if not callable(getattr(original, "ainvoke", None)):
        return False
    ways = (getattr(original, name, None) for name in ("_arun", "ainvoke"))
    return any(callable(way) and not str(getattr(way, "__module__", "")).startswith("langchain_core.") for way in ways)


def _is_raised_by(original: Any, error: NotImplementedError) -> bool:
    """Return whether the error was raised directly in ``invoke`` or ``_run``, and not in a function that they call."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    own = [getattr(getattr(original, name, None), "__code__", None) for name in ("invoke", "_run")]
    return trace is not None and trace.tb_frame.f_code in own


def _adapt(original: Any, call: Callable[..., Any]) -> BaseTool:
    description = getattr(original, "description", None)
    if not isinstance(description, str) or not description.strip():
        raise TypeError(f"the tool {original.name!r} has no description; it tells the model what the tool is for")
    schema = getattr(original, "args_schema", None)
    if schema is None:
        schema = _read_by_langchain(original)
    options: dict[str, Any] = {
        "result_as_answer": bool(
            getattr(original, "result_as_answer", False) or getattr(original, "return_direct", False)
        ),
        "max_usage_count": getattr(original, "max_usage_count", None),
    }
    if schema is not None:
        options["args_schema"] = _model_of(original.name, schema)
    if callable(cached := getattr(original, "cache_function", None)):
        options["cache_function"] = cached
    make = partial(FunctionTool, name=original.name, description=description, **options)
    function = getattr(original, "_run", None)
    if schema is None and callable(function) and function != call:
        # FunctionTool reads the arguments from the signature of ``_run``. It cannot read every signature.
        with suppress(TypeError, NameError, PydanticSchemaGenerationError):
            return make(func=wraps(function)(call))
    return make(func=call)


def _read_by_langchain(original: Any) -> dict[str, Any] | None:
    """Return the JSON Schema that LangChain has read from the signature of ``_run``; None for other libraries' tools.

    ``args`` has only the properties, without the ``$defs`` to which they may refer.
    """
    properties = getattr(original, "args", None)
    shown = cast(Mapping[str, Any], properties) if isinstance(properties, Mapping) else None
    described = getattr(original, "tool_call_schema", None)
    if isinstance(described, type) and issubclass(described, BaseModel):
        whole = described.model_json_schema()
        # LangChain's ``Tool`` has an ``args`` of its own. Its ``tool_call_schema`` describes a method that it replaces.
        if shown is None or set(whole.get("properties", ())) <= set(shown):
            return {key: whole[key] for key in ("type", "properties", "required", "$defs") if key in whole}
    if shown is None:
        return None
    required = [each for each in shown if "default" not in shown[each]]
    return {"type": "object", "properties": {**shown}, "required": required}


def _model_of(name: str, schema: object) -> type[BaseModel]:
    """Return a pydantic model of the arguments.

    If ``schema`` is a model of pydantic 2, return ``schema`` itself. If ``schema`` is a JSON Schema or a model of
    pydantic 1, return a new model. The new model has the same JSON Schema, but does not check the values.

    Raises:
        TypeError: ``schema`` has another type.
    """
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return schema
    if isinstance(schema, Mapping):
        shown = {**cast(Mapping[str, Any], schema)}
    elif callable(describe := getattr(cast(object, schema), "schema", None)):  # a model of pydantic 1
        shown = cast(dict[str, Any], describe())
    else:
        raise TypeError(f"the args_schema of the tool {name!r} is not a pydantic model or a JSON schema: {schema!r}")
    return _passing_on(shown)


def _passing_on(shown: dict[str, Any]) -> type[BaseModel]:
    """Create a model that accepts any values, because the tool itself checks the values.

    ``shown`` is the JSON Schema of the model.
    """

    class Arguments(BaseModel):
        model_config = ConfigDict(extra="allow")

        @classmethod
        def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
            return {**shown}

    # Only required arguments become fields. Optional arguments are extras, so that the tool's own defaults apply.
    fields: dict[str, Any] = {
        each: (Any, ...)
        for each in shown.get("required", ())
        if each.isidentifier() and not each.startswith("_") and not hasattr(BaseModel, each)
    }
    return create_model("Arguments", __base__=Arguments, **fields)
