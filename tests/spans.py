"""The laws that hold for the events of every run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rxflow.types import events as e
from rxflow.types.chunks import Happened, StreamChunk
from rxflow.types.codec import decode, encode
from rxflow.types.frames import StreamFrame
from rxflow.types.results import UsageMetrics

LLM_ENDS = e.LLMFinished | e.LLMFailed | e.LLMCancelled


def check_laws(events: Sequence[Any]) -> None:
    """All of them, for a stream that was read from its first event to its end."""
    check_count(events)
    check_spans(events)
    check_sums(events)
    check_codec(events)


def check_count(events: Sequence[Any]) -> None:
    """``seq`` counts from 0 without gaps, time does not go back, and all are of one run."""
    assert [event.seq for event in events] == list(range(len(events)))
    times = [event.at for event in events]
    assert times == sorted(times)
    assert len({event.origin.run_id for event in events if isinstance(event, Happened)} - {""}) <= 1


def check_spans(events: Sequence[Any]) -> None:
    """Each span opens once and closes once, inside the span around it; nothing happens in one that is closed."""
    opened: dict[str, e.Started] = {}
    closed: set[str] = set()
    for event in events:
        labels = event if isinstance(event, StreamChunk) else event.origin
        if isinstance(event, e.Started):
            assert labels.span_id not in opened, event
            assert not labels.parent_span_id or labels.parent_span_id in opened, event
            assert labels.parent_span_id not in closed, event
            opened[labels.span_id] = event
        elif isinstance(event, e.Finished | e.Failed | e.Cancelled | e.FlowPaused):
            assert labels.span_id in opened, event
            assert labels.span_id not in closed, event
            closed.add(labels.span_id)
            inside = {each for each, started in opened.items() if started.origin.parent_span_id == labels.span_id}
            assert inside <= closed, event
        elif labels.span_id:
            assert labels.span_id in opened, event
            assert isinstance(event, e.Heartbeat | e.Retracted) or labels.span_id not in closed, event
    assert set(opened) == closed


def check_sums(events: Sequence[Any]) -> None:
    """A flow and a crew have used what their calls have, those that were stopped included and marked as estimates."""
    around = {event.origin.span_id: event.origin.parent_span_id for event in events if isinstance(event, e.Started)}
    for place, event in enumerate(events):
        if isinstance(event, e.FlowFinished):
            used, cost = event.usage, event.cost
        elif isinstance(event, e.CrewFinished):
            used, cost = event.result.token_usage, None
        else:
            continue
        calls = [
            each
            for each in events[:place]
            if isinstance(each, LLM_ENDS) and _is_within(each.origin.span_id, event.origin.span_id, around)
        ]
        shown = sum((call.usage for call in calls), UsageMetrics())
        assert used == shown
        assert used.is_estimated == any(call.usage.is_estimated for call in calls)
        if isinstance(event, e.FlowFinished):
            billed = [call.cost for call in calls if call.usage.is_reported or call.cost is not None]
            assert (cost is None) == (None in billed)
    for event in events:
        if isinstance(event, e.LLMCancelled) and event.usage.is_reported:
            assert event.usage.is_estimated or event.usage.successful_requests  # the provider had just reported it


def check_codec(events: Sequence[Any]) -> None:
    """The codec gives back what it was given; errors and users' objects come back as stand-ins that stay the same."""
    for event in events:
        line = encode(event)
        assert encode(decode(line)) == line
        if isinstance(event, StreamChunk):
            assert decode(line) == event


def check_frames(frames: Sequence[StreamFrame]) -> None:
    """Frames are JSON, equal to themselves after it, and name the frame that began the span around them."""
    known: set[str] = set()
    for frame in frames:
        assert StreamFrame.model_validate_json(frame.model_dump_json()) == frame
        assert frame.parent_id is None or frame.parent_id in known
        known.add(frame.id)


def _is_within(span_id: str, outer: str, around: dict[str, str]) -> bool:
    while span_id and span_id != outer:
        span_id = around.get(span_id, "")
    return span_id == outer


def ranked(chunks: Iterable[Any]) -> list[tuple[Any, int]]:
    """Chunks, each with its place in the order of ``seq``, which counts the events between them too."""
    listed = list(chunks)
    order = sorted({chunk.seq for chunk in listed})
    return [(chunk, order.index(chunk.seq)) for chunk in listed]


def ranks(chunks: Iterable[Any]) -> list[int]:
    """The places alone."""
    return [rank for _, rank in ranked(chunks)]
