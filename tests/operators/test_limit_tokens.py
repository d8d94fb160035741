"""``limit_tokens``: a branch that spends too much is stopped, and nothing else is."""

from itertools import pairwise
from typing import Any

import pytest
import reactivex as rx
from hypothesis import given, strategies as st
from reactivex import Observable, operators as rxops

from rxflow import LLM, Flow, operators as ops
from rxflow.flow import listen, start
from rxflow.testing import Marbles, ScriptedLLM
from rxflow.testing._scripted import thinking, tool_call, turn
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import (
    AgentCancelled,
    CrewCancelled,
    FlowFinished,
    LLMCancelled,
    LLMFinished,
    LLMStarted,
    MethodFinished,
    TaskCancelled,
    TaskStarted,
)
from rxflow.types.results import UsageMetrics
from tests.loopback import Loopback, Reply
from tests.signals import Signals, outcome, signals_of
from tests.team import a_crew, a_task, an_agent, solo

FOUR = {name: name * 4 for name in "abcdef"}  # a token each


class TestOnAnyStream:
    def test_it_ends_with_what_exceeds_the_limit(self, marbles: Marbles) -> None:
        source = marbles.cold("-a-b-c-d|", FOUR)
        marbles.expect(source.pipe(ops.limit_tokens(2))).to_be("-a-b-(c|)", FOUR)
        marbles.expect_subscriptions(source).to_be("^----!")

    def test_what_keeps_within_it_passes(self, marbles: Marbles) -> None:
        marbles.expect(marbles.cold("-a-b|", FOUR).pipe(ops.limit_tokens(2))).to_be("-a-b|", FOUR)

    def test_it_can_fail_instead(self) -> None:
        said = signals_of(rx.of("aaaa", "bbbb", "cc", "dddd").pipe(ops.limit_tokens(2, on_limit="error")))
        (error,) = said.errors
        assert said.items == ["aaaa", "bbbb", "cc"]
        assert isinstance(error, ops.TokenLimitExceeded)
        assert (error.limit, error.spent, error.text) == (2, 3, "aaaabbbbcc")
        assert str(error) == "3 tokens were spent; the limit is 2 (limit_tokens)"

    def test_each_subscription_counts_for_itself(self) -> None:
        piped = rx.of("aaaa", "bbbb", "cccc").pipe(ops.limit_tokens(1))
        for _ in range(2):
            assert signals_of(piped).items == ["aaaa", "bbbb"]

    def test_text_of_other_scripts_counts_by_its_bytes(self) -> None:
        assert signals_of(rx.of("日本", "語", "!").pipe(ops.limit_tokens(2))).items == ["日本", "語"]

    def test_half_a_surrogate_counts_too(self) -> None:
        assert signals_of(rx.of("\ud83d", "aaaa", "a").pipe(ops.limit_tokens(1))).items == ["\ud83d", "aaaa"]

    def test_what_carries_no_text_costs_nothing(self) -> None:
        assert signals_of(rx.of(1, None, 2).pipe(ops.limit_tokens(1))).items == [1, None, 2]

    @given(st.text(max_size=60), st.lists(st.integers(0, 60)), st.integers(1, 10))
    def test_it_stops_within_one_piece_however_the_text_is_cut(self, text: str, cuts: list[int], limit: int) -> None:
        borders = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
        pieces = [text[begin:end] for begin, end in pairwise(borders)]
        said = signals_of(rx.of(*pieces).pipe(ops.limit_tokens(limit))).items
        assert said == pieces[: len(said)]
        spent = [len(piece.encode("utf-8", "surrogatepass")) / 4 for piece in said]
        assert sum(spent[:-1]) <= limit
        assert said == pieces or sum(spent) > limit


class TestInARun:
    def test_the_call_is_cancelled(self, marbles: Marbles) -> None:
        llm = ScriptedLLM("aaaa-bbbb-cccc|")
        marbles.expect(llm.observe("Hello").pipe(ops.limit_tokens(1))).to_say("aaaa-(bbbb|)")
        assert llm.calls[0].cancelled_at == 0.005

    def test_reasoning_and_arguments_of_tools_count(self) -> None:
        for spoken in (thinking("x" * 12), tool_call("x", "x" * 12)):
            llm = ScriptedLLM([spoken, "and more"])
            assert "more" not in "".join(map(str, signals_of(llm.observe("Hello").pipe(ops.limit_tokens(1))).items))

    def test_what_the_provider_reports_takes_the_estimates_place(self) -> None:
        cheap = UsageMetrics(prompt_tokens=1, completion_tokens=1, total_tokens=2)
        llm = ScriptedLLM(turn(["x" * 12], usage=cheap), turn(["y" * 12], usage=cheap))
        agent = an_agent(llm)
        crew = a_crew(a_task(agent), a_task(agent))
        said = signals_of(crew.observe().pipe(ops.limit_tokens(5)))
        assert [str(each) for each in said.items] == ["x" * 12, "y" * 12]

    def test_a_report_can_stop_what_comes_next(self) -> None:
        llm = ScriptedLLM(turn(["x"], usage=UsageMetrics(prompt_tokens=90, completion_tokens=1, total_tokens=91)))
        agent = an_agent(llm)
        said = outcome(a_crew(a_task(agent), a_task(agent)).events().pipe(ops.limit_tokens(50)))
        behind = said.events[said.events.index(said.one(LLMFinished)) + 1 :]
        assert [type(each) for each in behind] == [AgentCancelled, TaskCancelled, CrewCancelled]
        assert said.completions == 1
        assert len(said.of(TaskStarted)) == 1

    def test_a_report_without_the_output_leaves_the_estimate(self) -> None:
        usage = UsageMetrics(prompt_tokens=1)
        llm = ScriptedLLM(turn(["x" * 12], usage=usage), turn(["y" * 12, "z"], usage=usage))
        agent = an_agent(llm)
        crew = a_crew(a_task(agent), a_task(agent))
        assert outcome(crew.events().pipe(ops.limit_tokens(5))).texts == ["x" * 12, "y" * 12]

    def test_where_it_reports_nothing_the_estimate_stands(self) -> None:
        llm = ScriptedLLM(turn(["x" * 12], usage=UsageMetrics()), turn(["y" * 12], usage=UsageMetrics()))
        agent = an_agent(llm)
        said = signals_of(a_crew(a_task(agent), a_task(agent)).observe().pipe(ops.limit_tokens(5)))
        assert [str(each) for each in said.items] == ["x" * 12, "y" * 12]
        assert said.completions == 1

    def test_only_the_branch_that_overspends_is_stopped(self, marbles: Marbles) -> None:
        greedy, modest = ScriptedLLM("a-b-c-d-e-f|", values=FOUR), ScriptedLLM("---x---y|")

        class Report(Flow):
            @start()
            def research(self) -> Observable[Any]:
                return solo(greedy).observe().pipe(ops.limit_tokens(1))

            @start()
            def check(self) -> Observable[Any]:
                return modest.observe("Check")

            @listen(research)
            def write(self, text: str) -> str:
                return f"about {text}"

        report = Report()
        marbles.expect(report.observe().pipe(rxops.map(str))).to_be("a-bx---y|", FOUR)
        assert greedy.calls[0].cancelled_at == 0.002

    def test_the_text_that_had_come_is_the_methods_result(self) -> None:
        class Report(Flow):
            @start()
            def research(self) -> Observable[Any]:
                return solo(ScriptedLLM(["aaaa", "bbbb", "cccc"])).observe().pipe(ops.limit_tokens(1))

            @listen(research)
            def write(self, text: str) -> str:
                return f"about {text}"

        said = outcome(Report().events())
        assert said.one(FlowFinished).result == "about aaaabbbb"
        assert said.of(MethodFinished)[0].result == "aaaabbbb"

    def test_the_providers_connection_closes(self, provider: Loopback, llm: LLM) -> None:
        provider.script(Reply(text=["a" * 8, "b"], hold_after=1))
        said = Signals().until_ended(llm.observe("Hello").pipe(ops.limit_tokens(1)))
        assert ([str(each) for each in said.items], said.completions) == (["a" * 8], 1)
        provider.wait_until(lambda p: p.disconnects)

    def test_it_closes_for_one_method_while_the_flow_goes_on(self, provider: Loopback, llm: LLM) -> None:
        provider.script(Reply(text=["a" * 8, "b"], hold_after=1), Reply(text=["the end"]))

        class Report(Flow):
            @start()
            def research(self) -> Observable[Any]:
                return solo(llm).observe().pipe(ops.limit_tokens(1))

            @listen(research)
            def write(self, text: str) -> str:
                return f"{text}: {llm.call('Write')}"

        assert outcome(Report().events()).one(FlowFinished).result == "aaaaaaaa: the end"
        assert len(provider.disconnects) == 1

    def test_the_error_has_the_text_and_not_the_reasoning(self) -> None:
        llm = ScriptedLLM([thinking("Hm."), "so ", "be it"])
        said = signals_of(llm.events("Hello").pipe(ops.limit_tokens(1, on_limit="error")))
        (error,) = said.errors
        assert isinstance(error, ops.LimitExceeded)
        assert error.text == "so "
        assert isinstance(said.items[0], LLMStarted)
        assert isinstance(said.items[-2], StreamChunk)
        assert isinstance(said.items[-1], LLMCancelled)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"tokens": 0}, ValueError, r"limit_tokens\(tokens\) must be at least 1; got 0"),
        ({"tokens": "9"}, TypeError, r"limit_tokens\(tokens\) is not an integer: '9'"),
        ({"tokens": 2.5}, TypeError, r"limit_tokens\(tokens\) is not an integer: 2\.5"),
        ({"on_limit": "cut"}, ValueError, r"limit_tokens\(on_limit=…\) must be one of 'complete', 'error'; got 'cut'"),
    ],
)
def test_wrong_arguments_are_refused(given: dict[str, Any], error: type[Exception], message: str) -> None:
    refused: Any = ops.limit_tokens
    with pytest.raises(error, match=message):
        refused(**{"tokens": 1} | given)
