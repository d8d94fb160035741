"""A model without function calling works with tools: they are offered and called in text that no reader sees."""

import importlib
import json
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import reactivex as rx
from hypothesis import given, settings, strategies as st

from rxflow import LLM
from rxflow.llm.source import Delta, Ending, Message, ReasoningDelta, Request, Source
from rxflow.tools import tool
from rxflow.types import LLMFailed, LLMFinished, ReasoningChunk, StreamChunk, ToolCall
from tests.loopback import Loopback, Reply
from tests.scripted import Scripted
from tests.signals import Outcome, outcome
from tests.team import solo

SEARCH = {
    "type": "function",
    "function": {"name": "search", "description": "Searches the web.", "parameters": {"type": "object"}},
}


def fence(name: str, **arguments: Any) -> str:
    return f"```tool_call\n{json.dumps({'name': name, 'arguments': arguments})}\n```"


def said(*pieces: str) -> Outcome:
    """What comes of a model that says this when it was offered a tool."""
    return outcome(Scripted(list(pieces), native=False).llm.events("Hi", [SEARCH]))


def letters(text: str) -> list[str]:
    return list(text)


def whole(text: str) -> list[str]:
    return [text]


ANSWERS = st.lists(
    st.one_of(
        st.sampled_from(
            ["Let me look. ", "\n\n", " ", "`x` and ", "```\ncode\n```\n", "```tool", "``", "a", "```tool_calls "]
        ),
        st.sampled_from([fence("search", query="rx"), fence("search", code="```py\nx = 1\n```"), fence("other")]),
    ),
    max_size=6,
).map("".join)


@settings(deadline=None)
@given(ANSWERS, st.lists(st.integers(0, 300), max_size=8))
def test_the_same_text_and_calls_come_however_the_answer_is_cut(answer: str, places: list[int]) -> None:
    whole = said(answer).one(LLMFinished)
    edges = [0, *sorted(place % (len(answer) + 1) for place in places), len(answer)]
    cut = said(*(answer[start:end] for start, end in pairwise(edges)))
    finished = cut.one(LLMFinished)
    assert (finished.text, finished.tool_calls) == (whole.text, whole.tool_calls)
    assert cut.text == finished.text
    assert "tool_call\n" not in cut.text
    assert '"arguments"' not in cut.text


def test_a_call_is_told_apart_from_the_text_around_it() -> None:
    seen = said(*letters(f"Let me look.\n{fence('search', query='rx')}\nDone."))
    finished = seen.one(LLMFinished)
    assert seen.text == finished.text == "Let me look.Done."
    assert finished.tool_calls == (ToolCall(id="call_text_0", name="search", arguments='{"query": "rx"}'),)
    assert finished.finish_reason == "tool_calls"


def test_several_calls_have_their_order_and_ids_of_their_own() -> None:
    finished = said(fence("search", query="a") + "\n" + fence("search", query="b")).one(LLMFinished)
    assert finished.text == ""
    assert [(call.id, call.arguments) for call in finished.tool_calls] == [
        ("call_text_0", '{"query": "a"}'),
        ("call_text_1", '{"query": "b"}'),
    ]


def test_text_is_not_held_back_longer_than_it_may_be_a_call() -> None:
    assert said("One ", "two ", "`three` ", "```py", "\nx\n```").texts == [
        "One",
        " two",
        " `three`",
        " ```py",
        "\nx",
        "\n```",
    ]


def test_text_without_a_call_stays_as_it_is() -> None:
    text = " ```tool\n```tool_\n  "
    seen = said(*letters(text))
    assert seen.text == text
    assert seen.one(LLMFinished).finish_reason == "stop"


@pytest.mark.parametrize(
    "text", ["The block ```tool_calls is one format. Bye.", "```tool_call_2\n{}\n```\n", "```tool_call"]
)
@pytest.mark.parametrize("cut", [letters, whole], ids=["letters", "whole"])
def test_a_longer_word_is_not_the_beginning_of_a_call(text: str, cut: Callable[[str], list[str]]) -> None:
    finished = said(*cut(text)).one(LLMFinished)
    assert (finished.text, finished.tool_calls) == (text, ())


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_an_answer_that_was_cut_off_in_a_call_says_why(reason: str) -> None:
    answer: list[Delta] = [fence("search", query="a"), '\n```tool_call\n{"name": "search", "argum', Ending(reason)]
    finished = outcome(Scripted(answer, native=False).llm.events("Hi", [SEARCH])).one(LLMFinished)
    assert finished.finish_reason == reason
    assert [call.name for call in finished.tool_calls] == ["search", ""]


@pytest.mark.parametrize("reason", ["stop", None])
def test_an_answer_that_ends_after_a_call_says_so(reason: str | None) -> None:
    answer: list[Delta] = [fence("search", query="a"), Ending(reason)]
    finished = outcome(Scripted(answer, native=False).llm.events("Hi", [SEARCH])).one(LLMFinished)
    assert finished.finish_reason == "tool_calls"


@pytest.mark.parametrize("end", ["", "\n", "```", "\n``"])
def test_a_call_that_was_never_closed_counts(end: str) -> None:
    (call,) = said('```tool_call\n{"name": "search", "arguments": {"query": "rx"}}' + end).one(LLMFinished).tool_calls
    assert (call.name, call.arguments) == ("search", '{"query": "rx"}')


@pytest.mark.parametrize(
    ("first", "again"), [("```tool_call\n", "xx xx "), ("a", " \n ")], ids=["in a fence", "white space"]
)
def test_what_is_held_back_takes_time_in_proportion_to_its_size(first: str, again: str) -> None:
    def seconds(pieces: int) -> float:
        before = time.process_time()
        assert said(first, *[again] * pieces).error is None
        return time.process_time() - before

    said(first)  # what is done once is not to be counted
    few, many = (min(seconds(pieces) for _ in range(3)) for pieces in (5_000, 40_000))
    assert many / few < 24  # 8 in proportion; 64, were each piece joined to all before it


@pytest.mark.parametrize("text", ["Let me look. ", "a ``", "a\n```tool_"])
def test_text_that_was_held_back_is_in_what_a_failed_answer_said(text: str) -> None:
    seen = outcome(Scripted([text, OSError("gone")], native=False).llm.events("Hi", [SEARCH]))
    assert seen.one(LLMFailed).text == seen.text == text


def test_a_call_that_an_error_cuts_off_is_none() -> None:
    begun = '```tool_call\n{"name": "search"'
    seen = outcome(Scripted(["a ", begun, OSError("gone")], native=False).llm.events("Hi", [SEARCH]))
    assert seen.one(LLMFailed).text == "a"
    assert [chunk for chunk in seen.of(StreamChunk) if chunk.tool_call is not None] == []


def test_text_that_was_held_back_comes_without_an_ending_too() -> None:
    class Short(Source):
        def stream(self, request: Request) -> rx.Observable[Delta]:
            return rx.of("a ", '```tool_call\n{"name": "search", "arguments": {}}')

        async def calls_functions(self, model: str) -> bool:
            return False

    finished = outcome(LLM("short", source=Short()).events("Hi", [SEARCH])).one(LLMFinished)
    assert finished.text == "a"
    assert [call.name for call in finished.tool_calls] == ["search"]


def test_reasoning_is_passed_on() -> None:
    seen = outcome(Scripted([ReasoningDelta("Hm."), "42"], native=False).llm.events("Hi", [SEARCH]))
    assert seen.one(ReasoningChunk).content == "Hm."
    assert seen.text == "42"


def test_the_tools_are_described_to_the_model_in_words() -> None:
    source = Scripted("Hello", native=False)
    outcome(source.llm.events("Hi", [SEARCH]))
    (request,) = source.requests
    assert not request.tools
    assert "Searches the web." in str(request.messages[0]["content"])


def test_a_providers_own_tool_is_sent_as_it_is_and_not_described_in_words() -> None:
    source = Scripted("Hello", native=False)
    assert outcome(source.llm.events("Hi", [{"type": "web_search"}, SEARCH])).error is None
    assert outcome(source.llm.events("Hi", [{"type": "web_search"}])).error is None
    with_search, without = source.requests
    assert [list(request.tools) for request in source.requests] == [[{"type": "web_search"}]] * 2
    assert "Searches the web." in str(with_search.messages[0]["content"])
    assert "web_search" not in str(with_search.messages)
    assert [message["role"] for message in without.messages] == ["user"]


def test_a_model_without_function_calling_uses_a_tool_and_answers() -> None:
    asked: list[str] = []

    @tool
    def search(query: str) -> str:
        """Search the web."""
        asked.append(query)
        return f"found {query}"

    source = Scripted(f"Let me look. {fence('search', query='rx')}", "It is there.", native=False)
    assert solo(source, agent={"tools": [search]}).kickoff().raw == "It is there."
    assert asked == ["rx"]
    *_, call, result = source.conversations[1]
    assert call == {"role": "assistant", "content": f"Let me look.\n{fence('search', query='rx')}"}
    assert result["role"] == "user"
    assert "found rx" in result["content"]


def test_a_result_is_told_with_the_name_of_its_call() -> None:
    """OpenAI's messages have only the id of the call."""
    source = Scripted("It is there.", native=False)
    called = [("c1", "search"), ("c2", "look")]
    functions = [
        {"id": call_id, "type": "function", "function": {"name": name, "arguments": "{}"}} for call_id, name in called
    ]
    messages: list[Message] = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [{"type": "text", "text": "Let me look."}], "tool_calls": functions},
        {"role": "tool", "tool_call_id": "c2", "content": "a tern"},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "found "}, "rx"]},
    ]
    outcome(source.llm.events(messages))
    _, call, *results = [message["content"] for message in source.conversations[0]]
    assert call == f"Let me look.\n{fence('search')}\n{fence('look')}"
    assert results == ["Result of the tool look:\na tern", "Result of the tool search:\nfound rx"]


def test_litellm_says_which_models_call_functions(provider: Loopback) -> None:
    litellm: Any = importlib.import_module("litellm")
    name = next(
        name
        for name, info in litellm.model_cost.items()
        if info.get("litellm_provider") == "openai"
        and info.get("mode") == "chat"
        and not litellm.supports_function_calling(name)
    )
    provider.script(Reply(text=fence("search", query="rx")))
    model = LLM(f"openai/{name}", base_url=provider.url, api_key="k")
    (call,) = model.call("Hi", [SEARCH])
    assert (call.name, call.arguments) == ("search", '{"query": "rx"}')
    assert provider.requests[0].tools == []


def test_a_server_of_ones_own_may_be_said_to_call_no_functions(provider: Loopback) -> None:
    provider.script(Reply(text=fence("search", query="rx")))
    model = LLM("openai/my-own", base_url=provider.url, api_key="k", function_calling=False)
    (call,) = model.call("Hi", [SEARCH])
    assert call.name == "search"
    assert provider.requests[0].tools == []
