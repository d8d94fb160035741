"""The graph: what begins a run, what a completion brings about, in which order, and where a run ends."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings, strategies as st
from pydantic import BaseModel

from rxflow.flow import Flow, and_, listen, or_, router, start
from rxflow.flow._graph import Conditional
from rxflow.types.events import (
    FlowFailed,
    FlowFinished,
    FlowStarted,
    MethodFailed,
    MethodFinished,
    MethodStarted,
)
from tests.gate import PATIENCE_S
from tests.signals import signals_of


def test_all_unconditional_starts_run_at_once() -> None:
    meeting = threading.Barrier(3)

    class Meeting(Flow):
        @start()
        def one(self) -> int:
            return meeting.wait(PATIENCE_S)

        @start()
        def two(self) -> int:
            return meeting.wait(PATIENCE_S)

        @start()
        def three(self) -> int:
            return meeting.wait(PATIENCE_S)

    flow = Meeting()
    flow.kickoff()
    assert sorted(flow.method_outputs) == [0, 1, 2]


def test_all_listeners_of_one_trigger_run_at_once() -> None:
    meeting = threading.Barrier(2)

    class Meeting(Flow):
        @start()
        def begin(self) -> None: ...

        @listen(begin)
        def one(self) -> int:
            return meeting.wait(PATIENCE_S)

        @listen(begin)
        def two(self) -> int:
            return meeting.wait(PATIENCE_S)

    flow = Meeting()
    flow.kickoff()
    assert sorted(flow.method_outputs[1:]) == [0, 1]


def test_async_methods_of_one_run_take_turns_on_its_loop() -> None:
    class PingPong(Flow):
        def __init__(self) -> None:
            super().__init__()
            self.ping = asyncio.Event()
            self.pong = asyncio.Event()

        @start()
        async def one(self) -> None:
            self.ping.set()
            await self.pong.wait()

        @start()
        async def two(self) -> str:
            await self.ping.wait()
            self.pong.set()
            return "met"

    flow = PingPong()
    flow.kickoff()
    assert flow.method_outputs == ["met", None]


def test_a_conditional_start_waits_for_its_condition() -> None:
    class Chain(Flow):
        @start()
        def first(self) -> str:
            return "first"

        @start(first)
        def second(self, before: str) -> str:
            return f"{before} second"

    flow = Chain()
    assert flow.kickoff() == "first second"
    assert flow.method_outputs == ["first", "first second"]


def test_a_conditional_start_fires_on_a_label() -> None:
    class Chain(Flow):
        @start()
        def first(self) -> None: ...

        @router(first)
        def which(self) -> str:
            return "again"

        @start("again")
        def second(self, label: str) -> str:
            return f"got {label}"

    assert Chain().kickoff() == "got again"


def test_a_listener_that_declares_a_parameter_receives_the_result() -> None:
    class Pair(Flow):
        @start()
        def begin(self) -> dict[str, int]:
            return {"n": 1}

        @listen(begin)
        def go_on(self, data: dict[str, int]) -> int:
            return data["n"] + 1

    assert Pair().kickoff() == 2


def test_a_listener_that_declares_none_runs_without() -> None:
    class Pair(Flow):
        @start()
        def begin(self) -> str:
            return "ignored"

        @listen(begin)
        def go_on(self) -> str:
            return "ran"

    assert Pair().kickoff() == "ran"


def test_a_parameter_with_a_default_receives_the_result_too() -> None:
    class Pair(Flow):
        @start()
        def begin(self) -> str:
            return "told"

        @listen(begin)
        async def go_on(self, heard: str = "nothing") -> str:
            return heard

    assert Pair().kickoff() == "told"


def test_a_condition_may_name_a_method_that_is_defined_later() -> None:
    class Backwards(Flow):
        @listen("begin")
        def go_on(self, heard: str) -> str:
            return heard + "!"

        @start()
        def begin(self) -> str:
            return "hello"

    assert Backwards().kickoff() == "hello!"


def test_a_result_of_none_triggers_like_any_other() -> None:
    class Quiet(Flow):
        @start()
        def begin(self) -> None: ...

        @listen(begin)
        def go_on(self, heard: object) -> list[object]:
            return [heard]

    assert Quiet().kickoff() == [None]


def test_a_wave_runs_in_parts_routers_then_who_waits_for_the_method_then_who_waits_for_the_label() -> None:
    order: list[str] = []

    class Parts(Flow):
        @start()
        def begin(self) -> None: ...

        @listen("label")
        def of_the_label(self) -> str:
            order.append("of the label")
            return "last"

        @listen(begin)
        async def of_the_method(self) -> None:
            await asyncio.sleep(0)
            order.append("of the method")

        @listen(of_the_method)
        async def further(self) -> None:
            await asyncio.sleep(0)
            order.append("further")

        @router(begin)
        async def which(self) -> str:
            await asyncio.sleep(0)
            order.append("router")
            return "label"

    assert Parts().kickoff() == "last"
    assert order == ["router", "of the method", "further", "of the label"]


def test_a_slow_wave_holds_up_no_other() -> None:
    class Aside(Flow):
        def __init__(self) -> None:
            super().__init__()
            self.done = asyncio.Event()

        @start()
        async def slow(self) -> None: ...

        @listen(slow)
        async def patient(self) -> str:
            await self.done.wait()
            return "patient"

        @start()
        async def quick(self) -> None: ...

        @router(quick)
        async def which(self) -> str:
            return "go"

        @listen("go")
        async def end(self) -> None:
            self.done.set()

    assert Aside().kickoff() == "patient"


class TestOnlyConditionalStarts:
    """A flow in which no start is unconditional begins with all of them."""

    @pytest.mark.parametrize("stream", [False, True])
    def test_the_published_loop_of_drafts(self, stream: bool) -> None:
        class Drafts(Flow):
            @start("retry")
            def write(self) -> str:
                self.state["tries"] = self.state.get("tries", 0) + 1
                return f"draft {self.state['tries']}"

            @router(write)
            def judge(self) -> str:
                return "retry" if self.state["tries"] < 3 else "complete"

            @listen("complete")
            def save(self) -> str:
                return f"saved after {self.state['tries']}"

        flow = Drafts(stream=stream)
        got = flow.kickoff()
        if stream:
            assert list(got) == []
            got = got.result
        assert got == "saved after 3"
        assert flow.method_outputs == ["draft 1", "retry", "draft 2", "retry", "draft 3", "complete", "saved after 3"]

    def test_all_of_them_begin_and_each_waits_for_its_condition_after_that(self) -> None:
        calls: Counter[str] = Counter()

        class Several(Flow):
            @start("x")
            async def one(self, label: str = "none") -> None:
                calls[f"one {label}"] += 1

            @start(or_("x", "y"))
            async def two(self) -> None:
                calls["two"] += 1

            @start(and_("x", "y"))
            async def three(self) -> None:
                calls["three"] += 1

            @router(one)
            async def which(self) -> str | None:
                return "x" if calls.total() == 3 else None

            @router("never")
            async def other(self) -> str:
                return "y"

            @router(and_(which, other))
            async def another(self) -> str:
                return "never"

        Several().kickoff()
        assert calls == {"one none": 1, "one x": 1, "two": 2, "three": 1}

    def test_a_start_without_a_condition_leaves_the_others_waiting(self) -> None:
        class Two(Flow):
            @start()
            def begin(self) -> str:
                return "begin"

            @start("never")
            def waiting(self) -> None:
                raise AssertionError("nobody said never")

            @router(waiting)
            def which(self) -> str:
                return "never"

        assert Two().kickoff() == "begin"

    def test_a_start_may_be_a_router_that_asks_for_itself(self) -> None:
        class Round(Flow):
            @router()
            @start("again")
            def turn(self) -> str:
                self.state["turns"] = self.state.get("turns", 0) + 1
                return "again" if self.state["turns"] < 3 else "done"

            @listen("done")
            def end(self) -> int:
                return int(self.state["turns"])

        assert Round().kickoff() == 3


class TestTriggerPayload:
    """``inputs["crewai_trigger_payload"]`` goes to each start that declares a parameter of that name."""

    INPUTS: ClassVar[dict[str, Any]] = {"crewai_trigger_payload": {"n": 1}, "other": 2}

    def test_sync_and_async_starts_with_and_without_the_parameter(self) -> None:
        class Triggered(Flow):
            @start()
            def one(self, crewai_trigger_payload: Any = None) -> tuple[str, Any]:
                return ("one", crewai_trigger_payload)

            @start()
            async def two(self, crewai_trigger_payload: Any) -> tuple[str, Any]:
                return ("two", crewai_trigger_payload)

            @start()
            def three(self, *, crewai_trigger_payload: Any) -> tuple[str, Any]:
                return ("three", crewai_trigger_payload)

            @start()
            async def four(self, crewai_trigger_payload: Any = None) -> Any:
                yield f"four {crewai_trigger_payload['n'] if crewai_trigger_payload else None}"

            @start()
            def five(self) -> str:
                return "five"

        flow = Triggered()
        flow.kickoff(self.INPUTS)
        assert sorted(flow.method_outputs, key=str) == [
            *(("one", {"n": 1}), ("three", {"n": 1}), ("two", {"n": 1})),
            *("five", "four 1"),
        ]
        flow.kickoff()  # without it
        assert {("one", None), ("two", None), ("three", None), "four None", "five"} == {*flow.method_outputs}

    def test_a_default_stays_without_it(self) -> None:
        class Triggered(Flow):
            @start()
            def begin(self, crewai_trigger_payload: str = "default") -> str:
                return crewai_trigger_payload

        assert Triggered().kickoff({"other": 1}) == "default"
        assert Triggered().kickoff({"crewai_trigger_payload": "given"}) == "given"

    def test_a_conditional_start_gets_its_label_beside_it(self) -> None:
        class Triggered(Flow):
            @router()
            @start()
            def begin(self) -> str:
                return "go"

            @start("go")
            def labelled(self, label: str, crewai_trigger_payload: Any = None) -> tuple[str, Any]:
                return (label, crewai_trigger_payload)

            @start("go")
            def only(self, crewai_trigger_payload: Any) -> Any:
                return ("only", crewai_trigger_payload)

        flow = Triggered()
        flow.kickoff(self.INPUTS)
        assert sorted(flow.method_outputs[1:]) == [("go", {"n": 1}), ("only", {"n": 1})]

    def test_a_listener_gets_the_result_of_its_trigger_under_any_name(self) -> None:
        class Triggered(Flow):
            @start()
            def begin(self) -> str:
                return "result"

            @listen(begin)
            def end(self, crewai_trigger_payload: Any) -> Any:
                return crewai_trigger_payload

        assert Triggered().kickoff(self.INPUTS) == "result"

    def test_a_model_need_not_have_a_field_for_it(self) -> None:
        class Model(BaseModel):
            other: int = 0

        class Triggered(Flow[Model]):
            @start()
            def begin(self, crewai_trigger_payload: Any = None) -> Any:
                return (self.state.other, crewai_trigger_payload)

        assert Triggered().kickoff(self.INPUTS) == (2, {"n": 1})

    def test_each_subscription_of_observe_gets_its_own(self) -> None:
        class Triggered(Flow):
            @start()
            async def begin(self, crewai_trigger_payload: str) -> Any:
                yield crewai_trigger_payload

        said = [signals_of(Triggered().observe({"crewai_trigger_payload": text})).items for text in ("one", "two")]
        assert [[str(chunk) for chunk in chunks] for chunks in said] == [["one"], ["two"]]


def test_a_failing_method_fails_the_flow_and_nothing_follows_it() -> None:
    ran: list[str] = []

    class Failing(Flow):
        @start()
        def begin(self) -> None:
            raise LookupError("gone")

        @listen(begin)
        def after(self) -> None:
            ran.append("after")

    with pytest.raises(LookupError, match="gone"):
        Failing().kickoff()
    assert ran == []


def test_a_failing_method_cancels_its_siblings() -> None:
    cancelled = threading.Event()

    class Failing(Flow):
        def __init__(self) -> None:
            super().__init__()
            self.waiting = asyncio.Event()

        @start()
        async def patient(self) -> None:
            self.waiting.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

        @start()
        async def failing(self) -> None:
            await self.waiting.wait()
            raise LookupError("gone")

    with pytest.raises(LookupError):
        Failing().kickoff()
    assert cancelled.wait(PATIENCE_S)


class Base(Flow):
    @start()
    def begin(self) -> str:
        return "base"

    @listen(begin)
    def go_on(self, heard: str) -> str:
        return f"{heard} went on"


def test_a_subclass_inherits_the_graph_and_may_extend_it() -> None:
    class Longer(Base):
        @listen(Base.go_on)
        def end(self, heard: str) -> str:
            return f"{heard} and ended"

    assert Base().kickoff() == "base went on"
    assert Longer().kickoff() == "base went on and ended"


def test_an_overriding_method_takes_the_place_of_the_one_it_overrides() -> None:
    class Changed(Base):
        @start()
        def begin(self) -> str:
            return "changed"

    assert Changed().kickoff() == "changed went on"


def test_none_takes_a_method_of_the_base_out_of_the_graph() -> None:
    class Shorter(Base):
        go_on = None  # type: ignore[assignment]

    assert Shorter().kickoff() == "base"


def test_a_mixin_brings_its_methods_into_the_graph() -> None:
    class Greeting:
        @start()
        def greet(self) -> str:
            return "hello"

    class Polite(Greeting, Flow):
        @listen(Greeting.greet)
        def bow(self, greeting: str) -> str:
            return f"{greeting}, and a bow"

    assert Polite().kickoff() == "hello, and a bow"


def test_methods_without_a_decorator_are_no_part_of_the_graph() -> None:
    class Helped(Flow):
        @start()
        def begin(self) -> str:
            return self.helper()

        def helper(self) -> str:
            return "helped"

    flow = Helped()
    assert flow.kickoff() == "helped"
    assert flow.method_outputs == ["helped"]


# The same for graphs that nobody would draw. A method is (kind, what it waits for); "bad" ones raise.

Drawn = list[tuple[str, list[int], str]]


def acyclic() -> st.SearchStrategy[Drawn]:
    """Each waits only for methods before it."""

    def method(index: int) -> st.SearchStrategy[tuple[str, list[int], str]]:
        if index == 0:
            return st.just(("start", [], "async"))
        return st.tuples(
            st.sampled_from(["start", "one", "or", "and"]),
            st.lists(st.integers(0, index - 1), min_size=1, max_size=3, unique=True),
            st.sampled_from(["async", "sync"]),
        )

    return st.integers(1, 7).flatmap(lambda size: st.tuples(*(method(i) for i in range(size)))).map(list)


def built(drawn: Drawn, calls: Counter[int], failing: int | None = None) -> Flow:
    members: dict[str, Any] = {}

    def method(index: int, colour: str) -> Callable[..., Any]:
        def sync(self: Flow) -> int:
            calls[index] += 1
            if index == failing:
                raise LookupError(index)
            return index

        async def on_loop(self: Flow) -> int:
            await asyncio.sleep(0)
            return sync(self)

        return sync if colour == "sync" else on_loop

    for index, (kind, waits_for, colour) in enumerate(drawn):
        function = method(index, colour)
        function.__name__ = f"m{index}"
        if kind == "start":
            members[f"m{index}"] = start()(function)
        else:
            members[f"m{index}"] = listen(condition(kind, [f"m{i}" for i in waits_for]))(function)
    return flow_of(members)


def condition(kind: str, names: list[str]) -> Conditional:
    if kind == "one":
        return names[0]
    return or_(*names) if kind == "or" else and_(*names)


def flow_of(members: dict[str, Any], **arguments: Any) -> Flow:
    flow_type: type[Flow] = type("Drawn", (Flow,), members)
    return flow_type(**arguments)


def reachable(drawn: Drawn) -> set[int]:
    fires: set[int] = set()
    for index, (kind, waits_for, _) in enumerate(drawn):
        met = {
            "start": True,
            "one": waits_for[:1] != [] and waits_for[0] in fires,
            "or": any(i in fires for i in waits_for),
            "and": all(i in fires for i in waits_for),
        }[kind]
        if met:
            fires.add(index)
    return fires


@settings(max_examples=60, deadline=None)
@given(acyclic())
def test_without_a_cycle_every_method_that_can_run_runs_once(drawn: Drawn) -> None:
    calls: Counter[int] = Counter()
    signals = signals_of(built(drawn, calls).events())
    assert calls == Counter(reachable(drawn))
    assert (signals.completions, signals.errors) == (1, [])
    assert isinstance(signals.items[0], FlowStarted)
    assert isinstance(signals.items[-1], FlowFinished)
    finished = [event.result for event in signals.items if isinstance(event, MethodFinished)]
    assert signals.items[-1].result == finished[-1]


@settings(max_examples=60, deadline=None)
@given(acyclic(), st.data())
def test_a_failure_anywhere_is_the_one_terminal(drawn: Drawn, data: st.DataObject) -> None:
    failing = data.draw(st.sampled_from(sorted(reachable(drawn))))
    calls: Counter[int] = Counter()
    signals = signals_of(built(drawn, calls, failing).events())
    assert [str(error) for error in signals.errors] == [str(failing)]
    assert signals.completions == 0
    assert isinstance(signals.items[-1], FlowFailed)
    assert [event.origin.flow_method for event in signals.items if isinstance(event, MethodFailed)] == [f"m{failing}"]
    assert sum(isinstance(event, FlowFinished | FlowFailed) for event in signals.items) == 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(["begin", "r0", "r1", "r2", "x", "y"]), min_size=1, max_size=3), min_size=3),
    st.lists(st.sampled_from(["x", "y", None]), min_size=3, max_size=3),
)
def test_every_run_has_exactly_one_terminal_even_of_a_tangle_of_routers(
    waits_for: list[list[str]], outcomes: list[str | None]
) -> None:
    async def begin(self: Flow) -> None: ...

    members: dict[str, Any] = {"begin": start()(begin)}
    for index in range(3):
        # A method that waits for itself is refused: that is another test.
        names = [name for name in waits_for[index] if name != f"r{index}"] or ["begin"]

        async def route(self: Flow, outcome: str | None = outcomes[index]) -> str | None:
            return outcome

        members[f"r{index}"] = router(or_(*names), emit=["x", "y"])(route)
    signals = signals_of(flow_of(members, max_method_calls=4).events())
    assert signals.terminals == 1
    assert all(isinstance(error, RecursionError) for error in signals.errors)
    assert isinstance(signals.items[-1], FlowFailed if signals.errors else FlowFinished)
    starts = Counter(event.origin.flow_method for event in signals.items if isinstance(event, MethodStarted))
    ends = Counter(event.origin.flow_method for event in signals.items if isinstance(event, MethodFinished))
    assert max(starts.values()) <= 4
    assert starts == ends if signals.completions else starts >= ends
