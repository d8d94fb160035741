"""However a request is sent and its answer read, the events are the same: directly, behind litellm, by its wrapper."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from rxflow import LLM
from rxflow.types import LLMFailed, LLMFinished, StreamChunk, ToolCall, ToolCallChunk, UsageMetrics
from tests.gate import PATIENCE_S
from tests.llm.transcript import transcript
from tests.llm.ways import SEARCH, WAYS, Way, watched
from tests.llm.wire import body_of, cut, delta, usage
from tests.loopback import Loopback, Reply, ToolCall as Call
from tests.loopback.encode import DONE
from tests.signals import Outcome, outcome

PLACES = st.lists(st.integers(min_value=0, max_value=10_000), max_size=8)
EACH_ANSWER = settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)

ANSWERS = [
    pytest.param(Reply(text="Hello big world"), id="text"),
    pytest.param(Reply(text=["a", "", "\n\n", " ", "é€😀"]), id="odd text"),
    pytest.param(Reply(text=["same"] * 150), id="150 equal chunks"),
    pytest.param(Reply(text=[]), id="nothing"),
    pytest.param(Reply(reasoning=["Let me ", "think."], text="42"), id="reasoning"),
    pytest.param(Reply(tool_calls=[Call("search", {"query": "rx"}, id="one")]), id="tool call"),
    pytest.param(
        Reply(
            text="Looking.",
            tool_calls=[Call("search", {"query": "a"}, id="one"), Call("search", {"query": "b"}, id="two")],
        ),
        id="text and two tool calls",
    ),
    pytest.param(Reply(text="cut off by", finish_reason="length"), id="length"),
    pytest.param(Reply(text="Yes.", usage=(123, 45)), id="usage"),
]

OWN_TOOLS: list[dict[str, Any]] = [
    {"type": "web_search"},
    {"type": "web_search_20250305", "name": "web_search", "max_uses": 5},
    {"googleSearch": {}},
]


def each_way(provider: Loopback, *replies: Reply) -> list[Outcome]:
    """The same call, each way."""
    seen: list[Outcome] = []
    for way in WAYS.values():
        provider.script(*replies)
        with way.model(provider.url) as llm:
            seen.append(outcome(llm.events("Hi", [SEARCH])))
    return seen


@pytest.mark.parametrize("reply", ANSWERS)
def test_all_ways_deliver_the_same_events(provider: Loopback, reply: Reply) -> None:
    direct, *others = each_way(provider, reply)
    for other in others:
        assert transcript(other) == transcript(direct)
    assert direct.error is None
    assert direct.text == "".join(reply.text or ())


@EACH_ANSWER
@given(reply=st.sampled_from([each.values[0] for each in ANSWERS if each.id != "150 equal chunks"]), places=PLACES)
def test_all_ways_deliver_the_same_however_the_network_cuts_the_bytes(
    provider: Loopback, llm: LLM, reply: Reply, places: list[int]
) -> None:
    provider.script(reply)
    whole = outcome(llm.events("Hi", [SEARCH]))
    direct, *others = each_way(provider, Reply(raw=cut(body_of(reply), places)))
    assert [each[:2] for each in transcript(direct)[:-1]] == [each[:2] for each in transcript(whole)[:-1]]
    for other in others:
        assert transcript(other) == transcript(direct)


def test_a_program_with_a_litellm_callback_has_it_called_with_the_whole_answer(provider: Loopback, llm: LLM) -> None:
    provider.script(Reply(text="Hello big world", usage=(7, 3)))
    logged: list[Any] = []
    called = threading.Event()

    async def note(request: Any, response: Any, start: Any, end: Any) -> None:
        logged.append(response)
        called.set()

    with watched(note):
        assert llm.call("Hi") == "Hello big world"
        assert called.wait(PATIENCE_S)
    assert logged[0].choices[0].message.content == "Hello big world"
    assert logged[0].usage.total_tokens == 10


def test_a_call_to_gemini_does_not_send_all_later_ones_through_the_wrapper(provider: Loopback, llm: LLM) -> None:
    """It registers litellm's own "cache", which has nothing to do if no cache is set."""
    provider.answer(lambda request: Reply(text="Hello"))
    llm.call("Hi")
    with watched("cache"):
        llm.call("Hi")
    with watched():
        llm.call("Hi")
    direct, with_its_own, with_a_programs = (request.headers["user-agent"] for request in provider.requests)
    assert direct == with_its_own != with_a_programs


def test_usage_and_cost_are_kept_if_litellm_only_pretends_to_stream(provider: Loopback) -> None:
    """It asks some models for the whole answer, and returns that in one item, with the usage."""
    provider.script(Reply(text="Hello", usage=(77, 55)))
    llm = LLM("azure/o1", base_url=provider.url, api_key="k", api_version="2024-12-01-preview", max_retries=0)
    finished = outcome(llm.events("Hi")).one(LLMFinished)
    assert not provider.requests[0].stream
    assert (finished.text, finished.usage.prompt_tokens, finished.usage.completion_tokens) == ("Hello", 77, 55)
    assert finished.cost is not None


@pytest.mark.parametrize("tool", OWN_TOOLS, ids=repr)
def test_a_providers_own_tool_is_sent_as_it_is(provider: Loopback, tool: dict[str, Any]) -> None:
    for way in WAYS.values():
        with way.model(provider.url) as llm:
            assert outcome(llm.events("Hi", [tool, SEARCH])).error is None, way
    assert [request.tools for request in provider.requests] == [[tool, SEARCH]] * len(WAYS)


class TestWhatAnAnswerSays:
    @pytest.fixture(params=[(way, name) for way in WAYS for name in ("openai", "hosted_vllm")], ids=" ".join)
    def llm(self, request: pytest.FixtureRequest, provider: Loopback) -> Iterator[LLM]:
        way, provider_name = request.param
        with WAYS[way].model(provider.url, f"{provider_name}/gpt-4o") as llm:
            yield llm

    def test_text_comes_delta_by_delta(self, provider: Loopback, llm: LLM) -> None:
        provider.script(Reply(text=["He", "llo", "", " world"]))
        seen = outcome(llm.events("Hi"))
        assert seen.texts == ["He", "llo", " world"]
        assert seen.one(LLMFinished).text == "Hello world"
        assert seen.one(LLMFinished).finish_reason == "stop"

    def test_each_delta_of_a_tool_call_says_which_call_it_belongs_to(self, provider: Loopback, llm: LLM) -> None:
        provider.script(
            Reply(
                tool_calls=[
                    Call("search", {"query": "a long question"}, id="one"),
                    Call("lookup", {"key": "k"}, id="two"),
                ]
            )
        )
        seen = outcome(llm.events("Hi", [SEARCH]))
        deltas = [chunk.tool_call or ToolCallChunk() for chunk in seen.of(StreamChunk)]
        assert {(each.index, each.tool_id, each.tool_name) for each in deltas} == {
            (0, "one", "search"),
            (1, "two", "lookup"),
        }
        assert [chunk.content for chunk in seen.of(StreamChunk)] == [each.arguments for each in deltas]
        assert "".join(each.arguments for each in deltas if each.index == 0) == '{"query": "a long question"}'
        assert seen.one(LLMFinished).tool_calls == (
            ToolCall(id="one", name="search", arguments='{"query": "a long question"}'),
            ToolCall(id="two", name="lookup", arguments='{"key": "k"}'),
        )
        assert seen.one(LLMFinished).finish_reason == "tool_calls"

    def test_interleaved_tool_calls_are_put_together_each_for_itself(self, provider: Loopback, llm: LLM) -> None:
        def call(index: int, arguments: str, **opening: Any) -> bytes:
            name = opening.pop("name", None)
            function = {"arguments": arguments} | ({"name": name} if name else {})
            return delta(tool_calls=[{"index": index, "type": "function", "function": function, **opening}])

        provider.script(
            Reply(
                raw=[
                    call(0, "", id="one", name="search"),
                    call(1, "", id="two", name="lookup"),
                    call(1, '{"k'),
                    call(0, '{"q'),
                    call(0, '":1}'),
                    call(1, '":2}'),
                    delta("tool_calls"),
                    usage(prompt_tokens=1, completion_tokens=1, total_tokens=2),
                    DONE,
                ]
            )
        )
        assert outcome(llm.events("Hi", [SEARCH])).one(LLMFinished).tool_calls == (
            ToolCall(id="one", name="search", arguments='{"q":1}'),
            ToolCall(id="two", name="lookup", arguments='{"k":2}'),
        )

    def test_reasoning_is_told_apart_from_the_answer(self, provider: Loopback, llm: LLM) -> None:
        provider.script(Reply(reasoning=["Let me ", "think."], text="42"))
        seen = outcome(llm.events("Hi"))
        assert ("reasoning", "Let me ") in transcript(seen)
        assert seen.text == "42"
        assert seen.one(LLMFinished).reasoning == "Let me think."

    def test_usage_is_what_the_provider_counted(self, provider: Loopback, llm: LLM) -> None:
        provider.script(
            Reply(
                raw=[
                    delta(content="Hi"),
                    delta("stop"),
                    usage(
                        prompt_tokens=100,
                        completion_tokens=50,
                        total_tokens=150,
                        prompt_tokens_details={"cached_tokens": 30},
                        completion_tokens_details={"reasoning_tokens": 20},
                    ),
                    DONE,
                ]
            )
        )
        assert outcome(llm.events("Hi")).one(LLMFinished).usage == UsageMetrics(
            prompt_tokens=100,
            completion_tokens=50,
            total_tokens=150,
            cached_prompt_tokens=30,
            reasoning_tokens=20,
            successful_requests=1,
        )

    def test_the_finish_reason_of_the_provider_is_kept(self, provider: Loopback, llm: LLM) -> None:
        provider.script(Reply(text="and so", finish_reason="length"))
        assert outcome(llm.events("Hi")).one(LLMFinished).finish_reason == "length"

    def test_the_connection_is_used_again(self, provider: Loopback, llm: LLM) -> None:
        for _ in range(3):
            llm.call("Hi")
        assert provider.connections == 1
        assert provider.disconnects == []

    def test_an_answer_that_is_cut_short_is_an_error_with_its_text_kept(self, provider: Loopback, llm: LLM) -> None:
        provider.script(Reply(text=["It ", "was "], end_after=2))
        seen = outcome(llm.events("Hi"))
        assert seen.one(LLMFailed).text == "It was "
        assert "before the answer was complete" in str(seen.error)
        assert len(provider.requests) == 1


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
class TestCost:
    def test_a_known_model_has_a_cost_in_dollars(self, way: Way, provider: Loopback) -> None:
        provider.script(Reply(text="Hi", usage=(1_000_000, 0)), Reply(text="Hi", usage=(0, 1_000_000)))
        with way.model(provider.url) as llm:
            prompt, answer = (outcome(llm.events("Hi")).one(LLMFinished).cost for _ in range(2))
        assert prompt is not None
        assert answer is not None
        assert 0 < prompt < answer

    def test_a_service_tier_has_a_price_of_its_own(self, way: Way, provider: Loopback) -> None:
        costs: list[float] = []
        for tier in ("default", "flex"):
            provider.script(Reply(text="Hi", usage=(1_000_000, 1_000_000)))
            with way.model(provider.url, "openai/o3", service_tier=tier) as llm:
                cost = outcome(llm.events("Hi")).one(LLMFinished).cost
            assert cost is not None
            costs.append(cost)
        assert costs[1] == pytest.approx(costs[0] / 2)

    def test_an_unknown_model_has_none(self, way: Way, provider: Loopback) -> None:
        with way.model(provider.url, "openai/my-own-model") as mine:
            assert outcome(mine.events("Hi")).one(LLMFinished).cost is None
