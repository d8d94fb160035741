"""One call of one method, as an Observable: sync, async, an async generator of text, or one that returns a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from inspect import isasyncgenfunction
from typing import Any, cast

from reactivex import Observable

from rxflow.flow.graph import Method
from rxflow.streaming.bridge import announcing, from_coroutine, on_loop
from rxflow.streaming.emitter import Emitter
from rxflow.streaming.observable import Behind, EventStream
from rxflow.streaming.output import read_out
from rxflow.streaming.scope import Scope
from rxflow.types.chunks import StreamChunk, StreamChunkType
from rxflow.types.events import (
    CrewFinished,
    Event,
    FlowFinished,
    Happened,
    LLMFinished,
    MethodFailed,
    MethodFinished,
    MethodStarted,
    Retracted,
)


def run_method(
    scope: Scope, method: Method, bound: Callable[..., Any], arguments: tuple[Any, ...]
) -> Observable[Event]:
    """The events of one call, :class:`MethodFinished` with its result last.

    A returned Observable is merged in: its chunks and events travel on, also the events behind an ``observe()``, and
    ``str`` items become chunks of the method. The method's result is then that of a crew or flow that it shows the
    events of, else the last other item, else the text.
    """

    async def work(emitter: Emitter) -> None:
        emitter.on_next(MethodStarted(origin=emitter.origin))
        with announcing(emitter, MethodFailed):
            result = await _result(emitter, bound, arguments)
        emitter.on_next(MethodFinished(origin=emitter.origin, result=result))

    return from_coroutine(scope.within(method.name, flow_method=method.name), work)


async def _result(emitter: Emitter, bound: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    merged = _Merged(emitter)
    if isasyncgenfunction(bound):
        emitter.require_open()
        async for item in cast(AsyncIterator[Any], bound(*arguments)):
            merged.on_next(item)
        return merged.result
    returned = await emitter.invoke(bound, *arguments)
    if isinstance(returned, EventStream) and returned.is_run and not returned.shows_all:
        returned = cast(EventStream[Any], returned).with_events()
    if isinstance(returned, Observable):
        await emitter.drain(on_loop(cast(Observable[Any], returned), emitter.run.loop), merged.on_next)
        return merged.result
    return await read_out(returned)


class _Merged:
    """What comes out of a stream that a method returned or generates."""

    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter
        self._behind: object = _NOTHING
        self._text: list[str | StreamChunk] = []
        self._said: list[Any] = []

    @property
    def result(self) -> Any:
        return self._said[-1] if self._said else "".join(map(str, self._text))

    def on_next(self, item: Any) -> None:
        if isinstance(item, Behind):
            self._behind = event = item.event
            self._emitter.on_next(self._taken_back(event) if isinstance(event, Retracted) else event)
        elif item is self._behind:
            self._behind = _NOTHING  # it is shown, too, and has been emitted
        elif isinstance(item, str):
            self._text.append(item)
            self._emitter.text(item)
        elif isinstance(item, StreamChunk):
            if item.chunk_type is StreamChunkType.TEXT:
                self._text.append(item)
            self._emitter.on_next(self._labelled(item))
        elif isinstance(item, Happened):
            if isinstance(item, CrewFinished | FlowFinished):
                self._said = [item.result]
            elif isinstance(item, LLMFinished) and not item.origin.crew_name:
                self._said = [item.text]
            elif isinstance(item, Retracted):
                item = self._taken_back(item)
            self._emitter.on_next(cast(Event, item))
        else:
            self._said = [item]

    def _taken_back(self, retracted: Retracted) -> Retracted:
        """Forgets text that is void. What is void of strings, and of chunks that got labels here, is so here only."""
        if retracted.origin.span_id.startswith(self._emitter.run.id):
            self._text = [said for said in self._text if isinstance(said, str) or not retracted.covers(said)]
            return retracted
        self._text = [said for said in self._text if not isinstance(said, str) and not retracted.covers(said)]
        here = self._emitter.origin
        return replace(retracted, origin=here, span_ids=(here.span_id,))

    def _labelled(self, chunk: StreamChunk) -> StreamChunk:
        """A chunk that is not of this run (users made it, or kept it) gets the method's labels and this run's count.

        What it says of its task and agent stays.
        """
        if chunk.span_id.startswith(self._emitter.run.id):
            return chunk
        own = self._emitter.origin.labels
        unsaid = {name: value for name, value in own.items() if not getattr(chunk, name)}
        placed = {name: own[name] for name in _PLACED}
        return chunk.model_copy(update=unsaid | placed | {"seq": next(self._emitter.run.seq)})


_NOTHING = object()
_PLACED = ("flow_name", "flow_id", "flow_method", "namespace", "span_id")
