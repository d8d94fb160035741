"""The wires of Anthropic, Gemini and OpenAI's Responses: their streams, a provider of them, and a bare loop for each.

``python -m benchmarks.wires anthropic --chunks 5000`` serves one stream to whatever request comes, in bursts of 64 kB.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import httpx

from benchmarks.provider import served_by
from tests.loopback.chorus import content_length

TEXT = "tok "
BURST_BYTES = 1 << 16

Event = dict[str, Any]


@dataclass(frozen=True)
class Wire:
    """One provider's format: how rxflow names a model of it, what a bare client asks, and what the events say."""

    name: str
    model: str
    path: str
    body: Event
    events: Callable[[int], Iterator[Event]]
    text_of: Callable[[Event], str]

    def provider(self, chunks: int) -> AbstractContextManager[str]:
        """Serve a stream of so many chunks as fast as it is read; gives the base URL."""
        return served_by("benchmarks.wires", self.name, "--chunks", str(chunks))

    async def read_bare(self, url: str) -> int:
        """What a program would do that has nothing but an HTTP client."""
        async with (
            httpx.AsyncClient(timeout=60) as client,
            client.stream("POST", f"{url}{self.path}", json=self.body) as response,
        ):
            lines = response.aiter_lines()
            return sum([1 async for line in lines if line.startswith("data: ") and self.text_of(json.loads(line[6:]))])


def _anthropic(chunks: int) -> Iterator[Event]:
    message: Event = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": [],
    }
    usage = {"input_tokens": 8, "output_tokens": 1}
    yield {"type": "message_start", "message": message | {"stop_reason": None, "stop_sequence": None, "usage": usage}}
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    yield {"type": "ping"}
    for _ in range(chunks):
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": TEXT}}
    yield {"type": "content_block_stop", "index": 0}
    ending = {"stop_reason": "end_turn", "stop_sequence": None}
    yield {"type": "message_delta", "delta": ending, "usage": {"output_tokens": chunks}}
    yield {"type": "message_stop"}


def _gemini(chunks: int) -> Iterator[Event]:
    for number in range(1, chunks + 1):
        candidate: Event = {"content": {"parts": [{"text": TEXT}], "role": "model"}, "index": 0}
        if number == chunks:
            candidate["finishReason"] = "STOP"
        usage = {"promptTokenCount": 8, "candidatesTokenCount": number, "totalTokenCount": 8 + number}
        yield {
            "candidates": [candidate],
            "usageMetadata": usage,
            "modelVersion": "gemini-2.5-flash",
            "responseId": "answer-1",
        }


def _responses(chunks: int) -> Iterator[Event]:
    usage: Event = {
        "input_tokens": 8,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": chunks,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 8 + chunks,
    }
    response: Event = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_700_000_000,
        "model": "gpt-4o",
        "status": "in_progress",
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": None,
    }
    item: Event = {"id": "msg_1", "type": "message", "status": "in_progress", "role": "assistant", "content": []}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    part: Event = {"type": "output_text", "text": "", "annotations": []}
    whole: Event = part | {"text": TEXT * chunks}
    done: Event = item | {"status": "completed", "content": [whole]}
    completed: Event = response | {"status": "completed", "output": [done], "usage": usage}
    events: list[Event] = [
        {"type": "response.created", "response": response},
        {"type": "response.in_progress", "response": response},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.content_part.added", **place, "part": part},
        *({"type": "response.output_text.delta", **place, "delta": TEXT, "logprobs": []} for _ in range(chunks)),
        {"type": "response.output_text.done", **place, "text": whole["text"], "logprobs": []},
        {"type": "response.content_part.done", **place, "part": whole},
        {"type": "response.output_item.done", "output_index": 0, "item": done},
        {"type": "response.completed", "response": completed},
    ]
    for number, event in enumerate(events):
        yield {**event, "sequence_number": number}


def _anthropic_text(event: Event) -> str:
    return str(event["delta"].get("text", "")) if event["type"] == "content_block_delta" else ""


def _gemini_text(event: Event) -> str:
    return "".join(str(part.get("text", "")) for part in event["candidates"][0]["content"]["parts"])


def _responses_text(event: Event) -> str:
    return str(event["delta"]) if event["type"] == "response.output_text.delta" else ""


_QUESTION = [{"role": "user", "content": "Read it all"}]
ANTHROPIC = Wire(
    name="anthropic",
    model="anthropic/claude-sonnet-4-5",
    path="/v1/messages",
    body={"model": "claude-sonnet-4-5", "stream": True, "max_tokens": 4096, "messages": _QUESTION},
    events=_anthropic,
    text_of=_anthropic_text,
)
GEMINI = Wire(
    name="gemini",
    model="gemini/gemini-2.5-flash",
    path="/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
    body={"contents": [{"role": "user", "parts": [{"text": "Read it all"}]}]},
    events=_gemini,
    text_of=_gemini_text,
)
RESPONSES = Wire(
    name="responses",
    model="openai/responses/gpt-4o",
    path="/responses",
    body={"model": "gpt-4o", "stream": True, "input": _QUESTION},
    events=_responses,
    text_of=_responses_text,
)
WIRES = {wire.name: wire for wire in (ANTHROPIC, GEMINI, RESPONSES)}


def _bursts(wire: Wire, chunks: int) -> Iterator[bytes]:
    """The body in pieces of HTTP, each as large as one read of the client."""
    gathered = bytearray()
    for event in wire.events(chunks):
        name = f"event: {event['type']}\n" if "type" in event else ""
        gathered += f"{name}data: {json.dumps(event, separators=(',', ':'))}\n\n".encode()
        if len(gathered) >= BURST_BYTES:
            yield _http_chunk(bytes(gathered))
            gathered.clear()
    yield _http_chunk(bytes(gathered))
    yield b"0\r\n\r\n"


def _http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""


class _Connection(asyncio.Protocol):
    """Gives each request the same answer."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if found and len(body) >= content_length(bytes(head)):
            self._received.clear()
            self._transport.write(self._answer)


async def _serve(wire: Wire, chunks: int) -> None:
    """Until standard input is closed."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    answer = head + b"".join(_bursts(wire, chunks))
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(answer), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.wires", description="A provider that speaks one wire.")
    parser.add_argument("wire", choices=list(WIRES))
    parser.add_argument("--chunks", type=int, required=True, help="chunks of a stream")
    options = parser.parse_args()
    asyncio.run(_serve(WIRES[options.wire], options.chunks))


if __name__ == "__main__":
    main()
