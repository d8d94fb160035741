"""What users put into a stream: chunks and events of classes of their own, chunks of other runs, cancelled futures."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel

from rxflow import Flow
from rxflow.flow import start
from rxflow.types import Happened, Origin
from rxflow.types.streaming import Channel, StreamChunk
from tests.scripted import Scripted
from tests.spans import ranks
from tests.team import crew_saying, solo


class Coloured(StreamChunk):
    colour: str = "red"


@dataclass(frozen=True, kw_only=True)
class Progress(Happened):
    percent: int


class Mixed(Flow):
    stream = True

    @start()
    async def speak(self) -> AsyncIterator[Any]:
        yield "a"
        yield Coloured(content="b")
        yield Progress(origin=Origin(), percent=50)
        yield "c"


def test_a_chunk_of_a_class_of_ones_own_is_a_chunk() -> None:
    streaming = Mixed().kickoff()
    chunks = list(streaming)
    assert [chunk.content for chunk in chunks] == ["a", "b", "c"]
    assert ranks(chunks) == [0, 1, 2]
    assert isinstance(chunks[1], Coloured)
    assert chunks[1].flow_method == "speak"
    assert streaming.result == "abc"


def test_an_event_of_a_class_of_ones_own_is_a_custom_frame() -> None:
    session = Mixed().stream_events()
    custom = list(session.subscribe([Channel.CUSTOM]))
    assert [(frame.type, frame.data) for frame in custom] == [("Progress", {"percent": 50})]
    assert "".join(frame.content for frame in session) == "abc"


def test_chunks_kept_from_another_run_are_numbered_and_placed_anew() -> None:
    kept = list(crew_saying("one ", "two", stream=True).kickoff())

    class Replay(Flow):
        stream = True

        @start()
        async def again(self) -> AsyncIterator[Any]:
            yield "first "
            for chunk in kept:
                yield chunk

    chunks = list(Replay().kickoff())
    assert ranks(chunks) == [0, 1, 2]
    assert {chunk.flow_name for chunk in chunks} == {"Replay"}
    assert {chunk.flow_method for chunk in chunks} == {"again"}
    assert [chunk.agent_role for chunk in chunks] == ["", kept[0].agent_role, kept[1].agent_role]


def test_the_words_of_a_judge_leave_no_holes_in_the_count() -> None:
    source = Scripted("an answer", '{"accepted": false, "reason": "short"}', "a longer answer", '{"accepted": true}')
    streaming = solo(source, guardrail="it is long", crew={"stream": True}).kickoff()
    chunks = list(streaming)
    assert ranks(chunks) == list(range(len(chunks)))
    assert streaming.get_full_text() == "an answera longer answer"


def test_frames_of_crews_at_once_have_the_parents_that_opened_their_brackets() -> None:
    class Both(Flow):
        @start()
        async def work(self) -> str:
            await asyncio.gather(crew_saying("one").kickoff_async(), crew_saying("two").kickoff_async())
            return "done"

    frames = list(Both().stream_events())
    by_id = {frame.id: frame for frame in frames}
    (method,) = [frame for frame in frames if frame.type == "method_execution_started"]
    assert [frame.parent_id for frame in frames if frame.type == "crew_kickoff_started"] == [method.id, method.id]

    def line(frame: Any) -> list[str]:
        """From a frame up to the flow."""
        names = [frame.type]
        while frame.parent_id is not None:
            frame = by_id[frame.parent_id]
            names.append(frame.type)
        return names

    spoken = [frame for frame in frames if frame.type == "llm_stream_chunk"]
    crews = [
        by_id[by_id[by_id[by_id[f.parent_id or ""].parent_id or ""].parent_id or ""].parent_id or ""] for f in spoken
    ]
    assert len({crew.id for crew in crews}) == 2
    assert line(spoken[0]) == [
        "llm_stream_chunk",
        "llm_call_started",
        "agent_execution_started",
        "task_started",
        "crew_kickoff_started",
        "method_execution_started",
        "flow_started",
    ]
    assert len({frame.data["span_id"] for frame in spoken}) == 2


def test_every_frame_can_be_sent_on_as_json() -> None:
    class Thing:
        def __str__(self) -> str:
            return "a thing"

    class Failing(Flow):
        @start()
        def make(self) -> Thing:
            return Thing()

        @start()
        def fail(self) -> None:
            raise LookupError("nothing there")

    session = Failing().stream_events()
    with pytest.raises(LookupError):
        list(session)
    sent = [json.loads(frame.model_dump_json()) for frame in session.frames]
    failed = next(frame for frame in sent if frame["type"] == "method_execution_failed")
    assert failed["data"]["error"] == {"type": "LookupError", "message": "nothing there"}
    assert all(frame["data"].get("result") in (None, "a thing") for frame in sent)


def test_a_cancellation_that_is_not_the_runs_own_is_an_error_with_words() -> None:
    class Waiting(Flow):
        stream = True

        @start()
        async def wait(self) -> None:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.cancel()
            await future

    session = Waiting().stream_events()
    with pytest.raises(RuntimeError, match="this code awaited something that was cancelled") as caught:
        list(session)
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    assert [frame.type for frame in session.frames][-2:] == ["method_execution_failed", "flow_failed"]


def test_an_error_keeps_its_own_traceback_however_often_it_is_raised() -> None:
    class Failing(Flow):
        stream = True

        @start()
        def fail(self) -> None:
            raise LookupError("nothing there")

    def depth(streaming: Any) -> int:
        with pytest.raises(LookupError) as caught:
            list(streaming)
        return len(caught.traceback)

    streaming = Failing().kickoff()
    assert depth(streaming) == depth(streaming)


def test_an_awaited_kickoff_that_is_cancelled_ends_after_its_methods_have_cleaned_up() -> None:
    cleaned: list[str] = []

    class Careful(Flow):
        @start()
        async def hold(self) -> None:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                cleaned.append("hold")

    async def main() -> list[str]:
        task = asyncio.create_task(Careful().kickoff_async())
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return list(cleaned)

    started = asyncio.Event()
    assert asyncio.run(main()) == ["hold"]


def test_inputs_that_stop_fitting_before_the_first_pull_leave_the_instance_free() -> None:
    class Trip(BaseModel):
        place: str = "Lisbon"

    class Travel(Flow[Trip]):
        stream = True

        @start()
        def go(self) -> str:
            return self.state.place

    flow = Travel()
    streaming = flow.kickoff(inputs={"place": "Porto"})
    object.__setattr__(flow.state, "id", object())  # a state that no longer validates
    with pytest.raises(ValueError, match="Invalid inputs for structured state"):
        list(streaming)
    object.__setattr__(flow.state, "id", "1")
    again = flow.kickoff(inputs={"place": "Faro"})
    list(again)
    assert again.result == "Faro"


def test_a_flow_whose_constructor_forgets_ours_works() -> None:
    class Forgetful(Flow):
        def __init__(self, place: str) -> None:
            self.place = place

        @start()
        def go(self) -> str:
            return self.place

    assert Forgetful("Evora").kickoff() == "Evora"
