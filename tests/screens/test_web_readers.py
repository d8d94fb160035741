"""Readers of the web application in numbers, and those that leave, never read or flood."""

import contextlib
import socket
import subprocess
import sys
from collections.abc import Generator
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from benchmarks import web as benchmark
from rxflow import LLM
from rxflow.adapters import sse
from rxflow.operators._core.run_log import PAGE
from rxflow.runs import MemoryLog, Page, Runs
from rxflow.screens import web
from tests.adapters.serving import serve
from tests.gate import poll
from tests.loopback import Loopback, Reply
from tests.screens.web_flows import FLOOD, Flooding, Trip, speaking

pytestmark = pytest.mark.timeout(120)


ROOT = Path(__file__).parents[2]
FLOODING_SERVER = """
from rxflow.screens import web
from tests.screens.web_flows import Flooding

web.serve(Flooding, port=0, limits=web.Limits(readers=1, unread_s=0.2), on_ready=lambda url: print(url, flush=True))
"""


@contextlib.contextmanager
def serving(flow: Any, log: MemoryLog | None = None, **options: Any) -> Generator[httpx.Client]:
    with (
        Runs(log) as runs,
        serve(web.create_app(flow, runs=runs, **options)) as url,
        httpx.Client(base_url=url, timeout=100) as client,
    ):
        yield client


def start(client: httpx.Client) -> str:
    return str(client.post("/api/runs", json={}).raise_for_status().json()["id"])


def connect(client: httpx.Client, sent: bytes) -> socket.socket:
    """A connection on which only ``sent`` was written."""
    address = urlsplit(str(client.base_url))
    connection = socket.create_connection((address.hostname or "", address.port or 0))
    connection.sendall(sent)
    return connection


def ask_for_events(run_id: str) -> bytes:
    return f"GET /api/runs/{run_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def connect_deaf(client: httpx.Client, run_id: str) -> socket.socket:
    """A reader that reads nothing of its answer."""
    address = urlsplit(str(client.base_url))
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((address.hostname or "", address.port or 0))
    connection.sendall(ask_for_events(run_id))
    assert connection.recv(12) == b"HTTP/1.1 200"
    return connection


def read_when_there_is_room(client: httpx.Client, path: str) -> str:
    """Wait until another reader was cut off. On a busy machine this one may be cut off too, and comes again."""

    def read() -> httpx.Response | None:
        with contextlib.suppress(httpx.RemoteProtocolError):
            return client.get(path)
        return None

    answer = poll(read, lambda answer: answer and answer.status_code != 429, "there is no room")
    assert answer is not None
    return answer.text


def status_for_another(client: httpx.Client, run_id: str) -> int:
    """What another reader is told, which leaves at once."""
    with client.stream("GET", f"/api/runs/{run_id}/events") as answer:
        return answer.status_code


def inode_of_peer(connection: socket.socket) -> str:
    """The inode of the other end of a connection to this machine."""
    ports = [connection.getpeername()[1], connection.getsockname()[1]]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, *_, inode = line.split()[:10]
        if [int(each.partition(":")[2], 16) for each in (local, remote)] == ports:
            return inode
    raise LookupError(ports)


def holds_socket(process: int, inode: str) -> bool:
    for each in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if str(each.readlink()) == f"socket:[{inode}]":
                return True
    return False


def read_until(connection: socket.socket, said: bytes) -> bytes:
    seen = bytearray()
    while said not in seen[-(1 << 17) :]:
        data = connection.recv(1 << 16)
        assert data, seen
        seen += data
    return bytes(seen)


@pytest.mark.slow
def test_many_readers_of_many_runs_lose_nothing() -> None:
    lost, *_ = benchmark.measure(runs=5, readers=60)
    assert lost.value == 0


def test_a_run_that_is_not_to_be_kept_stops_when_its_last_reader_leaves(
    provider: Loopback, llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "rxflow.operators._core.log_reader.READER_S", 3600
    )  # for one that does not say that it has left
    provider.script(Reply(text="one two three", hold_after=1))
    with serving(speaking(llm), when_unread="cancel", limits=web.Limits(readers=2)) as client:
        run_id = start(client)
        first, last = (connect(client, ask_for_events(run_id)) for _ in range(2))
        for reader in (first, last):
            read_until(reader, b"StreamChunk")
        first.close()
        poll(lambda: status_for_another(client, run_id), lambda status: status == 200, "the first one has not left")
        assert client.get(f"/api/runs/{run_id}").json()["status"] == "running"
        last.close()
        provider.wait_until(lambda state: state.disconnects)


@pytest.mark.parametrize("when_unread", ["never", 0])
def test_a_time_that_is_none_is_refused_at_once(when_unread: Any) -> None:
    with pytest.raises(ValueError, match="when_unread must be"):
        web.create_app(Trip, when_unread=when_unread)


def test_a_client_that_never_reads_holds_up_nobody(provider: Loopback, llm: LLM) -> None:
    text = "word " * 50_000  # more than the buffers of a connection take
    provider.script(Reply(text=[text[at : at + 5_000] for at in range(0, len(text), 5_000)]))
    with serving(speaking(llm)) as client:
        run_id = start(client)
        with connect(client, ask_for_events(run_id)) as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            events = client.get(f"/api/runs/{run_id}/events").text
            assert events.count("event: StreamChunk") >= 50
            assert client.get(f"/api/runs/{run_id}").json()["status"] == "completed"


def test_a_client_that_never_reads_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    with serving(Flooding, limits=web.Limits(readers=1, unread_s=0.2)) as client:
        run_id = start(client)
        with connect_deaf(client, run_id):
            events = f"/api/runs/{run_id}/events"
            assert read_when_there_is_room(client, events).count("event: Custom") == FLOOD
    assert "a client was disconnected: it read nothing for 0.2 s" in caplog.text
    assert "Traceback" not in caplog.text


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux cuts such connections")
def test_and_the_server_keeps_no_socket_for_it() -> None:
    command = [sys.executable, "-c", FLOODING_SERVER]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(server.terminate)
        assert server.stdout is not None
        client = stack.enter_context(httpx.Client(base_url=server.stdout.readline().strip(), timeout=100))
        run_id = start(client)
        with connect_deaf(client, run_id) as deaf:
            inode = inode_of_peer(deaf)
            assert holds_socket(server.pid, inode)
            read_when_there_is_room(client, f"/api/runs/{run_id}/events")
            poll(lambda: holds_socket(server.pid, inode), lambda held: not held, "the server keeps the socket")


class CountingLog(MemoryLog):
    """Counts the pages that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.pages = 0

    def read(self, run_id: str, after: int, limit: int) -> Future[Page]:
        self.pages += 1
        return super().read(run_id, after, limit)


@pytest.mark.slow
def test_what_a_slow_client_has_not_taken_stays_in_the_log() -> None:
    log = CountingLog()
    with serving(Flooding, log) as client:
        run_id = start(client)
        with connect_deaf(client, run_id) as slow:
            status = f"/api/runs/{run_id}"
            poll(lambda: client.get(status).json()["status"], lambda said: said != "running", "it goes on")
            # So all pages are full.
            before = log.pages
            assert client.get(f"/api/runs/{run_id}/events").text.count("event: Custom") == FLOOD
            assert log.pages - before < 1.5 * FLOOD / PAGE  # the other one has had all
            received = read_until(slow, b"event: end")
    assert received.count(b"event: Custom") == FLOOD


def test_a_reader_that_vanishes_makes_room_for_another(
    provider: Loopback, llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "TAKE_DOWN_S", 3600)  # long before its response is ended
    monkeypatch.setattr(sse, "respond", partial(sse.respond, ping=3600))  # a ping to nobody would end it
    provider.script(Reply(text="one two", hold_after=1))
    with serving(speaking(llm), limits=web.Limits(readers=1)) as client:
        run_id = start(client)
        reader = connect(client, ask_for_events(run_id))
        read_until(reader, b"StreamChunk")
        assert client.get(f"/api/runs/{run_id}/events").status_code == 429
        reader.close()
        # Before the run goes on: its end would end the response too.
        poll(lambda: status_for_another(client, run_id), lambda status: status == 200, "there is no room")
        provider.release()
        assert "event: FlowFinished" in read_when_there_is_room(client, f"/api/runs/{run_id}/events")


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\x00\xff nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: " + b"x" * 100_000,
        b"POST /api/runs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n{",
        b"POST /api/runs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n{}",
    ],
    ids=["silence", "nonsense", "an endless header", "half a body", "a negative length"],
)
def test_a_flood_of_clients_that_vanish_leaves_nothing(provider: Loopback, sent: bytes) -> None:
    with serving(Trip) as client:
        with contextlib.ExitStack() as connections:
            for _ in range(100):
                with contextlib.suppress(ConnectionError):
                    connections.enter_context(connect(client, sent))
        assert client.get("/api/runs").json() == {"runs": []}
        assert "FlowFinished" in client.get(f"/api/runs/{start(client)}/events").text
