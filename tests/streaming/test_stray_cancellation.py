"""A CancelledError that nobody asked for does not make a run vanish without a word."""

import asyncio
from typing import Any

import pytest

from rxflow import LLM
from rxflow._streaming import loop_thread
from rxflow._streaming.bridge import replace_stray_cancellation
from rxflow.llm._io import Deliver, from_io
from rxflow.llm.source import Delta, Request
from tests.scripted import Scripted
from tests.signals import signals_of
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
