"""The tools of an LLM call: schemas for the model, functions to run, and tools that are described in the prompt."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from inspect import Signature, iscoroutine, iscoroutinefunction, signature
from typing import Any, TypeAlias, cast

from pydantic import ValidationError
from pydantic_core import from_json
from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow._tool_adapter import as_tool
from rxflow.llm._call import count_overlap
from rxflow.llm.source import Delta, Ending, Message, Request, Source, ToolCallDelta, ToolSchema, is_list, join_texts
from rxflow.tools import BaseTool, call_from_async, function_name
from rxflow.types import ToolCall

Offered: TypeAlias = ToolSchema | BaseTool
"""A tool, or the schema of a tool in the form of OpenAI's chat API."""

Functions: TypeAlias = Mapping[str, Callable[..., Any] | BaseTool]
"""Functions and tools, by the names that the model uses for them."""


def schemas_of(tools: Sequence[Offered]) -> tuple[ToolSchema, ...]:
    """Return the schemas of ``tools``. Raises TypeError if ``tools`` is not a list of tools and schemas."""
    given: object = tools
    if not is_list(given):
        raise TypeError(f"tools is a list of tools or schemas; got {given!r}")
    return tuple(map(_schema_of, given))


def _schema_of(tool: Any) -> ToolSchema:
    return cast(ToolSchema, tool) if isinstance(tool, Mapping) else as_tool(tool).schema_for_model


def runnable(tools: Sequence[Offered] | None, available: Functions | None) -> Functions:
    """Return the functions that may run: the functions in ``available``, and the tools in ``tools``.

    Schemas in ``tools`` cannot run. A function in ``available`` replaces a tool of the same name. But if ``available``
    is an empty mapping, nothing may run, not even the tools.
    """
    if available is not None and not available:
        return {}
    own = {function_name(each.name): each for each in map(as_tool, _no_schemas(tools or ()))}
    return {**own, **(available or {})}


def _no_schemas(tools: Sequence[Offered]) -> Iterator[object]:
    return (each for each in tools if not isinstance(each, Mapping))


def refuse_async(functions: Functions) -> None:
    """Raise TypeError if a function is async, because sync code cannot await it. Call this before calling the model."""
    for name, function in functions.items():
        if iscoroutinefunction(function):
            raise _needs_acall(name)


def function_for(calls: Sequence[ToolCall], functions: Functions, *, is_async: bool) -> partial[Any] | None:
    """Return the function for the first of ``calls``, with the arguments of this call.

    Return None if there are no calls or no functions.

    Raises:
        ValueError: the model called an unknown function, or the arguments are missing or do not fit.
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
    """Await ``function`` if it is async. Otherwise run it in a worker thread.

    A cancellation does not wait for the thread.
    """
    return await call_from_async(function, is_async=iscoroutinefunction(function.func))


def _needs_acall(name: str) -> TypeError:
    return TypeError(f"the function {name!r} is async: use acall")


_OPEN = "```tool_call"
_OPENING = re.compile(re.escape(_OPEN) + r"(?=[\s{])")  # "```tool_calls" is another word
_CLOSE = "\n```"  # JSON escapes the line breaks in strings, so the arguments of a call cannot contain this text


def offering_in_text(source: Source, request: Request) -> Observable[Delta]:
    """Return the deltas of a call to ``source``. The prompt describes the tools of ``request`` in text.

    Each tool call in the text of the answer becomes a :class:`ToolCallDelta`. ::

        source    "Let me look. "---"```tool_call⏎{…}"---"⏎```"---E|
        result    "Let me look."-------------------------T--------E|

    T is the ToolCallDelta, E is the :class:`Ending`.
    """
    instructions = [_instructions(request)] if request.may_call_tools and request.functions else []
    worded = replace(
        request,
        messages=[*instructions, *_describe_tool_use(request.messages)],
        tools=[tool for tool in request.tools if "function" not in tool],  # only the provider's own tools
        parameters=_without_tool_choice(request.parameters),
        hints=_without_tool_choice(request.hints),
    )

    def subscribe(observer: ObserverBase[Delta], scheduler: SchedulerBase | None = None) -> DisposableBase:
        reader = _FenceReader()

        def on_next(delta: Delta) -> None:
            if isinstance(delta, str):
                _emit(observer.on_next, reader.feed(delta))
            elif isinstance(delta, Ending):
                _emit(observer.on_next, reader.flush())
                # Other reasons stay: "length" and "content_filter" report that the answer was cut off.
                calls_tools = reader.calls and delta.finish_reason in ("stop", None)
                observer.on_next(replace(delta, finish_reason="tool_calls") if calls_tools else delta)
            else:
                observer.on_next(delta)

        def on_error(error: Exception) -> None:
            _emit(observer.on_next, reader.flush_text())
            observer.on_error(error)

        def on_completed() -> None:
            _emit(observer.on_next, reader.flush())  # emits the rest if the source has not emitted an Ending
            observer.on_completed()

        return source.stream(worded).subscribe(on_next, on_error, on_completed, scheduler=scheduler)

    return Observable(subscribe)


def _without_tool_choice(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if name != "tool_choice"}


def _emit(on_next: Callable[[Delta], None], deltas: Iterator[Delta]) -> None:
    for delta in deltas:
        on_next(delta)


class _FenceReader:
    """Splits the text of an answer into visible text and tool calls. The text may arrive in pieces.

    Each tool call is in a fence, which begins with ``_OPEN`` and white space or a brace, and ends with ``_CLOSE``. The
    content of a fence is held back until the fence is closed. White space around a fence is dropped.

    Other text is held back in two cases: it may be the beginning of a fence, or it is white space that a fence may
    follow. So the visible text does not depend on how the answer is split into deltas.
    """

    def __init__(self) -> None:
        self.calls = 0
        # Text that is held back: white space, or the content of an open fence. The pieces stay apart, so that only the
        # new piece is searched. A fence that is never closed may be as long as the answer.
        self._held: list[str] = []
        self._end = ""  # the end of the text so far, if it may be the beginning of the next marker
        self._inside = False
        self._is_after_a_call = False

    def feed(self, text: str) -> Iterator[Delta]:
        text = self._end + text
        start = 0
        while (at := self._find_marker(text, start)) >= 0:
            before = self._release(text[start:at])
            start = at + len(_CLOSE if self._inside else _OPEN)
            self._inside = not self._inside
            if self._inside:
                yield from self._text(before.rstrip())
            else:
                yield from self._call(before)
        # ``_OPEN`` at the end of the text is held back too, because the next character decides.
        end = len(text) - count_overlap(text[start:], _CLOSE if self._inside else f"{_OPEN}\n")
        kept, self._end = text[start:end], text[end:]
        if not self._inside:
            free = kept.rstrip()
            kept = kept[len(free) :]
            if free:
                yield from self._text(self._release(free))
        self._held.append(kept)

    def flush(self) -> Iterator[Delta]:
        """Yield what was held back. Call this when the text has ended. A fence that is still open counts as closed."""
        if self._inside:
            body = self._release(self._end)
            self._inside, self._end = False, ""
            yield from self._call(body.rstrip().rstrip("`"))
        else:
            yield from self.flush_text()

    def flush_text(self) -> Iterator[Delta]:
        """Yield the text that was held back. Drop the content of an open fence, because the tool call is incomplete."""
        if not self._inside:
            held, self._end = self._release(self._end), ""
            yield from self._text(held)

    def _find_marker(self, text: str, start: int) -> int:
        """Return the position of the next marker in ``text``; -1 if there is none."""
        if self._inside:
            return text.find(_CLOSE, start)
        found = _OPENING.search(text, start)
        return -1 if found is None else found.start()

    def _release(self, text: str) -> str:
        """Return the held text followed by ``text``, and clear the held text."""
        held = "".join([*self._held, text])
        self._held.clear()
        return held

    def _text(self, text: str) -> Iterator[Delta]:
        if self._is_after_a_call:
            text = text.lstrip()
        if text:
            self._is_after_a_call = False
            yield text

    def _call(self, body: str) -> Iterator[Delta]:
        name, arguments = _parse(body)
        index = self.calls
        self.calls += 1
        self._is_after_a_call = True
        yield ToolCallDelta(index, id=f"call_text_{index}", name=name, arguments=arguments)


def _parse(body: str) -> tuple[str, str]:
    """Return the name and arguments of the tool call in ``body``, the content of a fence.

    If ``body`` is not a JSON object with a name, return an empty name, and ``body`` as the arguments. The model then
    gets an error message.
    """
    try:
        call = from_json(body.strip())
        return str(call["name"]), json.dumps(call.get("arguments") or {})
    except (ValueError, TypeError, KeyError, AttributeError):
        return "", body.strip()


def _instructions(request: Request) -> Message:
    tools = "\n".join(map(json.dumps, request.functions))
    return {
        "role": "system",
        "content": (
            "You can use these tools, each described by a JSON schema:\n"
            f"{tools}\n\n"
            "To use one, write exactly this and stop; the result comes in the next message:\n"
            f'{_OPEN}\n{{"name": "<tool>", "arguments": {{…}}}}{_CLOSE}\n'
            "When you need no tool (any more), write the answer itself."
        ),
    }


def _describe_tool_use(messages: Sequence[Message]) -> Iterator[Message]:
    """Yield ``messages`` with plain text instead of tool calls and tool results. Other messages are unchanged.

    A model without function calling supports only plain text.
    """
    names: dict[str, str] = {}  # by the id of the tool call; OpenAI's messages with results have only this id
    for message in messages:
        if message.get("role") == "tool":
            name = message.get("name") or names.get(message.get("tool_call_id") or "", "")
            head = f"Result of the tool {name}".rstrip()
            yield {"role": "user", "content": f"{head}:\n{join_texts(message.get('content'))}"}
        elif message.get("tool_calls"):
            calls = message["tool_calls"]
            names |= {call["id"]: call["function"]["name"] for call in calls if call.get("id")}
            functions = [call["function"] for call in calls]
            fences = "\n".join(
                f'{_OPEN}\n{{"name": "{each["name"]}", "arguments": {each["arguments"]}}}{_CLOSE}' for each in functions
            )
            yield {"role": "assistant", "content": f"{join_texts(message.get('content'))}\n{fences}".strip()}
        else:
            yield message
