"""The loopback provider in a process of its own, so that it does not share the interpreter with what is measured."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import httpx

BODY: dict[str, Any] = {
    "model": "gpt-4o",
    "stream": True,
    "stream_options": {"include_usage": True},
    "messages": [{"role": "user", "content": "Hello"}],
}
"""What bare clients ask for, and litellm in their place."""


@contextmanager
def provider(chunks: int, *, hold_after: int | None = None) -> Generator[str]:
    """Serve a stream of ``chunks`` chunks as fast as it is read, or so many of them only; gives the base URL."""
    command = [sys.executable, "-m", "tests.loopback", "--chunks", str(chunks)]
    if hold_after is not None:
        command += ["--hold-after", str(hold_after)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        if server.stdin is None or server.stdout is None:
            raise RuntimeError("the provider has no pipes")
        try:
            yield server.stdout.readline().strip()
        finally:
            server.stdin.close()  # it serves until then


def text_of(line: str | bytes) -> str:
    """What a line of the stream says, as a program reads it that has nothing but json."""
    line = line if isinstance(line, str) else line.decode()
    if not line.startswith("data: "):
        return ""
    data = line[6:]
    if data.strip() == "[DONE]":
        return ""
    choices: list[dict[str, Any]] = json.loads(data)["choices"]
    return str(choices[0]["delta"].get("content") or "") if choices else ""


async def opened_by_litellm(litellm: Any, url: str, timeout: httpx.Timeout) -> Any:
    """litellm's request, as rxflow makes it; gives the stream behind litellm's own wrapper."""
    opened: Any = await litellm.acompletion(
        model="openai/gpt-4o",
        messages=BODY["messages"],
        api_base=url,
        api_key="none",
        stream=True,
        stream_options=BODY["stream_options"],
        max_retries=0,
        num_retries=0,
        timeout=timeout,
    )
    return opened.completion_stream
