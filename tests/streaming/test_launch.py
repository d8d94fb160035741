"""Every source of ours by the rules of Reactive Streams: run on a loop of its own, and on the subscriber's."""

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import AsyncIterable, Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest
import reactivex as rx
from reactivex import Observable, operators as rxops
from reactivex.abc import DisposableBase
from reactivex.internal.exceptions import SequenceContainsNoElementsError

from rxflow import Crew
from rxflow.flow import Flow, start
from rxflow.testing.leaks import assert_nothing_is_left
from rxflow.types.events import Event
from rxflow.types.streaming import StreamChunk
from tests.gate import PATIENCE_S, Gate
from tests.scripted import Scripted
from tests.signals import Signals
from tests.streaming.speaking import Speaking
from tests.team import a_task, an_agent, solo

Script = tuple[str | Gate | Exception, ...]
Make = Callable[..., Observable[Any]]


def crew_of(*script: str | Gate | Exception) -> Crew:
    return solo(Scripted(script), agent={"max_retry_limit": 0})


def of_llm(*script: str | Gate | Exception) -> Observable[Any]:
    return Scripted(script).llm.observe("Speak")


def of_agent(*script: str | Gate | Exception) -> Observable[Any]:
    agent = an_agent(Scripted(script), max_retry_limit=0)
    return agent.observe(a_task(agent))


def of_crew(*script: str | Gate | Exception) -> Observable[Any]:
    return crew_of(*script).observe()


def of_flow(*script: str | Gate | Exception) -> Observable[Any]:
    return Speaking(*script).observe()


def of_flow_of_crew(*script: str | Gate | Exception) -> Observable[Any]:
    crew = crew_of(*script)

    class Outer(Flow):
        @start()
        def work(self) -> Any:
            return crew.kickoff()

    return Outer().observe()


SOURCES: dict[str, Make] = {
    "llm": of_llm,
    "agent": of_agent,
    "crew": of_crew,
    "flow": of_flow,
    "flow of a crew": of_flow_of_crew,
}
every_source = pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)


class Observed(Signals):
    """Notes as well by which thread it is told, and whether one signal came into another."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()
        self.overlaps = 0
        self.first = Gate()
        self._inside = False

    @property
    def chunks(self) -> list[str]:
        return [chunk.content for chunk in self.items]

    def on_next(self, item: StreamChunk) -> None:
        with self._noted():
            super().on_next(item)
        self.first.open()

    def on_error(self, error: BaseException) -> None:
        with self._noted():
            super().on_error(error)

    def on_completed(self) -> None:
        with self._noted():
            super().on_completed()

    @contextmanager
    def _noted(self) -> Generator[None]:
        self.threads.add(threading.get_ident())
        self.overlaps += self._inside
        self._inside = True
        yield
        self._inside = False


def all_ended() -> None:
    """Wait until no run goes on, so that nothing can come any more; threads of loops wait for the next run."""
    assert_nothing_is_left()


async def others_done() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        await asyncio.wait(left, timeout=PATIENCE_S)


@every_source
class TestOnALoopOfItsOwn:
    """A plain subscribe, where no loop runs."""

    def test_signals_are_serial_and_end_once(self, make: Make) -> None:
        seen = Observed()
        seen.subscribe_to(make("a", "b", "c"))
        seen.ended.wait()
        all_ended()
        assert (seen.chunks, seen.ends) == (["a", "b", "c"], ["completed"])
        assert seen.overlaps == 0
        assert len(seen.threads) == 1

    def test_an_error_comes_once_after_what_had_arrived(self, make: Make) -> None:
        seen = Observed()
        seen.subscribe_to(make("a", "b", ValueError("no more")))
        seen.ended.wait()
        all_ended()
        assert (seen.chunks, seen.ends) == (["a", "b"], ["ValueError('no more')"])

    def test_subscribing_returns_while_the_source_has_not_begun(self, make: Make) -> None:
        gate = Gate()
        seen = Observed()
        subscription = seen.subscribe_to(make(gate, "a"))
        assert seen.chunks == []
        gate.open()
        seen.ended.wait()
        subscription.dispose()
        assert seen.ends == ["completed"]

    def test_nothing_comes_after_a_disposal(self, make: Make) -> None:
        gate = Gate()
        seen = Observed()
        subscription = seen.subscribe_to(make("a", gate, "b"))
        seen.first.wait()
        subscription.dispose()
        gate.open()
        all_ended()
        assert (seen.chunks, seen.ends) == (["a"], [])

    def test_a_run_is_disposed_as_often_as_one_likes_from_many_threads(self, make: Make) -> None:
        seen = Observed()
        subscription = seen.subscribe_to(make("a", Gate()))
        seen.first.wait()
        ready = threading.Barrier(4)

        def dispose(_: int) -> None:
            ready.wait(PATIENCE_S)
            subscription.dispose()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(dispose, range(4)))
        subscription.dispose()
        all_ended()
        assert seen.ends == []

    def test_disposing_at_once_leaves_nothing(self, make: Make) -> None:
        seen = Observed()
        seen.subscribe_to(make("a", Gate())).dispose()
        all_ended()
        assert seen.ends == []

    def test_disposing_after_the_end_does_nothing(self, make: Make) -> None:
        seen = Observed()
        subscription = seen.subscribe_to(make("a"))
        seen.ended.wait()
        all_ended()
        subscription.dispose()
        assert (seen.chunks, seen.ends) == (["a"], ["completed"])

    def test_an_observer_can_dispose_from_inside_a_signal(self, make: Make) -> None:
        taken: list[str] = []
        gate, disposed = Gate(), Gate()

        def on_next(chunk: StreamChunk) -> None:
            taken.append(chunk.content)
            subscription.dispose()
            disposed.open()

        subscription = make(gate, "a", "b").subscribe(on_next)
        gate.open()
        disposed.wait()
        all_ended()
        assert taken == ["a"]

    @pytest.mark.slow
    def test_no_reference_to_the_observer_is_kept_after_a_disposal(self, make: Make) -> None:
        source = make("a", Gate())
        seen = Observed()
        kept = weakref.ref(seen)
        subscription = seen.subscribe_to(source)
        seen.first.wait()
        subscription.dispose()
        all_ended()
        del seen, subscription
        gc.collect()
        assert kept() is None

    @pytest.mark.slow
    def test_no_reference_to_the_observer_is_kept_after_the_end(self, make: Make) -> None:
        source = make("a")
        seen = Observed()
        kept = weakref.ref(seen)
        seen.subscribe_to(source)
        seen.ended.wait()
        all_ended()
        del seen
        gc.collect()
        assert kept() is None

    def test_an_observer_that_raises_ends_its_run_and_is_reported(
        self, make: Make, caplog: pytest.LogCaptureFixture
    ) -> None:
        taken: list[str] = []

        def on_next(chunk: StreamChunk) -> None:
            taken.append(chunk.content)
            raise ValueError("cannot take it")

        with caplog.at_level(logging.ERROR, "asyncio"):
            make("a", "b").subscribe(on_next)
            all_ended()
        assert taken == ["a"]
        (record,) = caplog.records
        assert "an observer of an rxflow run raised" in record.getMessage()
        assert record.exc_info
        assert str(record.exc_info[1]) == "cannot take it"

    def test_an_observer_that_raises_leaves_the_run_of_another_alone(
        self, make: Make, caplog: pytest.LogCaptureFixture
    ) -> None:
        def on_next(chunk: StreamChunk) -> None:
            raise ValueError("cannot take it")

        gate = Gate()
        source = make("a", gate, "b")
        seen = Observed()
        seen.subscribe_to(source)
        seen.first.wait()
        source.subscribe(on_next)
        gate.open()
        seen.ended.wait()
        all_ended()
        assert (seen.chunks, seen.ends) == (["a", "b"], ["completed"])
        assert len(caplog.records) == 1

    def test_each_subscription_is_a_run_of_its_own(self, make: Make) -> None:
        source = make("a", "b")
        seen = [Observed(), Observed()]
        for each in seen:
            each.subscribe_to(source)
        for each in seen:
            each.ended.wait()
        assert [(each.chunks, each.ends) for each in seen] == [(["a", "b"], ["completed"])] * 2


@every_source
class TestOnTheLoopOfTheSubscriber:
    """A subscribe in an asyncio program: the run lives on its loop."""

    def test_signals_come_on_the_loop_serial_and_end_once(self, make: Make) -> None:
        async def main() -> Observed:
            seen = Observed()
            seen.subscribe_to(make("a", "b", "c"))
            await seen.ended.passed()
            await others_done()
            assert seen.threads == {threading.get_ident()}
            return seen

        seen = asyncio.run(main())
        assert (seen.chunks, seen.ends, seen.overlaps) == (["a", "b", "c"], ["completed"], 0)

    def test_an_error_comes_once_after_what_had_arrived(self, make: Make) -> None:
        async def main() -> Observed:
            seen = Observed()
            seen.subscribe_to(make("a", ValueError("no more")))
            await seen.ended.passed()
            await others_done()
            return seen

        seen = asyncio.run(main())
        assert (seen.chunks, seen.ends) == (["a"], ["ValueError('no more')"])

    def test_nothing_at_all_comes_after_a_disposal(self, make: Make) -> None:
        async def main() -> Observed:
            gate = Gate()
            seen = Observed()
            subscription = seen.subscribe_to(make("a", gate, "b"))
            await seen.first.passed()
            gate.open()
            subscription.dispose()
            subscription.dispose()
            await others_done()
            return seen

        seen = asyncio.run(main())
        assert (seen.chunks, seen.ends) == (["a"], [])

    @pytest.mark.slow
    def test_disposing_leaves_no_task_and_no_observer(self, make: Make) -> None:
        async def main() -> None:
            source = make("a", Gate())
            seen = Observed()
            kept = weakref.ref(seen)
            subscription = seen.subscribe_to(source)
            await seen.first.passed()
            subscription.dispose()
            await others_done()
            assert asyncio.all_tasks() == {asyncio.current_task()}
            del seen, subscription
            gc.collect()
            assert kept() is None

        asyncio.run(main())

    def test_disposing_after_the_loop_has_ended_does_nothing(self, make: Make) -> None:
        async def main() -> DisposableBase:
            subscription = seen.subscribe_to(make("a", Gate()))
            await seen.first.passed()
            return subscription

        seen = Observed()
        asyncio.run(main()).dispose()
        assert len(seen.ends) == 1  # the loop's end was the stream's

    def test_an_observer_that_raises_is_reported_to_the_loops_exception_handler(self, make: Make) -> None:
        async def main() -> None:
            def on_next(chunk: StreamChunk) -> None:
                taken.append(chunk.content)
                raise ValueError("cannot take it")

            told = Gate()

            def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
                reported.append(context)
                told.open()

            asyncio.get_running_loop().set_exception_handler(report)
            make("a", "b").subscribe(on_next)
            await told.passed()
            await others_done()

        taken: list[str] = []
        reported: list[dict[str, Any]] = []
        asyncio.run(main())
        assert taken == ["a"]
        assert [str(each["exception"]) for each in reported] == ["cannot take it"]

    @pytest.mark.parametrize("script", [("a",), ("a", ValueError("no more"))], ids=["completed", "failed"])
    def test_an_observer_that_raises_at_the_end_is_reported_too(self, make: Make, script: Script) -> None:
        async def main() -> None:
            def end(*_: object) -> None:
                ends.append(1)
                raise RuntimeError("cannot end")

            told = Gate()

            def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
                reported.append(context)
                told.open()

            asyncio.get_running_loop().set_exception_handler(report)
            make(*script).subscribe(on_error=end, on_completed=end)
            await told.passed()
            await others_done()
            assert asyncio.all_tasks() == {asyncio.current_task()}

        ends: list[int] = []
        reported: list[dict[str, Any]] = []
        asyncio.run(main())
        assert ends == [1]
        assert [str(each["exception"]) for each in reported] == ["cannot end"]


@every_source
class TestWaitingForTheEnd:
    def test_run_gives_the_last_item(self, make: Make) -> None:
        assert str(make("a", "b").run()) == "b"

    def test_run_keeps_none_of_the_others(self, make: Make) -> None:
        chunks: list[weakref.ref[StreamChunk]] = []
        kept: list[int] = []

        def note(events: Observable[Event]) -> Observable[Event]:
            def look(event: Event) -> None:
                if isinstance(event, StreamChunk):
                    kept.append(sum(each() is not None for each in chunks))
                    chunks.append(weakref.ref(event))

            return events.pipe(rxops.do_action(look))

        make("a", "b", "c", "d").through(note).run()  # type: ignore[attr-defined]
        assert kept == [0, 1, 1, 1]

    def test_run_raises_the_error(self, make: Make) -> None:
        with pytest.raises(ValueError, match="broken"):
            make("a", ValueError("broken")).run()

    def test_run_does_not_wait_for_a_loop_that_it_blocks(self, make: Make) -> None:
        async def notebook() -> str:
            return str(make("a", "b").run())

        assert asyncio.run(notebook()) == "b"


@pytest.mark.parametrize("make", [of_llm, of_flow])
def test_without_an_item_run_says_so_as_rxpys_does(make: Make) -> None:
    with pytest.raises(SequenceContainsNoElementsError):
        make().run()


@pytest.mark.parametrize("make", [of_agent, of_crew, of_flow_of_crew])
def test_without_an_answer_the_agent_fails(make: Make) -> None:
    with pytest.raises(ValueError, match="None or empty"):
        make().run()


@every_source
class TestLoops:
    """A stream is subscribed to, or read through ``to_output()``. Type checkers refuse to iterate it, too."""

    def test_a_for_loop_is_refused(self, make: Make) -> None:
        source: Any = make("a")
        with pytest.raises(TypeError, match="'EventStream' object is not iterable"):
            list(source)

    def test_so_is_an_async_for(self, make: Make) -> None:
        source: Any = make("a")

        async def main() -> None:
            async for _ in source:
                pass

        with pytest.raises(TypeError, match="requires an object with __aiter__ method, got EventStream"):
            asyncio.run(main())

    def test_nobody_takes_it_for_a_list(self, make: Make) -> None:
        assert not isinstance(make("a"), Iterable | AsyncIterable)
        assert make("a", "b").pipe(rxops.map(str), rxops.sequence_equal(make("a", "b").pipe(rxops.map(str)))).run()
        assert make("a").pipe(rxops.map(str), rxops.sequence_equal(make("b"))).run() is False

    def test_chunks_go_into_sets_and_are_compared(self, make: Make) -> None:
        chunks = make("a", "b").pipe(rxops.to_list()).run()
        assert make("a", "b").pipe(rxops.to_set(), rxops.map(len)).run() == 2
        assert rx.concat(rx.from_iterable(chunks), rx.from_iterable(chunks)).pipe(rxops.to_set()).run() == set(chunks)
        assert rx.from_iterable(chunks).pipe(rxops.sequence_equal(rx.from_iterable(chunks))).run() is True


class TestWhereARunLives:
    def test_a_thread_that_asks_something_of_a_loop_that_was_closed_is_told(self) -> None:
        inside, closed = Gate(), Gate()
        told: list[BaseException] = []
        over = Gate()

        class Busy(Flow):
            stream = True

            @start()
            def work(self) -> None:
                inside.open()
                closed.wait()
                try:
                    crew_of("a").kickoff()
                except asyncio.CancelledError as error:
                    told.append(error)
                finally:
                    over.open()

        async def main() -> Any:
            output = await Busy().kickoff_async()
            reader = asyncio.ensure_future(anext(aiter(output)))
            await inside.passed()
            reader.cancel()
            return output

        loop = asyncio.new_event_loop()
        output = loop.run_until_complete(main())
        loop.close()
        closed.open()
        over.wait()
        assert [str(each) for each in told] == ["the event loop of the run that this code belongs to was closed"]
        output.close()

    def test_an_async_method_finds_the_loop_of_its_program(self) -> None:
        class Where(Flow):
            stream = True

            @start()
            async def here(self) -> asyncio.AbstractEventLoop:
                return asyncio.get_running_loop()

        async def main() -> None:
            output = await Where().kickoff_async()
            async for _ in output:
                pass
            assert output.result is asyncio.get_running_loop()
            assert await Where(stream=False).kickoff_async() is asyncio.get_running_loop()

        asyncio.run(main())

    def test_a_plain_for_brings_a_loop_on_a_thread_of_its_own(self) -> None:
        class Where(Flow):
            @start()
            async def here(self) -> threading.Thread:
                return threading.current_thread()

        thread: Any = Where().kickoff()
        assert thread is not threading.current_thread()
        assert thread.daemon

    def test_a_sync_method_sees_the_context_of_the_kickoff(self) -> None:
        class Where(Flow):
            @start()
            def here(self) -> str:
                return user.get()

        user: ContextVar[str] = ContextVar("user", default="nobody")
        user.set("Ada")
        assert Where().kickoff() == "Ada"

    def test_two_runs_side_by_side_never_see_each_others_chunks(self) -> None:
        async def main() -> None:
            gates = [Gate(), Gate()]
            outputs = [await Speaking(str(n), gate, str(n)).kickoff_async() for n, gate in enumerate(gates)]
            cursors = [aiter(output) for output in outputs]
            for cursor in cursors:
                await anext(cursor)
            for gate in gates:
                gate.open()
            assert [[chunk.content async for chunk in output] for output in outputs] == [["0", "0"], ["1", "1"]]

        asyncio.run(main())
