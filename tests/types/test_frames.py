"""A frame is plain JSON, and equal to itself after a way through JSON."""

import json
import math
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given, strategies as st
from pydantic import BaseModel

from rxflow import Flow
from rxflow._streaming.frames import Framing
from rxflow.flow import listen, start
from rxflow.tools import tool
from rxflow.types.chunks import Origin
from rxflow.types.events import FlowStarted, MethodFailed, MethodFinished
from rxflow.types.frames import Channel, StreamFrame
from tests.scripted import Scripted, calls, thinking
from tests.team import solo


class City(BaseModel):
    name: str
    founded: date


@dataclass
class Spot:
    at: tuple[float, float]


class Odd:
    def __str__(self) -> str:
        raise LookupError("no words")


@tool
def look(where: tuple[str, ...]) -> Any:
    """Look somewhere."""
    return City(name=where[0], founded=date(1191, 1, 1)), Spot((46.9, math.nan)), {1: b"\xff"}


@tool
def fail() -> None:
    """Fail."""
    raise OSError("gone", "\ud83d")


class Journey(Flow):
    @start()
    def travel(self) -> Any:
        model = Scripted(
            calls(("look", {"where": ["Bern"]}), ("fail", {})),
            [thinking("hm"), "too long"],
            ['{"name": "Bern", "founded": "1191-01-01"}'],
        )
        return solo(model, agent={"tools": [look, fail]}, output_pydantic=City).kickoff()

    @listen(travel)
    def tell(self, report: Any) -> Any:
        return Odd(), report, {"when": datetime(2026, 1, 1, tzinfo=UTC)}


def again(frame: StreamFrame) -> StreamFrame:
    return StreamFrame.model_validate_json(frame.model_dump_json())


def test_each_frame_of_a_run_is_equal_to_itself_after_json() -> None:
    frames = list(Journey().stream_events())
    assert {"tool_usage_error", "task_rejected", "retracted", "llm_thinking_chunk", "task_completed"} <= {
        frame.type for frame in frames
    }
    assert [frame.type for frame in frames if again(frame) != frame] == []
    for frame in frames:
        assert json.loads(frame.model_dump_json())["data"] == frame.data


def test_what_is_not_json_is_shown_as_text() -> None:
    framing = Framing()
    finished = MethodFinished(origin=Origin(namespace=("a", "b")), result=[Spot((1.0, 2.0)), Odd(), math.inf])
    assert framing.frame(finished).data == {
        "namespace": ["a", "b"],
        "label": None,
        "result": [{"at": [1.0, 2.0]}, "<Odd that cannot be shown: its __str__ raised LookupError>", None],
    }
    failed = framing.frame(MethodFailed(origin=Origin(), error=ValueError("no")))
    assert failed.data == {"error": {"type": "ValueError", "message": "no"}}


VALUES: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.text(st.characters(categories=["Cs"]))
    | st.binary()
    | st.dates()
    | st.builds(Odd)
    | st.builds(ValueError, st.text())
    | st.complex_numbers(),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.sets(st.integers())
        | st.dictionaries(st.text() | st.integers() | st.tuples(st.integers()), inner)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), VALUES))
def test_whatever_an_event_holds(inputs: dict[str, Any]) -> None:
    frame = Framing().frame(FlowStarted(origin=Origin(), inputs=inputs))
    assert again(frame) == frame


@pytest.mark.parametrize("data", [None, "text", [1]])
def test_data_that_is_not_a_dict_is_refused(data: Any) -> None:
    with pytest.raises(ValueError, match="data\n  Input should be a valid dictionary"):
        StreamFrame(id="1", seq=0, type="x", channel=Channel.CUSTOM, timestamp=datetime.now(UTC), data=data)


def test_a_value_that_holds_itself_is_shown_as_text() -> None:
    around: list[Any] = []
    around.append(around)
    frame = Framing().frame(FlowStarted(origin=Origin(), inputs={"around": around}))
    assert frame.data["inputs"] == "{'around': [[...]]}"
    assert again(frame) == frame
