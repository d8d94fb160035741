"""The tokens of a flow are those of all its calls, however they end: what was stopped or failed is billed too."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import reactivex as rx
from hypothesis import given, strategies as st
from reactivex import operators as rxops

from rxflow import Crew, Flow, operators as ops
from rxflow.flow import start
from rxflow.testing import ScriptedLLM
from rxflow.testing._scripted import Value, thinking, tool_call, turn
from rxflow.testing._virtual_clock import VirtualClock
from rxflow.tools import tool
from rxflow.types.chunks import Origin, StreamChunk
from rxflow.types.events import CrewFinished, FlowFinished, LLMFailed, LLMFinished, TaskFinished
from rxflow.types.results import UsageMetrics, estimate_usage
from tests.scripted import USAGE
from tests.signals import outcome
from tests.team import solo

pytestmark = pytest.mark.usefixtures("virtual_clock")

FOUR = {letter: letter * 4 for letter in "abcdefgh"}
"""Each letter is a chunk of four bytes: a token of the estimate."""

QUESTION, PROMPT = "Eight by", 2


def model(script: str = "a-b-c-d-e-f|", **given: Any) -> ScriptedLLM:
    return ScriptedLLM(script, values=FOUR, **given)


def estimate(completion: int, prompt: int = PROMPT) -> UsageMetrics:
    return UsageMetrics(
        prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion, is_estimated=True
    )


def branch(make: Callable[[], Any]) -> Flow:
    """A flow of one method, which returns what ``make`` does."""

    class Branch(Flow):
        @start()
        def question(self) -> Any:
            return make()

    return Branch()


def usage_of(flow: Flow) -> UsageMetrics:
    """What a flow that completes reports."""
    return outcome(flow.events()).one(FlowFinished).usage


def asked_by(llm: ScriptedLLM) -> int:
    """The estimated tokens of the prompts of all requests."""
    return sum(estimate_usage(request.messages, ()).prompt_tokens or 0 for request in llm.requests)


@pytest.mark.parametrize(
    ("cut", "shown"),
    [
        (ops.limit_tokens(2), 3),
        (ops.limit_cost(2.5, input_price=0, output_price=1_000_000), 3),
        (ops.stop_at("dddd"), 4),
        (rxops.take(2), 2),
        (rx.compose(rxops.map(str), rxops.take(1)), 1),
    ],
    ids=["limit_tokens", "limit_cost", "stop_at", "take", "map and take"],
)
def test_a_call_that_an_operator_stops_counts_as_estimated(cut: Any, shown: int) -> None:
    assert usage_of(branch(lambda: model().observe(QUESTION).pipe(cut))) == estimate(shown)


def test_so_does_the_call_of_a_crew_that_a_limit_stops() -> None:
    llm = model("a-b-c-d-e-f-g-h|")
    usage = usage_of(branch(lambda: solo(llm).observe().pipe(ops.limit_tokens(5))))
    assert usage == estimate(6, asked_by(llm))


@pytest.mark.parametrize(
    ("script", "cut", "shown"),
    [
        ("a-b----------c|", ops.idle_timeout(0.005), 2),
        ("----------a-b|", ops.first_chunk_timeout(0.005), 0),
    ],
    ids=["idle_timeout", "first_chunk_timeout"],
)
def test_a_call_that_a_time_out_stops_counts_beside_the_one_that_takes_over(script: str, cut: Any, shown: int) -> None:
    other = model("g|", usage=USAGE)
    flow = branch(lambda: model(script).observe(QUESTION).pipe(cut, ops.fallback_to(other.observe(QUESTION))))
    assert usage_of(flow) == estimate(shown) + USAGE


def test_the_losers_of_a_race_have_cost_their_prompts() -> None:
    slow = model("-----a|")
    flow = branch(lambda: slow.observe(QUESTION).pipe(ops.race(model("-b|", usage=USAGE).observe(QUESTION))))
    assert usage_of(flow) == estimate(0) + USAGE
    assert len(slow.requests) == 1


@pytest.mark.parametrize(
    "ask", [lambda: model().observe(QUESTION), lambda: model().call(QUESTION)], ids=["observed", "blocking"]
)
def test_a_call_that_a_failing_sibling_stops_counts_in_the_flow_that_failed(ask: Callable[[], Any]) -> None:
    class Failing(Flow):
        @start()
        def work(self) -> Any:
            return ask()

        @start()
        async def fail(self) -> None:
            await asyncio.sleep(0.003)
            raise LookupError("failed")

    flow = Failing()
    with pytest.raises(LookupError):
        flow.kickoff()
    assert flow.usage_metrics == estimate(2)


def test_a_call_that_the_time_limit_of_its_agent_stops_counts() -> None:
    llm = model("a-b-c---------------d|")

    class Patient(Flow):
        @start()
        async def question(self) -> str:
            try:
                return str(await solo(llm, agent={"max_execution_time": 0.01}).kickoff_async())
            except TimeoutError:
                return "late"

    finished = outcome(Patient().events()).one(FlowFinished)
    assert (finished.result, finished.usage) == ("late", estimate(3, asked_by(llm)))


def test_a_call_that_was_stopped_by_closing_the_flow_counts() -> None:
    flow = branch(lambda: model().observe(QUESTION))
    output = flow.stream_chunks()
    next(iter(output))
    output.close()
    assert flow.usage_metrics.completion_tokens
    assert flow.usage_metrics.is_estimated


def test_a_call_that_fails_in_mid_answer_has_a_usage_and_counts() -> None:
    flow = branch(
        lambda: model("a-b-#", error=OSError("gone")).observe(QUESTION).pipe(ops.fallback_to(rx.just("instead")))
    )
    seen = outcome(flow.events())
    assert seen.one(LLMFailed).usage == estimate(2)
    assert seen.one(FlowFinished).usage == estimate(2)


def test_of_a_call_that_fails_before_the_first_chunk_nothing_is_known() -> None:
    flow = branch(lambda: model("--#", error=OSError("gone")).observe(QUESTION).pipe(ops.fallback_to(rx.just("so"))))
    seen = outcome(flow.events())
    assert seen.one(LLMFailed).usage == seen.one(FlowFinished).usage == UsageMetrics()


def test_attempts_that_failed_before_the_first_chunk_do_not_count() -> None:
    llm = ScriptedLLM("--#", "a-b-c|", values=FOUR, error=OSError("gone"), max_retries=1)
    assert usage_of(branch(lambda: llm.observe(QUESTION).pipe(rxops.take(1)))) == estimate(1)
    assert len(llm.requests) == 2


def test_all_attempts_of_a_stream_that_is_tried_again_count() -> None:
    llm = ScriptedLLM("a-b-#", turn("c|", usage=USAGE), values=FOUR, error=OSError("gone"))
    assert usage_of(branch(lambda: llm.observe(QUESTION).pipe(ops.retry_stream(1)))) == estimate(2) + USAGE


def test_thoughts_and_arguments_are_estimated_too() -> None:
    said: Value = [thinking("t" * 8), "a" * 4, tool_call("look", "x" * 12)]
    llm = ScriptedLLM("s-b-c|", values={**FOUR, "s": said})

    def is_early(chunk: StreamChunk) -> bool:
        return chunk.content != FOUR["b"]

    flow = branch(lambda: llm.observe(QUESTION).pipe(rxops.take_while(is_early)))
    assert usage_of(flow) == estimate(2 + 1 + 3 + 1)


def test_a_call_that_its_own_report_stops_counts_once() -> None:
    llm = ScriptedLLM(turn("a|", usage=USAGE), values=FOUR)
    assert usage_of(branch(lambda: llm.observe(QUESTION).pipe(ops.limit_tokens(2)))) == USAGE


@pytest.mark.parametrize("shown", [rxops.map(str), rxops.ignore_elements(), ops.words()])
def test_a_finished_call_counts_whatever_is_shown_of_it(shown: Any) -> None:
    assert usage_of(branch(lambda: model(usage=USAGE).observe(QUESTION).pipe(shown))) == USAGE


def looking_crew() -> Crew:
    """A crew whose tool makes a call and stops it after the first chunk; its own two calls use USAGE each."""

    @tool
    async def look() -> str:
        """Look."""
        async for chunk in model().observe(QUESTION).pipe(rxops.take(1), ops.to_output()):
            return str(chunk)
        return ""

    llm = ScriptedLLM(turn([tool_call("look")], usage=USAGE), turn("a|", usage=USAGE), values=FOUR)
    return solo(llm, agent={"tools": [look]})


def test_a_stopped_call_counts_in_the_crew_whose_tool_made_it() -> None:
    seen = outcome(branch(lambda: looking_crew().events()).events())
    wanted = USAGE + USAGE + estimate(1)
    assert seen.one(CrewFinished).result.token_usage == seen.one(FlowFinished).usage == wanted


def test_it_counts_in_the_answer_of_an_agent_too() -> None:
    seen = outcome(looking_crew().agents[0].events("Look"))
    result: Any = seen.one(TaskFinished).result
    assert result.token_usage == USAGE + USAGE + estimate(1)


def test_a_flow_has_what_was_stopped_in_the_flows_inside_it() -> None:
    inner = branch(lambda: model().observe(QUESTION).pipe(rxops.take(2)))
    seen = outcome(branch(inner.events).events())
    assert [finished.usage for finished in seen.of(FlowFinished)] == [estimate(2)] * 2


def test_what_comes_from_a_recording_counts_once_in_each_flow_around_it() -> None:
    recorded = [
        LLMFinished(origin=Origin(span_id="other/0"), text="a", usage=USAGE),
        LLMFailed(origin=Origin(span_id="other/1"), error=OSError("gone"), usage=estimate(3)),
    ]
    inner = branch(lambda: rx.from_iterable(recorded))
    seen = outcome(branch(inner.events).events())
    assert [finished.usage for finished in seen.of(FlowFinished)] == [USAGE + estimate(3)] * 2


def test_each_run_counts_its_own_calls() -> None:
    flow = branch(lambda: model().observe(QUESTION).pipe(rxops.take(1)))
    for _ in range(2):
        flow.kickoff()
        assert flow.usage_metrics == estimate(1)


ENDINGS = st.sampled_from(["finish", "fail", "stop"])


@given(st.lists(st.tuples(ENDINGS, st.integers(1, 6)), min_size=1, max_size=4), st.booleans())
def test_the_usage_of_a_flow_is_the_sum_of_its_calls(calls: list[tuple[str, int]], at_once: bool) -> None:
    expected = UsageMetrics()
    sources: list[rx.Observable[Any]] = []
    for ending, shown in calls:
        said = "-".join("abcdef"[:shown])
        if ending == "finish":
            expected += USAGE
            sources.append(model(f"{said}|", usage=USAGE).observe(QUESTION))
        elif ending == "fail":
            expected += estimate(shown)
            broken: rx.Observable[Any] = model(f"{said}-#", error=OSError("gone")).observe(QUESTION)
            sources.append(broken.pipe(ops.fallback_to(rx.empty())))
        else:
            expected += estimate(shown)
            whole: rx.Observable[Any] = model(f"{said}-g-h|").observe(QUESTION)
            sources.append(whole.pipe(rxops.take(shown)))
    with VirtualClock():
        assert usage_of(branch(lambda: (rx.merge if at_once else rx.concat)(*sources))) == expected
