"""Stopping a run: in every way, from every state, as the provider sees it."""

import asyncio
import gc
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import pytest
import trio
from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import Disposable

from rxflow import LLM, Crew, Flow, operators as ops
from rxflow._streaming import launch
from rxflow.flow import listen, start
from rxflow.llm.source import Request
from rxflow.tools import BaseTool, tool
from rxflow.types.events import Event, MethodFinished
from rxflow.types.streaming import FlowStreamingOutput
from tests.gate import PATIENCE_S, Gate, poll
from tests.loopback import Loopback, Reply, ToolCall
from tests.scripted import Scripted
from tests.streaming.silent import SilentServer
from tests.streaming.speaking import Speaking, drained
from tests.streaming.stopping import WAYS, Scene, Stop, Stopped
from tests.team import a_crew, a_task, an_agent


def crew_of(llm: LLM, *tools: BaseTool) -> Crew:
    agent = an_agent(llm, tools=list(tools), max_retry_limit=0)
    return a_crew(a_task(agent, "First"), a_task(agent, "Second"))


class Research(Flow):
    """Two methods; the first works with a crew, and notes what becomes of it."""

    stream = True

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self.began: list[str] = []
        self.caught: list[Exception] = []
        self.raised: list[type[BaseException]] = []
        self.left = Gate()
        super().__init__()


def wait_for_idle_threads() -> None:
    """Until no thread of a run is at work. Such a thread has another name while it waits for the next run."""
    poll(
        lambda: [each.name for each in threading.enumerate()], lambda names: "rxflow run" not in names, "a run goes on"
    )


@contextmanager
def outrun(starter: Callable[..., Any]) -> Generator[None]:
    """Hold this thread as it returns from ``starter``, until the run that this has started is over."""

    def on_call(frame: FrameType, event: str, argument: object) -> Any:
        return on_return if frame.f_code is starter.__code__ else None

    def on_return(frame: FrameType, event: str, argument: object) -> Any:
        if event == "return":
            wait_for_idle_threads()
        return on_return

    before = sys.gettrace()
    sys.settrace(on_call)
    try:
        yield
    finally:
        sys.settrace(before)


class SyncResearch(Research):
    @start()
    def research(self) -> str:
        self.began.append("research")
        try:
            return str(self.crew.kickoff())
        except Exception as error:  # noqa: BLE001 - what users write, and a cancellation must pass
            self.caught.append(error)
            return "never mind"
        except BaseException as error:
            self.raised.append(type(error))
            raise
        finally:
            self.left.open()

    @listen(research)
    def write(self) -> None:
        self.began.append("write")


class AsyncResearch(Research):
    @start()
    async def research(self) -> str:
        self.began.append("research")
        try:
            return str(await self.crew.kickoff_async())
        except Exception as error:  # noqa: BLE001 - what users write, and a cancellation must pass
            self.caught.append(error)
            return "never mind"
        except BaseException as error:
            self.raised.append(type(error))
            raise
        finally:
            self.left.open()

    @listen(research)
    async def write(self) -> None:
        self.began.append("write")


every_way = pytest.mark.parametrize("stop", WAYS.values(), ids=WAYS)
every_kind = pytest.mark.parametrize("kind", [SyncResearch, AsyncResearch], ids=["sync", "async"])


def assert_stopped(flow: Research, stopped: Stopped) -> None:
    """The provider still holds, and so do the tools: nothing but the stop can have ended the method."""
    flow.left.wait()
    assert flow.began == ["research"]
    assert flow.caught == []
    assert flow.raised == [asyncio.CancelledError]
    if stopped is not None:
        assert stopped.is_cancelled
        assert stopped.is_completed


def assert_provider_saw_it(provider: Loopback, phases: set[str]) -> None:
    (gone,) = provider.wait_until(lambda p: p.disconnects)
    assert gone.phase in phases
    provider.wait_until(lambda p: p.open_connections == 0)
    assert len(provider.requests) == 1


@every_way
@every_kind
def test_a_run_can_be_stopped_while_it_waits_for_the_headers(
    kind: type[Research], stop: Stop, provider: Loopback, llm: LLM
) -> None:
    provider.script(Reply(hold_after=-1))
    flow = kind(crew_of(llm))
    stopped = stop(Scene(flow, lambda: provider.wait_until(lambda p: p.holding), Gate()))
    assert_provider_saw_it(provider, {"headers"})
    assert_stopped(flow, stopped)


@every_way
@every_kind
def test_a_run_can_be_stopped_while_it_waits_for_the_first_byte(
    kind: type[Research], stop: Stop, provider: Loopback, llm: LLM
) -> None:
    provider.script(Reply(hold_after=0))
    flow = kind(crew_of(llm))
    stopped = stop(Scene(flow, lambda: provider.wait_until(lambda p: p.holding), Gate()))
    assert_provider_saw_it(provider, {"headers", "first_byte"})  # it holds a moment before they are sent
    assert_stopped(flow, stopped)


@every_way
@every_kind
def test_a_run_can_be_stopped_in_mid_stream(kind: type[Research], stop: Stop, provider: Loopback, llm: LLM) -> None:
    provider.script(Reply(text="a b c", hold_after=1))
    flow = kind(crew_of(llm))
    shown = Gate()
    reached = provider_held(provider) if stop is WAYS["cancelled await"] else shown.wait
    stopped = stop(Scene(flow, reached, shown))
    assert_provider_saw_it(provider, {"mid_stream"})
    assert provider.disconnects[0].chunks_sent == 2  # the one with the role, and "a"
    assert_stopped(flow, stopped)


def provider_held(provider: Loopback) -> Any:
    return lambda: provider.wait_until(lambda p: p.chunks_sent == 2)


@every_way
@every_kind
def test_a_run_can_be_stopped_while_it_connects(kind: type[Research], stop: Stop, litellm_is_warm: None) -> None:
    with SilentServer() as server:
        llm = LLM("openai/gpt-4o", base_url=server.url, api_key="k", max_retries=0)
        flow = kind(crew_of(llm))
        stopped = stop(Scene(flow, server.heard.wait, Gate()))
        server.gone.wait()
        assert_stopped(flow, stopped)


@every_way
@every_kind
def test_a_run_can_be_stopped_while_a_sync_tool_works(
    kind: type[Research], stop: Stop, provider: Loopback, llm: LLM
) -> None:
    inside, free, done = Gate(), Gate(), Gate()
    asked_again: list[BaseException] = []

    @tool
    def dig() -> str:
        """Dig deep."""
        inside.open()
        free.wait()
        try:
            return str(llm.call("And now?"))
        except BaseException as error:
            asked_again.append(error)
            raise
        finally:
            done.open()

    provider.script(Reply(tool_calls=[ToolCall("dig", {})]))
    flow = kind(crew_of(llm, dig))
    stopped = stop(Scene(flow, inside.wait, Gate()))
    assert_stopped(flow, stopped)
    # The tool's thread cannot be killed; whatever it next asks of rxflow raises and starts nothing.
    free.open()
    done.wait()
    assert [type(error) for error in asked_again] == [asyncio.CancelledError]
    assert len(provider.requests) == 1


@every_way
@every_kind
def test_a_run_can_be_stopped_while_an_async_tool_works(
    kind: type[Research], stop: Stop, provider: Loopback, llm: LLM
) -> None:
    inside, cancelled = Gate(), Gate()

    @tool
    async def dig() -> str:
        """Dig deep."""
        inside.open()
        try:
            await Gate().passed()
        except asyncio.CancelledError:
            cancelled.open()
            raise
        return "gold"

    provider.script(Reply(tool_calls=[ToolCall("dig", {})]))
    flow = kind(crew_of(llm, dig))
    stopped = stop(Scene(flow, inside.wait, Gate()))
    cancelled.wait()
    assert_stopped(flow, stopped)
    assert len(provider.requests) == 1


def test_a_run_can_be_stopped_while_tasks_run_side_by_side(provider: Loopback, llm: LLM) -> None:
    provider.answer(lambda request: Reply(text="a b", hold_after=1))
    crew = crew_of(llm)
    crew.tasks[0].async_execution = True
    flow = SyncResearch(crew.model_copy(update={"tasks": [*crew.tasks[:1], crew.tasks[0].model_copy()]}))
    with flow.kickoff() as output:
        next(iter(output))
        provider.wait_until(lambda p: p.holding == 2)
    provider.wait_until(lambda p: len(p.disconnects) == 2)
    flow.left.wait()


def test_a_tool_that_outlives_its_agents_time_starts_nothing_more(provider: Loopback, llm: LLM) -> None:
    free, done = Gate(), Gate()
    refused: list[type[BaseException]] = []

    @tool
    def dig() -> str:
        """Dig deep."""
        free.wait()
        try:
            return str(llm.call("And now?"))
        except BaseException as error:
            refused.append(type(error))
            raise
        finally:
            done.open()

    provider.script(Reply(tool_calls=[ToolCall("dig", {})]))
    crew = crew_of(llm, dig)
    crew.agents[0].max_execution_time = 1.0  # long enough for the tool to begin, on a busy machine too
    with pytest.raises(TimeoutError, match="max_execution_time"):
        crew.kickoff()
    free.open()
    done.wait()
    assert refused == [asyncio.CancelledError]
    assert len(provider.requests) == 1


class TestBetweenMethods:
    """The first method is in code of its own: no provider, no crew."""

    @every_way
    def test_a_sync_method_that_blocks_delays_nobody_and_starts_nothing_more(
        self, stop: Stop, provider: Loopback, llm: LLM
    ) -> None:
        inside, free, done = Gate(), Gate(), Gate()
        began: list[str] = []
        refused: list[type[BaseException]] = []
        crew = crew_of(llm)

        class Busy(Flow):
            stream = True

            @start()
            def work(self) -> None:
                inside.open()
                free.wait()
                for ask in (
                    crew.kickoff,
                    lambda: llm.call("Hello"),
                    lambda: list(Speaking("a").kickoff()),
                    lambda: list(streaming()),
                ):
                    try:
                        ask()
                    except BaseException as error:  # noqa: BLE001 - each of them is refused
                        refused.append(type(error))
                done.open()

            @listen(work)
            def go_on(self) -> None:
                began.append("go_on")

        def streaming() -> Any:
            return crew_of(llm).model_copy(update={"stream": True}).kickoff()

        stop(Scene(Busy(), inside.wait, Gate()))  # returns although the method blocks
        free.open()
        done.wait()
        assert refused == [asyncio.CancelledError] * 4
        assert began == []
        assert provider.requests == []

    @every_way
    def test_an_async_method_is_cancelled_where_it_waits(self, stop: Stop) -> None:
        inside, cancelled = Gate(), Gate()
        began: list[str] = []

        class Waiting(Flow):
            stream = True

            @start()
            async def wait(self) -> None:
                inside.open()
                try:
                    await Gate().passed()
                finally:
                    cancelled.open()

            @listen(wait)
            async def go_on(self) -> None:
                began.append("go_on")

        stop(Scene(Waiting(), inside.wait, Gate()))
        cancelled.wait()
        assert began == []

    def test_disposing_at_the_end_of_a_method_keeps_the_next_from_starting(self) -> None:
        began: list[str] = []

        class Steps(Flow):
            @start()
            async def one(self) -> None:
                began.append("one")

            @listen(one)
            async def two(self) -> None:
                began.append("two")

        async def main() -> None:
            def on_next(event: Event) -> None:
                if isinstance(event, MethodFinished):
                    subscription.dispose()
                    disposed.set()

            disposed = asyncio.Event()
            subscription = Steps().events().subscribe(on_next)
            await disposed.wait()
            assert asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(main())
        assert began == ["one"]

    def test_no_later_task_starts(self, provider: Loopback, llm: LLM) -> None:
        heard: list[Event] = []
        free = Gate()
        inside = Gate()

        def block(output: object) -> None:
            inside.open()
            free.wait()

        crew = crew_of(llm)
        crew.tasks[0].callback = block
        subscription = crew.events().subscribe(heard.append)
        inside.wait()
        subscription.dispose()
        seen = len(heard)
        free.open()
        provider.wait_until(lambda p: p.completed == 1)
        assert len(provider.requests) == 1
        assert len(heard) == seen


class TestBlockedLoop:
    """The run lives on the loop of an asyncio program, and a method blocks that loop."""

    def test_the_provider_sees_the_end_although_the_loop_is_blocked(self, provider: Loopback, llm: LLM) -> None:
        provider.script(Reply(text="a b", hold_after=1))
        blocked, free = Gate(), Gate()

        class Both(Flow):
            stream = True

            @start()
            async def speak(self) -> Any:
                return await llm.acall("Hello")

            @start()
            async def block(self) -> None:
                await provider.until(lambda p: p.holding)
                blocked.open()
                free.wait()

        async def main() -> Any:
            def close() -> Any:
                blocked.wait()
                output.close()
                # With the loop still blocked.
                provider.wait_until(lambda p: p.disconnects)
                free.open()
                return output

            output = await Both().kickoff_async()
            closing = asyncio.create_task(asyncio.to_thread(close))
            async for _ in output:
                pass
            return await closing

        output = asyncio.run(main())
        assert (output.is_cancelled, output.is_completed) == (True, True)

    def test_a_sync_kickoff_in_an_async_method_ends_at_once(self, provider: Loopback, llm: LLM) -> None:
        provider.script(Reply(text="a b", hold_after=1))
        crew = crew_of(llm)
        ended: list[type[BaseException]] = []

        class Blocking(Flow):
            stream = True

            @start()
            async def work(self) -> str:
                try:
                    with pytest.warns(RuntimeWarning, match="kickoff_async"):
                        return str(crew.kickoff())
                except BaseException as error:
                    ended.append(type(error))
                    raise

        async def main() -> Any:
            def close() -> Any:
                provider.wait_until(lambda p: p.holding)
                output.close()
                return output

            output = await Blocking().kickoff_async()
            closing = asyncio.create_task(asyncio.to_thread(close))
            async for _ in output:
                pass
            return await closing

        output = asyncio.run(main())
        provider.wait_until(lambda p: p.disconnects)
        assert ended == [asyncio.CancelledError]
        assert (output.is_cancelled, output.is_completed) == (True, True)
        assert len(provider.requests) == 1

    def test_close_in_the_blocked_loop_itself_closes_the_connection(self, provider: Loopback, llm: LLM) -> None:
        """The program closes from inside a method, before it ever gives its loop back."""
        provider.script(Reply(text="a b", hold_after=1))
        outputs: list[Any] = []
        seen: list[bool] = []

        class Both(Flow):
            stream = True

            @start()
            async def speak(self) -> Any:
                return await llm.acall("Hello")

            @start()
            async def close(self) -> None:
                await provider.until(lambda p: p.holding)
                outputs[0].close()
                provider.wait_until(lambda p: p.disconnects)
                seen.append(True)

        async def main() -> None:
            outputs.append(await Both().kickoff_async())
            async for _ in outputs[0]:
                pass

        asyncio.run(main())
        assert seen


class ClosingItself(Flow):
    """Its first method closes its own stream; nothing may follow."""

    stream = True

    def __init__(self) -> None:
        self.began: list[str] = []
        super().__init__()
        self.output: FlowStreamingOutput = self.kickoff()

    @start()
    def work(self) -> None:
        self.output.close()

    @listen(work)
    def go_on(self) -> None:
        self.began.append("go_on")


class TestClosing:
    def test_from_several_threads_at_once(self, provider: Loopback, llm: LLM) -> None:
        provider.script(Reply(text="a b", hold_after=1))
        flow = SyncResearch(crew_of(llm))
        output = flow.kickoff()
        next(iter(output))
        ready = threading.Barrier(4)

        def close(_: int) -> None:
            ready.wait(PATIENCE_S)
            output.close()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(close, range(4)))
        assert output.is_cancelled
        provider.wait_until(lambda p: len(p.disconnects) == 1)
        flow.left.wait()

    def test_twice_is_the_same_as_once(self, provider: Loopback, llm: LLM) -> None:
        provider.script(Reply(text="a b", hold_after=1))
        flow = SyncResearch(crew_of(llm))
        output = flow.kickoff()
        next(iter(output))
        output.close()
        output.close()
        asyncio.run(output.aclose())
        assert (output.is_cancelled, output.is_completed) == (True, True)
        provider.wait_until(lambda p: len(p.disconnects) == 1)
        flow.left.wait()

    def test_from_inside_a_sync_method_of_the_run(self) -> None:
        flow = ClosingItself()
        assert list(flow.output) == []
        assert flow.output.is_cancelled
        assert flow.began == []

    def test_from_inside_a_method_that_is_faster_than_whoever_starts_it(self) -> None:
        flow = ClosingItself()
        with outrun(launch.start):
            assert list(flow.output) == []
        assert flow.began == []

    def test_from_a_loop_other_than_that_of_the_run(self, provider: Loopback, llm: LLM) -> None:
        provider.script(Reply(text="a b", hold_after=1))
        flow = AsyncResearch(crew_of(llm))
        output = flow.kickoff()
        next(iter(output))  # the run has a loop of its own

        async def main() -> None:
            await output.aclose()

        asyncio.run(main())
        provider.wait_until(lambda p: p.disconnects)

    def test_a_method_that_swallows_the_cancellation_holds_nobody_up(self) -> None:
        inside, cancelled, free = Gate(), Gate(), Gate()

        class Stubborn(Flow):
            stream = True

            @start()
            async def work(self) -> str:
                inside.open()
                try:
                    await Gate().passed()
                except asyncio.CancelledError:
                    cancelled.open()
                await free.passed()
                return "after all"

        output = Stubborn().kickoff()
        reading = threading.Thread(target=lambda: list(output))
        reading.start()
        inside.wait()
        output.close()
        reading.join(PATIENCE_S)
        assert not reading.is_alive()
        cancelled.wait()
        free.open()
        assert (output.is_cancelled, output.is_completed) == (True, True)

    def test_a_method_cleans_up_before_aclose_returns(self) -> None:
        cleaned: list[bool] = []

        class Tidy(Flow):
            stream = True

            @start()
            async def work(self) -> AsyncIterator[str]:
                try:
                    yield "a"
                    await Gate().passed()
                finally:
                    await asyncio.sleep(0)
                    cleaned.append(True)

        async def main() -> None:
            output = await Tidy().kickoff_async()
            async for _ in output:
                break
            await output.aclose()
            assert cleaned == [True]

        asyncio.run(main())

    def test_an_error_in_the_cleaning_up_is_reported_and_not_raised(self) -> None:
        reported: list[str] = []

        class Clumsy(Flow):
            stream = True

            @start()
            async def work(self) -> AsyncIterator[str]:
                try:
                    yield "a"
                    await Gate().passed()
                finally:
                    raise ValueError("spilt")

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(
                lambda loop, context: reported.append(str(context.get("exception")))
            )
            output = await Clumsy().kickoff_async()
            async for _ in output:
                break
            await output.aclose()
            del output
            gc.collect()

        asyncio.run(main())
        assert reported == ["spilt"]


class TestNothingIsLeft:
    def test_a_thread_that_blocks_on_keeps_neither_the_chunks_nor_the_output(self) -> None:
        inside, free, done = Gate(), Gate(), Gate()

        class Busy(Flow):
            stream = True

            @start()
            async def speak(self) -> AsyncIterator[str]:
                yield "a"

            @listen(speak)
            def block(self) -> None:
                inside.open()
                free.wait()
                done.open()

        flow: Any = Busy()
        output: Any = flow.kickoff()
        chunk = weakref.ref(next(iter(output)))
        inside.wait()
        kept = weakref.ref(output)
        output.close()
        del output
        gc.collect()
        assert kept() is None
        assert chunk() is None
        # The flow itself stands in the thread's frames, as `self`, until it is done with it.
        of_flow = weakref.ref(flow)
        del flow
        free.open()
        done.wait()
        for thread in threading.enumerate():
            if thread.name == "rxflow block":
                thread.join(PATIENCE_S)
        gc.collect()
        assert of_flow() is None

    def test_a_thread_that_blocks_on_keeps_no_observer(self) -> None:
        inside, free = Gate(), Gate()

        class Busy(Flow):
            @start()
            def block(self) -> None:
                inside.open()
                free.wait()

        class Watching:
            def on_next(self, event: Event) -> None: ...

        watching = Watching()
        kept = weakref.ref(watching)
        subscription = Busy().events().subscribe(watching.on_next)
        inside.wait()
        subscription.dispose()
        del watching, subscription
        wait_for_idle_threads()
        gc.collect()
        assert kept() is None
        free.open()

    def test_a_finished_stream_keeps_no_thread_and_no_flow(self) -> None:
        flow: Any = Speaking("a")
        output = flow.kickoff()
        assert drained(output) == ["a"]
        kept = weakref.ref(flow)
        del flow
        wait_for_idle_threads()
        gc.collect()
        assert kept() is None
        assert output.result == "a"

    def test_a_connection_that_was_used_to_the_end_is_used_again(self, provider: Loopback, llm: LLM) -> None:
        for _ in range(3):
            flow = SyncResearch(crew_of(llm))
            assert drained(flow.kickoff())
        assert len(provider.requests) == 6
        assert provider.connections == 1


class TestSeveralLoopsInTurn:
    def test_the_loops_of_a_program_share_one_connection(self, provider: Loopback, llm: LLM) -> None:
        async def main() -> str:
            output = await AsyncResearch(crew_of(llm)).kickoff_async()
            return "".join([chunk.content async for chunk in output])

        assert asyncio.run(main()) == asyncio.run(main()) == trio.run(main) != ""
        assert len(provider.requests) == 6
        assert provider.connections == 1

    def test_a_stream_that_is_open_when_asyncio_ends_has_ended_too(self, provider: Loopback, llm: LLM) -> None:
        async def main() -> Any:
            output = await AsyncResearch(crew_of(llm)).kickoff_async()
            async for _ in output:
                break
            return output

        provider.script(Reply(text=["a", "b"], hold_after=1))
        output = asyncio.run(main())
        provider.wait_until(lambda p: p.disconnects)
        assert output.is_completed
        assert output.get_full_text() == "a"
        output.close()

    def test_a_reader_in_another_thread_is_let_go_when_asyncio_ends(self) -> None:
        async def main() -> None:
            output = await Speaking("a", Gate()).kickoff_async()
            async for _ in output:
                break
            outputs.append(output)
            reading.append(threading.Thread(target=read, args=(output,)))
            reading[0].start()
            await begun.passed()

        def read(output: Any) -> None:
            try:
                for _ in output:
                    begun.open()
            except BaseException as error:  # noqa: BLE001 - whichever: it must not wait for ever
                ended.append(error)

        begun = Gate()
        outputs: list[Any] = []
        reading: list[threading.Thread] = []
        ended: list[BaseException] = []
        asyncio.run(main())
        reading[0].join(PATIENCE_S)
        assert not reading[0].is_alive()
        assert outputs[0].is_completed


def test_a_method_that_ends_while_another_thread_stops_it_does_not_complete(caplog: pytest.LogCaptureFixture) -> None:
    reading, ended = threading.Event(), threading.Event()
    went_on: list[str] = []

    def subscribe(observer: ObserverBase[str], scheduler: SchedulerBase | None = None) -> DisposableBase:
        def stop() -> None:
            assert ended.wait(PATIENCE_S), "the stop takes as long as the method has still to go"

        reading.set()
        return Disposable(stop)

    class Reads(Flow):
        @start()
        async def read(self) -> None:
            task = asyncio.current_task()
            assert task is not None
            task.add_done_callback(lambda _: ended.set())
            with suppress(asyncio.CancelledError):
                async for _ in Observable(subscribe).pipe(ops.to_output()):
                    pass
            went_on.append("read")

        @listen(read)
        def after(self) -> None:
            went_on.append("after")

    output = Reads().stream_chunks()
    reader = threading.Thread(target=list, args=(output,))
    reader.start()
    assert reading.wait(PATIENCE_S)
    output.close()
    reader.join()
    assert ended.is_set()
    gc.collect()
    assert went_on == ["read"]
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.parametrize("way", ["for", "async for", "to_output", "run"])
def test_a_method_does_not_take_the_half_of_a_stopped_stream_for_the_whole(way: str) -> None:
    gate = Gate()
    answers: list[object] = []
    caught: list[BaseException] = []
    asked, left = threading.Event(), threading.Event()

    async def hear(request: Request) -> None:
        asked.set()

    def make() -> Crew:
        return a_crew(a_task(an_agent(Scripted(["half", gate, "whole"], before=hear))))

    async def read_async() -> str:
        return "".join([chunk.content async for chunk in make().stream_chunks()])

    def read() -> object:
        if way == "run":
            return make().observe().run()
        if way == "to_output":
            return list(make().observe().pipe(ops.words(), ops.to_output()))
        return "".join(chunk.content for chunk in make().stream_chunks())

    class Reads(Flow):
        @start()
        def write(self) -> None:
            try:
                answers.append(asyncio.run(read_async()) if way == "async for" else read())
            except BaseException as error:
                caught.append(error)
                raise
            finally:
                left.set()

    output = Reads().stream_chunks()
    reader = threading.Thread(target=list, args=(output,))
    reader.start()
    assert asked.wait(PATIENCE_S)
    output.close()
    reader.join()
    assert left.wait(PATIENCE_S)
    assert answers == []
    assert [type(error) for error in caught] == [asyncio.CancelledError]
