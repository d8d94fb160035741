"""Two Ray nodes on this machine, started once, and a Redis. Skipped by name where the extra is not installed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.gate import PATIENCE_S
from tests.runs.redis_server import RedisServer

if TYPE_CHECKING:
    from rxflow.cluster import Ray


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and "all_nodes" in item.fixturenames:
            item.add_marker("cluster")
            item.add_marker("slow")


@pytest.fixture(scope="session")
def all_nodes() -> Iterator[Any]:
    """A head and another node, each with two CPUs; ``nodes.add_node`` adds others."""
    ray: Any = pytest.importorskip("ray", reason="needs the extra: pip install 'rxflow[ray]'")
    from ray import cluster_utils

    cluster: Any = cluster_utils.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "resources": {"first": 100}}
    )
    cluster.add_node(num_cpus=2, resources={"second": 100})
    ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def nodes(all_nodes: Any) -> Iterator[Any]:
    """The same. When the test is over, nothing is left on them."""
    yield all_nodes
    await_free()


def await_free() -> None:
    """All CPUs of the cluster are given back: no worker is left on it."""
    import ray as untyped

    ray: Any = untyped
    deadline = time.monotonic() + PATIENCE_S
    while ray.available_resources().get("CPU") != ray.cluster_resources().get("CPU"):
        assert time.monotonic() < deadline, ray.available_resources()
        time.sleep(0.05)  # Ray reports it by itself, a second or so later


@pytest.fixture
def cluster(nodes: Any) -> Iterator[Ray]:
    """One worker on each node."""
    from rxflow.cluster import Ray

    with Ray(workers=2) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server
