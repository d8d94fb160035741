"""The Observable of a run among RxPY's operators, and in front of an output."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import reactivex as rx
from reactivex import Observable, operators as rxops
from reactivex.scheduler import NewThreadScheduler

from rxflow import Crew, Flow, operators as ops
from rxflow.flow import start
from rxflow.types.events import Event
from rxflow.types.streaming import CrewStreamingOutput, EventStream, FlowStreamingOutput, StreamChunk
from tests.scripted import Scripted
from tests.team import a_crew, a_task, an_agent


class Unhashable:
    """What a set refuses."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, _: object) -> None:
        pass


def speech() -> EventStream[StreamChunk]:
    return Scripted("one two three").llm.observe("x")


def fail(item: object) -> None:
    raise LookupError("mine")


async def in_a_coroutine(work: Callable[[], Any]) -> Any:
    return work()


def of_a_method(work: Callable[[], Any], *, is_async: bool) -> Any:
    class Working(Flow):
        @start()
        def sync(self) -> Any:
            return None if is_async else work()

        @start()
        async def asynchronous(self) -> Any:
            return work() if is_async else None

    flow = Working()
    flow.kickoff()
    return next(output for output in flow.method_outputs if output is not None)


WHERE: dict[str, Callable[[Callable[[], Any]], Any]] = {
    "in a script": lambda work: work(),
    "in a running loop": lambda work: asyncio.run(in_a_coroutine(work)),
    "in a sync method": lambda work: of_a_method(work, is_async=False),
    "in an async method": lambda work: of_a_method(work, is_async=True),
}
anywhere = pytest.mark.parametrize("where", WHERE.values(), ids=WHERE)
it_blocks = pytest.mark.filterwarnings("ignore:this blocks the event loop of its own run:RuntimeWarning")


PIPES: dict[str, Callable[[Observable[Any]], Observable[Any]]] = {
    "to_list": lambda source: source.pipe(rxops.to_list()),
    "map, filter, scan": lambda source: source.pipe(
        rxops.map(str), rxops.filter(bool), rxops.scan(lambda so_far, each: so_far + each)
    ),
    "flat_map": lambda source: source.pipe(rxops.flat_map(lambda chunk: speech())),
    "concat_map": lambda source: source.pipe(rxops.concat_map(lambda chunk: speech())),
    "merge": lambda source: rx.merge(source, speech()),
    "concat": lambda source: rx.concat(source, speech()),
    "zip": lambda source: rx.zip(source, speech()),
    "share": lambda source: source.pipe(rxops.share()),
    "retry": lambda source: source.pipe(rxops.retry(2)),
    "repeat": lambda source: source.pipe(rxops.repeat(2)),
    "delay": lambda source: source.pipe(rxops.delay(0.001)),
    "timeout": lambda source: source.pipe(rxops.timeout(60.0)),
    "buffer_with_count": lambda source: source.pipe(rxops.buffer_with_count(2)),
    "take": lambda source: source.pipe(rxops.take(2)),
    "start_with": lambda source: source.pipe(rxops.start_with("first")),
    "observe_on": lambda source: source.pipe(rxops.observe_on(NewThreadScheduler())),
    "ours behind RxPY's": lambda source: source.pipe(rxops.map(str), ops.idle_timeout(60)),
}


class TestRunOfRxPY:
    """RxPY's ``run()`` blocks its thread, so the run must not live there."""

    @pytest.mark.parametrize("pipe", PIPES.values(), ids=PIPES)
    def test_it_ends_in_a_running_loop(self, pipe: Callable[[Observable[Any]], Observable[Any]]) -> None:
        async def main() -> Any:
            return pipe(speech()).run()

        assert asyncio.run(main()) is not None

    @anywhere
    @it_blocks
    def test_it_returns_what_the_pipe_gives(self, where: Callable[[Callable[[], Any]], Any]) -> None:
        assert where(lambda: speech().pipe(rxops.map(str), rxops.to_list()).run()) == ["one", " two", " three"]

    @anywhere
    @it_blocks
    def test_it_raises_what_an_operator_raises(self, where: Callable[[Callable[[], Any]], Any]) -> None:
        def work() -> str:
            with pytest.raises(TypeError, match="unhashable"):
                speech().pipe(rxops.map(Unhashable), rxops.to_set()).run()
            return "raised"

        assert where(work) == "raised"


class TestObserversThatRaise:
    def test_one_that_handles_errors_is_told_its_own(self) -> None:
        async def main() -> list[BaseException]:
            errors: list[BaseException] = []
            told = asyncio.Event()

            def tell(error: Exception) -> None:
                errors.append(error)
                told.set()

            speech().subscribe(fail, tell)
            await told.wait()
            return errors

        assert [str(error) for error in asyncio.run(main())] == ["mine"]

    def test_whoever_awaits_the_stream_gets_the_error(self) -> None:
        async def main() -> None:
            with pytest.raises(TypeError, match="unhashable"):
                await speech().pipe(rxops.map(Unhashable), rxops.to_set())

        asyncio.run(main())

    def test_a_loop_over_it_gets_the_error(self) -> None:
        with pytest.raises(TypeError, match="unhashable"):
            list(speech().pipe(rxops.map(Unhashable), rxops.to_set(), ops.to_output()))

    def test_one_without_a_handler_of_errors_is_reported_to_the_loop(self) -> None:
        async def main() -> list[str]:
            reported: list[str] = []
            told = asyncio.Event()

            def report(loop: object, context: dict[str, Any]) -> None:
                reported.append(str(context["exception"]))
                told.set()

            asyncio.get_running_loop().set_exception_handler(report)
            speech().subscribe(fail)
            await told.wait()
            return reported

        assert asyncio.run(main()) == ["mine"]


def two_agents() -> Crew:
    writer, critic = an_agent(Scripted("a draft"), "Writer"), an_agent(Scripted("a judgement"), "Critic")
    return a_crew(a_task(writer), a_task(critic))


FRONTS: dict[str, tuple[Callable[[Crew], Observable[Event]], list[str]]] = {
    "nothing": (lambda crew: crew.events(), ["a", " draft", "a", " judgement"]),
    "an operator of ours": (lambda crew: crew.events().pipe(ops.only_agent("Critic")), ["a", " judgement"]),
    "one that leaves nothing": (lambda crew: crew.events().pipe(ops.only_agent("Nobody")), []),
    "a selection": (lambda crew: crew.observe(), ["a", " draft", "a", " judgement"]),
    "an operator on a selection": (lambda crew: crew.observe().pipe(ops.only_agent("Writer")), ["a", " draft"]),
    "one that reshapes": (lambda crew: crew.observe().pipe(ops.sentences()), ["a draft", "a judgement"]),
    "one of RxPY's": (lambda crew: crew.events().pipe(rxops.skip(1)), ["a", " draft", "a", " judgement"]),
    "one of RxPY's on a selection": (lambda crew: crew.observe().pipe(rxops.skip(3)), [" judgement"]),
}


class TestOperatorsInFrontOfAnOutput:
    @pytest.mark.parametrize(("front", "expected"), FRONTS.values(), ids=FRONTS)
    def test_the_output_shows_what_a_subscriber_sees(
        self, front: Callable[[Crew], Observable[Event]], expected: list[str]
    ) -> None:
        assert [chunk.content for chunk in CrewStreamingOutput(source=front(two_agents()))] == expected
        seen = front(two_agents()).pipe(rxops.filter(is_chunk), rxops.map(str), rxops.to_list())
        assert seen.run() == expected

    def test_a_selection_still_has_the_result(self) -> None:
        output = CrewStreamingOutput(source=two_agents().observe().pipe(ops.sentences()))
        list(output)
        assert output.result.raw == "a judgement"

    def test_a_result_that_an_operator_took_away_is_missed(self) -> None:
        output = CrewStreamingOutput(source=two_agents().events().pipe(rxops.filter(is_chunk)))
        list(output)
        with pytest.raises(RuntimeError, match="without a CrewFinished"):
            output.result  # noqa: B018

    def test_of_a_flow_too(self) -> None:
        class Speaking(Flow):
            @start()
            def speak(self) -> str:
                return str(two_agents().kickoff().raw)

        output = FlowStreamingOutput(source=Speaking().observe().pipe(ops.sentences()))
        assert [chunk.content for chunk in output] == ["a draft", "a judgement"]
        assert output.result == "a judgement"


def is_chunk(event: Event) -> bool:
    return isinstance(event, StreamChunk)
