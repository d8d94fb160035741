"""``limit_cost``: the same in dollars."""

import math
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import reactivex as rx

from rxflow import LLM, operators as ops
from rxflow.testing import Marbles, ScriptedLLM
from rxflow.testing._scripted import turn
from rxflow.types.chunks import Origin, StreamChunk
from rxflow.types.events import LLMFinished, LLMStarted, Retracted
from rxflow.types.results import UsageMetrics
from tests.loopback import Loopback, Reply
from tests.signals import Signals, outcome, signals_of
from tests.streaming.program import Program
from tests.team import a_crew, a_task, an_agent

A_CENT = 10_000.0  # a token
FOUR = {name: name * 4 for name in "abcdef"}


def limit_cost(dollars: float, **given: Any) -> Any:
    return ops.limit_cost(dollars, input_price=A_CENT, output_price=A_CENT, **given)


class TestOnAnyStream:
    def test_it_ends_with_what_exceeds_the_limit(self, marbles: Marbles) -> None:
        source = marbles.cold("-a-b-c-d|", FOUR)
        marbles.expect(source.pipe(limit_cost(0.02))).to_be("-a-b-(c|)", FOUR)
        marbles.expect_subscriptions(source).to_be("^----!")

    def test_it_can_fail_instead(self) -> None:
        said = signals_of(rx.of("aaaa", "bbbb", "cc", "dddd").pipe(limit_cost(0.02, on_limit="error")))
        (error,) = said.errors
        assert isinstance(error, ops.CostLimitExceeded)
        assert (error.limit, round(error.spent, 6), error.text) == (0.02, 0.025, "aaaabbbbcc")
        assert str(error) == "$0.025 were spent; the limit is $0.02 (limit_cost)"

    @pytest.mark.parametrize("is_announced", [False, True])
    def test_its_error_has_no_text_that_was_retracted(self, is_announced: bool) -> None:
        first, second, other = (Origin(attempt=at, span_id=span) for at, span in ((0, "1"), (1, "2"), (1, "3")))
        calls = [LLMStarted(origin=each, model="m", messages=()) for each in (first, second)]
        chunks = first.chunk("bad "), Retracted(origin=Origin(), attempts=(0,), error=OSError()), second.chunk("good")
        items = *calls * is_announced, other.chunk("some "), *chunks, other.chunk(" end")
        (error,) = signals_of(rx.of(*items).pipe(limit_cost(0.04, on_limit="error"))).errors
        assert isinstance(error, ops.CostLimitExceeded)
        assert error.text == "some good end"

    def test_each_subscription_counts_for_itself(self) -> None:
        piped = rx.of("aaaa", "bbbb", "cccc").pipe(limit_cost(0.01))
        for _ in range(2):
            assert signals_of(piped).items == ["aaaa", "bbbb"]

    def test_without_a_price_the_stream_fails_at_the_first_word(self) -> None:
        said = signals_of(rx.of(1, "a").pipe(ops.limit_cost(1)))
        assert said.items == [1]
        assert "limit_cost has no price: the stream does not name its model" in str(said.errors[0])


class TestInARun:
    def test_the_prompt_counts_from_the_first_word_on(self) -> None:
        llm = ScriptedLLM(["a", "b"])
        said = signals_of(llm.observe("x" * 400).pipe(limit_cost(0.5)))
        assert [str(each) for each in said.items] == ["a"]
        parts = [{"role": "user", "content": [{"type": "text", "text": "x" * 400}, {"type": "image_url"}]}]
        assert len(signals_of(ScriptedLLM(["a", "b"]).observe(parts).pipe(limit_cost(0.5))).items) == 1

    def test_reported_tokens_at_the_prices_given_take_the_estimates_place(self) -> None:
        usage = UsageMetrics(prompt_tokens=1, completion_tokens=1, total_tokens=2)
        llm = ScriptedLLM(turn(["x" * 12], usage=usage), turn(["y" * 12], usage=usage))
        agent = an_agent(llm)
        crew = a_crew(a_task(agent), a_task(agent))
        said = outcome(crew.events().pipe(ops.limit_cost(0.05, input_price=0, output_price=10_000)))
        assert said.text == "x" * 12 + "y" * 12

    def test_a_report_without_the_output_leaves_the_estimate(self) -> None:
        usage = UsageMetrics(prompt_tokens=1)
        llm = ScriptedLLM(turn(["x" * 12], usage=usage), turn(["y" * 12, "z"], usage=usage))
        agent = an_agent(llm)
        crew = a_crew(a_task(agent), a_task(agent))
        said = outcome(crew.events().pipe(ops.limit_cost(0.05, input_price=0, output_price=10_000)))
        assert said.texts == ["x" * 12, "y" * 12]

    def test_a_reported_cost_takes_it_where_no_prices_were_given(self, monkeypatch: pytest.MonkeyPatch) -> None:
        listing(monkeypatch, prompt=0.0, output=0.01)
        llm = ScriptedLLM(turn(["x" * 12], cost=0.001), turn(["y" * 12], cost=0.9))
        agent = an_agent(llm)
        crew = a_crew(a_task(agent), a_task(agent), a_task(agent))
        said = outcome(crew.events().pipe(ops.limit_cost(0.05)))
        assert said.texts == ["x" * 12, "y" * 12]

    def test_the_price_comes_from_litellms_list(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = listing(monkeypatch, prompt=0.0, output=0.01)
        said = signals_of(ScriptedLLM(["aaaa", "bbbb", "cccc"]).observe("Hello").pipe(ops.limit_cost(0.01)))
        assert [str(each) for each in said.items] == ["aaaa", "bbbb"]
        assert asked == ["scripted"]

    @pytest.mark.parametrize("litellm", [None, SimpleNamespace(), SimpleNamespace(cost_per_token=int)])
    def test_an_unknown_price_is_an_error_that_says_what_to_do(
        self, litellm: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "litellm", litellm)
        said = signals_of(ScriptedLLM("a|").observe("Hello").pipe(ops.limit_cost(1)))
        assert said.items == []
        assert "no price for the model 'scripted'" in str(said.errors[0])
        assert "Give input_price and output_price" in str(said.errors[0])

    def test_an_estimate_is_replaced_although_another_call_is_retracted(self) -> None:
        failing, other = (Origin(namespace=(name,), span_id=name, llm_call_id=name) for name in "ab")
        said = signals_of(
            rx.of(
                *(LLMStarted(origin=each, model="m", messages=()) for each in (failing, other)),
                *(failing.chunk("x"), other.chunk("y" * 400)),  # an estimate of a hundred tokens: a dollar
                Retracted(origin=failing, attempts=(0,), error=OSError()),
                LLMFinished(origin=other, text="y" * 400, usage=UsageMetrics(completion_tokens=100)),
                "z",
            ).pipe(limit_cost(1.5, on_limit="error"))
        )
        assert said.errors == []
        assert said.items[-1] == "z"

    def test_the_embedded_model_costs_nothing(self) -> None:
        assert signals_of(LLM("rxflow/demo").observe("Hello").pipe(ops.limit_cost(0.000001))).completions == 1

    def test_a_real_model_is_listed_and_its_connection_closes(self, provider: Loopback, llm: LLM) -> None:
        provider.script(Reply(text=["a" * 4000, "b"], hold_after=1))
        said = Signals().until_ended(llm.observe("Hello").pipe(ops.limit_cost(0.0001)))
        assert ([len(str(each)) for each in said.items], said.completions) == ([4000], 1)
        provider.wait_until(lambda p: p.disconnects)

    def test_a_model_that_is_asked_directly_has_its_price_without_litellms_import(self, provider: Loopback) -> None:
        provider.script(Reply(text=["a" * 4000, "b" * 4000, "c" * 4000, "d"], hold_after=3))
        program = Program(
            """
            from rxflow import operators as ops
            from tests.signals import Signals

            llm = LLM("openai/gpt-4o", base_url=sys.argv[1], api_key="k")
            seen = Signals().until_ended(llm.observe("Hello").pipe(ops.limit_cost(0.015)))
            say([str(item)[:1] for item in seen.items])
            say(seen.ends)
            say("litellm" in sys.modules)
            """,
            provider.url,
        )
        assert [program.heard() for _ in range(3)] == ["['a', 'b']", "['completed']", "False"]  # $0.01 a chunk
        assert program.ended() == (0, "", "")
        provider.wait_until(lambda p: p.disconnects)


def listing(monkeypatch: pytest.MonkeyPatch, *, prompt: float, output: float) -> list[str]:
    """A price list with these prices for every model; gives the names that were looked up."""
    asked: list[str] = []

    def cost_per_token(*, model: str, prompt_tokens: int, completion_tokens: int) -> tuple[float, float]:
        asked.append(model)
        return prompt * prompt_tokens, output * completion_tokens

    monkeypatch.setitem(sys.modules, "litellm", SimpleNamespace(cost_per_token=cost_per_token))
    return asked


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"dollars": 0}, ValueError, r"limit_cost\(dollars\) must be a number of US dollars above 0; got 0"),
        ({"on_limit": "cut"}, ValueError, r"limit_cost\(on_limit=…\) must be one of 'complete', 'error'; got 'cut'"),
        ({"input_price": 1}, ValueError, r"takes input_price and output_price together .* got 1 and None"),
        (
            {"input_price": -1, "output_price": 1},
            ValueError,
            r"limit_cost\(input_price=…\) must be a number of US dollars for a million tokens, at least 0; got -1",
        ),
        ({"input_price": math.nan, "output_price": 1}, ValueError, r"limit_cost\(input_price=…\) must be .*; got nan"),
        ({"input_price": 1, "output_price": math.inf}, ValueError, r"limit_cost\(output_price=…\) must be .*; got inf"),
        (
            {"input_price": 1, "output_price": "1"},
            TypeError,
            r"limit_cost\(output_price=…\) is not a number of .*: '1'",
        ),
    ],
)
def test_wrong_arguments_are_refused(given: dict[str, Any], error: type[Exception], message: str) -> None:
    refused: Any = ops.limit_cost
    with pytest.raises(error, match=message):
        refused(**{"dollars": 1} | given)


def test_a_chunk_without_events_is_priced_as_given() -> None:
    chunks = [StreamChunk(content="aaaa", span_id=f"r/{number}") for number in range(3)]
    assert signals_of(rx.of(*chunks).pipe(limit_cost(0.01))).items == chunks[:2]
