"""``stats``: how fast, how much and how dear."""

from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
import reactivex as rx
from reactivex import Subject, operators as rxops
from reactivex.testing import TestScheduler

from rxflow import operators as ops
from rxflow.testing import Marbles, ScriptedLLM, check_operator
from rxflow.testing._virtual_clock import VirtualClock
from rxflow.types.chunks import Origin
from rxflow.types.events import LLMFailed, LLMFinished, ReasoningChunk, TaskFinished, TaskStarted
from rxflow.types.results import UsageMetrics
from tests.gate import PATIENCE_S
from tests.operators.pieces import delta, said
from tests.signals import signals_of
from tests.team import a_crew, a_task, an_agent


def tokens(count: int) -> UsageMetrics:
    return UsageMetrics(total_tokens=count + 7, completion_tokens=count, prompt_tokens=7, successful_requests=1)


CALL = Origin(span_id="c", task_name="A")
VALUES: dict[str, Any] = {
    "S": TaskStarted(origin=Origin(span_id="t", task_name="A"), description=""),
    "a": said("12345678", span_id="c", task_name="A"),
    "d": delta("{}", span_id="c", task_name="A"),
    "r": ReasoningChunk(origin=CALL, content="12345"),
    "L": LLMFinished(origin=CALL, text="", usage=tokens(20), cost=0.5),
    "U": LLMFinished(origin=CALL, text=""),
    "E": LLMFailed(origin=CALL, error=OSError("gone")),
    "F": TaskFinished(origin=Origin(span_id="t", task_name="A"), result=None),  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    "b": said("123456", span_id="d"),
}


def figures(**given: Any) -> ops.Stats:
    nothing: dict[str, Any] = {
        "seconds": 0.0,
        "first_chunk": None,
        "chunks": 0,
        "chunks_per_second": 0.0,
        "tokens": 0,
        "is_estimated": False,
        "cost": None,
    }
    return ops.Stats(**nothing | given)


def all_of(letters: str, *, pause: float = 1.0) -> list[ops.Stats]:
    """What comes of letters of ``VALUES``, a second apart, and the end."""
    source: Subject[Any] = Subject()
    scheduler = TestScheduler()
    seen: list[ops.Stats] = []
    source.pipe(ops.stats(scheduler=scheduler)).subscribe(seen.append)
    for letter in letters:
        scheduler.advance_by(pause)
        source.on_next(VALUES[letter])
    source.on_completed()
    return seen


def test_it_keeps_the_rules() -> None:
    check_operator(ops.stats(), items=[VALUES[letter] for letter in "SaaLFb"])


class TestWhen:
    def test_after_each_call_and_task_and_at_the_end(self) -> None:
        assert len(all_of("SaLaLFb")) == 4

    def test_an_error_comes_after_the_last_figures(self, marbles: Marbles) -> None:
        source = marbles.cold("-b#", VALUES, OSError("gone"))
        last = figures(seconds=0.002, first_chunk=0.001, chunks=1, tokens=2, is_estimated=True)
        marbles.expect(source.pipe(ops.stats())).to_be("--(s#)", {"s": last}, OSError("gone"))
        marbles.expect_subscriptions(source).to_be("^-!")

    def test_each_subscription_measures_for_itself(self, marbles: Marbles) -> None:
        measured = marbles.cold("-b-b|", VALUES).pipe(ops.stats())
        one, other = marbles.expect(measured), marbles.expect(measured, "--^")
        last = figures(seconds=0.004, first_chunk=0.001, chunks=2, chunks_per_second=500, tokens=3, is_estimated=True)
        one.to_be("----(s|)", {"s": last})
        other.to_be("------(s|)", {"s": last})

    def test_nothing_is_figures_too(self) -> None:
        assert signals_of(rx.empty().pipe(ops.stats(scheduler=TestScheduler()))).items == [figures()]

    def test_without_a_loop_the_machines_clock_is_read(self) -> None:
        (last,) = signals_of(rx.of("a").pipe(ops.stats())).items
        assert 0 <= last.seconds < PATIENCE_S


class TestWhat:
    def test_time_to_the_first_chunk_and_chunks_a_second(self) -> None:
        last = all_of("SraaaF")[-1]
        assert (last.seconds, last.first_chunk, last.chunks, last.chunks_per_second) == (6, 3, 3, 1)

    def test_one_chunk_has_no_speed(self) -> None:
        assert all_of("a")[-1].chunks_per_second == 0

    def test_a_task_is_measured_from_its_beginning_to_its_end(self) -> None:
        last = all_of("bSaaaFbb")[-1]
        task = last.tasks["A"]
        assert (task.seconds, task.first_chunk, task.chunks, task.chunks_per_second) == (4, 1, 3, 1)
        assert (last.seconds, last.first_chunk, last.chunks) == (8, 1, 6)
        assert task.tasks == {}

    def test_a_task_that_runs_again_is_measured_to_its_last_end(self) -> None:
        assert [each.tasks["A"].seconds for each in all_of("SaFbbSaLaF")] == [2, 7, 9, 9]

    def test_so_are_tasks_of_one_name_at_the_same_time(self) -> None:
        assert [each.tasks["A"].seconds for each in all_of("SSaFbF")] == [3, 5, 5]

    def test_tokens_are_estimated_until_the_provider_reports(self) -> None:
        at_the_call, last = all_of("SaadrL")
        assert (at_the_call.tokens, at_the_call.is_estimated) == (20, False)
        assert last.tasks["A"].tokens == 20
        (last,) = all_of("Saadr")
        assert (last.tokens, last.is_estimated) == (6, True)  # 23 bytes

    @pytest.mark.parametrize(
        ("usage", "tokens", "is_estimated"),
        [
            (UsageMetrics(prompt_tokens=5, completion_tokens=77), 77, False),
            (UsageMetrics(completion_tokens=77), 77, False),
            (UsageMetrics(total_tokens=5, prompt_tokens=5, completion_tokens=0), 0, False),
            (UsageMetrics(prompt_tokens=5), 4, True),
            (UsageMetrics(total_tokens=82), 4, True),
            (UsageMetrics(total_tokens=0, prompt_tokens=0, completion_tokens=0), 4, True),
            (UsageMetrics(prompt_tokens=5, completion_tokens=77, is_estimated=True), 77, True),
        ],
    )
    def test_those_of_the_output_are_reported_or_not(
        self, usage: UsageMetrics, tokens: int, is_estimated: bool
    ) -> None:
        finished = LLMFinished(origin=CALL, text="", usage=usage)
        (_, last) = signals_of(rx.of(VALUES["a"], VALUES["a"], finished).pipe(ops.stats())).items
        assert (last.tokens, last.is_estimated) == (tokens, is_estimated)

    def test_so_they_stay_where_it_reports_none(self) -> None:
        assert [(each.tokens, each.is_estimated) for each in all_of("SaaU")] == [(4, True)] * 2

    def test_or_where_the_call_fails(self) -> None:
        assert [(each.tokens, each.is_estimated) for each in all_of("SaaE")] == [(4, True)]

    def test_the_next_call_adds_to_the_first(self) -> None:
        assert [each.tokens for each in all_of("SaLaLF")] == [20, 40, 40, 40]

    def test_cost_is_none_as_long_as_none_is_known(self) -> None:
        assert [each.cost for each in all_of("SaUaLaL")] == [None, 0.5, 1.0, 1.0]

    def test_figures_do_not_change(self) -> None:
        (last,) = all_of("a")
        with pytest.raises(FrozenInstanceError):
            last.chunks = 2  # type: ignore[misc] # pyright: ignore[reportAttributeAccessIssue]


def test_a_run_is_measured_by_the_loops_time(virtual_clock: VirtualClock) -> None:
    llm = ScriptedLLM("---a--b--c--|", "-d|", usage=tokens(9), cost=0.25)
    agent = an_agent(llm)
    crew = a_crew(a_task(agent, name="one"), a_task(agent, name="two"))

    async def main() -> list[ops.Stats]:
        return await crew.observe().pipe(ops.stats(), rxops.to_list())

    seen = virtual_clock.run(main)
    assert len(seen) == 5
    one = figures(
        seconds=0.012, first_chunk=0.003, chunks=3, chunks_per_second=pytest.approx(2 / 0.006), tokens=9, cost=0.25
    )
    two = figures(seconds=0.002, first_chunk=0.001, chunks=1, tokens=9, cost=0.25)
    assert approximately(seen[-1].tasks["one"]) == one
    assert approximately(seen[-1].tasks["two"]) == two
    assert (seen[-1].tokens, seen[-1].cost, seen[-1].chunks) == (18, 0.5, 4)


def approximately(figures: ops.Stats) -> ops.Stats:
    return replace(figures, seconds=round(figures.seconds, 6), first_chunk=round(figures.first_chunk or 0.0, 6))
