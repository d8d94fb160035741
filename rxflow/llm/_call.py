"""Carries out one LLM call, with its events, its retries, and the cut at a stop sequence."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, cast
from uuid import uuid4

from pydantic_core import from_json
from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow._prices import estimate_cost
from rxflow._streaming import Cleanup, Emitter, Holder, Scope, from_coroutine
from rxflow.llm._redaction import mask_secrets
from rxflow.llm._tool_calls import ToolCallAssembler
from rxflow.llm.source import (
    Delta,
    Ending,
    Message,
    PartDelta,
    ReasoningDelta,
    RefusalDelta,
    Request,
    Source,
    ToolCallDelta,
    split_model,
)
from rxflow.tools import function_name
from rxflow.types import (
    ContentPart,
    Event,
    LLMCancelled,
    LLMFailed,
    LLMFinished,
    LLMRetrying,
    LLMStarted,
    Origin,
    ReasoningChunk,
    ToolCall,
    ToolCallChunk,
    UsageMetrics,
)
from rxflow.types.results import estimate_usage


class StopSequences:
    """Cuts a text before the stop sequence that ends first. The text may arrive in pieces.

    Text is held back only if it may be the beginning of a sequence. The result does not depend on how the text is split
    into pieces. ``is_met`` is True once a sequence was found.
    """

    def __init__(self, sequences: Sequence[str]) -> None:
        self.is_met = False
        self._sequences = sequences
        self._held = ""

    def feed(self, piece: str) -> str:
        """Add the next piece. Return the text that certainly belongs to the answer."""
        text = self._held + piece
        found = [(at + len(each), at) for each in self._sequences if (at := text.find(each)) >= 0]
        if found:
            self.is_met = True
            self._held = ""
            return text[: min(found)[1]]
        end = len(text) - max((count_overlap(text, each) for each in self._sequences), default=0)
        self._held = text[end:]
        return text[:end]

    def flush(self) -> str:
        """Return the held text. Call this when the deltas end, or before a delta that is neither text nor reasoning."""
        held, self._held = self._held, ""
        return held


def read_stop(stop: Any) -> list[str]:
    """Return the stop sequences as a list.

    Raises:
        TypeError: ``stop`` is neither None, a string, nor a list or tuple of strings.
        ValueError: a sequence is empty. Such a sequence would end every answer at its beginning.
    """
    given: Any = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(given, list | tuple) or not all(isinstance(each, str) for each in cast(list[Any], given)):
        raise TypeError(f"stop must be a string or a list of strings; got {stop!r}")
    sequences = list(cast(Sequence[str], given))
    if "" in sequences:
        raise ValueError(f"a stop sequence is empty: {stop!r}; leave it out")
    return sequences


def cut_at_stop(deltas: Observable[Delta], request: Request) -> Observable[Delta]:
    """Return ``deltas``, cut before the stop sequence that ends first in the text. The cut closes the connection.

    The stop sequences are the parameter ``stop`` of ``request``, or else the hint ``stop``. ::

        deltas    "Thought"--"\\nObs"--"ervation:"--" never"--E|
        result    "Thought"-----------E|             (E: Ending, stop=["\\nObservation:"])

    A model that supports stop sequences ends its answer there by itself, and the provider reports the usage. If this
    function cuts the answer, the usage is an estimate. It counts the messages of the request, and the text, reasoning,
    refusal and arguments before the cut.
    """
    sequences = read_stop({**request.hints, **request.parameters}.get("stop"))
    if not sequences:
        return deltas

    def subscribe(observer: ObserverBase[Delta], scheduler: SchedulerBase | None = None) -> DisposableBase:
        stop = StopSequences(sequences)
        running = Holder()
        generated: list[str] = []

        def emit(text: str) -> None:
            if text:
                generated.append(text)
                observer.on_next(text)

        def end_if_met() -> None:
            if stop.is_met:
                running.dispose()
                observer.on_next(Ending("stop", estimate_usage(request.messages, generated) + _ONE_REQUEST))
                observer.on_completed()

        def on_next(delta: Delta) -> None:
            if stop.is_met:
                return
            if isinstance(delta, str):
                emit(stop.feed(delta))
                end_if_met()
                return
            match delta:
                case ReasoningDelta(content):
                    generated.append(content)
                case RefusalDelta(content):
                    emit(stop.flush())
                    generated.append(content)
                case ToolCallDelta(arguments=arguments):
                    emit(stop.flush())
                    generated.append(arguments)
                case _:
                    emit(stop.flush())
            observer.on_next(delta)

        def on_error(error: Exception) -> None:
            if not stop.is_met:
                emit(stop.flush())
                observer.on_error(error)

        def on_completed() -> None:
            if not stop.is_met:
                emit(stop.flush())
                observer.on_completed()

        running.hold(deltas.subscribe(on_next, on_error, on_completed, scheduler=scheduler))
        return running

    return Observable(subscribe)


_ONE_REQUEST = UsageMetrics(successful_requests=1)
_noting = threading.RLock()
"""Held while a usage is added to a ledger. Reentrant, because a garbage collection may stop another call meanwhile."""


def count_overlap(text: str, marker: str) -> int:
    """Return how many characters at the end of ``text`` may be the beginning of ``marker``."""
    return next((n for n in range(min(len(text), len(marker) - 1), 0, -1) if text.endswith(marker[:n])), 0)


logger = logging.getLogger("rxflow")

Server: TypeAlias = tuple[str, int | None]
Ask = Callable[[Request], Coroutine[Any, Any, Observable[Delta]]]


def make_call(
    scope: Scope, request: Request, source: Source, ask: Ask, max_retries: int, server: Server
) -> Observable[Event]:
    """Return the events of one call in ``scope``, from :class:`LLMStarted` to :class:`LLMFinished`.

    If the call fails, :class:`LLMFailed` is emitted before the error.

    Args:
        ask: prepares the request, and returns the deltas as a cold Observable. A subscription sends the request.
        max_retries: the maximum number of retries. A call is retried only if it fails before any part of its answer
            was emitted.
        server: the address and port of the server, as far as they are known.
    """
    inner = scope.within(llm_call_id=str(uuid4()))
    span_id, calls = inner.origin.span_id, scope.run.calls

    async def work(emitter: Emitter) -> None:
        journal = scope.run.journal
        before = journal.take_call(scope.step, request.model, request.messages) if journal is not None else None
        started = _announce(emitter.origin, request, server)
        if before is not None:
            _repeat(emitter, replace(started, replayed=True), before)
            return
        emitter.on_next(started)
        answer = _Answer(emitter, request)
        calls[span_id] = answer.cancel
        try:
            await speak(emitter, answer)
        finally:
            # If ``calls`` still has this span, no final event of the call has reached the border. Either the call was
            # cancelled, or an operator holds the final event back.
            if span_id in calls:
                calls[span_id] = answer.summarize()

    async def speak(emitter: Emitter, answer: _Answer) -> None:
        emitter.own(Cleanup(answer.note_usage))  # notes the usage even if the call is cancelled
        attempt = 0
        while True:
            try:
                deltas = await ask(request)
                answer.is_asked = True
                await emitter.drain(deltas, answer.add)
                break
            except Exception as error:  # noqa: BLE001 - raised again, or reported in an event
                answer.is_asked = answer.has_begun  # a provider does not bill a call that fails before its first delta
                attempt += 1
                may_retry = not answer.has_begun and attempt <= max_retries
                delay = source.retry_delay(error, attempt, max_retries) if may_retry else None
                if delay is None:
                    final = source.explain(error, request.model)
                    emitter.announce(answer.fail(final))
                    raise final from error.__cause__
                status = getattr(error, "status_code", None)
                logger.warning(
                    "%s: %s (status %s); retrying in %.1f s", request.model, type(error).__name__, status, delay
                )
                emitter.on_next(LLMRetrying(origin=emitter.origin, error=error, delay=delay))
                await asyncio.sleep(delay)
        emitter.on_next(answer.finish())

    return from_coroutine(inner, work)


def _announce(origin: Origin, request: Request, server: Server) -> LLMStarted:
    address, port = server
    return LLMStarted(
        origin=origin,
        model=request.model,
        messages=request.messages,
        provider=split_model(request.model)[0],
        server_address=address,
        server_port=port,
        parameters=mask_secrets({**request.hints, **request.parameters}),
        # A provider's own tool may contain an API key of another server, as OpenAI's tool "mcp" does.
        tools=tuple(tool if "function" in tool else mask_secrets(tool) for tool in request.tools),
    )


def _repeat(emitter: Emitter, started: LLMStarted, before: LLMFinished) -> None:
    """Emit the events of a call that had finished before the run was resumed. The model is not called again.

    ``before`` has the recorded answer. Its text is emitted in one chunk.
    """
    # Clients and later retractions identify the answer and its tool calls by the id of the original call.
    origin = replace(emitter.origin, llm_call_id=before.origin.llm_call_id or emitter.origin.llm_call_id)
    emitter.on_next(replace(started, origin=origin))
    chunks = [origin.chunk(before.text)] if before.text else []
    for index, call in enumerate(before.tool_calls):
        delta = ToolCallChunk(tool_id=call.id, tool_name=call.name, arguments=call.arguments, index=index)
        chunks.append(origin.tool_chunk(delta))
    for chunk in chunks:
        emitter.on_next(chunk.model_copy(update={"replayed": True}))
    emitter.scope.ledger.note(before.usage, before.cost)
    emitter.on_next(replace(before, origin=origin, replayed=True, seq=-1, at=0.0))


_NO_ENDING = Ending()


class _Answer:
    """Turns the deltas of a call into events, and collects the answer.

    ``is_asked`` is True if the provider may bill the request. ``is_asked`` becomes True just before the request is
    sent. If the attempt fails before any part of the answer was emitted, ``is_asked`` becomes False again.
    """

    def __init__(self, emitter: Emitter, request: Request) -> None:
        self.is_asked = False
        self._request = request
        self._bill: tuple[UsageMetrics, float | None] | None = None  # None until it is in the ledger
        self._emitter = emitter
        self._chunk = emitter.origin.chunk
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._calls = ToolCallAssembler()
        self._has_parts = False
        self._ending = _NO_ENDING

    @property
    def has_begun(self) -> bool:
        """Whether a part of the answer was emitted. If so, a retry would emit this part twice."""
        return bool(self._text or self._reasoning or self._calls or self._has_parts)

    @property
    def text(self) -> str:
        return "".join(self._text)

    def add(self, delta: Delta) -> None:
        if type(delta) is str:
            if delta:
                self._text.append(delta)
                self._emitter.on_next(self._chunk(delta))
            return
        match delta:
            case ToolCallDelta():
                self._emitter.on_next(self._emitter.origin.tool_chunk(self._calls.add(delta)))
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
                raise TypeError(f"a source emitted {delta!r}, which is not a delta (see rxflow.llm.source)")

    @property
    def usage(self) -> UsageMetrics:
        """The usage in the Ending.

        Before the Ending has arrived, the usage is an estimate from the messages of the request and from the answer so
        far. But if ``is_asked`` is False, all numbers of tokens are None.
        """
        if self._ending is not _NO_ENDING:
            return self._ending.usage
        if not self.is_asked:
            return UsageMetrics()
        arguments = [call.arguments for call in self._calls.calls]
        return estimate_usage(self._request.messages, [*self._text, *self._reasoning, *arguments])

    def note_usage(self) -> tuple[UsageMetrics, float | None]:
        """Add the usage and the cost to the ledger of the scope, but only the first time. Return what was added.

        Called when the LLM call finishes, fails or is cancelled. A thread that stops the call and the run's loop may
        call it at the same time: for both, the ledger has the usage when this returns.
        """
        bill = self._bill or self._draw_up_bill()
        with _noting:
            if self._bill is None:
                self._bill = bill
                self._emitter.scope.ledger.note(*bill)
            return self._bill

    def _draw_up_bill(self) -> tuple[UsageMetrics, float | None]:
        usage, cost = self.usage, self._ending.cost
        if cost is None and usage.is_estimated:
            cost = estimate_cost(self._request.model, usage, self._request.parameters.get("service_tier"))
        return usage, cost

    def fail(self, error: BaseException) -> LLMFailed:
        """Note the usage, and return the event for a call that ended with ``error``."""
        usage, cost = self.note_usage()
        return LLMFailed(origin=self._emitter.origin, error=error, text=self.text, usage=usage, cost=cost)

    def cancel(self, reason: str) -> LLMCancelled:
        """Note the usage, and return the event for a cancelled call."""
        usage, cost = self.note_usage()
        return LLMCancelled(origin=self._emitter.origin, reason=reason, text=self.text, usage=usage, cost=cost)

    def summarize(self) -> Callable[[str], LLMCancelled]:
        """Note the usage, and return a function that can replace :meth:`cancel` in ``Run.calls``.

        The function does not refer to this object. Otherwise the messages and deltas of the call would stay in memory
        until the run ends.
        """
        ended = self.cancel("")
        return lambda reason: replace(ended, reason=reason)

    def finish(self) -> LLMFinished:
        """Emit the rest of the tool calls, and return the event with the whole answer."""
        for chunk in self._calls.finish():
            self._emitter.on_next(self._emitter.origin.tool_chunk(chunk))
        usage, cost = self.note_usage()
        ending, calls = self._ending, self._calls.calls
        return LLMFinished(
            origin=self._emitter.origin,
            text=self.text,
            tool_calls=calls,
            reasoning="".join(self._reasoning),
            refusal="".join(self._refusal),
            finish_reason=ending.finish_reason,
            usage=usage,
            cost=cost,
            message=_build_message(self.text, calls, self._calls, ending),
            response_id=ending.response_id,
            response_model=ending.response_model,
        )


def _build_message(text: str, calls: tuple[ToolCall, ...], assembler: ToolCallAssembler, ending: Ending) -> Message:
    """Build the assistant's message, which the next request of the conversation must contain.

    The message contains what the provider needs back, in a form that strict providers accept.
    """
    message: Message = {"role": "assistant", "content": text or None if calls else text}
    if calls:
        extras = assembler.extras
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                # Providers refuse some characters in a name, even if their own model invented the name.
                "function": {
                    "name": function_name(call.name) or "unnamed",
                    "arguments": _as_object(call.arguments),
                },
                **extras.get(call.id, {}),
            }
            for call in calls
        ]
    return message | dict(ending.message)


def _as_object(arguments: str) -> str:
    """Return ``arguments`` if they are a JSON object. Otherwise return a JSON object that contains ``arguments``.

    Empty arguments become ``{}``. Some providers refuse a whole conversation if the JSON of one tool call in it is
    incomplete.
    """
    if not arguments.strip():
        return "{}"
    try:
        is_object = isinstance(from_json(arguments, allow_inf_nan=False), dict)
    except ValueError:
        is_object = False
    return arguments if is_object else json.dumps({"invalid_arguments": arguments})
