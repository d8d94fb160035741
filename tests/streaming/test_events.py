"""What the events of a run say beside what has happened: whose they are, what set them off, and what they take back."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
import reactivex as rx
from reactivex import compose, operators as rxops
from reactivex.disposable import Disposable
from reactivex.scheduler.eventloop import AsyncIOScheduler

from rxflow import LLM, Agent, Crew, Flow, Task, operators as ops, tool
from rxflow.flow import listen, router, start
from rxflow.operators import Release, Stop
from rxflow.runs import MemoryLog, Runs
from rxflow.testing import ScriptedLLM, VirtualClock, tool_call
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import (
    AgentStarted,
    CrewStarted,
    Event,
    FlowFinished,
    FlowStarted,
    InputReceived,
    InputRequested,
    LLMCancelled,
    LLMStarted,
    MethodCancelled,
    MethodFinished,
    MethodStarted,
    Retracted,
    TaskRejected,
    ToolFailed,
    ToolFinished,
    ToolStarted,
)
from tests.scripted import Scripted
from tests.signals import Outcome, outcome
from tests.spans import check_laws
from tests.team import solo

BROKEN = ConnectionError("broken off")


def accept_yes(output: Any) -> tuple[bool, Any]:
    return output.raw == "yes", output.raw


def model() -> ScriptedLLM:
    return ScriptedLLM(["no"], ["yes"])


def reviewed() -> Any:
    words = iter(["Shorter", ""])
    return solo(model(), human_input=True).events().pipe(ops.answer_with(lambda request: next(words)))


SENT_BACK: dict[str, Callable[[], Any]] = {
    "by a guardrail": lambda: solo(model(), guardrail=accept_yes).events(),
    "by a person": reviewed,
    "by retry_stream": lambda: ScriptedLLM(["no", BROKEN], ["yes"]).events("Hi").pipe(ops.retry_stream(1)),
    "by fallback_to": lambda: (
        ScriptedLLM(["no", BROKEN]).events("Hi").pipe(ops.fallback_to(ScriptedLLM(["yes"]).events("Hi")))
    ),
}


@pytest.mark.parametrize("how", SENT_BACK)
def test_a_retraction_names_the_calls_that_said_what_is_void(how: str) -> None:
    with VirtualClock():
        seen = outcome(SENT_BACK[how]())

    void, (first, second) = seen.one(Retracted), seen.of(LLMStarted)
    assert seen.texts == ["no", "yes"]
    assert void.llm_call_ids == (first.origin.llm_call_id,)
    assert second.origin.llm_call_id not in void.llm_call_ids
    assert [void.covers(chunk) for chunk in seen.of(StreamChunk)] == [True, False]


def test_an_attempt_that_was_sent_back_is_counted() -> None:
    seen = outcome(solo(ScriptedLLM(["no"], ["no"], ["yes"]), guardrail=accept_yes).events())

    assert [each.origin.attempt for each in seen.of(AgentStarted)] == [0, 1, 2]
    assert [chunk.attempt for chunk in seen.of(StreamChunk)] == [0, 1, 2]
    assert [each.attempts for each in seen.of(Retracted)] == [(0,), (1,)]
    assert [type(event) for event in seen.events if isinstance(event, TaskRejected | Retracted)] == [
        TaskRejected,
        Retracted,
    ] * 2


class Routed(Flow):
    """Two starts, a router behind both, and a method behind its label."""

    @start()
    def one(self) -> None: ...

    @start()
    def two(self) -> None: ...

    @router(one)
    def decide(self) -> str:
        return "go"

    @listen("go")
    def follow(self) -> Any:
        return ScriptedLLM(["on"]).observe("Hi")


def test_methods_say_what_they_are_what_set_them_off_and_what_a_router_chose() -> None:
    seen = outcome(Routed().events())

    begun = {each.origin.flow_method: (each.kind, each.triggered_by) for each in seen.of(MethodStarted)}
    assert begun == {
        "one": ("start", ()),
        "two": ("start", ()),
        "decide": ("router", ("one",)),
        "follow": ("listen", ("go",)),
    }
    assert {each.origin.flow_method: each.label for each in seen.of(MethodFinished)} == {
        "one": None,
        "two": None,
        "decide": "go",
        "follow": None,
    }


def test_a_chunk_names_its_span_and_the_one_around_it() -> None:
    seen = outcome(Routed().events())

    (chunk,) = seen.of(StreamChunk)
    method = next(each for each in seen.of(MethodStarted) if each.origin.flow_method == "follow")
    assert chunk.span_id == seen.one(LLMStarted).origin.span_id
    assert chunk.parent_span_id == method.origin.span_id
    assert method.origin.parent_span_id == seen.one(FlowStarted).origin.span_id


@tool
def ask(question: str) -> Any:
    """Asks other people."""
    return solo(ScriptedLLM(["inner"])).kickoff()


@tool
def break_down() -> str:
    """Fails."""
    raise OSError("broke")


@tool(max_usage_count=1)
def once() -> str:
    """Can be used once."""
    return ""


@tool
def search(query: str) -> str:
    """Searches."""
    return query


def calling(*calls: Any, **agent: Any) -> Outcome:
    agent.setdefault("tools", [ask, break_down, search])
    return outcome(solo(ScriptedLLM(calls, ["done"]), agent=agent).events())


def test_a_tool_call_has_a_span_between_its_agent_and_what_it_runs() -> None:
    seen = calling(*[tool_call("ask", {"question": each}, id="same") for each in "ab"])

    agent, call = seen.of(AgentStarted)[0], seen.of(LLMStarted)[0]
    tools = seen.of(ToolStarted)
    inner = [crew for crew in seen.of(CrewStarted) if crew.origin.parent_span_id]
    assert len({each.origin.span_id for each in tools}) == 2
    assert {each.origin.parent_span_id for each in tools} == {agent.origin.span_id}
    assert {each.origin.llm_call_id for each in tools} == {call.origin.llm_call_id}
    assert {crew.origin.parent_span_id for crew in inner} == {each.origin.span_id for each in tools}
    assert {each.origin.span_id for each in seen.of(ToolFinished)} == {each.origin.span_id for each in tools}
    check_laws(seen.events)


@pytest.mark.parametrize(
    ("calls", "stage", "arguments"),
    [
        ([tool_call("search", {"query": 5})], "arguments", {"query": 5}),
        ([tool_call("fly", {"to": "Bern"})], "unknown", {"to": "Bern"}),
        ([tool_call("once"), tool_call("once")], "limit", {}),
        ([tool_call("break_down")], "run", {}),
    ],
    ids=["arguments", "unknown", "limit", "run"],
)
def test_a_tool_call_that_fails_began_and_says_at_which_stage(
    calls: list[Any], stage: str, arguments: dict[str, Any]
) -> None:
    once.reset_usage_count()
    seen = calling(*calls, tools=[break_down, once, search])

    begun, failed = seen.of(ToolStarted)[-1], seen.one(ToolFailed)
    assert (failed.stage, failed.arguments, failed.origin) == (stage, arguments, begun.origin)
    assert begun.arguments == arguments
    assert begun.seq < failed.seq
    check_laws(seen.events)


def test_all_events_of_a_run_name_it_and_a_run_that_its_code_starts_names_its_parent() -> None:
    inner: list[Any] = []

    class Outer(Flow):
        @start()
        def work(self) -> str:
            Routed().events().do_action(inner.append).run()  # its events stay here
            return "done"

    seen = outcome(Outer().events())

    own = {event.origin.run_id for event in seen.events if not isinstance(event, StreamChunk)}
    assert len(own) == 1
    assert own != {""}
    origins = [event.origin for event in inner if not isinstance(event, StreamChunk)]
    assert {origin.parent_run_id for origin in origins} == own
    assert {origin.run_id for origin in origins}.isdisjoint(own)
    assert [event.seq for event in inner] == list(range(len(inner)))


def speak() -> Any:
    """Says a word a second."""
    return LLM("rxflow/demo", pace=1.0).events("Hi")


async def be_late() -> str:
    worker = Agent(role="Worker", goal="g", backstory="b", llm=LLM("rxflow/demo", pace=1.0), max_execution_time=2)
    task = Task(name="writing", description="d", expected_output="e", agent=worker)
    with suppress(TimeoutError):
        await Crew(agents=[worker], tasks=[task]).kickoff_async()
    return "late"


def refuse(piece: str) -> Any:
    return Stop("not nice") if "notes" in piece else Release()


def refuse_the_end(piece: str) -> Any:
    return Stop("not nice") if "prompt" in piece else Release()


def hesitate() -> Any:
    """Says nothing for a while."""
    return ScriptedLLM("-----a|").events("Hi")


STOPPED: list[tuple[Callable[[], Any], str]] = [
    (lambda: speak().pipe(ops.limit_tokens(3)), "limit"),
    (lambda: speak().pipe(ops.stop_at("demo")), "the text to stop at was found"),
    (lambda: speak().pipe(ops.hold_back(refuse, until=ops.words()), ops.fallback_to(rx.just("so"))), "not nice"),
    (lambda: hesitate().pipe(ops.first_chunk_timeout(0.002), ops.fallback_to(rx.just("so"))), "no chunk within"),
    (lambda: speak().pipe(ops.idle_timeout(0.5), ops.fallback_to(rx.just("so"))), "0.5 s"),
    (be_late, "within max_execution_time=2.0 seconds"),
    (lambda: speak().pipe(rxops.take(4)), "stopped"),
]


@pytest.mark.parametrize(("act", "reason"), STOPPED, ids=[reason for _, reason in STOPPED])
def test_a_call_that_something_in_a_method_stops_says_what(act: Callable[[], Any], reason: str) -> None:
    class Stopping(Flow):
        @start()
        async def work_in_loop(self) -> Any:
            return await act() if act is be_late else None

        @start()
        def work(self) -> Any:
            return None if act is be_late else act()

    with VirtualClock():
        seen = outcome(Stopping().events())

    call = seen.one(LLMCancelled)
    assert reason in call.reason
    assert call.usage.is_estimated
    assert seen.one(FlowFinished).usage == call.usage
    check_laws(seen.events)


def test_a_call_whose_end_is_held_back_is_closed_with_what_it_has_used() -> None:
    class Withholding(Flow):
        @start()
        def work(self) -> Any:
            guarded: Any = LLM("rxflow/demo").events("Hi").pipe(ops.hold_back(refuse_the_end))
            return guarded.pipe(ops.fallback_to(rx.just("so")))

    seen = outcome(Withholding().events())

    call = seen.one(LLMCancelled)
    assert call.usage.successful_requests == 1
    assert (seen.one(FlowFinished).usage, seen.one(FlowFinished).cost) == (call.usage, call.cost)
    check_laws(seen.events)


def test_a_stop_inside_a_time_limit_that_is_not_over_does_not_name_it() -> None:
    @tool
    async def glance() -> str:
        """Reads a few words."""
        return str(await LLM("rxflow/demo").events("Hi").pipe(rxops.take(2)))

    seen = calling(tool_call("glance"), tools=[glance], max_execution_time=60)

    assert [each.reason for each in seen.of(LLMCancelled)] in ([], ["stopped"])
    assert seen.error is None


def test_a_question_says_how_it_may_be_answered_and_until_when() -> None:
    class Asking(Flow):
        @start()
        async def work(self) -> str | None:
            await asyncio.sleep(2)
            return await self.ask_async("Where to?", timeout=60)

    with VirtualClock():
        seen = outcome(Asking().events().pipe(ops.answer_with(lambda request: rx.never())))

    asked, received = seen.one(InputRequested), seen.one(InputReceived)
    assert (asked.kind, asked.message, asked.options, asked.tool_id) == ("input", "Where to?", (), "")
    assert asked.response_schema == {"type": "string"}
    assert asked.expires_at == pytest.approx(asked.at + 60)
    assert (received.request_id, received.value) == (asked.request_id, None)
    assert received.at == pytest.approx(asked.at + 60)
    assert not asked.replayed


def failing_beside_others() -> Flow[Any]:
    """A flow with a crew that fails once two nested flows are at work."""
    begun = asyncio.Event()

    class Sleeping(Flow):
        @start()
        async def sleep(self) -> None:
            begun.set()
            await asyncio.Event().wait()

    class Around(Flow):
        @start()
        async def around(self) -> Any:
            return await Sleeping().kickoff_async()

    class Failing(Flow):
        @start()
        async def both(self) -> Any:
            return await Around().kickoff_async()

        @start()
        async def fail(self) -> Any:
            await begun.wait()
            return await solo(Scripted(ConnectionError("broken off"))).kickoff_async()

    return Failing()


class Asking(Flow):
    """A flow that pauses, because nobody answers."""

    @start()
    async def ask_first(self) -> str | None:
        return await self.ask_async("Where to?")


@dataclass
class Ended:
    """What was seen of a flow, and what asyncio has reported."""

    kinds: list[str]
    end: str
    reports: list[str]


def end_early(make: Callable[[], Flow[Any]], shape: Callable[[rx.Observable[Event]], rx.Observable[Event]]) -> Ended:
    """Read a flow through an operator."""
    reports: list[str] = []

    async def main() -> Outcome:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(str(context)))
        ended = asyncio.Event()
        seen = Outcome(lambda event: None)
        events = make().events().through(shape)
        events.pipe(rxops.finally_action(ended.set)).subscribe(seen.on_next, seen.on_error, seen.on_completed)
        await ended.wait()
        return seen

    seen = asyncio.run(main())
    check_laws(seen.events)
    kinds, (end,) = [type(event).__name__ for event in seen.events], seen.ends
    del seen  # the errors in its events keep the tasks, and asyncio reports an error once its task is gone
    gc.collect()
    return Ended(kinds, end, reports)


def complete_at_once(events: rx.Observable[Event]) -> rx.Observable[Event]:
    return events


def complete_later(events: rx.Observable[Event]) -> rx.Observable[Event]:
    return events.pipe(rxops.concat(rx.empty(AsyncIOScheduler(asyncio.get_running_loop()))))


@pytest.mark.parametrize("complete", [complete_at_once, complete_later])
@pytest.mark.parametrize("make", [failing_beside_others, Asking])
def test_a_stream_may_be_ended_at_any_event_of_a_run_that_fails_or_pauses(
    make: Callable[[], Flow[Any]], complete: Callable[[rx.Observable[Event]], rx.Observable[Event]]
) -> None:
    whole = end_early(make, complete_at_once)
    assert whole.reports == []
    if make is failing_beside_others:
        assert whole.kinds.count("FlowCancelled") == 2
        assert {"LLMFailed", "AgentFailed", "TaskFailed", "CrewFailed", "MethodFailed", "FlowFailed"} < {*whole.kinds}
    for count in range(1, len(whole.kinds) + 1):
        early = end_early(make, compose(rxops.take(count), complete))
        assert early.kinds[:count] == whole.kinds[:count]
        assert (early.end, early.reports) == ("completed", []), f"at {whole.kinds[count - 1]}"


def test_a_stopped_method_keeps_its_reason_if_the_stream_ends_before_its_event() -> None:
    begun, stop = asyncio.Event(), rx.Subject[None]()

    class Leaving(Flow):
        @start()
        async def leave(self) -> None:
            def subscribe(observer: Any, scheduler: Any = None) -> Disposable:
                begun.set()
                return Disposable(lambda: stop.on_next(None))

            async for _ in rx.Observable[None](subscribe).pipe(ops.to_output()):
                pass

        @start()
        async def fail(self) -> None:
            await begun.wait()
            raise BROKEN

    seen = outcome(Leaving().events().through(rxops.take_until(stop)))

    assert seen.ends == ["completed"]
    assert seen.one(MethodCancelled).reason == "another method failed: ConnectionError: broken off"
    check_laws(seen.events)


class Wordless(Exception):
    """An error whose text cannot be had."""

    def __str__(self) -> str:
        raise OSError("no words")


class Breaking(Flow[dict[str, Any]]):
    """Fails with an error without a text."""

    @start()
    def report(self) -> str:
        raise Wordless


BEGINNINGS: dict[str, Callable[[Runs], rx.Observable[Any]]] = {
    "an operator": lambda runs: Breaking().events().pipe(ops.words()),
    "a log": lambda runs: Breaking().events().pipe(ops.log_to(MemoryLog(), "run")),
    "a store": lambda runs: runs.start(Breaking()).events(),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("reader", BEGINNINGS)
def test_an_error_whose_text_cannot_be_had_ends_the_run(reader: str) -> None:
    with Runs() as runs, pytest.raises(Wordless):
        list(BEGINNINGS[reader](runs).pipe(ops.to_output()))
