"""``heartbeat``: signs of life where nothing is shown."""

from typing import Any

import pytest
import reactivex as rx
from reactivex import operators as rxops

from rxflow import operators as ops
from rxflow.testing import Marbles, ScriptedLLM
from rxflow.testing._scripted import thinking
from rxflow.types.chunks import Origin, StreamChunk
from rxflow.types.events import Heartbeat
from tests.team import solo


def beat(silent_for: float) -> Heartbeat:
    return Heartbeat(origin=Origin(), silent_for=silent_for)


def silence(item: Any) -> Any:
    return item.silent_for if isinstance(item, Heartbeat) else item


def place(item: StreamChunk | Heartbeat) -> tuple[str, str] | None:
    return (item.origin.agent_role, item.origin.task_name) if isinstance(item, Heartbeat) else None


class TestOnAnyStream:
    def test_it_beats_once_an_interval_of_silence(self, marbles: Marbles) -> None:
        source = marbles.cold("--a-------------b--|")
        marbles.expect(source.pipe(ops.heartbeat(0.005))).to_be(
            "--a----x----y---b--|", {"x": beat(0.005), "y": beat(0.01)}
        )

    def test_it_beats_before_the_first_item(self, marbles: Marbles) -> None:
        marbles.expect(marbles.cold("-------a|").pipe(ops.heartbeat(0.005))).to_be("-----x-a|", {"x": beat(0.005)})

    def test_it_is_still_where_items_come(self, marbles: Marbles) -> None:
        marbles.expect(marbles.cold("--a---b---c---|").pipe(ops.heartbeat(0.005))).to_be("--a---b---c---|")

    def test_an_error_ends_it(self, marbles: Marbles) -> None:
        error = ValueError("no")
        piped = marbles.cold("------#", error=error).pipe(ops.heartbeat(0.005))
        marbles.expect(piped).to_be("-----x#", {"x": beat(0.005)}, error)

    def test_disposing_disposes_the_source(self, marbles: Marbles) -> None:
        source = marbles.cold("-----------a|")
        marbles.expect(source.pipe(ops.heartbeat(0.005), rxops.take(1))).to_be("-----(x|)", {"x": beat(0.005)})
        marbles.expect_subscriptions(source).to_be("^----!")

    def test_each_subscription_has_a_clock_of_its_own(self, marbles: Marbles) -> None:
        piped = marbles.hot("---a----b-|").pipe(ops.heartbeat(0.005))
        marbles.expect(piped).to_be("---a----b-|")
        marbles.expect(piped, "--^").to_be("---a----b-|")

    def test_the_origin_is_that_of_the_last_item(self, marbles: Marbles) -> None:
        chunk = StreamChunk(content="a", task_name="research", agent_role="Scout", attempt=2)
        origins = marbles.cold("a-------|", {"a": chunk}).pipe(ops.heartbeat(0.005), rxops.skip(1))
        expected = Origin(task_name="research", agent_role="Scout", attempt=2)
        marbles.expect(origins).to_be("-----x--|", {"x": Heartbeat(origin=expected, silent_for=0.005)})

    def test_without_any_clock_the_stream_fails(self) -> None:
        told: list[Any] = []
        rx.never().pipe(ops.heartbeat(5)).subscribe(on_error=told.append)
        assert "heartbeat needs a clock" in str(told[0])


class TestInARun:
    def test_what_counts_is_what_is_shown(self, marbles: Marbles) -> None:
        """The model reasons, and those who see only chunks see nothing of it."""
        script, values = "a--t--t--t-b|", {"t": thinking("Hm.")}
        shown = ScriptedLLM(script, values=values).observe("Hello").pipe(ops.heartbeat(0.005), rxops.map(silence))
        thoughts = ScriptedLLM(script, values=values).events("Hello").pipe(ops.reasoning())
        beats = thoughts.pipe(ops.heartbeat(0.005)).pipe(rxops.filter(lambda item: isinstance(item, Heartbeat)))
        marbles.expect(shown).to_be("a----x----yb|", {"x": 0.005, "y": 0.01})
        marbles.expect(beats).to_be("------------|")

    def test_the_origin_is_that_of_the_latest_event(self, marbles: Marbles) -> None:
        crew = solo(ScriptedLLM("--------he|"), agent={"role": "Scout"}, name="research")
        origins = crew.observe().pipe(ops.heartbeat(0.005), rxops.take(1), rxops.map(place))
        marbles.expect(origins).to_be("-----(x|)", {"x": ("Scout", "research")})

    def test_it_does_not_keep_a_run_alive(self, marbles: Marbles) -> None:
        llm = ScriptedLLM("he-ll-o|")
        marbles.expect(llm.observe("Hello").pipe(ops.heartbeat(0.005))).to_say("he-ll-o|")


@pytest.mark.parametrize("interval", [0, -1])
def test_the_interval_is_above_zero(interval: float) -> None:
    with pytest.raises(
        ValueError, match=r"heartbeat\(interval\) must be a number of seconds \(or a timedelta\) above 0; got"
    ):
        ops.heartbeat(interval)
