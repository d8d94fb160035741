"""The lanes of a screen (one for each speaker), the spending of a run, and functions that show values as text."""

from __future__ import annotations

import unicodedata
from collections import deque
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice
from math import ceil
from typing import Any, cast

from rxflow._prices import compute_cost, find_entry
from rxflow._text import MAX_VALUE_CHARS, in_words, shorten, show_line
from rxflow.types import (
    LLMCancelled,
    LLMFailed,
    LLMFinished,
    LLMStarted,
    ReasoningChunk,
    Retracted,
    StreamChunk,
    StreamChunkType,
    ToolCancelled,
    ToolFailed,
    ToolFinished,
    ToolStarted,
    UsageMetrics,
)
from rxflow.types.results import BYTES_PER_TOKEN, count_bytes, count_message_bytes

_PLAINER = str.maketrans(
    {
        **dict.fromkeys("\u201c\u201d\u201e", '"'),
        **dict.fromkeys("\u2018\u2019", "'"),
        **dict.fromkeys("\u2013\u2014", "-"),
        "…": "...",
        "→": "->",
        "←": "<-",
        "·": "-",
        "×": "x",
        "•": "*",
        "≥": ">=",
        "✗": "x",
        "\u00a0": " ",
    }
)


def fit_encoding(text: str, encoding: str) -> str:
    """Return ``text`` unchanged if ``encoding`` has all characters of ``text``; otherwise return a plainer text.

    In the plainer text, quotes, dashes and arrows are in ASCII, and letters lose their accents. Characters that
    ``encoding`` still lacks become ``?``.
    """
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        plainer = unicodedata.normalize("NFKD", text.translate(_PLAINER))
        bare = "".join(character for character in plainer if not unicodedata.combining(character))
        return bare.encode(encoding, "replace").decode(encoding)
    return text


def show_call(name: str, arguments: Mapping[str, Any]) -> str:
    """Return a tool call as text in Python's syntax, such as ``name(key='value')``. Long values are shortened."""
    shown = ", ".join(f"{shorten(str(key))}={show_value(value)}" for key, value in arguments.items())
    return f"{shorten(name)}({shorten(shown, 2 * MAX_VALUE_CHARS)})"


def show_value(value: object, depth: int = 4) -> str:
    """Return a value as one short line of text. Long texts are cut. Lists and mappings are cut after five elements.

    ``depth`` is how many levels of lists and mappings are shown. It has a limit, because a list may contain itself.
    """
    if isinstance(value, str):
        return repr(shorten(value))
    if isinstance(value, Mapping):
        pairs = list(islice(cast(Mapping[object, object], value).items(), 5))
        shown = [f"{show_value(key)}: {show_value(each, depth - 1)}" for key, each in pairs] if depth else ["…"]
        return shorten(f"{{{', '.join(shown)}}}")
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        items = list(islice(cast(Sequence[object], value), 5))
        shown = [show_value(each, depth - 1) for each in items] if depth else ["…"]
        return shorten(f"[{', '.join(shown)}]")
    return shorten(in_words(value))


def show_error(error: BaseException) -> str:
    """Return an error as one line: its class, the first line of its message, and all lines of advice.

    A line of advice begins with "→".
    """
    first, *others = in_words(error).strip().split("\n")
    advice = [shorten(line, 4 * MAX_VALUE_CHARS) for line in others if line.startswith("→")]
    name = type(error).__name__
    said = first if first.partition(":")[0].rpartition(".")[2] == name else f"{name}: {first}" if first else name
    return " ".join([shorten(said, 4 * MAX_VALUE_CHARS), *advice])


def show_seconds(seconds: float) -> str:
    """Return a duration as text: ``0.4 s``, ``12 s``, ``3 min 20 s``, ``2 h 05 min``."""
    seconds = max(seconds, 0.0)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def show_tokens(usage: UsageMetrics) -> str:
    """Return the number of tokens as text, such as ``1,204 tokens``; "" if the number is unknown.

    An estimate begins with ``~``.
    """
    total = usage.total_tokens
    if total is None and usage.is_reported:
        total = (usage.prompt_tokens or 0) + (usage.completion_tokens or 0)
    if total is None:
        return ""
    return f"{'~' if usage.is_estimated else ''}{total:,} {'token' if total == 1 else 'tokens'}"


def show_cost(cost: float | None, *, is_whole: bool = True) -> str:
    """Return a cost in US dollars as text; "cost not known" for None.

    If ``is_whole`` is False, the text begins with ``≥``, because the price of some calls is unknown.
    """
    if cost is None:
        return "cost not known"
    digits = 2 if cost >= 1 or cost == 0 else 4
    return f"{'' if is_whole else '≥ '}${cost:,.{digits}f}"


def count(number: int, noun: str) -> str:
    """Return a number with its noun as text: ``1 tool``, ``3 tools``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def count_retries(number: int) -> str:
    """Return a number of retries as text: ``1 retry``, ``2 retries``."""
    return f"{number:,} {'retry' if number == 1 else 'retries'}"


MAX_LANE_CHARS = 20_000
"""The greatest number of characters that a lane keeps. Older text is dropped, because screens show only the end."""

MAX_LANES = 200
"""The greatest number of lanes that are kept. A further lane replaces the lane whose speaker was silent longest."""


class Kind(Enum):
    """The kind of an entry in a lane."""

    TEXT = "text"
    THOUGHT = "thought"
    CALL = "call"
    RESULT = "result"
    FAILURE = "failure"


@dataclass(slots=True, eq=False)
class Entry:
    """A part of a lane: answer text or reasoning of one call, a tool call, or the result or failure of a tool.

    ``item`` is the first chunk of the entry, if the entry began with a chunk. A retraction finds the entry by
    this chunk. ``tool_id`` is the id of a tool call until the tool starts, because a later call may have the same id.
    ``is_void`` is True once the entry was retracted. ``size`` is the length of the text.
    """

    kind: Kind
    item: StreamChunk | ReasoningChunk | None = None
    tool_id: str | None = None
    is_void: bool = False
    size: int = 0
    parts: list[str] = field(default_factory=list[str])

    @property
    def text(self) -> str:
        """The text of the entry. It may contain control characters that the model has written."""
        if len(self.parts) > 1:
            self.parts = ["".join(self.parts)]
        return self.parts[0] if self.parts else ""

    def add(self, text: str) -> None:
        """Append ``text``."""
        self.parts.append(text)
        self.size += len(text)

    def replace(self, text: str) -> None:
        """Replace the whole text of the entry by ``text``."""
        self.parts, self.size = [text], len(text)


@dataclass(slots=True, eq=False)
class Lane:
    """The part of a screen that shows the texts and tool calls of one speaker.

    A speaker is an agent that works on a task, or a model that a method calls. ``spoke_at`` is the time of the last
    event of the speaker. ``is_dropped`` is True once :class:`Lanes` has removed this lane to make room for a new one.
    ``size`` is the length of the texts of all entries.
    """

    speaker: str
    topic: str
    entries: list[Entry] = field(default_factory=list[Entry])
    spoke_at: float = 0.0
    is_open: bool = True
    is_dropped: bool = False
    size: int = 0

    def say(self, kind: Kind, text: str, item: StreamChunk | ReasoningChunk | None = None) -> Entry:
        """Append ``text`` to the last entry, or to a new entry. Return the entry.

        The last entry is used if it has the kind ``kind`` and belongs to the same call as ``item``.
        """
        last = self.entries[-1] if self.entries else None
        if last is None or last.kind is not kind or not _belong_together(last.item, item):
            return self._append(Entry(kind, item), text)
        self._write(last, text)
        return last

    def spell_call(self, chunk: StreamChunk) -> None:
        """Add a piece of a tool call that the model is writing."""
        call = chunk.tool_call
        tool_id = (call.tool_id or "") if call is not None else ""
        last = self.entries[-1] if self.entries else None
        if last is None or last.is_void or last.tool_id != tool_id or not _belong_together(last.item, chunk):
            name = (call.tool_name or "") if call is not None else ""
            self._append(Entry(Kind.CALL, chunk, tool_id), f"{name} {chunk.content}")
        else:
            self._write(last, chunk.content)

    def call_tool(self, event: ToolStarted) -> None:
        """Add a tool call with its arguments. If :meth:`spell_call` has added pieces of this call, replace them."""
        spelled = (each for each in reversed(self.entries) if each.tool_id == event.tool_id and not each.is_void)
        entry = next(spelled, None)
        shown = show_call(event.tool_name, event.arguments)
        if entry is None:
            self._append(Entry(Kind.CALL), shown)
            return
        entry.tool_id = None
        self.size -= entry.size
        entry.replace("")
        self._write(entry, shown)

    def end_tool(self, event: ToolFinished | ToolFailed | ToolCancelled) -> None:
        """Add the result or error of a tool, or "stopped" if the tool was stopped."""
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
        """Add ``text`` to an entry of the lane. If the lane then has too much text, drop the oldest text."""
        entry.add(text)
        self.size += len(text)
        if self.size > MAX_LANE_CHARS:
            self._forget()

    def _forget(self) -> None:
        """Drop the oldest text, so that about half of ``MAX_LANE_CHARS`` or less is left."""
        while len(self.entries) > 1 and self.size > MAX_LANE_CHARS // 2:
            self.size -= self.entries.pop(0).size
        if self.size > MAX_LANE_CHARS // 2:
            self.entries[0].replace("…" + self.entries[0].text[-MAX_LANE_CHARS // 2 :])
            self.size = self.entries[0].size


class Lanes:
    """The lanes on the screen, one per speaker, in the order in which they were opened.

    If there are already ``MAX_LANES`` lanes, a new lane replaces the lane whose speaker was silent longest.
    """

    def __init__(self) -> None:
        self._lanes: dict[Hashable, Lane] = {}

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    def __len__(self) -> int:
        return len(self._lanes)

    def open(self, key: Hashable, speaker: str, topic: str) -> Lane:
        """Return the lane for ``key``. If there is none, create it with ``speaker`` and ``topic``."""
        lane = self._lanes.get(key)
        if lane is None:
            if len(self._lanes) >= MAX_LANES:
                oldest = min(self._lanes, key=lambda each: self._lanes[each].spoke_at)
                self._lanes.pop(oldest).is_dropped = True
            lane = self._lanes[key] = Lane(show_line(speaker), shorten(topic))
        return lane

    def retract(self, retracted: Retracted) -> int:
        """Mark the retracted entries as void. Return how many characters of answer text they have."""
        void = 0
        for lane in self:
            for entry in lane.entries:
                if entry.item is not None and not entry.is_void and retracted.covers(entry.item):
                    entry.is_void = True
                    void += entry.size if entry.kind is Kind.TEXT else 0
        return void


def say_chunk(lane: Lane, chunk: StreamChunk) -> None:
    """Add a chunk to a lane: text, or a piece of a tool call."""
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


RATE_WINDOW_S = 2.0
"""The rate of output is computed over this many seconds."""

_STEP_S = 0.1  # seconds; all output within one step is counted as one entry of the window
_FREE = "rxflow/demo"


class OpenCall:
    """An LLM call that is still open: its model, the bytes of its prompt, and the bytes of its output so far."""

    __slots__ = ("model", "output_bytes", "prompt_bytes")

    def __init__(self, model: str, prompt_bytes: int) -> None:
        self.model = model
        self.prompt_bytes = prompt_bytes
        self.output_bytes = 0

    @property
    def usage(self) -> UsageMetrics:
        """An estimate of the usage. It is empty before the first output, because nothing is billed until then."""
        if not self.output_bytes:
            return UsageMetrics()
        prompt, output = ceil(self.prompt_bytes / BYTES_PER_TOKEN), ceil(self.output_bytes / BYTES_PER_TOKEN)
        return UsageMetrics(
            prompt_tokens=prompt, completion_tokens=output, total_tokens=prompt + output, is_estimated=True
        )


class Spending:
    """The tokens, the cost and the output rate of one run."""

    def __init__(self) -> None:
        self._ended = UsageMetrics()
        self._cost: float | None = None
        self._is_whole = True
        self._open: dict[str, OpenCall] = {}
        self._window: deque[tuple[float, int]] = deque()

    def begin(self, event: LLMStarted) -> None:
        """Record that a call has started."""
        prompt_bytes = sum(map(count_message_bytes, event.messages))
        self._open[event.origin.span_id] = OpenCall(event.model, prompt_bytes)

    def add_output(self, span_id: str, text: str, now: float) -> None:
        """Record that a call has emitted ``text``."""
        size = len(text) if text.isascii() else count_bytes(text)
        call = self._open.get(span_id)
        if call is not None:
            call.output_bytes += size
        window = self._window
        if window and now - window[-1][0] < _STEP_S:
            window[-1] = (window[-1][0], window[-1][1] + size)
            return
        while window and now - window[0][0] > RATE_WINDOW_S:
            window.popleft()
        window.append((now, size))

    def end(self, event: LLMFinished | LLMFailed | LLMCancelled) -> UsageMetrics:
        """Record the end of a call. Return ``event.usage``; if it is empty and the call is open, return an estimate."""
        call = self._open.pop(event.origin.span_id, None)
        if event.usage.is_reported or call is None:
            return self._count(event.usage, event.cost)
        return self._count(call.usage, _price(call, call.usage))

    def cut_off(self, span_id: str) -> UsageMetrics:
        """Record that a call was stopped, and return an estimate of its usage. Used if no event reports the end.

        The estimate is empty if the span is not an open call, or if the call has no output.
        """
        call = self._open.pop(span_id, None)
        if call is None:
            return UsageMetrics()
        return self._count(call.usage, _price(call, call.usage))

    def _count(self, usage: UsageMetrics, cost: float | None) -> UsageMetrics:
        self._ended += usage
        if cost is not None:
            self._cost = (self._cost or 0.0) + cost
        elif usage.is_reported:
            self._is_whole = False
        return usage

    @property
    def usage(self) -> UsageMetrics:
        """The usage of all calls so far. The usage of open calls is estimated."""
        return sum((call.usage for call in self._open.values()), self._ended)

    @property
    def cost(self) -> float | None:
        """The cost in US dollars of all calls so far whose price is known; None if no price is known."""
        known = [self._cost, *(_price(call, call.usage) for call in self._open.values())]
        costs = [each for each in known if each is not None]
        return sum(costs) if costs else None

    @property
    def is_whole(self) -> bool:
        """Whether :attr:`cost` is complete. It is incomplete if a call has used tokens, but the price is unknown."""
        return self._is_whole and all(
            not call.output_bytes or _price(call, call.usage) is not None for call in self._open.values()
        )

    def compute_rate(self, now: float) -> float:
        """Return the output tokens per second, estimated over the last :data:`RATE_WINDOW_S` seconds."""
        recent = [(at, size) for at, size in self._window if now - at <= RATE_WINDOW_S]
        if not recent:
            return 0.0
        return sum(size for _, size in recent) / BYTES_PER_TOKEN / max(now - recent[0][0], _STEP_S)


def _price(call: OpenCall | None, usage: UsageMetrics) -> float | None:
    if call is None or not usage.is_reported:
        return None
    return 0.0 if call.model == _FREE else compute_cost(find_entry(call.model), usage)
