"""``retry_stream``: begin anew, and say what is void."""

import asyncio
import sys
from dataclasses import replace
from datetime import timedelta
from itertools import count
from threading import Thread
from types import FrameType
from typing import Any

import pytest
import reactivex as rx
from hypothesis import given, strategies as st
from reactivex import Observable, operators as rxops
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import Disposable
from reactivex.scheduler import CurrentThreadScheduler
from reactivex.subject import Subject

from rxflow import LLM, Flow, operators as ops
from rxflow.flow import listen, start
from rxflow.testing import Marbles, ScriptedLLM, check_operator
from rxflow.testing._scripted import thinking
from rxflow.types.chunks import Origin, StreamChunk
from rxflow.types.events import FlowFinished, LLMFinished, ReasoningChunk, Retracted
from tests.loopback import Loopback, Reply
from tests.operators.endings import ending_with
from tests.signals import Signals, outcome, signals_of
from tests.spans import ranks
from tests.team import solo

BROKEN = ConnectionError("broken off")


def failing(*attempts: Observable[Any]) -> Observable[Any]:
    """A cold source: one subscription after another gets another of these."""
    left = list(attempts)
    return rx.defer(lambda _: left.pop(0))


def chunk(content: str, attempt: int = 0) -> StreamChunk:
    return StreamChunk(content=content, attempt=attempt)


def retracted(*attempts: int, error: BaseException = BROKEN) -> Retracted:
    return Retracted(origin=Origin(), attempts=attempts, error=error)


def shown(items: list[Any]) -> list[Any]:
    """Chunks with their attempts, and what is taken back."""
    return [
        item.attempts if isinstance(item, Retracted) else (item.content, item.attempt)
        for item in items
        if isinstance(item, Retracted | StreamChunk)
    ]


def retrying_model(provider: Loopback) -> LLM:
    """A model with its default ``max_retries``."""
    return LLM("openai/gpt-test", base_url=provider.url, api_key="key")


def contexts_of(error: BaseException | None) -> list[BaseException]:
    """The error, and what was handled when it was raised."""
    chain: list[BaseException] = []
    while error is not None:
        chain.append(error)
        error = error.__context__
    return chain


def is_broken(error: Exception) -> bool:
    return "broken" in str(error)


def fail_at_line_of_begin(number: int) -> bool:
    """Fail in another thread, just before a line that ``begin()`` runs after it has subscribed.

    Check that the next attempt begins. Return False if ``begin()`` has fewer such lines.
    """
    first, told, lines = Subject[Any](), Signals(), count()

    def on_line(frame: FrameType, event: str, _: object) -> Any:
        if event == "line" and first.observers and next(lines) == number:
            other = Thread(target=first.on_error, args=(BROKEN,))
            other.start()
            other.join()
        return on_line

    def on_call(frame: FrameType, event: str, given: object) -> Any:
        is_begin = frame.f_code.co_name == "begin" and frame.f_globals["__name__"] == "rxflow.operators._retry_stream"
        return on_line if is_begin else None

    before = sys.gettrace()
    sys.settrace(on_call)
    try:
        told.subscribe_to(failing(first, rx.of("a")).pipe(ops.retry_stream(1)))
    finally:
        sys.settrace(before)
    if first.observers:
        return False
    assert (told.items, told.ends) == (["a"], ["completed"]), number
    return True


class TestOnAnyStream:
    def test_what_was_shown_is_taken_back_and_the_next_attempt_has_another_number(self, marbles: Marbles) -> None:
        first = marbles.cold("-a-b-#", {"a": chunk("a"), "b": chunk("b")}, BROKEN)
        second = marbles.cold("-a-b-c|", {"a": chunk("a"), "b": chunk("b"), "c": chunk("c")})
        marbles.expect(failing(first, second).pipe(ops.retry_stream(1))).to_be(
            "-a-b-rx-y-z|",
            {
                "a": chunk("a"),
                "b": chunk("b"),
                "r": retracted(0),
                "x": chunk("a", 1),
                "y": chunk("b", 1),
                "z": chunk("c", 1),
            },
        )
        marbles.expect_subscriptions(first).to_be("^----!")
        marbles.expect_subscriptions(second).to_be("-----^-----!")

    def test_where_nothing_was_shown_nothing_is_taken_back(self, marbles: Marbles) -> None:
        first = marbles.cold("--#", error=BROKEN)
        marbles.expect(failing(first, marbles.cold("-a|")).pipe(ops.retry_stream(1))).to_be("---a|")

    def test_after_the_last_attempt_its_error_passes_with_a_note(self, marbles: Marbles) -> None:
        source = marbles.cold("-#", error=(error := ConnectionError("broken off")))
        marbles.expect(source.pipe(ops.retry_stream(2))).to_be("---#", error=error)
        marbles.expect_subscriptions(source).to_be("^!", "-^!", "--^!")
        assert error.__notes__ == ["retry_stream: attempt 3 of 3 failed"] * len(error.__notes__)

    def test_with_no_retries_the_error_passes_as_it_is(self) -> None:
        error = ValueError("no")
        assert signals_of(rx.throw(error).pipe(ops.retry_stream(0))).errors == [error]
        assert not hasattr(error, "__notes__")

    def test_it_waits_before_each_attempt(self, marbles: Marbles) -> None:
        source = marbles.cold("-#", error=BROKEN)
        asked: list[int] = []

        def delay(attempt: int) -> float:
            asked.append(attempt)
            return attempt * 0.005

        marbles.expect(source.pipe(ops.retry_stream(2, delay=delay))).to_be("- 5ms - 10ms -#", error=BROKEN)
        marbles.expect_subscriptions(source).to_be("^!", "- 5ms ^!", "- 5ms - 10ms ^!")
        assert asked[:2] == [1, 2]

    def test_what_is_void_is_said_before_the_wait(self, marbles: Marbles) -> None:
        source = failing(marbles.cold("a#", error=BROKEN), marbles.cold("b|"))
        piped = source.pipe(ops.retry_stream(1, delay=0.003))
        marbles.expect(piped).to_be("ar--b|", {"r": retracted(0)})

    def test_disposing_ends_the_wait_and_the_attempt(self, marbles: Marbles) -> None:
        source = marbles.cold("-a#", error=BROKEN)
        piped = source.pipe(ops.retry_stream(9, delay=0.003))
        marbles.expect(piped, "^--!").to_be("-ar", {"r": retracted(0)})
        marbles.expect_subscriptions(source).to_be("^-!")

    def test_an_attempt_can_be_disposed(self, marbles: Marbles) -> None:
        second = marbles.cold("-a---b|")
        piped = failing(marbles.cold("-#", error=BROKEN), second).pipe(ops.retry_stream(1), rxops.take(1))
        marbles.expect(piped).to_be("--(a|)")
        marbles.expect_subscriptions(second).to_be("-^!")

    def test_each_subscription_has_attempts_of_its_own(self) -> None:
        source = rx.concat(rx.of(chunk("a")), rx.throw(BROKEN))
        piped = source.pipe(ops.retry_stream(1))
        for _ in range(2):
            assert shown(signals_of(piped).items) == [("a", 0), (0,), ("a", 1)]

    def test_numbers_of_a_guardrails_retries_stay_apart(self) -> None:
        first = rx.concat(rx.of(chunk("a"), chunk("b", 1)), rx.throw(BROKEN))
        second = rx.concat(rx.of(chunk("a"), chunk("c", 2)), rx.throw(BROKEN))
        said = signals_of(failing(first, second, rx.of(chunk("d"))).pipe(ops.retry_stream(2)))
        assert shown(said.items) == [("a", 0), ("b", 1), (0, 1), ("a", 2), ("c", 4), (2, 3, 4), ("d", 5)]

    def test_retractions_of_a_part_are_renumbered_with_it(self) -> None:
        inner = failing(rx.concat(rx.of(chunk("a")), rx.throw(BROKEN)), rx.of(chunk("b")))
        first = rx.concat(rx.of(chunk("x")), rx.throw(BROKEN))
        said = signals_of(failing(first, inner.pipe(ops.retry_stream(1))).pipe(ops.retry_stream(1)))
        assert shown(said.items) == [("x", 0), (0,), ("a", 1), (1,), ("b", 2)]

    def test_a_later_operator_does_not_join_what_is_void_with_what_comes_instead(self) -> None:
        broken = rx.concat(rx.of(chunk("one tw")), rx.throw(BROKEN))
        said = signals_of(failing(broken, rx.of(chunk("one two"))).pipe(ops.retry_stream(1), ops.words()))
        assert shown(said.items) == [("one", 0), (" tw", 0), (0,), ("one", 1), (" two", 1)]

    def test_strings_are_taken_back_too(self) -> None:
        said = signals_of(failing(rx.concat(rx.of("a"), rx.throw(BROKEN)), rx.of("b")).pipe(ops.retry_stream(1)))
        assert said.items == ["a", retracted(0), "b"]

    def test_it_can_give_up_where_something_was_shown(self) -> None:
        source = rx.concat(rx.of("a"), rx.throw(BROKEN))
        said = signals_of(source.pipe(ops.retry_stream(5, on_shown="error")))
        assert (said.items, said.errors) == (["a"], [BROKEN])
        assert signals_of(failing(rx.throw(BROKEN), source).pipe(ops.retry_stream(5, on_shown="error"))).items == ["a"]

    @pytest.mark.parametrize(
        "retry_on",
        [ConnectionError, (KeyError, OSError), is_broken],
        ids=["class", "classes", "function"],
    )
    def test_only_the_errors_that_are_meant_are_tried_again(self, retry_on: Any) -> None:
        no = ValueError("no")
        said = signals_of(failing(rx.throw(BROKEN), rx.throw(no)).pipe(ops.retry_stream(5, retry_on=retry_on)))
        assert said.errors == [no]

    @pytest.mark.parametrize("error", [asyncio.CancelledError(), SystemExit(1)], ids=["cancelled", "exit"])
    def test_what_is_no_exception_passes_at_once(self, error: Any) -> None:
        said = signals_of(ending_with(error).pipe(ops.retry_stream(5, retry_on=lambda _: True)))
        assert said.errors == [error]

    def test_a_function_that_raises_ends_the_stream(self) -> None:
        def confused(_: object) -> Any:
            raise RuntimeError("confused")

        for retrying in (ops.retry_stream(5, retry_on=confused), ops.retry_stream(5, delay=confused)):
            said = signals_of(rx.throw(BROKEN).pipe(retrying))
            assert [str(error) for error in said.errors] == ["confused"]

    def test_the_first_error_is_the_context_of_one_that_prevents_the_retry(self) -> None:
        def confused(_: object) -> Any:
            try:
                raise KeyError("a")
            except KeyError as error:
                raise RuntimeError("confused") from error

        for retrying in (
            ops.retry_stream(5, delay=1),  # there is no clock
            ops.retry_stream(5, delay=lambda _: -1),
            ops.retry_stream(5, delay=confused),
            ops.retry_stream(5, retry_on=confused),
        ):
            (error,) = signals_of(rx.throw(BROKEN).pipe(retrying)).errors
            assert error is not BROKEN
            assert contexts_of(error)[-1] is BROKEN

    def test_a_function_may_raise_the_first_error_itself(self) -> None:
        broken = ConnectionError("broken off")

        def refuse(error: Exception) -> bool:
            raise error

        assert signals_of(rx.throw(broken).pipe(ops.retry_stream(5, retry_on=refuse))).errors == [broken]
        assert broken.__context__ is None

    def test_a_delay_that_is_none_ends_it_too(self) -> None:
        said = signals_of(rx.throw(BROKEN).pipe(ops.retry_stream(5, delay=lambda _: -1)))
        assert [str(error) for error in said.errors] == [
            "retry_stream(delay=…) must be a number of seconds (or a timedelta), at least 0; got -1"
        ]

    def test_without_any_clock_a_wait_fails(self) -> None:
        said = signals_of(rx.throw(BROKEN).pipe(ops.retry_stream(5, delay=1)))
        assert "needs a clock" in str(said.errors[0])

    def test_the_loop_of_a_run_that_has_failed_is_no_clock(self) -> None:
        broken = ScriptedLLM("#", error=BROKEN).observe("x").pipe(rxops.filter(bool), ops.retry_stream(5, delay=1))
        assert "needs a clock" in str(signals_of(broken).errors[0])

    def test_many_attempts_that_fail_at_once_do_not_recurse(self) -> None:
        subscribed = 0

        def subscribe(observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
            nonlocal subscribed
            subscribed += 1
            observer.on_error(BROKEN)
            return Disposable()

        times = 5 * sys.getrecursionlimit()
        assert signals_of(Observable(subscribe).pipe(ops.retry_stream(times))).errors == [BROKEN]
        assert subscribed == times + 1

    def test_a_clock_may_begin_the_next_attempt_before_it_returns_the_timer(self) -> None:
        first, second, told = Subject[Any](), Subject[Any](), Signals()
        clock = CurrentThreadScheduler()
        told.subscribe_to(failing(first, second).pipe(ops.retry_stream(1, delay=1e-6, scheduler=clock)))
        first.on_error(BROKEN)
        second.on_next("a")
        second.on_completed()
        assert (told.items, told.ends) == (["a"], ["completed"])

    def test_an_attempt_may_fail_in_another_thread_while_its_subscription_ends(self) -> None:
        lines = 0
        while fail_at_line_of_begin(lines):
            lines += 1
        assert lines > 1

    def test_an_error_in_another_thread_wakes_the_loop_for_the_delay(self) -> None:
        async def main() -> list[str]:
            loop, first, told, ended = asyncio.get_running_loop(), Subject[Any](), list[Any](), asyncio.Event()
            loop.set_debug(True)  # asyncio then refuses timers of other threads that would not wake the loop
            piped = failing(first, rx.of("a")).pipe(ops.retry_stream(1, delay=0.001))
            piped.subscribe(told.append, on_completed=ended.set)
            await asyncio.to_thread(first.on_error, BROKEN)
            await ended.wait()
            return told

        assert asyncio.run(main()) == ["a"]

    def test_it_keeps_the_rules(self) -> None:
        check_operator(ops.retry_stream(1), resubscribes=True, recovers=True, key=type)

    @given(st.lists(st.lists(st.integers(0, 3), max_size=4), min_size=1, max_size=5))
    def test_no_two_attempts_share_a_number_and_what_is_not_void_is_the_last_one(self, runs: list[list[int]]) -> None:
        sources = [
            rx.concat(rx.of(*(chunk(str(at), each) for each in run)), rx.throw(BROKEN)) for at, run in enumerate(runs)
        ]
        last = rx.of(chunk("last"))
        items = signals_of(failing(*sources, last).pipe(ops.retry_stream(len(runs)))).items
        chunks = [item for item in items if isinstance(item, StreamChunk)]
        void = {number for item in items if isinstance(item, Retracted) for number in item.attempts}
        assert [item.content for item in chunks if item.attempt not in void] == ["last"]
        number_of: dict[int, str] = {}
        for item in chunks:
            assert number_of.setdefault(item.attempt, item.content) == item.content


class TestInARun:
    def test_labels_and_count_go_on(self) -> None:
        llm = ScriptedLLM("one-two-#", "three-four|", error=BROKEN)
        crew = solo(llm, agent={"role": "Writer", "max_retry_limit": 0}, name="writing")
        said = signals_of(crew.observe().pipe(ops.retry_stream(1)))
        assert shown(said.items) == [("one", 0), ("two", 0), (0,), ("three", 1), ("four", 1)]
        chunks = [item for item in said.items if isinstance(item, StreamChunk)]
        assert ranks(chunks) == [0, 1, 2, 3]
        assert {item.span_id.split("/")[0] for item in chunks} == {chunks[0].span_id.split("/")[0]}
        assert {item.task_name for item in chunks} == {"writing"}

    def test_the_retraction_covers_the_chunks_of_what_failed_and_no_others(self) -> None:
        llm = ScriptedLLM("one-#", "two|", error=BROKEN)
        crew = solo(llm, agent={"max_retry_limit": 0})
        said = outcome(crew.events().pipe(ops.retry_stream(1)))
        (void,) = said.of(Retracted)
        one, two = said.of(StreamChunk)
        assert void.origin.crew_name == "crew"
        assert (void.covers(one), void.covers(two)) == (True, False)
        assert not void.covers(one.model_copy(update={"namespace": ("other",)}))

    def test_a_call_is_told_from_another_one_in_the_same_place(self) -> None:
        said = outcome(ScriptedLLM("one-#", "two|", error=BROKEN).events("Hello").pipe(ops.retry_stream(1)))
        (void,) = said.of(Retracted)
        one, _ = said.of(StreamChunk)
        assert void.covers(one)
        assert not void.covers(one.model_copy(update={"llm_call_id": "another"}))

    def test_events_and_reasoning_carry_the_number_too(self) -> None:
        llm = ScriptedLLM([thinking("Hm."), BROKEN], [thinking("Hm."), "a"])
        said = outcome(llm.events("Hello").pipe(ops.retry_stream(1)))
        assert [event.origin.attempt for event in said.of(ReasoningChunk)] == [0, 1]
        assert said.one(LLMFinished).origin.attempt == 1
        assert said.one(Retracted).attempts == (0,)

    def test_a_methods_result_is_what_is_not_void(self) -> None:
        llm = ScriptedLLM("one-#", "two|", error=BROKEN)

        class Retrying(Flow):
            @start()
            def work(self) -> Observable[Any]:
                return llm.observe("Hello").pipe(ops.retry_stream(1))

        said = outcome(Retrying().events())
        assert said.one(FlowFinished).result == "two"
        assert shown(said.events) == [("one", 0), (0,), ("two", 1)]
        assert ranks(said.of(StreamChunk)) == [0, 1]

    def test_what_another_run_of_such_a_crew_says_meanwhile_is_not_void(self) -> None:
        breaking = solo(ScriptedLLM("one-#", "two|", error=BROKEN), agent={"max_retry_limit": 0})
        steady = solo(ScriptedLLM("a--------b|"))

        class Both(Flow):
            @start()
            def work(self) -> Observable[Any]:
                return rx.merge(breaking.observe().pipe(ops.retry_stream(1)), steady.observe())

        said = outcome(Both().events().pipe(ops.accumulate()))
        assert [each.content for each in said.of(StreamChunk) if said.one(Retracted).covers(each)][-1] == "one"
        assert "ab" in said.texts

    def test_what_was_reasoned_elsewhere_is_not_void(self) -> None:
        said = outcome(ScriptedLLM([thinking("Hm."), BROKEN], "two|").events("Hello").pipe(ops.retry_stream(1)))
        thought = said.one(ReasoningChunk)
        elsewhere = replace(thought, origin=replace(thought.origin, span_id="elsewhere"))
        assert [said.one(Retracted).covers(each) for each in (thought, elsewhere)] == [True, False]

    def test_of_a_methods_own_text_only_that_methods_is_void(self) -> None:
        class Saying(Flow):
            @start()
            def steady(self) -> Observable[str]:
                return rx.of("steady")

            @listen(steady)
            def breaking(self) -> Observable[Any]:
                return failing(rx.concat(rx.of("one"), rx.throw(BROKEN)), rx.of("two")).pipe(ops.retry_stream(1))

        said = outcome(Saying().events())
        void = said.one(Retracted)
        assert [(str(each), void.covers(each)) for each in said.of(StreamChunk)][:2] == [
            ("steady", False),
            ("one", True),
        ]
        assert said.one(FlowFinished).result == "two"

    def test_it_waits_on_the_runs_loop(self, marbles: Marbles) -> None:
        llm = ScriptedLLM("a-#", "b|", error=BROKEN)
        piped = llm.observe("Hello").pipe(
            ops.retry_stream(1, delay=3600), rxops.filter(lambda item: isinstance(item, StreamChunk))
        )
        marbles.expect(piped.pipe(rxops.map(str))).to_say("a- 1h b|")

    def test_a_connection_that_breaks_is_opened_anew(self, provider: Loopback, llm: LLM) -> None:
        provider.script(Reply(text=["a", "b"], reset_after=1), Reply(text=["c"]))
        said = signals_of(llm.observe("Hello").pipe(ops.retry_stream(1)))
        assert [item for item in shown(said.items) if item != ("b", 0)] == [("a", 0), (0,), ("c", 1)]
        assert len(provider.requests) == 2

    def test_the_note_of_the_last_error_says_how_many_requests_the_models_retries_made_of_it(
        self, provider: Loopback
    ) -> None:
        down = [Reply(status=500, headers={"retry-after": "0"}) for _ in range(9)]
        provider.script(*down)
        (error,) = signals_of(retrying_model(provider).observe("Hello").pipe(ops.retry_stream(2))).errors
        assert len(provider.requests) == 9
        assert "retry_stream: attempt 3 of 3 failed after 9 requests to models" in error.__notes__

    def test_it_says_no_more_where_each_attempt_was_one_request(self, provider: Loopback) -> None:
        provider.script(*[Reply(status=500) for _ in range(3)])
        llm = LLM("openai/gpt-test", base_url=provider.url, api_key="key", max_retries=0)
        (error,) = signals_of(llm.observe("Hello").pipe(ops.retry_stream(2))).errors
        assert len(provider.requests) == 3
        assert "retry_stream: attempt 3 of 3 failed" in error.__notes__

    def test_disposing_closes_the_connection_of_the_new_attempt(self, provider: Loopback, llm: LLM) -> None:
        provider.script(Reply(text=["a", "b"], end_after=1), Reply(text=["c", "d"], hold_after=1))
        told = Signals()
        seen = llm.observe("Hello").pipe(
            ops.retry_stream(1), rxops.filter(lambda item: str(item) == "c"), rxops.take(1)
        )
        told.until_ended(seen)
        provider.wait_until(lambda p: p.disconnects)
        assert len(provider.requests) == 2


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"times": -1}, ValueError, r"retry_stream\(times\) must be at least 0; got -1"),
        ({"times": 1.5}, TypeError, r"retry_stream\(times\) is not an integer: 1\.5"),
        ({"times": "2"}, TypeError, r"retry_stream\(times\) is not an integer: '2'"),
        ({"times": True}, TypeError, r"retry_stream\(times\) is not an integer: True"),
        ({"delay": -1}, ValueError, r"retry_stream\(delay=…\) must be a number of seconds .*, at least 0; got -1"),
        ({"delay": float("nan")}, ValueError, r"retry_stream\(delay=…\) must be a number .*; got nan"),
        ({"delay": timedelta(-1)}, ValueError, r"retry_stream\(delay=…\) must be a number .*; got -86400.0"),
        ({"delay": "2"}, TypeError, r"retry_stream\(delay=…\) is not a number of seconds \(or a timedelta\): '2'"),
        ({"delay": None}, TypeError, r"retry_stream\(delay=…\) is not a number of seconds .*: None"),
        ({"on_shown": "keep"}, ValueError, r"retry_stream\(on_shown=…\) must be one of 'retract', 'error'; got 'keep'"),
        ({"retry_on": "all"}, TypeError, r"retry_stream\(retry_on=…\) takes exception classes, or a function"),
        ({"retry_on": KeyboardInterrupt}, TypeError, r"retry_stream\(retry_on=…\) takes exception classes"),
    ],
)
def test_wrong_arguments_are_refused(given: dict[str, Any], error: type[Exception], message: str) -> None:
    refused: Any = ops.retry_stream
    with pytest.raises(error, match=message):
        refused(**{"times": 1} | given)
