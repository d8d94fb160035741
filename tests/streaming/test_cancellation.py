"""Stopping a run: in every way, from every state, as the provider sees it."""

import asyncio
import time
from typing import Any

import pytest

from rxflow import LLM, Agent, Crew, Flow, Task
from rxflow.flow import listen, start
from rxflow.tools import BaseTool, tool
from tests.loopback import Loopback, Reply, ToolCall
from tests.streaming.script import Gate
from tests.streaming.silent import SilentServer
from tests.streaming.stopping import WAYS, Scene, Stop, Stopped

SEEN_BY_THE_PROVIDER = 0.05
CLOSED = 0.1


def crew_of(llm: LLM, *tools: BaseTool) -> Crew:
    agent = Agent(role="Analyst", goal="Find out", backstory="Curious", llm=llm, tools=list(tools), max_retry_limit=0)
    tasks = [Task(description=text, expected_output="Text", agent=agent) for text in ("First", "Second")]
    return Crew(agents=[agent], tasks=tasks)


class Research(Flow):
    """Two methods; the first works with a crew, and notes what becomes of it."""

    stream = True

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self.began: list[str] = []
        self.caught: list[Exception] = []
        self.raised: list[type[BaseException]] = []
        self.left_at: list[float] = []
        self.left = Gate()
        super().__init__()

    def leave(self) -> None:
        self.left_at.append(time.monotonic())
        self.left.open()


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
            self.leave()

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
            self.leave()

    @listen(research)
    async def write(self) -> None:
        self.began.append("write")


every_way = pytest.mark.parametrize("stop", WAYS.values(), ids=WAYS)
every_kind = pytest.mark.parametrize("kind", [SyncResearch, AsyncResearch], ids=["sync", "async"])


def assert_stopped(flow: Research, stopped: Stopped) -> None:
    assert stopped.took <= CLOSED
    flow.left.wait(1.0)
    assert flow.left_at[0] - stopped.at <= CLOSED
    assert flow.began == ["research"]
    assert flow.caught == []
    assert flow.raised == [asyncio.CancelledError]
    if stopped.output is not None:
        assert stopped.output.is_cancelled
        assert stopped.output.is_completed


def assert_provider_saw_it(provider: Loopback, stopped: Stopped, phases: set[str]) -> None:
    (gone,) = provider.wait_until(lambda p: p.disconnects)
    assert gone.at - stopped.at <= SEEN_BY_THE_PROVIDER
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
    assert_provider_saw_it(provider, stopped, {"headers"})
    assert_stopped(flow, stopped)


@every_way
@every_kind
def test_a_run_can_be_stopped_while_it_waits_for_the_first_byte(
    kind: type[Research], stop: Stop, provider: Loopback, llm: LLM
) -> None:
    provider.script(Reply(hold_after=0))
    flow = kind(crew_of(llm))
    stopped = stop(Scene(flow, lambda: provider.wait_until(lambda p: p.holding), Gate()))
    assert_provider_saw_it(provider, stopped, {"headers", "first_byte"})  # it holds a moment before they are sent
    assert_stopped(flow, stopped)


@every_way
@every_kind
def test_a_run_can_be_stopped_in_mid_stream(kind: type[Research], stop: Stop, provider: Loopback, llm: LLM) -> None:
    provider.script(Reply(text="a b c", hold_after=1))
    flow = kind(crew_of(llm))
    shown = Gate()
    reached = provider_held(provider) if stop is WAYS["cancelled await"] else shown.wait
    stopped = stop(Scene(flow, reached, shown))
    assert_provider_saw_it(provider, stopped, {"mid_stream"})
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
        server.gone.wait(1.0)
        assert server.gone_at - stopped.at <= SEEN_BY_THE_PROVIDER
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
    cancelled.wait(1.0)
    assert_stopped(flow, stopped)
    assert len(provider.requests) == 1
