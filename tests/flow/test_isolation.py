"""Runs side by side: none sees another's chunks, state, context or failure."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import pytest
import reactivex

from rxflow import operators as ops
from rxflow.flow import Flow, listen, start
from rxflow.types.events import FlowFinished, FlowStarted, MethodFinished
from rxflow.types.streaming import FlowStreamingOutput, StreamChunk
from tests.gate import PATIENCE_S
from tests.signals import outcome, signals_of
from tests.spans import ranked
from tests.team import crew_saying

mark: ContextVar[str] = ContextVar("mark", default="unmarked")

ROUNDS = 5


class InStep(Flow):
    """Says its name, in step with another: each word waits until both are there."""

    stream = True

    def __init__(self, name: str, step: threading.Barrier) -> None:
        super().__init__(name=name)
        self.step = step

    @start()
    def say(self) -> None:
        for _ in range(ROUNDS):
            self.step.wait(PATIENCE_S)
            crew_saying(self.name or "").kickoff()


def whole(name: str) -> list[tuple[str, str, int]]:
    return [(name, name, number) for number in range(ROUNDS)]


def seen(chunks: list[StreamChunk]) -> list[tuple[str, str, int]]:
    return [(chunk.content, chunk.flow_name, rank) for chunk, rank in ranked(chunks)]


def test_two_flows_in_two_threads_never_see_each_others_chunks() -> None:
    step = threading.Barrier(2)

    def read(name: str) -> list[StreamChunk]:
        return list(InStep(name, step).kickoff())

    with ThreadPoolExecutor(2) as pool:
        left, right = pool.map(read, ["left", "right"])
    assert (seen(left), seen(right)) == (whole("left"), whole("right"))


def test_two_flows_on_one_loop_never_see_each_others_chunks() -> None:
    step = threading.Barrier(2)

    async def read(name: str) -> list[StreamChunk]:
        return [chunk async for chunk in await InStep(name, step).kickoff_async()]

    async def main() -> tuple[list[StreamChunk], list[StreamChunk]]:
        return await asyncio.gather(read("left"), read("right"))

    left, right = asyncio.run(main())
    assert (seen(left), seen(right)) == (whole("left"), whole("right"))


def test_two_flows_observed_side_by_side_keep_their_labels_and_counts() -> None:
    step = threading.Barrier(2)
    items = signals_of(reactivex.merge(InStep("left", step).observe(), InStep("right", step).observe())).items
    for name in ("left", "right"):
        assert seen([chunk for chunk in items if chunk.flow_name == name]) == whole(name)


def test_two_subscriptions_of_one_flow_see_only_their_own_run() -> None:
    source = InStep("same", threading.Barrier(2)).observe()
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(signals_of, [source, source])
    assert seen(one.items) == seen(other.items) == whole("same")
    ids = [{chunk.flow_id for chunk in signals.items} for signals in (one, other)]
    assert [len(each) for each in ids] == [1, 1]
    assert ids[0] != ids[1]


def test_two_subscriptions_of_one_flow_do_not_share_what_their_inputs_hold() -> None:
    class Adds(Flow):
        @start()
        def add(self) -> Any:
            self.state["lists"]["a"][0].append(1)
            self.state["others"].add(len(self.state["others"]))
            return self.state["lists"], self.state["others"]

    inner: list[int] = []
    inputs = {"lists": {"a": (inner,)}, "others": {7}}
    events = Adds().events(inputs)
    results = [outcome(events).one(FlowFinished).result for _ in range(2)]
    assert results == [({"a": ([1],)}, {1, 7})] * 2
    assert inputs == {"lists": {"a": ([],)}, "others": {7}}


def test_what_becomes_of_the_inputs_after_the_call_does_not_reach_the_run() -> None:
    class Shows(Flow):
        @start()
        def show(self) -> str:
            return f"{self.state['topic']} {self.state['tags']}"

    mine: dict[str, Any] = {"topic": "terns", "tags": ["a"]}
    events = Shows().events(mine)
    mine["tags"].append("b")
    mine["topic"] = "late"
    assert outcome(events).one(FlowFinished).result == "terns ['a']"


def test_one_dict_may_carry_the_inputs_of_several_streams() -> None:
    class Shows(Flow):
        @start()
        def show(self) -> str:
            return str(self.state["topic"])

    inputs: dict[str, Any] = {}
    streams: list[FlowStreamingOutput] = []
    for topic in ("terns", "gulls"):
        inputs["topic"] = topic
        streams.append(Shows().stream_chunks(inputs))
    for stream in streams:
        list(stream)
    assert [stream.result for stream in streams] == ["terns", "gulls"]


def test_the_start_event_of_an_inner_kickoff_keeps_its_inputs() -> None:
    class Inner(Flow):
        @start()
        def begin(self) -> None:
            pass

    class Outer(Flow):
        @start()
        def begin(self) -> None:
            inputs: dict[str, Any] = {}
            for topic in ("terns", "gulls"):
                inputs["topic"] = topic
                Inner().kickoff(inputs)

    started = outcome(Outer().events()).of(FlowStarted)
    assert [each.inputs for each in started] == [{}, {"topic": "terns"}, {"topic": "gulls"}]


def test_listeners_share_the_object_that_a_method_returned_but_its_event_stays() -> None:
    class Appends(Flow):
        @start()
        def begin(self) -> Any:
            self.items: list[Any] = [{"tags": {1}}]
            return self.items

        @listen(begin)
        def add(self, items: list[Any]) -> bool:
            items[0]["tags"].add(2)
            return items is self.items

    seen = outcome(Appends().events())
    assert [event.result for event in seen.of(MethodFinished)] == [[{"tags": {1}}], True]


def test_a_result_of_very_many_containers_does_not_block_the_loop_to_be_copied() -> None:
    class Table(Flow):
        @start()
        def rows(self) -> list[list[int]]:
            return [[number] for number in range(20_000)]

    said = outcome(Table().events())
    copied, result = said.one(MethodFinished).result, said.one(FlowFinished).result
    assert copied == result
    assert copied[0] is not result[0]
    assert copied[-1] is result[-1], "only the first 10,000 are copied"


def test_inputs_that_hold_themselves_are_copied_as_such() -> None:
    class Finds(Flow):
        @start()
        def find(self) -> Any:
            return self.state["ring"], self.state["ring"][0]

    ring: list[Any] = []
    ring.append(ring)
    outer, inner = outcome(Finds().events({"ring": ring})).one(FlowFinished).result
    assert outer is inner is not ring


def test_the_failure_of_one_flow_does_not_touch_another() -> None:
    failed = threading.Event()

    class Failing(Flow):
        @start()
        async def begin(self) -> None:
            raise LookupError("failed")

    class Steady(Flow):
        @start()
        async def begin(self) -> str:
            await asyncio.to_thread(failed.wait, PATIENCE_S)
            return "steady"

    async def main() -> object:
        steady = asyncio.create_task(Steady().kickoff_async())
        with pytest.raises(LookupError):
            await Failing().kickoff_async()
        failed.set()
        return await steady

    assert asyncio.run(main()) == "steady"


def test_a_run_that_a_method_starts_in_a_thread_without_its_context_is_one_of_its_own() -> None:
    class Detached(Flow):
        @start()
        def begin(self) -> Any:
            outputs: list[Any] = []
            thread = threading.Thread(target=lambda: outputs.append(crew_saying("detached").kickoff()))
            thread.start()
            thread.join(PATIENCE_S)
            return outputs[0].raw

    flow = Detached(stream=True)
    assert list(flow.kickoff()) == []
    assert flow.method_outputs == ["detached"]


def test_after_a_flow_its_caller_belongs_to_no_run() -> None:
    async def main() -> list[StreamChunk]:
        class Quiet(Flow):
            @start()
            async def begin(self) -> None: ...

        await Quiet().kickoff_async()
        streaming = await crew_saying("alone", stream=True).kickoff_async()
        return [chunk async for chunk in streaming]

    (chunk,) = asyncio.run(main())
    assert (chunk.flow_name, chunk.flow_method) == ("", "")


class Marking(Flow):
    """Each method tells the mark it found, and leaves its own."""

    def found(self, name: str) -> str:
        before = mark.get()
        mark.set(name)
        return before

    @start()
    def sync(self) -> str:
        return self.found("sync")

    @listen(sync)
    async def on_loop(self) -> str:
        return self.found("on_loop")

    @listen(on_loop)
    async def generator(self) -> Any:
        yield self.found("generator")

    @listen(generator)
    def last(self) -> str:
        return self.found("last")


def test_what_a_method_sets_in_the_context_neither_the_next_nor_the_caller_sees() -> None:
    flow = Marking()
    flow.kickoff()
    assert flow.method_outputs == ["unmarked"] * 4
    assert mark.get() == "unmarked"


def test_on_the_callers_loop_neither() -> None:
    flow = Marking()

    async def main() -> str:
        await flow.kickoff_async()
        return mark.get()

    assert asyncio.run(main()) == "unmarked"
    assert flow.method_outputs == ["unmarked"] * 4


def test_two_callers_side_by_side_each_give_their_methods_their_own_context() -> None:
    async def marked(name: str) -> list[Any]:
        mark.set(name)
        flow = Marking()
        await flow.kickoff_async()
        return flow.method_outputs

    async def main() -> tuple[list[Any], list[Any]]:
        return await asyncio.gather(marked("left"), marked("right"))

    assert tuple(asyncio.run(main())) == (["left"] * 4, ["right"] * 4)


def test_a_result_of_tuples_that_share_tuples_is_copied_once_for_each_tuple() -> None:
    class Branching(Flow[dict[str, Any]]):
        @start()
        def double(self) -> Any:
            tree: Any = ([1],)
            for _ in range(60):
                tree = (tree, tree)
            return tree

    copied = Branching().events().pipe(ops.to_output())
    (result,) = (event.result for event in copied if isinstance(event, MethodFinished))
    while len(result) == 2:
        assert result[0] is result[1]
        result = result[0]
    assert result == ([1],)
