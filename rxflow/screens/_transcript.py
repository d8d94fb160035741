"""A run as lines of plain text, for pipes, files and terminals without control codes."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from rxflow._showing import shorten, show_line, show_lines, show_title
from rxflow._streaming import is_repeated
from rxflow.screens._lanes import MAX_LANE_CHARS
from rxflow.screens._run_tree import RunTree
from rxflow.screens._wording import show_call, show_error, show_value
from rxflow.types import (
    Cancelled,
    Event,
    Failed,
    Finished,
    FlowCancelled,
    FlowFailed,
    FlowStarted,
    InputRequested,
    LLMRetrying,
    MethodCancelled,
    MethodFailed,
    MethodFinished,
    MethodStarted,
    Origin,
    Retracted,
    Started,
    StreamChunk,
    StreamChunkType,
    TaskCancelled,
    TaskFailed,
    TaskStarted,
    ToolFailed,
    ToolFinished,
    ToolStarted,
)

MIN_TEXT_COLUMNS = 20


class Transcript:
    """Turns events into lines. When several speakers stream at once, each line has the text and name of one speaker."""

    def __init__(self, tree: RunTree, width: int) -> None:
        self._tree = tree
        self._width = width
        self._shown_error: BaseException | None = None
        self._unsaid: dict[tuple[str, str], str] = {}

    def read(self, event: Event) -> Iterator[str]:
        """Yield the lines that ``event`` completes."""
        said = self._tree.add(event)
        if is_repeated(event):
            return
        match event:
            case StreamChunk():
                if event.chunk_type is StreamChunkType.TEXT:
                    yield from self._say(event.span_id, _name(event), event.content)
            case Retracted() | LLMRetrying() | InputRequested():
                name = _name(event.origin)
                yield from self._end_lines(name=name)
                yield f"{name}: {said}"
            case Started():
                yield from self._begin(event)
            case Finished() | Failed() | Cancelled():
                yield from self._end_lines(event.origin.span_id)
                yield from self._end(event)
            case _:
                pass

    def finish(self) -> Iterator[str]:
        """Yield the incomplete lines that are left, and how the run ended."""
        yield from self._end_lines()
        error = self._tree.error
        if error is not None and error is not self._shown_error:
            yield f"x {show_error(error)}"
        yield self._tree.describe_outcome()

    def _begin(self, event: Started) -> Iterator[str]:
        match event:
            case FlowStarted() | MethodStarted():
                yield f"> {_path(event.origin)}"
            case TaskStarted():
                yield f"> {_path(event.origin)}: {show_title(event.origin.task_name or event.description)}"
            case ToolStarted():
                yield f"{_name(event.origin)} -> {show_call(event.tool_name, event.arguments)}"
            case _:
                pass

    def _end(self, event: Finished | Failed | Cancelled) -> Iterator[str]:
        match event:
            case ToolFinished():
                yield f"{_name(event.origin)} <- {shorten(event.tool_name)}: {show_value(event.result)}"
            case ToolFailed():
                yield f"{_name(event.origin)} <- {shorten(event.tool_name)} failed: {show_error(event.error)}"
            case TaskFailed() | MethodFailed() | FlowFailed():
                self._shown_error = event.error
                yield f"x {_path(event.origin)}: {show_error(event.error)}"
            case TaskCancelled() | MethodCancelled() | FlowCancelled():
                yield f"/ {_path(event.origin)}: {shorten(event.reason) or 'stopped'}"
            case MethodFinished():
                yield f"+ {_path(event.origin)}{f': {shorten(event.label)}' if event.label else ''}"
            case _:
                pass

    def _say(self, span_id: str, name: str, text: str) -> Iterator[str]:
        """Yield the complete lines of a speaker's text, and keep the rest for later."""
        text = self._unsaid.pop((span_id, name), "") + text
        columns = max(MIN_TEXT_COLUMNS, self._width - len(name) - 2)
        if "\n" not in text and len(text) <= columns:
            self._unsaid[span_id, name] = text
            return
        *whole, rest = show_lines(text).split("\n")
        for line in whole:
            yield from self._print(name, line, columns)
        if len(rest) > columns:
            *lines, rest = wrap(rest, columns, drop_whitespace=False, break_on_hyphens=False)
            for line in lines:
                yield from self._print(name, line, columns)
        self._unsaid[span_id, name] = rest[-MAX_LANE_CHARS:]

    def _print(self, name: str, line: str, columns: int) -> Iterator[str]:
        for part in wrap(line.strip(), columns, break_on_hyphens=False):
            yield f"{name}: {part}"

    def _end_lines(self, span_id: str | None = None, name: str | None = None) -> Iterator[str]:
        """Yield the incomplete lines of one call, of one speaker, or of all."""
        for key in [key for key in self._unsaid if span_id in (None, key[0]) and name in (None, key[1])]:
            text = show_line(self._unsaid.pop(key)).strip()
            if text:
                yield f"{key[1]}: {text}"


def _name(labels: StreamChunk | Origin) -> str:
    return shorten(labels.agent_role or labels.flow_method or labels.flow_name or "model", 30)


def _path(origin: Origin) -> str:
    return shorten(" / ".join(filter(None, [origin.flow_name, origin.flow_method, origin.agent_role])) or "run", 200)
