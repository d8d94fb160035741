"""What type checkers infer for users' code. mypy and pyright check it; running it only shows that it is no nonsense."""

import asyncio
from typing import Any, assert_type

from pydantic import BaseModel
from reactivex import Observable, operators as ops

from rxflow import LLM, Crew, Flow
from rxflow.flow import start
from rxflow.tools import tool
from rxflow.types.events import Event, FlowFinished
from rxflow.types.streaming import CrewStreamingOutput, EventStream, FlowStreamingOutput, StreamChunk


class Trip(BaseModel):
    place: str = "Lisbon"


class Typed(Flow[Trip]):
    @start()
    def begin(self) -> int:
        assert_type(self.state, Trip)
        return len(self.state.place)


class Untyped(Flow):
    pass


def content(chunk: StreamChunk) -> str:
    return chunk.content


def test_the_state_has_the_type_that_the_class_names() -> None:
    assert assert_type(Typed().state, Trip).place == "Lisbon"
    assert assert_type(Untyped().state, dict[str, Any])["id"]


def test_a_decorated_method_keeps_its_type() -> None:
    assert assert_type(Typed().begin(), int) == len("Lisbon")


def test_pipelines_infer_from_chunks_and_events() -> None:
    flow = Typed()
    assert_type(flow.observe(), EventStream[StreamChunk])
    assert_type(flow.events(), EventStream[Event])
    assert_type(flow.observe().pipe(ops.map(content)), Observable[str])
    assert_type(flow.observe().map(lambda chunk: chunk.seq), Observable[int])
    assert_type(flow.events().pipe(ops.filter(lambda event: isinstance(event, FlowFinished))), Observable[Event])
    assert_type(LLM("rxflow/demo").observe("hello").pipe(ops.take(1), ops.map(content)), Observable[str])


async def iterate_what_is_no_list() -> None:
    """Nobody calls it: type checkers refuse both loops, or the ignores would be unused."""
    for _ in Typed().observe():  # type: ignore[misc]
        pass
    async for _ in Typed().observe():  # type: ignore[attr-defined]
        pass


def test_the_doors_to_streams_are_typed() -> None:
    assert_type(Typed().stream_chunks(), FlowStreamingOutput)
    assert_type(Crew(agents=[], tasks=[]).stream_chunks(), CrewStreamingOutput)
    assert_type(Typed().kickoff(), Any | FlowStreamingOutput)


def test_a_response_model_gives_an_answer_of_its_type() -> None:
    assert isinstance(assert_type(LLM("rxflow/demo").call("Where to?", response_model=Trip), Trip), Trip)


def test_so_does_an_awaited_one() -> None:
    async def main() -> None:
        assert isinstance(assert_type(await LLM("rxflow/demo").acall("Where to?", response_model=Trip), Trip), Trip)
        assert_type(await LLM("rxflow/demo").acall("Where to?"), Any)

    asyncio.run(main())


def test_an_output_gives_chunks() -> None:
    for chunk in FlowStreamingOutput(sync_iterator=iter([StreamChunk(content="a")])):
        assert_type(chunk, StreamChunk)


def test_a_tool_can_be_made_with_and_without_arguments() -> None:
    @tool
    def look(where: str) -> str:
        """Look somewhere."""
        return where

    @tool("glance", max_usage_count=1)
    def peek(where: str) -> str:
        """Look quickly."""
        return where

    assert (look.run("north"), peek.name) == ("north", "glance")
