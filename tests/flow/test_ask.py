"""``self.ask``: in methods of all kinds, with time limits, and with the state saved before the wait."""

import asyncio
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import reactivex

from rxflow import operators as ops
from rxflow._streaming.questions import Who
from rxflow.flow import Flow, listen, persist, start
from rxflow.flow.persistence import SQLiteFlowPersistence
from rxflow.llm.source import Ending, ToolCallDelta
from rxflow.testing import VirtualClock
from rxflow.tools import tool
from rxflow.types.answers import InputResponse
from rxflow.types.events import FlowFinished, InputReceived, InputRequested, MethodFinished
from tests.gate import PATIENCE_S, poll
from tests.scripted import Scripted
from tests.signals import outcome
from tests.team import solo


class Asks(Flow):
    @start()
    def first(self) -> str | None:
        return self.ask("Topic?")


def provided(answer: Who) -> Asks:
    return Asks(input_provider=answer)


def test_the_flows_own_provider_answers() -> None:
    assert provided(lambda request: f"{request.message} tides").kickoff() == "Topic? tides"


def test_it_goes_before_those_outside() -> None:
    seen = outcome(provided(lambda _: "mine").events().pipe(ops.answer_with(lambda _: "yours")))
    assert seen.one(FlowFinished).result == "mine"


def test_an_empty_answer_is_an_answer() -> None:
    assert provided(lambda _: "").kickoff() == ""


def test_a_provider_as_crewai_has_them_may_say_that_there_is_no_input() -> None:
    class Provider:
        def request_input(self, message: str, flow: Flow[Any]) -> str | None:
            assert isinstance(flow, Asks)
            return None

    assert provided(Provider()).kickoff() is None

    class Async:
        async def request_input(self, message: str, flow: Flow[Any]) -> str | None:
            await asyncio.sleep(0)
            return None

    assert provided(Async()).kickoff() is None
    assert provided(lambda _: InputResponse("text", {"by": "me"})).kickoff() == "text"
    assert provided(lambda _: InputResponse(None)).kickoff() is None


def test_questions_of_one_method_come_one_after_the_other() -> None:
    class Several(Flow):
        @start()
        def first(self) -> str:
            return f"{self.ask('One?')} {self.ask('Two?')}"

        @listen(first)
        def second(self, text: str) -> str:
            return f"{text} {self.ask('Three?')}"

    assert Several(input_provider=lambda request: request.message[:-1]).kickoff() == "One Two Three"


def test_methods_that_run_at_once_ask_at_once() -> None:
    both = threading.Barrier(2, timeout=PATIENCE_S)

    class AtOnce(Flow):
        @start()
        def one(self) -> str | None:
            return self.ask("One?")

        @start()
        async def two(self) -> str | None:
            return await self.ask_async("Two?")

    def answer(request: InputRequested) -> str:
        both.wait()
        return request.message

    seen = outcome(AtOnce().events().pipe(ops.answer_with(answer)))
    assert sorted(event.result for event in seen.of(MethodFinished)) == ["One?", "Two?"]


def test_an_async_method_may_block_itself_with_a_warning() -> None:
    class Blocks(Flow):
        @start()
        async def first(self) -> str | None:
            return self.ask("Topic?")

    with pytest.warns(RuntimeWarning, match="ask_async"):
        assert Blocks(input_provider=lambda _: "tides").kickoff() == "tides"


def test_a_tool_may_ask() -> None:
    class Asking(Flow):
        @start()
        def first(self) -> str:
            @tool
            def confirm() -> str:
                """Ask for a confirmation."""
                return f"{self.ask('Sure?')}"

            model = Scripted([ToolCallDelta(0, "c", "confirm", "{}"), Ending("tool_calls")], "Done")
            return str(solo(model, agent={"tools": [confirm]}).kickoff())

    seen = outcome(Asking(input_provider=lambda _: "yes").events())
    assert seen.one(InputReceived).value == "yes"
    assert seen.one(FlowFinished).result == "Done"


def test_outside_of_a_run_it_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="no run is active here"):
        Asks().ask("Topic?")
    with pytest.raises(RuntimeError, match="no run is active here"):
        asyncio.run(Asks().ask_async("Topic?"))


def test_a_flow_that_never_ran_asks_nothing_in_a_run_of_another() -> None:
    idle = Asks()

    class Other(Flow):
        @start()
        def first(self) -> str | None:
            return idle.ask("Topic?")

    with pytest.raises(RuntimeError, match="must be called in a method of a running flow; this Asks has not run"):
        Other(input_provider=lambda _: "tides").kickoff()


def test_after_a_provider_that_cannot_answer_the_flow_runs_with_another() -> None:
    flow = provided("tides")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    for _ in range(2):
        with pytest.raises(TypeError, match="tides"):
            flow.kickoff()
    flow.input_provider = lambda _: "tides"
    assert flow.kickoff() == "tides"


def test_a_flow_may_have_a_method_called_ask() -> None:
    class Own(Flow):
        @start()
        def ask(self) -> str:  # type: ignore[override]
            return "own"

    assert Own().kickoff() == "own"


@pytest.mark.parametrize("timeout", [60, timedelta(minutes=1)])
@pytest.mark.parametrize("is_async", [False, True])
def test_it_waits_so_long_and_then_it_is_none(is_async: bool, timeout: float | timedelta) -> None:
    class Limited(Flow):
        @start()
        def first(self) -> Any:
            return self.wait() if is_async else self.ask("Topic?", timeout=timeout)

        async def wait(self) -> str | None:
            return await self.ask_async("Topic?", timeout=timeout)

    async def never(request: InputRequested) -> str:
        await asyncio.sleep(3600)
        return "late"

    clock = VirtualClock()

    async def main() -> Any:
        return await Limited(input_provider=never).kickoff_async()

    assert clock.run(main) is None
    assert clock.now == 60


def test_a_time_limit_that_is_not_a_time_is_named() -> None:
    class Odd(Flow):
        @start()
        def first(self) -> str | None:
            return self.ask("Topic?", timeout="soon")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    with pytest.raises(TypeError, match="timeout must be a number of seconds, or a timedelta: 'soon'"):
        Odd().kickoff()


def test_a_time_limit_that_no_float_can_hold_is_refused() -> None:
    class Huge(Flow):
        @start()
        def first(self) -> str | None:
            return self.ask("Topic?", timeout=10**400)

    with pytest.raises(ValueError, match="timeout must be a time that a float can hold: 1000"):
        Huge().kickoff()


def test_a_time_out_of_the_provider_is_its_own() -> None:
    async def fails(request: InputRequested) -> str:
        raise TimeoutError("no line")

    with pytest.raises(TimeoutError, match="no line"):
        provided(fails).kickoff()


def test_the_state_is_saved_before_the_wait(tmp_path: Path) -> None:
    store = SQLiteFlowPersistence(tmp_path / "flows.db")
    saved: list[Any] = []

    @persist(store)
    class Saves(Flow):
        @start()
        def first(self) -> str | None:
            self.state["topic"] = "tides"
            return self.ask("Go on?")

    def answer(request: InputRequested) -> str:
        saved.append(store.load_state(request.origin.flow_id))
        return "yes"

    flow = Saves(input_provider=answer)
    flow.kickoff()
    assert saved == [{"id": flow.flow_id, "topic": "tides"}]


def test_closing_ends_a_wait_at_once() -> None:
    may_end = threading.Event()
    ended: list[BaseException] = []

    class Waits(Flow):
        @start()
        def first(self) -> None:
            try:
                self.ask("Topic?")
            except BaseException as error:
                ended.append(error)
                may_end.set()
                raise

    inbox = ops.Inbox()
    output = Waits(input_provider=inbox).stream_chunks()

    def read() -> None:
        for _ in output:
            pass

    reader = threading.Thread(target=read)
    reader.start()
    poll(lambda: inbox.pending, bool, "nothing was asked")
    output.close()
    assert may_end.wait(PATIENCE_S)
    reader.join()
    assert isinstance(ended[0], asyncio.CancelledError)
    assert inbox.pending == ()
    assert output.is_cancelled


def test_what_an_answerer_has_not_awaited_is_awaited() -> None:
    async def answer() -> Any:
        return reactivex.of("tides")

    async def forgetful() -> Any:
        return answer()

    async def more_forgetful(request: InputRequested) -> Any:
        return forgetful()

    class Asking(Flow):
        @start()
        def begin(self) -> str | None:
            return self.ask("Which topic?")

    assert Asking(input_provider=more_forgetful).kickoff() == "tides"
