"""The provider of the benchmark of many flows: streams that go in step."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from tests.gate import PATIENCE_S

ROOT = Path(__file__).parents[2]
BODY = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}


def test_none_gets_a_chunk_before_all_are_there_and_all_are_counted() -> None:
    command = [sys.executable, "-m", "tests.loopback.chorus", "--chunks", "3", "--pace", "0.001"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        asyncio.run(three_clients(server.stdout.readline().strip()))
        server.stdin.close()
        said = json.loads(server.stdout.readline())
    assert said == {"requests": 4, "open_now": 0, "most_open": 3, "completed": 3, "lost": 1}


async def three_clients(url: str) -> None:
    async with httpx.AsyncClient(base_url=f"{url}/together/3/v1", trust_env=False, timeout=PATIENCE_S) as client:
        asked = [client.stream("POST", "/chat/completions", json=BODY) for _ in range(3)]
        first, second = await asked[0].__aenter__(), await asked[1].__aenter__()
        lines = first.aiter_lines()
        early = asyncio.ensure_future(anext(lines))
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=PATIENCE_S) as other:
            lost = other.stream("POST", "/together/2/v1/chat/completions", json=BODY)
            await lost.__aenter__()
            assert not early.done()
            await lost.__aexit__(None, None, None)
        third = await asked[2].__aenter__()
        said = [await early, *[line async for line in lines]]
        others = [[line async for line in each.aiter_lines()] for each in (second, third)]
        assert others == [said, said]
        events: list[Any] = [json.loads(line[6:]) for line in said if line.startswith("data: {")]
        texts = [each["choices"][0]["delta"].get("content") for each in events if each["choices"]]
        assert texts == ["", "tok ", "tok ", "tok ", None]
        assert said[-2] == "data: [DONE]"
