"""``fallback_to``: go on with something else, and say what is void."""

import asyncio
from typing import Any

import pytest
import reactivex as rx
from reactivex import Observable, operators as rxops

from rxflow import LLM, Flow, operators as ops
from rxflow.flow import start
from rxflow.testing import Marbles, ScriptedLLM
from rxflow.testing._probes import probe
from rxflow.types.chunks import Origin, StreamChunk
from rxflow.types.events import FlowFinished, LLMFinished, LLMStarted, Retracted
from tests.loopback import Loopback, Reply
from tests.operators.endings import ending_with
from tests.signals import outcome, signals_of
from tests.spans import ranked
from tests.team import solo

BROKEN = ConnectionError("broken off")


def chunk(content: str, attempt: int = 0) -> StreamChunk:
    return StreamChunk(content=content, attempt=attempt)


def retracted(*attempts: int, error: BaseException = BROKEN) -> Retracted:
    return Retracted(origin=Origin(), attempts=attempts, error=error)


def shown(items: list[Any]) -> list[Any]:
    return [item.attempts if isinstance(item, Retracted) else (item.content, item.attempt) for item in items]


class TestOnAnyStream:
    def test_what_was_shown_is_taken_back_and_the_other_goes_on(self, marbles: Marbles) -> None:
        source = marbles.cold("-a-b-#", {"a": chunk("a"), "b": chunk("b")}, BROKEN)
        other = marbles.cold("-x-y-|", {"x": chunk("x"), "y": chunk("y")})
        marbles.expect(source.pipe(ops.fallback_to(other))).to_be(
            "-a-b-rx-y-|",
            {"a": chunk("a"), "b": chunk("b"), "r": retracted(0), "x": chunk("x", 1), "y": chunk("y", 1)},
        )
        marbles.expect_subscriptions(source).to_be("^----!")
        marbles.expect_subscriptions(other).to_be("-----^----!")

    def test_where_nothing_was_shown_nothing_is_taken_back(self, marbles: Marbles) -> None:
        source, other = marbles.cold("--#", error=BROKEN), marbles.cold("-x|")
        marbles.expect(source.pipe(ops.fallback_to(other))).to_be("---x|")

    def test_a_source_that_does_not_fail_is_all(self, marbles: Marbles) -> None:
        source, other = marbles.cold("-a-|"), marbles.cold("x|")
        marbles.expect(source.pipe(ops.fallback_to(other))).to_be("-a-|")
        marbles.expect_subscriptions(other).to_be()

    def test_disposing_early_disposes_the_source(self, marbles: Marbles) -> None:
        source, other = marbles.cold("-a---#"), marbles.cold("x|")
        marbles.expect(source.pipe(ops.fallback_to(other), rxops.take(1))).to_be("-(a|)")
        marbles.expect_subscriptions(source).to_be("^!")
        marbles.expect_subscriptions(other).to_be()

    def test_disposing_late_disposes_the_other(self, marbles: Marbles) -> None:
        source, other = marbles.cold("-#"), marbles.cold("-x---y|")
        marbles.expect(source.pipe(ops.fallback_to(other), rxops.take(1))).to_be("--(x|)")
        marbles.expect_subscriptions(other).to_be("-^!")

    def test_a_function_sees_the_error(self) -> None:
        said = signals_of(rx.throw(BROKEN).pipe(ops.fallback_to(lambda error: rx.of(f"sorry: {error}"))))
        assert said.items == ["sorry: broken off"]

    def test_an_error_of_the_other_passes_with_a_note_of_the_first(self) -> None:
        second = ValueError("no")
        said = signals_of(rx.throw(BROKEN).pipe(ops.fallback_to(rx.throw(second))))
        assert said.errors == [second]
        assert second.__notes__ == [
            "fallback_to: this is the error of the fallback; the source failed with ConnectionError('broken off')"
        ]

    def test_what_was_shown_can_stand(self) -> None:
        source = rx.concat(rx.of(chunk("a")), rx.throw(BROKEN))
        said = signals_of(source.pipe(ops.fallback_to(rx.of(chunk("x")), on_shown="continue")))
        assert shown(said.items) == [("a", 0), ("x", 1)]

    def test_or_forbid_it(self) -> None:
        source = rx.concat(rx.of("a"), rx.throw(BROKEN))
        said = signals_of(source.pipe(ops.fallback_to(rx.of("x"), on_shown="error")))
        assert (said.items, said.errors) == (["a"], [BROKEN])
        assert signals_of(rx.throw(BROKEN).pipe(ops.fallback_to(rx.of("x"), on_shown="error"))).items == ["x"]

    def test_only_the_errors_that_are_meant_have_a_fallback(self) -> None:
        other = probe()
        said = signals_of(rx.throw(BROKEN).pipe(ops.fallback_to(rx.of("x").pipe(other), fallback_on=TimeoutError)))
        assert said.errors == [BROKEN]
        other.assert_not_subscribed()

    @pytest.mark.parametrize("error", [asyncio.CancelledError(), SystemExit(1)], ids=["cancelled", "exit"])
    def test_what_is_no_exception_passes_at_once(self, error: Any) -> None:
        assert signals_of(ending_with(error).pipe(ops.fallback_to(rx.of("x")))).errors == [error]

    def test_a_function_that_raises_or_gives_something_else_ends_the_stream(self) -> None:
        def confused(_: object) -> Any:
            raise RuntimeError("confused")

        def nothing(_: object) -> Any:
            return "nothing"

        assert [str(each) for each in signals_of(rx.throw(BROKEN).pipe(ops.fallback_to(confused))).errors] == [
            "confused"
        ]
        (error,) = signals_of(rx.throw(BROKEN).pipe(ops.fallback_to(nothing))).errors
        assert str(error) == "fallback_to: the function of the error must return an Observable; it returned 'nothing'"

    def test_the_first_error_is_the_context_of_one_that_prevents_the_fallback(self) -> None:
        def confused(_: object) -> Any:
            raise RuntimeError("confused")

        def nothing(_: object) -> Any:
            return "nothing"

        for falling_back in (
            ops.fallback_to(confused),
            ops.fallback_to(nothing),
            ops.fallback_to(rx.of("x"), fallback_on=confused),
        ):
            (error,) = signals_of(rx.throw(BROKEN).pipe(falling_back)).errors
            assert error.__context__ is BROKEN

    def test_each_subscription_begins_with_the_source(self) -> None:
        piped = rx.concat(rx.of("a"), rx.throw(BROKEN)).pipe(ops.fallback_to(rx.of("x")))
        for _ in range(2):
            assert signals_of(piped).items == ["a", retracted(0), "x"]


class TestInARun:
    def test_another_model_answers(self) -> None:
        first, second = ScriptedLLM("one-#", error=BROKEN), ScriptedLLM("two|")
        said = outcome(first.events("Hello").pipe(ops.fallback_to(second.observe("Hello"))))
        assert [(each.content, each.attempt) for each in said.of(StreamChunk)] == [("one", 0), ("two", 1)]
        assert said.one(Retracted).origin.llm_call_id == said.of(LLMStarted)[0].origin.llm_call_id
        assert said.one(LLMFinished).text == "two"

    def test_chunks_are_shown_as_those_of_the_source(self) -> None:
        first, second = ScriptedLLM("one-#", error=BROKEN), ScriptedLLM("two|")
        said = signals_of(first.observe("Hello").pipe(ops.fallback_to(second.events("Hello"))))
        assert shown(said.items) == [("one", 0), (0,), ("two", 1)]

    def test_later_operators_see_both_streams(self) -> None:
        first, second = ScriptedLLM(["on", "e", BROKEN]), ScriptedLLM(["tw", "o thr", "ee"])
        said = signals_of(first.observe("Hello").pipe(ops.fallback_to(second.observe("Hello")), ops.words()))
        assert shown(said.items) == [("one", 0), (0,), ("two", 1), (" three", 1)]

    def test_a_sentence_is_shown_as_a_chunk(self) -> None:
        said = signals_of(ScriptedLLM("#", error=BROKEN).observe("Hello").pipe(ops.fallback_to(rx.of("sorry"))))
        assert [(item.content, item.span_id) for item in said.items] == [("sorry", "")]

    def test_what_a_run_cannot_hold_is_refused(self) -> None:
        said = signals_of(ScriptedLLM("#", error=BROKEN).observe("Hello").pipe(ops.fallback_to(rx.of(42))))
        assert "map this item to one of them first: 42" in str(said.errors[0])

    def test_in_a_method_the_fallback_belongs_to_the_flow(self) -> None:
        first = solo(ScriptedLLM("one-#", error=BROKEN), agent={"max_retry_limit": 0}, name="first")
        second = solo(ScriptedLLM("two|"), name="second")

        class Falling(Flow):
            @start()
            def work(self) -> Observable[Any]:
                return first.observe().pipe(ops.fallback_to(second.observe()))

        said = outcome(Falling().events())
        chunks = said.of(StreamChunk)
        assert [(each.content, each.task_name, each.flow_method, rank) for each, rank in ranked(chunks)] == [
            ("one", "first", "work", 0),
            ("two", "second", "work", 1),
        ]
        assert said.one(FlowFinished).result == "two"
        assert [said.one(Retracted).covers(each) for each in chunks] == [True, False]

    def test_a_first_chunk_timeout_falls_back_in_virtual_time(self, marbles: Marbles) -> None:
        slow, steady = ScriptedLLM("--------slow|"), ScriptedLLM("steady|")
        piped = slow.observe("Hello").pipe(ops.first_chunk_timeout(0.005), ops.fallback_to(steady.observe("Hello")))
        marbles.expect(piped).to_say("-----steady|")
        assert slow.calls[0].cancelled_at == 0.005

    def test_the_connection_of_the_one_that_was_too_slow_closes(self, provider: Loopback, llm: LLM) -> None:
        replies = {"slow": Reply(hold_after=0), "Hello": Reply(text=["here"])}
        provider.answer(lambda request: replies[request.last_user])
        piped = llm.observe("slow").pipe(
            ops.first_chunk_timeout(1.0), ops.fallback_to(llm.observe("Hello"), fallback_on=TimeoutError)
        )
        assert [str(each) for each in signals_of(piped).items] == ["here"]
        provider.wait_until(lambda p: len(p.disconnects) == 1)
        assert len(provider.requests) == 2


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            {"other": "x"},
            TypeError,
            "fallback_to takes an Observable, or a function of the error that returns one; got 'x'",
        ),
        (
            {"on_shown": "keep"},
            ValueError,
            r"fallback_to\(on_shown=…\) must be one of 'retract', 'continue', 'error'; got",
        ),
        ({"fallback_on": 5}, TypeError, r"fallback_to\(fallback_on=…\) takes exception classes, or a function"),
    ],
)
def test_wrong_arguments_are_refused(given: dict[str, Any], error: type[Exception], message: str) -> None:
    refused: Any = ops.fallback_to
    with pytest.raises(error, match=message):
        refused(**{"other": rx.empty()} | given)
