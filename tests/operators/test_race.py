"""``race``: the first to speak is heard, the others are closed."""

import asyncio
from typing import Any

import pytest
import reactivex as rx
from reactivex import Observable, operators as rxops

from rxflow import LLM, Flow, operators as ops
from rxflow.flow import start
from rxflow.testing import Marbles, ScriptedLLM, check_operator
from rxflow.testing._probes import probe
from rxflow.testing._scripted import thinking
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import CrewStarted, FlowFinished, LLMCancelled, LLMFailed, LLMFinished, LLMStarted
from tests.loopback import Loopback, Reply
from tests.operators.endings import ending_with
from tests.signals import Signals, outcome, signals_of
from tests.spans import check_laws
from tests.team import solo


class TestOnAnyStream:
    def test_the_first_to_speak_wins_and_the_others_are_disposed(self, marbles: Marbles) -> None:
        slow, fast, late = marbles.cold("-----a-|"), marbles.cold("---x--y|"), marbles.cold("----------z|")
        marbles.expect(slow.pipe(ops.race(fast, late))).to_be("---x--y|")
        marbles.expect_subscriptions(slow).to_be("^--!")
        marbles.expect_subscriptions(late).to_be("^--!")
        marbles.expect_subscriptions(fast).to_be("^------!")

    def test_the_losers_are_closed_before_the_first_word_is_passed_on(self) -> None:
        loser = probe()
        winner: rx.Subject[str] = rx.Subject()
        closed: list[int] = []
        rx.never().pipe(loser, ops.race(winner)).subscribe(lambda _: closed.append(loser.cancelled))
        winner.on_next("a")
        winner.on_completed()
        assert closed == [1]

    def test_one_that_fails_before_it_speaks_drops_out(self, marbles: Marbles) -> None:
        failing, steady = marbles.cold("--#"), marbles.cold("----a-|")
        marbles.expect(failing.pipe(ops.race(steady))).to_be("----a-|")

    def test_one_that_ends_before_it_speaks_drops_out(self, marbles: Marbles) -> None:
        marbles.expect(marbles.cold("--|").pipe(ops.race(marbles.cold("----a-|")))).to_be("----a-|")

    def test_the_last_ones_error_is_that_of_the_race_and_notes_the_others(self, marbles: Marbles) -> None:
        last = ValueError("last")
        sources = [marbles.cold("-#", error=KeyError("first")), marbles.cold("--#", error=OSError("second"))]
        marbles.expect(marbles.cold("---#", error=last).pipe(ops.race(*sources))).to_be("---#", error=last)
        assert last.__notes__ == [
            "race: another source failed before with KeyError('first')",
            "race: another source failed before with OSError('second')",
        ]

    def test_so_is_the_last_ones_end(self, marbles: Marbles) -> None:
        marbles.expect(marbles.cold("-#").pipe(ops.race(marbles.cold("---|")))).to_be("---|")

    def test_an_error_of_the_winner_is_that_of_the_race(self, marbles: Marbles) -> None:
        error = ValueError("no")
        other = marbles.cold("---x|")
        marbles.expect(marbles.cold("-a-#", error=error).pipe(ops.race(other))).to_be("-a-#", error=error)

    def test_disposing_before_the_first_word_disposes_all(self, marbles: Marbles) -> None:
        one, other = marbles.cold("---a|"), marbles.cold("---b|")
        marbles.expect(one.pipe(ops.race(other)), "^-!").to_be("--")
        marbles.expect_subscriptions(one).to_be("^-!")
        marbles.expect_subscriptions(other).to_be("^-!")

    def test_disposing_after_it_disposes_the_winner(self, marbles: Marbles) -> None:
        one, other = marbles.cold("--a----b|"), marbles.cold("---x|")
        marbles.expect(one.pipe(ops.race(other), rxops.take(1))).to_be("--(a|)")
        marbles.expect_subscriptions(one).to_be("^-!")

    def test_who_speaks_while_being_subscribed_leaves_the_others_unsubscribed(self) -> None:
        other = probe()
        source: rx.subject.BehaviorSubject[str] = rx.subject.BehaviorSubject("a")
        source.pipe(ops.race(rx.never().pipe(other))).subscribe().dispose()
        other.assert_not_subscribed()

    def test_alone_it_wins(self, marbles: Marbles) -> None:
        nobody: list[Observable[Any]] = []
        marbles.expect(marbles.cold("-a-|").pipe(ops.race(*nobody))).to_be("-a-|")
        marbles.expect(marbles.cold("-#").pipe(ops.race(*nobody))).to_be("-#")

    def test_a_cancellation_ends_the_race(self) -> None:
        other, error = probe(), asyncio.CancelledError()
        said = signals_of(rx.never().pipe(other, ops.race(ending_with(error))))
        assert said.errors == [error]
        other.assert_cancelled()

    def test_each_subscription_is_a_race_of_its_own(self, marbles: Marbles) -> None:
        one, other = marbles.hot("--a-----b|"), marbles.hot("----x---y|")
        piped = one.pipe(ops.race(other))
        marbles.expect(piped).to_be("--a-----b|")
        marbles.expect(piped, "---^").to_be("----x---y|")

    @pytest.mark.slow
    def test_it_keeps_the_rules(self) -> None:
        check_operator(ops.race(rx.empty()), recovers=True)


class TestInARun:
    def test_events_show_that_the_loser_began_and_what_it_cost_but_no_word(self, marbles: Marbles) -> None:
        slow, fast = ScriptedLLM("-----slow|", model="slow"), ScriptedLLM("--fast|", model="fast")
        seen: list[Any] = []
        raced = slow.events("Hello").pipe(ops.race(fast.observe("Hello")))
        marbles.expect(raced.pipe(rxops.do_action(seen.append), ops.text())).to_say("--fast|")
        assert [type(event) for event in seen] == [LLMStarted, LLMStarted, LLMCancelled, StreamChunk, LLMFinished]
        assert [event.model for event in seen[:2]] == ["slow", "fast"]
        lost = seen[2]
        assert (lost.origin.span_id, lost.text, lost.reason) == (
            seen[0].origin.span_id,
            "",
            "another source of the race was faster",
        )
        assert lost.usage.is_estimated
        assert slow.calls[0].cancelled_at == 0.002
        check_laws(seen)

    @pytest.mark.usefixtures("virtual_clock")
    def test_the_losers_of_a_flow_are_in_its_sums_and_each_in_an_event(self) -> None:
        slow = [ScriptedLLM("--------------------", model=f"slow {number}") for number in range(2)]
        failing = ScriptedLLM("#", model="failing")
        fast = ScriptedLLM("-fast|", model="fast")

        class Racing(Flow):
            @start()
            def work(self) -> Observable[Any]:
                others = [llm.observe("Hello") for llm in (failing, fast, slow[1])]
                return slow[0].observe("Hello").pipe(ops.race(*others))

        said = outcome(Racing().events())
        check_laws(said.events)
        models = {event.origin.span_id: event.model for event in said.of(LLMStarted)}
        lost = {models[event.origin.span_id]: event.usage for event in said.of(LLMCancelled)}
        assert set(lost) == {"slow 0", "slow 1"}
        assert all(usage.is_estimated and usage.prompt_tokens for usage in lost.values())
        assert [models[event.origin.span_id] for event in said.of(LLMFailed)] == ["failing"]
        assert said.one(FlowFinished).usage.is_estimated

    def test_reasoning_is_speech(self, marbles: Marbles) -> None:
        one, other = ScriptedLLM("-t----one|", values={"t": thinking("Hm.")}), ScriptedLLM("--other|")
        marbles.expect(one.observe("Hello").pipe(ops.race(other.observe("Hello")))).to_say("------one|")

    def test_events_before_the_first_word_come_with_it(self, marbles: Marbles) -> None:
        crew = solo(ScriptedLLM("--a|"))
        raced: Observable[Any] = crew.events().pipe(ops.race(rx.never()))
        marbles.expect(raced.pipe(rxops.take(1), rxops.map(type))).to_be("--(s|)", {"s": CrewStarted})

    def test_those_of_the_last_one_left_come_at_once(self, marbles: Marbles) -> None:
        failing, steady = ScriptedLLM("-#"), ScriptedLLM("---a|")
        raced = failing.events("Hello").pipe(ops.race(steady.events("Hello")))
        kinds = {"s": LLMStarted, "f": LLMFailed}
        marbles.expect(raced.pipe(rxops.take(3), rxops.map(type))).to_be("-(ssf|)", kinds)

    def test_in_a_method_the_winner_belongs_to_the_flow(self) -> None:
        slow, fast = ScriptedLLM("--------------------", model="slow"), ScriptedLLM("fast|", model="fast")

        class Racing(Flow):
            @start()
            def work(self) -> Observable[Any]:
                return slow.observe("Hello").pipe(ops.race(fast.observe("Hello")))

        said = outcome(Racing().events())
        (chunk,) = said.of(StreamChunk)
        assert (chunk.content, chunk.flow_method) == ("fast", "work")
        check_laws(said.events)
        assert said.one(FlowFinished).result == "fast"
        assert slow.calls[0].cancelled_at is not None

    def test_a_plain_subscriber_is_told_the_end_and_no_run_is_left(self) -> None:
        slow, fast = ScriptedLLM("-----", model="slow"), ScriptedLLM("f-a-s-t|", model="fast")
        said = signals_of(slow.observe("Hello").pipe(ops.race(fast.observe("Hello"))))
        assert "".join(map(str, said.items)) == "fast"

    def test_the_losers_connection_closes_with_the_winners_first_chunk(self, provider: Loopback, llm: LLM) -> None:
        provider.script(Reply(text=["a", "b"], hold_after=0), Reply(stall_after=0))
        told = Signals()
        told.subscribe_to(llm.observe("Hello").pipe(ops.race(llm.observe("Hello"))))
        provider.wait_until(lambda p: len(p.requests) == 2 and p.holding == 1)
        provider.release()
        provider.wait_until(lambda p: p.disconnects)
        told.ended.wait()
        assert ([str(each) for each in told.items], told.completions) == (["a", "b"], 1)
        assert len(provider.disconnects) == 1


def test_only_observables_can_race() -> None:
    wrong: Any = "other"
    with pytest.raises(TypeError, match="race takes Observables; got 'other'"):
        ops.race(wrong)
