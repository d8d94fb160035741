"""The lanes of a run, one per speaker: texts, thoughts, tool calls and their results."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from rxflow._showing import shorten, show_line
from rxflow.screens._wording import show_call, show_error, show_value
from rxflow.types import (
    ReasoningChunk,
    Retracted,
    StreamChunk,
    StreamChunkType,
    ToolCancelled,
    ToolFailed,
    ToolFinished,
    ToolStarted,
)

MAX_LANE_CHARS = 20_000
"""The number of characters of text that a lane keeps. A screen shows only the end of a text."""

MAX_LANES = 200
"""The number of lanes that are kept. In a run with more speakers, the ones that spoke last are kept."""


class Kind(Enum):
    """The kind of an entry in a lane."""

    TEXT = "text"
    THOUGHT = "thought"
    CALL = "call"
    RESULT = "result"
    FAILURE = "failure"


@dataclass(slots=True, eq=False)
class Entry:
    """A passage of one kind from one call.

    ``item`` is the first chunk of the passage; a retraction finds the entry by it. ``is_void`` is set when the entry is
    retracted.
    """

    kind: Kind
    item: StreamChunk | ReasoningChunk | None = None
    tool_id: str = ""
    is_void: bool = False
    size: int = 0
    parts: list[str] = field(default_factory=list[str])

    @property
    def text(self) -> str:
        """The passage exactly as the model wrote it, including control characters."""
        if len(self.parts) > 1:
            self.parts = ["".join(self.parts)]
        return self.parts[0] if self.parts else ""

    def add(self, text: str) -> None:
        """Append ``text``."""
        self.parts.append(text)
        self.size += len(text)

    def replace(self, text: str) -> None:
        """Replace the passage by ``text``."""
        self.parts, self.size = [text], len(text)


@dataclass(slots=True, eq=False)
class Lane:
    """One speaker: an agent that works on a task, or a model that a method calls.

    ``is_dropped`` is set when the lane makes room for another one.
    """

    speaker: str
    topic: str
    entries: list[Entry] = field(default_factory=list[Entry])
    spoke_at: float = 0.0
    is_open: bool = True
    is_dropped: bool = False
    size: int = 0

    def say(self, kind: Kind, text: str, item: StreamChunk | ReasoningChunk | None = None) -> Entry:
        """Append to the last entry if ``text`` continues it; otherwise begin a new entry."""
        last = self.entries[-1] if self.entries else None
        if last is None or last.kind is not kind or not _belong_together(last.item, item):
            return self._append(Entry(kind, item), text)
        self._write(last, text)
        return last

    def spell_call(self, chunk: StreamChunk) -> None:
        """Show a piece of a tool call, which the model is writing."""
        call = chunk.tool_call
        tool_id = (call.tool_id or "") if call is not None else ""
        last = self.entries[-1] if self.entries else None
        if last is None or last.kind is not Kind.CALL or last.tool_id != tool_id:
            name = (call.tool_name or "") if call is not None else ""
            self._append(Entry(Kind.CALL, chunk, tool_id), f"{name} {chunk.content}")
        else:
            self._write(last, chunk.content)

    def call_tool(self, event: ToolStarted) -> None:
        """Show a tool call with its arguments. It replaces the pieces of the call that the model has streamed."""
        spelled = (each for each in reversed(self.entries) if each.kind is Kind.CALL and each.tool_id == event.tool_id)
        entry = next(spelled, None)
        shown = show_call(event.tool_name, event.arguments)
        if entry is None:
            self._append(Entry(Kind.CALL), shown)
            return
        entry.tool_id = ""  # cleared because a later call may have the same id
        self.size -= entry.size
        entry.replace("")
        self._write(entry, shown)

    def end_tool(self, event: ToolFinished | ToolFailed | ToolCancelled) -> None:
        """Show what a tool returned, or why it ended without a result."""
        kind, shown = Kind.RESULT, "stopped"
        if isinstance(event, ToolFinished):
            shown = show_value(event.result)
        elif isinstance(event, ToolFailed):
            kind, shown = Kind.FAILURE, show_error(event.error)
        self._append(Entry(kind), f"{shorten(event.tool_name)}: {shown}")

    def _append(self, entry: Entry, text: str) -> Entry:
        self.entries.append(entry)
        self._write(entry, text)
        return entry

    def _write(self, entry: Entry, text: str) -> None:
        """Add ``text`` to an entry of the lane. If the lane then has too much text, the oldest is dropped."""
        entry.add(text)
        self.size += len(text)
        if self.size > MAX_LANE_CHARS:
            self._forget()

    def _forget(self) -> None:
        """Drop the oldest text until half of the limit is left."""
        while len(self.entries) > 1 and self.size > MAX_LANE_CHARS // 2:
            self.size -= self.entries.pop(0).size
        if self.size > MAX_LANE_CHARS // 2:
            self.entries[0].replace("…" + self.entries[0].text[-MAX_LANE_CHARS // 2 :])
            self.size = self.entries[0].size


class Lanes:
    """The lanes of a run, in the order of their first use."""

    def __init__(self) -> None:
        self._lanes: dict[Hashable, Lane] = {}

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    def __len__(self) -> int:
        return len(self._lanes)

    def open(self, key: Hashable, speaker: str, topic: str) -> Lane:
        """Return the lane for ``key``, and create it if there is none."""
        lane = self._lanes.get(key)
        if lane is None:
            if len(self._lanes) >= MAX_LANES:
                oldest = min(self._lanes, key=lambda each: self._lanes[each].spoke_at)
                self._lanes.pop(oldest).is_dropped = True
            lane = self._lanes[key] = Lane(show_line(speaker), shorten(topic))
        return lane

    def retract(self, retracted: Retracted) -> int:
        """Mark the retracted entries as void. Return how many characters of text they have."""
        void = 0
        for lane in self:
            for entry in lane.entries:
                if entry.item is not None and not entry.is_void and retracted.covers(entry.item):
                    entry.is_void = True
                    void += entry.size if entry.kind is Kind.TEXT else 0
        return void


def say_chunk(lane: Lane, chunk: StreamChunk) -> None:
    """Add a chunk to a lane. The pieces of a tool call are shown until the tool starts."""
    if chunk.chunk_type is StreamChunkType.TEXT:
        lane.say(Kind.TEXT, chunk.content, chunk)
        return
    lane.spell_call(chunk)


def _belong_together(one: StreamChunk | ReasoningChunk | None, other: StreamChunk | ReasoningChunk | None) -> bool:
    if one is None or other is None:
        return one is other
    return _call_of(one) == _call_of(other)


def _call_of(item: StreamChunk | ReasoningChunk) -> tuple[str, int]:
    labels = item if isinstance(item, StreamChunk) else item.origin
    return labels.span_id, labels.attempt
