"""What the parts of a run subscribe each other with: whichever thread is first, everything is disposed."""

import asyncio
import gc
import threading
from collections.abc import Callable

import pytest
from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow import LLM
from rxflow._streaming.scope import Cleanup, Holder, Owned, RunPart, connect
from rxflow.types.streaming import FlowStreamingOutput
from tests.loopback import Loopback, Reply
from tests.signals import Signals
from tests.team import Asking

RACES = 300
MAX_LOCKS = 8
"""Of a flow that waits for its model: those of its connection, its task and its output. RxPY's had made it 36."""


def race(*actions: Callable[[], object]) -> None:
    """All at once, each in a thread."""
    ready = threading.Barrier(len(actions))

    def run(action: Callable[[], object]) -> None:
        ready.wait()
        action()

    threads = [threading.Thread(target=run, args=[action]) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class TestHolder:
    def test_what_is_held_after_the_disposal_is_disposed_at_once(self) -> None:
        holder, held = Holder(), Holder()
        holder.dispose()
        holder.hold(held)
        assert held.is_disposed

    def test_whoever_is_first_it_is_disposed(self) -> None:
        for _ in range(RACES):
            holder, held = Holder(), Holder()
            race(holder.dispose, lambda: holder.hold(held))  # noqa: B023 - it is over before the next one
            assert held.is_disposed


class TestOwned:
    def test_all_are_disposed_in_order(self) -> None:
        owned, seen = Owned(), list[int]()
        for number in range(3):
            owned.add(Cleanup(lambda number=number: seen.append(number)))  # type: ignore[misc]
        owned.dispose()
        assert seen == [0, 1, 2]
        assert owned.is_empty

    def test_what_is_removed_is_disposed_too_and_the_others_are_not(self) -> None:
        owned, first, second = Owned(), Holder(), Holder()
        owned.add(first)
        owned.add(second)
        owned.remove(first)
        assert (first.is_disposed, second.is_disposed) == (True, False)

    def test_so_is_what_it_never_owned(self) -> None:
        item = Holder()
        Owned().remove(item)
        assert item.is_disposed

    def test_whoever_is_first_all_are_disposed(self) -> None:
        for _ in range(RACES):
            owned, items = Owned(), [Holder() for _ in range(3)]
            owned.add(items[0])
            race(
                owned.dispose,
                owned.dispose,
                lambda: owned.add(items[1]),  # noqa: B023 - it is over before the next one
                lambda: owned.remove(items[0]),  # noqa: B023
                lambda: owned.add(items[2]),  # noqa: B023
            )
            assert [item.is_disposed for item in items] == [True, True, True]


def test_a_cleanup_is_made_once() -> None:
    for _ in range(RACES):
        seen: list[None] = []
        cleanup = Cleanup(lambda: seen.append(None))  # noqa: B023 - it is over before the next one
        race(cleanup.dispose, cleanup.dispose)
        assert seen == [None]


def fail(observer: ObserverBase[int], scheduler: SchedulerBase | None) -> DisposableBase:
    raise LookupError("no")


@pytest.mark.parametrize("source", [RunPart(fail), Observable(fail)], ids=["a part of a run", "any other"])
def test_a_source_that_cannot_begin_is_a_stream_that_fails(source: Observable[int]) -> None:
    seen = Signals()
    connect(source, seen)  # type: ignore[arg-type]  # it is an observer by its methods
    assert [type(error) for error in seen.errors] == [LookupError]


@pytest.mark.slow
def test_a_waiting_flow_has_few_locks(provider: Loopback) -> None:
    count = 20
    provider.answer(lambda request: Reply(text=["Hi", " there"], hold_after=1))
    llm = LLM("openai/gpt-4o", base_url=provider.url, api_key="k")

    def count_locks() -> int:
        gc.collect()
        return sum(type(each) is type(threading.RLock()) for each in gc.get_objects())

    async def begin() -> FlowStreamingOutput:
        flow = Asking()
        flow.llm = llm
        output: FlowStreamingOutput = await flow.kickoff_async()
        await anext(aiter(output))
        return output

    async def main() -> float:
        outputs = [await begin()]
        before = count_locks()
        outputs += [await begin() for _ in range(count)]
        locks = count_locks() - before
        for output in outputs:
            await output.aclose()
        return locks / count

    assert asyncio.run(main()) <= MAX_LOCKS
