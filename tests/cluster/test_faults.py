"""What breaks on a cluster: one terminal of the right class, what had arrived is there, and nothing stays behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from reactivex import operators as rxops

import rxflow
from rxflow.operators._core.run_log import EventTooLargeError
from rxflow.runs import RunCancelled, RunLost, Runs, StoreError
from tests.cluster.conftest import await_free
from tests.cluster.proxy import Proxy
from tests.cluster.watching import HERE, STANDING, Watched, stand
from tests.gate import PATIENCE_S, poll
from tests.loopback.reply import Reply
from tests.loopback.server import Loopback
from tests.runs.redis_server import RedisServer
from tests.signals import signals_of

if TYPE_CHECKING:
    from rxflow.cluster import Ray
    from rxflow.cluster._pool import WorkerPool

ROOT = Path(__file__).parents[2]


@pytest.fixture
def pool(nodes: Any) -> Iterator[WorkerPool]:
    """One worker at most, which carries out one run at a time."""
    pool = create_pool()
    yield pool
    pool.close()


def create_pool() -> WorkerPool:
    from rxflow.cluster._pool import Settings, WorkerPool

    return WorkerPool(
        Settings(
            address=None,
            num_cpus=1,
            resources={},
            workers=1,
            runs_per_worker=1,
            start_within_s=20,
            lease_s=15,
            runtime_env={},
        )
    )


def ask_redis(server: RedisServer, *words: str) -> str:
    program = ["redis-cli", "-p", str(server.port), *words]
    return subprocess.run(program, check=True, capture_output=True, text=True).stdout


@contextmanager
def two_redis(folder: Path) -> Generator[tuple[RedisServer, RedisServer]]:
    """A server and its replica."""
    for name in ("1", "2"):
        (folder / name).mkdir()
    with RedisServer(folder / "1") as first, RedisServer(folder / "2") as second:
        ask_redis(second, "replicaof", "127.0.0.1", str(first.port))
        poll(
            lambda: ask_redis(second, "info", "replication"),
            lambda said: "master_link_status:up" in said,
            "the replica is not linked",
        )
        yield first, second


class TestWorkers:
    def test_one_that_is_killed_ends_its_branches_and_nobody_elses(self, nodes: Any) -> None:
        from rxflow.cluster import Ray, WorkerLost

        with Ray(workers=2) as cluster:
            (first, first_pid), (second, second_pid) = stand(cluster), stand(cluster)
            assert first_pid != second_pid
            os.kill(first_pid, signal.SIGKILL)
            first.ended.wait()
            (error,) = first.errors
            assert isinstance(error, WorkerLost)
            assert "was lost after" in str(error)
            assert second.ends == []
            os.kill(second_pid, signal.SIGKILL)
            second.ended.wait()
            assert [
                str(chunk) for chunk in signals_of(cluster.on(f"{HERE}:Twice").observe()).items
            ]  # a new one is started

    def test_readers_of_its_runs_are_told_long_before_the_lease_lapses(self, cluster: Ray, redis: RedisServer) -> None:
        with Runs(redis.url, on=cluster, lease=60) as runs:
            run = runs.start(STANDING)
            other = runs.start(f"{HERE}:Count", {"count": 20, "gap_ms": 50})
            (chunk,) = signals_of(run.observe().pipe(rxops.take(1))).items
            os.kill(int(str(chunk)), signal.SIGKILL)
            seen = signals_of(run.events())
            assert isinstance(seen.errors[0], RunLost)
            assert run.status == "lost"
            assert [str(each) for each in seen.items if each.seq == chunk.seq] == [str(chunk)]
            assert other.result(20)[:4] == "n0n1"
            run.restart(f"{HERE}:Twice")
            assert run.result(20) == "threefour"

    def test_one_that_does_not_answer_is_taken_for_dead(self, nodes: Any) -> None:
        """As a network that stands still looks to its program: the process is there, and nothing comes."""
        from rxflow.cluster import Ray, WorkerLost

        with Ray(workers=1, lease=3) as cluster:
            seen, pid = stand(cluster)
            os.kill(pid, signal.SIGSTOP)
            seen.ended.wait()
            os.kill(pid, signal.SIGCONT)
            (error,) = seen.errors
            assert isinstance(error, WorkerLost)
            assert "it has not answered for 3 s" in str(error)

    def test_a_flow_that_blocks_its_loop_is_not_taken_for_dead(self, nodes: Any) -> None:
        from rxflow.cluster import Ray

        with Ray(workers=1, lease=3) as cluster:
            assert signals_of(cluster.on("tests.cluster.flows:Silent").events()).ends == ["completed"]

    def test_one_that_cannot_be_placed_is_an_error_after_a_time(self, nodes: Any, redis: RedisServer) -> None:
        from rxflow.cluster import Ray, WorkerStartError

        with Ray(resources={"gold": 1}, start_within=1) as cluster:
            (error,) = signals_of(cluster.on(f"{HERE}:Twice").events()).errors
            with Runs(redis.url, on=cluster) as runs, pytest.raises(WorkerStartError):
                runs.start(f"{HERE}:Twice")
        assert isinstance(error, WorkerStartError)
        assert str(error).startswith("no worker with num_cpus=1, gold=1 started within 1 s; the cluster has {")

    def test_if_there_is_room_for_some_only_runs_share_those(self, nodes: Any) -> None:
        from rxflow.cluster import Ray

        with Ray(num_cpus=2, workers=5, start_within=10) as cluster:
            seen = [Watched() for _ in range(4)]
            for each in seen:
                each.subscribe_to(cluster.on(f"{HERE}:Twice").observe())
            for each in seen:
                each.ended.wait()
                assert each.ends == ["completed"]

    def test_one_with_another_version_of_rxflow_is_refused(self, nodes: Any, tmp_path: Path) -> None:
        from rxflow.cluster import CodeMismatchError, Ray

        (tmp_path / "rxflow-0.0.1.dist-info").mkdir()
        (tmp_path / "rxflow-0.0.1.dist-info" / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: rxflow\nVersion: 0.0.1\n"
        )
        with Ray(workers=1, runtime_env={"env_vars": {"PYTHONPATH": str(tmp_path)}}) as cluster:
            (error,) = signals_of(cluster.on(f"{HERE}:Twice").events()).errors
        assert isinstance(error, CodeMismatchError)
        assert "'rxflow': '0.0.1'" in str(error)
        assert rxflow.__version__ in str(error)

    @pytest.mark.parametrize("where", ["in its module", "behind its module"])
    def test_one_with_another_version_of_the_flow_is_refused(
        self, nodes: Any, redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
    ) -> None:
        from rxflow.cluster import CodeMismatchError, Ray

        name = f"trips_{where.split()[0]}"
        for version in ("here", "there"):
            code = "from rxflow import Flow\nfrom rxflow.flow import start\n\n\nclass Trip(Flow):\n    @start()\n"
            code += f"    def plan(self):\n        return {version!r}\n"
            package = tmp_path / version / name
            package.mkdir(parents=True)
            (package / "code.py").write_text(code)
            (package / "__init__.py").write_text(f"from {name}.code import Trip\n")
        monkeypatch.setattr(sys, "path", [str(tmp_path / "here"), *sys.path])
        trip = import_module(name).Trip
        target = trip if where == "in its module" else f"{name}:Trip"
        with (
            Ray(workers=1, runtime_env={"env_vars": {"PYTHONPATH": str(tmp_path / "there")}}) as cluster,
            Runs(redis.url, on=cluster) as runs,
        ):
            (error,) = signals_of(cluster.on(target).events()).errors
            assert isinstance(error, CodeMismatchError)
            said = f"the worker has another version of module '{name}.code' than this program"
            assert str(error).startswith(said)
            with pytest.raises(CodeMismatchError, match=said):
                runs.start(target, run_id=f"trip {where}")
            with pytest.raises(LookupError):
                runs[f"trip {where}"]


class TestRoomForOne:
    """One worker with room for one run: who waits for it, and who has left."""

    def test_a_branch_that_is_disposed_when_its_turn_comes_passes_the_turn_on(self, pool: WorkerPool) -> None:
        async def wait_in_line() -> None:
            worker = await pool.acquire()
            first, second = (asyncio.ensure_future(pool.acquire()) for _ in range(2))
            await asyncio.sleep(0)  # both wait now
            pool.release(worker)
            first.cancel()
            assert await second is worker

        pool.submit(wait_in_line()).result(30)

    def test_a_branch_that_is_disposed_at_any_step_of_its_start_leaves_the_room(self, pool: WorkerPool) -> None:
        from rxflow.cluster import OnRay

        async def start_and_stop() -> None:
            pool.release(await pool.acquire())  # its worker is there
            for steps in range(30):
                running = OnRay(STANDING, pool).events().subscribe()
                for _ in range(steps):
                    await asyncio.sleep(0)
                running.dispose()
                pool.release(await pool.acquire())

        pool.submit(start_and_stop()).result(30)

    def test_closing_the_workers_fails_a_branch_that_waits(self, nodes: Any) -> None:
        from rxflow.cluster import Ray, WorkerStartError

        with Ray(workers=1, runs_per_worker=1) as cluster:
            stand(cluster)
            waiting, late = Watched(), Watched()
            waiting.subscribe_to(cluster.on(STANDING).observe())
            cluster.close()
            late.subscribe_to(cluster.on(STANDING).observe())
            for each in (waiting, late):
                each.ended.wait()
                (error,) = each.errors
                assert isinstance(error, WorkerStartError)
                assert str(error) == "the workers of this Ray object were closed; create another one"

    def test_closing_the_workers_fails_a_branch_whose_worker_starts(self, nodes: Any) -> None:
        from rxflow.cluster import Ray, WorkerStartError

        with Ray(resources={"gold": 1}) as cluster:
            waiting = Watched()
            waiting.subscribe_to(cluster.on(STANDING).observe())
            cluster.close()
            waiting.ended.wait()
            assert isinstance(waiting.errors[0], WorkerStartError)

    def test_closing_runs_cancels_one_that_waits(
        self, nodes: Any, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from rxflow.cluster import Ray

        monkeypatch.setattr("rxflow.cluster.ray.CLOSE_TIMEOUT_S", PATIENCE_S)  # for a run that does not end
        with Ray(workers=1, runs_per_worker=1) as cluster, Runs(redis.url) as elsewhere:
            runs = Runs(redis.url, on=cluster)
            runs.start(STANDING, run_id="has the room")
            assert runs.carrier is not None
            waiting = [runs.carrier.begin("start", f"waits {number}", target=STANDING) for number in range(3)]
            began = time.monotonic()
            runs.close()
            assert time.monotonic() - began < PATIENCE_S
            for each in waiting:
                with pytest.raises(RunCancelled, match="closed before the run had begun"):
                    each.result(0)
            assert [str(chunk) for chunk in signals_of(cluster.on(f"{HERE}:Twice").observe()).items]  # the room is free
            assert {run.id for run in elsewhere.list() if run.id.startswith("waits")} == set()

    def test_a_start_that_is_cancelled_leaves_its_turn_to_others(self, nodes: Any, redis: RedisServer) -> None:
        from rxflow.cluster import Ray

        async def start_and_cancel(runs: Runs) -> None:
            starting = asyncio.create_task(runs.start_async(STANDING, run_id="unwanted"))
            await asyncio.sleep(0)
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting

        with Ray(workers=1, runs_per_worker=1) as cluster, Runs(redis.url, on=cluster) as runs:
            first = runs.start(STANDING)
            asyncio.run(start_and_cancel(runs))
            first.cancel("it has the only room")
            assert runs.start(f"{HERE}:Twice").result(30)
            assert [run.id for run in runs.list() if run.id == "unwanted"] == []


class PromptActor:
    """A worker that answers a ping when :attr:`reply` is set."""

    def __init__(self) -> None:
        self.reply: Future[None] = Future()

    @property
    def ping(self) -> PromptActor:
        return self

    def options(self, **_: object) -> PromptActor:
        return self

    def remote(self) -> PromptActor:
        return self

    def future(self) -> Future[None]:
        return self.reply


@pytest.mark.parametrize("steps", range(6))
def test_a_watch_that_is_cancelled_while_a_reply_arrives_ends(steps: int) -> None:
    """Otherwise closing the workers would wait for it forever."""
    pytest.importorskip("ray", reason="needs the extra: pip install 'rxflow[ray]'")
    from rxflow.cluster._pool import PoolWorker

    async def pass_steps(count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    async def main() -> None:
        actor = PromptActor()
        watch = asyncio.create_task(create_pool()._watch(PoolWorker(actor)))  # pyright: ignore[reportPrivateUsage]
        await pass_steps(2)
        actor.reply.set_result(None)
        await pass_steps(steps)
        watch.cancel()
        await pass_steps(10)
        assert watch.cancelled()

    asyncio.run(main())


class TestNodes:
    def test_one_that_is_killed_loses_its_runs_only(self, nodes: Any, redis: RedisServer) -> None:
        from rxflow.cluster import Ray, WorkerLost

        doomed = nodes.add_node(num_cpus=1, resources={"doomed": 1})
        with (
            Ray(resources={"doomed": 0.1}, workers=1, lease=2) as there,
            Ray(resources={"first": 1}, workers=1) as here,
            Runs(redis.url, on=there, lease=2) as runs,
            Runs(redis.url, on=here, lease=PATIENCE_S) as others,
        ):
            run, other = runs.start(STANDING), others.start(f"{HERE}:Count", {"count": 100, "gap_ms": 50})
            (chunk,) = signals_of(run.observe().pipe(rxops.take(1))).items
            branch, _ = stand(there)
            nodes.remove_node(doomed, allow_graceful=False)
            seen = signals_of(run.events())
            assert isinstance(seen.errors[0], RunLost)
            assert str(chunk) in map(str, seen.items)
            branch.ended.wait()
            assert isinstance(branch.errors[0], WorkerLost)
            assert other.result(30)[:4] == "n0n1"

    @pytest.mark.cluster
    @pytest.mark.slow
    def test_a_head_that_is_restarted_ends_no_branch_and_no_run(self, tmp_path: Path) -> None:
        """Ray keeps what the head knows in Redis; in a program of its own, as Ray has one cluster a process."""
        pytest.importorskip("ray", reason="needs the extra: pip install 'rxflow[ray]'")
        program = textwrap.dedent("""
            import sys, ray
            from ray.cluster_utils import Cluster
            nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
            ray.init(address=nodes.address, log_to_driver=False, configure_logging=False)
            from rxflow.cluster import Ray
            from rxflow.runs import Runs
            from reactivex import operators as rxops
            count = []
            with Ray(workers=1, lease=30) as cluster, Runs(sys.argv[1], on=cluster) as runs:
                run = runs.start("tests.runs.flows:Count", {"count": 200, "gap_ms": 10})
                def see(chunk):
                    count.append(chunk)
                    if len(count) == 20:
                        nodes.head_node.kill_gcs_server(False)
                        nodes.head_node.start_gcs_server()
                source = cluster.on("tests.runs.flows:Count")
                source.observe({"count": 200, "gap_ms": 10}).pipe(rxops.do_action(see)).run()
                print(len(count), run.result(60)[-4:], flush=True)
            with Ray(workers=1) as cluster:  # the new head places workers
                print(cluster.on("tests.runs.flows:Twice").events().run().result, flush=True)
            ray.shutdown()
            nodes.shutdown()
        """)
        with RedisServer(tmp_path) as server:
            done = subprocess.run(
                [sys.executable, "-c", program, server.url],
                cwd=ROOT,
                env={**os.environ, "RAY_REDIS_ADDRESS": f"127.0.0.1:{server.port}", "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                timeout=100,
                check=False,
            )
        assert done.stdout.splitlines() == ["200 n199", "threefour"], done.stderr


class TestStores:
    def test_a_redis_that_is_restarted_loses_nothing(self, cluster: Ray, tmp_path: Path) -> None:
        with RedisServer(tmp_path) as server, Runs(server.url, on=cluster, lease=10) as runs:

            def restart() -> None:
                server.stop()
                server.start()

            check_outage(runs, restart)

    def test_nor_does_one_that_fails_over_to_its_replica(self, cluster: Ray, tmp_path: Path) -> None:
        with two_redis(tmp_path) as (first, second), Proxy(first.port) as proxy:

            def fail_over() -> None:
                ask_redis(first, "client", "pause", "10000", "write")  # as a failover that is planned does
                poll(
                    lambda: ask_redis(first, "wait", "1", "1000").strip(),
                    lambda replicas: replicas == "1",
                    "the replica has not all",
                )
                first.stop()
                ask_redis(second, "replicaof", "no", "one")
                proxy.move(second.port)

            with Runs(proxy.url, on=cluster, lease=10) as runs:
                check_outage(runs, fail_over)


class TestNetwork:
    """A proxy stands between Redis and who writes or reads there. Ray's own connections cannot be led through one, so
    the nodes of the last test are in a network that can be taken away."""

    def test_a_run_whose_worker_cannot_write_for_a_while_loses_nothing(self, cluster: Ray, redis: RedisServer) -> None:
        with Proxy(redis.port) as proxy, Runs(proxy.url, on=cluster, lease=30) as runs:

            def stall() -> None:
                proxy.stall()
                proxy.holds.wait()
                proxy.resume()

            check_outage(runs, stall)

    def test_one_whose_worker_cannot_write_for_too_long_is_lost_and_fenced(
        self, nodes: Any, redis: RedisServer
    ) -> None:
        from rxflow.cluster import Ray

        with (
            Proxy(redis.port) as proxy,
            Loopback() as provider,
            Runs(redis.url) as elsewhere,
            Ray(workers=1) as cluster,
            Runs(proxy.url, on=cluster, lease=3) as runs,
        ):
            provider.script(Reply(text=["so ", "be ", "it"], hold_after=1))
            run = elsewhere[runs.start(f"{HERE}:Calls", {"url": provider.url}).id]
            (chunk,) = signals_of(run.observe().pipe(rxops.take(1))).items
            other, _ = stand(cluster)
            proxy.stall()
            seen = signals_of(run.events())
            assert isinstance(seen.errors[0], RunLost)
            assert str(chunk) in map(str, seen.items)
            run.restart(f"{HERE}:Twice")
            assert run.result(20) == "threefour"
            last = run.look_up().last
            proxy.resume()
            provider.wait_until(lambda state: state.disconnects, 20)  # the worker has heard that it was replaced
            assert run.look_up().last == last
            assert other.ends == []  # its worker lives
            assert runs.start(f"{HERE}:Twice").result(20) == "threefour"

    def test_a_reader_that_is_cut_off_for_a_while_sees_every_event_once(self, cluster: Ray, redis: RedisServer) -> None:
        with (
            Runs(redis.url, on=cluster) as runs,
            Proxy(redis.port) as proxy,
            Runs(proxy.url) as readers,
        ):
            run = runs.start(f"{HERE}:Count", {"count": 100, "gap_ms": 5})
            seen = Watched()
            seen.subscribe_to(readers[run.id].observe())
            seen.began.wait()
            proxy.stall()
            assert run.result(20)[:4] == "n0n1"  # nobody waits for it
            proxy.resume()
            seen.ended.wait()
            assert seen.ends == ["completed"]
            assert [str(chunk) for chunk in seen.items] == [f"n{number}" for number in range(100)]

    @pytest.mark.cluster
    @pytest.mark.slow
    def test_one_that_stands_still_between_program_and_worker_loses_the_worker_only(self, tmp_path: Path) -> None:
        pytest.importorskip("ray", reason="needs the extra: pip install 'rxflow[ray]'")
        alone = ["unshare", "--user", "--map-root-user", "--net"]
        if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
            pytest.skip("needs network namespaces, which this machine does not let its users have")
        command = [*alone, sys.executable, "-m", "tests.cluster.stalled_network", str(tmp_path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
        assert done.stdout.splitlines()[-1:] == ["as it should be"], done.stderr


def test_a_run_whose_event_is_too_large_for_the_store_fails_alone(nodes: Any, redis: RedisServer) -> None:
    from rxflow.cluster import Ray

    with Ray(workers=1) as cluster, Runs(redis.url, on=cluster) as runs:
        other, _ = stand(cluster)
        with pytest.raises(EventTooLargeError, match="the store takes at most"):
            runs.start("tests.cluster.flows:Huge").result(20)
        assert runs.start(f"{HERE}:Twice").result(20) == "threefour"
        assert other.ends == []


def test_what_a_failover_that_was_not_planned_has_lost_ends_the_run(cluster: Ray, tmp_path: Path) -> None:
    """The replica was cut off before: it has the beginning of the run, and no more."""
    with (
        two_redis(tmp_path) as (first, second),
        Proxy(first.port) as proxy,
        Runs(proxy.url, on=cluster, lease=30) as runs,
    ):
        run = runs.start(f"{HERE}:Count", {"count": 10_000, "gap_ms": 10})  # not over before the failover
        seen, late = Watched(), Watched()
        seen.subscribe_to(run.observe())
        seen.began.wait()
        ask_redis(second, "replicaof", "no", "one")
        late.subscribe_to(run.observe(after=run.look_up().last))
        late.began.wait()  # this is not on the replica
        first.stop()
        proxy.move(second.port)
        for each in (seen, late):
            each.ended.wait()
            (error,) = each.errors
            assert isinstance(error, StoreError)
            assert "the store has lost events" in str(error)
        # The readers may know before the worker.
        assert poll(lambda: run.status, lambda status: status != "running", "the run goes on") == "failed"
        numbers = [int(str(chunk).removeprefix("n")) for chunk in seen.items]
        assert numbers == list(range(len(numbers)))


def check_outage(runs: Runs, outage: Callable[[], None]) -> None:
    """A run goes on through an outage of its store, and its readers see every event once."""
    run = runs.start(f"{HERE}:Count", {"count": 100, "gap_ms": 20})
    seen = Watched()
    seen.subscribe_to(run.observe())
    seen.began.wait()
    outage()
    seen.ended.wait()
    assert seen.ends == ["completed"]
    assert [str(chunk) for chunk in seen.items] == [f"n{number}" for number in range(100)]


def test_a_program_that_dies_takes_its_workers_with_it(nodes: Any, redis: RedisServer) -> None:
    command = [sys.executable, "-m", "tests.cluster.driver", nodes.address, redis.url, "of a driver", STANDING]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as driver, Runs(redis.url) as runs:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "started\n"
        (chunk,) = signals_of(runs["of a driver"].observe().pipe(rxops.take(1))).items
        driver.kill()
        seen = signals_of(runs["of a driver"].events())
        assert isinstance(seen.errors[0], RunLost)
        assert str(chunk) in map(str, seen.items)
    await_free()
    with pytest.raises(ProcessLookupError):
        os.kill(int(str(chunk)), 0)
