"""``by_method`` takes a stream apart by flow methods; how lanes are read is tried with ``by_task``."""

from typing import Any

import reactivex as rx
from reactivex import Observable, operators as rxops

from rxflow import Flow, operators as ops
from rxflow.flow import listen, or_, router, start
from rxflow.testing import Marbles, check_operator
from rxflow.types import Lane
from tests.operators.pieces import said
from tests.signals import signals_of
from tests.team import crew_saying

VALUES = {"a": said("a", flow_method="A"), "b": said("b", flow_method="B"), "o": said("o"), "A": "A", "B": "B"}


class Cycle(Flow):
    """Writes, and judges, until it is good enough."""

    @start()
    def begin(self) -> None:
        self.state["drafts"] = 0

    @listen(or_(begin, "again"))
    def write(self) -> Observable[str]:
        self.state["drafts"] += 1
        return rx.of("draft ", str(self.state["drafts"]))

    @router(write)
    def judge(self) -> str:
        crew_saying("hm").kickoff()
        return "again" if self.state["drafts"] < 2 else "good"


def key_of(lane: Lane[Any]) -> str:
    return lane.key


def texts(lane: Lane[Any]) -> Observable[tuple[str, str]]:
    return lane.map(str).reduce(str.__add__, "").map(lambda text: (lane.key, text))


def test_it_keeps_the_rules() -> None:
    check_operator(ops.by_method(), items=[VALUES["a"], VALUES["b"], VALUES["o"], VALUES["a"]], key=key_of)


def test_there_is_a_lane_for_each_method(marbles: Marbles) -> None:
    source = marbles.cold("-a-o-b-a|", VALUES)
    marbles.expect(source.pipe(ops.by_method(), rxops.map(key_of))).to_be("-A---B--|", VALUES)
    marbles.expect(source.pipe(ops.by_method(), rxops.take(1), rxops.merge_all())).to_be("-a-----a|", VALUES)


def test_in_a_run_each_call_of_a_method_has_a_lane_also_where_it_says_nothing() -> None:
    shown = signals_of(Cycle().observe().pipe(ops.by_method(), rxops.flat_map(texts)))
    assert shown.items == [
        ("begin", ""),
        ("write", "draft 1"),
        ("judge", "hm"),
        ("write", "draft 2"),
        ("judge", "hm"),
    ]
