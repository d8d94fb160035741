"""What a run needs to go on after its end: its journal, and the events that are written before the run begins again."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from rxflow._streaming import Journal, NotResumable, check_answer
from rxflow.operators._core.run_log import End, EventsDroppedError, Head, RunCancelled, RunLost
from rxflow.types import (
    Approval,
    Cancelled,
    Event,
    Failed,
    Finished,
    FlowPaused,
    InputReceived,
    InputRequested,
    Origin,
    ReasoningChunk,
    Retracted,
    StreamChunk,
)


def refuse_completed(run_id: str) -> NotResumable:
    """Return the error for a run that has completed."""
    return NotResumable(f"run {run_id!r} has completed: there is nothing to resume")


def create_journal(run_id: str, past: Sequence[Event], answers: Mapping[str, Any] | None) -> Journal:
    """Return the journal of a run that is resumed with ``answers``. ``past`` has all events of the run.

    Raises:
        EventsDroppedError: the store has dropped the first events.
        LookupError: an answer belongs to no open question.
        ValueError: an answer does not fit its question, or there are no events.
    """
    if past and past[0].seq > 0:
        raise EventsDroppedError(f"run {run_id!r} cannot be resumed: its first events were dropped (max_events)")
    journal = Journal(past, answers)
    for request in journal.pending:
        if answers and request.request_id in answers:
            check_answer(request, answers[request.request_id])
    return journal


def record_answers(journal: Journal, answers: Mapping[str, Any]) -> list[InputReceived]:
    """Return an event for each answer, except for those that came after their question had expired.

    These events are written before the resumed run begins. So an answer is not lost if the run ends before it comes to
    the question. Their origin has no span, because no span is open between two generations of a run.
    """
    now = time.time()
    recorded: list[InputReceived] = []
    for request in journal.pending:
        is_expired = request.expires_at is not None and request.expires_at <= now
        if request.request_id in answers and not is_expired:
            seq = journal.last_seq + 1 + len(recorded)
            recorded.append(_record(request, answers[request.request_id], seq, now))
    return recorded


def _record(request: InputRequested, value: Any, seq: int, now: float) -> InputReceived:
    if request.kind == "approval":
        value = Approval.model_validate(value)  # readers of the log expect this type, as in the events of a live run
    origin = replace(request.origin, span_id="", parent_span_id=request.origin.span_id)
    return InputReceived(origin=origin, seq=seq, at=now, request_id=request.request_id, value=value)


def find_end(events: Sequence[Event]) -> End | None:
    """Return how a run ended or paused, according to its last events; None if these show no end."""
    for event in reversed(events):
        if isinstance(event, FlowPaused):
            return End("paused")
        if isinstance(event, Finished | Failed | Cancelled) and not event.origin.parent_span_id:
            return _end_of(event)
    return None


def read_end(head: Head) -> End | None:
    """Return how the run of ``head`` ended or paused; None if the run is lost."""
    if head.status in ("paused", "failed", "cancelled", "completed"):
        return End(head.status, head.error, head.reason)
    return None


def retract_all(past: Iterable[Event], error: Exception) -> Retracted:
    """Return the event that retracts all text so far, for a run that starts again from the beginning.

    The origin of the event is empty, because the event belongs to no flow, method or task.
    """
    attempts, spans, calls = {0: None}, dict[str, None](), dict[str, None]()
    for event in past:
        if isinstance(event, StreamChunk | ReasoningChunk):
            labels = event if isinstance(event, StreamChunk) else event.origin
            attempts[labels.attempt] = None
            spans[labels.span_id] = None
            calls[labels.llm_call_id] = None
    names = tuple(name for name in spans if name)
    return Retracted(
        origin=Origin(),
        attempts=tuple(attempts),
        error=error,
        span_ids=names if len(names) == len(spans) else (),
        llm_call_ids=tuple(name for name in calls if name),
    )


def explain_restart(head: Head, last: int) -> Exception:
    """Return the error for the :class:`Retracted` event of a restart. Used if the run itself has no error."""
    if head.status == "lost":
        return RunLost(head.run_id, last)
    if head.status == "cancelled":
        return RunCancelled(head.run_id, head.reason)
    return RuntimeError(f"run {head.run_id!r} was {head.status}, and starts from the beginning")


def _end_of(event: Finished | Failed | Cancelled) -> End:
    if isinstance(event, Failed):
        return End("failed", cast(Exception, event.error))
    return End("cancelled", reason=event.reason) if isinstance(event, Cancelled) else End("completed")
