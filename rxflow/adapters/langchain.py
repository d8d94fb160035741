"""LangChain in both directions: its tools and models in rxflow, and rxflow's tools and flows in LangChain. ::

    Agent(…, tools=[wikipedia])                               # agents accept LangChain tools directly
    Agent(…, llm=langchain.to_llm(ChatOpenAI(model="…")))     # a chat model or a chain as the LLM
    langchain.to_langchain_tool(look_up)                      # a tool of rxflow for LangChain's agents
    async for text in langchain.to_runnable(Trip).astream({"topic": "tides"}): …

Needs ``rxflow[langchain]``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, cast

from reactivex import Observable

from rxflow import operators as ops
from rxflow._lazy import extra
from rxflow._text import write_json
from rxflow.flow import Flow
from rxflow.llm import LLM, Delta, Ending, ReasoningDelta, Request, ToolCallDelta, from_async
from rxflow.tools import BaseTool
from rxflow.types import FlowCancelled, FlowPaused, RunPaused, StreamChunk, StreamChunkType, UsageMetrics

with extra("langchain"):
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, AIMessageChunk, convert_to_messages
    from langchain_core.runnables import Runnable, RunnableConfig, RunnableGenerator, RunnableLambda
    from langchain_core.runnables.base import RunnableBindingBase
    from langchain_core.tools import StructuredTool

__all__ = ["FlowRunnable", "to_langchain_tool", "to_llm", "to_runnable"]

FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "safety": "content_filter",
}
REASON_FIELDS = ("finish_reason", "stop_reason", "stopReason", "done_reason")
"""The fields that may have the finish reason.

LangChain's packages for OpenAI and Google use the first one. The packages for Anthropic, Bedrock and Ollama use the
others, in this order.
"""


def to_langchain_tool(tool: BaseTool) -> StructuredTool:
    """Convert a tool of rxflow to a LangChain tool with the same name, description and arguments."""
    return StructuredTool.from_function(
        func=tool.run,
        coroutine=tool.arun,
        name=tool.name,
        description=tool.description,
        args_schema=tool.args_schema,
        return_direct=tool.result_as_answer,
    )


def to_runnable(make_flow: Callable[[], Flow[Any]]) -> FlowRunnable:
    """Create a runnable from a flow class, or from a function that returns a new flow for each run."""
    return FlowRunnable(make_flow)


class FlowRunnable(Runnable[dict[str, Any], Any]):
    """A flow as a LangChain runnable.

    ``invoke`` and ``ainvoke`` return the flow's result. ``stream`` and ``astream`` yield the flow's text as it arrives.
    If the iterator is closed, the run is disposed. All four methods raise RunPaused if the run waits for a person, and
    RuntimeError if the run was cancelled. LangChain calls the callbacks in the config, as for any runnable.
    """

    def __init__(self, make_flow: Callable[[], Flow[Any]]) -> None:
        self._make_flow = make_flow
        self.name = getattr(make_flow, "__name__", "flow")
        self._whole: Runnable[dict[str, Any], Any] = RunnableLambda(self._run, self._arun, name=self.name)
        self._streamed: Runnable[dict[str, Any], str] = RunnableGenerator(self._stream, self._astream, name=self.name)

    def invoke(self, input: dict[str, Any], config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        return self._whole.invoke(input, config)

    async def ainvoke(self, input: dict[str, Any], config: RunnableConfig | None = None, **kwargs: Any) -> Any:  # noqa: A002
        return await self._whole.ainvoke(input, config)

    def stream(self, input: dict[str, Any], config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[str]:  # noqa: A002
        return self._streamed.stream(input, config)

    def astream(self, input: dict[str, Any], config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[str]:  # noqa: A002
        return self._streamed.astream(input, config)

    def _run(self, inputs: dict[str, Any]) -> Any:
        with self._make_flow().events(inputs).pipe(ops.to_output()) as output:
            return _result_of(list(output))

    async def _arun(self, inputs: dict[str, Any]) -> Any:
        async with self._make_flow().events(inputs).pipe(ops.to_output()) as output:
            return _result_of([event async for event in output])

    def _stream(self, inputs: Iterator[dict[str, Any]]) -> Iterator[str]:
        for each in inputs:
            with self._make_flow().events(each).pipe(ops.to_output()) as output:
                for event in output:
                    if text := _text_of(event):
                        yield text

    async def _astream(self, inputs: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
        async for each in inputs:
            async with self._make_flow().events(each).pipe(ops.to_output()) as output:
                async for event in output:
                    if text := _text_of(event):
                        yield text


def _text_of(event: Any) -> str:
    """Return the text of a TEXT chunk; an empty string for other events. Raises the errors of :func:`_require_end`."""
    _require_end(event)
    return event.content if isinstance(event, StreamChunk) and event.chunk_type is StreamChunkType.TEXT else ""


def _result_of(events: list[Any]) -> Any:
    """Return the result in the last event of a run. Raises the errors of :func:`_require_end`."""
    _require_end(events[-1])
    return events[-1].result


def _require_end(event: Any) -> None:
    """Raise RunPaused if ``event`` is a FlowPaused, and RuntimeError if ``event`` is the run's own FlowCancelled."""
    if isinstance(event, FlowPaused):
        raise RunPaused(event.pending)
    if isinstance(event, FlowCancelled) and not event.origin.parent_span_id:
        raise RuntimeError(f"the run was cancelled: {event.reason}")


def to_llm(runnable: Runnable[Any, Any], *, model: str = "langchain", **parameters: Any) -> LLM:
    """Create an LLM for agents from a chat model or another runnable.

    The runnable must accept messages, and return text or messages. Text, reasoning, tool calls and usage stream as with
    any other LLM. If the runnable implements ``bind_tools``, it gets the tools through that method. Otherwise the
    prompt describes the tools.

    ``parameters`` are the other parameters of :class:`LLM`. A parameter that rxflow does not use itself, such as
    ``temperature``, is passed to the chat model with each call.

    Raises:
        TypeError: ``parameters`` has a parameter that only a chat model can use, but the runnable is not a chat model.
    """
    source = _RunnableSource(runnable)
    llm = LLM(model, source=source, **parameters)
    given = llm.request("").parameters
    if given and not source.is_chat_model:
        names = ", ".join(given)
        raise TypeError(f"only a chat model takes {names}; got {type(runnable).__name__}: bind {names} inside it")
    return llm


class _RunnableSource:
    """A runnable as a source of deltas."""

    def __init__(self, runnable: Any) -> None:
        self._runnable = runnable

    @property
    def is_chat_model(self) -> bool:
        """Whether the runnable is a chat model, alone or with bound arguments."""
        bound = self._runnable
        while isinstance(bound, RunnableBindingBase):
            bound = cast("RunnableBindingBase[Any, Any]", bound).bound
        return isinstance(bound, BaseChatModel)

    def stream(self, request: Request) -> Observable[Delta]:
        async def answer(emit: Callable[[Delta], None]) -> None:
            runnable = self._runnable.bind_tools(list(request.tools)) if request.may_call_tools else self._runnable
            messages = convert_to_messages([dict(each) for each in request.messages])
            ending = _EndingReader()
            async for piece in runnable.astream(messages, **request.parameters):
                for delta in _deltas_of(piece):
                    emit(delta)
                ending.read(piece)
            emit(ending.ending)

        return from_async(answer)

    async def calls_functions(self, model: str) -> bool:
        # In LangChain's BaseChatModel, bind_tools() only raises an error. Models that can call tools override it.
        own = getattr(cast(object, type(self._runnable)), "bind_tools", None)
        return own is not None and own.__module__ != "langchain_core.language_models.chat_models"

    def retry_delay(self, error: BaseException, attempt: int, of: int) -> float | None:
        return None  # rxflow does not retry; LangChain's with_retry does that

    def explain(self, error: BaseException, model: str) -> BaseException:
        return error


def _deltas_of(piece: object) -> Iterator[Delta]:
    if not isinstance(piece, AIMessage):
        if piece:
            yield str(piece)
        return
    blocks: Any = piece.content if isinstance(piece.content, list) else [piece.content]
    for block in blocks:
        match block:
            case str(text) | {"type": "text", "text": str(text)} if text:
                yield text
            case {"type": "reasoning", "reasoning": str(text)} | {"type": "thinking", "thinking": str(text)} if text:
                yield ReasoningDelta(text)
            case _:
                pass
    reasoning = piece.additional_kwargs.get("reasoning_content")
    if isinstance(reasoning, str) and reasoning:
        yield ReasoningDelta(reasoning)
    calls: Any = piece.tool_call_chunks if isinstance(piece, AIMessageChunk) else piece.tool_calls
    for index, call in enumerate(calls):
        arguments = call["args"]
        yield ToolCallDelta(
            index=call.get("index", index),
            id=call.get("id"),
            name=call.get("name"),
            arguments=arguments if isinstance(arguments, str) else write_json(arguments or {}).decode(),
        )


class _EndingReader:
    """Collects the finish reason and the usage from the pieces of an answer."""

    def __init__(self) -> None:
        self._usage = UsageMetrics()
        self._metadata: dict[str, Any] = {}
        self._calls_tools = False

    def read(self, piece: object) -> None:
        if not isinstance(piece, AIMessage):
            return
        self._metadata |= piece.response_metadata
        self._calls_tools = self._calls_tools or bool(piece.tool_calls)
        used = cast("Mapping[str, Any] | None", piece.usage_metadata)
        if used is not None:
            given: Any = used.get("input_token_details") or {}
            made: Any = used.get("output_token_details") or {}
            self._usage += UsageMetrics(
                prompt_tokens=used.get("input_tokens"),
                completion_tokens=used.get("output_tokens"),
                total_tokens=used.get("total_tokens"),
                cached_prompt_tokens=given.get("cache_read"),
                cache_creation_tokens=given.get("cache_creation"),
                reasoning_tokens=made.get("reasoning"),
            )

    @property
    def ending(self) -> Ending:
        given = next((self._metadata[name] for name in REASON_FIELDS if self._metadata.get(name)), "stop")
        reason = str(given).lower()  # Google writes STOP and MAX_TOKENS
        reason = FINISH_REASONS.get(reason, reason)
        return Ending(
            "tool_calls" if reason == "stop" and self._calls_tools else reason,
            self._usage,
            response_id=str(self._metadata.get("id") or ""),
            response_model=str(self._metadata.get("model_name") or ""),
        )
