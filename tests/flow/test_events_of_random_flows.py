"""The events of random flows: parallel branches, routers, nested flows, tools that run crews, and all that stops."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from reactivex import operators as rx

import rxflow
from rxflow import LLM, Agent, Crew, Flow, Task, operators as ops, tool
from rxflow.flow import listen, router, start
from rxflow.runs import Run, RunCancelled, Runs
from rxflow.testing import ScriptedLLM, VirtualClock, tool_call
from rxflow.types.events import FlowCancelled, FlowFailed, FlowFinished
from tests.spans import check_frames, check_laws


def speaker(pace: float = 0.01) -> LLM:
    return LLM("rxflow/demo", pace=pace)


def team(model: Any, *tools: Any, **agent: Any) -> Crew:
    worker = Agent(role="Worker", goal="g", backstory="b", llm=model, tools=list(tools), **agent)
    return Crew(agents=[worker], tasks=[Task(description="d", expected_output="e", agent=worker)])


@tool
def consult(question: str) -> str:
    """Asks another crew."""
    rxflow.report_progress(0, 2, "asking")
    rxflow.emit(question, name="question")
    answer = team(speaker()).kickoff()
    rxflow.report_progress(2, 2)
    return str(answer)


@tool
async def break_down() -> str:
    """Fails, while a call of its own goes on."""
    asking = asyncio.ensure_future(speaker(1.0).acall("never heard"))
    await asyncio.sleep(0.05)
    asking.cancel()
    raise OSError("the tool broke")


def say() -> Any:
    return speaker().observe("Hello")


async def ask() -> str:
    return str(await speaker().acall("Hello"))


def crew_with_tools() -> Any:
    calls = [tool_call("consult", {"question": "why"}), tool_call("break_down"), tool_call("unknown")]
    return team(
        ScriptedLLM(calls, tool_call("consult", {"wrong": 1}), ["done"], repeat=True), consult, break_down
    ).kickoff()


def accept_yes(output: Any) -> tuple[bool, Any]:
    return output.raw == "yes", output.raw


def crew_that_is_sent_back() -> Any:
    worker = Agent(role="Worker", goal="g", backstory="b", llm=ScriptedLLM(["no"], ["yes"], repeat=True))
    task = Task(description="d", expected_output="e", agent=worker, guardrail=accept_yes)
    return Crew(agents=[worker], tasks=[task]).events()


def crew_that_is_too_slow() -> Any:
    with suppress(TimeoutError):
        return team(speaker(1.0), max_execution_time=2).kickoff()
    return "late"


def race() -> Any:
    return speaker(0.5).events("slow").pipe(ops.race(speaker().events("fast")))


def limit() -> Any:
    return team(speaker()).events().pipe(ops.limit_tokens(3))


def limit_cost() -> Any:
    return team(speaker()).events().pipe(ops.limit_cost(3, input_price=0, output_price=1_000_000))


def be_silent() -> Any:
    slow: Any = speaker(2.0).events("Hello")
    return slow.pipe(ops.idle_timeout(1.0), ops.fallback_to(speaker().events("again")))


def be_guarded() -> Any:
    def refuse(text: str) -> Any:
        return ops.Stop("not nice") if "notes" in text else ops.Release()

    guarded: Any = speaker().events("Hello").pipe(ops.hold_back(refuse))
    return guarded.pipe(ops.fallback_to(speaker().events("again")))


def try_again() -> Any:
    llm = ScriptedLLM(["no", OSError("broken off")], ["yes"], repeat=True)
    return llm.events("Hello").pipe(ops.retry_stream(1))


def stop_at() -> Any:
    return speaker().observe("Hello").pipe(ops.stop_at("o"))


def take() -> Any:
    return team(speaker()).events().pipe(rx.take(7))


def fall_back() -> Any:
    return speaker(5.0).observe("Hello").pipe(ops.first_chunk_timeout(1), ops.fallback_to(speaker().observe("again")))


async def time_out() -> str:
    with suppress(TimeoutError):
        await asyncio.wait_for(speaker(1.0).acall("Hello"), 1.5)
    return "late"


async def give_up() -> str:
    asking = asyncio.ensure_future(speaker(1.0).acall("Hello"))
    await asyncio.sleep(1.5)
    asking.cancel()
    with suppress(asyncio.CancelledError):
        await asking
    return "gave up"


async def sleep() -> None:
    await asyncio.sleep(3)


def fail() -> None:
    raise ValueError("the method failed")


async def fail_late() -> None:
    await asyncio.sleep(0.2)
    raise ValueError("the method failed late")


CALM: list[Callable[[], Any]] = [
    say,
    ask,
    crew_with_tools,
    crew_that_is_sent_back,
    crew_that_is_too_slow,
    race,
    limit,
    limit_cost,
    be_silent,
    be_guarded,
    try_again,
    stop_at,
    take,
    fall_back,
    time_out,
    give_up,
    sleep,
]
Act = Callable[[], Any]


def method_of(act: Act) -> Callable[[Any], Any]:
    async def work_in_loop(self: Any) -> Any:
        self.state.setdefault("done", []).append(act.__name__)
        return await act()

    def work(self: Any) -> Any:
        self.state.setdefault("done", []).append(act.__name__)
        return act()

    method = work_in_loop if inspect.iscoroutinefunction(act) else work
    method.__annotations__ = {}  # the graph takes any label
    return method


def flow_of(starts: list[Act], label: str | None, follower: Act) -> type[Flow]:
    """Starts side by side, a router behind the first, a method behind its label, and one behind all starts."""
    names = [f"start_{number}" for number in range(len(starts))]
    methods: dict[str, Any] = {name: start()(method_of(act)) for name, act in zip(names, starts, strict=True)}
    methods["decide"] = router(names[0])(_decide(label))
    methods["follow"] = listen("go")(method_of(follower))
    return type("Random", (Flow,), methods)


def _decide(label: str | None) -> Callable[[Any], Any]:
    def decide(self: Any) -> Any:
        return {"go": "go"}.get(label or "")  # not a literal, so that the graph takes any label

    decide.__annotations__ = {}
    return decide


acts = st.sampled_from([*CALM, fail, fail_late])
flat = st.builds(flow_of, st.lists(acts, min_size=1, max_size=3), st.sampled_from(["go", None]), acts)


def nested(flows: st.SearchStrategy[type[Flow]]) -> st.SearchStrategy[type[Flow]]:
    def as_act(flow: type[Flow], way: str) -> Act:
        def run_flow() -> Any:
            return flow().kickoff() if way == "kickoff" else getattr(flow(), way)()

        return run_flow

    inner = acts | st.builds(as_act, flows, st.sampled_from(["kickoff", "events", "observe"]))
    return st.builds(flow_of, st.lists(inner, min_size=1, max_size=3), st.sampled_from(["go", None]), inner)


flows = flat | nested(flat)
WAYS: dict[str, Callable[[Any], Any]] = {
    "as it is": lambda events: events,
    "heartbeat": lambda events: events.pipe(ops.heartbeat(0.5)),
    "retried": lambda events: events.pipe(ops.retry_stream(1)),
    "fallback": lambda events: events.pipe(ops.fallback_to(speaker().events("Sorry"))),
    "raced": lambda events: events.pipe(ops.race(speaker(0.02).events("first"))),
    "limited": lambda events: events.pipe(ops.limit_tokens(6)),
    "idle": lambda events: events.pipe(ops.idle_timeout(0.7)),
}


def events_of(source: Any) -> list[Any]:
    seen: list[Any] = []
    with VirtualClock(), suppress(ValueError, TimeoutError):
        source.do_action(seen.append).run()
    return seen


@pytest.mark.filterwarnings("ignore:.*a label that no method waits for")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(flow=flows, way=st.sampled_from(sorted(WAYS)))
def test_the_laws_hold(flow: type[Flow], way: str) -> None:
    check_laws(events_of(WAYS[way](flow().events())))


@pytest.mark.filterwarnings("ignore:.*a label that no method waits for")
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(flow=flows, place=st.integers(0, 80))
def test_they_hold_in_the_log_of_a_run_that_is_cancelled(flow: type[Flow], place: int) -> None:
    seen: list[Any] = []

    async def cancel_there(run: Run) -> None:
        async with run.events().pipe(ops.to_output()) as events:
            async for event in events:
                seen.append(event)
                if event.seq == place:
                    run.cancel("enough")

    async def main() -> None:
        with Runs() as runs, suppress(RunCancelled, ValueError):
            await cancel_there(await runs.start_async(flow()))

    with VirtualClock() as clock:
        clock.run(main)
    check_laws(seen)
    assert isinstance(seen[-1], FlowCancelled | FlowFailed | FlowFinished)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(flow=flows)
def test_the_frames_are_json(flow: type[Flow]) -> None:
    check_frames(events_of(flow().events().pipe(ops.frames())))


@pytest.mark.parametrize("act", CALM, ids=lambda act: act.__name__)
def test_each_act_keeps_the_laws(act: Act) -> None:
    events = events_of(flow_of([act, say], "go", say)().events())
    check_laws(events)
    assert type(events[-1]).__name__ == "FlowFinished"
