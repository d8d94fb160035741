"""The loopback provider in a process of its own, so that it does not share the interpreter with what is measured."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager


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
