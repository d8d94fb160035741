"""Running the cases of a storm: each flow is brought to its point and stopped there."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

from reactivex.disposable import SingleAssignmentDisposable

from rxflow import LLM, Flow
from rxflow.flow import listen, start
from rxflow.tools import BaseTool, tool
from rxflow.types.events import Event, LLMStarted, MethodFinished
from rxflow.types.streaming import FlowStreamingOutput, StreamChunk
from tests.gate import PATIENCE_S, Gate
from tests.loopback.dialects import Dialect
from tests.reliability.cases import Case
from tests.streaming.silent import SilentServer
from tests.team import solo


class Stormy(Flow):
    """Two methods; the first works with a crew, whose agent may have a tool."""

    stream = True

    def __init__(self, case: Case, llm: LLM) -> None:
        self.case = case
        self.llm = llm
        self.crew = solo(llm, agent={"tools": tools_of(case, llm), "max_retry_limit": 0}, description=self.mark)
        super().__init__()

    @property
    def mark(self) -> str:
        """By this the provider knows whose request it is."""
        return f"case {self.case.number} "


class SyncStormy(Stormy):
    @start()
    def first(self) -> str:
        self.case.began.append("first")
        return str(self.crew.kickoff())

    @listen(first)
    def second(self) -> str:
        self.case.began.append("second")
        return str(self.llm.call(self.mark))


class AsyncStormy(Stormy):
    @start()
    async def first(self) -> str:
        self.case.began.append("first")
        return str(await self.crew.kickoff_async())

    @listen(first)
    async def second(self) -> str:
        self.case.began.append("second")
        return str(await self.llm.acall(self.mark))


def tools_of(case: Case, llm: LLM) -> list[BaseTool]:
    """The tool in which the case is stopped; what it then asks for is refused."""

    @tool("dig")
    def sync_dig() -> str:
        """Dig deep."""
        case.reached.open()
        case.free.wait(PATIENCE_S)
        try:
            return str(llm.call(f"case {case.number}"))
        except BaseException as error:
            case.refused.append(error)
            raise

    @tool("dig")
    async def async_dig() -> str:
        """Dig deep."""
        case.reached.open()
        await case.free.passed()
        return "gold"

    tools: dict[str, list[BaseTool]] = {"sync tool": [sync_dig], "async tool": [async_dig]}
    return tools.get(case.point, [])


class Storm:
    """All cases, some at once on the loop, some at once on threads of their own."""

    def __init__(self, dialect: Dialect, url: str, at_once: int = 4) -> None:
        self._dialect = dialect
        self._llm = self._ask(url)
        self._at_once = at_once
        self._helpers = ThreadPoolExecutor(2 * at_once, thread_name_prefix="storm")

    def _ask(self, url: str, **given: Any) -> LLM:
        return self._dialect.make_llm(url, function_calling=True, **given)

    async def pass_over(self, cases: Iterable[Case]) -> None:
        """Until all have been stopped."""
        given = list(cases)
        on_loop = asyncio.Queue[Case]()
        on_threads = asyncio.Queue[Case]()
        for case in given:
            (on_loop if case.on_loop else on_threads).put_nowait(case)
        with self._helpers:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._at_once):
                    group.create_task(self._each(on_loop, self._on_loop))
                    group.create_task(self._each(on_threads, self._on_a_thread))

    async def _each(self, cases: "asyncio.Queue[Case]", run: Callable[[Case], Any]) -> None:
        while not cases.empty():
            case = cases.get_nowait()
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await run(case)
            except Exception as error:
                error.add_note(str(case))
                raise

    async def _on_loop(self, case: Case) -> None:
        with ExitStack() as stack:
            flow = self._flow(case, stack)
            try:
                if case.watches_events:
                    await self._watched_on_loop(case, flow)
                else:
                    await self._iterated_on_loop(case, flow)
            finally:
                case.free.open()

    async def _on_a_thread(self, case: Case) -> None:
        def work() -> None:
            with ExitStack() as stack:
                flow = self._flow(case, stack)
                try:
                    if case.watches_events:
                        self._watched(case, flow)
                    else:
                        self._iterated(case, flow)
                finally:
                    case.free.open()

        await asyncio.get_running_loop().run_in_executor(self._helpers, work)

    def _flow(self, case: Case, stack: ExitStack) -> Stormy:
        llm = self._llm
        if case.point == "connect":
            server = stack.enter_context(SilentServer())
            stack.callback(self._left, case, server)
            case.reached = server.heard
            llm = self._ask(server.url, max_retries=0)
        return SyncStormy(case, llm) if case.kind == "sync" else AsyncStormy(case, llm)

    def _left(self, case: Case, server: SilentServer) -> None:
        server.gone.wait(PATIENCE_S)
        case.gone_at = server.gone_at

    async def _watched_on_loop(self, case: Case, flow: Stormy) -> None:
        watching = Watching(case, flow)
        if case.ends_itself:
            await watching.over.passed()
            return
        if case.point == "preparing":
            await watching.called.passed()
            await asyncio.sleep(case.delay)
        elif case.point != "at once":
            await case.reached.passed()
        match case.way:
            case "dispose":
                watching.stop()
                watching.may_hear_more = False
            case "from a thread":
                await self._helped(watching.stop)
            case _:
                await asyncio.gather(self._helped(watching.stop), self._helped(watching.stop))

    def _watched(self, case: Case, flow: Stormy) -> None:
        watching = Watching(case, flow)
        if case.ends_itself:
            watching.over.wait(PATIENCE_S)
            return
        if case.point == "preparing":
            watching.called.wait(PATIENCE_S)
            time.sleep(case.delay)
        elif case.point != "at once":
            case.reached.wait(PATIENCE_S)
        at_once(*[watching.stop] * (2 if case.way == "twice" else 1))

    async def _iterated_on_loop(self, case: Case, flow: Stormy) -> None:
        output: Any = await flow.kickoff_async()
        if case.point == "before":
            close_unread(case, output)
            assert [chunk async for chunk in output] == []
            return
        if case.way == "cancelled reader":
            await cancelled_while_reading(case, output)
            return
        reading = asyncio.create_task(read(case, output))
        await case.reached.passed()
        if case.way == "collection":
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading
            assert not output.is_cancelled
            del reading
            await asyncio.sleep(0)  # asyncio itself holds the task, and so the reader's frame, until the next step
            case.stopped_at = time.monotonic()
            del output
            return
        match case.way:
            case "aclose":
                case.stopped_at = time.monotonic()
                await output.aclose()
            case "with":
                async with output:
                    case.stopped_at = time.monotonic()
            case "from a thread":
                await self._helped(partial(close, case, output))
            case "twice":
                await asyncio.gather(*(self._helped(partial(close, case, output)) for _ in range(2)))
            case _:
                close(case, output)
        await reading
        assert output.is_cancelled

    def _iterated(self, case: Case, flow: Stormy) -> None:
        output: Any = flow.kickoff()
        if case.point == "before":
            close_unread(case, output)
            assert list(output) == []
            return
        ended: list[BaseException] = []
        reading = threading.Thread(target=read_here, args=(case, output, ended), name="storm reader", daemon=True)
        reading.start()
        case.reached.wait(PATIENCE_S)
        match case.way:
            case "with":
                with output:
                    case.stopped_at = time.monotonic()
            case "twice":
                at_once(partial(close, case, output), partial(close, case, output))
            case "from a thread":
                at_once(partial(close, case, output))
            case _:
                close(case, output)
        reading.join(PATIENCE_S)
        assert not reading.is_alive()
        assert ended == []
        assert output.is_cancelled

    async def _helped(self, work: Callable[[], object]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._helpers, work)


class Watching:
    """A subscription to a flow's events, which some cases end from inside."""

    def __init__(self, case: Case, flow: Stormy) -> None:
        self.called = Gate()
        self.over = Gate()
        self.may_hear_more = True
        self._case = case
        self._held = Gate()
        self._subscription = SingleAssignmentDisposable()
        self._subscription.disposable = flow.events().subscribe(self._on_next, self._on_error, self._on_completed)
        self._held.open()

    def stop(self) -> None:
        self._case.stopped_at = self._case.stopped_at or time.monotonic()
        self._subscription.dispose()

    def _on_next(self, event: Event) -> None:
        if not self.may_hear_more:
            self._case.wrong.append(f"{type(event).__name__} came after the end")
        if isinstance(event, StreamChunk):
            self._case.show()
        elif isinstance(event, LLMStarted):
            self.called.open()
        elif self._case.ends_itself and self._is_the_end(event):
            self._held.wait(PATIENCE_S)  # on a thread of its own the run can be faster than who subscribes
            self.stop()
            self.may_hear_more = False
            self.over.open()

    def _is_the_end(self, event: Event) -> bool:
        if isinstance(event, MethodFinished):
            last = "first" if self._case.point == "between" else "second"
            return self._case.ending == "MethodFinished" and event.origin.namespace[-1] == last
        return type(event).__name__ == self._case.ending

    def _on_error(self, error: Exception) -> None:
        self._case.wrong.append(f"it failed with {error!r}")
        self.over.open()

    def _on_completed(self) -> None:
        self._case.wrong.append("it completed")
        self.over.open()


async def read(case: Case, output: FlowStreamingOutput) -> None:
    async for _ in output:
        case.show()


def read_here(case: Case, output: FlowStreamingOutput, ended: list[BaseException]) -> None:
    try:
        for _ in output:
            case.show()
    except BaseException as error:  # noqa: BLE001 - told to the case
        ended.append(error)


async def cancelled_while_reading(case: Case, output: FlowStreamingOutput) -> None:
    async def reader() -> None:
        async with output:
            await read(case, output)

    reading = asyncio.create_task(reader())
    await case.reached.passed()
    case.stopped_at = time.monotonic()
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await reading
    assert reading.cancelled()
    assert output.is_cancelled


def close(case: Case, output: FlowStreamingOutput) -> None:
    case.stopped_at = case.stopped_at or time.monotonic()
    output.close()


def close_unread(case: Case, output: FlowStreamingOutput) -> None:
    if case.way == "with":
        with output:
            pass
    else:
        for _ in range(2 if case.way == "twice" else 1):
            close(case, output)


def at_once(*works: Callable[[], object]) -> None:
    """In threads that begin together, other than this one."""
    ready = threading.Barrier(len(works))

    def work(each: Callable[[], object]) -> None:
        ready.wait(PATIENCE_S)
        each()

    threads = [threading.Thread(target=work, args=(each,), name="storm closer", daemon=True) for each in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
