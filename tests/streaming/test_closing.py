"""Closing a stream: from any thread, with a blocked loop, and what is left of it."""

import asyncio
import gc
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
import reactivex as rx
import trio
from reactivex import operators as rxops

from rxflow import LLM, Flow, operators as ops
from rxflow._streaming import launch
from rxflow.flow import listen, start
from rxflow.types.events import Event
from rxflow.types.streaming import FlowStreamingOutput
from tests.gate import PATIENCE_S, Gate, poll
from tests.loopback import Loopback, Reply
from tests.streaming.speaking import Speaking, drained
from tests.streaming.test_cancellation import AsyncResearch, SyncResearch, crew_of


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


def raise_error() -> None:
    """A dispose action of a user that fails."""
    raise ValueError("disposed")


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

    @pytest.mark.parametrize("is_run", [True, False])
    def test_a_dispose_action_that_raises_is_reported(self, is_run: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        reported: list[Any] = []
        monkeypatch.setattr(threading, "excepthook", reported.append)
        source = Speaking("a", Gate()).observe() if is_run else rx.just("a").pipe(rxops.concat(rx.never()))
        output = source.pipe(rxops.finally_action(raise_error), ops.to_output())
        next(iter(output))
        output.close()
        assert output.is_cancelled
        assert [str(each.exc_value) for each in reported] == ["disposed"]
        wait_for_idle_threads()

    def test_a_dispose_action_that_raises_in_async_code_is_reported_to_the_loop(self) -> None:
        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, report: reported.append(report["exception"]))
            output = Speaking("a", Gate()).observe().pipe(rxops.finally_action(raise_error), ops.to_output())
            await anext(aiter(output))
            await output.aclose()
            assert output.is_cancelled

        reported: list[BaseException] = []
        asyncio.run(main())
        assert [str(each) for each in reported] == ["disposed"]

    def test_a_dispose_action_that_raises_leaves_the_thread_of_the_run_free(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reported: list[Any] = []
        monkeypatch.setattr(threading, "excepthook", reported.append)
        output = Speaking("b", Gate()).observe().pipe(rxops.finally_action(raise_error), ops.to_output())
        begun = Gate()
        tasks: list[asyncio.Task[None]] = []

        async def read() -> None:
            async for _ in output:
                begun.open()

        Speaking("a").observe().subscribe(lambda _: tasks.append(asyncio.get_running_loop().create_task(read())))
        begun.wait()
        output.close()
        assert [str(each.exc_value) for each in reported] == ["disposed"]
        wait_for_idle_threads()

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
