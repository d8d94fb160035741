"""Methods: where each kind runs, and the errors that leave them."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from rxflow.flow import Flow, listen, router, start
from rxflow.types.events import MethodFinished
from tests.flow.callers import Whereabouts, calling_as, said
from tests.gate import PATIENCE_S
from tests.scripted import Scripted
from tests.signals import outcome
from tests.team import crew_saying, prompt, solo


@pytest.mark.parametrize("method", ["sync", "async", "generator"])
def test_methods_see_the_callers_context(method: str) -> None:
    flow = Whereabouts()
    with calling_as("mine"):
        flow.kickoff()
    assert flow.state[method][1] == "mine"


def test_methods_of_a_stream_see_the_context_of_its_reader() -> None:
    flow = Whereabouts(stream=True)
    with calling_as("mine"):
        list(flow.kickoff())
    assert [flow.state[method][1] for method in ("sync", "async", "generator")] == ["mine"] * 3


def test_under_asyncio_async_methods_run_on_the_callers_loop_and_sync_ones_beside_it() -> None:
    flow = Whereabouts()

    async def main() -> None:
        with calling_as("mine"):
            await flow.kickoff_async()

    asyncio.run(main())
    here = threading.get_ident()
    assert flow.state["async"] == (here, "mine")
    assert flow.state["generator"] == (here, "mine")
    assert flow.state["sync"][0] != here
    assert flow.state["sync"][1] == "mine"


def test_a_sync_method_does_not_hold_up_the_loop() -> None:
    class Waiting(Flow):
        def __init__(self) -> None:
            super().__init__()
            self.released = threading.Event()

        @start()
        def waits(self) -> bool:
            return self.released.wait(PATIENCE_S)

    async def main() -> object:
        flow = Waiting()
        task = asyncio.create_task(flow.kickoff_async())
        await asyncio.sleep(0)
        flow.released.set()
        return await task

    assert asyncio.run(main()) is True


def test_an_async_method_finds_what_belongs_to_the_callers_loop() -> None:
    async def main() -> object:
        answers: asyncio.Queue[str] = asyncio.Queue()

        class Asking(Flow):
            @start()
            async def question(self) -> str:
                return await answers.get()

        task = asyncio.create_task(Asking().kickoff_async())
        await asyncio.sleep(0)
        answers.put_nowait("from my loop")
        return await task

    assert asyncio.run(main()) == "from my loop"


def test_a_method_may_be_a_plain_callable_that_returns_a_coroutine() -> None:
    class Wrapped(Flow):
        @start()
        def begin(self) -> Any:
            async def work() -> str:
                return "awaited"

            return work()

    assert Wrapped().kickoff() == "awaited"


def test_a_function_that_is_marked_as_a_coroutine_function_may_return_a_future() -> None:
    class Marked:
        """Python takes it for a coroutine function, as one that ``inspect.markcoroutinefunction`` marks (3.12)."""

        __name__, __defaults__, __kwdefaults__, __annotations__ = "marked", None, None, dict[str, Any]()

        async def _like(self) -> None: ...

        __code__ = _like.__code__

        def __call__(self, inputs: dict[str, Any]) -> asyncio.Future[dict[str, Any]]:
            done: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
            done.set_result({"topic": "tides"})
            return done

    model = Scripted("Done")
    solo(model, description="About {topic}", crew={"before_kickoff_callbacks": [Marked()]}).kickoff()
    assert "About tides" in prompt(model)


class Forgetful(Flow):
    """An async method that does not await what it returns."""

    @start()
    async def begin(self) -> Any:
        async def ask() -> Any:
            return self.ask_async("Which topic?")

        return ask()

    @listen(begin)
    async def write(self, topic: str) -> Any:
        return crew_saying("words on ", topic).kickoff_async()


def test_an_async_method_may_return_what_it_has_not_awaited() -> None:
    flow = Forgetful(input_provider=lambda _: "tides")
    result: Any = flow.kickoff()
    assert result.raw == "words on tides"
    assert flow.method_outputs[0] == "tides"


def test_an_observable_or_generator_out_of_a_coroutine_is_read_like_any_other() -> None:
    async def tell() -> AsyncIterator[str]:
        yield "Once "
        yield "upon"

    async def later(what: Any) -> Any:
        return what

    class Telling(Flow):
        @start()
        async def observed(self) -> Any:
            return later(crew_saying("a ", "time").observe())

        @listen(observed)
        async def told(self) -> Any:
            return later(tell())

        @listen(told)
        def told_by_a_sync_method(self) -> Any:
            return later(tell())

    flow = Telling()
    seen = outcome(flow.events())
    assert [event.result for event in seen.of(MethodFinished)] == ["a time", "Once upon", "Once upon"]
    assert seen.text == "a timeOnce uponOnce upon"


def test_stop_iteration_out_of_a_method_is_an_error_like_another() -> None:
    class Stopping(Flow):
        @start()
        def begin(self) -> Any:
            return next(iter(()))

    with pytest.raises(RuntimeError, match="begin raised StopIteration"):
        Stopping().kickoff()


class TestStopAsyncIterationOutOfAMethod:
    """As it is, it would end the reader's ``async for`` without a word."""

    class Asking(Flow):
        @start()
        async def begin(self) -> str:
            return await anext(said())

    class Raising(Flow):
        @start()
        def begin(self) -> str:
            raise StopAsyncIteration

    @pytest.mark.parametrize("flow", [Asking, Raising])
    def test_is_an_error_like_another(self, flow: type[Flow]) -> None:
        with pytest.raises(RuntimeError, match="begin raised StopAsyncIteration") as caught:
            flow().kickoff()
        assert isinstance(caught.value.__cause__, StopAsyncIteration)

    @pytest.mark.parametrize("flow", [Asking, Raising])
    def test_is_raised_out_of_the_async_for(self, flow: type[Flow]) -> None:
        async def main() -> None:
            async for _ in flow(stream=True).kickoff():
                pass

        with pytest.raises(RuntimeError, match="begin raised StopAsyncIteration"):
            asyncio.run(main())


@pytest.mark.parametrize("kind", [staticmethod, classmethod])
@pytest.mark.parametrize("decorate", [start(), listen("sign"), router("sign")], ids=["start", "listen", "router"])
def test_a_method_of_the_class_cannot_be_part_of_the_graph(decorate: Callable[[Any], Any], kind: Any) -> None:
    def begin(it: Any) -> None: ...

    with pytest.raises(TypeError, match=r"Selfless\.begin needs self as its first parameter"):
        type("Selfless", (Flow,), {"begin": kind(decorate(begin))})
    with pytest.raises(ValueError, match=f"goes on a method of a Flow; got <{kind.__name__}"):
        decorate(kind(begin))
