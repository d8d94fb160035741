"""A program whose network to another node stands still, in a network namespace of its own. ::

unshare --user --map-root-user --net python -m tests.cluster.stalled_network FOLDER

Both nodes are on this machine, each with an address of its own. Without its address, packets for a node are dropped.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import ray as untyped
from ray import cluster_utils

from rxflow.cluster import Ray, WorkerLost
from rxflow.runs import RunLost, Runs
from tests.cluster.conftest import await_free
from tests.cluster.watching import HERE, stand
from tests.loopback.reply import Reply
from tests.loopback.server import Loopback
from tests.runs.redis_server import RedisServer
from tests.signals import signals_of

ray: Any = untyped
NEAR, FAR = "10.77.0.1", "10.77.0.2"


def configure(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def main() -> None:
    configure("link", "set", "lo", "up")
    for address in (NEAR, FAR):
        configure("addr", "add", f"{address}/32", "dev", "lo")
    head: dict[str, Any] = {"num_cpus": 1, "resources": {"near": 1}, "node_ip_address": NEAR}
    nodes: Any = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    nodes.add_node(num_cpus=1, resources={"far": 1}, node_ip_address=FAR)
    ray.init(address=nodes.address, log_to_driver=False, configure_logging=False, _node_ip_address=NEAR)
    with RedisServer(Path(sys.argv[1])) as redis, Loopback() as provider:
        provider.script(Reply(text=["so ", "be ", "it"], hold_after=1))
        check(redis, provider)
    await_free()
    ray.shutdown()
    nodes.shutdown()


def check(redis: RedisServer, provider: Loopback) -> None:
    with (
        Ray(workers=1, resources={"near": 1}) as near,
        Ray(workers=1, resources={"far": 1}, lease=4) as far,
        Runs(redis.url, on=far, lease=6) as runs,
    ):
        other, _ = stand(near)
        branch, _ = stand(far)
        run = runs.start(f"{HERE}:Calls", {"url": provider.url})
        events = run.events()
        configure("addr", "del", f"{FAR}/32", "dev", "lo")
        branch.ended.wait()
        (error,) = branch.errors
        assert isinstance(error, WorkerLost), error
        assert "it has not answered for 4 s" in str(error)
        assert len(branch.items) == 1
        (lost,) = signals_of(events).errors
        assert isinstance(lost, RunLost), lost
        # Its worker reaches Redis, which refuses it: it stops the run, although its program cannot tell it to.
        provider.wait_until(lambda state: state.disconnects, 40)
        last = run.look_up().last
        assert other.ends == []
        configure("addr", "add", f"{FAR}/32", "dev", "lo")
        run.restart(f"{HERE}:Twice")
        assert run.result(30) == "threefour"
        assert runs.store.read(run.id, last, 1).result().events[0].seq == last + 1
    print("as it should be", flush=True)


if __name__ == "__main__":
    main()
