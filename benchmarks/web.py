"""Many readers of many runs over server-sent events: server, readers and provider in a process each.

Readers: each run asks a provider of its own words, which holds before the last one until all readers have the first
ones; so all read at once. Each reader must get every event, once and in order. Idle: from the moment at which the last
reader has closed its connection until the provider has seen all of its connections closed; the runs are not kept.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import httpx

from benchmarks.targets import Target, at_most, verdict
from rxflow import LLM, Flow
from rxflow.flow import start
from rxflow.llm._litellm.setup import begin_import
from rxflow.runs.options import WhenUnread
from rxflow.screens import web
from tests.loopback import Loopback, Reply

WORDS = 50
PATIENCE_S = 120


@dataclass(frozen=True)
class Figure:
    """One figure."""

    name: str
    value: float
    unit: str
    target: Target
    is_reached: bool


class Speaking(Flow[dict[str, Any]]):
    """Asks the provider at ``inputs["url"]``."""

    @start()
    async def speak(self) -> Any:
        return await LLM("openai/gpt-4o", base_url=self.state["url"], api_key="k", max_retries=0).acall("Hello")


def measure(runs: int, readers: int) -> list[Figure]:
    """All figures, for so many readers of so many runs."""
    lost, took = _read_all(runs, readers)
    return [
        _figure(f"events lost by {readers} readers of {runs} runs", lost, "", at_most(0)),
        Figure("the same: all have all after", took, "s", at_most(PATIENCE_S), took <= PATIENCE_S),
        _figure("all readers leave: providers idle after", _leave_all(runs, readers), "ms", at_most(100)),
    ]


def table(figures: list[Figure]) -> str:
    """For people."""
    lines = [f"{'web':<60}{'figure':>12}{'':>10}{'target':>10}{'reached':>9}"]
    lines += [
        f"{each.name:<60}{each.value:>12,.1f}{each.unit:>10}{verdict(each.target, each.value)}" for each in figures
    ]
    return "\n".join(lines)


def _figure(name: str, value: float, unit: str, target: Target) -> Figure:
    return Figure(name, value, unit, target, target.is_reached(value))


def _read_all(runs: int, readers: int) -> tuple[int, float]:
    """How many events were lost or came twice, and the seconds from the first reader to the last end."""
    with _reading("detach", runs, readers) as (asked, clients):
        asked.release()
        received = _receive(clients)
    seqs = cast("list[list[int]]", received["seqs"])
    expected = max(len(each) for each in seqs)
    return sum(len(set(range(expected)) ^ set(each)) for each in seqs), received["took"]


def _leave_all(runs: int, readers: int) -> float:
    """Milliseconds from the last reader's leaving to the provider's last closed connection."""
    with _reading("cancel", runs, readers) as (asked, clients):
        _send(clients, "leave")
        left_at: float = _receive(clients)["left_at"]  # the clock is the machine's
        asked.wait_until(lambda state: len(state.disconnects) == runs)
        return 1000 * (max(each.at for each in asked.disconnects) - left_at)


@contextmanager
def _reading(when_unread: WhenUnread, runs: int, readers: int) -> Generator[tuple[Loopback, subprocess.Popen[str]]]:
    """All runs hold, and all readers have their first words."""
    with Loopback() as asked, _process("serve", str(when_unread), str(runs), str(readers)) as server:
        asked.answer(lambda request: Reply(text="word " * WORDS, hold_after=WORDS // 2))
        url = str(_receive(server))
        with _process("read", url, str(readers)) as clients, httpx.Client(base_url=url, timeout=PATIENCE_S) as client:
            ids = [client.post("/api/runs", json={"inputs": {"url": asked.url}}).json()["id"] for _ in range(runs)]
            asked.wait_until(lambda state: state.holding == runs)
            _send(clients, ids)
            if _receive(clients) != "begun":
                raise RuntimeError("the readers have not begun")
            yield asked, clients


@contextmanager
def _process(role: str, *arguments: str) -> Generator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.web", role, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def _receive(process: subprocess.Popen[str]) -> Any:
    if process.stdout is None:
        raise RuntimeError("the process has no pipe")
    return json.loads(process.stdout.readline())


def _send(process: subprocess.Popen[str], value: Any) -> None:
    if process.stdin is None:
        raise RuntimeError("the process has no pipe")
    process.stdin.write(f"{json.dumps(value)}\n")
    process.stdin.flush()


class Reader:
    """One client, on a connection of its own."""

    def __init__(self, host: str, port: int, run_id: str) -> None:
        self.seqs: list[int] = []
        self.has_begun = asyncio.Event()
        self._address = host, port
        self._run_id = run_id
        self._writer: asyncio.StreamWriter | None = None

    async def read(self) -> None:
        """Read to the end of the run, or until :meth:`leave`."""
        reader, self._writer = await asyncio.open_connection(*self._address)
        path = f"/api/runs/{self._run_id}/events"
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        while line := await reader.readline():
            if line.startswith(b'data: {"v"'):
                entry = json.loads(line[6:])
                self.seqs.append(entry["data"]["seq"])
                if entry["kind"] == "StreamChunk":
                    self.has_begun.set()
            elif line.startswith(b"event: end"):
                break
        self._writer.close()

    def leave(self) -> None:
        """Vanish, as a browser does that is closed."""
        if self._writer is not None:
            self._writer.transport.abort()


def _say(said: Any) -> None:
    print(json.dumps(said), flush=True)


async def _read(url: str, readers: int) -> None:
    """The process of the readers."""
    address = urlsplit(url)
    ids = json.loads(sys.stdin.readline())
    began = time.monotonic()
    everybody = [Reader(address.hostname or "", address.port or 0, ids[each % len(ids)]) for each in range(readers)]
    tasks = [asyncio.create_task(each.read()) for each in everybody]
    async with asyncio.timeout(PATIENCE_S):
        for each in everybody:
            await each.has_begun.wait()
    _say("begun")
    leaving = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
    reading = asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.wait([leaving, reading], return_when=asyncio.FIRST_COMPLETED)
    if leaving.done():
        for each in everybody:
            each.leave()
        await asyncio.sleep(0)  # the connections are closed by the next step of the loop
        _say({"left_at": time.monotonic()})
    await reading
    _say({"seqs": [each.seqs for each in everybody], "took": time.monotonic() - began})


def _serve(when_unread: Any, runs: int, readers: int) -> None:
    """The process of the server."""
    begin_import().result()  # it would be imported beside the first runs
    limits = web.Limits(runs=runs, readers=readers)
    web.serve(Speaking, port=0, limits=limits, when_unread=when_unread, on_ready=_say)


if __name__ == "__main__":
    role, *rest = sys.argv[1:]
    if role == "serve":
        _serve(rest[0], int(rest[1]), int(rest[2]))
    else:
        asyncio.run(_read(rest[0], int(rest[1])))
