"""The loopback provider in a process of its own, so that it does not share the interpreter with what is measured."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx


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


async def opened_by_litellm(litellm: Any, url: str, body: Mapping[str, Any], timeout: httpx.Timeout) -> Any:
    """litellm's request, as rxflow makes it; gives the stream behind litellm's own wrapper."""
    opened: Any = await litellm.acompletion(
        model="openai/gpt-4o",
        messages=body["messages"],
        api_base=url,
        api_key="none",
        stream=True,
        stream_options=body["stream_options"],
        max_retries=0,
        num_retries=0,
        timeout=timeout,
    )
    return opened.completion_stream
