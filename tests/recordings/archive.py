"""The recorded answers of real providers, and the server that plays them.

They are not part of the project: they lie in ``shared/recordings`` beside the checkout (in CI always), or where the
environment variable RXFLOW_RECORDINGS says.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

VARIABLE = "RXFLOW_RECORDINGS"
CHECKOUT = Path(__file__).parents[2]
NO_RECORDINGS = f"there are no recordings beside this checkout, and none in {VARIABLE}"
_FINISHES = re.compile(
    rb'"(?:finish_?reason|stop_?reason|done_reason|amazon-bedrock-invocationMetrics)"\s*:\s*"'
    rb'|message-end|"done"\s*:\s*true|response\.(?:completed|incomplete|failed)|messageStop|message_stop|\[DONE\]',
    re.IGNORECASE,
)
"""What every dialect says when an answer is complete."""


class Usage(BaseModel):
    """Numbers of tokens; None if the provider does not report one."""

    prompt: int | None
    completion: int | None
    cached: int | None
    reasoning: int | None


class ToolCall(BaseModel):
    """``arguments`` are None if they are not JSON; ``arguments_text`` is then what came."""

    id: str | None
    name: str
    arguments: Any
    arguments_text: str | None = None


class Failure(BaseModel):
    """An answer that is an error; ``name`` is litellm's class for it."""

    name: str = Field(alias="class")
    status: int | None
    message: str | None


class Expected(BaseModel):
    """What a perfect reader reports of an answer."""

    text: str
    reasoning: str
    tool_calls: list[ToolCall]
    finish_reason: str | None
    usage: Usage | None
    error: Failure | None
    refusal: str | None = None
    sealed: list[str] = []


class Address(BaseModel):
    """How a model is named, and where it is asked."""

    model: str
    base_path: str
    parameters: dict[str, Any]


class Recording(BaseModel):
    """One answer of a provider."""

    id: str
    file: str
    provider: str
    dialect: str
    route: Address
    also: Address | None = None
    tools: list[str]
    features: list[str]
    content_type: str
    status: int
    expected: Expected
    litellm_gets_wrong: dict[str, list[str]] = {}


CORRECTED_ARGUMENTS = {"responses-other-f2833a22": {"location": "San Francisco"}}
"""They come in no delta, only in the events that end the call: the index has ``{}``."""


class Chain(BaseModel):
    """A tool call, and the answers that followed; ``sent_back`` is what the recorded client made of each one before."""

    ids: list[str]
    provider: str
    sent_back: list[list[dict[str, Any]]]


@dataclass(frozen=True)
class Library:
    """All recordings of a folder."""

    folder: Path

    @cached_property
    def _zip(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(self.folder / "recordings.zip")

    @cached_property
    def _index(self) -> dict[str, Any]:
        index: dict[str, Any] = json.loads(self._zip.read("index.json"))
        return index

    @cached_property
    def recordings(self) -> list[Recording]:
        recordings = [Recording.model_validate(each) for each in self._index["recordings"]]
        for recording in recordings:
            if recording.id in CORRECTED_ARGUMENTS:
                recording.expected.tool_calls[0].arguments = CORRECTED_ARGUMENTS[recording.id]
        return recordings

    @cached_property
    def by_id(self) -> dict[str, Recording]:
        return {recording.id: recording for recording in self.recordings}

    @cached_property
    def chains(self) -> list[Chain]:
        return [Chain.model_validate(each) for each in self._index["chains"]]

    def read_body(self, recording: Recording) -> bytes:
        return self._zip.read(recording.file)

    def find_half(self, recording: Recording) -> int:
        """How many bytes are half of the answer: of what comes before it says that it is complete."""
        body = self.read_body(recording)
        half = len(body) // 2
        finish = _FINISHES.search(body)
        return half if finish is None or finish.start() >= half else finish.start() // 2

    @contextmanager
    def serve(self) -> Generator[Server]:
        """Play them on loopback, in a process of its own."""
        command = [sys.executable, str(self.folder / "serve.py"), str(self.folder / "recordings.zip")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                yield Server(f"http://127.0.0.1:{process.stdout.readline().strip()}")
            finally:
                process.terminate()


@dataclass(frozen=True)
class Server:
    """Where the recordings are played."""

    url: str

    def read_requests(self, run: str) -> list[dict[str, Any]]:
        """The bodies of what was asked in one run."""
        with urllib.request.urlopen(f"{self.url}/requests?run={run}") as answer:
            return [request["body"] for request in json.load(answer)]


def find_library() -> Library | None:
    """The recordings beside the checkout, or those that the environment names; None if there are none.

    Raises:
        FileNotFoundError: the environment names a folder without recordings.
    """
    named = os.environ.get(VARIABLE)
    if named:
        if not (Path(named) / "recordings.zip").is_file():
            raise FileNotFoundError(f"{VARIABLE}={named}: there is no recordings.zip in it")
        return Library(Path(named))
    folders = (parent / "shared" / "recordings" for parent in CHECKOUT.parents)
    return next((Library(folder) for folder in folders if (folder / "recordings.zip").is_file()), None)


def require_library(module: str) -> Library:
    """The recordings, for a module of tests; if there are none, the module is skipped, by its name."""
    library = find_library()
    if library is None:
        pytest.skip(f"{module}: {NO_RECORDINGS}", allow_module_level=True)
    return library
