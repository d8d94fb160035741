"""The documentation's own programs, read from its page, run against the provider on loopback.

What is expected of them is in our words, or read from the page as the test runs.
"""

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pydantic import BaseModel

from rxflow import Agent, Crew, Flow, Task
from rxflow.flow import start
from rxflow.tools import tool
from rxflow.types.streaming import FlowStreamingOutput, StreamChunkType
from tests.documentation import page
from tests.documentation.page import Block, Program
from tests.loopback import Loopback, Reply, Request, ToolCall

pytestmark = pytest.mark.skipif(
    not page.PATH.exists(),
    reason=f"the documentation's page is not beside this checkout: {'/'.join(page.PATH.parts[-3:])}",
)

TIDES = ["Low ", "tide ", "at noon."]
SHIPS = ["Ships ", "wait ", "outside."]

# The blocks in the page's order.
(
    FIRST_FLOW,
    PLAIN_LOOP,
    LABELS,
    PROPERTIES,
    ASYNC_LOOP,
    MULTI_STEP,
    DASHBOARD,
    STATE,
    TEXT_CHUNKS,
    TOOL_CHUNKS,
    ERRORS,
    ASYNC_WITH,
    EXPLICITLY,
    PLOT,
) = range(14)

tested: set[int] = set()
T = TypeVar("T", bound=Callable[..., Any])


def covers(*numbers: int) -> Callable[[T], T]:
    """Notes which blocks a test runs."""
    tested.update(numbers)
    return lambda test: test


@pytest.fixture(scope="module")
def blocks() -> list[Block]:
    return page.blocks()


@pytest.fixture
def program(provider: Loopback, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Programs that name no model find the provider in the environment, as their readers' would."""
    for name in ("MODEL", "MODEL_NAME", "OPENAI_MODEL_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "a key for loopback")
    monkeypatch.setenv("OPENAI_BASE_URL", provider.url)
    return Program()


@pytest.fixture
def first_flow(program: Program, blocks: list[Block]) -> Program:
    """The page's first block has run: its flow is defined."""
    assert program.run(blocks[FIRST_FLOW]) == ""
    return program


def test_every_block_of_the_page_is_run_by_a_test(blocks: list[Block]) -> None:
    fences = re.findall(r"^ *```+ *\w+", page.PATH.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(blocks) == len(fences), "a block that is no Python, or that is indented"
    assert tested == set(range(len(blocks)))


@covers(FIRST_FLOW, PLAIN_LOOP)
def test_a_plain_loop_prints_each_chunk_while_the_provider_still_answers(
    first_flow: Program, blocks: list[Block], provider: Loopback
) -> None:
    provider.script(Reply(text=TIDES, hold_after=2))
    held_when_printed: list[int] = []

    def watch(text: str) -> None:
        # The provider goes on only when its second chunk is on the screen: a stream that is not live would hang.
        if text == TIDES[1]:
            held_when_printed.append(provider.holding)
            provider.release()

    first_flow.terminal.watch = watch
    printed = first_flow.run(blocks[PLAIN_LOOP])

    assert held_when_printed == [1]
    answer = "".join(TIDES)
    assert printed.startswith(answer + "\n")
    assert printed.rstrip().endswith(answer)
    assert printed.count(answer) == 2

    streaming: FlowStreamingOutput = first_flow["streaming"]
    assert [chunk.content for chunk in streaming.chunks] == TIDES
    assert_whole(streaming, answer)
    topic = first_flow["flow"].method_outputs[0]["topic"]
    assert first_flow["result"] is streaming.result
    assert first_flow["flow"].method_outputs == [{"topic": topic}, streaming.result]
    assert set(first_flow["flow"].state) == {"id"}

    (request,) = provider.requests
    first = blocks[FIRST_FLOW]
    assert request.body["model"] == "gpt-4.1-mini"
    assert request.stream
    assert request.headers["authorization"] == "Bearer a key for loopback"
    for said in (
        *first.roles,
        *first.given("Agent", "goal"),
        *first.given("Agent", "backstory"),
        *first.given("Task", "expected_output"),
        first.descriptions[0].format(topic=topic),
    ):
        assert said in prompt(request)


@covers(LABELS)
def test_each_chunk_names_its_agent_task_and_type(first_flow: Program, blocks: list[Block], provider: Loopback) -> None:
    provider.script(Reply(text=SHIPS), Reply(text=TIDES))
    first_flow.run(blocks[PLAIN_LOOP])  # its flow is run once more

    lines = first_flow.run(blocks[LABELS]).splitlines()

    topic = first_flow["flow"].method_outputs[0]["topic"]
    (role,) = blocks[FIRST_FLOW].roles
    task = blocks[FIRST_FLOW].descriptions[0].format(topic=topic)
    expected = [value for content in TIDES for value in (role, task, content, "StreamChunkType.TEXT")]
    assert len(lines) == len(expected)
    for line, value in zip(lines, expected, strict=True):
        assert line.lower().endswith(f": {value}".lower())
    assert [
        (chunk.agent_role, chunk.task_name, chunk.content, chunk.chunk_type, chunk.tool_call)
        for chunk in first_flow["streaming"].chunks
    ] == [(role, task, content, StreamChunkType.TEXT, None) for content in TIDES]


@covers(PROPERTIES)
def test_the_output_knows_its_state_its_text_its_chunks_and_its_result(
    first_flow: Program, blocks: list[Block], provider: Loopback
) -> None:
    provider.script(Reply(text=SHIPS), Reply(text=TIDES))
    first_flow.run(blocks[PLAIN_LOOP])  # its flow is run once more

    streamed, *lines = first_flow.run(blocks[PROPERTIES]).splitlines()

    answer = "".join(TIDES)
    assert streamed == answer
    for line, value in zip(lines, ["True", answer, str(len(TIDES)), answer], strict=True):
        assert line.endswith(f" {value}")
    assert_whole(first_flow["streaming"], answer)


@covers(ASYNC_LOOP)
def test_an_async_loop_streams_the_same(first_flow: Program, blocks: list[Block], provider: Loopback) -> None:
    provider.script(Reply(text=TIDES, hold_after=1))
    first_flow.terminal.watch = lambda text: provider.release() if text == TIDES[0] else None

    printed = first_flow.run(blocks[ASYNC_LOOP])

    answer = "".join(TIDES)
    assert printed.startswith(answer + "\n")
    assert printed.rstrip().endswith(answer)
    assert printed.count(answer) == 2
    assert len(provider.requests) == 1


@covers(MULTI_STEP)
def test_both_steps_are_in_one_stream_and_the_second_knows_the_answer_of_the_first(
    program: Program, blocks: list[Block], provider: Loopback
) -> None:
    block = blocks[MULTI_STEP]
    provider.script(Reply(text=TIDES), Reply(text=SHIPS))

    printed = program.run(block)

    found, concluded = "".join(TIDES), "".join(SHIPS)
    tasks = [block.descriptions[0], block.descriptions[1].format(research=found)]
    streaming: FlowStreamingOutput = program["streaming"]
    assert [(chunk.agent_role, chunk.task_name, chunk.content) for chunk in streaming.chunks] == [
        *((block.roles[0], tasks[0], content) for content in TIDES),
        *((block.roles[1], tasks[1], content) for content in SHIPS),
    ]
    assert_in_order(printed, tasks[0], found, tasks[1], concluded, concluded)
    assert_whole(streaming, found + concluded, result=concluded)
    assert program["flow"].state["research"] == found
    assert program["flow"].method_outputs == [found, streaming.result]

    first, second = provider.requests
    assert block.roles[0] in prompt(first)
    assert tasks[0] in prompt(first)
    assert block.roles[1] in prompt(second)
    assert tasks[1] in prompt(second)
    assert found in prompt(second)
    assert block.roles[0] not in prompt(second)


@covers(DASHBOARD)
def test_the_dashboard_shows_both_phases_and_counts(program: Program, blocks: list[Block], provider: Loopback) -> None:
    block = blocks[DASHBOARD]
    provider.script(Reply(text=TIDES), Reply(text=SHIPS, hold_after=1))
    program.terminal.watch = lambda text: provider.release() if text == SHIPS[0] else None

    printed = program.run(block)

    found, concluded = "".join(TIDES), "".join(SHIPS)
    tasks = [block.descriptions[0], block.descriptions[1].format(data=found)]
    assert_in_order(printed, tasks[0], block.roles[0], found, tasks[1], block.roles[1], concluded)
    chunk_count, length = re.findall(r": (\d+)", printed)[-2:]
    assert int(chunk_count) == len(TIDES) + len(SHIPS)
    assert int(length) == len(concluded)
    assert [found in prompt(request) for request in provider.requests] == [False, True]


@covers(DASHBOARD)
def test_the_dashboard_shows_a_tool_that_the_model_calls(
    program: Program, blocks: list[Block], provider: Loopback
) -> None:
    # Its agents have no tools; a model that calls one all the same is told so, and goes on.
    call = ToolCall("look_up", {"at": "sea"})
    provider.script(Reply(tool_calls=[call]), Reply(text=TIDES), Reply(text=SHIPS))

    printed = program.run(blocks[DASHBOARD])

    assert "look_up" in printed.partition(TIDES[0])[0]
    assert_in_order(printed, "look_up", "".join(TIDES), "".join(SHIPS))
    told = provider.requests[1].messages[-1]
    assert told["role"] == "tool"
    assert "look_up" in told["content"]


@covers(STATE)
def test_the_state_is_filled_while_the_flow_streams(
    first_flow: Program, blocks: list[Block], provider: Loopback
) -> None:
    block = blocks[STATE]
    provider.script(Reply(text=TIDES), Reply(text=SHIPS))

    printed = first_flow.run(block)

    found, concluded = "".join(TIDES), "".join(SHIPS)
    state: Any = first_flow["flow"].state
    assert isinstance(state, first_flow.defined(BaseModel))
    assert (state.research, state.insights) == (found, concluded)
    assert state.topic
    # What a method prints stands before what its crew streams. (The next method may be faster than the reader.)
    assert_in_order(printed, state.topic, found, concluded)
    assert_in_order(printed, str(len(found)), concluded)
    for line, value in zip(printed.splitlines()[-3:], [state.topic, len(found), len(concluded)], strict=True):
        assert line.endswith(f" {value}")

    streaming: FlowStreamingOutput = first_flow["streaming"]
    assert_whole(streaming, found + concluded, result=concluded)
    tasks = [block.descriptions[0].format(topic=state.topic), block.descriptions[1].format(research=found)]
    assert [(chunk.agent_role, chunk.task_name) for chunk in streaming.chunks] == [
        *[(block.roles[0], tasks[0])] * len(TIDES),
        *[(block.roles[1], tasks[1])] * len(SHIPS),
    ]
    first, second = provider.requests
    assert tasks[0] in prompt(first)
    assert tasks[1] in prompt(second)


@tool
def depth(place: str) -> str:
    """How deep the water is."""
    return f"11 m at {place}"


class Soundings(Flow):
    """The fragments on chunk types are given the stream of this one."""

    stream = True

    @start()
    def sound(self) -> Any:
        pilot = Agent(role="Pilot", goal="Bring ships in", backstory="You know the bar.", tools=[depth])
        task = Task(description="Sound the channel", expected_output="Its depth", agent=pilot)
        return Crew(agents=[pilot], tasks=[task]).kickoff()


@pytest.fixture
def soundings(program: Program, provider: Loopback) -> Program:
    """The page's fragments read ``streaming``; its model calls a tool, then answers."""
    provider.script(Reply(tool_calls=[ToolCall("depth", {"place": "the bar"})]), Reply(text=TIDES))
    program.names |= {"streaming": Soundings().kickoff(), "StreamChunkType": StreamChunkType}
    return program


@covers(TEXT_CHUNKS)
def test_text_chunks_are_the_answer_alone(soundings: Program, blocks: list[Block]) -> None:
    assert soundings.run(blocks[TEXT_CHUNKS]) == "".join(TIDES)
    assert_whole(soundings["streaming"], "".join(TIDES))


@covers(TOOL_CHUNKS)
def test_tool_chunks_name_the_tool_and_add_up_to_its_arguments(
    soundings: Program, blocks: list[Block], provider: Loopback
) -> None:
    lines = soundings.run(blocks[TOOL_CHUNKS]).split("\n")[1:]

    pieces = [chunk.tool_call.arguments for chunk in soundings["streaming"].chunks if chunk.tool_call is not None]
    assert json.loads("".join(pieces)) == {"place": "the bar"}
    assert len(pieces) > 1
    tools, arguments = [line for line in lines if line.endswith(" depth")], lines[1::3]
    assert len(tools) == len(pieces)
    for line, piece in zip(arguments, pieces, strict=True):
        assert line.endswith(f": {piece}")
    assert "11 m at the bar" in provider.requests[1].messages[-1]["content"]


@covers(ERRORS)
def test_the_error_handling_reports_success(first_flow: Program, blocks: list[Block], provider: Loopback) -> None:
    provider.script(Reply(text=TIDES))

    streamed, said = first_flow.run(blocks[ERRORS]).splitlines()

    assert streamed == "".join(TIDES)
    assert said.endswith("".join(TIDES))
    assert_whole(first_flow["streaming"], "".join(TIDES))


@covers(ERRORS)
@pytest.mark.parametrize(
    ("reply", "arrived", "error"),
    [
        (Reply(status=401), "", "AuthenticationError"),
        (Reply(text=TIDES, reset_after=2), "".join(TIDES[:2]), "APIConnectionError"),
    ],
    ids=["refused", "reset in mid-stream"],
)
def test_the_error_handling_reports_a_failing_provider(
    first_flow: Program, blocks: list[Block], provider: Loopback, reply: Reply, arrived: str, error: str
) -> None:
    provider.script(reply)

    printed = first_flow.run(blocks[ERRORS])

    streaming: FlowStreamingOutput = first_flow["streaming"]
    assert streaming.get_full_text() == arrived
    assert streaming.is_completed
    assert not streaming.is_cancelled
    with pytest.raises(Exception, match=r".") as raised:
        _ = streaming.result
    assert type(raised.value).__name__ == error
    assert printed.startswith(arrived + "\n")
    assert str(raised.value) in printed
    # The last line is the one for a stream that is over although its flow has failed.
    assert printed.rstrip().splitlines()[-1] not in str(raised.value)
    assert len(provider.requests) == 1


@covers(ASYNC_WITH, EXPLICITLY)
@pytest.mark.parametrize("number", [ASYNC_WITH, EXPLICITLY])
def test_cleaning_up_after_a_stream_that_has_ended_cancels_nothing(
    first_flow: Program, blocks: list[Block], provider: Loopback, number: int
) -> None:
    provider.script(Reply(text=TIDES))
    first_flow.names["flow"] = new_flow(first_flow)

    assert asyncio.run(first_flow.arun(blocks[number])) == "".join(TIDES)

    assert_whole(first_flow["streaming"], "".join(TIDES))
    assert provider.wait_until(lambda seen: seen.completed) == 1
    assert provider.disconnects == []


@covers(ASYNC_WITH, EXPLICITLY)
@pytest.mark.parametrize("number", [ASYNC_WITH, EXPLICITLY])
def test_a_consumer_that_goes_away_stops_the_provider_at_once(
    first_flow: Program, blocks: list[Block], provider: Loopback, number: int
) -> None:
    provider.script(Reply(text=TIDES, stall_after=2))

    async def consume() -> None:
        two_printed = asyncio.Event()
        first_flow.terminal.watch = lambda text: two_printed.set() if text == TIDES[1] else None
        first_flow.names["flow"] = new_flow(first_flow)
        consumer = first_flow.begin(blocks[number])
        await two_printed.wait()
        assert not first_flow["streaming"].is_completed
        consumer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await consumer
        await provider.until(lambda seen: seen.disconnects)

    asyncio.run(consume())

    (disconnect,) = provider.disconnects
    assert disconnect.phase == "mid_stream"
    assert len(provider.requests) == 1
    assert first_flow.terminal.text == "".join(TIDES[:2])

    streaming: FlowStreamingOutput = first_flow["streaming"]
    for once_more in (streaming.close, lambda: asyncio.run(streaming.aclose()), streaming.close):
        assert (streaming.is_completed, streaming.is_cancelled) == (True, True)
        once_more()
    assert streaming.get_full_text() == "".join(TIDES[:2])


@covers(PLOT)
def test_the_drawing_is_written_to_the_working_directory_and_the_flow_streams(
    first_flow: Program, blocks: list[Block], provider: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)  # no browser, please
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    provider.script(Reply(text=TIDES))

    printed = first_flow.run(blocks[PLOT])

    (written,) = tmp_path.iterdir()
    assert written.suffix == ".html"
    assert printed.rstrip().endswith(f" {written.name}")
    drawing = written.read_text(encoding="utf-8")
    for method in re.findall(r"def (\w+)", blocks[FIRST_FLOW].source):
        assert method in drawing
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", drawing), "it loads something"
    assert printed.startswith("".join(TIDES) + "\n")
    assert_whole(first_flow["streaming"], "".join(TIDES))


def new_flow(program: Program) -> Flow:
    """An instance of the flow that the page has defined."""
    flow: Flow = program.defined(Flow)()
    return flow


def prompt(request: Request) -> str:
    """All that the model was told."""
    return "\n".join(str(message["content"]) for message in request.messages)


def assert_whole(streaming: FlowStreamingOutput, text: str, *, result: str | None = None) -> None:
    """The stream ended by itself, with this text and this result (the text, if not given)."""
    assert (streaming.is_completed, streaming.is_cancelled) == (True, False)
    assert streaming.get_full_text() == text
    assert str(streaming.result) == (text if result is None else result)
    numbers = [chunk.seq for chunk in streaming.chunks]  # those of other events stand between
    assert numbers == sorted(set(numbers))


def assert_in_order(printed: str, *expected: str) -> None:
    """``printed`` has all of these, one after the other."""
    position = 0
    for each in expected:
        found = printed.find(each, position)
        assert found >= 0, f"{each!r} is not in what follows: {printed[position:]!r}"
        position = found + len(each)
