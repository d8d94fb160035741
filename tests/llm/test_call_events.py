"""What the events of one call say: whom it asked and what, what came back, what it has cost; however it ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
import reactivex as rx
from reactivex import operators as rxops

from rxflow import LLM, Flow, operators as ops
from rxflow.flow import start
from rxflow.llm.source import Delta, Request, Source
from rxflow.testing import VirtualClock
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import FlowFinished, LLMCancelled, LLMFailed, LLMFinished, LLMStarted
from rxflow.types.results import UsageMetrics
from tests.loopback import Loopback, Reply, ToolCall
from tests.loopback.dialects import DIALECTS, Dialect
from tests.signals import Outcome, outcome

LOOK: dict[str, Any] = {
    "type": "function",
    "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object", "properties": {}}},
}


@pytest.mark.parametrize("dialect", DIALECTS, ids=str)
def test_the_start_names_the_provider_and_its_server(provider: Loopback, dialect: Dialect) -> None:
    started = outcome(dialect.make_llm(provider.url).events("Hi")).one(LLMStarted)

    server = urlsplit(provider.url)
    assert started.model == dialect.model
    assert started.provider == dialect.model.split("/")[0]
    assert (started.server_address, started.server_port) == (server.hostname, server.port)
    assert [message["content"] for message in started.messages] == ["Hi"]


def test_the_start_has_the_options_of_the_request_without_its_secrets(provider: Loopback) -> None:
    headers = {"Authorization": "Bearer hidden", "X-Team": "green"}
    options: dict[str, Any] = {"temperature": 0.5, "stop": ["END"], "extra_headers": headers}
    llm = LLM("openai/gpt-4o", base_url=provider.url, api_key="very-secret", **options)

    started = outcome(llm.events("Hi")).one(LLMStarted)

    assert {"temperature": 0.5, "stop": ["END"]}.items() <= started.parameters.items()
    assert started.parameters["extra_headers"]["X-Team"] == "green"
    assert "hidden" not in repr(started)
    assert "very-secret" not in repr(started)
    assert provider.requests[0].headers["authorization"] == "Bearer hidden"


def test_the_start_has_the_tools_that_the_model_is_offered(provider: Loopback, llm: LLM) -> None:
    assert outcome(llm.events("Hi", tools=[LOOK])).one(LLMStarted).tools == (LOOK,)
    assert outcome(llm.events("Hi")).one(LLMStarted).tools == ()


def test_the_end_has_the_providers_names_and_the_message_for_the_next_request(provider: Loopback, llm: LLM) -> None:
    provider.script(Reply(text=["It ", "says"], tool_calls=[ToolCall("look", {}, id="call_7")]))

    finished = outcome(llm.events("Hi", tools=[LOOK])).one(LLMFinished)

    assert finished.response_id == "chatcmpl-1"
    assert finished.response_model == "gpt-4o"
    assert finished.message["role"] == "assistant"
    assert finished.message["content"] == "It says"
    assert [call["id"] for call in finished.message["tool_calls"]] == ["call_7"]
    assert outcome(llm.events([dict(finished.message), {"role": "user", "content": "And?"}])).error is None
    assert provider.requests[-1].messages[0] == finished.message


class Asking(Flow):
    """A method that answers with a stream."""

    def __init__(self, make: Callable[[], Any]) -> None:
        super().__init__()
        self._make = make

    @start()
    def answer(self) -> Any:
        return self._make()


def run(make: Callable[[], Any]) -> Outcome:
    return outcome(Asking(make).events())


STOPS: dict[str, Callable[[], Any]] = {
    "limit_tokens": lambda: ops.limit_tokens(2),
    "stop_at": lambda: ops.stop_at("two"),
    "take": lambda: rxops.take(4),
    "idle_timeout": lambda: rx.compose(ops.idle_timeout(2.0), ops.fallback_to(rx.just("so"))),
}


@pytest.mark.slow
@pytest.mark.parametrize("stop", STOPS)
def test_a_call_that_was_stopped_has_an_estimated_usage_and_its_cost(stop: str, provider: Loopback, llm: LLM) -> None:
    provider.script(Reply(text=["one ", "two ", "three ", "four "], hold_after=4))

    seen = run(lambda: llm.events("Hi").pipe(STOPS[stop]()))

    call, flow = seen.one(LLMCancelled), seen.one(FlowFinished)
    assert call.usage.is_estimated
    assert call.usage.prompt_tokens
    assert call.usage.completion_tokens
    assert call.cost is not None
    assert call.cost > 0
    assert call.text.startswith("one two")
    assert (flow.usage, flow.cost) == (call.usage, call.cost)


def test_a_call_that_waited_for_its_first_chunk_has_cost_its_prompt(provider: Loopback, llm: LLM) -> None:
    replies = {"Are you late?": Reply(text="late", hold_after=0), "Hi": Reply(text="in time")}
    provider.answer(lambda request: replies[request.last_user])

    late = llm.observe("Are you late?")
    seen = run(lambda: late.pipe(ops.first_chunk_timeout(1.0), ops.fallback_to(llm.observe("Hi"))))

    stopped, finished, flow = seen.one(LLMCancelled), seen.one(LLMFinished), seen.one(FlowFinished)
    assert (stopped.text, stopped.usage.completion_tokens, stopped.usage.is_estimated) == ("", 0, True)
    assert stopped.cost is not None
    assert finished.cost is not None
    assert flow.usage == stopped.usage + finished.usage
    assert flow.usage.is_estimated
    assert flow.cost == pytest.approx(stopped.cost + finished.cost)


def test_a_call_that_fails_in_mid_answer_has_an_estimated_usage_and_its_cost(provider: Loopback, llm: LLM) -> None:
    provider.script(Reply(text=["one ", "two ", "three "], reset_after=2))

    seen = run(lambda: llm.observe("Hi").pipe(ops.fallback_to(rx.just("Sorry"))))

    call, flow = seen.one(LLMFailed), seen.one(FlowFinished)
    assert call.text == "one two "
    assert call.usage.is_estimated
    assert call.cost is not None
    assert call.cost > 0
    assert (flow.usage, flow.cost) == (call.usage, call.cost)


def test_of_a_call_that_was_refused_nothing_is_known_and_nothing_is_zero(provider: Loopback) -> None:
    provider.script(Reply(status=400))
    llm = LLM("openai/gpt-4o", base_url=provider.url, api_key="k", max_retries=0)

    call = outcome(llm.events("Hi")).one(LLMFailed)

    assert call.usage == UsageMetrics()
    assert call.usage.total_tokens is None
    assert call.cost is None


def test_a_source_without_an_ending_has_the_usage_that_its_run_counts() -> None:
    class Short(Source):
        def stream(self, request: Request) -> rx.Observable[Delta]:
            return rx.of("one ", "two ")

    llm = LLM("openai/gpt-4o", source=Short())

    seen = run(lambda: llm.events("Hi"))

    call, flow = seen.one(LLMFinished), seen.one(FlowFinished)
    assert call.usage.is_estimated
    assert call.usage.completion_tokens
    assert call.cost
    assert (flow.usage, flow.cost) == (call.usage, call.cost)


def test_the_cost_of_a_stopped_call_is_that_of_its_service_tier(provider: Loopback) -> None:
    def cost(tier: str) -> float:
        provider.script(Reply(text=["one ", "two "], hold_after=2))
        llm = LLM("openai/o3", base_url=provider.url, api_key="k", service_tier=tier)
        stopped = run(lambda: llm.events("Hi").pipe(rxops.take(2))).one(LLMCancelled)
        assert stopped.cost is not None
        return stopped.cost

    assert cost("flex") == pytest.approx(cost("default") / 2)


def test_a_model_without_a_price_has_tokens_and_no_cost(provider: Loopback) -> None:
    provider.script(Reply(text=["one ", "two "], hold_after=2))
    llm = LLM("openai/our-own", base_url=provider.url, api_key="k")

    seen = run(lambda: llm.events("Hi").pipe(rxops.take(2)))

    assert seen.one(LLMCancelled).usage.is_estimated
    assert seen.one(LLMCancelled).cost is None
    assert seen.one(FlowFinished).cost is None


def test_events_have_the_time_of_the_clock() -> None:
    with VirtualClock():
        events = outcome(LLM("rxflow/demo", pace=0.5).events("Hi")).events

    times = [event.at for event in events if isinstance(event, StreamChunk)]
    assert times == pytest.approx([times[0] + 0.5 * number for number in range(len(times))])
    assert events[-1].at == pytest.approx(times[-1] + 0.5)
