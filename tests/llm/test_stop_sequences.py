"""``stop`` ends an answer, whether the model takes the parameter or not."""

import asyncio
from typing import Any

import pytest
import reactivex as rx
from hypothesis import given, strategies as st
from pydantic import BaseModel
from reactivex import Observable, Subject, operators as rxops

from rxflow import LLM
from rxflow.llm._call import StopSequences, cut_at_stop
from rxflow.llm.source import Delta, Ending, ReasoningDelta, RefusalDelta, Request, Source, ToolCallDelta
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import LLMFailed, LLMFinished
from rxflow.types.results import UsageMetrics
from tests.loopback import Loopback, Reply
from tests.operators.endings import refuse
from tests.scripted import Scripted, calls
from tests.signals import outcome
from tests.team import solo


def answer(*pieces: Delta, stop: str | list[str]) -> LLMFinished:
    seen = outcome(LLM("scripted", source=Scripted(pieces), stop=stop).events("?"))
    finished = seen.one(LLMFinished)
    assert "".join(chunk.content for chunk in seen.of(StreamChunk) if chunk.tool_call is None) == finished.text
    return finished


def expected(text: str, stop: list[str]) -> str:
    """What a model gives that looks after each character whether it has written one of them."""
    for length in range(len(text) + 1):
        ends = [each for each in stop if text[:length].endswith(each)]
        if ends:
            return text[: length - max(map(len, ends))]
    return text


PIECES = st.lists(st.text("abc", max_size=4))
STOPS = st.lists(st.text("abc", min_size=1, max_size=4), max_size=3)


@given(PIECES, STOPS)
def test_the_text_ends_where_it_would_have_at_the_provider(pieces: list[str], stop: list[str]) -> None:
    sequences = StopSequences(stop)
    shown = ""
    for piece in pieces:
        shown += sequences.feed(piece)
        assert expected("".join(pieces), stop).startswith(shown), "nothing is shown that is taken back"
        if sequences.is_met:
            break
    assert shown + sequences.flush() == expected("".join(pieces), stop)


def test_an_answer_ends_in_front_of_the_first_sequence() -> None:
    finished = answer("Thought\nObs", "ervation: it", " rains", stop=["\nObservation:", "END"])
    assert (finished.text, finished.finish_reason) == ("Thought", "stop")
    assert finished.usage == UsageMetrics(
        prompt_tokens=1, completion_tokens=2, total_tokens=3, successful_requests=1, is_estimated=True
    )


def test_what_only_looks_like_one_is_shown() -> None:
    assert answer("a\nObs", "tacle\nObs", stop="\nObservation:").text == "a\nObstacle\nObs"


def test_a_sequence_is_not_looked_for_in_thoughts_and_arguments() -> None:
    search = calls(("search", {"q": "END"}))
    finished = answer(ReasoningDelta("END"), "text E", *search, "ND", stop="END")
    assert (finished.text, finished.reasoning) == ("text END", "END")
    assert [call.arguments for call in finished.tool_calls] == ['{"q": "END"}']


def test_the_connection_is_closed_at_once() -> None:
    source: Subject[Delta] = Subject()
    items: list[Delta] = []
    completed: list[bool] = []
    request = Request(model="m", messages=[], hints={"stop": "END"})
    cut_at_stop(source, request).subscribe(items.append, on_completed=lambda: completed.append(True))
    source.on_next("one EN")
    source.on_next("D two")
    assert source.observers == []
    usage = UsageMetrics(prompt_tokens=0, completion_tokens=1, total_tokens=1, successful_requests=1, is_estimated=True)
    assert (items, completed) == (["one ", Ending("stop", usage)], [True])


def test_a_source_that_raises_when_it_is_disposed_does_not_keep_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stubborn(Source):
        def stream(self, request: Request) -> Observable[Delta]:
            return rx.concat(rx.of("one END"), rx.never()).pipe(rxops.finally_action(refuse))

    async def main() -> LLMFinished:
        asyncio.get_running_loop().set_exception_handler(lambda _, report: reported.append(report["exception"]))
        ended = await LLM("mine", source=Stubborn(), stop="END").events("?")
        assert isinstance(ended, LLMFinished)
        return ended

    reported: list[BaseException] = []
    assert asyncio.run(main()).text == "one "
    assert list(map(type, reported)) == [ZeroDivisionError]


@pytest.mark.parametrize(
    "before", [ReasoningDelta("12345678"), RefusalDelta("12345678"), ToolCallDelta(0, "c", "f", "12345678")]
)
def test_the_estimate_of_a_cut_answer_has_everything_that_came_before_the_cut(before: Delta) -> None:
    usage = answer(before, "1234 END", stop=" END").usage
    assert (usage.completion_tokens, usage.is_estimated) == (3, True)


def test_a_cut_answer_has_the_cost_of_its_estimate(litellm_is_warm: None) -> None:
    def bill(*pieces: Delta | BaseException) -> tuple[int | None, float | None]:
        llm = LLM("openai/gpt-4o", source=Scripted(pieces), stop="END", max_retries=0)
        ended = outcome(llm.events("?")).events[-1]
        assert isinstance(ended, LLMFinished | LLMFailed)
        return ended.usage.total_tokens, ended.cost

    tokens, cost = bill("1234 END")
    assert cost is not None
    assert cost > 0
    assert (tokens, cost) == bill("1234 ", OSError("gone"))


def test_what_was_held_back_comes_before_an_error() -> None:
    source: Subject[Delta] = Subject()
    heard: list[object] = []
    request = Request(model="m", messages=[], parameters={"stop": ["END"]})
    cut_at_stop(source, request).subscribe(heard.append, heard.append)
    source.on_next("one EN")
    source.on_error(gone := OSError("gone"))
    assert heard == ["one ", "EN", gone]


def test_a_real_provider_gets_the_parameter_and_is_left_when_it_goes_on(provider: Loopback, llm: LLM) -> None:
    llm.stop = ["five"]
    provider.script(Reply(text="one two three four five six seven", hold_after=6))
    assert llm.call("Count") == "one two three four "
    assert provider.requests[0].body["stop"] == ["five"]


@pytest.mark.parametrize("model", ["openai/o3", "openai/gpt-5-mini"])
def test_a_model_that_refuses_the_parameter_does_not_get_it(provider: Loopback, model: str) -> None:
    provider.script(Reply(text="one two three four"))
    llm = LLM(model, base_url=provider.url, api_key="k", stop="three")
    assert llm.call("Count") == "one two "
    assert "stop" not in provider.requests[0].body


def test_an_agent_uses_that_of_its_model() -> None:
    assert solo(LLM("scripted", source=Scripted("one two three"), stop=" three")).kickoff().raw == "one two"


def test_tools_in_text_have_them_too() -> None:
    source = Scripted("Let me see. END of it", native=False)
    schema: dict[str, Any] = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {}}}
    assert LLM("scripted", source=source, stop="END").call("?", [schema]) == "Let me see. "


@pytest.mark.parametrize(
    ("stop", "error", "said"),
    [
        ("", ValueError, "a stop sequence is empty: ''"),
        (["a", ""], ValueError, "a stop sequence is empty"),
        (7, TypeError, "stop must be a string or a list of strings; got 7"),
        ([7], TypeError, r"stop must be a string or a list of strings; got \[7\]"),
    ],
)
def test_what_is_not_a_sequence_is_refused(stop: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        LLM("openai/m", stop=stop)


class TestAttributes:
    def test_what_was_given_can_be_read(self) -> None:
        llm = LLM(
            "openai/m",
            temperature=0.5,
            top_p=0.9,
            max_tokens=7,
            stop="END",
            seed=3,
            reasoning_effort="low",
            base_url="http://127.0.0.1:1",
            timeout=4.5,
        )
        assert (llm.temperature, llm.top_p, llm.max_tokens, llm.seed) == (0.5, 0.9, 7, 3)
        assert (llm.stop, llm.reasoning_effort, llm.base_url, llm.timeout) == (
            ["END"],
            "low",
            "http://127.0.0.1:1",
            4.5,
        )
        assert llm.response_format is None

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("presence_penalty", 0.1),
            ("frequency_penalty", 0.2),
            ("logit_bias", {5: -1.0}),
            ("logprobs", True),
            ("top_logprobs", 3),
            ("n", 1),
            ("api_key", "key"),
            ("max_completion_tokens", 7),
            ("api_version", "2026-01-01"),
        ],
    )
    def test_so_can_what_providers_take_besides(self, name: str, value: object) -> None:
        given: dict[str, Any] = {name: value}
        assert getattr(LLM("openai/m", **given), name) == value
        assert getattr(LLM("openai/m"), name) is None

    @pytest.mark.parametrize(("model", "provider"), [("anthropic/m", "anthropic"), ("gpt-4o", "openai"), ("m", "")])
    def test_so_can_its_provider_and_both_names_of_its_address(self, model: str, provider: str) -> None:
        llm = LLM(model, api_base="http://127.0.0.1:1")
        assert (llm.provider, llm.api_base, llm.base_url) == (provider, "http://127.0.0.1:1", "http://127.0.0.1:1")

    def test_what_was_not_given_is_none(self) -> None:
        llm = LLM("openai/m")
        assert (llm.temperature, llm.max_tokens, llm.seed, llm.stop) == (None, None, None, [])

    def test_what_is_set_later_counts(self) -> None:
        source = Scripted("Hi")
        llm = LLM("scripted", source=source, temperature=0.5, seed=1)
        llm.temperature, llm.seed, llm.stop = 0.1, None, ["END"]
        llm.call("?")
        assert source.requests[0].parameters == {"temperature": 0.1}
        assert source.requests[0].hints == {"stop": ["END"]}

    def test_a_model_of_the_answer_is_shown_as_it_was_given(self) -> None:
        assert LLM("openai/m", response_format=Shape).response_format is Shape
        assert LLM("openai/m", response_format={"type": "json_object"}).response_format == {"type": "json_object"}


class Shape(BaseModel):
    text: str
