"""Programs in virtual time: flows with their threads, tools and limits; async programs and plain loops."""

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import anyio
import pytest
import reactivex
from reactivex.disposable import Disposable

from rxflow import LLM, _hooks
from rxflow.crew._assignment import RateLimit
from rxflow.flow import Flow, listen, router, start
from rxflow.testing._scripted import ScriptedLLM
from rxflow.testing._virtual_clock import VirtualClock
from rxflow.testing._virtual_time import Deadlock, ProviderInVirtualTime
from rxflow.tools import BaseTool, tool
from tests.gate import PATIENCE_S, Gate
from tests.scripted import Scripted, calls
from tests.signals import Signals
from tests.team import crew_saying, solo

HOUR = 3600.0


@tool
def slow(where: str) -> str:
    """Looks around, in a thread."""
    time.sleep(HOUR)
    return f"seen {where}"


@tool
async def patient(where: str) -> str:
    """Looks around, on the loop."""
    await asyncio.sleep(HOUR)
    return f"seen {where}"


class Expedition(Flow):
    """A sync method that sleeps and runs a crew with a tool, an anyio limit, a router and a plain loop in a thread."""

    stream = True

    def __init__(self, with_tool: BaseTool) -> None:
        self.with_tool = with_tool
        super().__init__()

    @start()
    def look(self) -> str:
        time.sleep(10)
        model = Scripted(calls((self.with_tool.name, {"where": "north"})), "all quiet")
        return str(solo(model, agent={"tools": [self.with_tool]}).kickoff())

    @listen(look)
    async def give_up(self) -> AsyncIterator[str]:
        with anyio.move_on_after(5):
            await anyio.sleep(HOUR)
        yield "given up"

    @router(give_up)
    async def which(self) -> str:
        await asyncio.sleep(1)
        return "home"

    @listen("home")
    def read(self) -> str:
        crew = crew_saying("back", "home")
        crew.stream = True
        return "+".join(chunk.content for chunk in crew.kickoff())


EXPECTED = [
    (HOUR + 10, "all"),
    (HOUR + 10, " quiet"),
    (HOUR + 15, "given up"),
    (HOUR + 16, "back"),
    (HOUR + 16, "home"),
]


@pytest.mark.parametrize("with_tool", [slow, patient], ids=["sync tool", "async tool"])
def test_an_async_program_runs_a_flow_in_virtual_time(with_tool: BaseTool) -> None:
    clock = VirtualClock()

    async def main() -> list[tuple[float, str]]:
        output = await Expedition(with_tool).kickoff_async()
        return [(clock.now, chunk.content) async for chunk in output if chunk.tool_call is None]

    assert clock.run(main) == EXPECTED
    assert clock.now == HOUR + 16


@pytest.mark.parametrize("with_tool", [slow, patient], ids=["sync tool", "async tool"])
def test_a_plain_loop_runs_a_flow_in_virtual_time(with_tool: BaseTool) -> None:
    with VirtualClock() as clock:
        read = [(clock.now, chunk.content) for chunk in Expedition(with_tool).kickoff() if chunk.tool_call is None]
    assert read == EXPECTED


class Ticking(Flow):
    """Says something each second, as often as asked."""

    stream = True

    def __init__(self, times: int) -> None:
        self.times = times
        super().__init__()

    @start()
    async def tick(self) -> AsyncIterator[str]:
        for number in range(self.times):
            await asyncio.sleep(1)
            yield str(number)


def test_a_reader_at_work_holds_the_time() -> None:
    with VirtualClock() as clock:
        times = [clock.now for _ in Ticking(50).kickoff()]
    assert times == [float(second) for second in range(1, 51)]


def test_a_second_run_goes_on_where_the_first_has_ended() -> None:
    with VirtualClock() as clock:
        assert [clock.now for _ in Ticking(2).kickoff()] == [1.0, 2.0]
        assert [clock.now for _ in Ticking(2).kickoff()] == [3.0, 4.0]
    clock.restart()
    assert clock.now == 0.0


def test_a_stream_that_is_left_half_read_can_be_closed() -> None:
    with VirtualClock() as clock, Ticking(50).kickoff() as output:
        next(iter(output))
        assert clock.now == 1.0
    assert output.is_cancelled


def test_another_thread_can_read_on() -> None:
    with VirtualClock() as clock:
        output = Ticking(3).kickoff()
        next(iter(output))
        read: list[tuple[float, str]] = []
        reader = threading.Thread(target=lambda: read.extend((clock.now, chunk.content) for chunk in output))
        reader.start()
        reader.join(PATIENCE_S)
    assert read == [(1.0, "0"), (2.0, "1"), (3.0, "2")]


def test_an_async_reader_can_read_on_what_a_plain_loop_has_begun() -> None:
    async def main() -> list[str]:
        return [chunk.content async for chunk in output]

    with VirtualClock():
        output = Ticking(3).kickoff()
        next(iter(output))
        assert asyncio.run(main()) == ["0", "1", "2"]


def test_a_plain_subscription_runs_in_virtual_time() -> None:
    with VirtualClock() as clock:
        signals = Signals().until_ended(Ticking(3).observe())
    assert (len([each for each in signals.items if str(each) in "012"]), clock.now) == (3, 3.0)


def test_a_kickoff_that_blocks_its_own_loop_takes_the_time_that_it_takes() -> None:
    class Blocking(Flow):
        stream = True

        @start()
        async def block(self) -> float:
            inner = Ticking(4)
            inner.stream = False
            inner.kickoff()
            return asyncio.get_running_loop().time()

    flow = Blocking()
    flow.stream = False
    with VirtualClock() as clock, pytest.warns(RuntimeWarning, match="blocks the event loop"):
        result = flow.kickoff()
    assert (result, clock.now) == (4.0, 4.0)


class Stuck(Flow):
    stream = True

    @start()
    async def speak(self) -> AsyncIterator[str]:
        yield "a"
        await asyncio.Event().wait()


def test_a_plain_loop_over_a_stuck_flow_raises_where_it_stands() -> None:
    read: list[str] = []
    with VirtualClock(), pytest.raises(Deadlock, match=r"in speak: await asyncio\.Event\(\)\.wait\(\)"):
        read.extend(chunk.content for chunk in Stuck().kickoff())
    assert read == ["a"]


def test_a_stuck_flow_that_is_run_for_its_result_raises_too() -> None:
    flow = Stuck()
    flow.stream = False
    with VirtualClock(), pytest.raises(Deadlock):
        flow.kickoff()


def test_a_method_in_a_thread_that_waits_for_a_stuck_crew_is_a_deadlock() -> None:
    class Waiting(Flow):
        @start()
        def wait(self) -> str:
            return str(solo(Scripted("a", before=lambda _: asyncio.Event().wait())).kickoff())

    clock = VirtualClock()

    async def main() -> None:
        await Waiting().kickoff_async()

    with pytest.raises(Deadlock, match=r"(?s)the thread 'rxflow wait'.*in wait: return str\(solo\("):
        clock.run(main)


def test_a_crew_in_a_pool_of_the_users_own_passes_the_time_of_the_run_whose_context_it_has() -> None:
    class Pooled(Flow):
        @start()
        def work(self) -> str:
            here = copy_context()
            with ThreadPoolExecutor(1) as pool:
                return pool.submit(here.run, lambda: str(solo(ScriptedLLM("a 1h b|")).kickoff())).result()

    with VirtualClock() as clock:
        assert str(Pooled().kickoff()) == "ab"
    assert clock.now == HOUR + 0.002


def test_a_thread_of_the_users_own_that_outlives_its_method_sleeps_as_others_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    over = Gate()
    threads: list[threading.Thread] = []

    def doze() -> None:
        over.wait()
        time.sleep(6)

    class Leaving(Flow):
        @start()
        def leave(self) -> None:
            threads.append(threading.Thread(target=copy_context().run, args=(doze,)))
            threads[0].start()

    with VirtualClock():
        Leaving().kickoff()
        over.open()
        threads[0].join(PATIENCE_S)
    assert slept == [6]


def test_a_reader_under_trio_is_read_to_in_virtual_time() -> None:
    async def main() -> list[float]:
        return [clock.now async for _ in await Ticking(3).kickoff_async()]

    with VirtualClock() as clock:
        assert anyio.run(main, backend="trio") == [1.0, 2.0, 3.0]


def test_a_stuck_flow_under_trio_is_a_deadlock() -> None:
    async def main() -> None:
        async for _ in await Stuck().kickoff_async():
            pass

    with VirtualClock(), pytest.raises(Deadlock, match="in speak"):
        anyio.run(main, backend="trio")


def test_a_run_that_nobody_reads_waits_for_others_to_wake_it() -> None:
    class Gated(Flow):
        @start()
        async def wait(self) -> None:
            reached.open()
            await gate.passed()

    gate, reached = Gate(), Gate()
    signals = Signals()
    with VirtualClock():
        signals.subscribe_to(Gated().observe())
        reached.wait()
        gate.open()
        signals.ended.wait()
    assert signals.completions == 1


def test_a_run_whose_loop_dies_tells_its_reader() -> None:
    class Dying(Flow):
        stream = True

        @start()
        def die(self) -> reactivex.Observable[Any]:
            def subscribe(observer: object, scheduler: object = None) -> Disposable:
                asyncio.get_running_loop().call_soon(sys.exit, 3)
                return Disposable()

            return reactivex.Observable(subscribe)

    with pytest.raises(SystemExit) as caught:
        list(Dying().kickoff())
    assert caught.value.code == 3


def test_a_real_provider_is_refused() -> None:
    llm = LLM("openai/gpt-4o", api_key="k")
    with VirtualClock(), pytest.raises(ProviderInVirtualTime, match="ScriptedLLM"):
        llm.call("Hello")


def test_a_rate_limit_passes_in_virtual_time() -> None:
    async def main() -> None:
        limit = RateLimit(2)
        for _ in range(5):
            await limit.wait()

    clock = VirtualClock()
    clock.run(main)
    assert clock.now == 120.0


def test_a_flow_that_is_cancelled_wakes_the_tool_that_sleeps() -> None:
    ended: list[BaseException] = []
    gone = Gate()

    @tool
    def doze() -> str:
        """Sleeps."""
        try:
            time.sleep(HOUR)
        except BaseException as error:
            ended.append(error)
            raise
        finally:
            gone.open()
        return "awake"

    async def main() -> None:
        with anyio.move_on_after(60):
            await solo(Scripted(calls(("doze", {})), "a"), agent={"tools": [doze]}).kickoff_async()
        gone.wait()

    clock = VirtualClock()
    clock.run(main)
    assert clock.now == 60.0
    assert [type(error) for error in ended] == [asyncio.CancelledError]


def test_the_real_sleep_comes_back() -> None:
    real, factory = time.sleep, _hooks.loop_factory
    with VirtualClock():
        with VirtualClock():
            assert time.sleep is not real
        assert time.sleep is not real
    assert (time.sleep, _hooks.loop_factory) == (real, factory)


def test_in_other_threads_sleep_is_the_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    with VirtualClock() as clock:
        time.sleep(5)
        thread = threading.Thread(target=lambda: time.sleep(6))
        thread.start()
        thread.join()
    assert (slept, clock.now) == ([5, 6], 0.0)


@pytest.mark.parametrize("given", ["function", "coroutine"])
def test_run_returns_what_main_returns(given: str) -> None:
    async def main() -> int:
        await asyncio.sleep(HOUR)
        return 5

    clock = VirtualClock()
    assert clock.run(main if given == "function" else main()) == 5
    assert clock.now == HOUR


@pytest.mark.parametrize("given", ["function", "coroutine"])
def test_run_is_refused_where_a_loop_runs(given: str) -> None:
    async def inner() -> None: ...

    async def main() -> None:
        with pytest.raises(RuntimeError, match="in a plain function, not in a coroutine"):
            VirtualClock().run(inner if given == "function" else inner())

    asyncio.run(main())


def test_run_cancels_what_main_leaves_behind() -> None:
    ended: list[str] = []

    async def forever(note: Callable[[str], None]) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            note("cancelled")

    async def main() -> None:
        main.task = asyncio.create_task(forever(ended.append))  # type: ignore[attr-defined]
        await asyncio.sleep(1)

    VirtualClock().run(main)
    assert ended == ["cancelled"]
