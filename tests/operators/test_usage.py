"""``usage``: the tokens so far, after each call."""

from rxflow import operators as ops
from rxflow.testing import Marbles, ScriptedLLM
from rxflow.types.chunks import Origin
from rxflow.types.events import LLMFailed, LLMFinished
from rxflow.types.results import UsageMetrics
from tests.operators.pieces import said
from tests.signals import signals_of
from tests.team import a_crew, a_task, an_agent


def tokens(count: int) -> UsageMetrics:
    return UsageMetrics(total_tokens=count, completion_tokens=count, successful_requests=1)


def finished(count: int) -> LLMFinished:
    return LLMFinished(origin=Origin(), text="", usage=tokens(count))


VALUES = {"a": said("a"), "3": finished(3), "4": finished(4)}
FAILED = {"b": UsageMetrics(total_tokens=2, completion_tokens=2, is_estimated=True), "n": UsageMetrics()}
TOTALS = {"x": tokens(3), "y": tokens(3) + tokens(4)}


def test_it_adds_up_after_each_call(marbles: Marbles) -> None:
    source = marbles.cold("-a-3-a-4|", VALUES)
    marbles.expect(source.pipe(ops.usage())).to_be("---x---y|", TOTALS)
    marbles.expect_subscriptions(source).to_be("^-------!")


def test_a_call_that_failed_in_mid_answer_counts_and_one_that_failed_before_does_not(marbles: Marbles) -> None:
    failed = {name: LLMFailed(origin=Origin(), error=OSError("gone"), usage=usage) for name, usage in FAILED.items()}
    source = marbles.cold("-a-3-b-n-4|", VALUES | failed)
    marbles.expect(source.pipe(ops.usage())).to_be(
        "---x-y---z|", {"x": tokens(3), "y": tokens(3) + FAILED["b"], "z": tokens(3) + FAILED["b"] + tokens(4)}
    )


def test_each_subscription_counts_from_zero(marbles: Marbles) -> None:
    totals = marbles.cold("-3-4|", VALUES).pipe(ops.usage())
    one, other = marbles.expect(totals), marbles.expect(totals, "--^")
    one.to_be("-x-y|", TOTALS)
    other.to_be("---x-y|", TOTALS)


def test_of_a_run_it_sees_the_calls_behind_the_chunks() -> None:
    llm = ScriptedLLM("a-b|", "c|", usage=tokens(5))
    agent = an_agent(llm)
    crew = a_crew(a_task(agent, name="one"), a_task(agent, name="two"))
    assert [total.total_tokens for total in signals_of(crew.observe().pipe(ops.usage())).items] == [5, 10]
