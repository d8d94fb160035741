"""The parts of answers: whatever happens in a run, each part begins once, speaks in between, and ends once."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from rxflow import Flow, operators as ops
from rxflow.adapters._translation import Part, PartTracker, Step, translate
from rxflow.types.chunks import Origin, StreamChunk
from rxflow.types.events import CrewStarted, Event, LLMCancelled, LLMFailed, LLMFinished, ReasoningChunk, Retracted
from rxflow.types.streaming import ToolCallChunk
from tests.adapters import flows

CALLS = [
    Origin(llm_call_id=name, span_id=f"span {name}", agent_role=role, namespace=("F", role))
    for name, role in (("1", "A"), ("2", "A"), ("3", "B"))
]


def make_delta(index: int, arguments: str, has_id: bool = True) -> ToolCallChunk:
    return ToolCallChunk(tool_id=f"t{index}" if has_id else None, tool_name="f", arguments=arguments, index=index)


def said_by(call: Origin) -> st.SearchStrategy[Event]:
    """What can happen in one call."""
    texts = st.sampled_from(["", "a", "bc"])
    tools = st.builds(make_delta, st.integers(0, 2), texts, st.booleans())
    return st.one_of(
        texts.map(call.chunk),
        tools.map(call.tool_chunk),
        texts.map(lambda text: ReasoningChunk(origin=call, content=text)),
        st.just(LLMFinished(origin=call, text="")),
        st.just(LLMFailed(origin=call, error=OSError())),
        st.just(LLMCancelled(origin=call)),
        st.just(Retracted(origin=call, attempts=(0,), error=ValueError())),
    )


EVENTS: st.SearchStrategy[list[Event]] = st.lists(st.sampled_from(CALLS).flatmap(said_by), max_size=40)


def steps_of(events: list[Event]) -> list[Step]:
    tracker = PartTracker()
    return [step for event in events for step in tracker.read(event)] + tracker.end_all()


@given(EVENTS)
def test_each_part_begins_once_speaks_in_between_and_ends_once(events: list[Event]) -> None:
    seen: dict[Part, list[str]] = {}
    for step in steps_of(events):
        seen.setdefault(step.part, []).append(step.verb)
    for verbs in seen.values():
        assert verbs[0] == "begin"
        assert verbs.count("begin") == verbs.count("end") == 1
        said = verbs[1 : verbs.index("end")]
        assert set(said) <= {"say"}
        assert verbs[verbs.index("end") + 1 :] in ([], ["retract"])


def test_what_a_resumed_run_repeats_is_not_said_again() -> None:
    call = Origin(span_id="c", llm_call_id="c")
    chunks = [call.chunk("Hello"), call.tool_chunk(make_delta(0, "{}"))]
    repeated = [chunk.model_copy(update={"replayed": True}) for chunk in chunks]
    assert steps_of([ReasoningChunk(origin=call, content="Hm", replayed=True), *repeated]) == []


class Breaking:
    """A translator that fails at the end."""

    def read(self, event: Event) -> Iterator[str]:
        yield type(event).__name__

    def finish(self, error: BaseException | None) -> Iterator[str]:
        yield "the end"
        raise LookupError("no word for it")


@pytest.mark.parametrize("flow", [flows.Routed, flows.Failing])
def test_a_translator_that_fails_at_the_end_ends_the_stream_with_its_error(flow: type[Flow[Any]]) -> None:
    seen: list[str] = []
    with (
        flow().events().pipe(translate(Breaking), ops.to_output()) as output,
        pytest.raises(LookupError, match="no word for it"),
    ):
        seen.extend(output)
    assert seen[-1] == "the end"


class Stumbling:
    """A translator that cannot translate a crew's start."""

    def read(self, event: Event) -> Iterator[str]:
        if isinstance(event, CrewStarted):
            raise LookupError("no word for it")
        yield type(event).__name__

    def finish(self, error: BaseException | None) -> Iterator[str]:
        yield str(error)


@pytest.mark.timeout(30)
def test_a_translator_that_cannot_translate_an_event_ends_the_stream_with_its_error() -> None:
    seen = list(flows.Plain().events().pipe(translate(Stumbling), ops.to_output()))
    assert seen == ["FlowStarted", "MethodStarted", "no word for it"]


# The second text of the call and the tool call with the number 2 would both be "1/2".
@example(
    [
        CALLS[0].chunk("a"),
        CALLS[0].tool_chunk(make_delta(0, "")),
        CALLS[0].chunk("b"),
        CALLS[0].tool_chunk(make_delta(2, "", has_id=False)),
    ]
)
@given(EVENTS)
def test_the_parts_of_a_run_have_ids_of_their_own(events: list[Event]) -> None:
    begun = [step.part for step in steps_of(events) if step.verb == "begin"]
    assert len({part.id for part in begun}) == len(begun)


@given(EVENTS)
def test_nothing_that_is_said_is_lost(events: list[Event]) -> None:
    said = [event.content for event in events if isinstance(event, StreamChunk | ReasoningChunk)]
    shown = [step.text for step in steps_of(events) if step.verb == "say"]
    assert "".join(shown) == "".join(said)
