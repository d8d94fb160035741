"""What a provider sends in place of an answer stalls no other call's stream, however large it is."""

import asyncio
import gzip
import json
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from rxflow import LLM
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import Event
from tests.llm.ways import WAYS, Way
from tests.llm.wire import delta, event
from tests.loopback import Loopback, Reply, Request
from tests.loopback.dialects import CHAT, DIALECTS, Dialect

LINE = "<p>An error occurred, please <a href='https://example.com/?a=b&amp;c=d'>retry</a>: reference {:016x}</p>\n"
PAGE = f"<html><title>Error</title>{''.join(map(LINE.format, range(10_000)))}</html>".encode()
ERROR = json.dumps(
    {"error": {"message": "it went wrong", "type": "server_error", "input": [{"text": PAGE.decode()}] * 2}}
).encode()
HTML = "text/html"
JSON = "application/json"
EVENTS = "text/event-stream"

REPLIES = {
    "500 page": Reply(status=500, raw=[PAGE], content_type=HTML),
    "502 page, compressed": Reply(
        status=502, raw=[gzip.compress(PAGE)], content_type=HTML, headers={"content-encoding": "gzip"}
    ),
    "404 page": Reply(status=404, raw=[PAGE], content_type=HTML),
    "400 JSON": Reply(status=400, raw=[ERROR], content_type=JSON),
    "500 JSON": Reply(status=500, raw=[ERROR], content_type=JSON),
    "200 page": Reply(raw=[PAGE], content_type=HTML),
    "page in mid-stream": Reply(raw=[delta(content="Hi"), PAGE], content_type=EVENTS),
    "error in mid-stream": Reply(
        raw=[delta(content="Hi"), event({"error": {"message": PAGE.decode(), "code": 500}})], content_type=EVENTS
    ),
}
"""One or two megabytes each."""

MAX_STALL_S = 0.6
"""Of the processor, between two chunks. litellm 1.110 masks keys in a page at 4 to 8 s a megabyte."""


async def error_of(ask: Callable[[], Any]) -> BaseException | None:
    try:
        await ask()
    except Exception as error:  # noqa: BLE001 - which one it is, is looked at
        return error
    return None


async def measure_stall(provider: Loopback, ask: Callable[[], Any]) -> float:
    """Seconds of the processor that a stream at 5 ms a chunk waited for one at most, while ``ask()`` failed."""
    beats: list[float] = []
    arrived = asyncio.Event()

    def note(item: Event) -> None:
        if isinstance(item, StreamChunk):
            beats.append(time.process_time())
            arrived.set()

    async def wait_for_chunk() -> None:
        arrived.clear()
        await arrived.wait()

    steady = LLM("openai/gpt-4o", base_url=provider.url, api_key="k").events("steady")
    with steady.subscribe(note):
        await wait_for_chunk()
        first = len(beats) - 1
        assert type(await error_of(ask)).__module__.startswith("litellm")
        await wait_for_chunk()
    return max(after - before for before, after in pairwise(beats[first:]))


def stall_of(provider: Loopback, llm: LLM, reply: Reply) -> float:
    """The same for a call that gets ``reply``, after one that gets little, as litellm's first call is slow."""
    small = Reply(status=500, error="no")

    def choose(request: Request) -> Reply:
        if request.last_user == "steady":
            return Reply(text=["tick"] * 100_000, pace=0.005)
        return reply if request.last_user == "big" else small

    provider.answer(choose)

    async def main() -> float:
        await error_of(lambda: llm.acall("small"))
        return await measure_stall(provider, lambda: llm.acall("big"))

    return asyncio.run(main())


@pytest.mark.parametrize("reply", REPLIES.values(), ids=list(REPLIES))
@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
def test_a_large_error_stalls_no_other_stream(provider: Loopback, way: Way, reply: Reply) -> None:
    with way.model(provider.url, max_retries=0) as llm:
        assert stall_of(provider, llm, reply) < MAX_STALL_S


OTHERS = [dialect for dialect in DIALECTS if dialect is not CHAT]


@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize("dialect", OTHERS, ids=str)
def test_nor_does_one_on_another_wire(provider: Loopback, dialect: Dialect, status: int) -> None:
    llm = dialect.make_llm(provider.url, max_retries=0)
    page = Reply(status=status, raw=[PAGE], content_type=HTML)
    assert stall_of(provider, llm, page) < MAX_STALL_S


@pytest.mark.parametrize("name", ["groq/llama-3.3-70b-versatile", "deepseek/deepseek-chat", "azure/gpt-4o"])
def test_nor_does_one_of_another_prefix(provider: Loopback, name: str) -> None:
    given: dict[str, Any] = {"api_version": "2024-06-01"} if name.startswith("azure") else {}
    llm = LLM(name, base_url=provider.url, api_key="k", max_retries=0, **given)
    assert stall_of(provider, llm, REPLIES["500 page"]) < MAX_STALL_S
