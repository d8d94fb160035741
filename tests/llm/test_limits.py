"""Requests and tokens a minute, shared by all who have the same key."""

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from reactivex.abc import DisposableBase

from rxflow import LLM, Flow
from rxflow._streaming.journal import Journal
from rxflow.flow import start
from rxflow.llm._limits import RateLimits, _Counters  # pyright: ignore[reportPrivateUsage]
from rxflow.llm.source import Ending
from rxflow.types import UsageMetrics
from rxflow.types.events import FlowFinished, FlowPaused, LLMRetrying
from tests.gate import PATIENCE_S, Gate
from tests.loopback import Loopback, Reply
from tests.scripted import Scripted
from tests.signals import Signals, outcome


def limited(provider: Loopback, key: str, *, max_rpm: int | None = None, max_tpm: int | None = None) -> LLM:
    return LLM("openai/gpt-4o", base_url=provider.url, api_key=key, max_rpm=max_rpm, max_tpm=max_tpm)


def keys_of(provider: Loopback) -> list[str]:
    return [request.headers["authorization"].removeprefix("Bearer ") for request in provider.requests]


def ask(llm: LLM) -> DisposableBase:
    return Signals().subscribe_to(llm.events("Hi"))


def ask_without_limits(provider: Loopback) -> None:
    """A whole round trip of another call: what was free to go has gone when it is back."""
    assert LLM("openai/gpt-4o", base_url=provider.url, api_key="free").call("Hi") is not None


def after_steps(count: int, then: Callable[[], object]) -> None:
    """Call ``then`` after so many steps of the running loop."""
    loop = asyncio.get_running_loop()
    loop.call_soon(then if count <= 1 else partial(after_steps, count - 1, then))


class TestRequests:
    def test_one_more_than_the_limit_waits(self, provider: Loopback) -> None:
        llm = limited(provider, "two", max_rpm=2)
        assert llm.call("Hi") is not None
        assert llm.call("Hi") is not None
        third = ask(llm)
        ask_without_limits(provider)
        assert keys_of(provider) == ["two", "two", "free"]
        third.dispose()

    def test_models_of_one_key_share_it(self, provider: Loopback) -> None:
        assert limited(provider, "shared", max_rpm=1).call("Hi") is not None
        waiting = ask(limited(provider, "shared", max_rpm=1))
        assert limited(provider, "another", max_rpm=1).call("Hi") is not None
        ask_without_limits(provider)
        assert keys_of(provider) == ["shared", "another", "free"]
        waiting.dispose()

    def test_models_with_other_limits_share_it(self, provider: Loopback) -> None:
        assert limited(provider, "mixed", max_rpm=3).call("Hi") is not None
        assert limited(provider, "mixed", max_rpm=2).call("Hi") is not None
        assert limited(provider, "mixed", max_rpm=3).call("Hi") is not None
        waiting = [ask(limited(provider, "mixed", max_rpm=rpm)) for rpm in (3, 2)]
        assert limited(provider, "unmixed", max_rpm=1).call("Hi") is not None
        ask_without_limits(provider)
        assert keys_of(provider) == ["mixed"] * 3 + ["unmixed", "free"]
        for each in waiting:
            each.dispose()

    @pytest.mark.parametrize(
        "given",
        [
            {"model": "gpt-4o"},
            {"model": "openai/gpt-4o", "api_key": "same"},
            {"model": "openai/gpt-4o", "base_url": None},
            {"model": "openai/gpt-4o", "via": "litellm"},
        ],
        ids=str,
    )
    def test_models_share_it_however_their_key_and_server_are_given(
        self, provider: Loopback, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any]
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "same")
        monkeypatch.setenv("OPENAI_BASE_URL", provider.url)
        first = LLM("openai/gpt-4o", base_url=provider.url, max_rpm=1)
        assert first.call("Hi") is not None
        options: dict[str, Any] = {"base_url": provider.url, "max_rpm": 1} | given
        waiting = ask(LLM(**options))
        assert limited(provider, "other", max_rpm=1).call("Hi") is not None
        ask_without_limits(provider)
        assert keys_of(provider) == ["same", "other", "free"]
        waiting.dispose()

    def test_models_of_other_providers_share_it_too(self, provider: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GROQ_API_KEY", "same")
        assert LLM("groq/llama-3", base_url=provider.url, max_rpm=1).call("Hi") is not None
        waiting = ask(LLM("groq/llama-3", base_url=f"{provider.url}/", api_key="same", max_rpm=1))
        assert limited(provider, "other", max_rpm=1).call("Hi") is not None
        ask_without_limits(provider)
        assert keys_of(provider) == ["same", "other", "free"]
        waiting.dispose()

    def test_a_model_of_anthropic_shares_it_with_and_without_its_provider(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ANTHROPIC_API_KEY", "same")
        second = Scripted("b")

        async def main() -> None:
            assert await LLM("anthropic/claude-tern", source=Scripted("a"), max_rpm=1).acall("Hi") == "a"
            waiting = asyncio.ensure_future(LLM("claude-tern", source=second, max_rpm=1).acall("Hi"))
            for _ in range(100):
                await asyncio.sleep(0)
            assert await LLM("claude-tern", source=Scripted("c")).acall("Hi") == "c"
            assert second.requests == []
            waiting.cancel()

        asyncio.run(main())

    def test_a_wait_that_is_stopped_takes_nothing(self, provider: Loopback) -> None:
        limits = RateLimits(key="stopped", model="m", max_rpm=1, period=1)

        async def main() -> None:
            await limits.acquire("a", 0)
            stopped = [asyncio.create_task(limits.acquire("b", 0)) for _ in range(50)]
            await asyncio.sleep(0)
            for task in stopped:
                task.cancel()
            await asyncio.gather(*stopped, return_exceptions=True)
            await limits.acquire("c", 0)  # 50 periods later, if each of them had had its turn

        asyncio.run(asyncio.wait_for(main(), 20))

    @pytest.mark.parametrize("moment", ["counted", "granted", "on its way"])
    def test_a_call_that_is_cancelled_as_it_gets_its_slot_takes_none(
        self, moment: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        limits = RateLimits(key=f"cancelled when {moment}", model="m", max_rpm=1)
        take = _Counters.take
        granted, cancelled = threading.Event(), threading.Event()

        async def main() -> None:
            loop = asyncio.get_running_loop()
            stopped = asyncio.create_task(limits.acquire("a", 0))

            def cancel() -> None:
                stopped.add_done_callback(lambda _: cancelled.set())
                loop.call_soon_threadsafe(stopped.cancel)
                assert cancelled.wait(PATIENCE_S)

            async def take_and_cancel(counters: _Counters, limits: RateLimits, tokens: int) -> float:
                delay = await take(counters, limits, tokens)
                monkeypatch.setattr(_Counters, "take", take)
                if moment == "counted":
                    cancel()
                elif moment == "granted":
                    asyncio.get_running_loop().call_soon(cancel)
                else:
                    after_steps(3, granted.set)
                return delay

            monkeypatch.setattr(_Counters, "take", take_and_cancel)
            await asyncio.sleep(0)
            if moment == "on its way":
                assert granted.wait(PATIENCE_S)  # blocks this loop, so that it does not yet know of the slot
                stopped.cancel()
            await asyncio.gather(stopped, return_exceptions=True)
            assert stopped.cancelled()
            await limits.acquire("b", 0)

        asyncio.run(asyncio.wait_for(main(), 5))

    def test_a_slot_that_a_cancelled_call_gives_back_goes_to_the_one_that_waits(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        limits = RateLimits(key="given back", model="m", max_rpm=1)
        take = _Counters.take
        both_asked = threading.Event()
        delays: list[float] = []

        async def note(counters: _Counters, limits: RateLimits, tokens: int) -> float:
            delays.append(await take(counters, limits, tokens))
            if len(delays) == 2:
                after_steps(3, both_asked.set)
            return delays[-1]

        monkeypatch.setattr(_Counters, "take", note)

        async def main() -> None:
            stopped, waiting = (asyncio.create_task(limits.acquire(run_id, 0)) for run_id in ("a", "b"))
            await asyncio.sleep(0)
            assert both_asked.wait(PATIENCE_S)
            stopped.cancel()
            await waiting
            assert stopped.cancelled()

        asyncio.run(asyncio.wait_for(main(), 5))

    def test_a_slot_that_became_free_is_lent_only_as_long_as_it_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        limits = RateLimits(key="late", model="m", max_rpm=1, period=1)
        taken: list[float] = []
        counted, go_on = Gate(), Gate()
        take = _Counters.take

        async def take_slowly(counters: _Counters, limits: RateLimits, tokens: int) -> float:
            taken.append(await take(counters, limits, tokens))
            if len(taken) == 1:
                counted.open()
                await go_on.passed()
                loop, late = asyncio.get_running_loop(), asyncio.get_running_loop().time() + limits.period
                vars(loop)["time"] = lambda: late  # the store's answer took as long as the slot counts
                loop.call_soon(vars(loop).pop, "time")
            return taken[-1]

        monkeypatch.setattr(_Counters, "take", take_slowly)

        async def main() -> None:
            stopped = asyncio.create_task(limits.acquire("a", 0))
            await counted.passed()
            stopped.cancel()
            await asyncio.gather(stopped, return_exceptions=True)
            next_call = asyncio.create_task(limits.acquire("b", 0))
            await asyncio.sleep(0)
            go_on.open()
            await next_call

        asyncio.run(asyncio.wait_for(main(), 20))
        assert taken[0] == taken[-1] == 0
        assert len(taken) > 1, "the next call used the slot after its window"


@pytest.mark.slow
def test_a_short_pause_does_not_end_a_longer_one() -> None:
    limits = RateLimits(key="paused", model="m", max_rpm=100)

    async def main() -> None:
        for delay in (60, 1):  # as two providers' answers with 429 may come
            limits.back_off(delay)
        await asyncio.wait_for(limits.acquire("a", 0), 2.5)

    with pytest.raises(TimeoutError):
        asyncio.run(main())


def test_the_runs_take_turns() -> None:
    limits = RateLimits(key="turns", model="m", max_rpm=3, period=1)
    order: list[str] = []

    async def acquire(run: str) -> None:
        await limits.acquire(run, 0)
        order.append(run)

    async def main() -> None:
        many = [asyncio.create_task(acquire("many")) for _ in range(9)]
        await asyncio.sleep(0)
        few = [asyncio.create_task(acquire("few")) for _ in range(2)]
        await asyncio.gather(*few)
        assert order.count("many") < 9
        for task in many:
            task.cancel()
        await asyncio.gather(*many, return_exceptions=True)

    asyncio.run(asyncio.wait_for(main(), 20))
    assert order.count("few") == 2


class TestTokens:
    def test_what_an_answer_took_counts(self, provider: Loopback) -> None:
        provider.script(Reply(text="long " * 50))
        llm = limited(provider, "tokens", max_tpm=30)
        assert llm.call("Hi").startswith("long")
        second = ask(llm)
        ask_without_limits(provider)
        assert keys_of(provider) == ["tokens", "free"]
        second.dispose()

    def test_what_an_answer_took_counts_for_models_with_other_limits(self, provider: Loopback) -> None:
        provider.script(Reply(text="long " * 50))
        assert limited(provider, "more tokens", max_tpm=50).call("Hi").startswith("long")
        second = ask(limited(provider, "more tokens", max_tpm=30))
        assert limited(provider, "others", max_tpm=30).call("Hi") is not None
        ask_without_limits(provider)
        assert keys_of(provider) == ["more tokens", "others", "free"]
        second.dispose()

    def test_an_answer_that_a_resumed_run_repeats_does_not_count_again(self) -> None:
        source = Scripted(["Hello", Ending("stop", UsageMetrics(total_tokens=60))])
        llm = LLM("scripted", source=source, api_key="repeated", max_tpm=100)

        class Asking(Flow):
            @start()
            def ask_somebody(self) -> str:
                return f"{llm.call('Hi')} {self.ask('Who?')} {llm.call('Hi')}"

        paused = outcome(Asking().events())
        (request,) = paused.one(FlowPaused).pending
        seen = Signals()
        resumed = Asking().events().resume_from(Journal(paused.events, {request.request_id: "Ada"}))
        with seen.subscribe_to(resumed):
            seen.ended.wait(30)  # the next minute would have tokens again
        assert isinstance(seen.items[-1], FlowFinished)
        assert seen.items[-1].result == "Hello Ada Hello"

    def test_a_request_larger_than_a_minute_is_asked_nevertheless(self, provider: Loopback) -> None:
        assert limited(provider, "large", max_tpm=1).call("a prompt of more than one token") is not None


def test_all_who_share_the_key_wait_after_a_429(provider: Loopback) -> None:
    provider.script(Reply(status=429, headers={"Retry-After": "1"}), Reply(text="free"))
    first, second, is_refused = Signals(), Signals(), Gate()
    limited(provider, "busy", max_rpm=100).events("Hi").subscribe(
        lambda event: is_refused.open() if isinstance(event, LLMRetrying) else None,
        first.on_error,
        first.on_completed,
    )
    is_refused.wait()
    second.subscribe_to(limited(provider, "busy", max_rpm=100).events("Hi"))
    ask_without_limits(provider)
    assert keys_of(provider) == ["busy", "free"]
    for waiting in (first, second):
        waiting.ended.wait()
    assert keys_of(provider) == ["busy", "free", "busy", "busy"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LLM("openai/gpt-4o", max_rpm=0), "max_rpm must be at least 1 per minute: 0"),
        (lambda: LLM("openai/gpt-4o", max_tpm=-1), "max_tpm must be at least 1 per minute: -1"),
        (lambda: LLM("openai/gpt-4o", max_rpm=1, limit_store="mysql://x"), "limit_store must be .* got 'mysql://x'"),
    ],
)
def test_a_limit_that_is_none_is_refused_at_once(make: Callable[[], LLM], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_the_key_is_not_kept(provider: Loopback) -> None:
    llm = limited(provider, "sk-very-secret-key-0123456789", max_rpm=5)
    assert "very-secret" not in repr(vars(llm)["_limits"])
