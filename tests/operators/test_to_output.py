"""``to_output``: a pipeline in a loop, as ``kickoff()`` gives the chunks of a flow."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, assert_type

import pytest
import reactivex as rx
import trio
from reactivex import Observable, Subject, operators as rxops
from reactivex.internal.exceptions import SequenceContainsNoElementsError

from rxflow import LLM, operators as ops
from rxflow.flow import Flow, listen, start
from rxflow.testing import ScriptedLLM, VirtualClock
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import Event, FlowFinished
from rxflow.types.streaming import PipelineOutput
from tests.gate import Gate
from tests.loopback import Loopback, Reply
from tests.streaming.speaking import Speaking


def words_of(flow: Flow) -> PipelineOutput[str]:
    return flow.observe().pipe(ops.words(), rxops.map(str), ops.to_output())


def words_by_ours(flow: Flow) -> PipelineOutput[StreamChunk]:
    return flow.observe().pipe(ops.words(), ops.to_output())


def events_of(flow: Flow) -> PipelineOutput[Event]:
    return flow.events().pipe(ops.to_output())


READ = [words_of, words_by_ours]
"""A pipeline that ends with an operator of RxPY's, and one that is a part of the run."""


def contents(output: Any) -> list[str]:
    return [str(item) for item in output]


async def contents_async(output: Any) -> list[str]:
    return [str(item) async for item in output]


def test_its_items_have_the_pipelines_type() -> None:
    assert_type(words_of(Speaking("a")).items, list[str])
    assert_type(words_by_ours(Speaking("a")).items, list[StreamChunk])
    with events_of(Speaking("a")) as events:
        assert_type(next(iter(events)), Event)


def test_something_else_than_an_observable_is_refused() -> None:
    given: Any = [1, 2]
    with pytest.raises(TypeError, match=r"needs an Observable; got \[1, 2\]"):
        PipelineOutput(given)


@pytest.mark.parametrize("read", READ)
class TestReading:
    def test_nothing_runs_before_the_first_pull(self, read: Callable[[Flow], Any]) -> None:
        runs: list[str] = []

        class Noting(Flow):
            @start()
            async def note(self) -> AsyncIterator[str]:
                runs.append("begun")
                yield "so be"
                yield " it"

        output = read(Noting())
        cursor = iter(output)
        assert runs == []
        assert str(next(cursor)) == "so"
        assert runs == ["begun"]
        assert contents(cursor) == [" be", " it"]
        assert contents(output) == ["so", " be", " it"]  # a second reader sees the same run
        assert runs == ["begun"]

    def test_items_come_while_the_run_goes_on(self, read: Callable[[Flow], Any]) -> None:
        gate = Gate()
        output = read(Speaking("so be", gate, " it"))
        cursor = iter(output)
        assert str(next(cursor)) == "so"
        assert not output.is_completed
        gate.open()
        assert contents(cursor) == [" be", " it"]

    def test_async_for_reads_it_too(self, read: Callable[[Flow], Any]) -> None:
        assert asyncio.run(contents_async(read(Speaking("so be", " it")))) == ["so", " be", " it"]

    def test_so_does_trio(self, read: Callable[[Flow], Any]) -> None:
        assert trio.run(contents_async, read(Speaking("so be", " it"))) == ["so", " be", " it"]

    def test_the_result_is_the_last_item(self, read: Callable[[Flow], Any]) -> None:
        output = read(Speaking("so be", " it"))
        with pytest.raises(RuntimeError, match="has not completed yet"):
            _ = output.result
        contents(output)
        assert str(output.result) == " it"

    def test_an_error_comes_after_what_had_arrived(self, read: Callable[[Flow], Any]) -> None:
        output = read(Speaking("so be", ZeroDivisionError("zero")))
        arrived: list[str] = []
        with pytest.raises(ZeroDivisionError, match="zero"):
            arrived.extend(str(item) for item in output)
        assert [str(item) for item in output.items] == ["so", " be"]
        with pytest.raises(ZeroDivisionError, match="zero"):
            _ = output.result

    def test_a_break_cancels_nothing_and_close_does(self, read: Callable[[Flow], Any]) -> None:
        output = read(Speaking("so be", Gate()))
        for item in output:
            assert str(item) == "so"
            break
        assert not output.is_completed
        output.close()
        assert output.is_cancelled
        assert contents(output) == [str(item) for item in output.items]

    def test_one_that_is_dropped_is_cancelled_and_says_so(self, read: Callable[[Flow], Any]) -> None:
        output = read(Speaking("so be", Gate()))
        next(iter(output))
        with pytest.warns(ResourceWarning, match="a PipelineOutput was dropped"):
            del output

    def test_closing_it_before_the_first_pull_runs_nothing(self, read: Callable[[Flow], Any]) -> None:
        class Unasked(Flow):
            @start()
            def question(self) -> None:
                raise AssertionError("it was run")

        output = read(Unasked())
        output.close()
        assert contents(output) == []

    def test_closing_it_closes_the_providers_connection(
        self, read: Callable[[Flow], Any], provider: Loopback, llm: LLM
    ) -> None:
        class Asking(Flow):
            @start()
            async def question(self) -> str:
                return str(await llm.acall("Hello"))

        provider.script(Reply(text=["so be", " it"], hold_after=1))
        with read(Asking()) as output:
            assert str(next(iter(output))) == "so"
        (gone,) = provider.wait_until(lambda p: p.disconnects)
        assert gone.phase == "mid_stream"

    def test_in_a_method_it_belongs_to_the_method(self, read: Callable[[Flow], Any]) -> None:
        class Reading(Flow):
            @start()
            async def read(self) -> list[str]:
                return await contents_async(read(Speaking("so be", " it")))

            @listen(read)
            def read_in_a_thread(self) -> list[str]:
                return contents(read(Speaking("here", " too")))

        assert Reading().kickoff() == ["here", " too"]


class TestWhereItLives:
    def test_a_plain_for_in_a_running_loop_reads_pipelines_of_ours(self) -> None:
        async def notebook() -> list[str]:
            return contents(words_by_ours(Speaking("so be", " it")))

        assert asyncio.run(notebook()) == ["so", " be", " it"]

    def test_behind_operators_of_rxpys_it_refuses_instead_of_waiting_for_ever(self) -> None:
        async def notebook() -> list[str]:
            output = words_of(Speaking("so be", " it"))
            with pytest.raises(RuntimeError, match="use `async for`"):
                contents(output)
            return await contents_async(output)

        assert asyncio.run(notebook()) == ["so", " be", " it"]

    def test_an_async_for_that_has_begun_cannot_be_overtaken_by_a_plain_for(self) -> None:
        async def notebook() -> None:
            output = words_of(Speaking("so be", Gate()))
            async with output:
                await anext(aiter(output))
                with pytest.raises(RuntimeError, match="continue with that"):
                    contents(output)

        asyncio.run(notebook())

    def test_several_runs_that_rxpy_merges_are_read_in_a_thread_that_has_no_loop(self) -> None:
        merged = rx.merge(Speaking("a", "b").observe(), Speaking("c", "d").observe())
        assert sorted(contents(merged.pipe(ops.to_output()))) == ["a", "b", "c", "d"]

    def test_time_may_be_virtual(self, virtual_clock: VirtualClock) -> None:
        llm = ScriptedLLM("so-be|", values={"be": " be"})
        output = llm.observe("x").pipe(ops.words(), rxops.delay(3600), ops.to_output())
        assert virtual_clock.run(lambda: contents_async(output)) == ["so", " be"]
        assert virtual_clock.now >= 3600


class TestAnyObservable:
    def test_one_that_says_everything_at_once_is_read_to_its_end(self) -> None:
        output = rx.of(1, 2, 3).pipe(ops.to_output())
        assert (list(output), output.result, repr(output)) == ([1, 2, 3], 3, "<PipelineOutput completed, 3 items>")

    def test_one_without_items_has_no_result(self) -> None:
        nothing: Observable[int] = rx.empty()
        output = nothing.pipe(ops.to_output())
        assert list(output) == []
        with pytest.raises(SequenceContainsNoElementsError, match="completed without an item"):
            _ = output.result

    def test_one_that_cannot_be_subscribed_says_why_to_every_reader(self) -> None:
        def subscribe(observer: Any, scheduler: Any = None) -> Any:
            raise ZeroDivisionError("no such source")

        output: PipelineOutput[int] = Observable[int](subscribe).pipe(ops.to_output())
        for _ in range(2):
            with pytest.raises(ZeroDivisionError, match="no such source"):
                list(output)

    @pytest.mark.parametrize("error", [StopIteration(), StopAsyncIteration()], ids=repr)
    def test_an_error_by_which_python_ends_loops_does_not_end_them_as_if_all_were_well(self, error: Exception) -> None:
        broken: Observable[int] = rx.throw(error)
        with pytest.raises(RuntimeError, match=rf"failed with {type(error).__name__}"):
            list(broken.pipe(ops.to_output()))
        with pytest.raises(RuntimeError, match=rf"failed with {type(error).__name__}"):
            asyncio.run(contents_async(broken.pipe(ops.to_output())))

    def test_what_comes_after_the_close_is_not_kept(self) -> None:
        source: Subject[int] = Subject()
        output = source.pipe(ops.to_output())

        async def main() -> None:
            first = asyncio.ensure_future(anext(aiter(output)))
            await asyncio.sleep(0)
            source.on_next(1)
            assert await first == 1
            output.close()
            source.on_next(2)

        asyncio.run(main())
        assert (output.items, len(source.observers)) == ([1], 0)

    def test_events_are_items_like_any_other(self) -> None:
        output = events_of(Speaking("a"))
        assert isinstance([*output][-1], FlowFinished)
