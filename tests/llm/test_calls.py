"""``LLM.call`` and ``acall`` give the whole answer; ``observe`` and ``events`` give it as it comes."""

import asyncio
import importlib
import json
import threading
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from rxflow import LLM, Flow
from rxflow._streaming.kickoff import run_blocking
from rxflow._streaming.observable import EventStream
from rxflow.flow.flow import start
from rxflow.llm.source import Ending, response_format_for
from rxflow.types import LLMFinished, LLMStarted, StreamChunk, ToolCall
from tests.gate import PATIENCE_S
from tests.loopback import Loopback, Reply, ToolCall as Call
from tests.scripted import Scripted, calls
from tests.signals import outcome
from tests.spans import ranks

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
    },
}
ADDING = calls(("add", {"a": 1, "b": 2}))


def plus(a: int, b: int) -> int:
    return a + b


class City(BaseModel):
    name: str
    people: int


class TestText:
    def test_call_gives_the_text(self) -> None:
        assert Scripted("Hello big world").llm.call("Hi") == "Hello big world"

    def test_acall_gives_the_text(self) -> None:
        assert asyncio.run(Scripted("Hello big world").llm.acall("Hi")) == "Hello big world"

    def test_a_string_is_the_message_of_a_user(self) -> None:
        source = Scripted("Hello")
        source.llm.call("Hi")
        assert source.conversations == [[{"role": "user", "content": "Hi"}]]

    def test_messages_are_sent_as_they_are(self) -> None:
        source = Scripted("Hello")
        messages = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"}]
        source.llm.call(messages)
        assert source.conversations == [messages]

    @pytest.mark.parametrize("nothing", [[], ()])
    def test_no_messages_is_an_error(self, nothing: Any) -> None:
        with pytest.raises(ValueError, match="messages is empty"):
            Scripted("Hello").llm.call(nothing)

    def test_calls_side_by_side_do_not_mix(self) -> None:
        async def both() -> list[Any]:
            return list(await asyncio.gather(Scripted("one two").llm.acall("a"), Scripted("three four").llm.acall("b")))

        assert asyncio.run(both()) == ["one two", "three four"]

    def test_a_model_without_an_answer_gives_empty_text(self) -> None:
        assert Scripted([]).llm.call("Hi") == ""

    def test_an_error_of_the_model_is_raised(self) -> None:
        with pytest.raises(LookupError, match="lost"):
            Scripted(LookupError("lost")).llm.call("Hi")
        with pytest.raises(LookupError, match="lost"):
            asyncio.run(Scripted(LookupError("lost")).llm.acall("Hi"))


class TestTools:
    def test_a_called_function_is_carried_out_and_its_result_returned(self) -> None:
        assert Scripted(ADDING).llm.call("Hi", [ADD], {"add": plus}) == 3

    def test_acall_awaits_a_coroutine_function(self) -> None:
        async def add(a: int, b: int) -> int:
            await asyncio.sleep(0)
            return a + b

        assert asyncio.run(Scripted(ADDING).llm.acall("Hi", [ADD], {"add": add})) == 3

    def test_acall_runs_a_blocking_function_off_the_loop(self) -> None:
        async def main() -> Any:
            loop = asyncio.get_running_loop()
            loop_went_on = threading.Event()

            def add(a: int, b: int) -> int:
                loop.call_soon_threadsafe(loop_went_on.set)
                assert loop_went_on.wait(PATIENCE_S)
                return a + b

            return await Scripted(ADDING).llm.acall("Hi", [ADD], {"add": add})

        assert asyncio.run(main()) == 3

    def test_without_functions_the_calls_are_returned(self) -> None:
        assert Scripted(ADDING).llm.call("Hi", [ADD]) == [
            ToolCall(id="call_0", name="add", arguments='{"a": 1, "b": 2}')
        ]

    def test_an_answer_in_text_is_returned_although_functions_are_there(self) -> None:
        assert Scripted("No need").llm.call("Hi", [ADD], {"add": plus}) == "No need"

    def test_a_call_without_arguments_is_carried_out(self) -> None:
        assert Scripted(calls(("now", ""))).llm.call("Hi", [ADD], {"now": lambda: "noon"}) == "noon"

    def test_a_call_of_a_function_that_is_not_there_says_which_are(self) -> None:
        with pytest.raises(ValueError, match=r"the model called 'add', .* available_functions: \['subtract'\]"):
            Scripted(ADDING).llm.call("Hi", [ADD], {"subtract": plus})

    def test_what_the_function_raises_is_raised(self) -> None:
        def add(a: int, b: int) -> int:
            raise OverflowError("too much")

        with pytest.raises(OverflowError, match="too much"):
            Scripted(ADDING).llm.call("Hi", [ADD], {"add": add})

    def test_tools_go_through_litellm(self, provider: Loopback, llm: LLM) -> None:
        # litellm 1.106 fails at any call with tools unless it is told, by a private parameter, to leave them alone.
        provider.script(Reply(tool_calls=[Call("add", {"a": 1, "b": 2})]))
        assert llm.call("Hi", [ADD], {"add": plus}) == 3
        (request,) = provider.requests
        assert request.tools == [ADD]
        assert not [name for name in request.body if name.startswith("_")]


class TestStructuredAnswers:
    @pytest.mark.parametrize(
        "text",
        [
            '{"name": "Bern", "people": 134000}',
            '```json\n{"name": "Bern", "people": 134000}\n```',
            'Here it is: {"name": "Bern", "people": 134000}. Anything else?',
        ],
        ids=["bare", "fenced", "in words"],
    )
    def test_a_response_model_is_read_from_the_text(self, text: str) -> None:
        assert Scripted([text]).llm.call("Hi", response_model=City) == City(name="Bern", people=134000)

    def test_acall_reads_it_too(self) -> None:
        source = Scripted(['{"name": "Bern", "people": 134000}'])
        assert asyncio.run(source.llm.acall("Hi", response_model=City)) == City(name="Bern", people=134000)

    def test_it_is_asked_for(self, provider: Loopback, llm: LLM) -> None:
        provider.script(Reply(text='{"name": "Bern", "people": 134000}'))
        llm.call("Hi", response_model=City)
        assert provider.requests[0].body["response_format"]["json_schema"]["name"] == "City"

    def test_a_response_format_of_the_model_holds_for_each_call(self, provider: Loopback) -> None:
        model = LLM("openai/gpt-4o", base_url=provider.url, api_key="k", response_format=City)
        provider.script(Reply(text='{"name": "Bern", "people": 134000}'))
        assert model.call("Hi") == City(name="Bern", people=134000)
        assert provider.requests[0].body["response_format"]["json_schema"]["name"] == "City"

    @pytest.mark.parametrize("text", ["Bern", '{"name": "Bern"}', "{}", '{"name": '])
    def test_an_answer_that_does_not_fit_is_a_validation_error(self, text: str) -> None:
        with pytest.raises(ValidationError):
            Scripted([text]).llm.call("Hi", response_model=City)


class TestParameters:
    def test_parameters_reach_the_provider(self, provider: Loopback) -> None:
        model = LLM(
            "openai/gpt-4o",
            base_url=provider.url,
            api_key="secret",
            temperature=0.5,
            top_p=0.9,
            max_tokens=7,
            stop=["END"],
            seed=42,
            user="someone",
        )
        model.call("Hi")
        (request,) = provider.requests
        wanted = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 7, "stop": ["END"], "seed": 42, "user": "someone"}
        assert request.body.items() >= wanted.items()
        assert request.headers["authorization"] == "Bearer secret"
        assert request.stream
        assert request.include_usage

    def test_what_was_not_given_is_not_sent(self, provider: Loopback, llm: LLM) -> None:
        llm.call("Hi")
        sent = set(provider.requests[0].body)
        assert sent == {"model", "messages", "stream", "stream_options"}

    def test_a_server_of_ones_own_needs_no_key(self, provider: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        assert LLM("openai/my-own", base_url=provider.url).call("Hi") == "Answer to: Hi"

    @pytest.mark.parametrize("named", ["OPENAI_BASE_URL", "OPENAI_API_BASE", "litellm.api_base"])
    @pytest.mark.parametrize("model", ["openai/my-own", "text-completion-openai/my-own"])
    def test_a_server_that_the_environment_names_needs_no_key(
        self, provider: Loopback, monkeypatch: pytest.MonkeyPatch, model: str, named: str
    ) -> None:
        for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE"):
            monkeypatch.delenv(name, raising=False)
        if named == "litellm.api_base":
            monkeypatch.setattr(importlib.import_module("litellm"), "api_base", provider.url)
        else:
            monkeypatch.setenv(named, provider.url)
        assert LLM(model, via="litellm").call("Hi") == "Answer to: Hi"

    def test_the_key_in_the_environment_is_used(self, provider: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "from the environment")
        LLM("openai/gpt-4o", base_url=provider.url).call("Hi")
        assert provider.requests[0].headers["authorization"] == "Bearer from the environment"


class TestObservables:
    def test_observe_gives_the_chunks(self) -> None:
        chunks: list[StreamChunk] = []
        ended = threading.Event()
        Scripted("Hello big world").llm.observe("Hi").subscribe(chunks.append, on_completed=ended.set)
        assert ended.wait(PATIENCE_S)
        assert [chunk.content for chunk in chunks] == ["Hello", " big", " world"]
        assert ranks(chunks) == [0, 1, 2]
        assert len({chunk.llm_call_id for chunk in chunks}) == 1

    def test_nothing_is_asked_before_someone_subscribes_and_each_subscription_asks_anew(self) -> None:
        source = Scripted("Hello")
        events = source.llm.events("Hi")
        assert source.requests == []
        first, second = outcome(events), outcome(events)
        assert len(source.requests) == 2
        assert first.text == second.text == "Hello"
        assert first.of(StreamChunk)[0].llm_call_id != second.of(StreamChunk)[0].llm_call_id

    def test_events_begin_and_end_with_the_call(self) -> None:
        seen = outcome(Scripted("Hello").llm.events("Hi"))
        assert isinstance(seen.events[0], LLMStarted)
        assert seen.events[0].messages == [{"role": "user", "content": "Hi"}]
        finished = seen.events[-1]
        assert isinstance(finished, LLMFinished)
        assert (finished.text, finished.finish_reason, finished.cost) == ("Hello", "stop", 0.5)
        assert finished.usage.total_tokens == 3

    def test_the_chunks_of_a_call_in_a_flow_are_in_the_flows_stream(self) -> None:
        llm = Scripted("Hello big world").llm

        class Greeting(Flow[dict[str, Any]]):
            stream = True

            @start()
            def greet(self) -> str:
                return json.dumps(llm.call("Hi"))

        streaming = Greeting().kickoff()
        assert [(chunk.content, chunk.flow_method) for chunk in streaming] == [
            ("Hello", "greet"),
            (" big", "greet"),
            (" world", "greet"),
        ]
        assert streaming.result == '"Hello big world"'

    def test_a_source_may_end_without_usage(self) -> None:
        assert outcome(Scripted(["Hello", Ending()]).llm.events("Hi")).text == "Hello"


def test_a_hint_is_left_out_where_the_model_does_not_take_it(provider: Loopback) -> None:
    def ask(name: str) -> dict[str, Any]:
        model = LLM(name, base_url=provider.url, api_key="k")
        request = model.request("Where?", hints={"response_format": response_format_for(City)})
        run_blocking(EventStream(lambda scope: model.ask(scope, request)), LLMFinished)
        return provider.requests[-1].body

    assert ask("openai/gpt-4o")["response_format"]["json_schema"]["name"] == "City"
    assert "response_format" not in ask("openai/gpt-3.5-turbo")


def test_cached_tokens_have_their_own_price(provider: Loopback) -> None:
    def cost(cached: int) -> float:
        usage = {"prompt_tokens": 1000, "completion_tokens": 1, "total_tokens": 1001}
        details = {"prompt_tokens_details": {"cached_tokens": cached}}
        end = {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}], "usage": usage | details}
        provider.script(Reply(raw=[b"data: " + json.dumps(end).encode() + b"\n\ndata: [DONE]\n\n"]))
        finished = run_blocking(LLM("openai/gpt-4o", base_url=provider.url, api_key="k").events("hi"), LLMFinished)
        assert finished.usage.cached_prompt_tokens == cached
        assert finished.cost is not None
        return finished.cost

    assert cost(1000) < cost(0)
