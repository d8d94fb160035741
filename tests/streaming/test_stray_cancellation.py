"""A CancelledError that nobody asked for does not make a run vanish without a word."""

import asyncio
from typing import Any

import pytest

from rxflow import LLM, Crew, Flow
from rxflow._streaming import loop_thread
from rxflow._streaming.bridge import Unanswered, all_of, replace_stray_cancellation
from rxflow.flow import start
from rxflow.llm._io import Deliver, from_io
from rxflow.llm.source import Delta, Request
from tests.scripted import Scripted
from tests.signals import outcome, signals_of
from tests.streaming.speaking import Speaking
from tests.team import solo


async def waiting_for_the_cancelled(_: Any) -> None:
    """Users' code that awaits a task which others cancel."""
    other = asyncio.create_task(asyncio.sleep(60))
    other.cancel()
    await other


class Broken(Scripted):
    """A model whose stream, on the I/O loop, ends by a CancelledError that is not the call's own cancellation."""

    def stream(self, request: Request) -> Any:
        async def read(deliver: Deliver) -> None:
            delta: Delta = "a"
            deliver([delta])
            await waiting_for_the_cancelled(None)

        return from_io(read)


def test_in_a_callback_of_a_crew_it_is_an_error_of_the_run() -> None:
    crew = solo(Scripted("fine"), crew={"before_kickoff_callbacks": [waiting_for_the_cancelled]})
    with pytest.raises(RuntimeError, match="was cancelled, although its run was not"):
        asyncio.run(crew.kickoff_async())


@pytest.mark.parametrize("on_loop", [False, True])
def test_in_the_source_of_an_llm_call_it_is_an_error_of_the_call(on_loop: bool) -> None:
    llm: LLM = Broken("").llm

    async def main() -> object:
        return await llm.acall("Hello")

    with pytest.raises(RuntimeError, match="was cancelled, although its run was not") as raised:
        asyncio.run(main()) if on_loop else llm.call("Hello")
    assert isinstance(raised.value.__cause__, asyncio.CancelledError)


async def finish(finished: list[str], steps: int) -> None:
    for _ in range(steps):
        await asyncio.sleep(0)
    finished.append("finished")


class Each(Crew):
    """A crew whose run for "stray" gets a stray CancelledError. Its run for "ask" gets no answer."""

    async def kickoff_async(self, inputs: Any = None) -> Any:
        if inputs["topic"] == "stray":
            await waiting_for_the_cancelled(None)
        if inputs["topic"] == "ask":
            raise Unanswered(())
        await finish(inputs["finished"], 20)


@pytest.mark.parametrize("other", ["slow", "ask"])
def test_in_one_of_several_runs_it_stops_the_others_and_is_the_error(other: str) -> None:
    crew = Each(agents=[], tasks=[])
    finished: list[str] = []

    class Several(Flow):
        @start()
        async def run_all(self) -> None:
            await crew.kickoff_for_each_async([{"topic": "stray"}, {"topic": other, "finished": finished}])

    error = outcome(Several().events()).error
    assert isinstance(error, RuntimeError)
    assert "was cancelled, although its run was not" in str(error)
    assert finished == []


def test_when_several_runs_are_cancelled_together_it_stays_a_cancellation() -> None:
    finished: list[str] = []

    async def main() -> None:
        crew = Each(agents=[], tasks=[])
        runs = asyncio.create_task(crew.kickoff_for_each_async([{"topic": "slow", "finished": finished}] * 2))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        runs.cancel("by the program")
        with pytest.raises(asyncio.CancelledError, match="by the program"):
            await runs

    asyncio.run(main())
    assert finished == []


def test_a_subscriber_is_told() -> None:
    signals = signals_of(Broken("").llm.observe("Hello"))
    assert [chunk.content for chunk in signals.items] == ["a"]
    assert [type(error) for error in signals.errors] == [RuntimeError]


def test_a_run_whose_subscriber_raises_one_at_the_end_leaves_its_thread_free() -> None:
    def raise_it(_: object = None) -> None:
        raise asyncio.CancelledError

    for flow in (Speaking("a"), Speaking(ValueError("failed"))):
        flow.observe().subscribe(on_error=raise_it, on_completed=raise_it)
        assert all(thread.wait_until_idle(5) for thread in list(loop_thread.live))


def test_a_cancellation_stays_one() -> None:
    async def main() -> BaseException:
        async def waiting() -> BaseException:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError as error:
                return replace_stray_cancellation(error)
            raise AssertionError("it was not cancelled")

        task = asyncio.create_task(waiting())
        await asyncio.sleep(0)
        task.cancel()
        return await task

    assert type(asyncio.run(main())) is asyncio.CancelledError


@pytest.mark.parametrize("ending", ["an error", "the caller"])
def test_several_runs_that_are_stopped_clean_up_to_their_end(ending: str) -> None:
    log: list[str] = []

    async def fail() -> None:
        await asyncio.sleep(0)
        if ending == "an error":
            raise OSError("no more")
        await asyncio.Event().wait()

    async def clean_up(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(5):  # long enough for the others to end meanwhile
                await asyncio.sleep(0)
            log.append(name)

    async def main() -> None:
        running = asyncio.create_task(all_of([fail(), clean_up("one"), clean_up("two")]))
        for _ in range(3):
            await asyncio.sleep(0)
        if ending == "the caller":
            running.cancel()
        with pytest.raises(OSError if ending == "an error" else asyncio.CancelledError):
            await running
        assert sorted(log) == ["one", "two"]

    asyncio.run(main())


def test_an_error_in_the_cleanup_of_a_cancelled_run_is_not_lost() -> None:
    async def clean_up() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("no more")

    async def main() -> None:
        running = asyncio.create_task(all_of([clean_up()]))
        for _ in range(3):
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(OSError, match="no more"):
            await running

    asyncio.run(main())
