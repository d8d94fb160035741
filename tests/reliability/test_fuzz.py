"""Any bytes at all, in any pieces: the parser gives deltas of the right types, or one of its three errors.

It is pure, so it is fuzzed without a socket; near misses of real events go over the wire as well, each way.
"""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from rxflow.llm._wires.openai_chat import OpenAIChatWire
from rxflow.llm._wires.sse import ErrorEvent, EventData, MalformedEvent, OversizedEvent
from rxflow.llm.source import Delta, PartDelta, ReasoningDelta, RefusalDelta, ToolCallDelta
from tests.llm.ways import WAYS
from tests.llm.wire import cut, delta, event
from tests.loopback import Loopback, Reply
from tests.loopback.encode import DONE
from tests.reliability.told import assert_well_told, hasty
from tests.signals import outcome

pytestmark = pytest.mark.slow

PLACES = st.lists(st.integers(0, 10_000), max_size=8)

NAMES = st.sampled_from(
    [
        *("choices", "delta", "content", "role", "finish_reason", "index", "usage", "error", "message"),
        *("tool_calls", "function", "name", "arguments", "id", "type", "reasoning_content", "reasoning"),
    ]
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats()
    | st.sampled_from(["", "a", "stop", "\ud83d", "\ude00", "é😀", "\x00", 10**30, 2**63])
    | st.text(max_size=4)
)
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)


@st.composite
def near_misses(draw: st.DrawFn) -> dict[str, Any]:
    """A chunk as a provider sends it, with something else in one or two places."""
    function: dict[str, Any] = {"name": "f", "arguments": "{}"}
    call: dict[str, Any] = {"index": 0, "id": "x", "function": function}
    told: dict[str, Any] = {"role": "assistant", "content": "a", "reasoning_content": "hm", "tool_calls": [call]}
    choice: dict[str, Any] = {"index": 0, "delta": told, "finish_reason": draw(st.sampled_from([None, "stop"]))}
    chunk: dict[str, Any] = {"id": "1", "choices": [choice], "usage": {"prompt_tokens": 1}}
    for _ in range(draw(st.integers(1, 2))):
        place: dict[str, Any] = draw(st.sampled_from([chunk, choice, told, call, function]))
        place[draw(st.sampled_from(sorted(place)))] = draw(ANYTHING)
    return chunk


EVENTS = (
    near_misses().map(event)
    | ANYTHING.map(event)
    | st.binary(max_size=40).map(lambda data: b"data: " + data + b"\n\n")
    | st.sampled_from([b"", b"\n", b"\r\n\r\n", b": ping\n\n", b"event: error\n", DONE, b"data:\n\n", b"\xef\xbb\xbf"])
)
BODIES = st.lists(EVENTS, max_size=6).map(b"".join)


def read(pieces: list[bytes]) -> tuple[list[Delta], Exception | None]:
    """All that our wire makes of a body, and the error that it ended with."""
    wire = OpenAIChatWire()
    told: list[Delta] = []
    try:
        for piece in pieces:
            if not wire.is_done:
                wire.feed(piece, told)
        if not wire.is_done:
            wire.flush(told)
    except (MalformedEvent, ErrorEvent, OversizedEvent) as error:
        return told, error
    return told, None


def assert_right(told: Delta) -> None:
    """What comes after the parser looks at nothing any more."""
    match told:
        case str() | ReasoningDelta(content=str()) | RefusalDelta(content=str()):
            text = told if isinstance(told, str) else told.content
            assert text
            text.encode()
        case ToolCallDelta(index=int() | None, id=str() | None, name=str() | None, arguments=str()):
            told.arguments.encode()
        case PartDelta(kind=str()):
            pass
        case _:
            raise AssertionError(f"a delta of another type: {told!r}")


@settings(max_examples=400, deadline=1000)
@given(BODIES, PLACES)
@example(b"data: " + b"[" * 20_000 + b"\n\n", [])
@example(b'data: {"choices": [{"delta": {"content": "\\ud83d"}}]}\n\n' * 2, [])
@example(b'data: {"a": ' + b"9" * 5000 + b', "b": "\\ud83d"}\n\n', [])
def test_any_body_gives_deltas_of_the_right_types_or_one_of_three_errors(body: bytes, places: list[int]) -> None:
    told, error = read(cut(body, places))
    for each in told:
        assert_right(each)
    again, said = read([body])
    assert (again, str(said)) == (told, str(error)), "it depends on where the network cuts"


@settings(max_examples=200, deadline=1000)
@given(st.lists(st.sampled_from([b"data: ", b"\n", b"\r", b"\n\n", b":", b"x", b"\xff", b"data"]), max_size=30), PLACES)
def test_any_bytes_are_cut_into_the_same_events_whatever_the_reads_are(pieces: list[bytes], places: list[int]) -> None:
    body = b"".join(pieces)
    at_once, piecewise = EventData(), EventData()
    whole = [bytes(each) for each in [*at_once.feed(body), *at_once.flush()]]
    found = [bytes(each) for piece in cut(body, places) for each in piecewise.feed(piece)]
    assert found + [bytes(each) for each in piecewise.flush()] == whole


@settings(max_examples=60, deadline=5000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(EVENTS, max_size=3).map(b"".join), st.booleans())
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # litellm's own, in litellm's wrapper
@pytest.mark.parametrize("name", WAYS)
def test_over_the_wire_any_body_ends_in_one_terminal(
    provider: Loopback, name: str, body: bytes, has_an_end: bool
) -> None:
    end = delta(finish="stop") + DONE if has_an_end else b""
    provider.script(Reply(raw=[delta(content="a"), body + end]))
    with hasty(provider.url, WAYS[name]) as llm:
        seen = outcome(llm.events("Hi"))
    assert_well_told(seen)
    assert seen.text.startswith("a")
    for each in seen.events:
        json.dumps(repr(each))
