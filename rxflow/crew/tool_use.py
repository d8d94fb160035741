"""Carrying out the tool calls of one turn: at once, with every failure told to the model and to the stream."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from rxflow.json_text import describe, list_problems
from rxflow.llm.request import Message
from rxflow.streaming.bridge import all_of, unasked
from rxflow.streaming.emitter import Emitter
from rxflow.streaming.output import read_out
from rxflow.tools import BaseTool, ToolUsageLimit, as_text, function_name
from rxflow.types.events import LLMFinished, ToolCall, ToolFailed, ToolFinished, ToolStarted

logger = logging.getLogger("rxflow")

_MAX_CONCURRENT_CALLS = 64  # of one turn: a model may ask for thousands, and each sync tool has a thread


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """The answer to one call: the text for the model, and whether it is the task's answer."""

    call: ToolCall
    text: str
    is_final: bool = False

    @property
    def message(self) -> Message:
        """How the model is told."""
        return {
            "role": "tool",
            "tool_call_id": self.call.id,
            "name": function_name(self.call.name) or "unnamed",
            "content": self.text,
        }


def asking_message(turn: LLMFinished) -> Message:
    """The model's own turn, as the conversation keeps it, in a form that strict providers take."""
    message: Message = {"role": "assistant", "content": turn.text, **turn.message}
    if not turn.tool_calls:
        return message
    # The calls of the turn and of its message are the same, in the same order.
    made: list[Any] = message.get("tool_calls") or [{"type": "function", "function": {}} for _ in turn.tool_calls]
    calls: list[dict[str, Any]] = [
        {
            **each,
            "id": call.id,
            # Providers refuse a name with other characters, though it was their model that made it up.
            "function": {
                **each["function"],
                "name": function_name(call.name) or "unnamed",
                "arguments": _as_object(call.arguments),
            },
        }
        for each, call in zip(made, turn.tool_calls, strict=True)
    ]
    return {**message, "content": turn.text or None, "tool_calls": calls}


def _as_object(arguments: str) -> str:
    """The text of a JSON object: providers read their history, and refuse the whole of it for one call cut short."""
    if not arguments.strip():
        return "{}"
    try:
        is_object = isinstance(from_json(arguments, allow_inf_nan=False), dict)
    except ValueError:
        is_object = False
    return arguments if is_object else json.dumps({"invalid_arguments": arguments})


class ToolCache:
    """Results of the tool calls in one run: the same call to the same tool is carried out once.

    Only a call that succeeded, and whose result the tool's ``cache_function`` allows, is remembered.
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[int, str], _Entry] = {}

    def entry(self, tool: BaseTool, arguments: str) -> _Entry:
        """The place for the result of one call; ``arguments`` is valid JSON."""
        key = id(tool), json.dumps(from_json(arguments.strip() or "{}"), sort_keys=True)
        return self._entries.setdefault(key, _Entry(tool))


@dataclass(slots=True)
class _Entry:
    """A call. Who makes it holds the lock, so that an equal one waits for its result."""

    tool: BaseTool  # kept, as its id is the key
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    results: list[Any] = field(default_factory=list[Any])


async def use_tools(
    emitter: Emitter, calls: Sequence[ToolCall], tools: Mapping[str, BaseTool], cache: ToolCache | None = None
) -> list[ToolAnswer]:
    """Run all calls of a turn at once, and return their answers in the order of the calls."""
    turn = asyncio.Semaphore(_MAX_CONCURRENT_CALLS)

    async def use(call: ToolCall) -> ToolAnswer:
        async with turn:
            return await _use(emitter, call, tools, cache)

    return await all_of(map(use, calls))


def by_function_name(tools: Sequence[BaseTool]) -> dict[str, BaseTool]:
    """Tools by the names that the model uses. Raises ValueError if two share one."""
    named: dict[str, BaseTool] = {}
    for tool in tools:
        name = function_name(tool.name)
        if named.setdefault(name, tool) is not tool:
            raise ValueError(f"two different tools are called {name!r}; give one of them another name")
    return named


async def _use(emitter: Emitter, call: ToolCall, tools: Mapping[str, BaseTool], cache: ToolCache | None) -> ToolAnswer:
    def fail(error: BaseException, text: str) -> ToolAnswer:
        logger.warning("%s: the tool %r failed: %s", emitter.origin.agent_role, call.name, describe(error))
        emitter.on_next(ToolFailed(origin=emitter.origin, tool_id=call.id, tool_name=call.name, error=error))
        return ToolAnswer(call, text)

    tool = tools.get(call.name)
    if tool is None:
        unknown = LookupError(f"there is no tool {call.name!r}; the tools are {sorted(tools)}")
        return fail(unknown, f"Error: {unknown}")
    if not call.arguments.strip() and tool.takes_arguments:
        missing = ValueError(f"the arguments of {call.name} did not arrive")
        return fail(missing, f"Error: {missing}. Call it again with all of them as one JSON object, {{}} for none.")
    try:
        arguments = tool.read_arguments(call.arguments)
    except ValidationError as error:
        problems = list_problems(error, "arguments")
        return fail(error, f"Error: the arguments of {call.name} are not valid. {problems}")
    emitter.on_next(ToolStarted(origin=emitter.origin, tool_id=call.id, tool_name=call.name, arguments=arguments))
    try:
        result = await _run(emitter, tool, arguments, None if cache is None else cache.entry(tool, call.arguments))
        text = as_text(result)
    except ToolUsageLimit as error:
        return fail(error, f"Error: {error}. Answer without it.")
    except asyncio.CancelledError as error:
        reported = unasked(error)
        if emitter.is_closed or reported is error:
            raise
        return fail(reported, f"Error: {call.name} raised {describe(reported)}")
    except (Exception, SystemExit) as error:  # noqa: BLE001 - told to the stream, and to the model, which may go on
        return fail(error, f"Error: {call.name} raised {describe(error)}")
    emitter.on_next(ToolFinished(origin=emitter.origin, tool_id=call.id, tool_name=call.name, result=result))
    return ToolAnswer(call, text, is_final=tool.result_as_answer)


async def _run(emitter: Emitter, tool: BaseTool, arguments: dict[str, Any], entry: _Entry | None) -> Any:
    async with nullcontext() if entry is None else entry.lock:
        # What the tool may not do any more it may not do by way of the cache either.
        if entry is not None and entry.results and not tool.is_used_up:
            return entry.results[0]
        result = await read_out(await emitter.invoke(tool.claim(), **arguments))
        may_keep = tool.cache_function is None or await emitter.invoke(tool.cache_function, arguments, result)
        if entry is not None and may_keep:
            entry.results.append(result)
        return result
