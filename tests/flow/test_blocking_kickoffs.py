"""Kickoffs that block, in methods, in notebooks and under trio."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import trio
import trio.to_thread

from rxflow.flow import Flow, start
from rxflow.types.streaming import FlowStreamingOutput
from tests.flow.callers import Conversing, Inner, Whereabouts, calling_as, told_by
from tests.gate import PATIENCE_S
from tests.scripted import Scripted
from tests.team import crew_saying


class TestSyncKickoffInAnAsyncMethod:
    """It blocks the loop of its own run; it must work all the same, and say what to use."""

    def test_of_a_flow_works_and_warns(self) -> None:
        class Outer(Flow):
            @start()
            async def nest(self) -> Any:
                return Inner().kickoff()

        with pytest.warns(RuntimeWarning, match=r"await .*kickoff_async\(\)") as warned:
            assert told_by(Outer()) == [("inner", "speak")]
        assert [warning.filename for warning in warned] == [__file__]

    def test_of_a_crew_works_and_warns(self) -> None:
        class Outer(Flow):
            @start()
            async def nest(self) -> Any:
                return crew_saying("hel", "lo").kickoff().raw

        flow = Outer()
        with pytest.warns(RuntimeWarning, match=r"await .*kickoff_async\(\)") as warned:
            assert told_by(flow) == [("hel", "nest"), ("lo", "nest")]
        assert flow.method_outputs == ["hello"]
        assert [warning.filename for warning in warned] == [__file__]

    def test_a_call_of_a_model_works_and_warns(self) -> None:
        class Outer(Flow):
            @start()
            async def nest(self) -> Any:
                return Scripted(["hel", "lo"]).llm.call("Hello")

        with pytest.warns(RuntimeWarning, match=r"await llm\.acall\(\)") as warned:
            assert Outer().kickoff() == "hello"
        assert [warning.filename for warning in warned] == [__file__]

    def test_a_for_loop_over_a_stream_works_and_warns(self) -> None:
        class Outer(Flow):
            @start()
            async def nest(self) -> Any:
                return [chunk.content for chunk in Inner(stream=True).kickoff()]

        with pytest.warns(RuntimeWarning, match="async for") as warned:
            assert Outer().kickoff() == ["inner"]
        assert [warning.filename for warning in warned] == [__file__]

    def test_works_on_the_callers_loop_too(self) -> None:
        class Outer(Flow):
            @start()
            async def nest(self) -> Any:
                return crew_saying("hello").kickoff().raw

        with pytest.warns(RuntimeWarning, match="kickoff_async"):
            assert asyncio.run(Outer().kickoff_async()) == "hello"

    def test_of_something_that_needs_a_worker_thread_works(self) -> None:
        class Inside(Flow):
            @start()
            def sync(self) -> str:
                return str(crew_saying("deep").kickoff().raw)

        class Outer(Flow):
            @start()
            async def nest(self) -> Any:
                return Inside().kickoff()

        with pytest.warns(RuntimeWarning, match="kickoff_async"):
            assert told_by(Outer()) == [("deep", "sync")]

    def test_raises_the_error_of_what_it_ran(self) -> None:
        class Failing(Flow):
            @start()
            def begin(self) -> None:
                raise LookupError("inside")

        class Outer(Flow):
            @start()
            async def nest(self) -> Any:
                return Failing().kickoff()

        with pytest.warns(RuntimeWarning, match="kickoff_async"), pytest.raises(LookupError, match="inside"):
            Outer().kickoff()

    def test_hurts_no_other_run(self) -> None:
        blocking, released = threading.Event(), threading.Event()

        class Blocked(Flow):
            @start()
            def wait(self) -> bool:
                blocking.set()
                return released.wait(PATIENCE_S)

        class Outer(Flow):
            @start()
            async def nest(self) -> Any:
                return Blocked().kickoff()

        def beside_another() -> object:
            with ThreadPoolExecutor(1) as pool:
                outer = pool.submit(Outer().kickoff)
                assert blocking.wait(PATIENCE_S)
                assert told_by(Inner()) == [("inner", "speak")]
                released.set()
                return outer.result(PATIENCE_S)

        with pytest.warns(RuntimeWarning, match="kickoff_async"):
            assert beside_another() is True

    def test_with_the_warning_made_an_error_nothing_is_run(self) -> None:
        ran: list[str] = []

        class Inside(Flow):
            @start()
            def begin(self) -> None:
                ran.append("begin")

        class Outer(Flow):
            @start()
            async def nest(self) -> Any:
                return Inside().kickoff()

        with pytest.raises(RuntimeWarning, match="kickoff_async"):
            Outer().kickoff()
        assert ran == []


class TestInANotebook:
    """A running loop in this thread, and sync calls all the same."""

    def test_sync_kickoff_gives_the_result(self) -> None:
        async def cell() -> object:
            return Whereabouts().kickoff(), Inner().kickoff(), crew_saying("hello").kickoff().raw

        assert asyncio.run(cell()) == ("", "inner", "hello")

    def test_a_for_loop_streams(self) -> None:
        async def cell() -> tuple[list[str], object]:
            streaming = Inner(stream=True).kickoff()
            return [chunk.content for chunk in streaming], streaming.result

        assert asyncio.run(cell()) == (["inner"], "inner")

    def test_async_methods_run_although_the_cells_loop_is_blocked(self) -> None:
        class Awaiting(Flow):
            @start()
            async def begin(self) -> str:
                await asyncio.sleep(0)
                return await asyncio.to_thread(lambda: "awaited")

        async def cell() -> object:
            return Awaiting().kickoff()

        assert asyncio.run(cell()) == "awaited"


class TestUnderTrio:
    """Users' coroutines are asyncio's; trio awaits the flow and reads its stream."""

    def test_kickoff_async_gives_the_result(self) -> None:
        flow = Whereabouts()

        async def main() -> None:
            with calling_as("mine"):
                await flow.kickoff_async()

        trio.run(main)
        assert [flow.state[method][1] for method in ("sync", "async", "generator")] == ["mine"] * 3

    def test_async_for_streams_while_the_flow_runs(self) -> None:
        async def main() -> None:
            flow = Conversing()
            streaming: FlowStreamingOutput = await flow.kickoff_async()
            contents: list[str] = []
            async for chunk in streaming:
                contents.append(chunk.content)
                flow.heard.set()
            assert contents == ["first", "True"]
            assert streaming.result == "firstTrue"

        trio.run(main)

    def test_an_error_is_raised(self) -> None:
        class Failing(Flow):
            @start()
            async def begin(self) -> None:
                raise LookupError("failed")

        async def main() -> None:
            with pytest.raises(LookupError, match="failed"):
                await Failing().kickoff_async()

        trio.run(main)

    def test_cancelling_the_await_cancels_the_flow(self) -> None:
        begun, stopped = threading.Event(), threading.Event()

        class Endless(Flow):
            @start()
            async def begin(self) -> None:
                begun.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    stopped.set()

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(Endless().kickoff_async)
                assert await trio.to_thread.run_sync(partial(begun.wait, PATIENCE_S))
                nursery.cancel_scope.cancel()
            assert await trio.to_thread.run_sync(partial(stopped.wait, PATIENCE_S))

        trio.run(main)

    def test_sync_kickoff_works_too(self) -> None:
        async def main() -> object:
            return Inner().kickoff()

        assert trio.run(main) == "inner"
