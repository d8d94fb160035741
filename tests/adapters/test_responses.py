"""The client of OpenAI reads a flow as if it were a model, over real sockets."""

import asyncio
import threading
from collections.abc import Generator
from typing import Any

import httpx
import openai
import pytest
import reactivex

from rxflow import Flow, TaskOutput, operators as ops
from rxflow.adapters import responses
from rxflow.flow import start
from rxflow.llm.source import Ending
from rxflow.types import LLMFinished, Origin, Retracted
from tests.adapters import flows
from tests.adapters.serving import serve
from tests.gate import PATIENCE_S, Gate
from tests.scripted import USAGE, Scripted
from tests.team import solo

asked: list[responses.Asked] = []
is_started = threading.Event()
is_stopped = threading.Event()


class Waiting(Flow[dict[str, Any]]):
    """Says one word, and then nothing."""

    @start()
    async def wait(self) -> str:
        is_started.set()
        try:
            return str(await solo(Scripted(["first ", Gate(), "last"])).kickoff_async())
        finally:
            is_stopped.set()


def cut_off(*turns: Any) -> responses.Model:
    """A model whose ``turns`` are the answers of one agent. The answer "right" passes."""

    class Answers(Flow[dict[str, Any]]):
        @start()
        def report(self) -> str:
            def judge(output: TaskOutput) -> tuple[bool, Any]:
                return len(turns) == 1 or output.raw == "right", "not right"

            return str(solo(Scripted(*turns), guardrail=judge).kickoff())

    return lambda _: Answers().events()


def retract_while_waiting(given: responses.Asked) -> Any:
    """Two calls speak at once. The answer of the second is taken back before the first has ended."""
    one, two, again = (
        Origin(span_id=name, llm_call_id=name, namespace=("F", name), attempt=name == "again")
        for name in ("one", "two", "again")
    )
    return reactivex.from_iterable(
        [
            one.chunk("low "),
            two.chunk("wrong"),
            LLMFinished(origin=two, text="wrong"),
            Retracted(origin=Origin(namespace=("F", "two")), attempts=(0,), error=ValueError("no"), span_ids=("two",)),
            again.chunk("right"),
            LLMFinished(origin=again, text="right"),
            one.chunk("tide"),
            LLMFinished(origin=one, text="low tide"),
        ]
    )


def answer_plainly(given: responses.Asked) -> Any:
    asked.append(given)
    return flows.Plain().events()


def answer_in_part(given: responses.Asked) -> Any:
    return flows.Plain().events().pipe(ops.limit_tokens(1))


def observe(given: responses.Asked) -> Any:
    return flows.Plain().observe()


def pay_by_crew(given: responses.Asked) -> Any:
    return flows.paying_crew().events()


def refuse(given: responses.Asked) -> Any:
    raise ValueError("topic: a name is missing")


def run(flow: type[Flow[Any]]) -> responses.Model:
    return lambda _: flow().events()


MODELS: dict[str, responses.Model] = {flow.__name__: run(flow) for flow in (*flows.ALL, Waiting)} | {
    "Plain": answer_plainly,
    "Refusing": refuse,
    "Limited": answer_in_part,
    "Observed": observe,
    "PayingCrew": pay_by_crew,
    "CutOff": cut_off(["too lo", Ending("length", USAGE)]),
    "Filtered": cut_off(["too ru", Ending("content_filter", USAGE)]),
    "CutOffOnce": cut_off(["too lo", Ending("length", USAGE)], "right"),
    "RetractedWhileWaiting": retract_while_waiting,
}


@pytest.fixture(scope="module")
def url() -> Generator[str]:
    with serve(responses.serve_models(MODELS)) as url:
        yield url


@pytest.fixture
def client(url: str) -> Generator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_a_response_streams_word_by_word(client: openai.OpenAI) -> None:
    with client.responses.stream(model="Plain", input="Is it low tide?", instructions="Be brief.") as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert deltas == ["low", " tide", " at", " noon"]
    assert final.output_text == "low tide at noon"
    assert final.status == "completed"
    assert final.usage is not None
    assert (final.usage.input_tokens, final.usage.output_tokens) == (2, 1)
    given = asked[-1]
    assert (given.model, given.text) == ("Plain", "Is it low tide?")
    assert [message["role"] for message in given.messages] == ["system", "user"]


def test_a_response_at_once(client: openai.OpenAI) -> None:
    answer = client.responses.create(
        model="Plain", input=[{"role": "user", "content": [{"type": "input_text", "text": "x"}]}]
    )
    assert answer.output_text == "low tide at noon"
    assert asked[-1].text == "x"


def test_reasoning_is_an_item_and_tools_are_not_shown(client: openai.OpenAI) -> None:
    with client.responses.stream(model="WithTools", input="x") as stream:
        final = stream.get_final_response()
    assert [item.type for item in final.output] == ["reasoning", "message"]
    assert final.output_text == "all calm"


def test_speakers_at_the_same_time_are_messages_of_their_own(client: openai.OpenAI) -> None:
    with client.responses.stream(model="Parallel", input="x") as stream:
        texts: dict[str, str] = {}
        for event in stream:
            if event.type == "response.output_text.delta":
                texts[event.item_id] = texts.get(event.item_id, "") + event.delta
    assert sorted(texts.values()) == ["calm in the north", "storm in the south"]


def test_a_taken_back_message_is_no_part_of_the_answer(client: openai.OpenAI) -> None:
    with client.responses.stream(model="Retracting", input="x") as stream:
        assert stream.get_final_response().output_text == "right"


@pytest.mark.parametrize(
    ("model", "reason", "why"),
    [("CutOff", "length", "max_output_tokens"), ("Filtered", "content_filter", "content_filter")],
)
def test_an_answer_that_was_cut_off_says_why_and_has_its_usage(
    client: openai.OpenAI, model: str, reason: str, why: str
) -> None:
    answer = client.responses.create(model=model, input="x")
    assert answer.incomplete_details is not None
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", why)
    assert answer.usage is not None
    assert answer.usage.output_tokens == 1
    said = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "x"}])
    assert said.choices[0].finish_reason == reason


def test_a_call_that_was_cut_off_and_made_again_does_not_count(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="CutOffOnce", input="x")
    assert (answer.status, answer.output_text) == ("completed", "right")
    said = client.chat.completions.create(model="CutOffOnce", messages=[{"role": "user", "content": "x"}])
    assert said.choices[0].finish_reason == "stop"


def test_a_chat_completion_at_once_leaves_out_what_was_taken_back(client: openai.OpenAI) -> None:
    said = client.chat.completions.create(model="Retracting", messages=[{"role": "user", "content": "x"}])
    assert said.choices[0].message.content == "right"


def test_a_chat_completion_does_not_send_waiting_text_that_was_taken_back(client: openai.OpenAI) -> None:
    chunks = client.chat.completions.create(
        model="RetractedWhileWaiting", messages=[{"role": "user", "content": "x"}], stream=True
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == "low tide\n\nright"


def test_a_run_of_which_only_the_chunks_were_asked_for_has_its_usage_and_its_end(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="Observed", input="x")
    assert answer.usage is not None
    assert (answer.output_text, answer.usage.output_tokens) == ("low tide at noon", 1)


def test_a_run_in_which_no_model_speaks_answers_with_its_result(client: openai.OpenAI) -> None:
    assert client.responses.create(model="Routed", input="x").output_text == "one two"
    said = client.chat.completions.create(model="Routed", messages=[{"role": "user", "content": "x"}])
    assert said.choices[0].message.content == "one two"


def test_a_response_that_fails(client: openai.OpenAI) -> None:
    failed: list[Any] = []
    with client.responses.stream(model="Failing", input="x") as stream:
        failed.extend(event.response for event in stream if event.type == "response.failed")
    assert failed[0].error.message == "ConnectionError: line cut"
    with pytest.raises(openai.InternalServerError, match="ConnectionError: line cut"):
        client.responses.create(model="Failing", input="x")


def test_a_chat_completion_streams_word_by_word(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="Plain",
            messages=[{"role": "user", "content": "Is it low tide?"}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert [chunk.choices[0].delta.content for chunk in chunks[:-2]] == ["low", " tide", " at", " noon"]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 1
    assert asked[-1].text == "Is it low tide?"


def test_a_chat_completion_at_once(client: openai.OpenAI) -> None:
    said = client.chat.completions.create(model="Plain", messages=[{"role": "user", "content": "x"}])
    assert said.choices[0].message.content == "low tide at noon"
    assert said.usage is not None
    assert said.usage.prompt_tokens == 2


def test_in_a_chat_completion_nobody_interrupts(client: openai.OpenAI) -> None:
    chunks = client.chat.completions.create(model="Parallel", messages=[{"role": "user", "content": "x"}], stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert sorted(text.split("\n\n")) == ["calm in the north", "storm in the south"]


def test_a_chat_completion_that_fails(client: openai.OpenAI) -> None:
    chunks = client.chat.completions.create(model="Failing", messages=[{"role": "user", "content": "x"}], stream=True)
    with pytest.raises(openai.APIError, match="ConnectionError: line cut"):
        list(chunks)


@pytest.mark.parametrize("model", [name for name in MODELS if name not in ("Waiting", "Refusing")])
def test_every_run_is_one_that_the_client_can_read(client: openai.OpenAI, model: str) -> None:
    with client.responses.stream(model=model, input="x") as stream:
        assert [event.type for event in stream][-1] in (
            "response.completed",
            "response.incomplete",
            "response.failed",
        )


def test_a_client_that_leaves_disposes_the_run(client: openai.OpenAI) -> None:
    is_stopped.clear()
    with client.responses.stream(model="Waiting", input="x") as stream:
        assert any(event.type == "response.output_text.delta" for event in stream)
        assert not is_stopped.is_set()
    assert is_stopped.wait(PATIENCE_S)


def test_a_client_that_leaves_before_a_whole_answer_disposes_the_run(url: str) -> None:
    is_stopped.clear()

    is_started.clear()

    async def leave() -> None:
        async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
            asking = asyncio.create_task(client.post(f"{url}/v1/responses", json={"model": "Waiting", "input": "x"}))
            assert await asyncio.to_thread(is_started.wait, PATIENCE_S)
            asking.cancel()
            await asyncio.wait([asking])

    asyncio.run(leave())
    assert is_stopped.wait(PATIENCE_S)


def test_a_run_that_is_cut_short_is_no_answer(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError, match="the run was cancelled"):
        client.chat.completions.create(model="Limited", messages=[{"role": "user", "content": "hi"}])
    with pytest.raises(openai.InternalServerError, match="the run was cancelled"):
        client.responses.create(model="Limited", input="hi")
    with pytest.raises(openai.APIError, match="the run was cancelled"):
        list(client.chat.completions.create(model="Limited", messages=[{"role": "user", "content": "hi"}], stream=True))


@pytest.mark.parametrize("model", ["Paying", "PayingCrew"])
def test_a_run_that_waits_for_a_person_ends_with_the_answer_so_far(client: openai.OpenAI, model: str) -> None:
    assert client.responses.create(model=model, input="hi").status == "completed"
    said = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}])
    assert said.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("content", [None, [{"type": "text", "text": None}]])
def test_content_that_is_null_is_no_text(url: str, content: Any) -> None:
    asked.clear()
    httpx.post(
        f"{url}/v1/chat/completions",
        json={"model": "Plain", "messages": [{"role": "user", "content": content}]},
        timeout=PATIENCE_S,
    )
    assert [each.text for each in asked] == [""]


def test_the_models_are_listed(client: openai.OpenAI) -> None:
    assert {model.id for model in client.models.list()} == set(MODELS)


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (404, {"model": "nobody", "input": "x"}, "unknown model: 'nobody'; there are: "),
        (400, {"model": "Plain"}, "input is not a list of messages: None"),
        (400, {"model": "Plain", "input": ["x"]}, "input has what is not a message: x"),
        (400, {"input": "x"}, "model is not a string: None"),
        (400, {"model": "Refusing", "input": "x"}, "topic: a name is missing"),
        (400, {"model": "Plain", "input": "x", "stream_options": "all"}, "stream_options is not an object: all"),
        (400, {"model": "Plain", "input": "x", "stream": True, "stream_options": [1]}, "stream_options is not an obj"),
        (400, {"model": "Plain", "input": "x" * (5 << 20)}, "the request is larger than 4194304 bytes"),
        (400, [], "the request is not a JSON object: list"),
    ],
)
def test_a_bad_request_is_refused_in_one_line(url: str, status: int, body: Any, message: str) -> None:
    response = httpx.post(f"{url}/v1/responses", json=body, timeout=PATIENCE_S)
    assert response.status_code == status
    assert response.json()["error"]["message"].startswith(message)
