"""Stores of a test's own, and workers in other processes."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rxflow.runs import Runs
from tests.runs.redis_server import RedisServer

ROOT = Path(__file__).parents[2]

LEASE_S = 60.0
"""Of workers that live: on a busy machine none of them is taken for dead."""

StartWorker = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


def address_of(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    if kind == "redis":
        server: RedisServer = request.getfixturevalue("shared_redis")
        subprocess.run(["redis-cli", "-p", str(server.port), "flushall"], check=True, capture_output=True)
        return server.url
    return f"sqlite:///{tmp_path}/runs.db" if kind == "sqlite" else None


@pytest.fixture(params=["memory", "sqlite", "redis"])
def runs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runs]:
    """In each store."""
    limits: dict[str, Any] = {} if request.param == "memory" else {"lease": LEASE_S}
    with Runs(address_of(request.param, request, tmp_path), **limits) as runs:
        yield runs


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The name of each store that several processes can share."""
    return str(address_of(request.param, request, tmp_path))


@pytest.fixture
def start_worker() -> Iterator[StartWorker]:
    """Starts a process that carries out a run, and waits until it has begun."""
    started: list[subprocess.Popen[str]] = []

    def begin(
        store: str,
        run_id: str,
        target: str,
        inputs: dict[str, Any] | None = None,
        *options: str,
        lease_s: float = LEASE_S,
    ) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.runs.worker", store, run_id, target, str(lease_s)]
        command += [json.dumps(inputs or {}), *options]
        worker = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        started.append(worker)
        assert worker.stdout is not None
        assert worker.stdout.readline() == "started\n"
        return worker

    yield begin
    for worker in started:
        worker.kill()
        worker.wait()
        if worker.stdout is not None:
            worker.stdout.close()
