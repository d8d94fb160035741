"""``rxflow serve`` as a person types it: in a process of its own, with real sockets and signals."""

import logging
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from rxflow.screens import web
from tests.command import run_here
from tests.gate import PATIENCE_S, poll
from tests.loopback import Loopback, Reply
from tests.screens.pseudo_terminal import inherited, run_piped
from tests.screens.web_flows import Trip

pytestmark = pytest.mark.timeout(120)

TRIPS = """
import os
from rxflow import LLM, Flow
from rxflow.flow import start

class Trip(Flow):
    @start()
    def plan(self):
        return "a plan"

class Asks(Flow):
    @start()
    def ask_a_person(self) -> str:
        return f"hello {self.ask('Name?')}"


class Speaking(Flow):
    @start()
    async def speak(self):
        return await LLM("openai/gpt-4o", base_url=os.environ["PROVIDER"], api_key="k").acall("Hello")

class Needy(Flow):
    def __init__(self, budget):
        super().__init__()

ready = Trip()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "trips.py").write_text(TRIPS)
    return tmp_path


class Served:
    def __init__(self, process: subprocess.Popen[str], line: str) -> None:
        self.process = process
        self.line = line
        said = re.fullmatch(r"\w+ is served at (http://\S+:\d+)/(?:\?token=(\S+))?; press Ctrl-C to stop\n", line)
        assert said, line
        self.url, self.token = said.groups()

    def end(self, number: int) -> tuple[int, str, str]:
        """Exit code, and what else it has written."""
        self.process.send_signal(number)
        output, errors = self.process.communicate(timeout=100)
        return self.process.returncode, output, errors


@contextmanager
def served(target: str, *options: str, cwd: Path, **environment: str) -> Generator[Served]:
    process = subprocess.Popen(
        [sys.executable, "-m", "rxflow", "serve", target, "--port", "0", *options],
        cwd=cwd,
        env=inherited() | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield Served(process, line)
    finally:
        process.kill()
        process.communicate()


def start(client: httpx.Client) -> str:
    return str(client.post("/api/runs", json={}).raise_for_status().json()["id"])


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_a_signal_stops_the_server_and_its_runs(folder: Path, provider: Loopback, number: int, code: int) -> None:
    provider.script(Reply(text="one two three", hold_after=1))
    with (
        served("trips:Speaking", cwd=folder, PROVIDER=provider.url) as server,
        httpx.Client(base_url=server.url, timeout=100) as client,
    ):
        run_id = start(client)
        with client.stream("GET", f"/api/runs/{run_id}/events", timeout=100) as reader:
            lines = reader.iter_lines()
            while next(lines) != "event: StreamChunk":
                pass
            assert server.end(number) == (code, "", "")
        provider.wait_until(lambda state: state.disconnects)


def wait_for_end(client: httpx.Client, run_id: str) -> tuple[str, str | None]:
    """The status of a run that has ended, and why."""
    about = poll(
        lambda: client.get(f"/api/runs/{run_id}").json(),
        lambda about: about["status"] not in ("queued", "running"),
        "the run goes on",
    )
    return about["status"], about.get("error")


def test_a_run_is_cancelled_when_its_reader_leaves_if_so_chosen(folder: Path, provider: Loopback) -> None:
    provider.script(Reply(text="one two three", hold_after=1))
    with (
        served("trips:Speaking", "--when-unread", "cancel", cwd=folder, PROVIDER=provider.url) as server,
        httpx.Client(base_url=server.url, timeout=100) as client,
    ):
        run_id = start(client)
        with client.stream("GET", f"/api/runs/{run_id}/events") as reader:
            assert "event: StreamChunk" in reader.iter_lines()
        assert wait_for_end(client, run_id) == ("cancelled", "its last reader has left")
        provider.wait_until(lambda state: state.disconnects)


def test_a_run_that_nobody_reads_is_cancelled_after_so_many_seconds(folder: Path, provider: Loopback) -> None:
    provider.script(Reply(text="one two three", hold_after=1))
    with (
        served("trips:Speaking", "--when-unread", "0.1", cwd=folder, PROVIDER=provider.url) as server,
        httpx.Client(base_url=server.url, timeout=100) as client,
    ):
        assert wait_for_end(client, start(client)) == ("cancelled", "nobody has read it for 0.1 s")


def test_runs_in_a_store_are_there_after_the_server(folder: Path) -> None:
    store = ("--store", "sqlite:///runs.db")
    with served("trips:Trip", *store, cwd=folder) as server, httpx.Client(base_url=server.url, timeout=100) as client:
        run_id = start(client)
        assert "FlowFinished" in client.get(f"/api/runs/{run_id}/events").text
        assert server.end(signal.SIGINT) == (0, "", "")
    with served("trips:Trip", "--runs", "sqlite:///runs.db", cwd=folder) as server:
        about = httpx.get(f"{server.url}/api/runs/{run_id}", timeout=100).json()
        assert (about["status"], about["result"]) == ("completed", "a plan")


@pytest.mark.slow
def test_a_run_that_waits_for_a_person_is_paused_by_ctrl_c_and_answered_on_the_next_server(folder: Path) -> None:
    store = ("--store", "sqlite:///runs.db")
    with served("trips:Asks", *store, cwd=folder) as server, httpx.Client(base_url=server.url, timeout=100) as client:
        run_id = start(client)
        poll(lambda: client.get(f"/api/runs/{run_id}").json(), lambda about: about.get("pending"), "no question")
        assert server.end(signal.SIGINT) == (0, "", "")
    with served("trips:Asks", *store, cwd=folder) as server, httpx.Client(base_url=server.url, timeout=100) as client:
        about = client.get(f"/api/runs/{run_id}").json()
        assert about["status"] == "paused"
        (request,) = about["pending"]
        answered = client.post(f"/api/runs/{run_id}/answers/{request['request_id']}", json={"value": "Ada"})
        answered.raise_for_status()
        assert wait_for_end(client, run_id) == ("completed", None)


def test_a_server_for_other_machines_makes_a_token(folder: Path) -> None:
    with served("trips:Trip", "--host", "0.0.0.0", cwd=folder) as server:
        assert len(server.token) > 30
        with httpx.Client(
            base_url=server.url.replace("0.0.0.0", "127.0.0.1"), follow_redirects=True, timeout=PATIENCE_S
        ) as client:
            assert client.get("/api/runs").status_code == 401
            assert client.get("/", params={"token": server.token}).status_code == 200
            assert start(client)


def test_a_token_that_nobody_was_given_is_logged_with_the_address(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def end_at_once(self: uvicorn.Server, sockets: list[socket.socket]) -> None:
        pass

    monkeypatch.setattr(uvicorn.Server, "run", end_at_once)
    with caplog.at_level(logging.WARNING, logger="rxflow"):
        web.serve(Trip, host="0.0.0.0", port=0)
        (line,) = caplog.messages
        assert re.search(r"http://0\.0\.0\.0:\d+/\?token=\S{20,}", line)
        caplog.clear()
        web.serve(Trip, host="0.0.0.0", port=0, token="a-token-of-sixteen-or-more")
        web.serve(Trip, host="0.0.0.0", port=0, on_ready=print)
        web.serve(Trip, port=0)
        assert caplog.messages == []


def test_a_token_comes_from_the_environment(folder: Path) -> None:
    with served("trips:Trip", cwd=folder, RXFLOW_TOKEN="a token, & 16 or more") as server:
        bearer = {"authorization": "Bearer a token, & 16 or more"}
        assert httpx.get(f"{server.url}/api/runs", headers=bearer, timeout=PATIENCE_S).status_code == 200
        assert httpx.get(f"{server.url}/?token={server.token}", timeout=PATIENCE_S).status_code == 303
        assert httpx.get(f"{server.url}/api/runs", timeout=PATIENCE_S).status_code == 401


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trips:Nothing"], "trips has no 'Nothing'"),
        (["trips:ready"], "trips:ready is a flow; each run needs a flow of its own, so name its class, Trip"),
        (["trips:Needy"], "trips:Needy cannot be created: TypeError"),
        (["trips:Trip", "--token", "short"], "the token has 5 characters; it needs at least 16"),
        (["trips:Trip", "--store", "nope"], "--store 'nope' is not the URL of a store"),
        (["trips:Trip", "--when-unread", "never"], "--when-unread 'never' is neither detach nor cancel nor a time"),
        (["trips:Trip", "--when-unread", "0"], "--when-unread '0' is neither detach nor cancel nor a time above 0"),
        (["trips:Trip", "--host", "no.such.host.invalid"], "cannot listen on no.such.host.invalid:8000"),
    ],
)
def test_what_does_not_fit_is_one_line(folder: Path, arguments: list[str], said: str) -> None:
    code, out, errors = run_here(folder, "serve", *arguments)
    assert errors.startswith(f"rxflow: {said}")
    assert (code, out, errors.count("\n")) == (2, "", 1)


def test_a_port_in_use_is_one_line(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_here(folder, "serve", "trips:Trip", "--port", str(port))
    assert done == (2, "", f"rxflow: cannot listen on 127.0.0.1:{port}: Address already in use\n")


@pytest.mark.parametrize(
    "package", ["starlette", *(pytest.param(name, marks=pytest.mark.slow) for name in ("uvicorn", "sse_starlette"))]
)
def test_without_the_extra_the_line_names_it(folder: Path, package: str) -> None:
    program = f"import sys; sys.modules[{package!r}] = None; import rxflow.__main__ as m; m.main()"
    done = run_piped("-c", program, "serve", "trips:Trip", cwd=folder)
    said = f"rxflow: {package} is not installed; it comes with: pip install 'rxflow[web]'\n"
    assert (done.returncode, done.stderr.decode()) == (2, said)
