"""Mistakes: each a clear error where it was made, and nothing half-run."""

import asyncio
import threading
from collections.abc import Callable
from enum import Enum
from typing import Any, Literal, Optional

import pytest
from pydantic import BaseModel

from rxflow.flow import Flow, and_, human_feedback, listen, or_, persist, router, start
from tests.gate import PATIENCE_S
from tests.scripted import Scripted
from tests.signals import signals_of
from tests.team import solo


class Side(Enum):
    LEFT = "left"
    RIGHT = "right"


class TestUnknownTriggers:
    """Found when the flow is made: before anything can run."""

    def test_a_method_that_does_not_exist_is_named_with_the_one_that_was_meant(self) -> None:
        class Misspelt(Flow):
            @start()
            def research(self) -> None: ...

            @listen("reserch")
            def write(self) -> None: ...

        with pytest.raises(ValueError, match=r"Misspelt\.write waits for 'reserch'.*did you mean 'research'\?"):
            Misspelt()

    @pytest.mark.parametrize(
        "condition",
        [and_("research", "nowhere"), or_("nowhere", and_("research", "nowhere")), and_("research", or_("nowhere"))],
        ids=["and", "or", "nested"],
    )
    def test_inside_a_condition_that_can_never_be_met_it_is_an_error(self, condition: Any) -> None:
        class Misspelt(Flow):
            @start()
            def research(self) -> None: ...

            @listen(condition)
            def write(self) -> None: ...

        with pytest.raises(ValueError, match="write waits for 'nowhere', which is neither a method nor a label"):
            Misspelt()

    @pytest.mark.parametrize(
        "condition",
        [or_("research", "nowhere"), or_(and_("research", "nowhere"), "research"), and_(or_("nowhere", "research"))],
        ids=["or", "nested and", "nested or"],
    )
    def test_inside_a_condition_that_another_branch_can_meet_it_is_a_warning(self, condition: Any) -> None:
        class Fallback(Flow):
            @start()
            def research(self) -> None: ...

            @listen(condition)
            def write(self) -> str:
                return "written"

        with pytest.warns(UserWarning, match="Fallback.write waits for 'nowhere', which is neither a method nor"):
            flow = Fallback()
        assert flow.kickoff() == "written"

    def test_each_unknown_name_is_a_warning_of_its_own_and_once(self) -> None:
        class Fallback(Flow):
            @start()
            def research(self) -> None: ...

            @listen(or_(research, "nowhere", and_("elsewhere", "nowhere")))
            def write(self) -> None: ...

        def make_and_run() -> None:
            flow = Fallback()
            flow.kickoff()
            signals_of(flow.observe())

        with pytest.warns(UserWarning, match="waits for") as warned:
            make_and_run()
        assert [str(each.message).split(",")[0] for each in warned] == [
            "Fallback.write waits for 'nowhere'",
            "Fallback.write waits for 'elsewhere'",
        ]

    def test_it_is_found_though_a_subclass_forgets_our_init(self) -> None:
        class Forgetful(Flow):
            def __init__(self) -> None: ...

            @start()
            def research(self) -> None: ...

            @listen("reserch")
            def write(self) -> None: ...

        flow = Forgetful()
        with pytest.raises(ValueError, match="did you mean 'research'"):
            flow.kickoff()
        with pytest.raises(ValueError, match="did you mean 'research'"):
            flow.observe()

    def test_a_label_that_a_start_waits_for_is_a_warning_if_the_flow_begins_with_it(self) -> None:
        class Draft(Flow):
            @start("again")
            def write(self) -> str:
                return "draft"

        with pytest.warns(UserWarning, match=r"Draft\.write waits for 'again'"):
            flow = Draft()
        assert flow.kickoff() == "draft"

    def test_a_label_that_a_start_waits_for_is_an_error_if_the_flow_begins_with_another(self) -> None:
        class Draft(Flow):
            @start()
            def begin(self) -> None: ...

            @start("again")
            def write(self) -> None: ...

        with pytest.raises(ValueError, match=r"Draft\.write waits for 'again'"):
            Draft()

    def test_where_none_is_near_those_that_are_known_are_a_sentence_of_their_own(self) -> None:
        class Lost(Flow):
            @start()
            def begin(self) -> None: ...

            @listen("zebra")
            def write(self) -> None: ...

        with pytest.raises(ValueError, match=r"nor a label of a router\. Known: begin, write$"):
            Lost()

    def test_a_method_without_a_decorator_is_not_one_of_the_graph(self) -> None:
        def helper(self: Flow) -> None: ...

        with pytest.raises(ValueError, match=r"'helper' is not a method of a graph; decorate it with @start\(\)"):
            listen(helper)

    def test_a_label_that_no_return_statement_gives(self) -> None:
        class Routed(Flow):
            @start()
            def begin(self) -> None: ...

            @router(begin)
            def which(self) -> str | None:
                if self.state:
                    return "good"
                return "bad" if self.state else None

            @listen("goood")
            def end(self) -> None: ...

        with pytest.raises(ValueError, match=r"end waits for 'goood'.*did you mean 'good'\?.*bad"):
            Routed()

    def test_a_label_that_the_literal_does_not_have(self) -> None:
        class Routed(Flow):
            @router()
            @start()
            def which(self) -> Literal["left", "right"]:
                return "left"

            @listen("middle")
            def end(self) -> None: ...

        with pytest.raises(ValueError, match=r"end waits for 'middle'.*Known: end, left, right, which"):
            Routed()

    @pytest.mark.parametrize(
        "declared",
        [
            Literal["left", None],
            Literal["left"] | None,
            Optional[Literal["left"]],  # noqa: UP045 - as users write it
            Literal["left"] | Literal["right"],
            Literal["left"] | Side,
            Literal[Side.LEFT],
        ],
    )
    def test_a_label_that_a_union_does_not_have(self, declared: Any) -> None:
        def which(self: Any) -> Any:
            return self.state["side"]

        which.__annotations__["return"] = declared

        def flow(label: str) -> type[Flow[Any]]:
            class Routed(Flow):
                choose = router()(start()(which))

                @listen(label)
                def end(self, label: str) -> str:
                    return f"in the {label}"

            return Routed

        assert flow("left")().kickoff({"side": "left"}) == "in the left"
        for label in ("lefft", "None"):
            with pytest.raises(ValueError, match=f"end waits for '{label}'"):
                flow(label)()

    def test_a_label_that_the_enum_does_not_have(self) -> None:
        class Routed(Flow):
            @router()
            @start()
            def which(self) -> Side:
                return Side.LEFT

            @listen("LEFT")
            def end(self) -> None: ...

        with pytest.raises(ValueError, match="end waits for 'LEFT'"):
            Routed()

    def test_a_label_that_emit_does_not_name(self) -> None:
        class Routed(Flow):
            @router(emit=["left", "right"])
            @start()
            def which(self) -> Any:
                return self.state["side"]

            @listen("middle")
            def end(self) -> None: ...

        with pytest.raises(ValueError, match="end waits for 'middle'"):
            Routed()

    def test_any_label_may_come_from_a_router_that_computes_it(self) -> None:
        class Routed(Flow):
            @router()
            @start()
            def which(self) -> Any:
                return self.state["side"]

            @listen("middle")
            def end(self, label: str) -> str:
                return f"in the {label}"

        assert Routed().kickoff({"side": "middle"}) == "in the middle"

    @pytest.mark.parametrize("returns", ["OnlyForTheTypeChecker", "typing.Missing", "int[str]", "not a type"])
    def test_any_label_may_come_from_a_router_whose_source_nobody_has(self, returns: str) -> None:
        members: dict[str, Any] = {}
        exec(f"import typing\ndef which(self) -> '{returns}': return 'middle'", members)

        class Routed(Flow):
            which = router()(start()(members["which"]))

            @listen("middle")
            def end(self, label: str) -> str:
                return f"in the {label}"

        assert Routed().kickoff() == "in the middle"


class TestFlowsThatCannotBegin:
    def test_a_conditional_start_that_requires_a_result_and_has_to_begin(self) -> None:
        class Waiting(Flow):
            @start("sign")
            def first(self, label: str) -> None: ...

            @router(first)
            def which(self) -> str:
                return "sign"

        with pytest.raises(ValueError, match=r"Waiting\.first begins the flow, .* so the parameter needs a default"):
            Waiting()

    def test_no_start_at_all(self) -> None:
        class Waiting(Flow):
            @listen("second")
            def first(self) -> None: ...

            @listen("first")
            def second(self) -> None: ...

        with pytest.raises(ValueError, match=r"cannot begin: no method has @start\(\) \(it has first, second\)"):
            Waiting()


class TestFlowsWithNothingToRun:
    """Can be made, for the sake of their state; running one is an error."""

    class Forgot(Flow):
        def begin(self) -> int:
            return 1

    def test_have_a_state(self) -> None:
        assert set(self.Forgot().state) == {"id"}

    @pytest.mark.parametrize("stream", [False, True])
    def test_are_refused_by_kickoff(self, stream: bool) -> None:
        with pytest.raises(ValueError, match="Forgot has nothing to run: none of its methods is decorated"):
            self.Forgot(stream=stream).kickoff()

    def test_are_refused_by_kickoff_async(self) -> None:
        with pytest.raises(ValueError, match="Forgot has nothing to run"):
            asyncio.run(self.Forgot().kickoff_async())

    @pytest.mark.parametrize("run", ["events", "observe", "stream_events", "astream"])
    def test_are_refused_in_every_other_way(self, run: str) -> None:
        with pytest.raises(ValueError, match="Forgot has nothing to run"):
            getattr(self.Forgot(), run)()

    def test_include_those_whose_methods_were_all_taken_out(self) -> None:
        class Emptied(Going):
            begin = None  # type: ignore[assignment]
            go_on = None  # type: ignore[assignment]

        with pytest.raises(ValueError, match="Emptied has nothing to run"):
            Emptied().kickoff()


class TestLabelsThatNothingWaitsFor:
    """A warning that names the router and what it returned; the flow ends there."""

    @staticmethod
    def routed(outcome: object) -> Flow:
        class Routed(Flow):
            @start()
            def begin(self) -> None: ...

            @router(begin)
            def which(self) -> Any:
                return outcome

            @listen("left")
            def go_left(self) -> None: ...

        return Routed()

    @pytest.mark.parametrize(("outcome", "label"), [("rihgt", "'rihgt'"), (3, "'3'"), (False, "'False'"), ("", "''")])
    def test_are_named(self, outcome: object, label: str) -> None:
        with pytest.warns(UserWarning, match=f"^Routed.which returned {label}, a label that no method waits for"):
            assert self.routed(outcome).kickoff() == str(outcome)

    def test_of_an_enum_are_its_value(self) -> None:
        with pytest.warns(UserWarning, match="which returned 'right'"):
            self.routed(Side.RIGHT).kickoff()

    @pytest.mark.parametrize("outcome", [["left"], ("left", "right"), {"left"}, frozenset({"left"})], ids=repr)
    def test_a_list_is_told_that_a_router_returns_one(self, outcome: object) -> None:
        with pytest.warns(UserWarning, match="a router must return one label") as warned:
            self.routed(outcome).kickoff()
        assert [str(each.message) for each in warned] == [
            f"Routed.which returned {outcome!r}; a router must return one label, so no method follows"
        ]

    def test_none_and_a_label_that_is_awaited_are_no_warning(self) -> None:
        self.routed(None).kickoff()
        self.routed("left").kickoff()

    def test_a_label_that_a_condition_names_among_others_is_no_warning(self) -> None:
        class Joined(Flow):
            @router()
            @start()
            def which(self) -> str:
                return "ready"

            @router(which)
            def never(self) -> str | None:
                return None if self.state else "go"

            @listen(and_("ready", "go"))
            def both(self) -> None: ...

        assert Joined().kickoff() is None

    def test_a_router_that_others_listen_to_by_name_is_no_warning(self) -> None:
        class Named(Flow):
            @router()
            @start()
            def which(self) -> str:
                return "whatever"

            @listen(which)
            def end(self, label: str) -> str:
                return label

        assert Named().kickoff() == "whatever"

    @pytest.mark.filterwarnings("error")
    def test_fail_the_flow_if_warnings_are_errors(self) -> None:
        with pytest.raises(UserWarning, match="which returned 'nowhere'"):
            self.routed("nowhere").kickoff()
        signals = signals_of(self.routed("nowhere").events())
        assert (signals.terminals, len(signals.errors)) == (1, 1)


def or_with_another(condition: Any) -> object:
    return or_("begin", condition)


def of_nothing() -> Callable[..., None]:
    def begin() -> None: ...

    return begin


def of_keywords() -> Callable[..., None]:
    def begin(*, topic: str = "") -> None: ...

    return begin


class Going(Flow):
    @start()
    def begin(self) -> None: ...

    @listen(begin)
    def go_on(self) -> None: ...


class TestWrongDecorators:
    """Found when the class is defined."""

    def test_a_method_that_listens_to_itself(self) -> None:
        with pytest.raises(ValueError, match="circle listens to itself"):

            class Circular(Flow):  # pyright: ignore[reportUnusedClass]
                @start()
                def begin(self) -> None: ...

                @listen("circle")
                def circle(self) -> None: ...

    def test_a_method_that_listens_to_itself_among_others(self) -> None:
        with pytest.raises(ValueError, match="circle listens to itself"):

            class Circular(Flow):  # pyright: ignore[reportUnusedClass]
                @start()
                def begin(self) -> None: ...

                @router(or_(begin, and_(begin, "circle")))
                def circle(self) -> str:
                    return "round"

    def test_a_method_that_is_called_like_the_label_it_listens_for_is_told_to_rename_one_of_them(self) -> None:
        with pytest.raises(
            ValueError,
            match=r"Routed\.good listens to itself.* 'good' is meant as a router's label, rename the method or",
        ):

            class Routed(Flow):  # pyright: ignore[reportUnusedClass]
                @router()
                @start()
                def which(self) -> str:
                    return "good"

                @listen("good")
                def good(self) -> None: ...

    @pytest.mark.parametrize("decorate", [start(), listen("sign"), router("sign")], ids=["start", "listen", "router"])
    @pytest.mark.parametrize("method", [of_nothing, of_keywords])
    def test_a_method_without_self(
        self, decorate: Callable[[Any], Any], method: Callable[[], Callable[..., None]]
    ) -> None:
        with pytest.raises(TypeError, match=r"Selfless\.begin needs self as its first parameter"):
            type("Selfless", (Flow,), {"begin": decorate(method())})

    def test_an_override_without_a_decorator_is_told_to_be_decorated_again(self) -> None:
        with pytest.raises(
            ValueError,
            match=r"Changed\.go_on overrides a method of the graph without @start\(\), .*; decorate it again",
        ):

            class Changed(Going):  # pyright: ignore[reportUnusedClass]
                def go_on(self) -> None: ...

    @pytest.mark.parametrize("wrong", [3, "", None, ["begin"], {"type": "OR"}, str, ...], ids=repr)
    @pytest.mark.parametrize("decorate", [listen, or_, and_, or_with_another])
    def test_a_condition_that_is_none(self, decorate: Callable[[Any], object], wrong: object) -> None:
        with pytest.raises(
            ValueError,
            match=r"Invalid condition for .*; give it a method, its name, a router's label, or|not a method of a graph",
        ):
            decorate(wrong)

    @pytest.mark.parametrize("decorate", [start, router])
    def test_a_condition_that_is_none_on_the_decorators_that_need_none(self, decorate: Callable[[Any], Any]) -> None:
        def method(self: Flow) -> None: ...

        with pytest.raises(
            ValueError, match=f"Invalid condition for @{decorate.__name__}: .*; give it a method, its name"
        ):
            decorate(3)(method)

    @pytest.mark.parametrize("combine", [or_, and_])
    def test_a_condition_of_nothing(self, combine: Callable[[], object]) -> None:
        with pytest.raises(ValueError, match="needs at least one condition"):
            combine()

    def test_two_conditions_on_one_method(self) -> None:
        def method(self: Flow) -> None: ...

        with pytest.raises(ValueError, match=r"method has two conditions; join them with or_\(…\) or and_\(…\)"):
            router("one")(listen("two")(method))

    def test_a_router_without_a_condition(self) -> None:
        with pytest.raises(ValueError, match=r"@router\(\) on Routed\.which has no condition"):

            class Routed(Flow):  # pyright: ignore[reportUnusedClass]
                @router()
                def which(self) -> str:
                    return "label"

    def test_a_decorator_without_parentheses(self) -> None:
        def begin(self: Flow) -> None: ...

        for decorate in (start, listen, router):
            with pytest.raises(ValueError, match=r"'begin' is not a method of a graph; .* with parentheses"):
                decorate(begin)

    @pytest.mark.parametrize("decorate", [start, listen, router])
    @pytest.mark.parametrize("inner", [start(), router("ok"), persist, human_feedback("Good?")])
    def test_a_decorator_without_parentheses_on_a_decorated_method(self, decorate: Any, inner: Any) -> None:
        def begin(self: Flow) -> None: ...

        message = rf"@{decorate.__name__} on Flawed.begin has no parentheses; write @{decorate.__name__}\("
        with pytest.raises(ValueError, match=message):
            type("Flawed", (Flow,), {"begin": decorate(inner(begin))})

    def test_a_decorator_on_a_class(self) -> None:
        with pytest.raises(ValueError, match="goes on a method of a Flow"):
            start()(Side)


class Count(BaseModel):
    n: int = 0


class Counting(Flow[Count]):
    """Notes on the class whether it ran: for the runs of copies too."""

    ran: bool = False

    @start()
    def begin(self) -> int:
        type(self).ran = True
        return self.state.n


async def awaited(flow: Counting, inputs: Any) -> Any:
    return await flow.kickoff_async(inputs)


def kickoff(flow: Counting, inputs: Any) -> Any:
    return flow.kickoff(inputs)


def kickoff_async(flow: Counting, inputs: Any) -> Any:
    return asyncio.run(awaited(flow, inputs))


def stream(flow: Counting, inputs: Any) -> Any:
    flow.stream = True
    return flow.kickoff(inputs)


def stream_async(flow: Counting, inputs: Any) -> Any:
    flow.stream = True
    return asyncio.run(awaited(flow, inputs))


def observe(flow: Counting, inputs: Any) -> Any:
    return flow.observe(inputs)


def events(flow: Counting, inputs: Any) -> Any:
    return flow.events(inputs)


all_ways = pytest.mark.parametrize("run", [kickoff, kickoff_async, stream, stream_async, observe, events])


@all_ways
def test_inputs_that_do_not_fit_the_state_are_refused_at_once(run: Callable[[Counting, Any], Any]) -> None:
    class Fresh(Counting):
        pass

    flow = Fresh()
    with pytest.raises(ValueError, match=r"Invalid inputs for structured state: (.|\n)*n\n.*valid integer"):
        run(flow, {"n": "many"})
    assert (Fresh.ran, flow.state.n, flow.method_outputs) == (False, 0, [])
    flow.stream = False
    assert flow.kickoff({"n": 3}) == 3


@all_ways
def test_inputs_that_are_no_mapping_are_refused_at_once(run: Callable[[Counting, Any], Any]) -> None:
    with pytest.raises(TypeError, match=r"inputs must be a dict or another mapping of names to values; got \['n'\]"):
        run(Counting(), ["n"])


class TestASecondKickoffOfARunningInstance:
    """Is refused, and the first goes on undisturbed."""

    def test_from_another_thread(self) -> None:
        flow = Held()
        results: list[object] = []
        first = threading.Thread(target=lambda: results.append(flow.kickoff({"topic": "first"})))
        first.start()
        assert flow.begun.wait(PATIENCE_S)
        with pytest.raises(RuntimeError, match=r"this Held is running already: .* observe\(\)"):
            flow.kickoff({"topic": "second"})
        flow.released.set()
        first.join(PATIENCE_S)
        assert results == ["first"]

    def test_beside_a_stream(self) -> None:
        class Telling(Flow):
            stream = True

            @start()
            async def tell(self) -> Any:
                yield "one"
                yield "two"
                await asyncio.to_thread(released.wait, PATIENCE_S)

        released = threading.Event()
        flow = Telling()
        chunks = iter(flow.kickoff())
        next(chunks)
        with pytest.raises(RuntimeError, match="running already"):
            flow.kickoff()
        released.set()
        assert [chunk.content for chunk in chunks] == ["two"]

    def test_by_two_streams_of_which_the_second_began_later(self) -> None:
        flow = Held(stream=True)
        first, second = flow.kickoff({"topic": "first"}), flow.kickoff({"topic": "second"})
        reader = threading.Thread(target=lambda: list(first))
        reader.start()
        assert flow.begun.wait(PATIENCE_S)
        with pytest.raises(RuntimeError, match="running already"):
            list(second)
        assert second.is_completed
        flow.released.set()
        reader.join(PATIENCE_S)
        assert first.result == "first"

    def test_in_one_loop(self) -> None:
        async def main() -> object:
            flow = Held()
            first = asyncio.create_task(flow.kickoff_async({"topic": "first"}))
            assert await asyncio.to_thread(flow.begun.wait, PATIENCE_S)
            with pytest.raises(RuntimeError, match="running already"):
                await flow.kickoff_async()
            flow.released.set()
            return await first

        assert asyncio.run(main()) == "first"

    def test_from_inside_one_of_its_methods(self) -> None:
        class Recursive(Flow):
            @start()
            def begin(self) -> Any:
                return self.kickoff()

        with pytest.raises(RuntimeError, match="this Recursive is running already"):
            Recursive().kickoff()

    def test_leaves_observe_allowed(self) -> None:
        flow = Held(stream=True)
        flow.released.set()
        chunks = iter(flow.kickoff())
        assert signals_of(flow.observe()).completions == 1
        list(chunks)


class Held(Flow):
    """Stands still until it is released; gives the topic of its inputs."""

    def __init__(self, *, stream: bool = False) -> None:
        super().__init__(stream=stream)
        self.begun = threading.Event()
        self.released = threading.Event()

    @start()
    def begin(self) -> Any:
        self.begun.set()
        self.released.wait(PATIENCE_S)
        return self.state.get("topic")


def test_a_missing_placeholder_names_variable_and_field_before_any_call_of_a_model() -> None:
    source = Scripted("never")
    after: list[str] = []

    class Filling(Flow):
        @start()
        def say(self) -> Any:
            crew = solo(source, description="About {topic} in {place}")
            return crew.kickoff(inputs={"topic": "rain"})

        @listen(say)
        def end(self) -> None:
            after.append("end")

    with pytest.raises(ValueError, match=r"description.*place|place.*description"):
        Filling().kickoff()
    assert (len(source.requests), after) == (0, [])


def test_a_method_that_requires_more_than_it_gets_is_refused_when_the_class_is_defined() -> None:
    with pytest.raises(ValueError, match="both gets the result of its trigger, by position, but it requires one, two"):

        class _Greedy(Flow):  # pyright: ignore[reportUnusedClass]
            @start()
            def begin(self) -> str:
                return "one"

            @listen(begin)
            def both(self, one: str, two: str) -> None: ...

    with pytest.raises(ValueError, match="begin gets nothing, but it requires topic"):

        class _Expecting(Flow):  # pyright: ignore[reportUnusedClass]
            @start()
            def begin(self, topic: str) -> None: ...

    with pytest.raises(ValueError, match="by position, but it requires said"):

        class _Picky(Flow):  # pyright: ignore[reportUnusedClass]
            @start()
            def begin(self) -> None: ...

            @listen(begin)
            def go_on(self, *, said: str) -> None: ...


@pytest.mark.parametrize("name", ["name", "state", "kickoff", "events"])
def test_a_method_that_would_hide_one_of_flows_own_is_refused(name: str) -> None:
    @start()
    def method(self: Any) -> None: ...

    with pytest.raises(ValueError, match=f"Hiding.{name} would hide Flow.{name}; give the method another name"):
        type("Hiding", (Flow,), {name: method})


def test_a_limit_of_no_calls_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="max_method_calls must be at least 1: 0"):
        Flow(max_method_calls=0)
