"""LangChain's own classes on both ends."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableLambda
from langchain_core.tools import BaseTool as LangChainTool, Tool, tool as langchain_tool
from pydantic import BaseModel, Field

from rxflow import Flow, operators as ops
from rxflow._tool_adapter import as_tool
from rxflow.adapters import langchain
from rxflow.flow import start
from rxflow.tools import tool
from rxflow.types.answers import RunPaused
from rxflow.types.events import LLMFinished, ToolFinished
from tests.adapters import flows
from tests.adapters.flows import of_type
from tests.gate import Gate
from tests.scripted import Scripted, calls
from tests.team import solo


@langchain_tool
def deepen(metres: int) -> str:
    """Say how deep it is."""
    return f"{metres * 2} metres"


@tool
def look(where: str, often: int = 1) -> str:
    """Look somewhere."""
    return f"{where} × {often}"


class ToolCaller(BaseChatModel):
    """A chat model of LangChain that calls the first tool, then says what it was told."""

    seen: list[list[BaseMessage]] = Field(default_factory=list[list[BaseMessage]])
    tools: list[Any] = Field(default_factory=list[Any])
    options: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])

    @property
    def _llm_type(self) -> str:
        return "caller"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, Any]:
        self.tools.extend(tools)
        return self

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        raise NotImplementedError

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        self.seen.append(messages)
        self.options.append(kwargs)
        usage = UsageMetadata(input_tokens=5, output_tokens=2, total_tokens=7)
        told = [message for message in messages if isinstance(message, ToolMessage)]
        if told:
            for text in ("It is ", str(told[0].content)):
                yield ChatGenerationChunk(message=AIMessageChunk(content=text))
            yield ChatGenerationChunk(message=AIMessageChunk(content="", usage_metadata=usage))
            return
        for chunk in (
            tool_call_chunk(name="deepen", args="", id="call_1", index=0),
            tool_call_chunk(args='{"metres": 21}', index=0),
        ):
            yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[chunk]))
        yield ChatGenerationChunk(message=AIMessageChunk(content="", usage_metadata=usage))


def test_an_agent_uses_a_tool_of_langchain() -> None:
    model = Scripted(calls(("deepen", {"metres": 4})), "deep")
    with solo(model, agent={"tools": [deepen]}).events().pipe(ops.to_output()) as output:
        (finished,) = of_type(list(output), ToolFinished)
    assert finished.result == "8 metres"


class Sounding(LangChainTool):
    """A class of a user's own, with ``_run`` alone."""

    name: str = "deepen"
    description: str = "Say how deep it is."
    called: list[int] = Field(default_factory=list[int])

    def _run(self, metres: int) -> str:
        self.called.append(metres)
        raise NotImplementedError("no lead here")


class AsyncSounding(Sounding):
    """Works in async code only, as LangChain's documentation has it."""

    def _run(self, metres: int) -> str:
        raise NotImplementedError("deepen does not support sync")

    async def _arun(self, metres: int) -> str:
        self.called.append(metres)
        return f"{metres * 2} metres"


def told_about(deepen: LangChainTool) -> str:
    """What the model is told when it calls the tool."""
    model = Scripted(calls(("deepen", {"metres": 4})), "Deep.")
    solo(model, agent={"tools": [deepen]}).kickoff()
    return str(model.conversations[1][-1]["content"])


def test_a_tool_of_langchain_that_raises_not_implemented_error_is_called_once() -> None:
    called: list[int] = []

    def deepen(metres: int) -> str:
        """Say how deep it is."""
        called.append(metres)
        raise NotImplementedError("no lead here")

    sounding = Sounding()
    assert told_about(langchain_tool(deepen)) == "Error: deepen raised NotImplementedError: no lead here"
    assert told_about(sounding) == "Error: deepen raised NotImplementedError: no lead here"
    assert called == sounding.called == [4]


def test_a_tool_of_langchain_that_is_only_async_is_awaited() -> None:
    async def deepen(metres: int) -> str:
        """Say how deep it is."""
        return f"{metres * 2} metres"

    sounding = AsyncSounding()
    assert told_about(langchain_tool(deepen)) == told_about(sounding) == "8 metres"
    assert sounding.called == [4]


def test_a_model_of_langchain_is_an_agent_s_model() -> None:
    model = ToolCaller()
    with solo(langchain.to_llm(model), agent={"tools": [deepen]}).events().pipe(ops.to_output()) as output:
        events = list(output)
    (used,) = of_type(events, ToolFinished)
    assert used.result == "42 metres"
    first, second = of_type(events, LLMFinished)
    assert (first.finish_reason, second.finish_reason) == ("tool_calls", "stop")
    assert second.text == "It is 42 metres"
    assert second.usage.completion_tokens == 2
    assert [message.type for message in model.seen[1]] == ["system", "human", "ai", "tool"]
    assert model.tools[0]["function"]["name"] == "deepen"


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"finish_reason": "STOP"}, "stop"),
        ({"finish_reason": "MAX_TOKENS"}, "length"),
        ({"finish_reason": "SAFETY"}, "content_filter"),
        ({"stop_reason": "stop_sequence"}, "stop"),
        ({"stopReason": "max_tokens"}, "length"),
        ({"done_reason": "length"}, "length"),
        ({}, "stop"),
    ],
)
def test_why_an_answer_ended_is_said_in_openai_s_words(metadata: dict[str, str], reason: str) -> None:
    async def answer(asked: AsyncIterator[Any]) -> AsyncIterator[AIMessageChunk]:
        async for _ in asked:
            yield AIMessageChunk(content="low tide")
            yield AIMessageChunk(content="", response_metadata=metadata)

    llm = langchain.to_llm(RunnableGenerator(answer))
    (finished,) = of_type(llm.events("Is it low tide?").pipe(ops.to_output()), LLMFinished)
    assert finished.finish_reason == reason


def test_a_chain_is_a_model_that_streams() -> None:
    async def shout(asked: AsyncIterator[Any]) -> AsyncIterator[str]:
        async for messages in asked:
            for word in messages[-1].content.split():
                yield word.upper() + " "

    async def take(messages: Any) -> Any:
        return messages

    llm = langchain.to_llm(RunnableLambda(take) | RunnableGenerator(shout))
    said = [str(chunk) for chunk in llm.observe("low tide").pipe(ops.to_output())]
    assert said == ["LOW ", "TIDE "]


def test_parameters_reach_a_chat_model_with_each_call() -> None:
    model = ToolCaller()
    for runnable in (model, model.bind(user="deckhand")):
        list(langchain.to_llm(runnable, temperature=0.2, max_retries=0).events("How deep?").pipe(ops.to_output()))
    assert model.options == [{"temperature": 0.2}, {"user": "deckhand", "temperature": 0.2}]


def test_parameters_for_another_runnable_are_refused() -> None:
    with pytest.raises(TypeError, match="only a chat model takes temperature; got RunnableLambda: bind temperature"):
        langchain.to_llm(RunnableLambda(str), temperature=0.2)


def test_langchain_reads_a_tool_of_rxflow() -> None:
    given = langchain.to_langchain_tool(look)
    assert (given.name, given.description) == ("look", "Look somewhere.")
    assert given.args["where"]["type"] == "string"
    assert given.invoke({"where": "north"}) == "north × 1"
    assert asyncio.run(given.ainvoke({"where": "north", "often": 2})) == "north × 2"


def test_a_flow_is_a_runnable() -> None:
    runnable = langchain.to_runnable(flows.Routed)
    assert runnable.invoke({}) == "one two"
    assert asyncio.run(runnable.ainvoke({})) == "one two"
    assert runnable.batch([{}, {}]) == ["one two", "one two"]


def test_its_text_streams() -> None:
    runnable = langchain.to_runnable(flows.Plain)
    assert list(runnable.stream({})) == ["low", " tide", " at", " noon"]

    async def read() -> list[str]:
        return [text async for text in runnable.astream({})]

    assert asyncio.run(read()) == ["low", " tide", " at", " noon"]


def test_it_is_a_part_of_a_chain() -> None:
    class Said(Flow[dict[str, Any]]):
        @start()
        def say(self) -> str:
            return str(self.state["topic"])

    def inputs(prompt: Any) -> dict[str, Any]:
        return {"topic": prompt.to_string()}

    chain = ChatPromptTemplate.from_template("On {topic}") | RunnableLambda(inputs) | langchain.to_runnable(Said)
    assert chain.invoke({"topic": "tides"}) == "Human: On tides"


def test_its_errors_are_the_run_s() -> None:
    runnable = langchain.to_runnable(flows.Failing)
    with pytest.raises(ConnectionError, match="line cut"):
        runnable.invoke({})
    with pytest.raises(ConnectionError, match="line cut"):
        list(runnable.stream({}))


def test_a_reader_that_leaves_disposes_the_run() -> None:
    stopped: list[bool] = []

    class Waiting(Flow[dict[str, Any]]):
        @start()
        async def wait(self) -> str:
            try:
                return str(await solo(Scripted(["first ", Gate()])).kickoff_async())
            finally:
                stopped.append(True)

    async def leave() -> None:
        reading: Any = langchain.to_runnable(Waiting).astream({})
        assert await anext(reading) == "first "
        await reading.aclose()
        for _ in range(3):
            await asyncio.sleep(0)

    asyncio.run(leave())
    assert stopped == [True]


def test_callbacks_see_the_run() -> None:
    async def watch() -> list[str]:
        return [event["event"] async for event in langchain.to_runnable(flows.Plain).astream_events({}, version="v2")]

    seen = asyncio.run(watch())
    assert seen[0] == "on_chain_start"
    assert seen.count("on_chain_stream") == 4
    assert seen[-1] == "on_chain_end"


class Asking(Flow[dict[str, Any]]):
    """A flow that asks a person."""

    @start()
    def plan(self) -> str:
        return f"for {self.ask('Who comes along?')}"


async def collect(texts: AsyncIterator[str]) -> list[str]:
    return [text async for text in texts]


def test_a_run_that_waits_for_a_person_is_paused() -> None:
    runnable = langchain.to_runnable(Asking)
    ways: list[Callable[[], object]] = [
        lambda: runnable.invoke({}),
        lambda: asyncio.run(runnable.ainvoke({})),
        lambda: list(runnable.stream({})),
        lambda: asyncio.run(collect(runnable.astream({}))),
    ]
    for run in ways:
        with pytest.raises(RunPaused, match=r"Who comes along\?") as raised:
            run()
        assert [request.message for request in raised.value.pending] == ["Who comes along?"]


class Limited(flows.Plain):
    """A flow that an operator ends early."""

    def events(self, *given: Any, **options: Any) -> Any:
        return super().events(*given, **options).pipe(ops.limit_tokens(1))


def test_a_run_that_is_cut_short_is_an_error() -> None:
    runnable = langchain.to_runnable(Limited)
    with pytest.raises(RuntimeError, match="the run was cancelled: "):
        runnable.invoke({})
    with pytest.raises(RuntimeError, match="the run was cancelled: "):
        list(runnable.stream({}))


class Item(BaseModel):
    name: str
    count: int = 1


def test_a_tool_of_langchain_for_one_text_has_its_one_argument() -> None:
    def echo(text: str) -> str:
        return f"got {text}"

    tool = as_tool(Tool(name="echo", func=echo, description="Echo."))
    assert list(tool.schema_for_model["function"]["parameters"]["properties"]) == ["tool_input"]
    assert asyncio.run(tool.arun(tool_input="a")) == "got a"


def test_the_schema_of_a_langchain_tool_without_args_schema_is_complete() -> None:
    class Box(LangChainTool):
        name: str = "pack"
        description: str = "Pack items."

        def _run(self, item: Item, weight: float = 1.0) -> str:
            return f"{item.count} {item.name} at {weight} kg"

    shown = as_tool(Box()).schema_for_model["function"]["parameters"]
    assert shown["properties"]["item"] == {"$ref": "#/$defs/Item"}
    assert shown["$defs"]["Item"]["required"] == ["name"]
    assert (list(shown["properties"]), shown["required"]) == (["item", "weight"], ["item"])
