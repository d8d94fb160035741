"""``or_`` and ``and_``: when they fire, with whose result, and when again."""

import asyncio
import threading
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from rxflow.flow import Flow, and_, listen, or_, router, start
from tests.gate import PATIENCE_S


class Heard(Flow):
    """Notes what its listeners hear."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []


def heard_in(flow: Heard) -> list[str]:
    """What the listeners of one run hear, in that order."""
    flow.kickoff()
    return flow.heard


class InOrder(Heard):
    """Three starts that complete one after the other, in the order given."""

    def __init__(self, order: str) -> None:
        super().__init__()
        self._turns = {name: asyncio.Event() for name in order}
        self._next = dict(pairwise(order))
        self._turns[order[0]].set()

    async def _say(self, name: str) -> str:
        await self._turns[name].wait()
        if name in self._next:
            self._turns[self._next[name]].set()
        return name

    @start()
    async def a(self) -> str:
        return await self._say("a")

    @start()
    async def b(self) -> str:
        return await self._say("b")

    @start()
    async def c(self) -> str:
        return await self._say("c")


orders = pytest.mark.parametrize("order", ["abc", "acb", "bac", "bca", "cab", "cba"])


@orders
def test_or_fires_once_with_the_result_of_the_first(order: str) -> None:
    class First(InOrder):
        @listen(or_(InOrder.a, InOrder.b, InOrder.c))
        def listener(self, result: str) -> None:
            self.heard.append(result)

    assert heard_in(First(order)) == [order[0]]


@orders
def test_and_fires_once_with_the_result_of_the_last(order: str) -> None:
    class Last(InOrder):
        @listen(and_(InOrder.a, InOrder.b, InOrder.c))
        def listener(self, result: str) -> None:
            self.heard.append(result)

    assert heard_in(Last(order)) == [order[-1]]


@orders
def test_an_or_of_an_and_fires_when_either_side_is_met(order: str) -> None:
    class Either(InOrder):
        @listen(or_(and_(InOrder.a, InOrder.b), InOrder.c))
        def listener(self, result: str) -> None:
            self.heard.append(result)

    flow = Either(order)
    flow.kickoff()
    both = max(order.index("a"), order.index("b"))
    assert flow.heard == [order[min(both, order.index("c"))]]


@orders
def test_an_and_of_an_or_fires_when_both_sides_are_met(order: str) -> None:
    class Both(InOrder):
        @listen(and_(or_(InOrder.a, InOrder.b), InOrder.c))
        def listener(self, result: str) -> None:
            self.heard.append(result)

    flow = Both(order)
    flow.kickoff()
    either = min(order.index("a"), order.index("b"))
    assert flow.heard == [order[max(either, order.index("c"))]]


def test_conditions_mix_methods_names_and_labels() -> None:
    class Mixed(Flow):
        @start()
        def begin(self) -> None: ...

        @router(begin)
        def which(self) -> str:
            return "label"

        @listen(begin)
        def beside(self) -> None: ...

        @listen(and_(begin, "beside", "label"))
        def end(self) -> str:
            return "all three"

    flow = Mixed()
    flow.kickoff()
    assert "all three" in flow.method_outputs


def test_or_neither_cancels_nor_hides_a_slower_sibling() -> None:
    class Race(Flow):
        def __init__(self) -> None:
            super().__init__()
            self.decided = asyncio.Event()

        @start()
        async def slow(self) -> str:
            await self.decided.wait()
            return "slow"

        @start()
        async def fast(self) -> str:
            return "fast"

        @listen(or_(slow, fast))
        async def first(self, winner: str) -> str:
            self.decided.set()
            return f"{winner} won"

        @listen(slow)
        def after_slow(self) -> str:
            return "and slow arrived"

    flow = Race()
    assert flow.kickoff() == "and slow arrived"
    assert flow.method_outputs == ["fast", "fast won", "slow", "and slow arrived"]


def test_a_sibling_that_fails_after_or_has_fired_fails_the_flow() -> None:
    class Race(Flow):
        def __init__(self) -> None:
            super().__init__()
            self.decided = threading.Event()

        @start()
        def slow(self) -> str:
            self.decided.wait(PATIENCE_S)
            raise LookupError("slow failed")

        @start()
        def fast(self) -> str:
            return "fast"

        @listen(or_(slow, fast))
        def first(self) -> None:
            self.decided.set()

    with pytest.raises(LookupError, match="slow failed"):
        Race().kickoff()


def test_a_sibling_that_fails_first_fails_the_flow_before_or_fires() -> None:
    class Race(Flow):
        def __init__(self) -> None:
            super().__init__()
            self.fired = False

        @start()
        async def fails(self) -> str:
            raise LookupError("failed")

        @start()
        async def never(self) -> None:
            await asyncio.Event().wait()

        @listen(or_(fails, never))
        def first(self) -> None:
            self.fired = True

    flow = Race()
    with pytest.raises(LookupError):
        flow.kickoff()
    assert not flow.fired


def test_or_is_armed_again_by_the_outcome_of_a_router() -> None:
    class Rounds(Heard):
        @start()
        def begin(self) -> str:
            return "begin"

        @listen(or_(begin, "again"))
        def work(self, why: str) -> int:
            self.heard.append(why)
            return len(self.heard)

        @router(work)
        def enough(self, rounds: int) -> str | None:
            return "again" if rounds < 3 else None

    assert heard_in(Rounds()) == ["begin", "again", "again"]


def test_or_fires_once_though_a_router_listens_to_the_same_trigger() -> None:
    class Race(Heard):
        def __init__(self) -> None:
            super().__init__()
            self.fired = asyncio.Event()

        @start()
        async def fast(self) -> str:
            return "fast"

        @start()
        async def slow(self) -> str:
            await self.fired.wait()
            return "slow"

        @router(fast)
        def which(self) -> str:
            return "other"

        @listen("other")
        def beside(self) -> None: ...

        @listen(or_(fast, slow))
        async def first(self, winner: str) -> None:
            self.heard.append(winner)
            self.fired.set()

    assert heard_in(Race()) == ["fast"]


def test_and_needs_all_anew_in_each_round() -> None:
    class Rounds(Flow):
        @start()
        def begin(self) -> None:
            self.state.update(rounds=0, joins=0)

        @listen(or_(begin, "again"))
        def left(self) -> None:
            self.state["rounds"] += 1

        @listen(left)
        def right(self) -> None: ...

        @listen(and_(left, right))
        def join(self) -> None:
            self.state["joins"] += 1

        @router(join)
        def enough(self) -> str | None:
            return "again" if self.state["rounds"] < 3 else None

    flow = Rounds()
    flow.kickoff()
    assert (flow.state["rounds"], flow.state["joins"]) == (3, 3)


def test_one_of_two_is_not_all_however_often_it_comes() -> None:
    class Lopsided(Flow):
        @start()
        def begin(self) -> None:
            self.state.update(rounds=0, joins=0)

        @listen(or_(begin, "again"))
        def left(self) -> None:
            self.state["rounds"] += 1

        @router(left)
        def enough(self) -> str:
            return "again" if self.state["rounds"] < 3 else "done"

        @listen(and_(left, "never"))
        def join(self) -> None:
            self.state["joins"] += 1

        @router("done")
        def could(self) -> str | None:
            return "never" if self.state["rounds"] == 0 else None

    flow = Lopsided()
    flow.kickoff()
    assert (flow.state["rounds"], flow.state["joins"]) == (3, 0)


def test_a_condition_of_one_is_that_one() -> None:
    class One(Flow):
        @start()
        def begin(self) -> str:
            return "one"

        @listen(or_(begin))
        def by_or(self, heard: str) -> str:
            return f"or {heard}"

        @listen(and_(begin))
        def by_and(self, heard: str) -> str:
            return f"and {heard}"

    flow = One()
    flow.kickoff()
    assert sorted(flow.method_outputs) == ["and one", "one", "or one"]


@settings(max_examples=40, deadline=None)
@given(st.permutations("abc"), st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True))
def test_whatever_the_order_or_takes_the_first_and_and_the_last_of_theirs(order: list[str], names: list[str]) -> None:
    class Both(InOrder):
        @listen(or_(*names))
        async def first(self, result: str) -> None:
            self.heard.append(f"first {result}")

        @listen(and_(*names))
        async def last(self, result: str) -> None:
            self.heard.append(f"last {result}")

    flow = Both("".join(order))
    flow.kickoff()
    arrivals = [name for name in order if name in names]
    assert sorted(flow.heard) == [f"first {arrivals[0]}", f"last {arrivals[-1]}"]


class TestOrFiresOnceAWave:
    """A wave is a method's completion and the routers that it sets off."""

    @pytest.mark.parametrize(
        "condition",
        [
            or_("begin", "ok"),
            or_("ok", "begin"),
            or_("which", "ok"),
            or_("begin", "which", "ok"),
            or_(and_("begin", "ok"), "which"),
            or_("begin", or_("which", "ok")),
        ],
        ids=str,
    )
    def test_of_a_method_its_router_and_the_routers_label(self, condition: Any) -> None:
        class Both(Heard):
            @start()
            def begin(self) -> str:
                return "begin"

            @router(begin)
            def which(self) -> str:
                return "ok"

            @listen(condition)
            def listener(self, why: str) -> None:
                self.heard.append(why)

        flow = Both()
        flow.kickoff()
        assert len(flow.heard) == 1

    def test_of_a_start_that_is_a_router_and_its_label(self) -> None:
        class Both(Heard):
            @router()
            @start()
            def which(self) -> str:
                return "ok"

            @listen(or_(which, "ok"))
            def listener(self, why: str) -> None:
                self.heard.append(why)

        assert heard_in(Both()) == ["ok"]

    def test_of_the_labels_of_two_routers_and_of_a_chain_of_them(self) -> None:
        class Chain(Heard):
            @start()
            def begin(self) -> None: ...

            @router(begin)
            def one(self) -> str:
                return "x"

            @router(begin)
            def two(self) -> str:
                return "y"

            @router("y")
            def three(self) -> str:
                return "z"

            @listen(or_("z", "y", "x"))
            def listener(self, why: str) -> None:
                self.heard.append(why)

        assert heard_in(Chain()) == ["x"]

    def test_though_its_label_comes_after_all_that_the_method_sets_off(self) -> None:
        class Late(Heard):
            @start()
            def begin(self) -> None: ...

            @router(begin)
            def which(self) -> str:
                return "ok"

            @listen(begin)
            def step(self) -> str:
                return "step"

            @listen(or_(step, "ok"))
            def listener(self, why: str) -> None:
                self.heard.append(why)

        assert heard_in(Late()) == ["step"]


class TestOrIsArmedAgain:
    def test_by_no_router_whose_label_it_does_not_name(self) -> None:
        class Elsewhere(Heard):
            def __init__(self) -> None:
                super().__init__()
                self.fired = asyncio.Event()
                self.spoken = asyncio.Event()

            @start()
            async def fast(self) -> str:
                return "fast"

            @start()
            async def other(self) -> None:
                await self.fired.wait()

            @start()
            async def slow(self) -> str:
                await self.spoken.wait()
                return "slow"

            @router(other)
            async def speaks(self) -> str:
                return "unrelated"

            @listen("unrelated")
            async def elsewhere(self) -> None:
                self.spoken.set()

            @listen(or_(fast, slow))
            async def listener(self, why: str) -> None:
                self.heard.append(why)
                self.fired.set()

        assert heard_in(Elsewhere()) == ["fast"]

    def test_by_a_label_that_it_names_if_it_had_fired_before_that_wave(self) -> None:
        class Later(InOrder):
            @router(InOrder.b)
            def speaks(self) -> str:
                return "x"

            @listen(or_(InOrder.a, InOrder.c, "x"))
            def listener(self, why: str) -> None:
                self.heard.append(why)

        assert heard_in(Later("abc")) == ["a", "x"]

    def test_by_any_completed_method_that_runs_again(self) -> None:
        class Rounds(Heard):
            def __init__(self) -> None:
                super().__init__()
                self.rounds = 0

            @start()
            def begin(self) -> None: ...

            @listen(or_(begin, "again"))
            def work(self) -> None:
                self.rounds += 1

            @listen(work)
            def one(self) -> str:
                return f"one {self.rounds}"

            @listen(one)
            def two(self) -> str:
                return f"two {self.rounds}"

            @listen(or_(two, "never"))
            def listener(self, why: str) -> None:
                self.heard.append(why)

            @router(two, emit=["again", "never"])
            def enough(self) -> str | None:
                return "again" if self.rounds < 3 else None

        assert heard_in(Rounds()) == ["two 1", "two 2", "two 3"]

    def test_and_an_or_of_one_need_not_be(self) -> None:
        class One(Heard):
            @start()
            def begin(self) -> None: ...

            @router(begin)
            def one(self) -> str:
                return "x"

            @router(begin)
            def two(self) -> str:
                return "x"

            @listen(or_("x"))
            def by_or(self) -> None:
                self.heard.append("or")

            @listen("x")
            def by_name(self) -> None:
                self.heard.append("name")

        flow = One()
        flow.kickoff()
        assert sorted(flow.heard) == ["name", "name", "or", "or"]


class TestARouterUnderOr:
    """Runs in each wave that meets its condition, and once in each; CrewAI does not hold it back either."""

    def test_runs_for_each_of_two_methods(self) -> None:
        class Each(InOrder):
            @router(or_(InOrder.a, InOrder.b))
            def which(self, why: str) -> str:
                return f"after {why}"

            @listen("after a")
            def after_a(self, label: str) -> None:
                self.heard.append(label)

            @listen("after b")
            def after_b(self, label: str) -> None:
                self.heard.append(label)

        assert heard_in(Each("abc")) == ["after a", "after b"]

    @pytest.mark.parametrize("names", [["which", "other"], ["other", "which"]], ids=" ".join)
    def test_runs_once_for_a_method_and_the_label_of_its_other_router(self, names: list[str]) -> None:
        def begin(self: Heard) -> None: ...

        def which(self: Heard) -> None:
            self.heard.append("which")

        def other(self: Heard) -> str:
            return "x"

        routers = {"which": router(or_("begin", "x"), emit=[])(which), "other": router("begin")(other)}
        made: type[Heard] = type("Both", (Heard,), {"begin": start()(begin)} | {name: routers[name] for name in names})
        assert heard_in(made()) == ["which"]

    def test_may_ask_for_itself_again(self) -> None:
        class Retry(Heard):
            @start()
            def begin(self) -> None: ...

            @router(or_(begin, "retry"))
            def judge(self) -> str:
                self.heard.append("judge")
                return "retry" if len(self.heard) < 3 else "done"

            @listen("done")
            def end(self) -> str:
                return "ended"

        flow = Retry()
        assert flow.kickoff() == "ended"
        assert flow.heard == ["judge"] * 3

    def test_may_ask_for_itself_again_by_way_of_another(self) -> None:
        class PingPong(Heard):
            @start()
            def begin(self) -> None: ...

            @router(or_(begin, "ping"))
            def one(self) -> str:
                self.heard.append("one")
                return "pong" if len(self.heard) < 5 else "done"

            @router("pong")
            def two(self) -> str:
                self.heard.append("two")
                return "ping"

            @listen("done")
            def end(self) -> None: ...

        assert heard_in(PingPong()) == ["one", "two", "one", "two", "one"]
