"""The events of a run over HTTP: real sockets, and Node's EventSource as a client that drops and resumes."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from typing import Any

import httpx
import pytest
import reactivex
from reactivex import Observable
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message

from rxflow import Flow, StreamChunk
from rxflow._streaming import from_async
from rxflow.adapters import sse
from rxflow.flow import start
from rxflow.runs import MemoryLog, Note, Run, RunCancelled, Runs
from rxflow.types.codec import decode
from rxflow.types.events import Event, FlowFailed, FlowFinished, FlowStarted
from tests.adapters import flows
from tests.adapters.node_clients import run_node
from tests.adapters.serving import CuttingProxy, serve
from tests.gate import PATIENCE_S, Gate
from tests.operators.endings import stubborn
from tests.runs.flows import Endless
from tests.scripted import Scripted
from tests.team import solo

Answer = Callable[[Request], Response]


def app(answer: Answer) -> Starlette:
    async def endpoint(request: Request) -> Response:
        return answer(request)

    return Starlette(routes=[Route("/run", endpoint)])


def recorded(flow: type[Flow[Any]]) -> Callable[[int], Observable[Event]]:
    """A run that is in a log: what there is after an event."""
    events = flows.events_of(flow())
    return lambda after: reactivex.from_iterable([event for event in events if event.seq > after])


def messages(text: str) -> Iterator[dict[str, str]]:
    for block in text.replace("\r\n", "\n").split("\n\n"):
        if block and not block.startswith(":"):
            yield dict(line.split(": ", 1) for line in block.split("\n"))


def test_each_event_is_a_message_that_can_be_decoded() -> None:
    with serve(app(lambda request: sse.respond(request, flows.Plain().events()))) as url:
        response = httpx.get(f"{url}/run", timeout=PATIENCE_S)
    assert response.headers["content-type"].startswith("text/event-stream")
    *events, end = messages(response.text)
    decoded = [decode(each["data"]) for each in events]
    assert [type(event).__name__ for event in decoded] == [each["event"] for each in events]
    assert "".join(map(str, flows.of_type(decoded, StreamChunk))) == "low tide at noon"
    assert isinstance(decoded[0], FlowStarted)
    assert isinstance(decoded[-1], FlowFinished)
    assert end == {"event": "end", "id": "end", "data": '{"error": null}'}


def test_the_last_message_says_what_ended_the_run() -> None:
    with serve(app(lambda request: sse.respond(request, flows.Failing().events()))) as url:
        *_, end = messages(httpx.get(f"{url}/run", timeout=PATIENCE_S).text)
    assert json.loads(end["data"]) == {"error": "ConnectionError: line cut"}


def test_frames_instead_of_events() -> None:
    with serve(app(lambda request: sse.respond(request, flows.Plain().events(), as_frames=True))) as url:
        *frames, _ = messages(httpx.get(f"{url}/run", timeout=PATIENCE_S).text)
    assert frames[0]["event"] == "flow_started"
    assert frames[-1]["event"] == "flow_finished"
    said = [json.loads(each["data"])["data"]["content"] for each in frames if each["event"] == "llm_stream_chunk"]
    assert "".join(said) == "low tide at noon"


@pytest.mark.timeout(30)
def test_a_frame_with_half_a_character_in_a_name_is_sent_with_a_replacement() -> None:
    class Named(Flow[dict[str, Any]]):
        @start()
        def report(self) -> str:
            return str(solo(Scripted("low tide"), description="On {topic}").kickoff({"topic": flows.HALF_A_PAIR}))

    with serve(app(lambda request: sse.respond(request, Named().events(), as_frames=True))) as url:
        *frames, end = messages(httpx.get(f"{url}/run").text)
    assert json.loads(end["data"]) == {"error": None}
    assert "On calm \ufffd" in next(each["data"] for each in frames if each["event"] == "task_started")


def test_lines_of_json() -> None:
    with serve(app(lambda request: sse.respond_with_lines(request, flows.Failing().events()))) as url:
        response = httpx.get(f"{url}/run", timeout=PATIENCE_S)
    assert response.headers["content-type"] == "application/x-ndjson"
    events = [decode(line) for line in response.content.splitlines(keepends=True)]
    assert isinstance(events[-1], FlowFailed)


@pytest.mark.slow
def test_a_client_that_drops_resumes_behind_what_it_saw() -> None:
    source = recorded(flows.Plain)
    asked_for: list[str | None] = []

    def follow(request: Request) -> Response:
        asked_for.append(request.headers.get("last-event-id"))
        return sse.respond(request, source)

    with (
        serve(app(follow)) as url,
        CuttingProxy(url, cut_at=b'"content":" at"') as proxy,
    ):
        *came, end = run_node(
            "event_source.mjs", f"{proxy.url}/run", "StreamChunk", "FlowFinished", needs_clients=False
        )
    assert end["name"] == "end"
    cut = next(number for number, each in enumerate(came) if each["name"] == "error")
    first, *again = asked_for
    assert first is None
    assert set(again) == {came[cut - 1]["id"]}  # a busy machine may need more than one try
    shown = [each for each in came if each["name"] != "error"]
    ids = [int(each["id"]) for each in shown]
    assert ids == sorted(set(ids))
    said = [json.loads(each["data"])["data"]["content"] for each in shown if each["name"] == "StreamChunk"]
    assert "".join(said) == "low tide at noon"


def test_a_run_in_a_log_goes_on_without_its_client_which_comes_back() -> None:
    goes_on = threading.Event()

    class Slow(Flow[dict[str, Any]]):
        @start()
        async def say(self) -> str:
            async def wait(_: object) -> None:
                await asyncio.to_thread(goes_on.wait)

            first = await solo(Scripted("low tide")).kickoff_async()
            return f"{first}{await solo(Scripted('at noon', before=wait)).kickoff_async()}"

    with closing(Runs()) as runs:
        run_id = runs.start(Slow()).id

        def follow(request: Request) -> Response:
            return sse.respond(request, lambda after: runs[request.query_params["run"]].events(after=after))

        with serve(app(follow)) as url:
            address = f"{url}/run?run={run_id}"
            with httpx.stream("GET", address, timeout=PATIENCE_S) as response:
                seen = 0
                for line in response.iter_lines():
                    seen = int(line.removeprefix("id: ")) if line.startswith("id: ") else seen
                    if '"content":" tide' in line:
                        break
            assert runs[run_id].status == "running"
            goes_on.set()
            *rest, end = messages(httpx.get(address, headers={"last-event-id": str(seen)}, timeout=PATIENCE_S).text)
            assert end["id"] == "end"
            assert [int(each["id"]) for each in rest] == list(range(seen + 1, seen + 1 + len(rest)))
            text = "".join(str(decode(each["data"])) for each in rest if each["event"] == "StreamChunk")
            assert text == "at noon"

            assert httpx.get(address, headers={"last-event-id": "99999"}, timeout=PATIENCE_S).text.count("beyond") == 1
            assert httpx.get(f"{url}/run?run=nobody", timeout=PATIENCE_S).status_code == 404


def test_frames_of_a_client_that_resumes_know_what_encloses_them() -> None:
    source = recorded(flows.Plain)
    with serve(app(lambda request: sse.respond(request, source, as_frames=True))) as url:
        (chunk, *_) = messages(httpx.get(f"{url}/run", headers={"last-event-id": "5"}, timeout=PATIENCE_S).text)
    assert json.loads(chunk["data"])["parent_id"]


@pytest.mark.parametrize("header", ["end", "17"])
def test_a_client_that_comes_back_does_not_start_a_run_again(header: str) -> None:
    started: list[Request] = []

    def answer(request: Request) -> Response:
        def subscribe(*_: Any) -> None:
            started.append(request)

        return sse.respond(request, Observable(subscribe))  # type: ignore[arg-type]

    with serve(app(answer)) as url:
        assert httpx.get(f"{url}/run", headers={"last-event-id": header}, timeout=PATIENCE_S).status_code == 204
    assert started == []


def test_a_position_that_is_not_one_is_refused_in_one_line() -> None:
    source = recorded(flows.Plain)
    with serve(app(lambda request: sse.respond(request, source))) as url:
        response = httpx.get(f"{url}/run", headers={"last-event-id": "../../etc"}, timeout=PATIENCE_S)
    assert response.status_code == 400
    assert response.text == "Last-Event-ID is not the seq of an event: '../../etc'"


def test_an_unknown_run_is_not_found() -> None:
    def find(after: int) -> Observable[Event]:
        raise LookupError("unknown run: 'x'")

    with serve(app(lambda request: sse.respond(request, find))) as url:
        response = httpx.get(f"{url}/run", timeout=PATIENCE_S)
    assert (response.status_code, response.text) == (404, "unknown run: 'x'")


def test_a_client_that_is_far_behind_a_run_of_its_own_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    """What is said at once, with nobody able to take any of it meanwhile."""
    is_disposed = threading.Event()
    said = reactivex.concat(reactivex.range(sse.MAX_WAITING_ITEMS + 1), reactivex.never())
    messages = said.map(lambda number: b"data: %d\n\n" % number).finally_action(is_disposed.set)
    with serve(app(lambda request: sse.stream(messages))) as url:
        assert httpx.get(f"{url}/run", timeout=PATIENCE_S).text == ""
        assert is_disposed.is_set()
    assert caplog.messages == ["a client was disconnected: it is more than 100000 items behind the run"]


def test_so_is_one_whose_items_raise_when_they_are_disposed(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "MAX_WAITING_ITEMS", 2)
    go_on = Gate()

    async def count(emit: Callable[[bytes], None]) -> None:
        await go_on.passed()
        for number in range(3):
            emit(b"data: %d\n\n" % number)
        await Gate().passed()

    messages = stubborn(from_async(count))
    with serve(app(lambda request: sse.stream(messages))) as url, httpx.stream("GET", f"{url}/run") as response:
        go_on.open()
        assert list(response.iter_bytes()) == []
    assert caplog.messages == [
        "a client was disconnected: it is more than 2 items behind the run",
        "a dispose action raised",
    ]


@pytest.mark.parametrize("respond", [sse.respond, sse.respond_with_lines])
def test_a_client_that_comes_back_does_not_start_an_observable_again(respond: Callable[..., Response]) -> None:
    with serve(app(lambda request: respond(request, reactivex.throw(AssertionError("it was started"))))) as url:
        again = httpx.get(f"{url}/run?after=17", timeout=PATIENCE_S)
    assert (again.status_code, again.text) == (204, "")


@pytest.mark.parametrize("respond", [sse.respond, sse.respond_with_lines])
def test_a_client_that_leaves_disposes_the_run(respond: Callable[..., Response]) -> None:
    is_stopped = threading.Event()

    class Waiting(Flow[dict[str, Any]]):
        @start()
        async def wait(self) -> str:
            try:
                return str(await solo(Scripted(["first ", Gate(), "last"])).kickoff_async())
            finally:
                is_stopped.set()

    with serve(app(lambda request: respond(request, Waiting().events()))) as url:
        with httpx.stream("GET", f"{url}/run", timeout=PATIENCE_S) as response:
            lines = response.iter_lines()
            heard = next(line for line in lines if "first " in line)
            assert not is_stopped.is_set(), [heard, *lines]
        assert is_stopped.wait(PATIENCE_S)


class ToldLog(MemoryLog):
    """Notes in ``happened`` when a run hears that a reader has left."""

    def __init__(self, happened: list[str]) -> None:
        super().__init__()
        self._happened = happened

    def note(self, run_id: str, note: Note) -> Future[None]:
        if note.kind == "reader" and not note.value:
            self._happened.append("told")
        return super().note(run_id, note)


class Client:
    """A client of an ASGI application, without a server between."""

    def __init__(self) -> None:
        self.has_begun = asyncio.Event()
        self.leaves = asyncio.Event()

    async def follow(self, run: Run) -> None:
        scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
        await sse.respond(Request(scope), run.read)(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message.get("body"):
            self.has_begun.set()


class DeafClient(Client):
    """One that takes nothing of the body, and stays."""

    async def follow(self, run: Run) -> None:
        scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
        await sse.respond(Request(scope), run.read, send_timeout=0.01)(scope, self._receive, self._send)

    async def _send(self, message: Message) -> None:
        if message.get("body"):
            await asyncio.Event().wait()


def test_a_run_hears_of_a_client_that_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "rxflow.operators._core.log_reader.READER_S", 3600
    )  # for one that does not say that it has left
    happened: list[str] = []

    async def main(runs: Runs) -> None:
        run = await runs.start_async(Endless(), when_unread="cancel")
        await DeafClient().follow(run)
        with pytest.raises(RunCancelled, match="its last reader has left"):
            await run.result_async()

    with Runs(ToldLog(happened)) as runs:
        asyncio.run(asyncio.wait_for(main(runs), PATIENCE_S))
    assert happened == ["told"]


def test_runs_hear_of_all_clients_that_leave_before_a_response_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """To end 1,000 responses takes the loop a fifth of a second, in which the runs would go on."""
    monkeypatch.setattr(sse, "TAKE_DOWN_S", 3600)
    happened: list[str] = []

    async def be_a_client(client: Client, run: Run) -> None:
        await client.follow(run)
        happened.append("ended")

    async def main(runs: Runs) -> None:
        run = await runs.start_async(Endless(), when_unread=3600)
        clients = [Client() for _ in range(10)]
        following = [asyncio.create_task(be_a_client(client, run)) for client in clients]
        for client in clients:
            await client.has_begun.wait()
        for client in clients:
            client.leaves.set()
            for _ in range(20):  # enough steps of the loop for a response to end
                await asyncio.sleep(0)
        assert happened == ["told"] * 10
        loop = asyncio.get_running_loop()
        now = loop.time
        vars(loop)["time"] = lambda: now() + 3600
        await asyncio.gather(*following)

    with Runs(ToldLog(happened)) as runs:
        asyncio.run(main(runs))
    assert happened == ["told"] * 10 + ["ended"] * 10
