"""Questions of a branch on another machine: people are asked as by a branch here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from reactivex import operators as rxops

pytest.importorskip("ray", reason="needs the extra: pip install 'rxflow[ray]'")

from rxflow import operators as ops
from rxflow._streaming.journal import NotResumable
from rxflow.cluster import close_workers
from rxflow.types.events import Event, FlowFinished, InputReceived, InputRequested
from tests.cluster.flows import Delegating
from tests.gate import Gate
from tests.signals import signals_of

if TYPE_CHECKING:
    from rxflow.cluster import Ray

ASKING = "tests.cluster.flows:Asking"
ANSWERS = {"In whose name?": "Ada", "How many?": "2"}


def answer(request: InputRequested) -> str:
    return ANSWERS[request.message]


def values(events: list[Event]) -> list[Any]:
    return [event.value for event in events if isinstance(event, InputReceived)]


def is_question(event: Event) -> bool:
    return isinstance(event, InputRequested)


def test_who_answers_here_is_asked(cluster: Ray) -> None:
    seen = signals_of(cluster.on(ASKING).events().pipe(ops.answer_with(answer)))
    assert seen.ends == ["completed"]
    assert values(seen.items) == ["Ada", "2"]
    assert isinstance(seen.items[-1], FlowFinished)
    assert seen.items[-1].result == "Ada, 2"


def test_in_a_flow_who_answers_that_flow_is_asked(nodes: Any) -> None:
    seen = signals_of(Delegating().events().pipe(ops.answer_with(answer)))
    close_workers()
    assert seen.ends == ["completed"]
    assert isinstance(seen.items[-1], FlowFinished)
    assert seen.items[-1].result == "booked for Ada, 2"


def test_who_sees_the_question_may_answer_at_once(cluster: Ray) -> None:
    inbox = ops.Inbox()
    seen: list[Event] = []

    def see(event: Event) -> None:
        seen.append(event)
        if isinstance(event, InputRequested):
            inbox.answer(event.request_id, answer(event))

    cluster.on(ASKING).events().pipe(ops.answer_with(inbox), rxops.do_action(see)).run()
    assert values(seen) == ["Ada", "2"]
    assert inbox.pending == ()


class Watched(ops.Inbox):
    """Says when a question is taken back."""

    def __init__(self) -> None:
        super().__init__()
        self.is_taken_back = Gate()

    def forget(self, request: InputRequested) -> None:
        super().forget(request)
        self.is_taken_back.open()


def test_disposing_takes_the_question_back(cluster: Ray) -> None:
    inbox = Watched()
    asked = cluster.on(ASKING).events().pipe(ops.answer_with(inbox), rxops.filter(is_question), rxops.take(1))
    assert len(signals_of(asked).items) == 1
    inbox.is_taken_back.wait()
    assert inbox.pending == ()


def test_an_error_of_who_answers_is_raised_where_it_was_asked(cluster: Ray) -> None:
    def refuse(request: InputRequested) -> str:
        raise PermissionError(f"I do not say: {request.message}")

    seen = signals_of(cluster.on(ASKING).events().pipe(ops.answer_with(refuse)))
    assert seen.ends == ["PermissionError('I do not say: In whose name?')"]


def test_if_nobody_answers_that_is_an_error(cluster: Ray) -> None:
    (error,) = signals_of(cluster.on(ASKING).events()).errors
    assert isinstance(error, NotResumable)
    assert str(error).startswith(
        "nobody answers 'In whose name?', and a branch on another machine cannot be paused. Answer while it runs"
    )
