"""Any number of web processes before one cluster: a load balancer may send each request to any of them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from rxflow.types.codec import decode
from rxflow.types.events import InputRequested
from tests.loopback.reply import Reply
from tests.loopback.server import Loopback
from tests.runs.redis_server import RedisServer

pytestmark = pytest.mark.timeout(120)

ROOT = Path(__file__).parents[2]
SERVE = (sys.executable, "-m", "rxflow", "serve")


class Server:
    """One web process before the cluster."""

    def __init__(self, target: str, nodes: Any, redis: RedisServer) -> None:
        command = [*SERVE, target, "--port", "0", "--cluster", nodes.address, "--runs", redis.url]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def open(self) -> httpx.Client:
        """A client, once it is served."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert " is served at " in line, self._process.communicate()[1]
        return httpx.Client(base_url=line.partition(" is served at ")[2].partition(";")[0], timeout=100)

    def end(self, number: int) -> tuple[int, str, str]:
        """Exit code after this signal, and what else it has written."""
        self._process.send_signal(number)
        output, errors = self._process.communicate(timeout=100)
        return self._process.returncode, output, errors

    def kill(self) -> None:
        """For a test that fails."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def two_servers(target: str, nodes: Any, redis: RedisServer) -> Generator[tuple[httpx.Client, httpx.Client]]:
    """The same flow served twice; both end as they should."""
    servers = [Server(target, nodes, redis) for _ in range(2)]
    try:
        with servers[0].open() as first, servers[1].open() as second:
            yield first, second
        assert servers[0].end(signal.SIGINT) == (0, "", "")
        assert servers[1].end(signal.SIGTERM) == (128 + signal.SIGTERM, "", "")
    finally:
        for server in servers:
            server.kill()


def start(client: httpx.Client, **inputs: Any) -> str:
    """The path of a new run."""
    answer = client.post("/api/runs", json={"inputs": inputs})
    assert answer.status_code == 201, answer.text
    return f"/api/runs/{answer.json()['id']}"


def test_a_run_that_one_web_process_starts_is_followed_at_another(nodes: Any, redis: RedisServer) -> None:
    with two_servers("tests.runs.flows:Count", nodes, redis) as (first, second):
        run = start(first, count=3)
        assert second.get(f"{run}/events").text.count("event: StreamChunk") == 3
        assert second.get(run).json()["result"] == "n0n1n2"


def test_it_is_cancelled_at_another_down_to_the_providers_socket(nodes: Any, redis: RedisServer) -> None:
    with two_servers("tests.runs.flows:Calls", nodes, redis) as (first, second), Loopback() as provider:
        provider.script(Reply(text="so be it", hold_after=1))
        run = start(first, url=provider.url)
        with second.stream("GET", f"{run}/events") as reader:
            lines = reader.iter_lines()
            while next(lines) != "event: StreamChunk":
                pass
            second.post(f"{run}/cancel", json={"reason": "enough"}).raise_for_status()
            provider.wait_until(lambda state: state.disconnects)
            assert "RunCancelled" in "".join(lines)
        assert first.get(run).json()["status"] == "cancelled"


def test_its_questions_are_answered_at_another(nodes: Any, redis: RedisServer) -> None:
    with two_servers("tests.cluster.flows:Asking", nodes, redis) as (first, second):
        run = start(first)
        answers = iter(["Ada", "2"])
        with first.stream("GET", f"{run}/events") as reader:
            lines = reader.iter_lines()
            for line in lines:
                if line == "event: InputRequested":
                    data = next(each for each in lines if each.startswith("data: "))
                    request = decode(data.removeprefix("data: "))
                    assert isinstance(request, InputRequested)
                    path = f"{run}/answers/{request.request_id}"
                    second.post(path, json={"value": next(answers)}).raise_for_status()
        assert second.get(run).json()["result"] == "Ada, 2"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "--cluster needs a store that all its machines can reach, such as --store redis://host:6379/0"),
        (["--runs", "SQLITE"], "a cluster needs a store that all its machines can reach"),
        (["--runs", "REDIS", "--cluster", "nowhere"], "Invalid address format: nowhere"),
        (["--runs", "REDIS", "--cluster", "127.0.0.1:9"], "no Ray cluster answers at '127.0.0.1:9' ("),
    ],
)
def test_what_does_not_fit_is_one_line(options: list[str], said: str, redis: RedisServer, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra: pip install 'rxflow[ray]'")
    stores = {"REDIS": redis.url, "SQLITE": f"sqlite:///{tmp_path}/runs.db"}
    given = [stores.get(each, each) for each in options]
    command = [*SERVE, "tests.runs.flows:Count", "--cluster", "auto", *given]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.stderr.startswith(f"rxflow: {said}")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)


def test_without_the_extra_the_line_names_it() -> None:
    program = "import sys; sys.modules['ray'] = None; import rxflow.__main__ as m; m.main()"
    command = [sys.executable, "-c", program, "serve", "tests.runs.flows:Count", "--cluster", "auto"]
    command += ["--store", "redis://127.0.0.1:6379/0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    said = "rxflow: ray is not installed; it comes with: pip install 'rxflow[ray]'\n"
    assert (done.returncode, done.stderr) == (2, said)
