"""``only_method`` keeps what comes out of some methods of a flow."""

from typing import Any

import pytest
import reactivex as rx
from reactivex import Observable

from rxflow import Flow, operators as ops
from rxflow.flow import listen, start
from rxflow.testing import Marbles
from rxflow.types import CrewStarted, Happened, MethodFinished, MethodStarted
from tests.operators.pieces import said
from tests.signals import outcome, signals_of
from tests.team import crew_saying

VALUES = {"a": said("a", flow_method="write"), "b": said("b", flow_method="edit"), "o": said("o"), "s": "no chunk"}


class Publishing(Flow):
    @start()
    def write(self) -> str:
        return str(crew_saying("draft").kickoff())

    @listen(write)
    def edit(self) -> Observable[str]:
        return rx.of("edited")


def test_it_keeps_the_chunks_of_a_method_and_drops_the_rest(marbles: Marbles) -> None:
    source = marbles.cold("-a-b-o-s-a|", VALUES)
    marbles.expect(source.pipe(ops.only_method("write"))).to_be("-a-------a|", VALUES)
    marbles.expect(source.pipe(ops.only_method("write", "edit"))).to_be("-a-b-----a|", VALUES)


def test_each_subscription_sees_all(marbles: Marbles) -> None:
    kept = marbles.cold("-a-b|", VALUES).pipe(ops.only_method("edit"))
    marbles.expect(kept).to_be("---b|", VALUES)
    marbles.expect(kept, "--^").to_be("-----b|", VALUES)


def test_it_keeps_all_that_happens_inside_the_method() -> None:
    kept = outcome(Publishing().events().pipe(ops.only_method("write")))
    assert {event.origin.flow_method for event in kept.events if isinstance(event, Happened)} == {"write"}
    assert [type(kept.events[0]), type(kept.events[-1])] == [MethodStarted, MethodFinished]
    assert (len(kept.of(CrewStarted)), kept.text) == (1, "draft")


def test_what_a_method_streams_by_itself_is_of_it() -> None:
    assert [str(chunk) for chunk in signals_of(Publishing().observe().pipe(ops.only_method("edit"))).items] == [
        "edited"
    ]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ((), ValueError, r"^only_method\(\) needs at least one method to keep$"),
        (("",), ValueError, r"^only_method\(\) got an empty name"),
        ((Publishing.write,), TypeError, r"^only_method\(\) takes names of methods; got \["),
    ],
)
def test_what_cannot_be_meant_is_refused(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ops.only_method(*given)
