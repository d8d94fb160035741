"""The web application as programs use it: over real sockets."""

import asyncio
import contextlib
import json
import math
import re
import socket
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel, SecretStr, computed_field

from rxflow import LLM, Flow
from rxflow.flow import start as mark_start
from rxflow.runs import Runs
from rxflow.screens import web
from tests.adapters.flows import HALF_A_PAIR, Unencodable
from tests.adapters.serving import serve
from tests.gate import PATIENCE_S
from tests.loopback import Loopback, Reply
from tests.screens.web_flows import Asking, Broken, Misbuilt, Scoring, Topic, Trip, speaking

TOKEN = "a-token-of-sixteen-or-more"


@contextlib.contextmanager
def serving(flows: Any, **options: Any) -> Generator[httpx.Client]:
    with (
        Runs() as runs,
        serve(web.create_app(flows, runs=runs, **options)) as url,
        httpx.Client(base_url=url, timeout=PATIENCE_S) as client,
    ):
        yield client


def start(client: httpx.Client, **inputs: Any) -> str:
    answer = client.post("/api/runs", json={"inputs": inputs})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def follow(client: httpx.Client, run_id: str, **headers: str) -> Iterator[tuple[str, Any]]:
    """Name and data of each event, to the end."""
    with client.stream("GET", f"/api/runs/{run_id}/events", headers=headers, timeout=100) as response:
        assert response.status_code == 200
        name = ""
        for line in response.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                yield name, json.loads(value)


def wait_for(client: httpx.Client, run_id: str) -> Any:
    """What the server says of a run that has ended."""
    assert [name for name, _ in follow(client, run_id)][-1] == "end"
    return client.get(f"/api/runs/{run_id}").json()


class TestRuns:
    def test_a_run_is_started_followed_and_shown(self) -> None:
        with serving(Trip) as client:
            run_id = start(client, topic="ebb", count=2)
            names = [name for name, _ in follow(client, run_id)]
            assert names[0] == "FlowStarted"
            assert names[-2:] == ["FlowFinished", "end"]
            about = client.get(f"/api/runs/{run_id}").json()
            assert about == {"id": run_id, "flow": "Trip", "status": "completed", "result": "2 report on ebb"}
            assert client.get("/api/runs").json() == {"runs": [{"id": run_id, "flow": "Trip", "status": "completed"}]}

    def test_a_run_has_the_name_under_which_it_was_started(self) -> None:
        with serving({"one": Trip, "two": Trip}) as client:
            for name in ("one", "two"):
                run_id = client.post("/api/runs", json={"flow": name}).json()["id"]
                assert wait_for(client, run_id)["flow"] == name
            assert [run["flow"] for run in client.get("/api/runs").json()["runs"]] == ["two", "one"]

    def test_a_result_with_a_field_raw_is_shown_as_a_whole(self) -> None:
        with serving(Scoring) as client:
            assert wait_for(client, start(client))["result"] == {"raw": "a text", "score": 3}

    def test_a_reader_goes_on_behind_the_last_event_that_it_saw(self) -> None:
        with serving(Trip) as client:
            run_id = start(client)
            seen = [data["data"]["seq"] for name, data in follow(client, run_id) if name != "end"]
            rest = follow(client, run_id, **{"last-event-id": str(seen[1])})
            assert [data["data"]["seq"] for name, data in rest if name != "end"] == seen[2:]

    def test_a_failed_run_says_why(self) -> None:
        with serving(Trip) as client:
            about = wait_for(client, start(client, topic="storm"))
            assert about["status"] == "failed"
            assert "no ship in <b>the west</b>" in about["error"]

    def test_a_run_goes_on_without_its_readers(self, provider: Loopback, llm: LLM) -> None:
        provider.script(Reply(text="one two three", hold_after=1))
        with serving(speaking(llm)) as client:
            run_id = start(client)
            for name, _ in follow(client, run_id):
                if name == "StreamChunk":
                    break
            provider.release()
            assert wait_for(client, run_id)["result"] == "one two three"

    def test_stopping_a_run_closes_the_connection_of_its_provider(self, provider: Loopback, llm: LLM) -> None:
        provider.script(Reply(text="one two three", hold_after=1))
        with serving(speaking(llm)) as client:
            run_id = start(client)
            for name, _ in follow(client, run_id):
                if name == "StreamChunk":
                    assert client.post(f"/api/runs/{run_id}/cancel", json={"reason": "enough"}).status_code == 200
            about = client.get(f"/api/runs/{run_id}").json()
            assert (about["status"], about["error"]) == ("cancelled", "enough")
            provider.wait_until(lambda state: state.disconnects)

    def test_a_question_is_answered(self) -> None:
        path = ""
        with serving(Asking) as client:
            run_id = start(client)
            for name, data in follow(client, run_id):
                if name == "InputRequested":
                    (pending,) = client.get(f"/api/runs/{run_id}").json()["pending"]
                    assert pending["message"] == "In whose <i>name</i>?"
                    path = f"/api/runs/{run_id}/answers/{data['data']['request_id']}"
                    assert client.post(path, json={"value": 3}).status_code == 422
                    assert client.post(path, json={"value": "Ada"}).status_code == 200
            assert wait_for(client, run_id)["result"] == "a plan for Ada"
            again = client.post(path, json={"value": "Bo"})
            assert again.status_code == 404
            assert "was already answered, or never asked" in again.json()["error"]

    def test_a_run_that_waits_for_an_answer_is_stopped_at_once(self) -> None:
        with serving(Asking) as client:
            run_id = start(client)
            names: list[str] = []
            path = ""
            for name, data in follow(client, run_id):
                names.append(name)
                if name == "InputRequested":
                    path = f"/api/runs/{run_id}/answers/{data['data']['request_id']}"
                    assert client.post(f"/api/runs/{run_id}/cancel", json={"reason": "enough"}).status_code == 200
            about = client.get(f"/api/runs/{run_id}").json()
            assert (about["status"], about["error"]) == ("cancelled", "enough")
            assert "InputReceived" not in names
            assert client.post(path, json={"value": "Ada"}).status_code == 409

    @pytest.mark.parametrize("what", ["bytes", "surrogate", "cycle"])
    def test_a_result_that_json_cannot_hold_is_shown_as_text(self, what: str) -> None:
        with serving(Unencodable) as client:
            about = wait_for(client, start(client, what=what, is_plain=True))
        assert about["status"] == "completed"
        assert {"bytes": "\ufffd", "surrogate": "calm \ufffd", "cycle": "[1, [...]]"}[what] in about["result"]

    def test_an_error_and_a_question_with_half_a_character_are_shown(self) -> None:
        class Failing(Flow[dict[str, Any]]):
            @mark_start()
            def report(self) -> str:
                raise OSError(str(self.ask(HALF_A_PAIR)) + HALF_A_PAIR)

        with serving(Failing) as client:
            run_id = start(client)
            for name, data in follow(client, run_id):
                if name == "InputRequested":
                    (pending,) = client.get(f"/api/runs/{run_id}").json()["pending"]
                    assert pending["message"] == "calm \ufffd"
                    client.post(f"/api/runs/{run_id}/answers/{data['data']['request_id']}", json={"value": "a"})
            assert "acalm \ufffd" in client.get(f"/api/runs/{run_id}").json()["error"]

    def test_a_default_that_is_infinite_can_be_sent_back(self) -> None:
        class Bounded(BaseModel):
            budget: float = math.inf

        class Spending(Flow[Bounded]):
            @mark_start()
            def report(self) -> float:
                return self.state.budget

        with serving(Spending) as client:
            inputs = client.get("/api/flows").json()["flows"]["Spending"]["inputs"]
            assert wait_for(client, start(client, **inputs))["status"] == "completed"

    def test_a_default_that_json_changes_is_not_sent_back(self) -> None:
        class Settings(BaseModel):
            topic: str = "tides"
            day: date = date(2026, 7, 1)
            key: SecretStr = SecretStr("sk-1")
            client: Any = int

            @computed_field
            def title(self) -> str:
                return self.topic.title()

        class Using(Flow[Settings]):
            @mark_start()
            def report(self) -> str:
                return f"{self.state.day:%d.%m.} {self.state.key.get_secret_value()} {self.state.client('7')}"

        with serving(Using) as client:
            inputs = client.get("/api/flows").json()["flows"]["Using"]["inputs"]
            assert inputs == {"topic": "tides", "day": "2026-07-01"}
            assert wait_for(client, start(client, **inputs))["result"] == "01.07. sk-1 7"

    def test_it_can_be_mounted(self) -> None:
        app = FastAPI()
        with Runs() as runs:
            app.mount("/flows", web.create_app(Trip, runs=runs))
            with serve(app) as url, httpx.Client(base_url=f"{url}/flows", timeout=PATIENCE_S) as client:
                assert "<title>rxflow</title>" in client.get("/").text
                assert wait_for(client, start(client))["result"] == "1 report on tides"


class TestBadRequests:
    @pytest.fixture
    def client(self) -> Iterator[httpx.Client]:
        with serving({"trip": Trip}, limits=web.Limits(input_bytes=1000)) as client:
            yield client

    @pytest.mark.parametrize(
        ("body", "status", "said"),
        [
            (b"{nope", 400, "the body is not JSON"),
            (b"[1]", 400, "the body is not a JSON object"),
            (b"[" * 900, 400, "the body is not JSON"),
            (b'{"inputs": [1]}', 422, "inputs is not an object"),
            (b'{"inputs": {"count": "many"}}', 422, "count"),
            (b'{"inputs": {"tpic": "tides"}}', 422, "the state Topic has no field 'tpic'; did you mean 'topic'?"),
            (b'{"flow": "nope"}', 404, "there is no flow 'nope'; the flows are ['trip']"),
            (b'{"inputs": {"topic": "' + b"x" * 2000 + b'"}}', 413, "the body is larger than 1000 bytes"),
        ],
    )
    def test_a_start_that_cannot_be_is_one_clear_line(
        self, client: httpx.Client, body: bytes, status: int, said: str
    ) -> None:
        answer = client.post("/api/runs", content=body)
        assert (answer.status_code, said in answer.json()["error"]) == (status, True), answer.text
        assert client.get("/api/runs").json() == {"runs": []}

    @pytest.mark.parametrize("path", ["", "/events", "/cancel", "/answers/x"])
    def test_a_run_that_is_not_there_is_named(self, client: httpx.Client, path: str) -> None:
        method = "POST" if path in ("/cancel", "/answers/x") else "GET"
        answer = client.request(method, f"/api/runs/nope{path}")
        assert answer.status_code == 404
        assert "'nope'" in answer.json()["error"]

    def test_a_last_event_id_that_is_not_a_number(self, client: httpx.Client) -> None:
        answer = client.get(f"/api/runs/{start(client)}/events", headers={"last-event-id": "x"})
        assert answer.status_code == 400


def test_the_page_has_the_drawing_style_of_plot(tmp_path: Path) -> None:
    with serving(Trip) as client:
        style = client.get("/drawing.css")
        assert style.headers["content-type"].startswith("text/css")
        assert style.text in Trip().plot(str(tmp_path / "trip"), show=False).read_text(encoding="utf-8")
        assert 'href="drawing.css"' in client.get("/").text
        own = client.get("/page.css").text
        declared = set(re.findall(r"(--[\w-]+):", style.text))
        assert declared
        assert not declared & set(re.findall(r"(--[\w-]+):", own))
        used = set(re.findall(r"var\((--[\w-]+)\)", own + style.text))
        assert used <= declared | set(re.findall(r"(--[\w-]+):", own))


def test_more_runs_than_the_limit_are_refused(provider: Loopback, llm: LLM) -> None:
    provider.script(Reply(text="one two", hold_after=1))
    with serving(speaking(llm), limits=web.Limits(runs=1)) as client:
        run_id = start(client)
        refused = client.post("/api/runs", json={})
        assert refused.status_code == 429
        assert "1 runs are live, which is the limit" in refused.json()["error"]
        client.post(f"/api/runs/{run_id}/cancel", json={})


def test_runs_that_are_started_at_once_count_each_other(provider: Loopback, llm: LLM) -> None:
    provider.script(*[Reply(text="one two", hold_after=1)] * 2)

    def ask(client: httpx.Client) -> int:
        return client.post("/api/runs", json={}).status_code

    with serving(speaking(llm), limits=web.Limits(runs=2)) as client, ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, [client] * 12))
        assert sorted(answers) == [201] * 2 + [429] * 10
        for run in client.get("/api/runs").json()["runs"]:
            client.post(f"/api/runs/{run['id']}/cancel", json={})


@pytest.mark.parametrize(
    ("flow", "why"),
    [(Broken, "ConnectionError: no database"), (Misbuilt, "ValueError: no key in the environment")],
)
def test_a_flow_that_cannot_be_made_is_said_so_in_one_line(
    caplog: pytest.LogCaptureFixture, flow: type[Flow[Any]], why: str
) -> None:
    with serving({"broken": flow}) as client:
        for answer in (client.get("/api/flows"), client.post("/api/runs", json={})):
            assert answer.status_code == 500
            assert answer.json() == {"error": f"the flow 'broken' cannot be created: {why}"}
    assert [record.exc_info is not None for record in caplog.records if record.name == "rxflow"] == [True, True]


def test_a_store_that_cannot_be_reached_is_said_so_in_one_line(tmp_path: Path) -> None:
    with Runs(f"sqlite:///{tmp_path / 'runs.db'}") as runs, serve(web.create_app(Trip, runs=runs)) as url:
        runs.close()
        for answer in (
            httpx.get(f"{url}/api/runs", timeout=PATIENCE_S),
            httpx.post(f"{url}/api/runs", json={}, timeout=PATIENCE_S),
        ):
            assert answer.status_code == 503
            assert answer.json() == {"error": f"the store {tmp_path / 'runs.db'} is closed"}


@pytest.mark.parametrize("header", ["host", "origin"])
def test_an_address_that_cannot_be_read_is_refused(header: str) -> None:
    with serving(Trip) as client:
        refused = client.get("/api/flows", headers={header: "http://[::1" if header == "origin" else "[::1"})
    assert refused.status_code == 403
    assert "[::1" in refused.json()["error"]


def test_more_readers_than_the_limit_are_refused(provider: Loopback, llm: LLM) -> None:
    provider.script(Reply(text="one two", hold_after=1))
    with serving(speaking(llm), limits=web.Limits(readers=1)) as client:
        run_id = start(client)
        reader = follow(client, run_id)
        assert next(reader)[0] == "FlowStarted"
        assert client.get(f"/api/runs/{run_id}/events").status_code == 429
        client.post(f"/api/runs/{run_id}/cancel", json={})
        assert [name for name, _ in reader][-1] == "end"


class TestGuard:
    def test_without_a_token_only_this_machine_is_a_host(self) -> None:
        with serving(Trip) as client:
            for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "evil-localhost", ""):
                assert client.get("/api/runs", headers={"host": host}).status_code == 403, host
            for host in ("localhost:1", "127.0.0.1", "[::1]:80"):
                assert client.get("/api/runs", headers={"host": host}).status_code == 200, host

    @pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
    def test_pages_of_other_origins_may_not_ask(self, origin: str) -> None:
        with serving(Trip) as client:
            assert client.post("/api/runs", json={}, headers={"origin": origin}).status_code == 403
            assert client.get("/api/runs").json() == {"runs": []}

    def test_an_allowed_origin_may(self) -> None:
        origin = "https://shop.example"
        with serving(Trip, allowed_origins=(origin,)) as client:
            asked = client.options("/api/runs", headers={"origin": origin, "access-control-request-method": "POST"})
            assert asked.status_code == 204
            answer = client.post("/api/runs", json={}, headers={"origin": origin})
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (201, origin)
            assert answer.headers["vary"] == "origin"  # what a cache keeps is for this origin
            assert "access-control-allow-origin" not in client.get("/api/runs").headers

    def test_the_page_can_start_runs_itself(self) -> None:
        with serving(Trip) as client:
            own = str(client.base_url).rstrip("/")
            assert client.post("/api/runs", json={}, headers={"origin": own}).status_code == 201

    def test_with_a_token_nothing_goes_without_it(self) -> None:
        with serving(Trip, token=TOKEN) as client:
            for path in ("/", "/api/runs", "/page.js", "/api/flows"):
                assert client.get(path).status_code == 401
            for wrong in ("wrong", TOKEN[:-1], f"{TOKEN}x", TOKEN.upper()):
                assert client.get("/", params={"token": wrong}).status_code == 401, wrong
                for header in ({"authorization": f"Bearer {wrong}"}, {"cookie": f"rxflow_token={wrong}"}):
                    assert client.get("/api/runs", headers=header).status_code == 401, header
            assert client.post(f"/api/runs?token={TOKEN}", json={}).status_code == 401  # an address is no place for it
            bearer = {"authorization": f"Bearer {TOKEN}"}
            assert client.post("/api/runs", json={}, headers=bearer).status_code == 201

    def test_a_token_in_the_address_becomes_a_cookie(self) -> None:
        with serving(Trip, token=TOKEN) as client:
            first = client.get(f"/?token={TOKEN}&lang=en")
            assert (first.status_code, first.headers["location"]) == (303, "./?lang=en")
            cookie = first.headers["set-cookie"].lower()
            assert "httponly" in cookie
            assert "samesite=strict" in cookie
            assert "secure" not in cookie  # a browser would not send it back over plain HTTP
            assert client.get("/api/runs").status_code == 200  # httpx keeps the cookie

    def test_behind_https_the_cookie_is_sent_over_https_only(self) -> None:
        async def ask(app: Any) -> str:
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="https://trips.example") as client:
                return (await client.get("/", params={"token": TOKEN})).headers["set-cookie"]

        with Runs() as runs:
            assert "Secure" in asyncio.run(ask(web.create_app(Trip, runs=runs, token=TOKEN)))

    @pytest.mark.parametrize(
        ("client", "status"),
        [("127.0.0.1", 200), ("::ffff:127.0.0.1", 200), ("203.0.113.7", 403), ("::ffff:203.0.113.7", 403)],
    )
    def test_without_a_token_only_this_machine_is_served_whatever_host_it_names(self, client: str, status: int) -> None:
        async def ask(app: Any) -> int:
            transport = httpx.ASGITransport(app=app, client=(client, 50_000))
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                return (await http.get("/api/runs")).status_code

        with Runs() as runs:
            assert asyncio.run(ask(web.create_app(Trip, runs=runs))) == status

    def test_a_token_in_the_address_leads_back_to_the_page_behind_any_prefix(self) -> None:
        app = FastAPI()  # behind a proxy that takes its own prefix away
        with Runs() as runs:
            app.mount("/flows", web.create_app(Trip, runs=runs, token=TOKEN))
            with serve(app) as url:
                first = httpx.get(f"{url}/flows/?token={TOKEN}", timeout=PATIENCE_S)
        seen_by_the_browser = urljoin("https://example.org/behind/a/proxy/flows/", first.headers["location"])
        assert seen_by_the_browser == "https://example.org/behind/a/proxy/flows/"

    def test_pages_run_no_foreign_code(self) -> None:
        with serving(Trip) as client:
            policy = client.get("/").headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy

    @pytest.mark.parametrize("token", ["a-token-of-twenty-\u00e9", "a-token-of-sixteen-or-more\n"])
    def test_a_token_that_no_header_carries_is_refused(self, token: str) -> None:
        with pytest.raises(ValueError, match="the token has characters that a header cannot carry"):
            web.create_app(Trip, token=token)

    def test_a_short_token_is_refused(self) -> None:
        with pytest.raises(ValueError, match="the token has 5 characters"):
            web.create_app(Trip, token="short")


class TestServe:
    def test_a_port_in_use_is_one_clear_error(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
                web.serve(Trip, port=port)

    def test_what_is_not_a_flow_is_refused(self) -> None:
        with pytest.raises(TypeError, match="Topic is not a flow class"):
            web.create_app(Topic)  # type: ignore[arg-type]
