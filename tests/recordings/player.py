"""Recorded answers, played to rxflow through its public API, and what it makes of them."""

from __future__ import annotations

import asyncio
import importlib
import json
import random
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from reactivex import Observable

from rxflow import LLM
from rxflow.types.chunks import StreamChunk, StreamChunkType
from rxflow.types.events import Event, LLMFailed, LLMFinished, LLMRetrying, ReasoningChunk
from tests.recordings.archive import Address, Expected, Recording, Server, Usage

PATIENCE_S = 60.0
MAX_WRITES = 2_000
"""Of one answer: each write costs the server and its client a turn."""
DIRECT = ("openai/", "hosted_vllm/", "lm_studio/", "llamafile/")
"""Servers of OpenAI's chat API, which rxflow asks itself."""


class Way(StrEnum):
    """Who sends the request, and who reads the answer."""

    DIRECT = "direct"
    """rxflow does both."""
    LITELLM = "litellm"
    """litellm sends; rxflow reads, as it knows the wires of all that was recorded."""
    WRAPPER = "wrapper"
    """litellm's wrapper reads, for a callback of litellm's, and rxflow reads along."""


@dataclass(frozen=True, eq=False)
class Played:
    """One recording by one way. ``is_also``: by its second address, an OpenAI-compatible server's."""

    recording: Recording
    way: Way
    is_also: bool = False

    def __str__(self) -> str:
        return f"{self.recording.id}-{self.way}" + ("-also" if self.is_also else "")

    @property
    def address(self) -> Address:
        if self.is_also:
            assert self.recording.also is not None
            return self.recording.also
        return self.recording.route


@dataclass
class Seen:
    """What a reader saw of one call."""

    events: list[Event] = field(default_factory=list[Event])
    error: BaseException | None = None

    @property
    def text(self) -> str:
        """The text of the chunks."""
        chunks = (event for event in self.events if isinstance(event, StreamChunk))
        return "".join(chunk.content for chunk in chunks if chunk.chunk_type is StreamChunkType.TEXT)

    @property
    def reasoning(self) -> str:
        return "".join(event.content for event in self.events if isinstance(event, ReasoningChunk))

    @property
    def retries(self) -> int:
        return sum(isinstance(event, LLMRetrying) for event in self.events)

    @property
    def finished(self) -> LLMFinished | None:
        return next((event for event in self.events if isinstance(event, LLMFinished)), None)

    @property
    def failed(self) -> LLMFailed | None:
        return next((event for event in self.events if isinstance(event, LLMFailed)), None)


def find_ways(recording: Recording) -> list[Played]:
    """All ways that can serve a recording."""
    ways = [Played(recording, Way.LITELLM), Played(recording, Way.WRAPPER)]
    if recording.dialect == "openai" and recording.route.model.startswith(DIRECT):
        ways.append(Played(recording, Way.DIRECT))
    if recording.also is not None:
        ways += [Played(recording, Way.DIRECT, is_also=True), Played(recording, Way.LITELLM, is_also=True)]
    return ways


def find_cuts(body: bytes, seed: str) -> list[str]:
    """Where the network may cut an answer: between events, every seven bytes, anywhere."""
    choose = random.Random(seed)
    count = min(len(body) - 1, 40)
    places = sorted(choose.sample(range(1, len(body)), count)) if count > 0 else []
    every = max(7, len(body) // MAX_WRITES)
    return ["cut=event", f"cut=every-{every}", "cut=at-" + ",".join(map(str, places or [1]))]


def schema_of(name: str) -> dict[str, Any]:
    """A function of this name, as OpenAI's chat API describes it."""
    parameters: dict[str, Any] = {"type": "object", "properties": {}}
    return {"type": "function", "function": {"name": name, "description": "Recorded.", "parameters": parameters}}


@dataclass
class Player:
    """Asks the server of the recordings by rxflow."""

    server: Server
    token_file: Path
    """Any text: what Vertex's clients read before they ask for a token."""

    def make_llm(self, played: Played, *options: str, **given: Any) -> LLM:
        """The model that the recording is of; ``options`` go into the path, as the server reads them."""
        return self._make(played.address, played.way, "/".join((played.address.base_path, *options)), given)

    def make_llm_of_chain(self, played: Played, ids: Iterable[str], *options: str, **given: Any) -> LLM:
        """The model whose answers are several recordings, one after the other."""
        old = played.recording.id
        path = played.address.base_path.replace(old, "+".join(ids))
        return self._make(played.address, played.way, "/".join((path, *options)), given)

    def _make(self, address: Address, way: Way, path: str, given: dict[str, Any]) -> LLM:
        parameters: dict[str, Any] = {"api_key": "k"} | address.parameters | given
        if "vertex_project" in parameters:
            parameters["vertex_credentials"] = self._vertex_credentials()
            del parameters["api_key"]
        if way is Way.LITELLM:
            parameters["via"] = "litellm"
        return LLM(address.model, base_url=self.server.url + path, **parameters)

    def _vertex_credentials(self) -> str:
        audience = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/p"
        return json.dumps(
            {
                "type": "external_account",
                "audience": audience,
                "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
                "token_url": f"{self.server.url}/token",
                "credential_source": {"file": str(self.token_file)},
            }
        )

    async def hear(self, played: Played, *options: str, **given: Any) -> Seen:
        """One call, to its end."""
        tools = [schema_of(name) for name in played.recording.tools]
        return await hear(self.make_llm(played, *options, **given).events("hi", tools))


async def hear(source: Observable[Event]) -> Seen:
    """All events of a run, to its end."""
    seen = Seen()
    ended = asyncio.get_running_loop().create_future()
    subscription = source.subscribe(seen.events.append, ended.set_result, lambda: ended.set_result(None))
    try:
        async with asyncio.timeout(PATIENCE_S):
            seen.error = await asyncio.shield(ended)
    finally:
        subscription.dispose()
    return seen


def find_differences(played: Played, seen: Seen) -> dict[str, tuple[object, object]]:
    """What was seen, and what is right, of each part that is not right."""
    expected = played.recording.expected
    parts = _error_parts(expected, seen)
    if expected.error is None and seen.finished is not None:
        parts |= _answer_parts(expected, seen, seen.finished)
    return {name: (got, right) for name, (got, right) in parts.items() if got != right}


def find_complaint(played: Played, seen: Seen) -> str | None:
    """What is wrong with how half an answer was taken: it is to be refused, and what had come to be right."""
    if seen.finished is not None:
        return f"it was taken for a whole answer: {seen.finished.text!r}"
    if not is_of_litellm(seen.error):
        return f"the error is not one of litellm's: {seen.error!r}"
    if not (seen.failed and seen.failed.text == seen.text and played.recording.expected.text.startswith(seen.text)):
        return f"the text that had come is not the beginning of the answer: {seen.text!r}, {seen.failed!r}"
    return None


def _error_parts(expected: Expected, seen: Seen) -> dict[str, tuple[object, object]]:
    parts: dict[str, tuple[object, object]] = {"retries": (seen.retries, 0)}
    if expected.error is None:
        parts["error"] = (repr(seen.error), "None")
    elif expected.error.name == "APIError":
        parts["error"] = (is_of_litellm(seen.error), True)
    else:
        status = getattr(seen.error, "status_code", None)
        parts["error"] = ((type(seen.error).__name__, status), (expected.error.name, expected.error.status))
        parts["text"] = (seen.text, expected.text)
    return parts


def _answer_parts(expected: Expected, seen: Seen, finished: LLMFinished) -> dict[str, tuple[object, object]]:
    usage = finished.usage
    right = expected.usage or Usage(prompt=None, completion=None, cached=None, reasoning=None)
    # xAI counts reasoning apart from the completion: with it added the sum is right, too.
    sums = {right.completion, (right.completion or 0) + (right.reasoning or 0)}
    completion = right.completion if usage.completion_tokens in sums else usage.completion_tokens
    return {
        "text": (finished.text, expected.text),
        "reasoning": (finished.reasoning, expected.reasoning),
        "chunks": ((seen.text, seen.reasoning), (finished.text, finished.reasoning)),
        "tool_calls": (_tool_calls_of(finished, expected), [_tool_call(each) for each in expected.tool_calls]),
        "finish_reason": (finished.finish_reason, expected.finish_reason),
        "prompt": (usage.prompt_tokens, right.prompt),
        "completion": (completion, right.completion),
        "cached": (usage.cached_prompt_tokens, right.cached),
        "reasoning_tokens": (usage.reasoning_tokens, right.reasoning),
    }


def _tool_call(call: Any) -> tuple[object, ...]:
    return (call.id, call.name, call.arguments_text if call.arguments is None else call.arguments)


def _tool_calls_of(finished: LLMFinished, expected: Expected) -> list[tuple[object, ...]]:
    """The calls as they are compared: of those without a recorded id, any id will do."""
    has_id = [call.id is not None for call in expected.tool_calls]
    calls: list[tuple[object, ...]] = []
    for at, call in enumerate(finished.tool_calls):
        keeps_id = at >= len(has_id) or has_id[at]
        calls.append((call.id if keeps_id else None, call.name, read_arguments(call.arguments)))
    return calls


def read_arguments(text: str) -> object:
    """JSON as a value, and text that is not JSON as it is. Nothing at all is what some models say for ``{}``."""
    try:
        value: object = json.loads(text or "{}")
    except ValueError:
        return text
    return value


def is_of_litellm(error: BaseException | None) -> bool:
    """The error is of a class of litellm's, which is what rxflow promises."""
    return any(kind.__module__.split(".")[0] == "litellm" for kind in type(error).__mro__)


@contextmanager
def reading(played: Played) -> Generator[None]:
    """What a program does for its answers to be read by this way: for the wrapper, it registers a callback."""
    if played.way is not Way.WRAPPER:
        yield
        return
    litellm: Any = importlib.import_module("litellm")
    # litellm moves what is in the first to the others when it is called.
    lists = [getattr(litellm, name) for name in ("success_callback", "_async_success_callback", "callbacks")]
    before = [list(each) for each in lists]
    litellm.success_callback.append(_ignore)
    try:
        yield
    finally:
        for each, value in zip(lists, before, strict=True):
            each[:] = value


async def _ignore(*_: object) -> None:
    """A callback of litellm's."""
