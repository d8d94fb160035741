"""Carrying out the tool calls of one turn: at once, with every failure told to the model and to the stream."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from rxflow.json_text import in_words
from rxflow.llm.request import Message
from rxflow.streaming.bridge import all_of
from rxflow.streaming.emitter import Emitter
from rxflow.streaming.output import read_out
from rxflow.tools import BaseTool, ToolUsageLimit, as_text, function_name
from rxflow.types.events import LLMFinished, ToolCall, ToolFailed, ToolFinished, ToolStarted

_AT_ONCE = 64  # calls of one turn: a model may ask for thousands, and each sync tool has a thread


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """What one call came to: the text for the model, and whether it is the task's answer."""

    call: ToolCall
    text: str
    is_final: bool = False

    @property
    def message(self) -> Message:
        """How the model is told."""
        return {
            "role": "tool",
            "tool_call_id": self.call.id,
            "name": self.call.name,
            "content": self.text,
        }


def asking_message(turn: LLMFinished) -> Message:
    """The model's own turn, as the conversation keeps it."""
    if not turn.tool_calls:
        return {"role": "assistant", "content": turn.text}
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments or "{}"}}
        for call in turn.tool_calls
    ]
    return {"role": "assistant", "content": turn.text or None, "tool_calls": calls}


async def use_tools(emitter: Emitter, calls: Sequence[ToolCall], tools: Mapping[str, BaseTool]) -> list[ToolAnswer]:
    """Run all calls of a turn at once, and give their answers in the order of the calls."""
    turn = asyncio.Semaphore(_AT_ONCE)

    async def use(call: ToolCall) -> ToolAnswer:
        async with turn:
            return await _use(emitter, call, tools)

    return await all_of(map(use, calls))


def by_function_name(tools: Sequence[BaseTool]) -> dict[str, BaseTool]:
    """Tools by the names that the model uses. ValueError where two share one."""
    named: dict[str, BaseTool] = {}
    for tool in tools:
        name = function_name(tool.name)
        if named.setdefault(name, tool) is not tool:
            raise ValueError(f"two different tools are called {name!r}; give one of them another name")
    return named


async def _use(emitter: Emitter, call: ToolCall, tools: Mapping[str, BaseTool]) -> ToolAnswer:
    def failed(error: BaseException, text: str) -> ToolAnswer:
        emitter.on_next(ToolFailed(origin=emitter.origin, tool_id=call.id, tool_name=call.name, error=error))
        return ToolAnswer(call, text)

    tool = tools.get(call.name)
    if tool is None:
        unknown = LookupError(f"there is no tool {call.name!r}; the tools are {sorted(tools)}")
        return failed(unknown, f"Error: {unknown}")
    try:
        arguments = tool.read_arguments(call.arguments)
    except ValidationError as error:
        return failed(error, f"Error: the arguments of {call.name} are not valid. {_explained(error)}")
    emitter.on_next(ToolStarted(origin=emitter.origin, tool_id=call.id, tool_name=call.name, arguments=arguments))
    try:
        result = await read_out(await emitter.invoke(tool.claim(), **arguments))
        text = as_text(result)
    except ToolUsageLimit as error:
        return failed(error, f"Error: {error}. Answer without it.")
    except (Exception, SystemExit) as error:  # noqa: BLE001 - told to the stream, and to the model, which may go on
        return failed(error, f"Error: {call.name} raised {type(error).__name__}: {in_words(error)}")
    emitter.on_next(ToolFinished(origin=emitter.origin, tool_id=call.id, tool_name=call.name, result=result))
    return ToolAnswer(call, text, is_final=tool.result_as_answer)


def _explained(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, each['loc'])) or 'arguments'}: {each['msg']}" for each in error.errors())
