"""What the adapters share: operators that read the events of a run, and a tracker for the parts of models' answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from pydantic_core import from_json
from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow._streaming import Cleanup, Owned
from rxflow.operators._core import select, through
from rxflow.types import (
    Event,
    Happened,
    LLMCancelled,
    LLMFailed,
    LLMFinished,
    ReasoningChunk,
    Retracted,
    StreamChunk,
    StreamChunkType,
    ToolStarted,
)

logger = logging.getLogger("rxflow")

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Translator(Protocol[T_co]):
    """Translates the events of one run into the items of a protocol."""

    def read(self, event: Event) -> Iterable[T_co]:
        """Return the items for the next event."""
        ...

    def finish(self, error: BaseException | None) -> Iterable[T_co]:
        """Return the items for the end of the run. ``error`` is the error of the run or of :meth:`read`, or None."""
        ...


class Watcher(Protocol):
    """Observes the events of one run."""

    def read(self, event: Event) -> None:
        """Observe the next event."""
        ...

    def close(self, error: BaseException | None, *, is_disposed: bool) -> None:
        """Handle the end of the run. Called once.

        ``error`` is the error that ended the run; None if there was none. ``is_disposed`` is True if the subscription
        was disposed before the run's end.
        """
        ...


def translate(make: Callable[[], Translator[T]]) -> Callable[[Observable[Any]], Observable[T]]:
    """Create an operator that emits the items of a translator, with a new translator for each subscription. ::

        source       --a--b--#
        translate    --A--B--E|

    If the run ends with an error, :meth:`Translator.finish` turns the error into items (``E``), and the resulting
    stream completes. If :meth:`Translator.read` raises an error, the run is disposed, and the error is handled in the
    same way. The resulting stream ends with an error only if :meth:`Translator.finish` raises an error.
    """

    def selection(source: Observable[Any]) -> Observable[T]:
        def subscribe(observer: ObserverBase[T], scheduler: SchedulerBase | None = None) -> DisposableBase:
            translator = make()
            emit = observer.on_next

            def on_next(event: Event) -> None:
                try:
                    items = list(translator.read(event))
                except Exception as failure:  # noqa: BLE001 - the error ends the translated stream
                    end(failure)
                    return
                for item in items:
                    emit(item)

            def end(error: BaseException | None) -> None:
                items: list[T] = []
                failure: Exception | None = None
                try:
                    items.extend(translator.finish(error))
                except Exception as raised:  # noqa: BLE001 - otherwise the stream would never end
                    failure = raised
                for item in items:
                    emit(item)
                if failure is None:
                    observer.on_completed()
                else:
                    observer.on_error(failure)

            return source.subscribe(on_next, end, lambda: end(None), scheduler=scheduler)

        return Observable(subscribe)

    return select(selection)


def watch(make: Callable[[], Watcher]) -> Callable[[Observable[T]], Observable[T]]:
    """Create an operator that calls a watcher with each event, and passes all items on unchanged. ::

        source    --a--b--c--|
        watch     --a--b--c--|

    Each subscription has a new watcher. If the watcher raises errors, the run continues. Only the watcher's first
    error is logged.
    """

    def operator(source: Observable[Any]) -> Observable[Any]:
        def subscribe(observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
            watcher = make()
            is_closed = False
            has_failed = False

            def report(failure: Exception) -> None:
                nonlocal has_failed
                if not has_failed:
                    has_failed = True
                    logger.error("%s failed; the run goes on", type(watcher).__name__, exc_info=failure)

            def close(error: BaseException | None, *, is_disposed: bool = False) -> None:
                nonlocal is_closed
                if not is_closed:
                    is_closed = True
                    try:
                        watcher.close(error, is_disposed=is_disposed)
                    except Exception as failure:  # noqa: BLE001 - raised by users' exporters and handlers
                        report(failure)

            def on_next(event: Any) -> None:
                if isinstance(event, Happened | StreamChunk):
                    try:
                        watcher.read(event)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
                    except Exception as failure:  # noqa: BLE001 - raised by users' exporters and handlers
                        report(failure)
                observer.on_next(event)

            def on_error(error: Exception) -> None:
                close(error)
                observer.on_error(error)

            def on_completed() -> None:
                close(None)
                observer.on_completed()

            running = source.subscribe(on_next, on_error, on_completed, scheduler=scheduler)
            return Owned(running, Cleanup(lambda: close(None, is_disposed=True)))

        return Observable(subscribe)

    return through(operator)


@dataclass(slots=True, eq=False)
class Part:
    """A part of a model's answer: a text, a reasoning, or one tool call.

    ``id`` identifies the part in the run. ``tool_id`` comes from the provider, so several parts may have the same
    ``tool_id``. ``call_id`` is the result of :func:`call_id_of`. ``said`` is the first chunk of the part. If no chunk
    showed a tool call, ``said`` is the start of the tool.
    """

    kind: Literal["text", "reasoning", "tool_call"]
    id: str
    call_id: str
    said: StreamChunk | ReasoningChunk | ToolStarted
    tool_id: str = ""
    tool_name: str = ""


@dataclass(slots=True, frozen=True)
class Step:
    """A change of a part. If ``verb`` is "say", ``text`` is added to the part. A part ends before it is retracted."""

    verb: Literal["begin", "say", "end", "retract"]
    part: Part
    text: str = ""


class PartTracker:
    """Finds the parts of all answers in a run.

    An LLM call has at most one open part of text or reasoning. That part ends when a part of another kind begins, or
    when the LLM call ends. Tool calls stay open until the LLM call ends.
    """

    def __init__(self) -> None:
        self._speaking: dict[str, Part] = {}  # by LLM call: the open part of text or reasoning
        self._tool_calls: dict[str, dict[int, Part]] = {}  # the open tool calls, by LLM call and then by index
        self._counts: dict[str, int] = {}  # by the ``name`` given to _make_id(): how many parts have had this name
        self._shown: dict[str, list[Part]] = {}  # by LLM call: all parts so far, in case they are retracted

    def read(self, event: Event) -> list[Step]:
        """Return the steps that ``event`` causes."""
        if event.replayed:  # a resumed run repeats this event, and the client already has it
            return []
        if isinstance(event, StreamChunk):
            if event.chunk_type is StreamChunkType.TEXT:
                return self._say("text", call_id_of(event), event)
            return self._call_tool(event)
        if isinstance(event, ReasoningChunk):
            return self._say("reasoning", call_id_of(event), event)
        if isinstance(event, LLMFinished | LLMFailed | LLMCancelled):
            return list(self._end(call_id_of(event)))
        if isinstance(event, Retracted):
            return list(self._retract(event))
        return []

    def add_tool_call(self, event: ToolStarted) -> None:
        """Add the tool call of ``event`` if no chunk showed it, so that it is retracted with its LLM call."""
        call_id = call_id_of(event)
        part_id = tool_part_id(call_id, event.tool_id)
        if all(part.id != part_id for part in self._shown.get(call_id, ())):
            self._add(Part("tool_call", part_id, call_id, event, event.tool_id, event.tool_name))

    def end_all(self) -> list[Step]:
        """End all open parts, and return the steps."""
        return [step for call_id in [*self._speaking, *self._tool_calls] for step in self._end(call_id)]

    def _say(self, kind: Literal["text", "reasoning"], call_id: str, event: StreamChunk | ReasoningChunk) -> list[Step]:
        part = self._speaking.get(call_id)
        if part is not None and part.kind == kind:
            return [Step("say", part, event.content)] if event.content else []
        if not event.content:
            return []
        steps = [] if part is None else [Step("end", part)]
        part = self._add(Part(kind, self._make_id(call_id), call_id, event))
        self._speaking[call_id] = part
        return [*steps, Step("begin", part), Step("say", part, event.content)]

    def _call_tool(self, chunk: StreamChunk) -> list[Step]:
        delta = chunk.tool_call
        if delta is None:
            return []
        call_id = call_id_of(chunk)
        open_calls = self._tool_calls.setdefault(call_id, {})
        part = open_calls.get(delta.index)
        steps: list[Step] = []
        if part is None:
            speaking = self._speaking.pop(call_id, None)
            steps = [] if speaking is None else [Step("end", speaking)]
            tool_id = delta.tool_id or ""
            part_id = self._make_id(tool_part_id(call_id, tool_id or str(delta.index)))
            part = Part("tool_call", part_id, call_id, chunk)
            part.tool_id, part.tool_name = tool_id, delta.tool_name or ""
            open_calls[delta.index] = self._add(part)
            steps.append(Step("begin", part))
        return [*steps, Step("say", part, delta.arguments)] if delta.arguments else steps

    def _make_id(self, name: str) -> str:
        number = self._counts.get(name, 0) + 1
        made = name if number == 1 else f"{name}/{number}"
        # The id may be taken. For example, "call/2" is also the name of tool call 2 if that tool call has no own id.
        while made in self._counts:
            number += 1
            made = f"{name}/{number}"
        self._counts[name] = number
        self._counts.setdefault(made, 1)
        return made

    def _add(self, part: Part) -> Part:
        self._shown.setdefault(part.call_id, []).append(part)
        return part

    def _end(self, call_id: str) -> Iterator[Step]:
        speaking = self._speaking.pop(call_id, None)
        if speaking is not None:
            yield Step("end", speaking)
        for part in self._tool_calls.pop(call_id, {}).values():
            yield Step("end", part)

    def _retract(self, event: Retracted) -> Iterator[Step]:
        for call_id, parts in list(self._shown.items()):
            # The id of the call counts too, because a retraction need not name the span of ``said``. A tool has its own
            # span, and the chunks of a resumed run may have been shown in a span from before the pause.
            if call_id in event.llm_call_ids or event.covers(parts[0].said):
                yield from self._end(call_id)
                del self._shown[call_id]
                yield from (Step("retract", part) for part in parts)


def call_id_of(event: Event) -> str:
    """Return the id of the event's LLM call. If the event has none, return the id of the event's span."""
    labels = event if isinstance(event, StreamChunk) else event.origin
    return labels.llm_call_id or labels.span_id


def tool_part_id(call_id: str, tool_id: str) -> str:
    """Return an id for a tool call. It contains ``call_id``, because two LLM calls may have the same ``tool_id``."""
    return f"{call_id}/{tool_id}"


def read_json(text: str) -> Any:
    """Parse ``text`` as JSON. Return an empty dict if ``text`` is empty, and ``text`` itself if it is not JSON."""
    try:
        return from_json(text or "{}")
    except ValueError:
        return text
