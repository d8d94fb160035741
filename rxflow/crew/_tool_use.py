"""Carries out the tool calls of one turn, many at once. If a tool fails, the model and the stream get the error."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, cast

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import from_json

from rxflow._copies import copy_value, copy_values
from rxflow._streaming import (
    WAITS,
    Emitter,
    NotResumable,
    Question,
    Unanswered,
    all_of,
    ask,
    from_coroutine,
    hash_tool,
    read_out,
    replace_stray_cancellation,
)
from rxflow._text import describe, in_words, list_problems
from rxflow.llm.source import Message
from rxflow.tools import BaseTool, ToolUsageLimit, function_name
from rxflow.types import Approval, LLMFinished, ToolCall, ToolCancelled, ToolFailed, ToolFinished, ToolStarted
from rxflow.types._values import RecordedError

logger = logging.getLogger("rxflow")

_MAX_CONCURRENT_CALLS = 64  # in one turn: a model may ask for thousands, and each sync tool needs a thread


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """The answer to one tool call. ``text`` is for the model.

    If ``is_final`` is True, ``text`` is also the answer to the task.
    """

    call: ToolCall
    text: str
    is_final: bool = False
    image: Message | None = None  # a message with an image, to add after the answers to all tool calls of the turn

    @property
    def message(self) -> Message:
        """The message with the answer, for the model."""
        return {
            "role": "tool",
            "tool_call_id": self.call.id,
            "name": function_name(self.call.name) or "unnamed",
            "content": self.text,
        }


class ToolCache:
    """The results of tool calls in one run, for later calls of the same tool with equal arguments.

    A result is kept only if the call succeeded and the tool's ``cache_function`` allows it.
    """

    def __init__(self) -> None:
        self._entries: dict[tuple[int, str], _Entry] = {}

    def entry(self, tool: BaseTool, arguments: str) -> _Entry:
        """Return the entry for calls of ``tool`` with these ``arguments``, which are valid JSON."""
        key = id(tool), json.dumps(from_json(arguments.strip() or "{}"), sort_keys=True)
        return self._entries.setdefault(key, _Entry(tool))


@dataclass(slots=True)
class _Entry:
    """The result of a tool call. ``results`` is empty until there is a result to keep, and then has one element.

    The lock is held during the call, so that an equal call waits for the result.
    """

    tool: BaseTool  # kept alive: its id is in the cache's key, and the id of a freed object may be used again
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    results: list[Any] = field(default_factory=list[Any])


async def use_tools(
    emitter: Emitter, turn: LLMFinished, tools: Mapping[str, BaseTool], cache: ToolCache | None = None
) -> list[ToolAnswer]:
    """Run the tool calls of a turn, each in a span of its own. Return the answers in the order of the calls.

    Up to ``_MAX_CONCURRENT_CALLS`` calls run at the same time.
    """
    limit = asyncio.Semaphore(_MAX_CONCURRENT_CALLS)

    async def use(call: ToolCall) -> ToolAnswer:
        answers: list[ToolAnswer] = []

        async def work(inner: Emitter) -> None:
            # The events of the tool itself have the id of the LLM call that asked for the tool. The events of runs
            # inside the tool do not have this id.
            inner.origin = replace(inner.origin, llm_call_id=turn.origin.llm_call_id)
            answers.append(await _use(inner, call, tools, cache))

        async with limit:
            await emitter.forward(from_coroutine(emitter.scope.within(), work))
        return answers[0]

    return await all_of(map(use, turn.tool_calls))


def by_function_name(tools: Sequence[BaseTool]) -> dict[str, BaseTool]:
    """Return the tools by the names that the model uses. Raises ValueError if different tools have the same name."""
    named: dict[str, BaseTool] = {}
    for tool in tools:
        name = function_name(tool.name)
        if named.setdefault(name, tool) is not tool:
            raise ValueError(f"two different tools are called {name!r}; give one of them another name")
    return named


def _read_object(arguments: str) -> dict[str, Any]:
    """Return ``arguments`` as a dict, for events. If the text is not a JSON object, the dict contains the text."""
    try:
        read: Any = from_json(arguments or "{}", allow_inf_nan=False)
    except ValueError:
        read = None
    return cast(dict[str, Any], read) if isinstance(read, dict) else {"invalid_arguments": arguments}


async def _use(emitter: Emitter, call: ToolCall, tools: Mapping[str, BaseTool], cache: ToolCache | None) -> ToolAnswer:
    arguments: dict[str, Any] = _read_object(call.arguments)
    journal, around = emitter.run.journal, emitter.scope.step

    def begin(*, is_repeated: bool = False) -> None:
        if journal is not None:  # flows, model calls and questions inside the tool belong to a step of their own
            emitter.scope = emitter.scope.at_step(journal.next_step(around, hash_tool(call.name, arguments)))
        started = ToolStarted(
            origin=emitter.origin,
            replayed=is_repeated,
            tool_id=call.id,
            tool_name=call.name,
            arguments=arguments,
        )
        emitter.on_next(started)

    def fail(error: BaseException, stage: str = "run", text: str = "") -> ToolAnswer:
        logger.warning("%s: the tool %r failed: %s", emitter.origin.agent_role, call.name, describe(error))
        failed = ToolFailed(
            origin=emitter.origin,
            tool_id=call.id,
            tool_name=call.name,
            error=error,
            stage=stage,
            arguments=arguments,
        )
        emitter.on_next(failed)
        return ToolAnswer(call, text or _word_failure(call.name, error, stage))

    def refuse(error: BaseException, text: str, stage: str) -> ToolAnswer:
        begin()
        return fail(error, stage, text)

    tool = tools.get(call.name)
    if tool is None:
        unknown = LookupError(f"there is no tool {call.name!r}; the tools are {sorted(tools)}")
        return refuse(unknown, f"Error: {unknown}", "unknown")
    if not call.arguments.strip() and tool.takes_arguments:
        missing = ValueError(f"the arguments of {call.name} did not arrive")
        said = f"Error: {missing}. Call it again with all of them as one JSON object, {{}} for none."
        return refuse(missing, said, "arguments")
    try:
        arguments = tool.read_arguments(call.arguments)
    except Exception as error:  # noqa: BLE001 - a user's validator may raise anything
        problems = list_problems(error, "arguments") if isinstance(error, ValidationError) else describe(error)
        return refuse(error, f"Error: the arguments of {call.name} are not valid. {problems}", "arguments")
    before = None if journal is None else journal.take_tool(around, call.name, arguments)
    if before is not None and before.end is not None:
        begin(is_repeated=True)
        if cache is not None and isinstance(before.end, ToolFinished) and not before.is_changed:
            await _keep(emitter, tool, arguments, before.end.result, cache.entry(tool, call.arguments))
        return _repeat(emitter, call, tool, before.end)
    if before is not None and not tool.is_idempotent:
        raise NotResumable(
            f"the tool {call.name!r} was running when the run was interrupted, so nobody knows what it has done; "
            "if a second call does no harm, declare it with is_idempotent=True"
        )
    begin()
    try:
        # If the tool has reached its usage limit, no person is asked, because _run() refuses the call anyway.
        approval = Approval(approved=True) if tool.is_used_up else await _approve(emitter, call, tool, arguments)
    except Unanswered:
        emitter.on_next(ToolCancelled(origin=emitter.origin, tool_id=call.id, tool_name=call.name, reason=WAITS))
        raise
    except Exception as error:  # ends the run: without an approval, the tool must not be called
        fail(error)
        raise
    try:
        if not approval.approved:
            return fail(Denied(approval.reason), "denied")
        entry = None if cache is None or approval.arguments is not None else cache.entry(tool, call.arguments)
        if approval.arguments is not None:
            arguments = tool.read_arguments(json.dumps(approval.arguments))
        if not tool.is_idempotent:
            await emitter.run.flush()  # stores the ToolStarted: after a crash, a resumed run must know of this call
        result = await _run(emitter, tool, arguments, entry)
        answer = _answer_with(call, tool, result)
    except Unanswered:
        emitter.on_next(ToolCancelled(origin=emitter.origin, tool_id=call.id, tool_name=call.name, reason=WAITS))
        raise
    except ToolUsageLimit as error:
        return fail(error, "limit")
    except asyncio.CancelledError as error:
        reported = replace_stray_cancellation(error)
        if emitter.is_closed or reported is error:
            raise
        return fail(reported)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - reported in the stream and to the model
        return fail(error)
    emitter.on_next(ToolFinished(origin=emitter.origin, tool_id=call.id, tool_name=call.name, result=result))
    return answer


def _answer_with(call: ToolCall, tool: BaseTool, result: Any) -> ToolAnswer:
    image = tool.message_with(result) if isinstance(tool, ImageTool) else None
    return ToolAnswer(call, tool.format_output_for_agent(result), is_final=tool.result_as_answer, image=image)


def _repeat(emitter: Emitter, call: ToolCall, tool: BaseTool, end: ToolFinished | ToolFailed) -> ToolAnswer:
    """Emit ``end`` again in a resumed run, and return the answer, without calling the tool."""
    emitter.on_next(replace(end, origin=emitter.origin, replayed=True))
    if isinstance(end, ToolFailed):
        return ToolAnswer(call, _word_failure(call.name, end.error, end.stage))
    return _answer_with(call, tool, end.result)


def _word_failure(tool: str, error: BaseException, stage: str) -> str:
    """Return the text that informs the model that a tool call failed or was refused.

    A resumed run must use the same words, because this text is one of the messages by which the run finds the model's
    recorded answer. A resumed run reads the error from a log. If the class of the error is not loaded, the error is a
    RecordedError. The RecordedError has the name of the class and the message, so the words are the same.
    """
    if isinstance(error, RecordedError):
        kind, message = error.type.rpartition(".")[2], error.message
    else:
        kind, message = type(error).__name__, in_words(error)
    match stage:
        case "denied":
            return f"Error: a person refused {tool}. {message}".rstrip()
        case "limit":
            return f"Error: {message}. Answer without it."
        case _:
            return f"Error: {tool} raised {kind}: {message}"


class Denied(Exception):
    """A person did not allow a tool call. The error message is the person's reason."""


async def _approve(emitter: Emitter, call: ToolCall, tool: BaseTool, arguments: Mapping[str, Any]) -> Approval:
    """Return an Approval, which decides whether the tool is called. Ask a person only if the tool needs approval.

    But if a person was asked before the run was resumed, the person decides, even if the tool needs no approval now.
    """
    needs = tool.needs_approval
    if callable(needs):
        needs = await emitter.invoke(needs, **copy_values(arguments))
    if not needs and emitter.run.journal is None:
        return Approval(approved=True)
    message = f"May {emitter.origin.agent_role or 'the agent'} call {call.name}?"

    def check(answer: Approval) -> None:
        if answer.arguments is None:
            return
        try:
            tool.read_arguments(json.dumps(answer.arguments))
        except ValidationError:
            raise
        except Exception as error:
            raise ValueError(
                f"the answer to {message!r} does not fit: the arguments of {call.name} are not valid: {describe(error)}"
            ) from error

    question = Question(
        kind="approval",
        message=message,
        answer=Approval,
        schema=Approval.schema_for(tool.args_schema.model_json_schema()),
        check=check,
        options=("yes", "no"),
        tool_id=call.id,
        arguments=from_json(call.arguments.strip() or "{}"),
    )
    answer = await ask(emitter, question, is_needed=bool(needs))
    return Approval(approved=not needs) if answer is None else answer


async def _run(emitter: Emitter, tool: BaseTool, arguments: dict[str, Any], entry: _Entry | None) -> Any:
    async with nullcontext() if entry is None else entry.lock:
        # If the tool has reached its usage limit, ``claim()`` below raises, even if the cache has a result.
        if entry is not None and entry.results and not tool.is_used_up:
            return entry.results[0]
        # The events have the arguments and the result, and a resumed run compares them. The tool may change its own.
        result = copy_value(await read_out(await emitter.invoke(tool.claim(), **copy_values(arguments))))
        if entry is not None:
            await _keep(emitter, tool, arguments, result, entry)
        return result


async def _keep(emitter: Emitter, tool: BaseTool, arguments: dict[str, Any], result: Any, entry: _Entry) -> None:
    """Keep ``result`` for later equal calls, if the tool's ``cache_function`` allows it."""
    try:
        may_keep = tool.cache_function is None or await emitter.invoke(tool.cache_function, arguments, result)
    except Exception as error:  # noqa: BLE001 - the tool has done its work, and the model must not order it again
        logger.warning("the cache_function of %r failed: %s", tool.name, describe(error))
        return
    if may_keep and not entry.results:
        entry.results.append(result)


_ADDRESSES = ("https://", "http://", "data:image/")
_QUESTION = "Here is the image."


class _Asked(BaseModel):
    image_url: str = Field(description="The http(s) address of the image, or a data URL")
    action: str | None = Field(default=None, description="What to look for in the image, or a question about it")


class ImageTool(BaseTool):
    """Shows the model an image. File paths are refused: with them, the model could read any file of this machine."""

    name: str = "add_image_to_content"
    description: str = "See an image, to describe it or to answer questions about it. It is shown in the next message."
    args_schema: type[BaseModel] = _Asked
    is_idempotent: bool = True

    def _run(self, image_url: str, action: str | None = None) -> dict[str, str]:
        if not image_url.startswith(_ADDRESSES):
            raise ValueError(f"image_url must be an address such as https://…, or a data URL; got {image_url[:200]!r}")
        return {"image_url": image_url, "action": action or _QUESTION}

    def format_output_for_agent(self, raw_result: Any) -> str:
        return "The image is in the next message."

    def message_with(self, result: Mapping[str, str]) -> Message:
        """Return the image as a message of a user, because answers of tools can only contain text."""
        return {
            "role": "user",
            "content": [
                {"type": "text", "text": result["action"]},
                {"type": "image_url", "image_url": {"url": result["image_url"]}},
            ],
        }
