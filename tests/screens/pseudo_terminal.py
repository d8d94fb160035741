"""A program in a pseudo terminal: what it shows, as a person would see it, and what it does when keys are pressed."""

import os
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

import pyte

ROOT = Path(__file__).parents[2]
PATIENCE_S = 100.0
CTRL_C = b"\x03"
CTRL_D = b"\x04"


class PseudoTerminal:
    """Runs ``python arguments…`` in a terminal of that size; :attr:`raw` is all that it has written."""

    def __init__(
        self,
        *arguments: str,
        columns: int = 80,
        rows: int = 24,
        cwd: Path = ROOT,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.raw = b""
        self._screen = pyte.HistoryScreen(columns, rows, history=5000)
        self._stream = pyte.ByteStream(self._screen)
        self._ours, theirs = os.openpty()
        termios.tcsetwinsize(theirs, (rows, columns))
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", sys.executable, *arguments],
            cwd=cwd,
            env=inherited() | {"TERM": "xterm-256color", **(environment or {})},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)

    @property
    def lines(self) -> list[str]:
        """What is to be seen, with what has been scrolled away."""
        above = [_text(line) for line in cast(Any, self._screen.history).top]
        return [line.rstrip() for line in (*above, *self._screen.display)]

    @property
    def text(self) -> str:
        return "\n".join(self.lines).strip()

    def is_struck_out(self, word: str) -> bool:
        """Whether ``word`` is on the screen, with a line through all of it."""
        for number, line in enumerate(self._screen.display):
            at = line.find(word)
            if at >= 0:
                row = cast(Any, self._screen.buffer)[number]
                return all(row[at + offset].strikethrough for offset in range(len(word)))
        return False

    def wait_for(self, *words: str) -> Self:
        """Read until all words are on the screen."""
        until = time.monotonic() + PATIENCE_S
        while not all(word in self.text for word in words):
            assert self._read(), f"it ended without {words!r}:\n{self.text}"
            assert time.monotonic() < until, f"{words!r} did not come:\n{self.text}"
        return self

    def press(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def finish(self) -> int:
        """Read to the end; its exit code."""
        while self._read():
            pass
        return self.process.wait(PATIENCE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        os.close(self._ours)

    def _read(self) -> bool:
        """Read what comes next; False at the end."""
        began = time.monotonic()
        ready, _, _ = select.select([self._ours], [], [], PATIENCE_S)
        assert ready, f"nothing came for {time.monotonic() - began:.0f} s:\n{self.text}"
        try:
            data = os.read(self._ours, 1 << 16)
        except OSError:  # Linux says so when the other side is closed
            data = b""
        self.raw += data
        self._stream.feed(data)
        return bool(data)


def inherited() -> dict[str, str]:
    """The environment for a program of rxflow from here, without what would change its model or its screen."""
    left_out = {"MODEL", "MODEL_NAME", "OPENAI_MODEL_NAME", "OPENAI_API_KEY", "NO_COLOR", "FORCE_COLOR", "COLUMNS"}
    kept = {key: value for key, value in os.environ.items() if key not in left_out}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}


def run_piped(
    *arguments: str, cwd: Path = ROOT, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run ``python arguments…`` with pipes in place of a terminal."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=inherited() | dict(environment or {}),
        capture_output=True,
        check=False,
        timeout=PATIENCE_S,
    )


def _text(line: Mapping[int, Any]) -> str:
    cells: Sequence[Any] = [line[column] for column in range(max(line, default=-1) + 1)]
    return "".join(cell.data for cell in cells)
