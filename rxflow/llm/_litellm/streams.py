"""Finds the HTTP response behind LiteLLM's stream, and the wire of the response.

LiteLLM sends a request, and returns a wrapper around the response. rxflow looks behind the wrapper for two reasons:

- On some wires, closing the wrapper does not close the response. So rxflow closes the response itself.
- The wrapper takes 300–600 µs per chunk. If rxflow knows the wire, it parses the bytes of the response itself.
  Otherwise the wrapper parses them.

This module depends on how LiteLLM's streams are built inside. The tests of each wire fail when LiteLLM changes that.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial
from types import AsyncGeneratorType
from typing import Any, cast

from rxflow.llm._io import Deliver
from rxflow.llm._reading import MAX_ERROR_BYTES, IncompleteAnswer, StallWatch
from rxflow.llm._wires.anthropic_messages import AnthropicMessagesWire
from rxflow.llm._wires.cohere import CohereWire
from rxflow.llm._wires.gemini import GeminiWire
from rxflow.llm._wires.ollama import OllamaWire
from rxflow.llm._wires.openai_chat import OpenAIChatWire, read_usage
from rxflow.llm._wires.openai_responses import OpenAIResponsesWire
from rxflow.llm._wires.sse import MAX_EVENT_BYTES, ErrorEvent, Wire
from rxflow.llm.source import Delta, UsageMetrics

logger = logging.getLogger("rxflow")

# _search() follows chains of at most this many references. In litellm 1.109 and 1.110, a chain of at most 5 leads from
# a wrapper to its response.
_MAX_DEPTH = 8

_LITELLM = "litellm.llms."
_WIRES: dict[str, Callable[[], Wire]] = {
    "openai.AsyncStream": OpenAIChatWire,
    f"{_LITELLM}openai.openai.OpenAIChatCompletionResponseIterator": OpenAIChatWire,
    f"{_LITELLM}openai.chat.gpt_transformation.OpenAIChatCompletionStreamingHandler": OpenAIChatWire,
    f"{_LITELLM}openrouter.chat.transformation.OpenRouterChatCompletionStreamingHandler": OpenAIChatWire,
    f"{_LITELLM}snowflake.chat.transformation.SnowflakeStreamingHandler": OpenAIChatWire,
    f"{_LITELLM}anthropic.chat.handler.ModelResponseIterator": AnthropicMessagesWire,
    f"{_LITELLM}vertex_ai.gemini.vertex_and_google_ai_studio_gemini.ModelResponseIterator": GeminiWire,
    f"{_LITELLM}cohere.common_utils.CohereV2ModelResponseIterator": CohereWire,
    f"{_LITELLM}ollama.chat.transformation.OllamaChatCompletionResponseIterator": OllamaWire,
    "litellm.completion_extras.litellm_responses_transformation.transformation"
    ".OpenAiResponsesToChatCompletionStreamIterator": OpenAIResponsesWire,
}
"""By the class of LiteLLM's parser: the wire of the answer. LiteLLM chooses its parser by the format of the answer."""


def find_response(stream: object) -> Any:
    """Return the HTTP response that ``stream`` reads. If none is found, return None.

    The response is an ``httpx.Response``, or another object with the same methods.

    Most parsers of LiteLLM read an async generator, ``response.aiter_lines()``. The response is then found among the
    generator's local variables.
    """
    return _search(stream, _is_response, set(), 0)


def find_wrapper(stream: object) -> Any:
    """Return LiteLLM's ``CustomStreamWrapper``: ``stream`` itself, or else the wrapper inside ``stream``.

    The stream of a text completion is not the wrapper itself, but contains it. If no wrapper is found, return None.
    """
    return _search(stream, lambda value: type(value).__name__ == "CustomStreamWrapper", set(), 0)


def wire_of(wrapper: Any, response: Any) -> Wire | None:
    """Return the wire that parses ``response`` in place of ``wrapper``; None if ``wrapper`` must parse it."""
    reader = wrapper.completion_stream
    if _search(reader, _translates_back, set(), 0) is not None:
        return None
    if str(response.headers.get("content-type", "")).startswith("application/vnd.amazon.eventstream"):
        return _bedrock_wire(response.url.path)
    for kind in type(reader).__mro__:
        make = _WIRES.get(f"{kind.__module__}.{kind.__qualname__}")
        if make is not None:
            return make()
    return None


def _translates_back(value: object) -> bool:
    """Return whether ``value`` is a parser of LiteLLM that turns a tool call into the text of the answer.

    To get JSON from some models, LiteLLM offers them a tool of its own. The arguments of that tool call are the answer.
    """
    return bool(getattr(value, "json_mode", False))


def _bedrock_wire(path: str) -> Wire | None:
    """Return the wire for a request to ``path``. If rxflow does not know the format, return None.

    The path contains the model's name, and ends with the operation.
    """
    from rxflow.llm._wires.bedrock import AwsEvents, BedrockConverseWire  # imports botocore, which takes 0.2 s

    is_nova = path.endswith("/invoke-with-response-stream") and "nova" in path  # Nova's own format is that of Converse
    if path.endswith("/converse-stream") or is_nova:
        return BedrockConverseWire()
    if path.endswith("/invoke-with-response-stream") and "anthropic" in path:
        return AnthropicMessagesWire(AwsEvents())
    return None


def _is_response(value: object) -> bool:
    return all(hasattr(value, name) for name in ("aiter_bytes", "aclose", "headers", "status_code"))


def _search(value: object, is_wanted: Callable[[object], bool], seen: set[int], depth: int) -> Any:
    if value is None or id(value) in seen or depth > _MAX_DEPTH:
        return None
    seen.add(id(value))
    if is_wanted(value):
        return value
    if isinstance(value, AsyncGeneratorType):
        frame = cast(Any, value).ag_frame
        inside = dict(frame.f_locals) if frame is not None else {}
    elif type(value).__module__.partition(".")[0] in ("litellm", "openai"):
        inside = dict(getattr(value, "__dict__", {}))
    else:
        return None
    found = (_search(each, is_wanted, seen, depth + 1) for each in inside.values())
    return next((each for each in found if each is not None), None)


async def tap(stream: Any, response: Any, wire: Wire) -> AsyncGenerator[bytes]:
    """Yield the network reads of ``response``. The caller parses them with ``wire``.

    LiteLLM's wrapper, ``stream``, parses the same reads, so that LiteLLM's callbacks and cache get the whole answer.
    The wrapper's chunks are not used.

    The wrapper may fail on an answer that ``wire`` can parse, for example because of one of Gemini's finish reasons.
    The rest of the response is then read without the wrapper. If the answer is incomplete at the end of the body, the
    wrapper's error is raised. A wrapper that fails tries to close the response. So ``response.aclose`` does nothing
    while ``stream`` is read. The caller closes the response.
    """
    blocks: deque[bytes] = deque()
    # Replace aiter_raw(). Some parsers of LiteLLM have already called aiter_bytes(), but the generator of aiter_bytes()
    # calls aiter_raw() only at the first read. ``wire`` needs decoded bytes. So if the response is compressed, a copy
    # decodes it, and ``response`` itself is then no longer marked as compressed.
    reads: AsyncIterator[bytes]
    if response.headers.get("content-encoding"):
        whole = {"headers": response.headers, "stream": response.stream, "request": response.request}
        reads = type(response)(response.status_code, **whole).aiter_bytes()
        del response.headers["content-encoding"]
    else:
        reads = response.aiter_raw()
    response.aiter_raw = partial(_keep_reads, reads, blocks, wire)
    response.aclose = _stay_open
    try:
        async for _ in stream:
            while blocks:
                yield blocks.popleft()
    except Exception as error:
        while blocks:
            yield blocks.popleft()
        async for block in reads:  # yields nothing if ``reads`` itself has failed
            yield block
        if not wire.is_complete:
            raise
        logger.debug("litellm's wrapper failed on an answer that is complete: %r", error)
    finally:
        del response.aclose
    while blocks:
        yield blocks.popleft()


async def _stay_open() -> None:
    """Do nothing. This replaces the response's ``aclose``, so that LiteLLM's wrapper cannot close the response."""


async def _keep_reads(
    reads: AsyncIterator[bytes], blocks: deque[bytes], wire: Wire, chunk_size: int | None = None
) -> AsyncIterator[bytes]:
    """Yield each block of ``reads`` to LiteLLM's wrapper, and append the block to ``blocks``.

    :func:`tap` removes the blocks, and its caller parses each block with ``wire`` before it asks for the next one. So
    if ``blocks`` is empty, ``wire`` has parsed all earlier blocks.
    """
    waiting_bytes = 0
    probe: Wire | None = None
    async for block in reads:
        if not blocks:
            waiting_bytes, probe = 0, None
        blocks.append(block)
        waiting_bytes += len(block)
        if waiting_bytes > MAX_EVENT_BYTES:
            return  # LiteLLM made no chunk of all this: probably an endless event, which it would collect forever
        if waiting_bytes > MAX_ERROR_BYTES:
            # LiteLLM would search a large error for API keys, which takes seconds. It gets a short error instead.
            if probe is None:
                probe, block_to_probe = copy.deepcopy(wire), b"".join(blocks)
            else:
                block_to_probe = block
            if _holds_error(probe, block_to_probe):
                raise IncompleteAnswer("the stream ended with an error event")
        yield block


def _holds_error(wire: Wire, block: bytes) -> bool:
    try:
        wire.feed(block, [])
    except ErrorEvent:
        return True
    except ValueError:  # malformed or too large: the caller of tap() gets this error from its own wire
        return False
    return False


class WrapperReader:
    """Reads an answer with LiteLLM's wrapper, because rxflow cannot parse the answer itself.

    If the provider reports no usage, the wrapper reports an estimate. So the usage is taken from the wrapper's inner
    stream. If the answer is incomplete, the wrapper still reports "stop". So ``received_finish_reason`` is checked.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.chat = OpenAIChatWire(joins_halves=True)  # parses the wrapper's chunks, which have OpenAI's format
        self.usage: UsageMetrics | None = None

    async def read(self, deliver: Deliver, *, silence_s: float, is_break: Callable[[BaseException], bool]) -> None:
        """Deliver the deltas of the answer, except the :class:`~rxflow.llm.source.Ending`.

        Raises TimeoutError and IncompleteAnswer, as :func:`rxflow.llm._reading.read_answer` does, and LiteLLM's errors.
        """
        wrapper: Any = None
        async with StallWatch(silence_s, lambda: self.chat.finish_reason, is_break) as watch:
            # Observe before the first read: if LiteLLM only fakes a stream, the first item is the whole answer.
            wrapper = self._observe(watch)
            async for chunk in self._stream:
                watch.note_data()
                batch: list[Delta] = []
                self.chat.read(chunk.model_dump(), batch)
                if batch:
                    deliver(batch)
                if wrapper is None:  # the stream of a text completion creates its wrapper at the first read
                    wrapper = self._observe(watch)
                await asyncio.sleep(0)
        if not getattr(wrapper, "received_finish_reason", None):
            raise IncompleteAnswer("the stream ended before the answer was complete (no finish reason was seen)")

    def _observe(self, watch: StallWatch) -> Any:
        """Observe the inner stream of LiteLLM's wrapper. Return the wrapper; None if it does not exist yet."""
        wrapper = find_wrapper(self._stream)
        if wrapper is not None:
            wrapper.completion_stream = _Observed(wrapper.completion_stream, self._note, watch)
        return wrapper

    def _note(self, item: object) -> None:
        usage: Any = cast(Any, item).get("usage") if isinstance(item, dict) else getattr(item, "usage", None)
        if usage is not None:
            self.usage = read_usage(usage.model_dump() if hasattr(usage, "model_dump") else usage) or self.usage


class _Observed:
    """Wraps an inner stream of LiteLLM. Calls ``note`` with each item, and reports to ``watch`` that data arrived."""

    def __init__(self, inner: Any, note: Callable[[object], None], watch: StallWatch) -> None:
        self._inner = inner
        self._iterator: AsyncIterator[object] = aiter(inner)
        self._note = note
        self._watch = watch

    def __aiter__(self) -> _Observed:
        return self

    async def __anext__(self) -> object:
        item = await anext(self._iterator)
        self._watch.note_data()
        self._note(item)
        return item

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
