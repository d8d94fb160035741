"""``check_source`` lets good sources pass, also all of ours, and says of each broken one what it breaks."""

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
import reactivex as rx
from reactivex import Observable
from reactivex.scheduler import NewThreadScheduler

from rxflow import Crew
from rxflow.flow import Flow, start
from rxflow.testing import ConformanceError, check_source
from rxflow.testing._conformance import check, harness
from rxflow.testing._scripted import ScriptedLLM, thinking, tool_call
from tests.loopback import Loopback
from tests.team import a_crew, a_task, an_agent
from tests.testing import broken_sources as broken

pytestmark = pytest.mark.slow

Factory = Callable[[], Observable[Any]]


def llm(script: str = "he-ll-o|") -> ScriptedLLM:
    return ScriptedLLM(script, repeat=True)


def crew(script: str = "he-ll-o|") -> Crew:
    agent = an_agent(llm(script), max_retry_limit=0)
    return a_crew(a_task(agent, "One"), a_task(agent, "Two"))


class Sync(Flow):
    @start()
    def work(self) -> Any:
        return crew().kickoff()


class Async(Flow):
    @start()
    async def one(self) -> Any:
        return await llm().acall("x")


OURS: dict[str, Factory] = {
    "LLM": lambda: llm().observe("x"),
    "LLM that reasons and calls": lambda: ScriptedLLM(
        [thinking("Hm."), tool_call("look", {"where": "north"})], repeat=True
    ).observe("x"),
    "LLM that fails": lambda: llm("he-#").observe("x"),
    "LLM that fails at once": lambda: llm("#").observe("x"),
    "crew": lambda: crew().observe(),
    "crew that fails": lambda: crew("he-#").observe(),
    "flow with a sync method": lambda: Sync().observe(),
    "flow with an async method": lambda: Async().observe(),
}
OF_RXPY: dict[str, Factory] = {
    "of": lambda: rx.of(1, 2, 3),
    "empty": rx.empty,
    "throw": lambda: rx.throw(ValueError("no")),
    "timer": lambda: rx.timer(0.5),
    "merge": lambda: rx.merge(rx.timer(0.5), rx.timer(0.7)),
    # not subscribe_on(): a disposal does not stop it while the source emits during its subscription
    "in a thread": lambda: rx.from_iterable([1, 2, 3], scheduler=NewThreadScheduler()),
}


class TestGoodOnesPass:
    @pytest.mark.parametrize("factory", OURS.values(), ids=OURS)
    def test_of_ours(self, factory: Factory) -> None:
        check_source(factory)

    def test_events_of_ours(self) -> None:
        check_source(lambda: Async().events(), key=type)
        check_source(lambda: crew().events(), key=type)

    @pytest.mark.parametrize("factory", OF_RXPY.values(), ids=OF_RXPY)
    def test_of_rxpy(self, factory: Factory) -> None:
        check_source(factory)

    def test_without_an_end(self) -> None:
        check_source(lambda: rx.interval(1.0), ends=False)
        check_source(rx.never, ends=False)
        check_source(lambda: llm("he-").observe("x"), ends=False)

    def test_those_that_the_broken_ones_are_made_of(self) -> None:
        check_source(broken.source)

    def test_over_a_socket_in_real_time(self, provider: Loopback) -> None:
        from rxflow import LLM

        model = LLM("openai/gpt-4o", base_url=provider.url, api_key="k")
        check_source(lambda: model.observe("Hello"), real_time=True, settling=0.02)


ONE_END = "subscribe returns, and one end comes, with nothing after it"
ELSEWHERE = "disposing is quick and idempotent, from any thread, and never raises"

BROKEN: dict[str, tuple[Factory, str, str]] = {
    "ending twice": (lambda: broken.source(broken.EndingTwice), ONE_END, r"after its end came on_completed\(\)"),
    "raising in subscribe": (broken.raising_in_subscribe, ONE_END, "RuntimeError"),
    "silent": (broken.silent, ONE_END, "no end came"),
    "in threads": (lambda: broken.source(broken.InThreads), "signals are serial", "came from another thread inside"),
    "with one store": (
        broken.with_one_store,
        "it is cold: one subscription after another gives the same",
        r"one subscription got \['a', 'b', 'c'\] and None; the other one \[\]",
    ),
    "filled anew": (
        broken.filled_anew,
        "it is cold: two subscriptions at the same time do not disturb each other",
        "one subscription got",
    ),
    "disposed together": (
        broken.disposed_together,
        "disposing one of two subscriptions leaves the other alone",
        "the other one has gone",
    ),
    "too late at once": (
        lambda: broken.source(broken.TooLateAtOnce),
        "disposed before its first item, it emits nothing",
        "disposed at once, it emitted",
    ),
    "going on": (
        lambda: broken.source(broken.GoingOn),
        "signals stop with the disposal",
        r"3 signal\(s\) came after the disposal",
    ),
    "doubling without a net": (
        broken.doubling_without_a_net,
        "no signal follows after the observer has disposed during a signal",
        "disposed during an item",
    ),
    "waiting for the loop": (lambda: broken.source(broken.WaitingForTheLoop), ELSEWHERE, "took longer than"),
    "on its thread only": (lambda: broken.source(broken.OnItsThreadOnly), ELSEWHERE, "from another thread raised"),
    "complaining after the end": (
        lambda: broken.source(broken.ComplainingAfterTheEnd),
        "disposing after the end does nothing",
        "it has ended already",
    ),
    "leaving a task": (
        lambda: broken.source(broken.LeavingATask),
        "nothing of it continues after its end or disposal",
        "it left tasks behind",
    ),
    "keeping observers": (
        broken.keeping_observers,
        "an ended or disposed stream keeps no reference to its observer",
        "still holds a reference",
    ),
    "swallowing": (
        lambda: broken.source(broken.Swallowing),
        "an observer's error is reported",
        "nor subscribe got the error",
    ),
}


class TestBrokenOnesDoNot:
    @pytest.fixture(autouse=True)
    def no_patience(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(harness, "SIGNAL_TIMEOUT_S", 0.1)
        monkeypatch.setattr(harness, "DISPOSAL_LIMIT_S", 0.05)

    @pytest.mark.parametrize(("factory", "named", "seen"), BROKEN.values(), ids=BROKEN)
    def test_the_rule_is_named(self, factory: Factory, named: str, seen: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(ConformanceError):
            check_source(factory)
        # Whoever breaks one rule may break others too, which are tried before it.
        monkeypatch.setattr(check, "SOURCE_RULES", [each for each in check.SOURCE_RULES if each.name == named])
        with pytest.raises(ConformanceError, match=seen) as caught:
            check_source(factory)
        assert caught.value.rule == named

    def test_every_rule_has_one_that_breaks_it(self) -> None:
        assert {each.name for each in check.SOURCE_RULES} - {named for _, named, _ in BROKEN.values()} == set()

    def test_a_model_that_is_asked_too_often_is_no_cold_source(self) -> None:
        models: list[ScriptedLLM] = []

        def factory() -> Observable[Any]:
            models.append(ScriptedLLM("he|"))
            return models[-1].observe("x")

        with pytest.raises(ConformanceError, match="UnscriptedRequest"):
            check_source(factory)
        assert any(model.unscripted for model in models)
        for model in models:
            model.unscripted.clear()


def test_a_factory_may_be_a_method_of_a_builtin_object() -> None:
    sources = deque([rx.of(1, 2), rx.of(1, 3)] * 50)
    with pytest.raises(ConformanceError, match=r"the source deque\.popleft"):
        check_source(sources.popleft)


def test_labels_of_chunks_may_differ_but_not_what_they_say() -> None:
    scripts = iter(["he|", "ho|"] * 20)

    def factory() -> Observable[Any]:
        model = ScriptedLLM(next(scripts), next(scripts), repeat=True)
        return model.observe("x")

    with pytest.raises(ConformanceError, match="it is cold"):
        check_source(factory)
