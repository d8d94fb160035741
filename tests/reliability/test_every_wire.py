"""Every wire gives the same answer, and every way to stop in mid-burst closes the provider's connection on it."""

import asyncio
import gzip
import importlib
import json
from contextlib import suppress
from typing import Any, cast

import pytest
from reactivex import operators as ops

from rxflow import LLM
from rxflow.types import LLMFinished, ToolCall
from rxflow.types.streaming import CrewStreamingOutput
from tests.llm.ways import BEHIND_LITELLM, BY_WRAPPER, SEARCH, Way
from tests.llm.wire import delta, event
from tests.loopback import Loopback, Reply, Request, ToolCall as Called
from tests.loopback.dialects import DIALECTS, Dialect
from tests.signals import outcome
from tests.team import solo

CLOSES = 12
BURST_WORDS = 300
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
WITH_TOOLS = [dialect for dialect in DIALECTS if dialect.has_tools]

on_every_wire = pytest.mark.parametrize("dialect", DIALECTS, ids=str)
on_every_wire_with_tools = pytest.mark.parametrize("dialect", WITH_TOOLS, ids=str)


def finished(provider: Loopback, dialect: Dialect, reply: Reply) -> LLMFinished:
    provider.script(reply)
    return outcome(dialect.make_llm(provider.url).events("Hi", [SEARCH] if reply.tool_calls else [])).one(LLMFinished)


@on_every_wire
def test_text_usage_and_the_end_are_read(provider: Loopback, dialect: Dialect) -> None:
    answer = finished(provider, dialect, Reply(text=["Hello ", "", "big ", "é€😀", "\n\n"], usage=(12, 34)))
    assert (answer.text, answer.finish_reason) == ("Hello big é€😀\n\n", "stop")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (12, 34)


@on_every_wire
@pytest.mark.parametrize("way", [BEHIND_LITELLM, BY_WRAPPER], ids=lambda way: way.name)
def test_a_zipped_answer_is_read_to_its_end(provider: Loopback, dialect: Dialect, way: Way) -> None:
    asked = Request(body=dict(STREAMED), headers={}, at=0.0, number=1, path=dialect.path)
    events = dialect.encode(Reply(text=["Hello ", "big ", "world"], usage=(12, 34)), asked)
    body = gzip.compress(b"".join([events.role, *events.content, *events.end]))
    provider.script(
        Reply(
            raw=[body[:50], body[50:]],
            content_type=dialect.content_type,
            headers={"content-encoding": "gzip"},
        )
    )
    with way.around():
        answer = outcome(dialect.make_llm(provider.url).events("Hi")).one(LLMFinished)
    assert (answer.text, answer.finish_reason, answer.usage.total_tokens) == ("Hello big world", "stop", 46)


@on_every_wire
def test_an_answer_that_was_too_long_says_so(provider: Loopback, dialect: Dialect) -> None:
    assert finished(provider, dialect, Reply(text="cut off by", finish_reason="length")).finish_reason == "length"


@on_every_wire_with_tools
def test_reasoning_is_not_text(provider: Loopback, dialect: Dialect) -> None:
    answer = finished(provider, dialect, Reply(reasoning=["Let me ", "think."], text="42"))
    assert (answer.text, answer.reasoning) == ("42", "Let me think.")


@on_every_wire_with_tools
def test_tool_calls_have_their_names_and_arguments(provider: Loopback, dialect: Dialect) -> None:
    calls = [Called("search", {"query": "a"}, id="one"), Called("search", {"query": "b"}, id="two")]
    answer = finished(provider, dialect, Reply(text="Looking.", tool_calls=calls))
    assert answer.text == "Looking."
    assert [(call.name, read(call)) for call in answer.tool_calls] == [("search", "a"), ("search", "b")]
    assert len({call.id for call in answer.tool_calls}) == 2
    assert answer.finish_reason == "tool_calls"


def read(call: ToolCall) -> object:
    arguments: dict[str, object] = json.loads(call.arguments)
    return arguments["query"]


@on_every_wire
@pytest.mark.parametrize(
    ("status", "kind", "requests"),
    [
        (400, "BadRequestError", 1),
        (401, "AuthenticationError", 1),
        (403, "PermissionDeniedError", 1),
        (404, "NotFoundError", 1),
        (429, "RateLimitError", 2),
        (500, "InternalServerError", 2),
        (503, "ServiceUnavailableError", 2),
    ],
)
def test_a_refusal_has_the_class_of_its_status_and_is_retried_only_if_that_can_help(
    provider: Loopback, dialect: Dialect, status: int, kind: str, requests: int
) -> None:
    refusal = Reply(status=status, error="go away", headers={"retry-after": "0"})
    provider.script(refusal, refusal)
    seen = outcome(dialect.make_llm(provider.url, max_retries=1).events("Hi"))
    assert (type(seen.error).__name__, len(provider.requests)) == (kind, requests)


@on_every_wire
@pytest.mark.parametrize("ends", [{"end_after": 1}, {"reset_after": 1}], ids=["ended", "reset"])
def test_an_answer_that_is_cut_short_is_refused(provider: Loopback, dialect: Dialect, ends: dict[str, int]) -> None:
    provider.script(Reply(raw=[dialect.make_burst(20)], **ends))  # type: ignore[arg-type]
    seen = outcome(dialect.make_llm(provider.url, max_retries=0).events("Hi"))
    assert seen.of(LLMFinished) == []
    assert "".join(f"w{at} " for at in range(20)).startswith(seen.text)
    assert isinstance(seen.error, importlib.import_module("litellm").APIConnectionError), seen.error


@pytest.mark.slow
@pytest.mark.parametrize("way", [BEHIND_LITELLM, BY_WRAPPER], ids=lambda way: way.name)
def test_gemini_with_a_finish_reason_in_each_event_is_read_to_its_end(provider: Loopback, way: Way) -> None:
    gemini = next(dialect for dialect in DIALECTS if dialect.name == "gemini")
    parts: list[Any] = [
        {"executableCode": {"language": "PYTHON", "code": "1"}},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
        {"text": "It is "},
        {"text": "1."},
    ]
    usage = {"promptTokenCount": 1, "candidatesTokenCount": 2, "totalTokenCount": 3}
    said = [{"candidates": [{"content": {"parts": [part]}, "finishReason": "STOP"}]} for part in parts]
    provider.script(Reply(raw=[event(each | {"usageMetadata": usage}) for each in said], pace=0.4))
    with way.around():
        answer = outcome(gemini.make_llm(provider.url).events("Hi")).one(LLMFinished)
    assert (answer.text, answer.finish_reason, answer.usage.total_tokens) == ("It is 1.", "stop", 3)


@pytest.mark.slow
def test_text_after_a_finish_reason_lengthens_the_wait_for_the_end(provider: Loopback, llm: LLM) -> None:
    provider.script(Reply(raw=[delta("stop", content=text) for text in ("a", "b", "c")], pace=1.2))
    assert outcome(llm.events("Hi")).one(LLMFinished).text == "abc"


class Burst:
    """Answers of 300 words in one write, after which nothing comes; each is stopped in the midst of them."""

    def __init__(self, provider: Loopback, dialect: Dialect) -> None:
        self._provider = provider
        self.llm = dialect.make_llm(provider.url, max_retries=0)
        provider.answer(lambda _: Reply(raw=[dialect.make_burst(BURST_WORDS)], stall_after=1))

    def begin(self) -> CrewStreamingOutput:
        """A crew whose agent asks the model."""
        output: Any = solo(self.llm, crew={"stream": True}).kickoff()
        return cast(CrewStreamingOutput, output)

    def assert_all_are_closed(self) -> None:
        """The provider has seen each connection close."""
        seen = self._provider
        with suppress(AssertionError):
            seen.wait_until(lambda provider: len(provider.disconnects) == CLOSES)
        assert f"{len(seen.requests) - len(seen.disconnects)} of {len(seen.requests)} run on" == f"0 of {CLOSES} run on"


@on_every_wire
def test_close_in_mid_burst_closes_the_connection(provider: Loopback, dialect: Dialect) -> None:
    burst = Burst(provider, dialect)
    for at in range(CLOSES):
        output = burst.begin()
        chunks = iter(output)
        for _ in range(2 + at % 4):
            next(chunks)
        output.close()
    burst.assert_all_are_closed()


@on_every_wire
def test_aclose_in_mid_burst_closes_the_connection(provider: Loopback, dialect: Dialect) -> None:
    burst = Burst(provider, dialect)

    async def main() -> None:
        for at in range(CLOSES):
            output = burst.begin()
            chunks = aiter(output)
            for _ in range(2 + at % 4):
                await anext(chunks)
            await output.aclose()

    asyncio.run(main())
    burst.assert_all_are_closed()


@on_every_wire
def test_take_in_mid_burst_closes_the_connection(provider: Loopback, dialect: Dialect) -> None:
    burst = Burst(provider, dialect)
    for _ in range(CLOSES):
        assert outcome(burst.llm.observe("Hi").pipe(ops.take(3))).items != []
    burst.assert_all_are_closed()


@on_every_wire
def test_a_cancelled_task_in_mid_burst_closes_the_connection(provider: Loopback, dialect: Dialect) -> None:
    burst = Burst(provider, dialect)

    async def read_all(output: CrewStreamingOutput, begun: asyncio.Event) -> None:
        async with output:
            async for _ in output:
                begun.set()

    async def main() -> None:
        for _ in range(CLOSES):
            begun = asyncio.Event()
            reading = asyncio.create_task(read_all(burst.begin(), begun))
            await begun.wait()
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading

    asyncio.run(main())
    burst.assert_all_are_closed()
