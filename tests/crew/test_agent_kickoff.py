"""An agent answers by itself: with kickoff, as a stream, as an Observable, and as a part of a flow."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
from pydantic import BaseModel

from rxflow import LLM, Flow, TaskOutput
from rxflow._streaming.observable import EventStream
from rxflow.flow.flow import and_, listen, start
from rxflow.llm.source import Request
from rxflow.tools import tool
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import (
    AgentFinished,
    AgentStarted,
    Event,
    LLMFinished,
    LLMStarted,
    MessageAdded,
    TaskFinished,
    TaskStarted,
    ToolFinished,
    ToolStarted,
)
from rxflow.types.results import AgentOutput, UsageMetrics
from rxflow.types.streaming import AgentStreamingOutput
from tests.gate import Gate
from tests.loopback import Loopback, Reply
from tests.scripted import USAGE, Scripted, calls
from tests.signals import Signals, outcome
from tests.spans import ranks
from tests.team import an_agent


class Verdict(BaseModel):
    good: bool


@tool
def search(query: str) -> str:
    """Search."""
    return f"hits for {query}"


Way: TypeAlias = Callable[[Any, tuple[Any, ...]], AgentOutput]

WAYS: dict[str, Way] = {
    "kickoff": lambda agent, given: agent.kickoff(*given),
    "kickoff_async": lambda agent, given: asyncio.run(agent.kickoff_async(*given)),
    "akickoff": lambda agent, given: asyncio.run(agent.akickoff(*given)),
    "stream": lambda agent, given: read(agent.kickoff(*given, stream=True)),
    "stream_async": lambda agent, given: asyncio.run(read_async(agent, given)),
    "observable": lambda agent, given: last(agent.events(*given)),
}
every_way = pytest.mark.parametrize("ask", WAYS.values(), ids=WAYS.keys())


def last(source: EventStream[Event]) -> AgentOutput:
    result = outcome(source).of(TaskFinished)[-1].result
    assert isinstance(result, AgentOutput)
    return result


def read(output: AgentStreamingOutput) -> AgentOutput:
    assert "".join(chunk.content for chunk in output) == output.get_full_text()
    return output.result


async def read_async(agent: Any, given: tuple[Any, ...]) -> AgentOutput:
    output = await agent.kickoff_async(*given, stream=True)
    assert [chunk async for chunk in output]
    result: AgentOutput = output.result
    return result


@every_way
def test_a_question_gets_an_answer_with_who_gave_it_and_what_it_cost(ask: Way) -> None:
    output = ask(an_agent(Scripted("It is late.")), ("What time is it?",))
    assert type(output) is AgentOutput
    assert (output.raw, str(output), output.agent_role) == ("It is late.", "It is late.", "Writer")
    assert output.token_usage == USAGE
    assert output.usage_metrics == {name: count or 0 for name, count in USAGE}
    assert [message["role"] for message in output.messages] == ["system", "user", "assistant"]


@every_way
def test_a_response_format_gives_a_structure(ask: Way) -> None:
    output = ask(an_agent(Scripted('{"good": true}')), ("Is it good?", Verdict))
    assert output.pydantic == Verdict(good=True)
    assert output["good"] is True
    assert output.to_dict() == {"good": True}


def test_its_parameters_have_crewai_s_names() -> None:
    output = an_agent(Scripted('{"good": true}')).kickoff(messages="Is it good?", response_format=Verdict)
    assert output.pydantic == Verdict(good=True)


def test_the_model_is_told_who_it_is_and_the_question_alone() -> None:
    model = Scripted("Done")
    an_agent(model).kickoff("What is {this}?")
    assert model.conversations == [
        [
            {"role": "system", "content": "You are Writer. Has written a lot\nYour goal: Write well"},
            {"role": "user", "content": "What is {this}?"},
        ]
    ]


def test_a_conversation_goes_on() -> None:
    model = Scripted("Done")
    said = [
        {"role": "user", "content": "I am Ada."},
        {"role": "assistant", "content": "Hello Ada."},
        {"role": "user", "content": "Who am I?"},
    ]
    output = an_agent(model).kickoff(said, Verdict, stream=True)
    with pytest.raises(ValueError, match="gave no answer that fits Verdict"):
        list(output)
    first = model.conversations[0]
    assert first[1:3] == said[:2]
    assert first[3]["content"].startswith("Who am I?\n\nAnswer with one JSON object")
    assert said[-1] == {"role": "user", "content": "Who am I?"}


def test_a_conversation_that_ends_with_the_assistant_gets_what_is_expected_after_it() -> None:
    model = Scripted('{"good": true}')
    an_agent(model).kickoff([{"role": "assistant", "content": "I think so."}], Verdict)
    assert [message["role"] for message in model.conversations[0]] == ["system", "assistant", "user"]


def test_an_answer_that_does_not_fit_is_sent_back() -> None:
    model = Scripted("Yes", '{"good": true}')
    output = an_agent(model).kickoff("Is it good?", response_format=Verdict)
    assert output.pydantic == Verdict(good=True)
    assert output.token_usage == USAGE + USAGE


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_its_guardrail_sends_back_as_often_as_it_says(retries: int) -> None:
    model = Scripted("No")

    def refuse(output: TaskOutput) -> tuple[bool, str]:
        return False, "too short"

    agent = an_agent(model, guardrail=refuse, guardrail_max_retries=retries)
    with pytest.raises(ValueError, match=f"failed its guardrail after {retries} retries; the last reason: too short"):
        agent.kickoff("Why?")
    assert len(model.requests) == retries + 1


def test_it_uses_its_tools() -> None:
    model = Scripted(calls(("search", {"query": "terns"})), "Found.")
    events = outcome(an_agent(model, tools=[search]).events("Find terns")).events
    kinds = [type(event) for event in events if not isinstance(event, StreamChunk | MessageAdded)]
    assert kinds == [
        TaskStarted,
        AgentStarted,
        *(LLMStarted, LLMFinished, ToolStarted, ToolFinished),
        *(LLMStarted, LLMFinished, AgentFinished, TaskFinished),
    ]


def test_chunks_say_which_agent_and_which_question() -> None:
    agent = an_agent(Scripted("Two words"))
    chunks = Signals().until_ended(agent.observe("What is {this}?")).items
    assert [chunk.content for chunk in chunks] == ["Two", " words"]
    assert {(chunk.agent_role, chunk.agent_id, chunk.task_name, chunk.crew_name) for chunk in chunks} == {
        ("Writer", agent.id, "What is {this}?", "")
    }


def test_each_subscription_asks_anew_and_none_asks_before_it() -> None:
    model = Scripted("Done")
    source = an_agent(model).observe("Why?")
    assert model.requests == []
    for _ in range(2):
        assert Signals().until_ended(source).terminals == 1
    assert len(model.requests) == 2


def test_a_stream_begins_with_its_first_pull_and_holds_its_result_back_until_it_ends() -> None:
    model = Scripted("Two words")
    output = an_agent(model).kickoff("Why?", stream=True)
    assert model.requests == []
    with pytest.raises(RuntimeError, match=r"^Streaming has not completed yet"):
        _ = output.result
    assert [chunk.content for chunk in output] == ["Two", " words"]
    assert output.result.raw == "Two words"


@pytest.mark.parametrize("given", [None, True, False])
def test_an_agent_that_streams_does_so_unless_kickoff_says_otherwise(given: bool | None) -> None:
    agent: Any = an_agent(Scripted("Done"), stream=True)
    output = agent.kickoff("Why?", stream=given)
    assert isinstance(output, AgentOutput if given is False else AgentStreamingOutput)
    if given is not False:
        list(output)


def test_closing_its_stream_stops_the_call() -> None:
    gate = Gate()
    model = Scripted(["One", gate, "two"])
    with an_agent(model).kickoff("Why?", stream=True) as output:
        assert next(iter(output)).content == "One"
    assert output.is_cancelled
    assert not gate.is_open


def test_closing_its_stream_closes_the_provider_s_connection(provider: Loopback, llm: LLM) -> None:
    provider.script(Reply(text=["One", "two"], hold_after=1))
    with an_agent(llm).kickoff("Why?", stream=True) as output:
        assert next(iter(output)).content == "One"
    (gone,) = provider.wait_until(lambda p: p.disconnects)
    assert gone.phase == "mid_stream"


@pytest.mark.parametrize("wrong", [[], ["text"], [{"role": "user", "content": "x"}, 3], 3, None, object()])
@pytest.mark.parametrize("way", ["kickoff", "events", "observe"])
def test_what_is_not_a_question_is_refused_where_it_is_asked(way: str, wrong: Any) -> None:
    model = Scripted("Done")
    with pytest.raises((TypeError, ValueError), match=r"messages (is|must)|an agent works on"):
        getattr(an_agent(model), way)(wrong)
    assert model.requests == []


@pytest.mark.parametrize("wrong", [dict, int, "Verdict", Verdict(good=True)])
def test_what_is_not_a_model_class_is_no_response_format(wrong: Any) -> None:
    with pytest.raises(TypeError, match="response_format is a pydantic model, a class; got"):
        an_agent(Scripted("Done")).kickoff("Why?", wrong)


class TestInAFlow:
    def test_a_sync_method_s_agent_is_in_the_flow_s_stream(self) -> None:
        agent = an_agent(Scripted("Two words"))

        class Asking(Flow):
            stream = True

            @start()
            def question(self) -> str:
                return agent.kickoff("Why?", stream=False).raw.upper()

        output = Asking().kickoff()
        labels = {(chunk.flow_name, chunk.flow_method, chunk.agent_role) for chunk in output}
        assert labels == {("Asking", "question", "Writer")}
        assert output.get_full_text() == "Two words"
        assert output.result == "TWO WORDS"

    def test_agents_of_two_async_methods_speak_at_once_each_with_its_labels(self) -> None:
        both_asked = asyncio.Event()
        asked: list[Request] = []

        async def meet(request: Request) -> None:
            asked.append(request)
            if len(asked) == 2:
                both_asked.set()
            await both_asked.wait()

        agents = {name: an_agent(Scripted(f"{name} speaks", before=meet), name) for name in ("Left", "Right")}

        class Both(Flow):
            @start()
            async def left(self) -> Any:
                return await agents["Left"].kickoff_async("Speak", response_format=None)

            @start()
            async def right(self) -> Any:
                return await agents["Right"].kickoff_async("Speak")

            @listen(and_(left, right))
            def join(self) -> str:
                return " and ".join(sorted(output.raw for output in self.method_outputs))

        flow = Both()
        run = outcome(flow.events())
        chunks = run.of(StreamChunk)
        assert {(chunk.flow_method, chunk.agent_role) for chunk in chunks} == {("left", "Left"), ("right", "Right")}
        assert ranks(chunks) == list(range(len(chunks)))

    def test_a_stream_that_a_method_returns_is_read_and_its_result_is_the_method_s(self) -> None:
        agent = an_agent(Scripted("Two words"))

        class Asking(Flow):
            @start()
            def question(self) -> Any:
                return agent.kickoff("Why?", stream=True)

        answer: Any = Asking().kickoff()
        assert answer.raw == "Two words"

    def test_its_tokens_are_the_flow_s(self) -> None:
        agent = an_agent(Scripted("Done"))

        class Asking(Flow):
            @start()
            def question(self) -> Any:
                return agent.kickoff("Why?")

        flow = Asking()
        flow.kickoff()
        assert flow.usage_metrics == USAGE != UsageMetrics()
