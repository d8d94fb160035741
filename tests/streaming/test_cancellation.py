"""Stopping a run: in every way, from every state, as the provider sees it."""

import asyncio
import gc
import itertools
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from types import CodeType, FrameType
from typing import Any

import pytest
from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import Disposable

from rxflow import LLM, Crew, Flow, operators as ops
from rxflow._streaming.border import Passage
from rxflow.flow import listen, start
from rxflow.llm.source import Request
from rxflow.tools import BaseTool, tool
from rxflow.types.events import CrewCancelled, Event, LLMCancelled, MethodFinished
from rxflow.types.results import UsageMetrics, estimate_usage
from tests.gate import PATIENCE_S, Gate
from tests.loopback import Loopback, Reply, ToolCall
from tests.scripted import Scripted
from tests.signals import Outcome
from tests.spans import check_laws
from tests.streaming.silent import SilentServer
from tests.streaming.speaking import Speaking
from tests.streaming.stopping import WAYS, Scene, Stop, Stopped
from tests.team import a_crew, a_task, an_agent, solo


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


def test_a_method_that_ends_while_another_thread_stops_it_does_not_complete(caplog: pytest.LogCaptureFixture) -> None:
    reading, ended = threading.Event(), threading.Event()
    went_on: list[str] = []

    def subscribe(observer: ObserverBase[str], scheduler: SchedulerBase | None = None) -> DisposableBase:
        def stop() -> None:
            assert ended.wait(PATIENCE_S), "the stop takes as long as the method has still to go"

        asyncio.get_running_loop().call_soon(reading.set)  # once the method waits, and a stop calls stop()
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


@contextmanager
def act_at_step(step: int, code: CodeType, act: Callable[[], object]) -> Generator[None]:
    """Call ``act`` in this thread, before one of the steps of a function."""
    steps = itertools.count()

    def on_call(frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code is not code:
            return None
        frame.f_trace_opcodes = True
        return on_step

    def on_step(frame: FrameType, event: str, argument: object) -> Any:
        if event == "opcode" and next(steps) == step:
            act()
        return on_step

    before = sys.gettrace()
    sys.settrace(on_call)
    try:
        yield
    finally:
        sys.settrace(before)


def test_what_a_thread_stops_is_closed_at_once_whatever_the_loop_does_meanwhile() -> None:
    """The loop closes the first crew while the thread notes that the second one is stopped."""

    def stop_two(step: int) -> tuple[bool, list[type[Event]]]:
        loops: list[asyncio.AbstractEventLoop] = []
        at_the_end: list[type[Event]] = []
        caught_up = threading.Event()

        class Stopping(Flow):
            @start()
            def work(self) -> None:
                held, free = Gate(), Gate()

                def hold() -> None:
                    held.open()
                    free.wait()

                def catch_up() -> None:
                    free.open()
                    asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loops[0]).result(PATIENCE_S)

                def catch_up_early() -> None:
                    caught_up.set()
                    catch_up()

                first, second = [solo(Scripted(["a", Gate()])).stream_chunks() for _ in range(2)]
                for each in (first, second):
                    next(iter(each))
                loops[0].call_soon_threadsafe(hold)
                held.wait()
                first.close()
                with act_at_step(step, Passage.note_stopped.__code__, catch_up_early):
                    second.close()
                catch_up()
                at_the_end.extend(type(each) for each in seen.events)

        seen = Outcome(lambda _: loops.append(asyncio.get_running_loop()))
        seen.until_ended(Stopping().events())
        check_laws(seen.events)
        return caught_up.is_set(), at_the_end

    for step in itertools.count():
        is_inside, kinds = stop_two(step)
        assert [kinds.count(kind) for kind in (CrewCancelled, LLMCancelled)] == [2, 2], f"at step {step}"
        if not is_inside:
            assert step > 0
            return


def test_a_call_has_its_usage_in_its_event_although_the_thread_that_stops_it_is_slower_than_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_shown = Gate()
    stopping: list[threading.Thread] = []

    def estimate_slowly(*given: Any) -> UsageMetrics:
        if threading.current_thread() in stopping:
            is_shown.wait()
        return estimate_usage(*given)

    class Stopping(Flow):
        @start()
        def work(self) -> None:
            stream = solo(Scripted(["a", Gate()])).stream_chunks()
            next(iter(stream))
            stopping.append(threading.current_thread())
            stream.close()

    def hear(event: Event) -> None:
        if isinstance(event, LLMCancelled):
            is_shown.open()

    monkeypatch.setattr("rxflow.llm._call.estimate_usage", estimate_slowly)
    seen = Outcome(hear)
    seen.until_ended(Stopping().events())
    assert seen.one(LLMCancelled).usage.is_estimated
    check_laws(seen.events)


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
