"""One LLM call: asks a source, turns its deltas into chunks, and tries again before the first of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import uuid4

from reactivex import Observable
from reactivex.disposable import Disposable

from rxflow.llm.request import Message, Request
from rxflow.llm.source import Delta, Ending, PartDelta, ReasoningDelta, RefusalDelta, Source, ToolCallDelta
from rxflow.llm.tool_calls import ToolCallAssembler
from rxflow.loops import Once
from rxflow.streaming.bridge import from_coroutine
from rxflow.streaming.emitter import Emitter
from rxflow.streaming.scope import Scope
from rxflow.types.events import (
    ContentPart,
    Event,
    LLMFailed,
    LLMFinished,
    LLMRetrying,
    LLMStarted,
    ReasoningChunk,
    ToolCall,
)
from rxflow.types.usage import UsageMetrics, estimate_usage

logger = logging.getLogger("rxflow")

Ask = Callable[[Request], Coroutine[Any, Any, Observable[Delta]]]


def make_call(scope: Scope, request: Request, source: Source, ask: Ask, max_retries: int) -> Observable[Event]:
    """The events of one call in ``scope``: :class:`LLMStarted`, chunks, :class:`LLMFinished`.

    Args:
        ask: how the request is put to ``source``, natively or with its tools in words.
        max_retries: further attempts after a failure before the first chunk.
    """
    inner = scope.within(llm_call_id=str(uuid4()))

    async def work(emitter: Emitter) -> None:
        emitter.on_next(LLMStarted(origin=emitter.origin, model=request.model, messages=request.messages))
        answer = _Answer(emitter, request)
        emitter.own(Disposable(answer.note_usage))  # if the call is stopped: it cannot emit any more
        attempt = 0
        while True:
            try:
                deltas = await ask(request)
                answer.is_asked = True
                await emitter.drain(deltas, answer.add)
                break
            except Exception as error:  # noqa: BLE001 - raised again, or reported in an event
                answer.is_asked = answer.has_begun  # what fails before that is not billed
                attempt += 1
                may_retry = not answer.has_begun and attempt <= max_retries
                delay = source.retry_delay(error, attempt, max_retries) if may_retry else None
                if delay is None:
                    final = source.explain(error, request.model)
                    usage = answer.usage
                    answer.note_usage()
                    emitter.on_next(LLMFailed(origin=emitter.origin, error=final, text=answer.text, usage=usage))
                    raise final from error.__cause__
                status = getattr(error, "status_code", None)
                logger.warning(
                    "%s: %s (status %s); trying again in %.1f s", request.model, type(error).__name__, status, delay
                )
                emitter.on_next(LLMRetrying(origin=emitter.origin, error=error, delay=delay))
                await asyncio.sleep(delay)
        emitter.on_next(answer.finish())

    return from_coroutine(inner, work)


_NO_ENDING = Ending()


class _Answer:
    """Turns deltas into chunks as they come, and remembers them.

    ``is_asked`` is True while the provider has the request.
    """

    def __init__(self, emitter: Emitter, request: Request) -> None:
        self.is_asked = False
        self._request = request
        self._noted = Once()
        self._emitter = emitter
        self._chunk = emitter.origin.chunk
        self._seq = emitter.run.seq
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._calls = ToolCallAssembler()
        self._has_parts = False
        self._ending = _NO_ENDING

    @property
    def has_begun(self) -> bool:
        """Something of the answer has been shown: trying again would show it twice."""
        return bool(self._text or self._reasoning or self._calls or self._has_parts)

    @property
    def text(self) -> str:
        """The answer text so far."""
        return "".join(self._text)

    def add(self, delta: Delta) -> None:
        """Take the next delta."""
        if type(delta) is str:
            if delta:
                self._text.append(delta)
                self._emitter.on_next(self._chunk(delta, seq=next(self._seq)))
            return
        match delta:
            case ToolCallDelta():
                self._emitter.on_next(self._emitter.origin.tool_chunk(self._calls.add(delta), seq=next(self._seq)))
            case ReasoningDelta(content):
                self._reasoning.append(content)
                self._emitter.on_next(ReasoningChunk(origin=self._emitter.origin, content=content))
            case RefusalDelta(content):
                self._refusal.append(content)
                self.add(content)
            case PartDelta(kind, data):
                self._has_parts = True
                self._emitter.on_next(ContentPart(origin=self._emitter.origin, kind=kind, data=data))
            case Ending():
                self._ending = delta
            case _:
                raise TypeError(f"a source gave {delta!r}, which is not a delta (see rxflow.llm.source)")

    @property
    def usage(self) -> UsageMetrics:
        """As the provider reported it; before that an estimate, which is the prompt alone before the first chunk."""
        if self._ending is not _NO_ENDING:
            return self._ending.usage
        if not self.is_asked:
            return UsageMetrics()
        arguments = [call.arguments for call in self._calls.calls]
        return estimate_usage(self._request.messages, [*self._text, *self._reasoning, *arguments])

    def note_usage(self) -> None:
        """Note the usage in the scope's ledger: once, whether the call has finished, has failed or is stopped."""
        if self._noted.take():
            self._emitter.scope.ledger.note(self.usage)

    def finish(self) -> LLMFinished:
        """The whole answer."""
        for chunk in self._calls.finish():
            self._emitter.on_next(self._emitter.origin.tool_chunk(chunk, seq=next(self._seq)))
        self.note_usage()
        ending, calls = self._ending, self._calls.calls
        return LLMFinished(
            origin=self._emitter.origin,
            text=self.text,
            tool_calls=calls,
            reasoning="".join(self._reasoning),
            refusal="".join(self._refusal),
            finish_reason=ending.finish_reason,
            usage=ending.usage,
            cost=ending.cost,
            message=_build_message(self.text, calls, self._calls, ending),
            response_id=ending.response_id,
            response_model=ending.response_model,
        )


def _build_message(text: str, calls: tuple[ToolCall, ...], assembler: ToolCallAssembler, ending: Ending) -> Message:
    """The answer as a message of the conversation: what the provider wants to get back with the next request."""
    message: Message = {"role": "assistant", "content": text or None if calls else text}
    if calls:
        extras = assembler.extras
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments or "{}"},
                **extras.get(call.id, {}),
            }
            for call in calls
        ]
    return message | dict(ending.message)
