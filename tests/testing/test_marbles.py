"""Marbles: what streams are given and make of it, on one virtual clock, and how a mismatch shows."""

import asyncio
import importlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
import reactivex as rx
from reactivex import operators as ops
from reactivex.abc import DisposableBase

import rxflow
from rxflow._streaming.bridge import from_async
from rxflow.flow import Flow, listen, start
from rxflow.testing._diagrams import MarbleError
from rxflow.testing._marbles import Marbles
from rxflow.testing._scripted import ScriptedLLM
from tests.scripted import Scripted
from tests.team import solo


@pytest.fixture
def played() -> Marbles:
    """Without the verdict of the plugin's fixture at the end."""
    return Marbles()


def message_of(played: Marbles, source: rx.Observable[Any], diagram: str, **given: Any) -> str:
    """What a mismatch says."""
    with pytest.raises(AssertionError) as caught:
        played.expect(source, given.pop("subscription", None)).to_be(diagram, **given)
    return str(caught.value)


def test_a_cold_source_plays_for_each_subscriber_from_its_beginning(played: Marbles) -> None:
    source = played.cold("-a-b|")
    first, second = played.expect(source), played.expect(source, "--^")
    first.to_be("-a-b|")
    second.to_be("-- -a-b|")
    played.expect_subscriptions(source).to_be("^---!", "--^---!")


def test_a_hot_source_plays_once(played: Marbles) -> None:
    source = played.hot("x-^-a-b-c|")
    first, second = played.expect(source), played.expect(source, "---^")
    first.to_be("--a-b-c|")
    second.to_be("----b-c|")
    played.expect_subscriptions(source).to_be("^------!", "---^---!")


def test_who_comes_after_the_end_of_a_hot_source_is_told_of_it(played: Marbles) -> None:
    source = played.hot("a#", error=ValueError("x"))
    played.expect(source, "----^").to_be("----#", error=ValueError("x"))


def test_items_errors_and_groups_come_through(played: Marbles) -> None:
    played.expect(played.cold("(ab)-#", {"a": [1], "b": {}}, ValueError("x"))).to_be(
        "(xy)-#", {"x": [1], "y": {}}, ValueError("x")
    )
    played.expect(played.cold("#")).to_be("#")


def test_errors_are_compared_by_type_and_message(played: Marbles) -> None:
    for error in (ValueError("y"), KeyError("x"), None):
        with pytest.raises(AssertionError, match="expected the error"):
            played.expect(played.cold("#", error=ValueError("x"))).to_be("#", error=error)
    played.expect(rx.throw(MarbleError("#"))).to_be("#")


def test_an_unsubscription_comes_before_the_item_of_its_instant(played: Marbles) -> None:
    source = played.cold("a--b--c")
    played.expect(source, "^--!").to_be("a")
    played.expect_subscriptions(source).to_be("^--!")


def test_until_ends_a_subscription_too(played: Marbles) -> None:
    played.expect(rx.interval(1.0), until=3.5).to_be("1s a 999ms b 999ms c", {"a": 0, "b": 1, "c": 2})
    with pytest.raises(TypeError, match="given twice"):
        played.expect(rx.never(), "^-!", until=1)


def test_all_that_is_expected_plays_together(played: Marbles) -> None:
    source = played.hot("-a-b|")
    shared = source.pipe(ops.share())
    first, second = played.expect(shared), played.expect(shared, "^-!")
    first.to_be("-a-b|")
    second.to_be("-a")
    played.expect_subscriptions(source).to_be("^---!")


def test_a_second_play_begins_at_zero_again(played: Marbles) -> None:
    source = played.cold("-a|")
    for _ in range(2):
        played.expect(source).to_be("-a|")
        played.expect_subscriptions(source).to_be("^-!")


def test_time_operators_share_the_clock(played: Marbles) -> None:
    debounced = played.expect(played.cold("ab----c|").pipe(ops.debounce(0.002)))
    delayed = played.expect(played.cold("a|").pipe(ops.delay(59.0)))
    late = played.expect(rx.timer(3600.0))
    timed_out = played.expect(rx.never().pipe(ops.timeout(0.005, played.cold("-x|"))))
    debounced.to_be("---b---(c|)")
    delayed.to_be("59s a|")
    late.to_be("1h (a|)", {"a": 0})
    timed_out.to_be("----- -x|")


def test_coroutines_and_rx_share_the_clock(played: Marbles) -> None:
    async def work(emit: Callable[[str], None]) -> None:
        await asyncio.sleep(0.001)
        emit("a")
        with anyio.move_on_after(0.002):
            await anyio.sleep_forever()
        emit("b")

    played.expect(from_async(work).pipe(ops.merge(played.cold("--x|")))).to_be("-ax(b|)")


class Report(Flow):
    """An async method, then a sync one with a crew, which sleeps in its thread."""

    @start()
    async def greet(self) -> AsyncIterator[str]:
        yield "he"
        await asyncio.sleep(0.003)
        yield "llo"

    @listen(greet)
    def part(self) -> str:
        time.sleep(0.002)
        return str(solo(Scripted(["bye"])).kickoff())


def test_a_flow_is_compared_by_the_text_of_its_chunks(played: Marbles) -> None:
    first, second = played.expect(Report().observe()), played.expect(Report().observe())
    first.to_be("a--b-(c|)", {"a": "he", "b": "llo", "c": "bye"})
    with pytest.raises(AssertionError, match=r"at 5ms expected 'good', but StreamChunk 'bye' came"):
        second.to_be("a--b-(c|)", {"a": "he", "b": "llo", "c": "good"})


def test_a_stream_is_compared_with_a_script(played: Marbles) -> None:
    said = played.cold("a--b--c|", {"a": "he", "b": "ll", "c": "o"})
    first, second = played.expect(said), played.expect(said)
    first.to_say("he-ll-o|")
    with pytest.raises(AssertionError, match="at 3ms expected 'lx', but 'll' came"):
        second.to_say("he-lx-o|")


def test_signals_come_on_the_thread_of_the_loop(played: Marbles) -> None:
    threads: set[str] = set()

    async def work(emit: Callable[[str], None]) -> None:
        emit("a")

    source = from_async(work).pipe(ops.do_action(lambda _: threads.add(threading.current_thread().name)))
    played.expect(source).to_be("(a|)")
    assert threads == {threading.current_thread().name}


def test_a_source_that_never_ends_is_no_mismatch_by_itself(played: Marbles) -> None:
    played.expect(rx.never()).to_be("")
    played.expect(played.cold("a")).to_be("a")


def test_a_mismatch_shows_both_diagrams_the_legend_and_the_first_difference(played: Marbles) -> None:
    assert message_of(played, played.cold("-a--b|", {"a": [1]}), "-a-b|", values={"a": [1]}) == (
        "the stream is not '-a-b|'\n"
        "  expected  -a-b|\n"
        "  actual    -a--b|\n"
        "  a = [1]\n"
        "  first difference: expected 'b' at 3ms; it came at 4ms"
    )


def test_a_flow_that_is_stuck_shows_where(played: Marbles) -> None:
    class Stuck(Flow):
        @start()
        async def speak(self) -> AsyncIterator[str]:
            yield "a"
            await asyncio.Event().wait()

    message = message_of(played, Stuck().observe(), "a|")
    assert "expected the completion at 1ms, but nothing more came" in message
    assert "still waiting at the end:" in message
    assert "in speak: await asyncio.Event().wait()" in message


def test_a_method_in_a_thread_that_waits_for_a_stuck_crew_is_shown_too(played: Marbles) -> None:
    class Waiting(Flow):
        @start()
        def wait(self) -> str:
            return str(solo(ScriptedLLM("a-")).kickoff())

    message = message_of(played, Waiting().observe(), "a|")
    assert "  the thread 'rxflow wait', which waits in Crew.kickoff\n" in message
    assert 'in wait: return str(solo(ScriptedLLM("a-")).kickoff())' in message


def test_an_error_shows_where_users_code_raised_it(played: Marbles) -> None:
    class Failing(Flow):
        @start()
        def fail(self) -> str:
            raise KeyError("k" * 500)

    message = message_of(played, Failing().observe(), "a|")
    (legend,) = [line for line in message.split("\n") if line.startswith("  # = ")]
    assert legend.startswith(f"  # = {KeyError('k' * 500)!r}, raised at ")
    assert legend.endswith('in fail: raise KeyError("k" * 500)')


def test_the_line_of_an_error_is_the_users_wherever_the_file_lies(played: Marbles) -> None:
    beside = f"{Path(rxflow.__file__).parent}_app/flow.py"  # begins with the path of the library's folder
    names: dict[str, Any] = {}
    exec(compile("def fail(item):\n    raise ValueError(item)\n", beside, "exec"), names)
    said = message_of(played, played.cold("a|").pipe(ops.map(names["fail"])), "a|")
    assert "rxflow_app/flow.py:2, in fail" in said


def test_the_line_of_a_failed_import_is_the_users(played: Marbles) -> None:
    def load(item: str) -> object:
        return importlib.import_module(f"no_such_module_{item}")

    said = message_of(played, played.cold("a|").pipe(ops.map(load)), "a|")
    assert "in load: return importlib.import_module" in said


def test_what_is_not_to_scale_is_explained(played: Marbles) -> None:
    assert "[" not in message_of(played, played.cold("a-b|"), "a|")
    source = rx.merge(played.cold("(ab)"), played.cold("-c|"))
    assert message_of(played, source, "(ab)|") == (
        "the stream is not '(ab)|'\n"
        "  expected  (ab)|\n"
        "  actual    (ab)[1ms]c-\n"
        "  […] = the time of the next mark; it is not to scale, because the marks before it are wider than "
        "the time between\n"
        "  first difference: expected the completion at 4ms, but 'c' came at 1ms"
    )


def test_the_legend_is_in_the_order_of_its_names_and_leaves_out_what_explains_itself(played: Marbles) -> None:
    message = message_of(played, ScriptedLLM("b-xx-c|").observe("x"), "a-yy-c|", values={"a": "long", "y": "other"})
    legend = [line.split(" = ")[0].strip() for line in message.split("\n") if " = " in line]
    assert legend == sorted(legend)
    assert "b" not in legend
    assert "c" not in legend


def test_timers_without_end_are_cut() -> None:
    message = message_of(Marbles(patience=5), rx.interval(1.0), "2s a")
    assert "the recording was cut at 7s, because timers kept running" in message


def test_wrong_subscriptions_are_shown(played: Marbles) -> None:
    source = played.cold("a|")
    played.expect(source).to_be("a|")
    with pytest.raises(AssertionError) as caught:
        played.expect_subscriptions(source).to_be("^-!", "-^!")
    assert str(caught.value) == (
        "the subscriptions to <ColdSource 'a|'> differ\n  expected  ^-!\n  expected  -^!\n  actual    ^!"
    )
    with pytest.raises(AssertionError, match="expected  no subscription"):
        played.expect_subscriptions(source).to_be()


def test_a_subscription_that_is_disposed_in_a_later_play_is_not_noted_there(played: Marbles) -> None:
    source = played.cold("a----|")
    held: list[DisposableBase] = []

    async def main() -> None:
        held.extend(source.subscribe() for _ in range(2))

    def dispose(item: object) -> None:
        for each in held:
            each.dispose()

    played.clock.run(main)
    played.expect(source.pipe(ops.do_action(dispose))).to_be("a----|")
    played.expect_subscriptions(source).to_be("^----!")


def test_a_play_is_not_cut_before_the_end_of_an_expected_subscription() -> None:
    played = Marbles(patience=10)
    source = played.cold("-")
    expected = played.expect(source.pipe(ops.take_until(rx.timer(1.0))))
    played.expect(rx.interval(0.001))
    played.expect_subscriptions(source).to_be("^ 999ms !")
    expected.to_be("1s |")


def test_a_source_that_nobody_subscribed_to_has_no_subscriptions(played: Marbles) -> None:
    played.expect_subscriptions(played.cold("a|")).to_be()


def test_what_is_still_subscribed_at_the_end_is_disposed(played: Marbles) -> None:
    ended: list[str] = []

    async def work(emit: Callable[[str], None]) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    source = played.cold("a")
    played.expect(rx.merge(from_async(work), source)).to_be("a")
    assert ended == ["cancelled"]
    played.expect_subscriptions(source).to_be("^")


def test_an_expectation_that_is_never_compared_is_an_error(played: Marbles) -> None:
    played.expect(played.cold("a|"))
    with pytest.raises(AssertionError, match="1 of the expectations of this test were never compared"):
        played.close()


def test_all_compared_leaves_nothing_to_complain_about(played: Marbles) -> None:
    played.expect(played.cold("a|")).to_be("a|")
    played.close()


def test_a_marble_source_outside_of_a_play_says_where_it_belongs(played: Marbles) -> None:
    with pytest.raises(RuntimeError, match=r"the marble source 'a\|' works only in virtual time"):
        played.cold("a|").subscribe()


def test_a_marble_source_plays_in_a_run_of_the_clock_too(played: Marbles) -> None:
    async def main() -> list[tuple[float, str]]:
        seen: list[tuple[float, str]] = []
        await asyncio.sleep(1)
        played.cold("-a|").subscribe(lambda item: seen.append((played.clock.now, item)))
        await asyncio.sleep(1)
        return seen

    assert played.clock.run(main) == [(1.001, "a")]


def test_what_is_no_observable_is_refused(played: Marbles) -> None:
    flow: Any = Report()
    with pytest.raises(TypeError, match=r"flow\.observe\(\); got a Report"):
        played.expect(flow)


def test_an_error_in_subscribing_is_raised_where_one_compares(played: Marbles) -> None:
    class Broken(rx.Observable[Any]):
        def subscribe(self, *args: Any, **kwargs: Any) -> Any:
            raise ZeroDivisionError("x")

    with pytest.raises(ZeroDivisionError):
        played.expect(Broken()).to_be("|")


def test_thousands_of_items_are_compared_in_no_time(played: Marbles) -> None:
    diagram = "-ab" * 2000 + "|"
    played.expect(played.cold(diagram)).to_be(diagram)
    with pytest.raises(AssertionError, match="at 6s expected 'c', but the completion came"):
        played.expect(played.cold(diagram)).to_be(diagram[:-1] + "c|")
