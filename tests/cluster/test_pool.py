"""How the pool starts its workers, on a stand-in for Ray whose workers answer when a test lets them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("ray", reason="needs the extra: pip install 'rxflow[ray]'")

from ray import exceptions as ray_errors

from rxflow.cluster import CodeMismatchError, WorkerStartError
from rxflow.cluster._actor import describe_rxflow
from rxflow.cluster._pool import Settings, WorkerPool

if TYPE_CHECKING:
    from rxflow.cluster._pool import PoolWorker

START_WITHIN_S = 1000.0
"""Longer than any test: what takes this long happens when a test lets the time pass."""


class Actor:
    """A worker that answers pings once :attr:`reply` is set."""

    def __init__(self) -> None:
        self.reply: Future[object] = Future()
        self.is_killed = False

    @property
    def ping(self) -> Actor:
        return self

    def options(self, **_: object) -> Actor:
        return self

    def remote(self) -> Actor:
        return self

    def future(self) -> Future[object]:
        """A future for each ping, since the pool cancels the one that it no longer waits for."""
        future: Future[object] = Future()

        def pass_on(reply: Future[object]) -> None:
            if future.set_running_or_notify_cancel():
                error = reply.exception()
                if error is None:
                    future.set_result(reply.result())
                else:
                    future.set_exception(error)

        self.reply.add_done_callback(pass_on)
        return future

    def start(self) -> None:
        self.reply.set_result(describe_rxflow())


class ActorClass:
    """What creates the actors."""

    def __init__(self, actors: list[Actor]) -> None:
        self._actors = actors

    def options(self, **_: object) -> ActorClass:
        return self

    def remote(self) -> Actor:
        self._actors.append(Actor())
        return self._actors[-1]


class StandIn:
    """The functions of the package ``ray`` that the pool calls."""

    def __init__(self) -> None:
        self.actors: list[Actor] = []
        self.list_resources: Callable[[], dict[str, float]] = lambda: {"CPU": 8}

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return self.list_resources()

    def remote(self, **_: object) -> Callable[[type], ActorClass]:
        return lambda _: ActorClass(self.actors)

    def kill(self, actor: Actor, *, no_restart: bool) -> None:
        actor.is_killed = True


class SkippingLoop(asyncio.SelectorEventLoop):
    """A loop whose time a test can move on."""

    skipped_s = 0.0

    def time(self) -> float:
        return super().time() + self.skipped_s


async def skip(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SkippingLoop)
    loop.skipped_s += seconds
    await settle()


async def settle() -> None:
    """Let everything happen that needs no further reply and no further time."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    ray = StandIn()
    monkeypatch.setattr("rxflow.cluster._pool.ray", ray)
    return ray


def run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        runner.run(work)


def create_pool(workers: int | None = None, runs_per_worker: int = 64) -> WorkerPool:
    return WorkerPool(
        Settings(
            address=None,
            num_cpus=1,
            resources={},
            workers=workers,
            runs_per_worker=runs_per_worker,
            start_within_s=START_WITHIN_S,
            lease_s=10 * START_WITHIN_S,
            runtime_env={},
        )
    )


async def begin(acquiring: Awaitable[PoolWorker]) -> asyncio.Future[PoolWorker]:
    begun = asyncio.ensure_future(acquiring)
    await settle()
    return begun


async def expect_replacement(pool: WorkerPool, ray: StandIn) -> None:
    """The first worker is gone, and the next run gets another one."""
    assert ray.actors[0].is_killed
    second = await begin(pool.acquire())
    ray.actors[1].start()
    assert (await second).actor is ray.actors[1]


def test_a_worker_whose_greeting_fails_unexpectedly_is_replaced(ray: StandIn) -> None:
    async def main() -> None:
        pool = create_pool(workers=1)
        first = await begin(pool.acquire())
        ray.actors[0].reply.set_exception(OSError("no route"))
        with pytest.raises(OSError, match="no route"):
            await first
        await expect_replacement(pool, ray)

    run(main())


def test_a_worker_that_is_late_is_replaced_even_if_the_cluster_does_not_answer(ray: StandIn) -> None:
    def fail() -> dict[str, float]:
        raise ConnectionError("no head")

    async def main() -> None:
        pool = create_pool(workers=1)
        first = await begin(pool.acquire())
        ray.list_resources = fail
        await skip(START_WITHIN_S)
        with pytest.raises(ConnectionError, match="no head"):
            await first
        await expect_replacement(pool, ray)

    run(main())


@pytest.mark.parametrize(
    ("reply", "error", "said"),
    [
        (ray_errors.RayActorError(), WorkerStartError, "a worker with num_cpus=1 could not start: RayActorError"),
        ({"rxflow": "0.0.1"}, CodeMismatchError, "the worker runs {'rxflow': '0.0.1'}"),
        (None, WorkerStartError, "no worker with num_cpus=1 started within 1000 s; the cluster has {'CPU': 8}"),
    ],
    ids=["dies", "another version", "late"],
)
def test_a_worker_that_does_not_start_is_replaced(
    ray: StandIn, reply: object, error: type[Exception], said: str
) -> None:
    async def main() -> None:
        pool = create_pool(workers=1)
        first = await begin(pool.acquire())
        if isinstance(reply, Exception):
            ray.actors[0].reply.set_exception(reply)
        elif reply is not None:
            ray.actors[0].reply.set_result(reply)
        else:
            await skip(START_WITHIN_S)
        with pytest.raises(error) as raised:
            await first
        assert str(raised.value).startswith(said)
        await expect_replacement(pool, ray)

    run(main())


def test_a_worker_may_be_given_back_while_another_thread_closes_the_pool(ray: StandIn) -> None:
    class ClosingAtOnce(WorkerPool):
        """Is closed by another thread whenever its loop has been read."""

        def __getattribute__(self, name: str) -> Any:
            value = super().__getattribute__(name)
            if name == "_loop" and isinstance(value, asyncio.AbstractEventLoop) and reading:
                reading.clear()
                closing = threading.Thread(target=self.close)
                closing.start()
                closing.join()
            return value

    reading: list[bool] = []
    pool = ClosingAtOnce(create_pool(workers=1)._settings)  # pyright: ignore[reportPrivateUsage]
    reserved = pool.reserve()
    pool.submit(settle()).result()
    ray.actors[0].start()
    worker = reserved.result()
    reading.append(True)
    pool.give_back(worker)
    assert ray.actors[0].is_killed


class TestGrowth:
    """The cluster has room for fewer workers than the pool may have, and gets more room later."""

    async def fill(self, ray: StandIn, pool: WorkerPool) -> None:
        """One worker starts and has a run. The second one does not start in time, so its run shares the first."""
        first = await begin(pool.acquire())
        ray.actors[0].start()
        assert (await first).actor is ray.actors[0]
        second = await begin(pool.acquire())
        await skip(START_WITHIN_S)
        assert (await second).actor is ray.actors[0]
        assert [actor.is_killed for actor in ray.actors] == [False, True]

    def test_room_that_comes_later_is_used(self, ray: StandIn) -> None:
        async def main() -> None:
            pool = create_pool(workers=3)
            await self.fill(ray, pool)
            await skip(START_WITHIN_S)
            assert (await pool.acquire()).actor is ray.actors[0]
            await settle()
            for number in (2, 3):  # each worker that starts shows that there may be room for one more
                ray.actors[number].start()
                await settle()
                assert (await pool.acquire()).actor is ray.actors[number]
                await pool.acquire()
                await settle()
            assert len(ray.actors) == 4  # one has not started, and three have: as many as the pool may have

        run(main())

    def test_no_run_waits_for_a_trial(self, ray: StandIn) -> None:
        async def main() -> None:
            pool = create_pool(workers=3)
            await self.fill(ray, pool)
            await skip(START_WITHIN_S)
            for _ in range(5):
                acquired = await begin(pool.acquire())
                assert acquired.result().actor is ray.actors[0]
            assert len(ray.actors) == 3

        run(main())

    def test_a_trial_that_fails_at_once_is_not_repeated_at_once(self, ray: StandIn) -> None:
        async def main() -> None:
            pool = create_pool(workers=3)
            await self.fill(ray, pool)
            for _ in range(5):
                await pool.acquire()
            assert len(ray.actors) == 2
            for count in (3, 4):
                await skip(START_WITHIN_S)
                await pool.acquire()
                await settle()
                assert len(ray.actors) == count
                ray.actors[-1].reply.set_exception(ray_errors.RayActorError())
                await settle()
                for _ in range(5):
                    await pool.acquire()
                assert len(ray.actors) == count

        run(main())

    def test_a_run_that_waits_for_a_turn_gets_the_worker_of_a_trial(self, ray: StandIn) -> None:
        async def main() -> None:
            pool = create_pool(workers=2, runs_per_worker=1)
            first = await begin(pool.acquire())
            ray.actors[0].start()
            second, third = await begin(pool.acquire()), await begin(pool.acquire())
            await skip(START_WITHIN_S)
            assert (first.done(), second.done(), third.done()) == (True, False, False)
            await skip(START_WITHIN_S)
            pool.release(await first)  # the next demand: the run that gets this room, or the other one
            await settle()
            assert len(ray.actors) == 3
            ray.actors[2].start()
            await settle()
            assert {(await second).actor, (await third).actor} == {ray.actors[0], ray.actors[2]}

        run(main())

    def test_a_lost_worker_is_replaced_during_a_trial(self, ray: StandIn) -> None:
        async def main() -> None:
            pool = create_pool(workers=2)
            await self.fill(ray, pool)
            await skip(START_WITHIN_S)
            worker = await pool.acquire()
            await settle()
            assert len(ray.actors) == 3
            pool._lose(worker, "killed")  # pyright: ignore[reportPrivateUsage]
            replaced = await begin(pool.acquire())
            ray.actors[3].start()
            assert (await replaced).actor is ray.actors[3]

        run(main())
