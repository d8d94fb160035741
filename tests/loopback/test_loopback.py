"""The provider of the suite does what it says, over real sockets."""

import asyncio
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gate import PATIENCE_S
from tests.loopback import Loopback, Reply, Request, ToolCall

HELLO: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello big world"}]}
STREAM = HELLO | {"stream": True}
USAGE = STREAM | {"stream_options": {"include_usage": True}}
# An empty context, because loading certificates takes longer than any test here.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
THREE = ["a", "b", "c"]
AT_ONCE_S = 30.0
"""Much less than the replies below would take otherwise, and room for a busy machine."""


@pytest.fixture
def provider() -> Iterator[Loopback]:
    with Loopback() as provider:
        yield provider


@pytest.fixture
def client(provider: Loopback) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=provider.url, timeout=PATIENCE_S, verify=NO_TLS, trust_env=False) as client:
        yield client


def events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The chunks of a stream as they come, to the very end: only then is the connection used again."""
    for line in lines:
        if line and line != "data: [DONE]":
            chunk: dict[str, Any] = json.loads(line.removeprefix("data: "))
            yield chunk


def stream(client: httpx.Client, body: dict[str, Any] = STREAM) -> list[dict[str, Any]]:
    with client.stream("POST", "/chat/completions", json=body) as response:
        assert response.status_code == 200
        return list(events(response.iter_lines()))


def delta(chunk: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = chunk["choices"][0]["delta"]
    return found


def texts(chunks: list[dict[str, Any]]) -> list[str]:
    return [delta(chunk)["content"] for chunk in chunks if chunk["choices"] and delta(chunk).get("content")]


def raw_request(provider: Loopback, body: dict[str, Any] = STREAM) -> socket.socket:
    """A bare connection on which the request was sent."""
    data = json.dumps(body).encode()
    sock = socket.create_connection(("127.0.0.1", httpx.URL(provider.url).port or 0), timeout=PATIENCE_S)
    sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
    return sock


def read_to_end(sock: socket.socket, seen: bytearray) -> None:
    while data := sock.recv(65536):
        seen += data


class TestReplies:
    def test_answers_by_default_with_the_question(self, provider: Loopback, client: httpx.Client) -> None:
        answer = client.post("/chat/completions", json=HELLO).json()
        assert answer["choices"][0]["message"] == {
            "role": "assistant",
            "content": "Answer to: hello big world",
        }
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
        assert provider.wait_until(lambda p: p.completed) == 1

    def test_streams_as_openai_does(self, provider: Loopback, client: httpx.Client) -> None:
        provider.script(Reply(text="one two", usage=(7, 9)))
        role, one, two, end, usage = stream(client, USAGE)
        assert delta(role) == {"role": "assistant", "content": ""}
        assert texts([one, two]) == ["one ", "two"]
        assert delta(end) == {}
        assert end["choices"][0]["finish_reason"] == "stop"
        assert end["usage"] is None
        assert usage["choices"] == []
        assert usage["usage"] == {"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16}
        assert provider.chunks_sent == 5

    def test_sends_no_usage_unasked(self, client: httpx.Client) -> None:
        assert all("usage" not in chunk for chunk in stream(client))

    def test_a_sequence_is_exactly_the_deltas(self, provider: Loopback, client: httpx.Client) -> None:
        provider.script(Reply(text=["a b", " ", "ü c"]))
        assert texts(stream(client)) == ["a b", " ", "ü c"]

    def test_text_in_words_loses_nothing(self, provider: Loopback, client: httpx.Client) -> None:
        text = " \n one  two\n\nthree "
        provider.script(Reply(text=text))
        assert "".join(texts(stream(client))) == text

    def test_an_empty_reply_still_begins_and_ends(self, provider: Loopback, client: httpx.Client) -> None:
        provider.script(Reply())
        role, end = stream(client)
        assert delta(role) == {"role": "assistant", "content": None}
        assert end["choices"][0]["finish_reason"] == "stop"

    def test_reasoning_comes_before_text(self, provider: Loopback, client: httpx.Client) -> None:
        provider.script(Reply(reasoning=["hm ", "so"], text=["x"]), Reply(reasoning=["hm ", "so"], text="x"))
        chunks = [delta(chunk) for chunk in stream(client)]
        assert chunks[1:-1] == [{"reasoning_content": "hm "}, {"reasoning_content": "so"}, {"content": "x"}]
        message = client.post("/chat/completions", json=HELLO).json()["choices"][0]["message"]
        assert message["reasoning_content"] == "hm so"

    def test_tool_calls_come_in_pieces(self, provider: Loopback, client: httpx.Client) -> None:
        calls = [ToolCall("search", {"query": "rain in Spain"}, id="c1"), ToolCall("broken", '{"a": ')]
        provider.script(Reply(tool_calls=calls), Reply(tool_calls=calls))
        chunks = stream(client)
        pieces = [piece for chunk in chunks for piece in delta(chunk).get("tool_calls", [])]
        opening = [piece for piece in pieces if "id" in piece]
        assert [(p["index"], p["id"], p["function"]["name"]) for p in opening] == [
            (0, "c1", "search"),
            (1, "call_1_1", "broken"),
        ]
        assert all("name" not in piece["function"] for piece in pieces if "id" not in piece)
        joined = ["".join(p["function"]["arguments"] for p in pieces if p["index"] == i) for i in (0, 1)]
        assert json.loads(joined[0]) == {"query": "rain in Spain"}
        assert joined[1] == '{"a": '
        assert len(pieces) > 5
        assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
        message = client.post("/chat/completions", json=HELLO).json()["choices"][0]["message"]
        assert message["tool_calls"][0]["function"] == {
            "name": "search",
            "arguments": '{"query": "rain in Spain"}',
        }

    def test_errors_have_status_headers_and_message(self, provider: Loopback, client: httpx.Client) -> None:
        provider.script(Reply(status=429, headers={"Retry-After": "3"}, error="slow down"), Reply(status=529))
        response = client.post("/chat/completions", json=STREAM)
        assert response.status_code == 429
        assert response.headers["retry-after"] == "3"
        assert response.json()["error"]["message"] == "slow down"
        assert client.post("/chat/completions", json=STREAM).status_code == 529

    def test_raw_goes_out_as_it_is(self, provider: Loopback, client: httpx.Client) -> None:
        raw = [b"data: {bro", b"ken\n\n", b": comment\n\n"]
        provider.script(Reply(raw=raw, content_type="text/plain"), Reply(raw=[b"<html>"], status=502))
        response = client.post("/chat/completions", json=STREAM)
        assert response.content == b"".join(raw)
        assert response.headers["content-type"] == "text/plain"
        response = client.post("/chat/completions", json=HELLO)
        assert (response.status_code, response.content) == (502, b"<html>")

    def test_models_and_nothing_else(self, provider: Loopback, client: httpx.Client) -> None:
        assert client.get("/models").json()["data"][0]["id"] == "loopback"
        assert client.get("/other").status_code == 404
        assert client.post("/chat/completions", content=b"[]").status_code == 400
        assert client.post("/chat/completions", content=b"{").status_code == 400
        assert provider.requests == []
        assert provider.disconnects == []


class TestAnswers:
    def test_scripts_come_first_then_the_function(self, provider: Loopback, client: httpx.Client) -> None:
        provider.answer(lambda request: Reply(text=[request.last_user.upper()]))
        provider.script(Reply(text=["first"]), Reply(text=["second"]))
        assert [texts(stream(client)) for _ in range(3)] == [["first"], ["second"], ["HELLO BIG WORLD"]]

    def test_a_function_that_raises_is_told_to_the_client(self, provider: Loopback, client: httpx.Client) -> None:
        def fail(request: Request) -> Reply:
            raise LookupError(request.last_user)

        provider.answer(fail)
        response = client.post("/chat/completions", json=HELLO)
        assert response.status_code == 500
        assert "LookupError('hello big world')" in response.json()["error"]["message"]

    def test_requests_are_kept(self, provider: Loopback, client: httpx.Client) -> None:
        parts = [{"type": "text", "text": "in "}, {"type": "text", "text": "parts"}]
        messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": None}]
        body = {"model": "m", "messages": messages, "tools": [{"type": "function"}]}
        before = time.monotonic()
        client.post("/chat/completions", json=body, headers={"X-Trace": "t1"})
        [request] = provider.requests
        assert request.body == body
        assert request.messages == messages
        assert request.tools == [{"type": "function"}]
        assert request.last_user == "in parts"
        assert request.headers["x-trace"] == "t1"
        assert before <= request.at <= time.monotonic()


class TestConnections:
    def test_are_kept_alive_and_closed_by_the_client(self, provider: Loopback) -> None:
        with httpx.Client(base_url=provider.url, verify=NO_TLS, trust_env=False, timeout=PATIENCE_S) as client:
            for _ in range(3):
                stream(client)
            assert provider.connections == 1
            assert provider.open_connections == 1
        provider.wait_until(lambda p: p.open_connections == 0)
        assert provider.completed == 3
        assert provider.disconnects == []

    def test_end_when_the_client_asks_for_it(self, provider: Loopback, client: httpx.Client) -> None:
        assert client.post("/chat/completions", json=HELLO, headers={"connection": "close"}).is_success
        provider.wait_until(lambda p: p.open_connections == 0)

    def test_many_at_once(self, provider: Loopback) -> None:
        provider.answer(lambda request: Reply(text=THREE, hold_after=1))
        socks = [raw_request(provider) for _ in range(50)]
        provider.wait_until(lambda p: p.holding == 50)
        assert provider.open_connections == 50
        provider.release()
        provider.wait_until(lambda p: p.completed == 50)
        for sock in socks:
            sock.close()

    def test_nothing_is_left_of_a_provider(self) -> None:
        threads = set(threading.enumerate())
        with Loopback() as provider:
            url = httpx.URL(provider.url)
            provider.answer(lambda request: Reply(text=THREE, stall_after=1))
            socks = [raw_request(provider) for _ in range(5)]
            provider.wait_until(lambda p: p.chunks_sent == 10)
        assert set(threading.enumerate()) <= threads
        assert provider.open_connections == 0
        assert provider.disconnects == []
        for sock in socks:
            with sock:
                read_to_end(sock, bytearray())
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", url.port or 0))

    def test_stops_with_a_connection_that_has_only_just_come(self) -> None:
        for _ in range(20):
            with Loopback() as provider:
                sock = raw_request(provider)
            sock.close()


class TestHolding:
    def test_after_chunks(self, provider: Loopback, client: httpx.Client) -> None:
        provider.script(Reply(text=THREE, hold_after=2))
        with client.stream("POST", "/chat/completions", json=STREAM) as response:
            chunks = events(response.iter_lines())
            assert texts([next(chunks) for _ in range(3)]) == ["a", "b"]
            assert provider.holding == 1
            provider.release()
            assert texts(list(chunks)) == ["c"]

    def test_after_the_headers(self, provider: Loopback, client: httpx.Client) -> None:
        provider.script(Reply(text=THREE, hold_after=0))
        with client.stream("POST", "/chat/completions", json=STREAM) as response:
            assert provider.chunks_sent == 0
            provider.release()
            assert texts(list(events(response.iter_lines()))) == THREE

    def test_before_the_headers(self, provider: Loopback) -> None:
        provider.script(Reply(text=THREE, hold_after=-1))
        with raw_request(provider) as sock:
            provider.wait_until(lambda p: p.requests)
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(1)
            sock.settimeout(PATIENCE_S)
            provider.release()
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 OK\r\n")

    def test_after_the_last_chunk(self, provider: Loopback, client: httpx.Client) -> None:
        provider.script(Reply(text=THREE, hold_after=3))
        with client.stream("POST", "/chat/completions", json=STREAM) as response:
            chunks = events(response.iter_lines())
            assert texts([next(chunks) for _ in range(4)]) == THREE
            provider.release()
            [end] = chunks
            assert end["choices"][0]["finish_reason"] == "stop"

    def test_a_whole_answer(self, provider: Loopback, client: httpx.Client) -> None:
        provider.script(Reply(text="x", hold_after=0))
        with client.stream("POST", "/chat/completions", json=HELLO) as response:
            provider.release()
            assert json.loads(response.read())["choices"][0]["message"]["content"] == "x"

    def test_one_release_lets_all_present_ones_go(self, provider: Loopback) -> None:
        provider.answer(lambda request: Reply(text=THREE, hold_after=1))
        with raw_request(provider), raw_request(provider), raw_request(provider):
            provider.wait_until(lambda p: p.holding == 3)
            provider.release()
            provider.wait_until(lambda p: p.completed == 3)
            with raw_request(provider):
                provider.wait_until(lambda p: p.holding == 1)
                assert provider.completed == 3


class TestTime:
    @pytest.mark.parametrize("reply", [Reply(delay=0.02), Reply(first_byte_delay=0.02), Reply(text=THREE, pace=0.008)])
    def test_is_taken(self, provider: Loopback, client: httpx.Client, reply: Reply) -> None:
        provider.script(reply)
        began = time.monotonic()
        stream(client)
        assert time.monotonic() - began >= 0.02


class TestCuts:
    @pytest.mark.parametrize(("after", "expected"), [(0, []), (2, ["a", "b"]), (3, THREE)])
    def test_a_polite_end(self, provider: Loopback, client: httpx.Client, after: int, expected: list[str]) -> None:
        provider.script(Reply(text=THREE, end_after=after))
        chunks = stream(client)
        assert texts(chunks) == expected
        assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)
        provider.wait_until(lambda p: p.open_connections == 0)
        assert (provider.completed, provider.disconnects) == (0, [])

    def test_a_reset_in_mid_stream(self, provider: Loopback) -> None:
        provider.script(Reply(text=THREE, hold_after=2, reset_after=2))
        with raw_request(provider) as sock:
            provider.wait_until(lambda p: p.holding)
            provider.release()
            seen = bytearray()
            with pytest.raises(ConnectionResetError):
                read_to_end(sock, seen)
        assert seen.count(b"data:") == 3
        provider.wait_until(lambda p: p.open_connections == 0)
        assert (provider.completed, provider.disconnects) == (0, [])

    def test_a_reset_before_the_headers(self, provider: Loopback, client: httpx.Client) -> None:
        provider.script(Reply(reset_after=-1))
        with pytest.raises(httpx.ReadError):
            stream(client)

    def test_an_end_before_the_headers(self, provider: Loopback, client: httpx.Client) -> None:
        provider.script(Reply(end_after=-1))
        with pytest.raises(httpx.RemoteProtocolError):
            stream(client)


class TestDisconnects:
    @pytest.mark.parametrize(
        ("reply", "phase", "sent"),
        [
            (Reply(delay=10 * AT_ONCE_S), "headers", 0),
            (Reply(hold_after=-1), "headers", 0),
            (Reply(stall_after=-1), "headers", 0),
            (Reply(first_byte_delay=10 * AT_ONCE_S), "first_byte", 0),
            (Reply(text=THREE, hold_after=0), "first_byte", 0),
            (Reply(text=THREE, stall_after=2), "mid_stream", 3),
            (Reply(text=THREE, hold_after=2), "mid_stream", 3),
            (Reply(text=THREE, pace=10 * AT_ONCE_S), "mid_stream", 2),
        ],
    )
    def test_are_seen_at_once(self, provider: Loopback, reply: Reply, phase: str, sent: int) -> None:
        provider.script(reply)
        sock = raw_request(provider)
        provider.wait_until(lambda p: p.requests)
        if phase != "headers":
            assert sock.recv(17) == b"HTTP/1.1 200 OK\r\n"
        provider.wait_until(lambda p: p.chunks_sent == sent)
        closed = time.monotonic()
        sock.close()
        [gone] = provider.wait_until(lambda p: p.disconnects, AT_ONCE_S)
        assert (gone.phase, gone.chunks_sent) == (phase, sent)
        assert gone.request is provider.requests[0]
        assert closed <= gone.at <= time.monotonic()
        provider.wait_until(lambda p: p.open_connections == 0 and p.holding == 0)
        assert provider.completed == 0

    def test_with_a_socket_that_takes_nothing_more(self, provider: Loopback) -> None:
        provider.script(Reply(raw=[b": " + b"x" * (1 << 16) + b"\n\n", b"data: {}\n\n"] * 1000))
        with raw_request(provider) as sock:
            provider.wait_until(lambda p: p.chunks_sent)
            assert sock.recv(1)
        [gone] = provider.wait_until(lambda p: p.disconnects)
        assert gone.phase == "mid_stream"
        assert 0 < gone.chunks_sent < 1000

    @pytest.mark.parametrize("part", [b"POST /v1/chat/comp", b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\n{"])
    def test_in_the_request(self, provider: Loopback, part: bytes) -> None:
        with socket.create_connection(("127.0.0.1", httpx.URL(provider.url).port or 0)) as sock:
            sock.sendall(part)
        [gone] = provider.wait_until(lambda p: p.disconnects)
        assert (gone.phase, gone.request) == ("body", None)

    def test_of_an_idle_connection_is_none(self, provider: Loopback) -> None:
        socket.create_connection(("127.0.0.1", httpx.URL(provider.url).port or 0)).close()
        provider.wait_until(lambda p: p.connections == 1 and p.open_connections == 0)
        assert provider.disconnects == []


class TestWaiting:
    def test_returns_what_the_predicate_says(self, provider: Loopback) -> None:
        assert provider.wait_until(lambda p: p.url) == provider.url

    def test_tells_the_state_when_it_gives_up(self, provider: Loopback) -> None:
        with pytest.raises(AssertionError, match=r"within 0 s: <Loopback requests=0 completed=0"):
            provider.wait_until(lambda p: p.requests, timeout=0)

    def test_in_asyncio(self, provider: Loopback) -> None:
        async def scenario() -> None:
            provider.script(Reply(text=THREE, hold_after=1))
            async with httpx.AsyncClient(
                base_url=provider.url, verify=NO_TLS, trust_env=False, timeout=PATIENCE_S
            ) as client:
                call = asyncio.create_task(client.post("/chat/completions", json=STREAM))
                assert await provider.until(lambda p: p.holding) == 1
                provider.release()
                assert (await call).is_success
                assert await provider.until(lambda p: p.completed) == 1
                with pytest.raises(AssertionError, match="completed=1"):
                    await provider.until(lambda p: p.disconnects, timeout=0.001)

        asyncio.run(scenario())

    def test_sees_a_cancelled_task(self, provider: Loopback) -> None:
        async def scenario() -> None:
            provider.answer(lambda request: Reply(delay=10 * AT_ONCE_S))
            async with httpx.AsyncClient(
                base_url=provider.url, verify=NO_TLS, trust_env=False, timeout=PATIENCE_S
            ) as client:
                stalled = asyncio.create_task(client.post("/chat/completions", json=STREAM))
                await provider.until(lambda p: p.requests)
                stalled.cancel()
                [gone] = await provider.until(lambda p: p.disconnects)
                assert gone.phase == "headers"

        asyncio.run(scenario())


# What litellm warns of is its own affair.
@pytest.mark.filterwarnings("ignore")
def test_litellm_speaks_to_it(provider: Loopback, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    monkeypatch.setenv("LITELLM_MODE", "PRODUCTION")
    litellm: Any = pytest.importorskip("litellm")
    provider.script(Reply(text=["Hel", "lo"], tool_calls=[ToolCall("look", {"at": "it"})]))

    async def scenario() -> tuple[str, str, list[str]]:
        answer = await litellm.acompletion(
            model="openai/m",
            messages=HELLO["messages"],
            api_base=provider.url,
            api_key="none",
            stream=True,
            max_retries=0,
        )
        chunks: list[Any] = [chunk async for chunk in answer]
        await litellm.close_litellm_async_clients()
        deltas = [chunk.choices[0].delta for chunk in chunks]
        calls = [call.function for d in deltas for call in d.tool_calls or ()]
        ends = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason]
        return "".join(d.content or "" for d in deltas), "".join(c.arguments for c in calls), ends

    assert asyncio.run(scenario()) == ("Hello", '{"at": "it"}', ["tool_calls"])


def test_as_a_process_of_its_own() -> None:
    command = [sys.executable, "-m", "tests.loopback", "--chunks", "2000", "--text-per-chunk", "tik "]
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root, env=dict(os.environ)
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        with httpx.Client(
            base_url=process.stdout.readline().strip(), verify=NO_TLS, trust_env=False, timeout=PATIENCE_S
        ) as client:
            chunks = stream(client, USAGE)
            assert texts(chunks) == ["tik "] * 2000
            assert chunks[-1]["usage"]["completion_tokens"] == 2000
            assert client.post("/chat/completions", json=HELLO).json()["usage"]["completion_tokens"] == 2000
        process.stdin.close()
        assert process.wait(timeout=PATIENCE_S) == 0
