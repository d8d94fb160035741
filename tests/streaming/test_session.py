"""Sessions: a run as frames, whole or by channel."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from rxflow import Agent, Flow
from rxflow.flow import listen, start
from rxflow.tools import tool
from rxflow.types.streaming import AsyncStreamSession, Channel, StreamFrame, StreamSession
from tests.scripted import Scripted, calls, thinking, words
from tests.team import a_crew, a_task, an_agent


@tool
def look(where: str) -> str:
    """Look somewhere."""
    return f"seen {where}"


def traveller(*turns: Any) -> Agent:
    return an_agent(Scripted(*turns), "Traveller", tools=[look])


class Journey(Flow):
    @start()
    def travel(self) -> str:
        agent = traveller(calls(("look", {"where": "north"})), [thinking("hm"), *words("all is well")])
        return str(a_crew(a_task(agent, name="the trip"), name="party").kickoff())

    @listen(travel)
    def tell(self, report: str) -> str:
        return report.upper()


def types(frames: list[StreamFrame]) -> list[str]:
    return [frame.type for frame in frames]


def test_a_flow_tells_its_whole_story_in_frames() -> None:
    frames = list(Journey().stream_events())

    assert [kind for kind in types(frames) if kind != "llm_stream_chunk"] == [
        "flow_started",
        "method_execution_started",
        "crew_kickoff_started",
        "task_started",
        "agent_execution_started",
        "message_added",
        "message_added",
        "llm_call_started",
        "llm_call_completed",
        "tool_usage_started",
        "tool_usage_finished",
        "message_added",
        "message_added",
        "llm_call_started",
        "llm_thinking_chunk",
        "llm_call_completed",
        "message_added",
        "agent_execution_completed",
        "task_completed",
        "crew_kickoff_completed",
        "method_execution_finished",
        "method_execution_started",
        "method_execution_finished",
        "flow_finished",
    ]


def test_frames_are_numbered_and_chained() -> None:
    frames = list(Journey().stream_events())

    assert [frame.seq for frame in frames] == list(range(len(frames)))
    assert [frame.previous_id for frame in frames] == [None, *(frame.id for frame in frames[:-1])]
    assert len({frame.id for frame in frames}) == len(frames)
    assert all(earlier.timestamp <= later.timestamp for earlier, later in pairwise(frames))


def test_the_parent_of_a_frame_is_what_opened_the_bracket_around_it() -> None:
    frames = list(Journey().stream_events())
    by_id = {frame.id: frame for frame in frames}

    def parents(kind: str) -> set[str | None]:
        return {by_id[f.parent_id].type if f.parent_id else None for f in frames if f.type == kind}

    assert parents("flow_started") == {None}
    assert parents("method_execution_started") == {"flow_started"}
    assert parents("crew_kickoff_started") == {"method_execution_started"}
    assert parents("task_started") == {"crew_kickoff_started"}
    assert parents("agent_execution_started") == {"task_started"}
    assert parents("llm_call_started") == {"agent_execution_started"}
    assert parents("llm_stream_chunk") == {"llm_call_started"}
    assert parents("tool_usage_finished") == {"tool_usage_started"}
    assert parents("task_completed") == {"task_started"}
    assert parents("flow_finished") == {"flow_started"}


def test_the_namespace_names_what_encloses_a_frame() -> None:
    frames = list(Journey().stream_events())

    assert {frame.namespace for frame in frames if frame.channel is Channel.LLM} == {
        ("Journey", "travel", "party", "the trip")
    }


def test_only_token_like_frames_have_content() -> None:
    session = Journey().stream_events()

    text = "".join(
        frame.content for frame in session if frame.type == "llm_stream_chunk" and not frame.data["tool_call"]
    )
    assert text == "all is well"
    assert [frame.content for frame in session if frame.type == "llm_thinking_chunk"] == ["hm"]
    assert all(not frame.content for frame in session.interleave([Channel.FLOW, Channel.TOOLS, Channel.LIFECYCLE]))
    assert all(frame.event is frame.data for frame in session)


def test_each_channel_is_a_reader_of_the_whole_stream() -> None:
    session = Journey().stream_events()

    everything = list(session.events)
    assert [*session.flow] == [frame for frame in everything if frame.channel is Channel.FLOW]
    assert [*session.tools] == [frame for frame in everything if frame.channel is Channel.TOOLS]
    assert [*session.llm] == [frame for frame in everything if frame.channel is Channel.LLM]
    assert [frame.data["message"]["role"] for frame in session.messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert types([*session.interleave(["flow", "tools"])]) == [
        frame.type for frame in everything if frame.channel in ("flow", "tools")
    ]
    assert session.frames == everything


def test_an_unknown_channel_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="the channels are llm, flow, tools, messages, lifecycle, custom; got"):
        Journey().stream_events().interleave(["flow", "tolls"])


def test_the_result_is_there_after_the_last_frame_and_not_before() -> None:
    session = Journey().stream_events()
    with pytest.raises(RuntimeError, match=r"^Streaming has not completed yet"):
        _ = session.result

    before = session.is_exhausted
    for _ in session:
        pass
    assert session.result == "ALL IS WELL"
    assert (before, session.is_exhausted, session.is_completed, session.is_cancelled) == (False, True, True, False)
    assert repr(session) == f"<StreamSession completed, {len(session.frames)} frames>"


def test_a_session_can_be_read_asynchronously() -> None:
    async def main() -> tuple[list[StreamFrame], list[StreamFrame], AsyncStreamSession]:
        session = Journey().astream()
        flow = [frame async for frame in session.flow]
        return flow, [frame async for frame in session], session

    flow, everything, session = asyncio.run(main())
    assert flow == [frame for frame in everything if frame.channel is Channel.FLOW]
    assert session.result == "ALL IS WELL"


def test_a_failure_is_a_frame_and_then_an_error() -> None:
    class Failing(Flow):
        @start()
        def fail(self) -> None:
            raise LookupError("nothing there")

    session = Failing().stream_events()
    with pytest.raises(LookupError, match="nothing there"):
        for _ in session:
            pass
    assert types(session.frames) == [
        "flow_started",
        "method_execution_started",
        "method_execution_failed",
        "flow_failed",
    ]


def test_leaving_a_session_cancels_its_run() -> None:
    with Journey().stream_events() as session:
        next(iter(session))
    assert session.is_cancelled
    assert session.is_completed


def test_a_single_llm_call_can_be_read_as_frames() -> None:
    session = Scripted("a few words").llm.stream_events("Speak")

    assert "".join(frame.content for frame in session.llm) == "a few words"
    assert session.result == "a few words"
    assert types(session.frames)[0] == "llm_call_started"


def test_two_tools_at_once_close_the_brackets_that_they_opened() -> None:
    agent = traveller(calls(("look", {"where": "east"}), ("look", {"where": "west"})), "done")

    class Two(Flow):
        @start()
        def travel(self) -> Any:
            return a_crew(a_task(agent)).kickoff()

    session: StreamSession = Two().stream_events()
    frames = list(session)
    by_id = {frame.id: frame for frame in frames}
    closed = [frame for frame in frames if frame.type == "tool_usage_finished"]
    assert sorted(frame.data["tool_id"] for frame in closed) == ["call_0", "call_1"]
    assert all(by_id[frame.parent_id or ""].data["tool_id"] == frame.data["tool_id"] for frame in closed)
