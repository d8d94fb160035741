"""The loopback provider in a process of its own, so that it does not share the interpreter with what is measured."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

BODY: dict[str, Any] = {
    "model": "gpt-4o",
    "stream": True,
    "stream_options": {"include_usage": True},
    "messages": [{"role": "user", "content": "Hello"}],
}
"""What bare clients ask for."""


@contextmanager
def provider(chunks: int, *, hold_after: int | None = None) -> Generator[str]:
    """Serve a stream of ``chunks`` chunks as fast as it is read, or so many of them only; gives the base URL.

    The path of a request says in which dialect.
    """
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
