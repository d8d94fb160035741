"""One call of a method, as an Observable. A resumed run uses the recorded results of calls that had finished."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import aclosing, closing
from dataclasses import replace
from functools import partial
from inspect import isasyncgenfunction, isgeneratorfunction
from typing import Any, cast

from reactivex import Observable

from rxflow._copies import copy_value
from rxflow._loops import call_soon
from rxflow._streaming import (
    Accompanying,
    Done,
    Emitter,
    EventStream,
    Journal,
    NotResumable,
    Scope,
    Step,
    announce_failure,
    from_coroutine,
    on_loop,
    read_out,
)
from rxflow.flow._graph import Graph, Method
from rxflow.flow._labels import read_label
from rxflow.types import (
    AgentOutput,
    ContentPart,
    CrewFinished,
    Event,
    FlowFinished,
    Happened,
    HumanFeedbackResult,
    LLMFinished,
    MethodFailed,
    MethodFinished,
    MethodStarted,
    Origin,
    ReasoningChunk,
    Retracted,
    StreamChunk,
    StreamChunkType,
    TaskFinished,
)
from rxflow.types._values import RecordedModel, RecordedObject

Repeat = Callable[[MethodFinished], None]


class Replay:
    """Repeats the completions of methods when a flow is resumed, in the order of the log.

    The order in which methods complete decides what follows. For example, ``and_`` passes on the result of the method
    that completes last. So a completion is held back until all earlier completions in the log have been repeated.
    """

    def __init__(self, journal: Journal, graph: Graph, step: Step) -> None:
        self.has_begun = journal.find_start(step) is not None
        self._graph = graph
        self._waiting = graph.group_by_trigger()
        self._due: deque[Done] = deque(journal.find_done(step))
        self._finished = {done.step for done in self._due}
        self._called: dict[Step, Repeat] = {}
        self._missing = sorted(journal.find_begun(step) - graph.methods.keys())

    def takes(self, step: Step, repeat: Repeat) -> bool:
        """Return whether the call ``step`` had finished before the run was resumed.

        For a call that had finished, :meth:`run` will call ``repeat`` with the recorded MethodFinished.
        """
        if step in self._finished:
            self._called[step] = repeat
        return step in self._finished

    def run(self) -> None:
        """Repeat the completions of all finished calls. Each completion may cause further calls.

        Raises:
            NotResumable: a method in the log is not in the graph, or nothing in the graph triggers a finished call.
                Or a method receives a result that the log cannot restore.
        """
        if self._missing:
            raise NotResumable(
                f"{self._graph.name} cannot be resumed: the log has the method {self._missing[0]!r}, which is not in "
                f"the graph any more (it has {', '.join(self._graph.methods)}); restore it, or start a new run"
            )
        while self._due:
            done = self._due.popleft()
            repeat = self._called.pop(done.step, None)
            name, _, number = done.step[-1].rpartition("#")
            if repeat is None:
                raise NotResumable(
                    f"{self._graph.name} cannot be resumed: the log has call {int(number) + 1} of the method {name!r}, "
                    "which nothing triggers any more; the graph has changed"
                )
            self.require_result(name, done.event.result)
            repeat(done.event)

    def require_result(self, name: str, result: object) -> None:
        """Raise NotResumable if a method receives ``result``, but the log cannot restore this result.

        ``name`` is the name of the method that returned ``result``. If ``result`` is feedback, the value that
        was reviewed is checked. Any other result of a router is not checked, because methods receive the label.
        """
        triggers = [name]
        if isinstance(result, HumanFeedbackResult):
            triggers.append(result.outcome or name)
            result = result.output
        elif self._graph.methods[name].is_router:
            return
        takers = [method.name for each in triggers for method in self._waiting.get(each, ()) if method.takes_result]
        if takers and isinstance(result, RecordedObject | RecordedModel):
            kind = result.type if isinstance(result, RecordedObject) else result.recorded_type
            raise NotResumable(
                f"{self._graph.name} cannot be resumed: {takers[0]!r} needs the result of {name!r}, a {kind}, which "
                "the log cannot restore; return a value that JSON can carry, or a pydantic model of a loaded module"
            )


Complete = Callable[[Emitter, Method, Any], Awaitable[Any]]
"""An async function that receives a method's return value, and returns the result for listeners and readers."""


def run_method(
    scope: Scope,
    method: Method,
    bound: Callable[..., Any],
    arguments: tuple[Any, ...],
    keywords: Mapping[str, Any],
    *,
    triggered_by: tuple[str, ...] = (),
    complete: Complete | None = None,
    take: Callable[[Any], None] = lambda result: None,
) -> Observable[Event]:
    """Return the events of one call. If the call succeeds, the last event is :class:`MethodFinished`, with the result.

    If the method returns an Observable, the events in it are emitted, and each ``str`` in it becomes a chunk of the
    method. An Observable from ``observe()`` has only the chunks of its run. In this case, the other events of that run
    are emitted too.

    The result of an Observable from ``observe()`` is its joined text. For any other Observable, the result of the
    method is the last of these items:

    - the result of a crew or a flow
    - the text of an agent's answer
    - the answer to an LLM call outside of crews
    - an item that is neither text nor an event

    If there are none, the result is the joined text.

    A generator of text or events is treated like an Observable. But if the generator returns a value other than None,
    this value is the result. A streaming output is read, and its result is the result of the method. Any other return
    value is itself the result, for example a generator of other items. If the method itself is an async generator of
    other items, the result is the last item.

    ``take`` is called with the result. If it raises an error, the call fails. Methods that get the result may change
    it, so the dicts, lists, tuples and sets in MethodFinished are copies.
    """

    async def work(emitter: Emitter) -> None:
        emitter.on_next(MethodStarted(origin=emitter.origin, kind=name_kind(method), triggered_by=triggered_by))
        journal = None if method.feedback is None else scope.run.journal
        reviewed = None if journal is None else journal.find_reviewed(scope.step, emitter.origin.namespace)
        with announce_failure(emitter, MethodFailed):
            # If the log has a question that asks for feedback on the method's result, the method returned before the
            # run was resumed. So do not call the method again. Take the result from the question.
            if reviewed is not None:
                result = reviewed.arguments["output"]
            else:
                result = await _call(emitter, bound, arguments, keywords)
            if complete is not None:
                result = await complete(emitter, method, result)
            take(result)
        label = read_label(result) if method.is_router else None
        emitter.on_next(MethodFinished(origin=emitter.origin, result=copy_value(result), label=label))

    return from_coroutine(scope.within(method.name, flow_method=method.name), work)


def name_kind(method: Method) -> str:
    """Return the kind of ``method`` for its MethodStarted event: "router", "start" or "listen"."""
    if method.is_router:
        return "router"
    return "start" if method.is_start else "listen"


async def _call(
    emitter: Emitter, bound: Callable[..., Any], arguments: tuple[Any, ...], keywords: Mapping[str, Any]
) -> Any:
    merged = _Merged(emitter)
    if isasyncgenfunction(bound):
        emitter.require_open()
        called = cast(AsyncGenerator[Any, Any], bound(*arguments, **keywords))
        async for item in called:  # items that are neither text nor events are not shown; the last one is the result
            merged.on_next(item)
        return merged.result
    returned = await emitter.invoke(bound, *arguments, **keywords)
    if isinstance(returned, EventStream) and returned.is_run:
        stream = cast(EventStream[Any], returned).as_part()
        returned = stream if stream.shows_all else stream.with_events()
    if isinstance(returned, Observable):
        await emitter.drain(on_loop(cast(Observable[Any], returned), emitter.run.loop), merged.on_next)
        return merged.result
    if isinstance(returned, Generator):
        generator = cast(Generator[Any, Any, Any], returned)
        return await _read_generator(emitter, merged, generator, is_method=isgeneratorfunction(bound))
    if isinstance(returned, AsyncGenerator):
        return await _read_async_generator(merged, cast(AsyncGenerator[Any, Any], returned))
    return await read_out(returned)


async def _read_generator(
    emitter: Emitter, merged: _Merged, generator: Generator[Any, Any, Any], *, is_method: bool
) -> Any:
    """Read a generator in a worker thread, and emit its items.

    Return the return value of the generator. If this value is None, return ``merged.result``.

    If the first item is neither text nor an event, nothing is emitted. The result is then a generator of the same
    items.

    ``is_method`` is True if the method itself is a generator function. If ``is_method`` is False, the method has
    returned the generator, and a generator without items is returned unchanged.
    """

    def read() -> Any:
        try:
            item = next(generator)
            if not isinstance(item, _EMITTED):
                return _put_back(item, generator)
        except StopIteration as stop:
            return stop.value if is_method else generator
        with closing(generator):
            while True:
                emitter.require_open()
                call_soon(emitter.run.loop, partial(merged.on_next, item))
                try:
                    item = next(generator)
                except StopIteration as stop:
                    return stop.value

    returned = await emitter.invoke(read)
    return merged.result if returned is None else returned


async def _read_async_generator(merged: _Merged, generator: AsyncGenerator[Any, Any]) -> Any:
    """Read an async generator that a method returned, and emit its items. Return ``merged.result``.

    The first item has the same meaning as for :func:`_read_generator`. A generator without items is returned unchanged.
    """
    item = await anext(generator, _NOTHING)
    if item is _NOTHING:
        return generator
    if not isinstance(item, _EMITTED):
        return _put_back_async(item, generator)
    merged.on_next(item)
    async for item in generator:
        merged.on_next(item)
    return merged.result


def _put_back(item: Any, rest: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    with closing(rest):
        while True:
            sent = yield item
            try:
                item = rest.send(sent)
            except StopIteration as stop:
                return stop.value


async def _put_back_async(item: Any, rest: AsyncGenerator[Any, Any]) -> AsyncGenerator[Any, Any]:
    async with aclosing(rest):
        while True:
            sent = yield item
            try:
                item = await rest.asend(sent)
            except StopAsyncIteration:
                return


class _Merged:
    """Emits the items of the Observable or generator that a method returned, and collects the method's result."""

    def __init__(self, emitter: Emitter) -> None:
        self._emitter = emitter
        self._accompanying: object = _NOTHING
        self._text: list[str | StreamChunk] = []  # chunks as they were emitted, and plain text
        self._results: list[Any] = []
        self._has_agent_answer = False

    @property
    def result(self) -> Any:
        return self._results[-1] if self._results else "".join(map(str, self._text))

    def on_next(self, item: Any) -> None:
        if isinstance(item, Accompanying):
            self._accompanying = event = item.event
            self._emitter.on_next(cast(Event, self._adopt(event)))
        elif item is self._accompanying:
            self._accompanying = _NOTHING  # this event was already emitted, when it arrived inside an Accompanying
        elif isinstance(item, str):
            self._text.append(item)  # not the chunk, which would take ten times as much memory
            self._emitter.text(item)
        elif isinstance(item, StreamChunk):
            chunk = self._label_chunk(item)
            if chunk.chunk_type is StreamChunkType.TEXT:
                self._text.append(chunk)
            self._emitter.on_next(chunk)
        elif isinstance(item, Happened):
            if isinstance(item, CrewFinished | FlowFinished):
                self._results = [item.result]
            elif isinstance(item, TaskFinished) and isinstance(item.result, AgentOutput):
                # Take the answer that the agent's guardrails accepted. It may differ from the model's last text.
                self._results = [item.result.raw]
                self._has_agent_answer = True
            elif isinstance(item, LLMFinished) and not item.origin.crew_name and not self._is_of_answered_agent(item):
                self._results = [item.text]
            self._emitter.on_next(cast(Event, self._adopt(item)))
        else:
            self._results = [item]

    def _is_of_answered_agent(self, call: LLMFinished) -> bool:
        """Return whether an agent inside the method made ``call``, and an agent has already given its answer.

        If so, the text of ``call`` must not replace the agent's answer.
        """
        return self._has_agent_answer and call.origin.agent_id not in ("", self._emitter.origin.agent_id)

    def _adopt(self, item: StreamChunk | Happened) -> StreamChunk | Happened:
        """Return ``item`` as this run emits it. Drop the text that it retracts, if it is a retraction.

        Reasoning and content parts from outside this run get the labels that chunks get, so that retractions cover
        them too.
        """
        if isinstance(item, Retracted):
            return self._forget_retracted(item)
        if isinstance(item, ReasoningChunk | ContentPart) and not item.origin.span_id.startswith(self._emitter.run.id):
            own = self._emitter.origin
            ids = {name: getattr(own, name) for name in ("parent_span_id", "run_id", "parent_run_id")}
            return replace(item, origin=replace(item.origin, **self._labels_for(item.origin), **ids))
        return item

    def _forget_retracted(self, retracted: Retracted) -> Retracted:
        """Drop the text that ``retracted`` makes void. Return the event to emit.

        A retraction from this run is returned unchanged. A retraction from another run names spans of the other run.
        But the text of the other run was emitted with the span of this method. So the event to emit names the span of
        this method. It also covers all plain text, which has the method's ``attempt``.
        """
        if not retracted.origin.span_id.startswith(self._emitter.run.id):
            here, attempts = self._emitter.origin, retracted.attempts
            if here.attempt not in attempts:
                attempts = (*attempts, here.attempt)
            retracted = replace(retracted, origin=here, attempts=attempts, span_ids=(here.span_id,))
        is_plain_void = retracted.covers(self._emitter.origin.chunk(""))  # plain text has the labels of the method
        self._text = [
            text for text in self._text if not (is_plain_void if isinstance(text, str) else retracted.covers(text))
        ]
        return retracted

    def _label_chunk(self, chunk: StreamChunk) -> StreamChunk:
        """Return ``chunk`` if it comes from this run. Otherwise return a copy that belongs to this method.

        A chunk from outside this run was created by the program, or comes from another run. The copy has the method's
        flow and span. Its other labels are filled in only if they are empty. The copy has no number, so that this run
        numbers it.
        """
        if chunk.span_id.startswith(self._emitter.run.id):
            return chunk
        return chunk.model_copy(update=self._labels_for(chunk) | {"seq": -1, "at": 0.0})

    def _labels_for(self, labels: StreamChunk | Origin) -> dict[str, Any]:
        """Return the labels that something with ``labels`` from outside this run gets."""
        own = self._emitter.origin.labels
        missing = {name: value for name, value in own.items() if not getattr(labels, name)}
        return missing | {name: own[name] for name in _METHOD_LABELS}


_NOTHING = object()
_EMITTED = (str, StreamChunk, Happened)
_METHOD_LABELS = ("flow_name", "flow_id", "flow_method", "namespace", "span_id")
