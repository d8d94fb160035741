"""FlowStreamingOutput and CrewStreamingOutput, as users hold them."""

import asyncio
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import trio

from rxflow import LLM, Crew, Flow
from rxflow.flow import start
from rxflow.types.results import CrewOutput
from rxflow.types.streaming import (
    CrewStreamingOutput,
    FlowStreamingOutput,
    StreamChunk,
    StreamChunkType,
    ToolCallChunk,
)
from tests.gate import PATIENCE_S, Gate
from tests.scripted import Scripted
from tests.spans import ranks
from tests.streaming.speaking import Speaking
from tests.team import solo

EARLY = "^Streaming has not completed yet"


def texts(chunks: list[StreamChunk]) -> list[str]:
    return [chunk.content for chunk in chunks]


async def read(output: Any) -> list[str]:
    return [chunk.content async for chunk in output]


def read_in_thread(output: Any) -> list[str]:
    return [chunk.content for chunk in output]


def tool_call(arguments: str) -> StreamChunk:
    call = ToolCallChunk(tool_id="c1", tool_name="look", arguments=arguments)
    return StreamChunk(content=arguments, chunk_type=StreamChunkType.TOOL_CALL, tool_call=call)


def demo_crew(pace: float = 0.0, **fields: Any) -> Crew:
    model = LLM("rxflow/demo", pace=pace)
    return solo(model, crew=fields, agent={"role": "Poet"}, description="Write of {thing}")


class TestStarting:
    def test_a_kickoff_with_stream_gives_an_output_at_once(self) -> None:
        assert isinstance(Speaking("a").kickoff(), FlowStreamingOutput)

    def test_kickoff_async_gives_the_same(self) -> None:
        assert isinstance(asyncio.run(Speaking("a").kickoff_async()), FlowStreamingOutput)

    def test_nothing_runs_before_the_first_pull(self) -> None:
        flow = Speaking("a")
        threads = set(threading.enumerate())
        output = flow.kickoff()
        cursor = iter(output)
        assert flow.begun == 0
        assert set(threading.enumerate()) <= threads
        assert not output.is_completed
        assert next(cursor).content == "a"
        assert flow.begun == 1
        assert texts(list(cursor)) == []

    def test_nothing_runs_before_the_first_asynchronous_pull(self) -> None:
        async def main() -> None:
            flow = Speaking("a")
            output = await flow.kickoff_async()
            cursor = aiter(output)
            assert flow.begun == 0
            assert len(asyncio.all_tasks()) == 1
            assert (await anext(cursor)).content == "a"
            assert flow.begun == 1
            assert [chunk async for chunk in cursor] == []

        asyncio.run(main())

    def test_an_output_that_is_never_read_runs_nothing_and_warns_of_nothing(self) -> None:
        flow = Speaking("a")
        flow.kickoff()
        gc.collect()
        assert flow.begun == 0

    def test_readers_that_pull_at_the_same_moment_start_one_run(self) -> None:
        flow = Speaking("a", "b")
        output = flow.kickoff()
        ready = threading.Barrier(4)

        def reader() -> list[str]:
            ready.wait(PATIENCE_S)
            return read_in_thread(output)

        with ThreadPoolExecutor(4) as pool:
            reading = [pool.submit(reader) for _ in range(4)]
            assert [each.result(PATIENCE_S) for each in reading] == [["a", "b"]] * 4
        assert flow.begun == 1

    def test_a_plain_for_works_inside_a_running_event_loop(self) -> None:
        async def notebook() -> list[str]:
            return [chunk.content for chunk in Speaking("a", "b").kickoff()]

        assert asyncio.run(notebook()) == ["a", "b"]

    def test_a_stream_can_be_read_under_trio(self) -> None:
        async def main() -> list[str]:
            return await read(Speaking("a", "b").kickoff())

        assert trio.run(main) == ["a", "b"]


class TestReaders:
    def test_a_second_reader_sees_the_first_chunk_while_the_run_goes_on(self) -> None:
        gate = Gate()
        output = Speaking("a", gate, "b").kickoff()
        first, second = iter(output), iter(output)
        assert [next(first).content, next(second).content] == ["a", "a"]
        assert not output.is_completed
        gate.open()
        assert texts([*second]) == ["b"]
        assert texts([*first]) == ["b"]

    def test_a_chunk_arrives_while_the_run_goes_on(self) -> None:
        gate = Gate()
        cursor = iter(Speaking("a", gate, "b").kickoff())
        assert next(cursor).content == "a"
        gate.open()
        assert next(cursor).content == "b"
        assert next(cursor, None) is None

    def test_readers_in_threads_and_in_event_loops_all_see_the_whole_stream(self) -> None:
        words = [str(number) for number in range(200)]
        gates = [Gate() for _ in words]
        script = [piece for pair in zip(gates, words, strict=True) for piece in pair]
        output = Speaking(*script).kickoff()
        begun = threading.Barrier(5)

        def sync_reader() -> list[str]:
            begun.wait(PATIENCE_S)
            return read_in_thread(output)

        def async_reader() -> list[str]:
            begun.wait(PATIENCE_S)
            return asyncio.run(read(output))

        def trio_reader() -> list[str]:
            begun.wait(PATIENCE_S)
            return trio.run(read, output)

        with ThreadPoolExecutor(4) as pool:
            reading = [pool.submit(each) for each in (sync_reader, async_reader, trio_reader, sync_reader)]
            begun.wait(PATIENCE_S)
            for gate in gates:
                gate.open()
            assert [each.result(PATIENCE_S) for each in reading] == [words] * 4

    def test_two_asynchronous_readers_do_not_steal_from_each_other(self) -> None:
        async def main() -> None:
            output = await Speaking("a", "b", "c").kickoff_async()
            first, second = await asyncio.gather(read(output), read(output))
            assert first == second == ["a", "b", "c"]

        asyncio.run(main())

    def test_a_reader_on_another_loop_reads_a_run_that_lives_on_the_first(self) -> None:
        gate = Gate()

        async def main() -> tuple[list[str], list[str]]:
            output = await Speaking("a", gate, "b").kickoff_async()
            cursor = aiter(output)
            first = await anext(cursor)
            elsewhere = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(read(output))))
            gate.open()
            return [first.content, *texts([chunk async for chunk in cursor])], await elsewhere

        assert asyncio.run(main()) == (["a", "b"], ["a", "b"])

    def test_a_late_reader_sees_everything(self) -> None:
        output = Speaking("a", "b").kickoff()
        assert read_in_thread(output) == ["a", "b"]
        assert read_in_thread(output) == ["a", "b"]
        assert asyncio.run(read(output)) == ["a", "b"]

    def test_a_second_iteration_does_not_run_the_flow_again(self) -> None:
        flow = Speaking("a")
        output = flow.kickoff()
        assert read_in_thread(output) == read_in_thread(output) == ["a"]
        assert flow.begun == 1

    def test_break_cancels_nothing(self) -> None:
        gate = Gate()
        output = Speaking("a", gate, "b").kickoff()
        for _ in output:
            break
        assert not output.is_cancelled
        gate.open()
        assert read_in_thread(output) == ["a", "b"]
        assert output.result == "ab"

    def test_break_out_of_async_for_cancels_nothing(self) -> None:
        async def main() -> tuple[list[str], bool]:
            gate = Gate()
            output = await Speaking("a", gate, "b").kickoff_async()
            async for _ in output:
                break
            gate.open()
            return await read(output), output.is_cancelled

        assert asyncio.run(main()) == (["a", "b"], False)

    def test_a_reader_that_is_cancelled_takes_nothing_from_the_others(self) -> None:
        async def main() -> list[str]:
            gate, reached = Gate(), asyncio.Event()
            output = await Speaking("a", gate, "b").kickoff_async()

            async def first_reader() -> None:
                async for _ in output:
                    reached.set()

            reading = asyncio.create_task(first_reader())
            await reached.wait()
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert not output.is_cancelled
            gate.open()
            return await read(output)

        assert asyncio.run(main()) == ["a", "b"]

    def test_a_cursor_alone_keeps_the_run_going(self) -> None:
        gate = Gate()
        cursor = iter(Speaking("a", gate, "b").kickoff())
        assert next(cursor).content == "a"
        gate.open()
        assert texts([*cursor]) == ["b"]


class TestResult:
    def test_the_result_is_there_once_the_stream_is_read(self) -> None:
        output = Speaking("a", "b").kickoff()
        assert read_in_thread(output) == ["a", "b"]
        assert output.result == "ab"
        assert output.is_completed
        assert not output.is_cancelled

    def test_reading_the_result_before_the_start_is_an_error(self) -> None:
        output = Speaking("a").kickoff()
        with pytest.raises(RuntimeError, match=EARLY):
            _ = output.result

    def test_reading_the_result_in_mid_stream_is_an_error(self) -> None:
        gate = Gate()
        output = Speaking("a", gate).kickoff()
        cursor = iter(output)
        next(cursor)
        with pytest.raises(RuntimeError, match=EARLY):
            _ = output.result
        gate.open()
        assert next(cursor, None) is None
        assert output.result == "a"

    def test_none_is_a_legal_result(self) -> None:
        class Silent(Flow):
            stream = True

            @start()
            def nothing(self) -> None:
                return None

        output = Silent().kickoff()
        assert list(output) == []
        assert output.is_completed
        assert output.result is None

    def test_an_error_comes_after_what_had_arrived(self) -> None:
        seen: list[str] = []
        output = Speaking("a", "b", ValueError("no more")).kickoff()
        with pytest.raises(ValueError, match="no more"):
            seen.extend(chunk.content for chunk in output)
        assert texts(output.chunks) == ["a", "b"]
        assert output.is_completed
        assert not output.is_cancelled

    def test_each_chunk_that_arrived_before_an_error_is_read_before_it(self) -> None:
        cursor = iter(Speaking("a", "b", ValueError("no more")).kickoff())
        assert [next(cursor).content, next(cursor).content] == ["a", "b"]
        with pytest.raises(ValueError, match="no more"):
            next(cursor)

    def test_an_asynchronous_reader_gets_the_error_after_what_had_arrived(self) -> None:
        async def main() -> None:
            cursor = aiter(await Speaking("a", "b", ValueError("no more")).kickoff_async())
            assert [(await anext(cursor)).content, (await anext(cursor)).content] == ["a", "b"]
            with pytest.raises(ValueError, match="no more"):
                await anext(cursor)

        asyncio.run(main())

    def test_an_error_is_shown_without_the_workings_of_the_stream(self) -> None:
        async def main() -> None:
            await read(Speaking("a", ValueError("no more")).kickoff())

        with pytest.raises(ValueError, match="no more") as raised:
            list(Speaking("a", ValueError("no more")).kickoff())
        assert raised.value.__context__ is None
        with pytest.raises(ValueError, match="no more") as raised:
            asyncio.run(main())
        assert raised.value.__context__ is None

    def test_an_error_is_raised_again_by_result(self) -> None:
        error = ValueError("no more")
        output = Speaking("a", error).kickoff()
        with pytest.raises(ValueError, match="no more"):
            list(output)
        for _ in range(2):
            with pytest.raises(ValueError, match="no more") as raised:
                _ = output.result
            assert raised.value is error

    def test_a_late_reader_gets_the_chunks_and_the_error_too(self) -> None:
        output = Speaking("a", ValueError("no more")).kickoff()
        for _ in range(2):
            cursor = iter(output)
            assert next(cursor).content == "a"
            with pytest.raises(ValueError, match="no more"):
                next(cursor)

    def test_an_error_that_is_no_exception_reaches_the_reader_as_well(self) -> None:
        class Stop(BaseException):
            pass

        output = Speaking("a", Stop("all of it")).kickoff()
        cursor = iter(output)
        assert next(cursor).content == "a"
        with pytest.raises(Stop):
            next(cursor)
        assert output.is_completed


class TestWhatHasArrived:
    def test_chunks_is_a_copy(self) -> None:
        output = Speaking("a", "b").kickoff()
        read_in_thread(output)
        output.chunks.clear()
        assert texts(output.chunks) == ["a", "b"]

    def test_chunks_grow_while_the_stream_runs(self) -> None:
        gate = Gate()
        output = Speaking("a", gate, "b").kickoff()
        cursor = iter(output)
        assert output.chunks == []
        next(cursor)
        assert texts(output.chunks) == ["a"]
        gate.open()
        list(cursor)
        assert texts(output.chunks) == ["a", "b"]

    def test_chunks_are_numbered_in_the_order_of_arrival(self) -> None:
        output = Speaking("a", "b", "c").kickoff()
        assert ranks(output) == [0, 1, 2]

    def test_the_full_text_is_made_of_text_chunks_only(self) -> None:
        output = Speaking("a", tool_call('{"x": 1}'), "b").kickoff()
        assert read_in_thread(output) == ["a", '{"x": 1}', "b"]
        assert output.get_full_text() == "ab"

    def test_the_full_text_before_the_start_is_empty(self) -> None:
        assert Speaking("a").kickoff().get_full_text() == ""


class TestClosing:
    def test_closing_before_the_first_pull_runs_nothing(self) -> None:
        flow = Speaking("a")
        output = flow.kickoff()
        output.close()
        assert output.is_cancelled
        assert output.is_completed
        assert list(output) == []
        assert flow.begun == 0

    def test_aclose_before_the_first_pull_runs_nothing(self) -> None:
        async def main() -> tuple[Any, list[str]]:
            output = await flow.kickoff_async()
            await output.aclose()
            return output, await read(output)

        flow = Speaking("a")
        output, seen = asyncio.run(main())
        assert (output.is_cancelled, output.is_completed, seen, flow.begun) == (True, True, [], 0)

    @pytest.mark.parametrize("times", [1, 2])
    def test_closing_after_completion_does_nothing(self, times: int) -> None:
        output = Speaking("a").kickoff()
        read_in_thread(output)
        for _ in range(times):
            output.close()
        assert output.is_completed
        assert not output.is_cancelled
        assert output.result == "a"

    def test_closing_after_an_error_does_nothing(self) -> None:
        output = Speaking("a", ValueError("no more")).kickoff()
        with pytest.raises(ValueError, match="no more"):
            list(output)
        output.close()
        asyncio.run(output.aclose())
        assert output.is_completed
        assert not output.is_cancelled
        with pytest.raises(ValueError, match="no more"):
            _ = output.result

    def test_with_after_completion_cancels_nothing(self) -> None:
        with Speaking("a").kickoff() as output:
            read_in_thread(output)
        assert not output.is_cancelled
        assert output.result == "a"

    def test_async_with_after_completion_cancels_nothing(self) -> None:
        async def main() -> Any:
            async with await Speaking("a").kickoff_async() as output:
                await read(output)
            return output

        output = asyncio.run(main())
        assert not output.is_cancelled
        assert output.result == "a"

    def test_what_had_arrived_before_the_close_can_still_be_read(self) -> None:
        output = Speaking("a", Gate(), "b").kickoff()
        next(iter(output))
        output.close()
        assert read_in_thread(output) == ["a"]
        assert texts(output.chunks) == ["a"]
        assert output.get_full_text() == "a"

    def test_a_closed_stream_has_no_result(self) -> None:
        output = Speaking("a", Gate()).kickoff()
        next(iter(output))
        output.close()
        with pytest.raises(RuntimeError, match="cancelled"):
            _ = output.result

    def test_closing_ends_the_loops_of_all_readers(self) -> None:
        output = Speaking("a", Gate()).kickoff()
        with ThreadPoolExecutor(2) as pool:
            reading = [pool.submit(read_in_thread, output), pool.submit(lambda: asyncio.run(read(output)))]
            next(iter(output))
            output.close()
            assert [each.result(PATIENCE_S) for each in reading] == [["a"], ["a"]]

    def test_the_end_of_its_event_loop_cancels_it_and_readers_are_told_why_it_goes_no_further(self) -> None:
        async def main() -> FlowStreamingOutput:
            output: FlowStreamingOutput = await Speaking("a", Gate()).kickoff_async()
            assert (await anext(aiter(output))).content == "a"
            return output

        output = asyncio.run(main())
        assert output.is_cancelled
        arrived: list[str] = []
        with pytest.raises(RuntimeError, match="has stopped: its run was cancelled"):
            arrived.extend(chunk.content for chunk in output)
        assert arrived == ["a"]
        with pytest.raises(RuntimeError, match="was cancelled before it completed"):
            _ = output.result

    def test_an_error_inside_with_passes_through(self) -> None:
        output = Speaking("a", Gate()).kickoff()
        with pytest.raises(KeyError, match="mine"), output:  # noqa: PT012 - the block is what is tested
            next(iter(output))
            raise KeyError("mine")
        assert output.is_cancelled

    def test_after_a_close_the_instance_can_run_again(self) -> None:
        flow = Speaking("a", gate := Gate())
        with flow.kickoff() as output:
            next(iter(output))
        gate.open()
        assert read_in_thread(flow.kickoff()) == ["a"]

    def test_a_second_kickoff_of_a_running_instance_is_an_error(self) -> None:
        flow = Speaking("a", Gate())
        with flow.kickoff() as output:
            next(iter(output))
            with pytest.raises(RuntimeError, match="running already"):
                flow.kickoff()


class TestRepr:
    def test_repr_says_how_far_the_stream_is(self) -> None:
        gate = Gate()
        output = Speaking("a", gate).kickoff()
        assert repr(output) == "<FlowStreamingOutput not started, 0 chunks>"
        next(iter(output))
        assert repr(output) == "<FlowStreamingOutput running, 1 chunks>"
        gate.open()
        read_in_thread(output)
        assert repr(output) == "<FlowStreamingOutput completed, 1 chunks>"

    def test_repr_of_a_closed_stream_says_so(self) -> None:
        output = Speaking("a").kickoff()
        output.close()
        assert repr(output) == "<FlowStreamingOutput cancelled, 0 chunks>"

    def test_repr_of_a_failed_stream_says_so(self) -> None:
        output = Speaking("a", ValueError("no more")).kickoff()
        with pytest.raises(ValueError, match="no more"):
            list(output)
        assert repr(output) == "<FlowStreamingOutput failed, 1 chunks>"


class TestCrew:
    def test_a_crew_streams_and_gives_its_output(self) -> None:
        output = demo_crew(stream=True).kickoff(inputs={"thing": "rain"})
        assert isinstance(output, CrewStreamingOutput)
        chunks = list(output)
        assert {chunk.task_name for chunk in chunks} == {"Write of rain"}
        assert {chunk.agent_role for chunk in chunks} == {"Poet"}
        assert isinstance(output.result, CrewOutput)
        assert output.result.raw == output.get_full_text() == "".join(texts(chunks))

    def test_a_crew_streams_asynchronously(self) -> None:
        async def main() -> tuple[str, str]:
            output = await demo_crew(stream=True).kickoff_async(inputs={"thing": "rain"})
            return "".join(await read(output)), output.result.raw

        text, raw = asyncio.run(main())
        assert text == raw != ""

    def test_kickoff_for_each_gives_a_stream_for_each(self) -> None:
        outputs = demo_crew(stream=True).kickoff_for_each(inputs=[{"thing": "rain"}, {"thing": "snow"}])
        assert [type(output) for output in outputs] == [CrewStreamingOutput] * 2
        assert [{chunk.task_name for chunk in output} for output in outputs] == [{"Write of rain"}, {"Write of snow"}]

    def test_a_crew_stream_can_be_closed(self) -> None:
        with demo_crew(pace=60, stream=True).kickoff(inputs={"thing": "rain"}) as output:
            next(iter(output))
            output.close()
        assert repr(output).startswith("<CrewStreamingOutput cancelled")


class TestStreamChunks:
    """The typed door to a stream, whatever ``stream`` says."""

    def test_a_flow(self) -> None:
        class Speaking(Flow):
            @start()
            async def speak(self) -> Any:
                yield f"hello {self.state['name']}"

        output = Speaking().stream_chunks({"name": "Ada"})
        assert [chunk.content for chunk in output] == ["hello Ada"]
        assert output.result == "hello Ada"

    def test_a_crew(self) -> None:
        output = solo(Scripted("one two"), description="Write about {topic}").stream_chunks({"topic": "tea"})
        assert [chunk.content for chunk in output] == ["one", " two"]
        assert output.result.raw == "one two"

    def test_a_mistake_in_the_inputs_is_raised_there(self) -> None:
        with pytest.raises(ValueError, match="topic"):
            solo(Scripted("one"), description="Write about {topic}").stream_chunks({"other": 1})
