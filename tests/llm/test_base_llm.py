"""A class of one's own answers wherever an LLM does; what is not a model is refused with what to write."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel, Field, PrivateAttr

from rxflow import LLM, Agent, BaseLLM, Crew, Flow, operators as ops
from rxflow.flow.flow import start
from rxflow.llm.source import Ending, ReasoningDelta, ToolCallDelta
from rxflow.tools import tool
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import LLMFailed, LLMFinished, LLMStarted, ReasoningChunk
from rxflow.types.results import UsageMetrics
from tests.gate import Gate
from tests.scripted import Scripted, calls
from tests.signals import Signals, outcome
from tests.team import a_crew, a_task, an_agent

MESSAGES = [{"role": "user", "content": "Say it"}]


class Answering(BaseLLM):
    """Answers with what the test gives it."""

    def __init__(self, answer: Any) -> None:
        super().__init__(model="mine")
        self.answer = answer
        self.asked: list[Any] = []

    def call(self, messages: Any, **_: Any) -> Any:
        self.asked.append(messages)
        return self.answer() if callable(self.answer) else self.answer


class Verdict(BaseModel):
    good: bool


def test_a_model_may_change_its_messages_and_the_event_keeps_what_was_asked() -> None:
    class Adding(BaseLLM):
        def call(self, messages: Any, **_: Any) -> str:
            messages[0]["content"].append({"type": "text", "text": "Be brief"})
            messages[0]["role"] = "system"
            return "Yes"

    asked = [{"role": "user", "content": [{"type": "text", "text": "Say it"}]}]
    seen = outcome(Adding("mine").events(asked))
    assert seen.text == "Yes"
    assert seen.one(LLMStarted).messages == asked


async def agenerate() -> AsyncIterator[str]:
    yield "Two"
    await asyncio.sleep(0)
    yield " words"


ANSWERS: dict[str, tuple[Any, list[str]]] = {
    "a text is one chunk": ("Two words", ["Two words"]),
    "an empty text is none": ("", []),
    "an iterator streams": (lambda: iter(["Two", " words"]), ["Two", " words"]),
    "an async iterator streams": (agenerate, ["Two", " words"]),
    "an iterator of models is text": (lambda: iter([Verdict(good=True)]), ['{"good":true}']),
    "a dict is JSON": ({"good": True}, ['{"good":true}']),
    "a model is JSON": (Verdict(good=True), ['{"good":true}']),
}


@pytest.mark.parametrize(("answer", "chunks"), ANSWERS.values(), ids=ANSWERS.keys())
def test_what_it_answers_comes_as_chunks(answer: Any, chunks: list[str]) -> None:
    llm = Answering(answer)
    assert [chunk.content for chunk in Signals().until_ended(llm.observe("Say it")).items] == chunks
    assert llm.asked == [MESSAGES]
    finished = outcome(llm.events("Say it")).of(LLMFinished)[-1]
    assert (finished.text, finished.finish_reason, finished.usage.successful_requests) == ("".join(chunks), "stop", 1)


@pytest.mark.parametrize("wrong", [None, 3, b"bytes", lambda: iter([None]), [3], [{"name": "search"}]])
def test_what_is_not_an_answer_is_an_error_that_names_the_method_and_the_value(wrong: Any) -> None:
    run = outcome(Answering(wrong).events("Say it"))
    assert isinstance(run.error, TypeError)
    assert str(run.error).startswith("Answering.call ")
    assert len(run.of(LLMFailed)) == 1


def test_generator_functions_stream_under_either_name() -> None:
    class Sync(BaseLLM):
        def call(self, messages: Any, **_: Any) -> Iterator[str]:
            yield from messages[-1]["content"].split()

    class Async(BaseLLM):
        def call(self, messages: Any, **_: Any) -> Any:
            raise AssertionError("acall goes before call")

        async def acall(self, messages: Any, **_: Any) -> Any:
            yield "Say"
            yield "it"

    for llm in (Sync(model="s"), Async(model="a")):
        assert [chunk.content for chunk in Signals().until_ended(llm.observe("Say it")).items] == ["Say", "it"]


def test_call_has_a_thread_of_its_own_and_acall_the_run_s_loop() -> None:
    threads: list[threading.Thread] = []

    class Sync(BaseLLM):
        def call(self, messages: Any, **_: Any) -> str:
            threads.append(threading.current_thread())
            return "Done"

    class Async(Sync):
        async def acall(self, messages: Any, **_: Any) -> str:
            threads.append(threading.current_thread())
            return "Done"

    async def ask(llm: BaseLLM) -> threading.Thread:
        await an_agent(llm).kickoff_async("Say it")
        return threading.current_thread()

    assert asyncio.run(ask(Sync(model="m"))) is not threads[0]
    assert asyncio.run(ask(Async(model="m"))) is threads[1]


def test_an_acall_that_is_not_implemented_leaves_it_to_call() -> None:
    class Old(BaseLLM):
        def call(self, messages: Any, **_: Any) -> str:
            return "Done"

        async def acall(self, messages: Any, **_: Any) -> str:
            raise NotImplementedError

    assert an_agent(Old(model="m")).kickoff("Say it").raw == "Done"


def test_it_may_change_the_messages_that_it_is_given() -> None:
    class Changing(BaseLLM):
        def call(self, messages: Any, **_: Any) -> str:
            for message in messages:
                message["content"] = [{"type": "text", "text": message["content"]}]
            return "Done"

    output = an_agent(Changing(model="m")).kickoff("Say it")
    assert output.messages[1]["content"] == "Say it"


@pytest.mark.parametrize(
    "parameters", ["tools=None", "tools, callbacks, available_functions, from_task, from_agent", ""]
)
def test_it_is_given_the_parameters_that_it_has(parameters: str) -> None:
    space: dict[str, Any] = {}
    exec(f"def call(self, messages, {parameters}):\n    return 'Done'", space)
    llm: Any = type("Mine", (BaseLLM,), {"call": space["call"]})(model="m")
    assert an_agent(llm).kickoff("Say it").raw == "Done"


def test_an_error_in_it_is_the_run_s_error() -> None:
    def fail() -> Any:
        raise ConnectionError("the server is down")

    with pytest.raises(ConnectionError, match="the server is down"):
        an_agent(Answering(fail)).kickoff("Say it")


def test_an_error_after_some_text_leaves_the_text() -> None:
    def break_off() -> Iterator[str]:
        yield "One"
        raise ConnectionError("gone")

    run = outcome(Answering(break_off).events("Say it"))
    assert [chunk.content for chunk in run.of(StreamChunk)] == ["One"]
    assert isinstance(run.error, ConnectionError)
    assert run.of(LLMFailed)[0].text == "One"


def test_closing_the_stream_ends_a_generator_at_its_next_part() -> None:
    go_on, ended = Gate(), Gate()

    def speak() -> Iterator[str]:
        try:
            yield "One"
            go_on.wait()
            yield "Two"
            yield "Three"
        finally:
            ended.open()

    with an_agent(Answering(speak)).kickoff("Say it", stream=True) as output:
        assert next(iter(output)).content == "One"
    go_on.open()
    ended.wait()
    assert output.get_full_text() == "One"


def test_closing_the_stream_ends_an_async_generator_at_once() -> None:
    ended = Gate()

    async def speak() -> AsyncIterator[str]:
        try:
            yield "One"
            await Gate().passed()
        finally:
            ended.open()

    with an_agent(Answering(speak)).kickoff("Say it", stream=True) as output:
        assert next(iter(output)).content == "One"
    ended.wait()


class TestTools:
    @staticmethod
    def search() -> Any:
        @tool
        def search(query: str) -> str:
            """Search."""
            return f"hits for {query}"

        return search

    @pytest.mark.parametrize("shape", ["dict", "object", "deltas"])
    def test_one_that_takes_tools_is_given_their_schemas_and_calls_them(self, shape: str) -> None:
        function = {"name": "search", "arguments": '{"query": "terns"}'}
        asked: list[Any] = []

        class Calling(BaseLLM):
            def call(self, messages: Any, tools: Any = None) -> Any:
                asked.append(tools)
                if messages[-1]["role"] == "tool":
                    return f"Found {messages[-1]['content']}"
                if shape == "deltas":
                    return iter([ToolCallDelta(0, "1", "search"), ToolCallDelta(0, arguments=function["arguments"])])
                if shape == "object":
                    return [SimpleNamespace(id="1", function=SimpleNamespace(**function))]
                return [{"id": "1", "type": "function", "function": function}]

            def supports_function_calling(self) -> bool:
                return True

        output = an_agent(Calling(model="m"), tools=[self.search()]).kickoff("Find terns")
        assert output.raw == "Found hits for terns"
        assert asked[0][0]["function"]["name"] == "search"

    def test_to_one_that_does_not_they_are_offered_in_text(self) -> None:
        llm = Answering("Done")
        assert an_agent(llm, tools=[self.search()]).kickoff("Find terns").raw == "Done"
        assert "search" in json.dumps(llm.asked)

    def test_arguments_may_be_a_dict(self) -> None:
        said: list[Any] = [[{"id": "1", "function": {"name": "search", "arguments": {"query": "x"}}}], "Done"]

        class Calling(BaseLLM):
            def call(self, messages: Any, tools: Any = None) -> Any:
                return said.pop(0)

            def supports_function_calling(self) -> bool:
                return True

        output = an_agent(Calling(model="m"), tools=[self.search()]).kickoff("Find")
        assert output.messages[3]["content"] == "hits for x"


class Around(BaseLLM):
    """Hands everything on to another model, as those do that log, cache or fall back."""

    def __init__(self, inner: LLM) -> None:
        super().__init__(model="around")
        self.inner = inner

    def supports_function_calling(self) -> bool:
        return self.inner.supports_function_calling()

    def call(self, messages: Any, tools: Any = None, **options: Any) -> Any:
        options.pop("available_functions", None)
        return self.inner.call(messages, tools=tools, callbacks=None, from_task=None, from_agent=None)


class AsyncAround(Around):
    async def acall(self, messages: Any, tools: Any = None, **options: Any) -> Any:
        return await self.inner.acall(messages, tools=tools, callbacks=None, from_task=None, from_agent=None)


class Streaming(Around):
    def call(self, messages: Any, tools: Any = None, **options: Any) -> Any:
        for chunk in self.inner.observe(messages).pipe(ops.to_output()):
            yield chunk.content


class AsyncStreaming(Around):
    async def acall(self, messages: Any, tools: Any = None, **options: Any) -> Any:
        async for chunk in self.inner.observe(messages).pipe(ops.to_output()):
            yield chunk.content


class TestAroundAnother:
    @pytest.mark.parametrize("kind", [Around, AsyncAround])
    def test_tool_calls_are_handed_on(self, kind: type[Around]) -> None:
        model = Scripted(calls(("search", {"query": "terns"})), "Found them")
        agent = an_agent(kind(model.llm), tools=[TestTools.search()])
        assert agent.kickoff("Find terns").raw == "Found them"
        assert [message["content"] for message in model.conversations[1] if message["role"] == "tool"] == [
            "hits for terns"
        ]

    @pytest.mark.parametrize(
        ("kind", "chunks"),
        [
            (Around, ["Two words"]),
            (AsyncAround, ["Two words"]),
            (Streaming, ["Two", " words"]),
            (AsyncStreaming, ["Two", " words"]),
        ],
    )
    def test_the_text_is_in_the_stream_once_and_the_usage_is_known(self, kind: type[Around], chunks: list[str]) -> None:
        output = an_agent(kind(Scripted("Two words").llm)).kickoff("Say it", stream=True)
        assert [chunk.content for chunk in output] == chunks
        assert output.result.raw == "Two words"
        assert output.result.token_usage.total_tokens == 3

    def test_what_other_agents_say_to_it_is_not_in_the_stream(self) -> None:
        class Asking(BaseLLM):
            def call(self, messages: Any, **_: Any) -> Any:
                yield f"Advised: {an_agent(Scripted('Advice').llm).kickoff('Advise').raw}"

        run = outcome(an_agent(Asking(model="m")).events("Say it"))
        assert [chunk.content for chunk in run.of(StreamChunk)] == ["Advised: Advice"]
        assert [event.text for event in run.of(LLMFinished)] == ["Advice", "Advised: Advice"]

    @pytest.mark.parametrize("kind", [Streaming, AsyncStreaming])
    def test_closing_the_stream_ends_the_other_s_answer(self, kind: type[Around]) -> None:
        ended = Gate()

        async def open_at_the_end(_: object) -> None:
            asyncio.current_task().add_done_callback(lambda _: ended.open())  # type: ignore[union-attr]

        inner = Scripted(["One", Gate()], before=open_at_the_end)
        with an_agent(kind(inner.llm)).kickoff("Say it", stream=True) as output:
            assert next(iter(output)).content == "One"
        ended.wait()

    def test_an_error_of_the_other_can_be_caught(self) -> None:
        class Falling(Around):
            def call(self, messages: Any, tools: Any = None, **options: Any) -> Any:
                try:
                    return super().call(messages)
                except ConnectionError:
                    return Scripted("Second").llm.call(messages)

        output = an_agent(Falling(Scripted(ConnectionError("down")).llm)).kickoff("Say it", stream=True)
        assert [chunk.content for chunk in output] == ["Second"]


class TestOptionsOfACall:
    def test_what_would_do_something_or_is_unknown_is_refused(self) -> None:
        llm: Any = Scripted("Done").llm
        with pytest.raises(ValueError, match=r"call\(callbacks=\[.*\]\) is not supported. It would"):
            llm.call("Hi", callbacks=[print])
        with pytest.raises(TypeError, match="a call of an LLM has no argument 'from_agnt'; did you mean 'from_agent'"):
            llm.call("Hi", from_agnt=None)
        with pytest.raises(TypeError, match="response_model must be a pydantic class; got <class 'int'>"):
            asyncio.run(llm.acall("Hi", response_model=int))

    @pytest.mark.parametrize(("given", "expected"), [(None, True), (True, True), (False, False)])
    def test_whether_a_model_takes_tools_can_be_asked(self, given: bool | None, expected: bool) -> None:
        llm = LLM("m", source=Scripted("Done"), function_calling=given)
        assert llm.supports_function_calling() is expected

        async def main() -> bool:
            return llm.supports_function_calling()

        assert asyncio.run(main()) is expected
        assert llm.supports_stop_words()


def test_it_may_yield_reasoning_and_say_how_it_ended() -> None:
    usage = UsageMetrics(total_tokens=5, successful_requests=1)
    llm = Answering(lambda: iter([ReasoningDelta("Hm"), "Done", Ending("length", usage)]))
    run = outcome(llm.events("Say it"))
    assert [event.content for event in run.of(ReasoningChunk)] == ["Hm"]
    (finished,) = run.of(LLMFinished)
    assert (finished.finish_reason, finished.usage) == ("length", usage)


def test_it_works_as_an_agent_s_a_manager_s_and_a_judge_s_model() -> None:
    worker = an_agent(Answering("Done"), guardrail="is short")
    with pytest.raises(ValueError, match="the model returned no verdict"):
        worker.kickoff("Say it")
    crew = a_crew(a_task(an_agent(Answering("Done"))), process="hierarchical", manager_llm=Answering("Managed"))
    assert crew.kickoff().raw == "Managed"


def test_its_chunks_are_in_the_stream_of_the_flow_around_it() -> None:
    crew: Crew = a_crew(a_task(an_agent(Answering(lambda: iter(["Two", " words"])))))

    class Asking(Flow):
        stream = True

        @start()
        def question(self) -> Any:
            return crew.kickoff()

    output = Asking().kickoff()
    assert [(chunk.content, chunk.flow_method) for chunk in output] == [("Two", "question"), (" words", "question")]


def test_every_llm_is_one() -> None:
    assert isinstance(LLM("rxflow/demo"), BaseLLM)
    assert issubclass(LLM, BaseLLM)
    assert not isinstance("rxflow/demo", BaseLLM)


@pytest.mark.parametrize("wrong", [5, [5]], ids=["answer", "tool call"])
def test_an_error_names_the_method_that_returned_the_wrong_value(wrong: Any) -> None:
    class Async(Answering):
        async def acall(self, messages: Any, *_: Any, **__: Any) -> Any:
            return wrong

    assert "Async.acall " in str(outcome(Async("Done").events("Hi")).error)
    assert "Answering.call " in str(outcome(Answering(wrong).events("Hi")).error)


class TestFields:
    def test_what_the_class_annotates_is_set_as_pydantic_would(self) -> None:
        class Mine(BaseLLM):
            endpoint: str = "http://localhost"
            replies: list[str] = Field(default_factory=list)
            _count: int = PrivateAttr(default=3)

            @property
            def count(self) -> int:
                return self._count

            def call(self, messages: Any, **_: Any) -> str:
                return "Done"

        one, other = Mine(model="m", endpoint="http://there", top_k=4), Mine(model="m")
        assert (one.endpoint, other.endpoint) == ("http://there", "http://localhost")
        one.replies.append("x")
        assert other.replies == []
        assert one.count == 3
        assert one.parameters == {"top_k": 4}

    def test_a_temperature_that_the_class_declares_is_its_default(self) -> None:
        class Plain(BaseLLM):
            temperature: float | None = 0.3

            def call(self, messages: Any, **_: Any) -> str:
                return "Done"

        class AsField(Plain):
            temperature: float | None = Field(default=0.4)

        class Bare(BaseLLM):
            temperature: float | None

            def call(self, messages: Any, **_: Any) -> str:
                return "Done"

        assert [kind(model="m").temperature for kind in (Plain, AsField, Bare)] == [0.3, 0.4, None]
        assert [kind(model="m", temperature=0.0).temperature for kind in (Plain, AsField, Bare)] == [0.0, 0.0, 0.0]

    def test_stop_sequences_that_the_class_declares_are_its_default(self) -> None:
        class Plain(Answering):
            stop = ["END"]  # noqa: RUF012 - as users write it

        class AsField(Answering):
            stop: list[str] = Field(default_factory=lambda: ["END"])

        for kind in (Plain, AsField):
            llm = kind("one END two")
            assert llm.stop == ["END"]
            assert llm.llm.call("Hi") == "one "
        assert Answering("one").stop == []

        class Chosen(Plain):
            def __init__(self) -> None:
                BaseLLM.__init__(self, "mine", stop="two")

        assert Chosen().stop == ["two"]

    def test_a_field_that_must_be_given_is_asked_for(self) -> None:
        class Mine(BaseLLM):
            model: str = Field(description="The name.")
            token: str = Field(description="The key.")

            def call(self, messages: Any, **_: Any) -> str:
                return "Done"

        assert Mine(model="m", token="t").token == "t"
        with pytest.raises(TypeError, match=r"Mine needs a value for the field 'token'; write Mine\(…, token=…\)"):
            Mine(model="m")

    def test_a_subclass_may_set_such_a_field_itself_and_have_a_method_named_stop(self) -> None:
        class Mine(BaseLLM):
            token: str = Field(description="The key.")

            def __init__(self, token: str) -> None:
                super().__init__("m")
                self.token = token

            def call(self, messages: Any, **_: Any) -> str:
                return self.token

            def stop(self) -> None:  # type: ignore[override]
                raise AssertionError

        assert Mine("t").call("Hi") == "t"

    def test_one_without_call_cannot_be_made(self) -> None:
        class Silent(BaseLLM): ...

        with pytest.raises(TypeError, match="abstract"):
            Silent(model="m")  # type: ignore[abstract] # pyright: ignore[reportAbstractUsage]

    def test_one_that_forgets_its_base_is_told(self) -> None:
        class Forgetful(BaseLLM):
            def __init__(self) -> None: ...  # pyright: ignore[reportMissingSuperCall]

            def call(self, messages: Any, **_: Any) -> str:
                return "Done"

        with pytest.raises(ValueError, match=r"Forgetful.__init__ must call super\(\).__init__\(model=…\)"):
            an_agent(Forgetful())


def other_class(name: str, **attributes: Any) -> Any:
    return type(name, (), attributes)()


REFUSED: dict[str, tuple[Any, str]] = {
    "ChatOpenAI": (
        other_class("ChatOpenAI", model_name="gpt-4o", invoke=print),
        'ChatOpenAI is a model of LangChain; write llm=LLM("openai/gpt-4o") instead',
    ),
    "ChatOllama": (
        other_class("ChatOllama", model="llama3", invoke=print),
        'ChatOllama is a model of LangChain; write llm=LLM("ollama_chat/llama3") instead',
    ),
    "another of theirs": (
        other_class("ChatOther", invoke=print),
        'ChatOther is a model of LangChain; write llm=LLM("provider/model") instead',
    ),
    "a class with call": (
        other_class("Mine", call=print),
        "Mine has a method call, but is not a model; derive the class from rxflow.BaseLLM",
    ),
    "an LLM with a call of its own": (
        type("Guarded", (LLM,), {"call": print})("rxflow/demo"),
        "Guarded derives from LLM and overrides call, which agents would not use; derive from BaseLLM",
    ),
    "a number": (3, 'llm must be an LLM or a name, "provider/model"; got 3'),
    "a class": (LLM, "LLM is a class, not a model; give an object of it, LLM(…)"),
    "nothing": ("  ", "the model's name is empty"),
}
GIVEN: dict[str, Callable[[Any], object]] = {
    "agent": lambda llm: Agent(role="R", goal="g", backstory="b", llm=llm),
    "manager": lambda llm: Crew(agents=[], tasks=[], manager_llm=llm),
}


@pytest.mark.parametrize("give", GIVEN.values(), ids=GIVEN.keys())
@pytest.mark.parametrize(("given", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_a_model_is_refused_with_what_to_write(
    given: Any, words: str, give: Callable[[Any], object]
) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - compared below
        give(given)
    assert words in str(raised.value)
