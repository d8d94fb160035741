"""Routers: their labels, their order, cycles, and the limit of calls."""

import asyncio
import gc
from collections import Counter
from collections.abc import Callable
from enum import Enum
from functools import wraps
from typing import Any, Literal

import pytest

from rxflow.flow import Flow, listen, or_, router, start
from tests.flow.test_graph import flow_of


def test_routers_run_before_other_listeners() -> None:
    order: list[str] = []

    class Ordered(Flow):
        @start()
        def begin(self) -> None: ...

        @listen(begin)
        def listener(self) -> None:
            order.append("listener")

        @router(begin)
        async def first_router(self) -> None:
            await asyncio.sleep(0)
            order.append("first router")

        @router(begin)
        def second_router(self) -> None:
            order.append("second router")

    Ordered().kickoff()
    assert order == ["first router", "second router", "listener"]


class Mood(Enum):
    GOOD = "good"
    BAD = 7


@pytest.mark.parametrize(
    ("outcome", "label"), [("plain", "plain"), (Mood.GOOD, "good"), (Mood.BAD, "7"), (3, "3"), (False, "False")]
)
def test_the_outcome_of_a_router_is_a_label_that_its_listeners_receive(outcome: object, label: str) -> None:
    class Routed(Flow):
        @start()
        def begin(self) -> None: ...

        @router(begin)
        def which(self) -> object:
            return outcome

        @listen(label)
        def taken(self, heard: str) -> tuple[str, str]:
            return ("taken", heard)

        @listen("never")
        def not_taken(self) -> str:
            return "not taken"

    flow = Routed()
    assert flow.kickoff() == ("taken", label)
    assert flow.method_outputs == [None, label, ("taken", label)]


@pytest.mark.parametrize("first", ["x", "y"])
def test_the_routers_of_every_label_run_whichever_was_emitted_last(first: str) -> None:
    """CrewAI asks for the routers of the last label only."""
    members: dict[str, Any] = {}
    heard: list[str] = []

    def begin(self: Flow) -> None: ...

    def write(label: str) -> Callable[..., Any]:
        def emit(self: Flow) -> str:
            return label

        return emit

    members["begin"] = start()(begin)
    for label in (first, "y" if first == "x" else "x"):
        emit = write(label)
        emit.__name__ = f"emit_{label}"
        members[emit.__name__] = router("begin", emit=[label])(emit)
    for label in "xy":

        def follow(self: Flow, label: str) -> None:
            heard.append(label)

        follow.__name__ = f"follow_{label}"
        members[follow.__name__] = router(label, emit=[])(follow)
    flow_of(members).kickoff()
    assert sorted(heard) == ["x", "y"]


def test_an_outcome_of_none_emits_nothing() -> None:
    class Undecided(Flow):
        @start()
        def begin(self) -> None: ...

        @router(begin, emit=["None", "yes"])
        def which(self) -> None: ...

        @listen("None")
        def taken(self) -> str:
            return "taken"

    flow = Undecided()
    assert flow.kickoff() is None
    assert flow.method_outputs == [None, None]


def test_a_label_that_nobody_listens_for_ends_the_flow_there() -> None:
    class Open(Flow):
        @start()
        def begin(self) -> None: ...

        @router(begin)
        def which(self) -> str:
            return "nowhere"

    with pytest.warns(UserWarning, match="Open.which returned 'nowhere'"):
        assert Open().kickoff() == "nowhere"


def test_a_start_may_be_a_router() -> None:
    class Early(Flow):
        @router()
        @start()
        def which(self) -> Literal["left", "right"]:
            return "right"

        @listen("left")
        def go_left(self) -> str:
            return "went left"

        @listen("right")
        def go_right(self) -> str:
            return "went right"

    assert Early().kickoff() == "went right"


def test_a_router_may_follow_the_label_of_another() -> None:
    class Twice(Flow):
        @start()
        def begin(self) -> None: ...

        @router(begin)
        def first(self) -> str:
            return "on"

        @router("on")
        def second(self, label: str) -> str:
            return f"{label} and on"

        @listen("on and on")
        def end(self, label: str) -> str:
            return label.upper()

    assert Twice().kickoff() == "ON AND ON"


def test_a_method_may_listen_to_the_router_itself() -> None:
    class Routed(Flow):
        @start()
        def begin(self) -> None: ...

        @router(begin)
        def which(self) -> str:
            return "label"

        @listen(which)
        def whatever_it_was(self, outcome: str) -> str:
            return f"it was {outcome}"

    assert Routed().kickoff() == "it was label"


def test_a_cycle_runs_until_its_router_leaves_it() -> None:
    class Counting(Flow):
        @start()
        def begin(self) -> None:
            self.state["n"] = 0

        @listen(or_(begin, "again"))
        def count(self) -> int:
            self.state["n"] += 1
            return int(self.state["n"])

        @router(count)
        def enough(self, n: int) -> str:
            return "again" if n < 5 else "done"

        @listen("done")
        def end(self) -> str:
            return f"counted to {self.state['n']}"

    flow = Counting()
    assert flow.kickoff() == "counted to 5"
    assert flow.method_outputs == [
        None,
        *(item for n in range(1, 5) for item in (n, "again")),
        5,
        "done",
        "counted to 5",
    ]


def a_circle() -> tuple[type[Flow], Counter[str]]:
    calls: Counter[str] = Counter()

    class Circle(Flow):
        @start()
        async def begin(self) -> None: ...

        @listen(or_(begin, "round"))
        async def walk(self) -> None:
            calls["walk"] += 1

        @router(walk)
        async def turn(self) -> str:
            return "round"

    return Circle, calls


def test_past_max_method_calls_a_recursion_error_says_which_method() -> None:
    circle, calls = a_circle()
    with pytest.raises(RecursionError, match=r"Circle\.walk .*max_method_calls=100"):
        circle().kickoff()
    assert calls["walk"] == 100


def as_argument(flow: type[Flow]) -> Flow:
    return flow(max_method_calls=3)


def as_instance_attribute(flow: type[Flow]) -> Flow:
    made = flow()
    made.max_method_calls = 3
    return made


def as_class_attribute(flow: type[Flow]) -> Flow:
    flow.max_method_calls = 3
    return flow()


@pytest.mark.parametrize("make", [as_argument, as_instance_attribute, as_class_attribute])
def test_max_method_calls_can_be_set(make: Callable[[type[Flow]], Flow]) -> None:
    circle, calls = a_circle()
    with pytest.raises(RecursionError, match="max_method_calls=3"):
        make(circle).kickoff()
    assert calls["walk"] == 3


@pytest.mark.slow
def test_a_long_cycle_keeps_nothing_of_its_rounds() -> None:
    objects: dict[int, int] = {}

    class Long(Flow):
        @start()
        async def begin(self) -> None:
            self.state["rounds"] = 0

        @listen(or_(begin, "again"))
        async def step(self) -> None:
            self.state["rounds"] += 1
            if self.state["rounds"] in (100, 1000):
                gc.collect()
                objects[self.state["rounds"]] = len(gc.get_objects())

        @router(step)
        async def judge(self) -> str | None:
            return "again" if self.state["rounds"] < 1000 else None

    Long(max_method_calls=1000).kickoff()
    assert objects[1000] - objects[100] < 900


def call_upper(method: Callable[[Any], str]) -> Callable[[Any], str]:
    @wraps(method)
    def call(self: Any) -> str:
        return method(self).upper()

    return call


def say_yes(self: Any) -> str:
    return "yes"


WITHOUT_OWN_RETURNS: list[tuple[Callable[[Any], str], str]] = [(lambda self: "ok", "ok"), (call_upper(say_yes), "YES")]


@pytest.mark.parametrize(("method", "label"), WITHOUT_OWN_RETURNS, ids=["lambda", "wrapped"])
def test_any_label_may_come_from_a_router_without_return_statements_of_its_own(method: Any, label: str) -> None:
    class Routed(Flow):
        @start()
        def begin(self) -> None: ...

        which = router(begin)(method)

        @listen(label)
        def taken(self, heard: str) -> str:
            return f"taken {heard}"

    assert Routed().kickoff() == f"taken {label}"


def test_the_declared_labels_of_a_wrapped_router_are_known() -> None:
    def which(self: Any) -> Literal["left", "right"]:
        return "left"

    @wraps(which)
    def call(self: Any) -> Any:
        return which(self)

    class Routed(Flow):
        choose = router()(start()(call))

        @listen("middle")
        def end(self) -> None: ...

    with pytest.raises(ValueError, match="end waits for 'middle'"):
        Routed()
