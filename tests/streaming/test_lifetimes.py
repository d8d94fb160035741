"""What outlives a run, or the method that began it: event loops and what is bound to them, tasks, threads, streams."""

import asyncio
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import httpx
import pytest
from reactivex import operators as rxops

from rxflow import LLM, Flow, operators as ops
from rxflow._hooks import IDLE_NAME
from rxflow._streaming import loop_thread
from rxflow._streaming.loop_thread import MAX_KEPT_LOOPS
from rxflow.flow import listen, start
from rxflow.testing.leaks import assert_nothing_is_left
from rxflow.tools import tool
from rxflow.types.events import Event, MethodFinished
from rxflow.types.streaming import FlowStreamingOutput
from tests.gate import PATIENCE_S, Gate
from tests.loopback import Loopback, Reply
from tests.scripted import Scripted, calls
from tests.team import solo


class Where(Flow):
    """The loop that its method ran on."""

    stream = True

    @start()
    async def here(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()


def run_in_a_thread(work: Callable[[], Any]) -> None:
    """Run ``work`` in a thread that ends, and wait until the loops of that thread have ended too."""

    def run() -> None:
        before = set(loop_thread.live)
        work()
        made.extend(loop_thread.live - before)

    made: list[loop_thread.LoopThread] = []
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert made
    for each in made:
        each.thread.join(PATIENCE_S)


def result_of(output: FlowStreamingOutput) -> Any:
    for _ in output:
        pass
    return output.result


def loop_of_kickoff() -> Any:
    return Where(stream=False).kickoff()


def loop_of_a_tool() -> Any:
    seen: list[asyncio.AbstractEventLoop] = []

    @tool
    async def look() -> str:
        """Look."""
        seen.append(asyncio.get_running_loop())
        return "seen"

    solo(Scripted(calls(("look", {})), "done"), tools=[look]).kickoff()
    return seen[0]


BLOCKING: dict[str, Callable[[], Any]] = {
    "kickoff": loop_of_kickoff,
    "for": lambda: result_of(Where().kickoff()),
    "run": lambda: result(Where().events().run()),
    "run of RxPY": lambda: result(Where().events().pipe(rxops.last()).run()),
    "to_output": lambda: result(list(Where().events().pipe(ops.to_output()))[-1]),
    "kickoff of a crew": loop_of_a_tool,
}


class TestLoopsOfBlockingRuns:
    @pytest.mark.parametrize("way", BLOCKING.values(), ids=BLOCKING)
    def test_runs_that_follow_each_other_share_a_loop(self, way: Callable[[], Any]) -> None:
        assert loop_of_kickoff() is way() is way() is loop_of_kickoff()

    @pytest.mark.parametrize("way", BLOCKING.values(), ids=BLOCKING)
    def test_also_where_an_event_loop_runs_in_the_thread_that_waits(self, way: Callable[[], Any]) -> None:
        async def cell() -> Any:
            return way()

        loop = asyncio.new_event_loop()
        try:
            assert loop.run_until_complete(cell()) is loop.run_until_complete(cell()) is way()
        finally:
            loop.close()

    def test_a_run_that_was_closed_or_failed_leaves_its_loop_to_the_next(self) -> None:
        class Failing(Flow):
            @start()
            async def fail(self) -> None:
                raise LookupError("mine")

        before = loop_of_kickoff()
        with pytest.raises(LookupError):
            Failing().kickoff()
        source = Scripted(["a", Gate()])
        with solo(source, crew={"stream": True}).kickoff() as output:
            next(iter(output))
        assert loop_of_kickoff() is before
        subscription = solo(source).observe().subscribe()
        subscription.dispose()
        assert loop_of_kickoff() is before

    def test_a_client_that_was_made_once_works_in_each_run(self, provider: Loopback) -> None:
        provider.answer(lambda request: Reply(text="fine"))
        client = httpx.AsyncClient(timeout=PATIENCE_S)

        class Fetching(Flow):
            @start()
            async def fetch(self) -> int:
                body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}
                return (await client.post(f"{provider.url}/chat/completions", json=body)).status_code

            @listen(fetch)
            async def leave(self, status: int) -> int:
                if self.state["is_last"]:
                    await client.aclose()
                return status

        assert [Fetching().kickoff({"is_last": turn == 2}) for turn in range(3)] == [200] * 3
        assert provider.connections == 1

    def test_a_lock_that_was_made_once_works_in_each_run(self) -> None:
        lock = asyncio.Lock()

        class Locking(Flow):
            @start()
            async def first(self) -> None:
                async with lock:
                    await asyncio.sleep(0)

            @start()
            async def second(self) -> str:
                async with lock:  # contended: only then a lock is bound to its loop
                    return "locked"

        for _ in range(3):
            assert (
                "locked"
                in Locking().events().pipe(rxops.filter(is_method_end), rxops.map(result), rxops.to_list()).run()
            )

    def test_a_session_with_a_task_in_the_background_goes_on_between_the_runs(self) -> None:
        """As clients of MCP do: a task of theirs answers what comes through a queue."""

        class Session(Flow):
            @start()
            async def question(self) -> str:
                if "requests" not in session:
                    session["requests"] = asyncio.Queue[asyncio.Future[str]]()
                    session["task"] = asyncio.create_task(serve(session["requests"]))
                answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
                session["requests"].put_nowait(answer)
                return await answer

        async def serve(requests: asyncio.Queue[asyncio.Future[str]]) -> None:
            for number in range(3):
                (await requests.get()).set_result(f"answer {number}")

        session: dict[str, Any] = {}
        assert [Session().kickoff() for _ in range(3)] == ["answer 0", "answer 1", "answer 2"]

    def test_runs_at_the_same_time_have_a_loop_each_and_find_it_again(self) -> None:
        def rounds() -> list[Any]:
            seen: list[Any] = []
            go_on = Gate()

            class Outer(Flow):
                @start()
                async def wait(self) -> Any:
                    yield "a"
                    await go_on.passed()
                    seen.append(asyncio.get_running_loop())

            for _ in Outer(stream=True).kickoff():
                seen.extend([loop_of_kickoff(), loop_of_kickoff()])
                go_on.open()
            return seen

        first, second = rounds(), rounds()
        assert first == second
        inner, again, outer = first
        assert inner is again
        assert inner is not outer

    def test_a_run_that_blocks_its_loop_hinders_no_other(self) -> None:
        class Blocking(Flow):
            @start()
            async def block(self) -> None:
                inside.set()
                released.wait()

        inside, released = threading.Event(), threading.Event()
        before = loop_of_kickoff()
        subscription = Blocking().observe().subscribe()
        inside.wait()
        other = loop_of_kickoff()
        subscription.dispose()
        assert loop_of_kickoff() is other
        assert other is not before
        released.set()
        assert_nothing_is_left()
        assert loop_of_kickoff() is before

    def test_each_thread_has_a_loop_of_its_own_which_ends_with_it(self) -> None:
        def look() -> None:
            loops.append(loop_of_kickoff())
            loops.append(loop_of_kickoff())
            kept.append(thread_of(loops[-1]))

        loops: list[asyncio.AbstractEventLoop] = []
        kept: list[threading.Thread] = []
        mine = loop_of_kickoff()
        for _ in range(2):
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
        assert loops[0] is loops[1]
        assert loops[2] is loops[3]
        assert len({mine, loops[0], loops[2]}) == 3
        for each in kept:
            each.join(PATIENCE_S)
        assert loops[0].is_closed()
        assert loops[2].is_closed()

    def test_a_task_that_is_left_on_it_is_cancelled_at_its_end(self) -> None:
        class Leaving(Flow):
            @start()
            async def leave(self) -> None:
                left.append(asyncio.create_task(asyncio.sleep(PATIENCE_S)))

        left: list[asyncio.Task[None]] = []
        run_in_a_thread(lambda: Leaving().kickoff())
        assert left[0].cancelled()

    def test_the_error_of_a_task_that_is_left_is_reported(self, caplog: pytest.LogCaptureFixture) -> None:
        async def fail_late() -> None:
            try:
                await asyncio.sleep(PATIENCE_S)
            finally:
                raise LookupError("too late")

        class Leaving(Flow):
            @start()
            async def leave(self) -> None:
                left.append(asyncio.create_task(fail_late()))
                await asyncio.sleep(0)  # so that it has begun

        left: list[asyncio.Task[None]] = []
        run_in_a_thread(lambda: Leaving().kickoff())
        assert "too late" in caplog.text

    def test_its_end_does_not_look_at_the_tasks_of_all_loops(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """There may be thousands, as in a server, and every other thread would wait."""
        looks: list[object] = []
        monkeypatch.setattr("asyncio.tasks.all_tasks", looks.append)  # where asyncio.Runner finds it
        monkeypatch.setattr("asyncio.all_tasks", looks.append)
        run_in_a_thread(loop_of_kickoff)
        assert looks == []

    def test_a_program_of_many_streams_keeps_few_threads(self) -> None:
        def open_many() -> None:
            before = set(loop_thread.live)
            outputs = [
                solo(Scripted(["a", Gate()]), crew={"stream": True}).kickoff() for _ in range(MAX_KEPT_LOOPS + 3)
            ]
            for output in outputs:
                next(iter(output))
            mine = loop_thread.live - before
            assert len(mine) == len(outputs)
            for output in outputs:
                output.close()
            for each in mine:
                assert each.wait_until_idle(PATIENCE_S)
            for each in mine:
                if each.thread.name != IDLE_NAME:
                    each.thread.join(PATIENCE_S)
            kept.extend(loop_thread.live & mine)

        kept: list[loop_thread.LoopThread] = []
        thread = threading.Thread(target=open_many)
        thread.start()
        thread.join()
        assert len(kept) == MAX_KEPT_LOOPS


def is_method_end(event: Event) -> bool:
    return isinstance(event, MethodFinished)


def result(event: Any) -> Any:
    return event.result


def thread_of(loop: asyncio.AbstractEventLoop) -> threading.Thread:
    found: list[threading.Thread] = []
    asked = threading.Event()

    def look() -> None:
        found.append(threading.current_thread())
        asked.set()

    loop.call_soon_threadsafe(look)
    asked.wait()
    return found[0]


class Background(Flow):
    """Begins ``work`` in one method, and awaits it in the next."""

    work: Callable[[], Any]
    begun: Gate
    go_on: Gate
    task: asyncio.Task[Any]

    @start()
    async def begin(self) -> None:
        self.task = asyncio.create_task(self.work())
        await self.begun.passed()

    @listen(begin)
    async def finish(self) -> Any:
        self.go_on.open()
        try:
            return await self.task
        except RuntimeError as error:
            return str(error)


class TestWhatOutlivesItsMethod:
    """The work is under way when its method ends, and goes on when the next has begun."""

    def ask(self, *turns: Any) -> tuple[Background, Scripted]:
        async def before(request: object) -> None:
            flow.begun.open()
            await flow.go_on.passed()

        source = Scripted(*turns, before=before)
        flow = Background()
        flow.begun, flow.go_on, flow.work = Gate(), Gate(), lambda: source.llm.acall("x")
        return flow, source

    def test_a_call_gets_its_answer(self) -> None:
        flow, _ = self.ask("hello there")
        assert asyncio.run(flow.kickoff_async()) == "hello there"

    def test_on_a_loop_of_its_own_too(self) -> None:
        flow, _ = self.ask("hello there")
        assert flow.kickoff() == "hello there"

    def test_a_call_gets_its_error(self) -> None:
        flow, _ = self.ask(RuntimeError("overloaded"))
        assert "overloaded" in str(asyncio.run(flow.kickoff_async()))

    def test_a_crew_gets_its_result(self) -> None:
        flow, source = self.ask("hello there")

        async def work() -> str:
            return str((await solo(source).kickoff_async()).raw)

        flow.work = work
        assert asyncio.run(flow.kickoff_async()) == "hello there"

    def test_a_call_in_a_thread_gets_its_answer(self) -> None:
        flow, source = self.ask("hello there")
        flow.work = lambda: asyncio.to_thread(source.llm.call, "x")
        assert asyncio.run(flow.kickoff_async()) == "hello there"

    def test_what_it_says_is_in_no_method_and_hurts_no_bracket(self) -> None:
        flow, _ = self.ask("hello there")

        async def main() -> list[Event]:
            return await flow.events().pipe(rxops.to_list())

        kinds = [type(event).__name__ for event in asyncio.run(main())]
        assert kinds[0] == "FlowStarted"
        assert kinds[-1] == "FlowFinished"
        assert "StreamChunk" not in kinds

    def test_a_stream_that_is_read_there_gets_an_error(self) -> None:
        flow, source = self.ask("hello there")

        async def work() -> None:
            async for _ in await solo(source, crew={"stream": True}).kickoff_async():
                pass

        flow.work = work
        assert "was started by Background / begin, which has ended" in str(asyncio.run(flow.kickoff_async()))

    def test_an_observable_that_is_awaited_there_gets_an_error(self) -> None:
        flow, source = self.ask("hello there")

        async def work() -> Any:
            return await source.llm.observe("x").pipe(rxops.to_list())

        flow.work = work
        assert "was started by Background / begin, which has ended" in str(asyncio.run(flow.kickoff_async()))

    def test_it_is_stopped_with_its_flow(self, provider: Loopback, llm: LLM) -> None:
        provider.script(Reply(text=["one ", "two"], hold_after=1))
        left: list[asyncio.Task[Any]] = []

        class Leaving(Flow):
            @start()
            async def begin(self) -> None:
                left.append(asyncio.create_task(llm.acall("x")))
                await provider.until(lambda p: p.holding)

            @listen(begin)
            async def stay(self) -> Any:
                yield "staying"
                await Gate().passed()

        async def main() -> None:
            async with await Leaving(stream=True).kickoff_async() as output:
                async for _ in output:
                    break
                assert not provider.disconnects
            await provider.until(lambda p: p.disconnects)
            with pytest.raises(asyncio.CancelledError):
                await left[0]

        asyncio.run(main())

    def test_a_thread_that_waits_is_let_go_with_its_flow(self) -> None:
        outcome: list[BaseException] = []
        inside = Gate()

        async def hold(request: object) -> None:
            inside.open()
            await Gate().passed()

        source = Scripted("never", before=hold)

        class Leaving(Flow):
            @start()
            async def begin(self) -> None:
                def wait() -> None:
                    try:
                        source.llm.call("x")
                    except BaseException as error:  # noqa: BLE001 - the test looks at it
                        outcome.append(error)

                threads.append(threading.Thread(target=copy_context().run, args=(wait,)))
                threads[0].start()
                await inside.passed()

            @listen(begin)
            async def stay(self) -> Any:
                yield "staying"
                await Gate().passed()

        threads: list[threading.Thread] = []
        with Leaving(stream=True).kickoff() as output:
            next(iter(output))
        threads[0].join(PATIENCE_S)
        assert [type(error) for error in outcome] == [asyncio.CancelledError]

    def test_with_its_flow_ended_it_still_gets_its_answer(self) -> None:
        flow, source = self.ask("hello there")

        class Hedged(Flow):
            @start()
            async def begin(self) -> asyncio.Task[str]:
                task = asyncio.create_task(source.llm.acall("x"))
                await flow.begun.passed()
                return task

        async def main() -> str:
            task: Any = await Hedged().kickoff_async()
            flow.go_on.open()
            return str(await task)

        assert asyncio.run(main()) == "hello there"
