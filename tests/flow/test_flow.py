"""Running a flow: the forms of kickoff, what is known afterwards, and its cold Observables."""

import asyncio
import logging
import threading
from typing import Any

import pytest
import reactivex
from reactivex import operators as ops

from rxflow.flow import Flow, and_, listen, or_, router, start
from rxflow.types.events import (
    CrewStarted,
    FlowFailed,
    FlowStarted,
    MethodFailed,
    MethodStarted,
)
from rxflow.types.results import UsageMetrics
from rxflow.types.streaming import FlowStreamingOutput, StreamChunk
from tests.gate import PATIENCE_S
from tests.scripted import USAGE, Scripted
from tests.signals import signals_of
from tests.spans import ranked
from tests.team import crew_saying


class Words(Flow):
    """Two methods, three chunks."""

    @start()
    async def first(self) -> Any:
        yield "one "
        yield "two "

    @listen(first)
    async def second(self, said: str) -> Any:
        yield f"({said.strip()})"


class StreamingWords(Words):
    stream = True


def test_kickoff_gives_the_result_of_the_last_method() -> None:
    assert Words().kickoff() == "(one two)"


def test_kickoff_async_and_akickoff_do_the_same() -> None:
    async def main() -> tuple[object, object]:
        return await Words().kickoff_async(), await Words().akickoff(inputs={"a": 1})

    assert asyncio.run(main()) == ("(one two)", "(one two)")


def test_with_stream_kickoff_gives_the_stream() -> None:
    streaming = StreamingWords().kickoff()
    assert isinstance(streaming, FlowStreamingOutput)
    assert [chunk.content for chunk in streaming] == ["one ", "two ", "(one two)"]
    assert streaming.result == "(one two)"


def test_with_stream_kickoff_async_and_akickoff_do_the_same() -> None:
    async def main() -> list[tuple[list[str], object]]:
        outputs = [await StreamingWords().kickoff_async(), await StreamingWords().akickoff()]
        return [([chunk.content async for chunk in output], output.result) for output in outputs]

    assert asyncio.run(main()) == [(["one ", "two ", "(one two)"], "(one two)")] * 2


def test_nothing_runs_before_the_first_pull() -> None:
    ran: list[str] = []

    class Noting(Flow):
        stream = True

        @start()
        def begin(self) -> None:
            ran.append("begin")

    streaming = Noting().kickoff()
    assert ran == []
    list(streaming)
    assert ran == ["begin"]


def test_the_fields_can_be_arguments_of_the_constructor() -> None:
    flow = Words(stream=True, name="argument")
    assert {chunk.flow_name for chunk in flow.kickoff()} == {"argument"}


def test_the_fields_can_be_attributes_of_the_instance() -> None:
    flow = Words()
    flow.stream = True
    flow.name = "attribute"
    assert {chunk.flow_name for chunk in flow.kickoff()} == {"attribute"}


def test_the_fields_can_be_attributes_of_the_class() -> None:
    class Named(StreamingWords):
        name = "class"

    assert {chunk.flow_name for chunk in Named().kickoff()} == {"class"}


def test_an_argument_goes_before_the_class_attribute() -> None:
    assert StreamingWords(stream=False).kickoff() == "(one two)"


def test_a_flow_without_a_name_is_called_after_its_class() -> None:
    assert {chunk.flow_name for chunk in StreamingWords().kickoff()} == {"StreamingWords"}


def test_the_result_is_that_of_the_last_method_to_complete() -> None:
    class Race(Flow):
        def __init__(self) -> None:
            super().__init__()
            self.fast_is_done = asyncio.Event()

        @start()
        async def slow(self) -> str:
            await self.fast_is_done.wait()
            return "slow"

        @start()
        async def fast(self) -> str:
            return "fast"

        @listen(fast)
        async def after_fast(self) -> str:
            self.fast_is_done.set()
            return "after fast"

    flow = Race()
    assert flow.kickoff() == "slow"
    assert flow.method_outputs == ["fast", "after fast", "slow"]


def test_method_outputs_hold_router_labels_too_and_are_a_copy() -> None:
    class Routed(Flow):
        @start()
        def begin(self) -> int:
            return 1

        @router(begin)
        def which(self) -> str:
            return "left"

        @listen("left")
        def end(self) -> list[str]:
            return ["end"]

    flow = Routed()
    assert flow.method_outputs == []
    flow.kickoff()
    flow.method_outputs.clear()
    assert flow.method_outputs == [1, "left", ["end"]]


def test_after_a_failure_method_outputs_hold_what_had_completed() -> None:
    class Failing(Flow):
        @start()
        def begin(self) -> str:
            return "begun"

        @listen(begin)
        def fail(self) -> None:
            raise LookupError("failed")

    flow = Failing()
    with pytest.raises(LookupError):
        flow.kickoff()
    assert flow.method_outputs == ["begun"]


def test_usage_metrics_add_up_all_calls_of_crews_and_models() -> None:
    class Using(Flow):
        @start()
        def crew(self) -> Any:
            return crew_saying("hello").kickoff()

        @listen(crew)
        async def call(self) -> Any:
            return await Scripted(["hello"]).llm.acall("Hello")

    flow = Using()
    assert flow.usage_metrics == UsageMetrics()
    flow.kickoff()
    assert flow.usage_metrics == USAGE + USAGE
    flow.kickoff()
    assert flow.usage_metrics == USAGE + USAGE


def test_usage_metrics_of_a_flow_hold_those_of_the_flows_inside_it() -> None:
    class Inner(Flow):
        @start()
        def say(self) -> Any:
            return crew_saying("hello").kickoff()

    class Outer(Flow):
        @start()
        def inside(self) -> Any:
            return Inner().kickoff()

    flow = Outer()
    flow.kickoff()
    assert flow.usage_metrics == USAGE


def test_an_instance_can_be_kicked_off_again_when_it_has_ended() -> None:
    flow = Words()
    assert [flow.kickoff(), flow.kickoff()] == ["(one two)", "(one two)"]
    assert flow.method_outputs == ["one two ", "(one two)"]


def test_an_instance_can_be_kicked_off_again_after_a_failure() -> None:
    class Moody(Flow):
        @start()
        def begin(self) -> str:
            if self.state.get("bad"):
                raise LookupError("bad")
            return "good"

    flow = Moody()
    with pytest.raises(LookupError):
        flow.kickoff({"bad": True})
    assert flow.kickoff({"bad": False}) == "good"


def test_an_instance_can_be_kicked_off_again_after_its_stream_was_closed() -> None:
    flow = StreamingWords()
    with flow.kickoff() as streaming:
        assert next(iter(streaming)).content == "one "
    assert "".join(chunk.content for chunk in flow.kickoff()) == "one two (one two)"


def test_an_unread_stream_does_not_hold_its_instance() -> None:
    flow = StreamingWords()
    unread = flow.kickoff()
    assert len(list(flow.kickoff())) == 3
    assert not unread.is_completed


def test_pending_conditions_do_not_survive_a_run() -> None:
    class Half(Flow):
        @start()
        def begin(self) -> None: ...

        @router(begin)
        def which(self) -> str:
            return str(self.state["label"])

        @listen(and_("left", "right"))
        def both(self) -> None:
            self.state["both"] = True

    flow = Half()
    flow.kickoff({"label": "left"})
    flow.kickoff({"label": "right"})
    assert "both" not in flow.state


def test_an_or_that_has_fired_fires_again_in_the_next_run() -> None:
    class Either(Flow):
        @start()
        def begin(self) -> None: ...

        @listen(or_(begin, "never"))
        def end(self) -> str:
            return "fired"

        @router(end, emit=["never"])
        def which(self) -> None: ...

    flow = Either()
    flow.kickoff()
    flow.kickoff()
    assert flow.method_outputs == [None, "fired", None]


def test_max_method_calls_counts_each_run_anew() -> None:
    flow = Words(max_method_calls=1)
    assert [flow.kickoff(), flow.kickoff()] == ["(one two)", "(one two)"]


def test_every_chunk_says_which_flow_and_method_it_came_from() -> None:
    flow = StreamingWords()
    chunks = list(flow.kickoff())
    assert [(chunk.flow_method, chunk.flow_id, rank) for chunk, rank in ranked(chunks)] == [
        ("first", flow.flow_id, 0),
        ("first", flow.flow_id, 1),
        ("second", flow.flow_id, 2),
    ]


def test_chunks_of_a_crew_in_a_flow_name_task_agent_crew_and_method() -> None:
    class Crewed(Flow):
        stream = True

        @start()
        def say(self) -> Any:
            return crew_saying("hello").kickoff()

    (chunk,) = Crewed().kickoff()
    assert (chunk.content, chunk.task_name, chunk.agent_role, chunk.crew_name) == ("hello", "saying", "Speaker", "crew")
    assert (chunk.flow_name, chunk.flow_method) == ("Crewed", "say")
    assert chunk.llm_call_id


class TestObserve:
    def test_gives_the_chunks_of_all_methods(self) -> None:
        signals = signals_of(Words().observe())
        assert [type(item) for item in signals.items] == [StreamChunk] * 3
        assert (signals.completions, signals.errors) == (1, [])

    def test_ends_with_the_error_after_what_had_arrived(self) -> None:
        class Failing(Flow):
            @start()
            async def begin(self) -> Any:
                yield "so far"
                raise LookupError("failed")

        signals = signals_of(Failing().observe())
        assert [chunk.content for chunk in signals.items] == ["so far"]
        assert [repr(error) for error in signals.errors] == ["LookupError('failed')"]
        assert signals.completions == 0

    def test_is_cold(self) -> None:
        ran: list[str] = []

        class Noting(Flow):
            @start()
            def begin(self) -> None:
                ran.append("begin")

        source = Noting().observe()
        assert ran == []
        signals_of(source)
        signals_of(source)
        assert ran == ["begin", "begin"]

    def test_gives_each_subscription_a_state_of_its_own(self) -> None:
        class Counting(Flow):
            @start()
            async def count(self) -> Any:
                self.state["n"] = self.state.get("n", 0) + 1
                yield f"{self.state['n']} {self.flow_id}"

        flow = Counting()
        first, second = (signals_of(flow.observe({"topic": "rain"})).items[0].content.split() for _ in range(2))
        assert (first[0], second[0]) == ("1", "1")
        assert len({first[1], second[1], flow.flow_id}) == 3
        assert list(flow.state) == ["id"]
        assert flow.method_outputs == []

    def test_may_run_many_at_once_and_beside_a_kickoff(self) -> None:
        meeting = threading.Barrier(3)

        class Meeting(Flow):
            @start()
            def begin(self) -> str:
                meeting.wait(PATIENCE_S)
                return "met"

        flow = Meeting()
        ended = threading.Event()
        reactivex.merge(flow.observe(), flow.observe()).subscribe(on_completed=ended.set)
        assert flow.kickoff() == "met"
        assert ended.wait(PATIENCE_S)

    def test_lives_on_the_loop_of_the_subscriber(self) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            seen: list[Any] = []

            class Looking(Flow):
                @start()
                async def begin(self) -> Any:
                    seen.append(asyncio.get_running_loop())
                    yield "text"

            ended = asyncio.Event()
            Looking().observe().subscribe(lambda chunk: seen.append(asyncio.get_running_loop()), on_completed=ended.set)
            assert seen == []
            await ended.wait()
            assert seen == [loop, loop]

        asyncio.run(main())

    def test_stops_when_it_is_disposed(self) -> None:
        stopped = threading.Event()
        begun = threading.Event()

        class Endless(Flow):
            @start()
            async def begin(self) -> None:
                begun.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    stopped.set()

        subscription = Endless().observe().subscribe()
        assert begun.wait(PATIENCE_S)
        subscription.dispose()
        assert stopped.wait(PATIENCE_S)

    def test_composes_with_operators(self) -> None:
        def shout(chunk: StreamChunk) -> str:
            return chunk.content.upper()

        assert signals_of(Words().observe().pipe(ops.map(shout), ops.to_list())).items == [
            ["ONE ", "TWO ", "(ONE TWO)"]
        ]

    @pytest.mark.parametrize("combine", [reactivex.concat, reactivex.merge])
    def test_composes_with_other_flows(self, combine: Any) -> None:
        signals = signals_of(combine(Words(name="left").observe(), Words(name="right").observe()))
        for name in ("left", "right"):
            assert [(c.content, rank) for c, rank in ranked(signals.items) if c.flow_name == name] == [
                ("one ", 0),
                ("two ", 1),
                ("(one two)", 2),
            ]

    def test_may_be_subscribed_from_a_callback_of_another_run_and_is_a_run_of_its_own(self) -> None:
        class Further(Flow):
            @start()
            async def late(self) -> Any:
                await asyncio.sleep(0)  # past the end of the run whose callback it began in
                yield "further"

        class One(Flow):
            @start()
            async def only(self) -> Any:
                yield "one"

        signals = signals_of(One().observe().pipe(ops.flat_map(lambda chunk: Further().observe())))
        assert [(c.content, c.flow_name, c.flow_method, rank) for c, rank in ranked(signals.items)] == [
            ("further", "Further", "late", 0)
        ]

    def test_of_a_callback_on_the_subscribers_loop_is_a_run_of_its_own_too(self) -> None:
        async def main() -> None:
            chunks: list[StreamChunk] = []
            ended = asyncio.Event()
            Words().observe().pipe(ops.take(1), ops.flat_map(lambda chunk: Words(name="further").observe())).subscribe(
                chunks.append, on_completed=ended.set
            )
            await ended.wait()
            assert [(chunk.flow_name, rank) for chunk, rank in ranked(chunks)] == [
                ("further", 0),
                ("further", 1),
                ("further", 2),
            ]

        asyncio.run(main())

    def test_ends_its_run_when_the_observer_raises_and_reports_it(self, caplog: pytest.LogCaptureFixture) -> None:
        stopped = threading.Event()

        class Endless(Flow):
            @start()
            async def begin(self) -> Any:
                try:
                    yield "text"
                    await asyncio.Event().wait()
                finally:
                    stopped.set()

        def refuse(chunk: StreamChunk) -> None:
            raise LookupError("not this one")

        with caplog.at_level(logging.ERROR, logger="asyncio"):
            Endless().observe().subscribe(refuse)
            assert stopped.wait(PATIENCE_S)
        assert "not this one" in caplog.text


class TestEvents:
    def test_tell_everything_in_its_order(self) -> None:
        class Crewed(Flow):
            @start()
            def say(self) -> Any:
                return crew_saying("hello").kickoff().raw

            @listen(say)
            def end(self, said: str) -> str:
                return said.upper()

        events = signals_of(Crewed().events({"topic": "rain"})).items
        kinds = [type(event).__name__ for event in events]
        crewed = ["FlowStarted", "MethodStarted", "CrewStarted", "StreamChunk", "LLMFinished", "CrewFinished"]
        assert [kind for kind in kinds if kind in {*crewed, "MethodFinished"}][:7] == [*crewed, "MethodFinished"]
        assert kinds[-3:] == ["MethodStarted", "MethodFinished", "FlowFinished"]
        assert events[0].inputs == {"topic": "rain"}
        assert (events[-1].result, events[-1].usage) == ("HELLO", USAGE)

    def test_name_what_encloses_them(self) -> None:
        class Crewed(Flow):
            @start()
            def say(self) -> Any:
                return crew_saying("hello").kickoff()

        events = signals_of(Crewed(name="outside").events()).items
        assert events[0].origin.namespace == ("outside",)
        (started,) = (event for event in events if isinstance(event, CrewStarted))
        assert started.origin.namespace == ("outside", "say", "crew")

    def test_tell_of_a_failure_innermost_first(self) -> None:
        class Failing(Flow):
            @start()
            def begin(self) -> None:
                raise LookupError("failed")

        signals = signals_of(Failing().events())
        assert [type(event) for event in signals.items] == [FlowStarted, MethodStarted, MethodFailed, FlowFailed]
        assert signals.items[2].error is signals.items[3].error is signals.errors[0]

    def test_are_cold_too(self) -> None:
        source = Words().events()
        ids = {signals_of(source).items[0].origin.flow_id for _ in range(2)}
        assert len(ids) == 2
