"""Draws a run with the library rich: while the run goes on, and as a summary at the end.

For pipes, files and simple terminals, this module turns a run into lines of plain text.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from textwrap import wrap

from rxflow import _lazy
from rxflow._streaming import is_repeated
from rxflow._text import in_words, shorten, show_line, show_lines, show_title
from rxflow.screens._lanes import (
    MAX_LANE_CHARS,
    Entry,
    Kind,
    Lane,
    count,
    count_retries,
    fit_encoding,
    show_call,
    show_cost,
    show_error,
    show_seconds,
    show_tokens,
    show_value,
)
from rxflow.screens._run_tree import RunTree
from rxflow.screens._spans import Row, Span, State, list_rows
from rxflow.types import (
    Cancelled,
    Event,
    Failed,
    Finished,
    FlowCancelled,
    FlowFailed,
    FlowStarted,
    InputRequested,
    LLMFinished,
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
    """Turns events into lines of plain text.

    Each line of an answer has the name and text of only one speaker, even if several speakers stream at once.
    """

    def __init__(self, tree: RunTree, width: int) -> None:
        self._tree = tree
        self._width = width
        self._shown_error: BaseException | None = None
        self._unsaid: dict[tuple[str, str], str] = {}
        self._last_answer = ""

    def read(self, event: Event) -> Iterator[str]:
        """Add ``event`` to the :class:`RunTree`, and yield the lines that are now complete."""
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
                if isinstance(event, LLMFinished):
                    self._last_answer = event.text
                yield from self._end_lines(event.origin.span_id)
                yield from self._end(event)
            case _:
                pass

    def finish(self) -> Iterator[str]:
        """Yield the incomplete lines, the error or result if not shown yet, and a line about how the run ended."""
        yield from self._end_lines()
        tree = self._tree
        if tree.error is not None and tree.error is not self._shown_error:
            yield f"{_MARKS[tree.state][1]} {show_error(tree.error)}"
        elif tree.state is State.DONE and tree.result is not None:
            result = in_words(tree.result).strip()
            if result != self._last_answer.strip():
                for line in show_lines(result).split("\n"):
                    yield from (f"= {part}" for part in self._wrap(line, self._width - 2) or [""])
        yield tree.describe_outcome()

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
        """Yield the complete lines of a speaker's text, and keep the rest for later.

        A line is complete if a line break follows, or if the next word does not fit into the width.
        """
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
        for part in self._wrap(line.strip(), columns):
            yield f"{name}: {part}"

    def _wrap(self, line: str, columns: int) -> list[str]:
        return wrap(line, max(MIN_TEXT_COLUMNS, columns), break_on_hyphens=False)

    def _end_lines(self, span_id: str | None = None, name: str | None = None) -> Iterator[str]:
        """Yield the incomplete lines of the given span or speaker. Without arguments, yield all incomplete lines."""
        for key in [key for key in self._unsaid if span_id in (None, key[0]) and name in (None, key[1])]:
            text = show_line(self._unsaid.pop(key)).strip()
            if text:
                yield f"{key[1]}: {text}"


def _name(labels: StreamChunk | Origin) -> str:
    return shorten(labels.agent_role or labels.flow_method or labels.flow_name or "model", 30)


def _path(origin: Origin) -> str:
    return shorten(" / ".join(filter(None, [origin.flow_name, origin.flow_method, origin.agent_role])) or "run", 200)


with _lazy.extra("terminal"):
    from rich.box import ROUNDED
    from rich.console import Console, Group, OverflowMethod, RenderableType
    from rich.padding import Padding
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

WIDE = 100
"""If the console has at least this many columns, the lanes are drawn beside the tree; otherwise below the tree."""

MIN_LANE_COLUMNS = 48
MIN_LANE_ROWS = 3
MAX_TREE_COLUMNS = 72
MIN_BODY_ROWS = 14
MAX_BODY_ROWS = 28
MAX_SUMMARY_ROWS = 200
MAX_SUMMARY_COLUMNS = 110

_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_FRAME_S = 0.1
_MARKS = {
    State.WAITING: ("○", ".", "dim"),
    State.RUNNING: (_SPINNER, "|/-\\", "cyan"),
    State.ASKING: ("?", "?", "bold magenta"),
    State.PAUSED: ("‖", "=", "magenta"),
    State.DONE: ("✓", "+", "green"),
    State.FAILED: ("✗", "x", "bold red"),
    State.STOPPED: ("⊘", "/", "yellow"),
}
_ENTRIES = {
    Kind.TEXT: ("", ""),
    Kind.THOUGHT: ("", "dim italic"),
    Kind.CALL: ("→ ", "yellow"),
    Kind.RESULT: ("← ", "green"),
    Kind.FAILURE: ("← ", "red"),
}
_VOID = ("✗ ", "strike dim")


class Drawing:
    """Draws a run for one console. Text of a model is never interpreted as markup or as terminal control codes."""

    def __init__(self, tree: RunTree, console: Console) -> None:
        self._tree = tree
        self._console = console
        self._is_ascii = console.options.ascii_only
        self._overflow: OverflowMethod = "crop" if self._is_ascii else "ellipsis"
        self._shown_lanes: list[Lane] = []

    def draw_frame(self) -> RenderableType:
        """Draw the current state of the run in the size of the console."""
        width, height = self._console.size
        body_rows = max(3, min(height - 4, MAX_BODY_ROWS))
        if width >= WIDE:
            columns = min(MAX_TREE_COLUMNS, width * 2 // 5)
            rows = self._draw_tree(columns, body_rows)
            lanes = self._draw_lanes(width - columns - 2, min(body_rows, max(len(rows), MIN_BODY_ROWS)))
            body = Table.grid(padding=(0, 2, 0, 0))
            body.add_column(width=columns)
            body.add_column(width=width - columns - 2)
            body.add_row(Group(*rows), lanes)
            return Group(body, *self._draw_figures(width))
        rows = self._draw_tree(width, max(3, body_rows // 2) if len(self._tree.lanes) else body_rows)
        return Group(*rows, self._draw_lanes(width, body_rows - len(rows)), *self._draw_figures(width))

    def draw_summary(self) -> RenderableType:
        """Draw the tree, one line about how the run ended, and the run's result or error.

        If the tree has more than ``MAX_SUMMARY_ROWS`` rows, the last rows are left out.
        """
        tree, width = self._tree, min(self._console.width, MAX_SUMMARY_COLUMNS)
        parts: list[RenderableType] = [*self._draw_tree(width, MAX_SUMMARY_ROWS, folds=False), Text()]
        parts.append(self.draw_outcome())
        if tree.error is not None:
            parts.append(self._write(show_error(tree.error), "yellow" if tree.state is State.STOPPED else "red"))
        elif tree.state is State.DONE and tree.result is not None:
            parts += [Text(), self._write(show_lines(in_words(tree.result)).strip())]
        return Group(*parts)

    def _draw_tree(self, width: int, limit: int, *, folds: bool = True) -> list[Text]:
        rows = list(list_rows(self._tree.roots))
        if folds and len(rows) > limit:
            rows = _fold(rows, limit)
        left_out = len(rows) - limit
        if left_out > 0:
            rows = rows[: limit - 1]
        drawn = [self._draw_row(row, width) for row in rows]
        if left_out > 0:
            drawn.append(self._write(f"… {left_out + 1:,} more", "dim"))
        return drawn

    def _draw_row(self, row: Row, width: int) -> Text:
        span = row.span
        mark, style = self._mark(span.state)
        guides = _to_ascii(row.guides) if self._is_ascii else row.guides
        line = Text.assemble((guides, "dim"), (mark, style), " ", no_wrap=True, overflow=self._overflow, end="")
        if span.agent:
            line.append(self._fit(f"{span.agent} · "), "cyan")
        is_strong = span.kind == "flow" or (span.kind == "method" and span.state is not State.WAITING)
        line.append(self._fit(span.label), "dim" if span.state is State.WAITING else "bold" if is_strong else "")
        if span.runs > 1:
            line.append(self._fit(f" ×{span.runs}"), "cyan")
        if span.note:
            is_bad = span.state is State.FAILED
            line.append(self._fit(f"  {span.note}"), "red" if is_bad else "dim italic")
        if row.folded:
            line.append(self._fit(f"  (+{row.folded})"), "dim")
        right = self._fit(self._measure(span))
        room = max(0, width - len(right) - 1)
        line.truncate(room, overflow=self._overflow)
        line.append(" " * (room - line.cell_len + 1))
        line.append(right, "dim")
        line.end = "\n"
        return line

    def _measure(self, span: Span) -> str:
        if span.state is State.WAITING:
            return ""
        total = span.usage.total_tokens
        tokens = f"{total:,} tok " if total and span.kind in ("task", "method") else ""
        return f"{tokens}{show_seconds(span.measure(self._tree.now)):>6}"

    def _draw_lanes(self, width: int, rows: int) -> RenderableType:
        lanes = list(self._tree.lanes)
        columns = max(1, min(len(lanes), width // MIN_LANE_COLUMNS))
        per_column = max(1, rows // MIN_LANE_ROWS)
        if rows < 3 or not lanes:
            return Text(end="")
        lanes = self._choose(lanes, columns * per_column)
        columns = min(columns, len(lanes))
        per_column = -(-len(lanes) // columns)
        grid = Table.grid(padding=(0, 0), expand=False)
        for number in range(columns):
            grid.add_column(width=width // columns + (number < width % columns))
        stacks = [lanes[number::columns] for number in range(columns)]
        grid.add_row(*(self._stack(stack, width // columns, rows) for stack in stacks))
        return grid

    def _choose(self, lanes: list[Lane], limit: int) -> list[Lane]:
        """Choose at most ``limit`` lanes to draw, but at least one. Return them in their original order.

        Three criteria decide, the most important first: the lane is open; the lane was also drawn the last time; the
        speaker of the lane spoke most recently.
        """
        chosen = sorted(lanes, key=lambda lane: (lane.is_open, lane in self._shown_lanes, lane.spoke_at), reverse=True)[
            : max(1, limit)
        ]
        self._shown_lanes = [lane for lane in lanes if lane in chosen]
        return self._shown_lanes

    def _stack(self, lanes: Sequence[Lane], width: int, rows: int) -> RenderableType:
        heights = [rows // len(lanes) + (number < rows % len(lanes)) for number in range(len(lanes))]
        return Group(*(self._draw_lane(lane, width, height) for lane, height in zip(lanes, heights, strict=True)))

    def _draw_lane(self, lane: Lane, width: int, height: int) -> RenderableType:
        title = Text(self._fit(lane.speaker), "bold cyan" if lane.is_open else "dim", no_wrap=True)
        if lane.topic:
            title.append(self._fit(f" · {lane.topic}"), "not bold dim")
        is_boxed = self._console.width >= WIDE
        columns, rows = (width - 4, height - 2) if is_boxed else (width - 2, height - 1)
        title.truncate(max(4, columns - 2), overflow=self._overflow)
        text = self._join(_take_last(lane.entries, 2 * width * height))
        lines = Text("\n").join(text.wrap(self._console, max(1, columns))[-rows:])
        style = "cyan" if lane.is_open else "dim"
        if not is_boxed:
            line = "-" if self._is_ascii else "─"
            head = Text.assemble((f"{line} ", style), title, (f" {line * width}", style), no_wrap=True, overflow="crop")
            head.truncate(width, overflow="crop")
            return Group(head, Padding(lines, (0, 1, max(0, rows - lines.plain.count("\n") - 1), 1)))
        return Panel(
            lines, box=ROUNDED, title=title, title_align="left", border_style=style, width=width, height=height
        )

    def _join(self, entries: Iterable[tuple[Entry, str]]) -> Text:
        whole = Text()
        for entry, shown in entries:
            mark, style = _ENTRIES[entry.kind]
            if entry.is_void:
                mark, style = _VOID
            if whole.plain and not whole.plain.endswith("\n"):
                whole.append("\n")
            whole.append(self._fit(mark + show_lines(shown).strip("\n")), style)
        return whole

    def _draw_figures(self, width: int) -> list[RenderableType]:
        tree = self._tree
        usage, rate = tree.spending.usage, tree.spending.compute_rate(tree.now)
        figures = [
            show_seconds(tree.seconds),
            show_tokens(usage),
            f"{rate:,.0f}/s" if rate else "",
            show_cost(tree.spending.cost, is_whole=tree.spending.is_whole) if usage.is_reported else "",
            count(tree.tools, "tool") if tree.tools else "",
            count_retries(tree.retries) if tree.retries else "",
        ]
        line = self._write(" · ".join(filter(None, figures)), "bold", no_wrap=True)
        line.truncate(width, overflow=self._overflow)
        return [line] if tree.progress is None else [self._draw_progress(*tree.progress, width), line]

    def _draw_progress(self, ended: int, total: int, width: int) -> Text:
        said = f" {ended} of {count(total, 'method')}"
        room = max(4, min(width, 120) - len(said))
        filled = room * ended // max(total, 1)
        full, empty = ("#", "-") if self._is_ascii else ("━", "─")
        return Text.assemble((full * filled, "green"), (empty * (room - filled), "dim"), (said, ""), no_wrap=True)

    def draw_outcome(self) -> Text:
        """Draw one line about how the run ended."""
        tree = self._tree
        mark, style = self._mark(tree.state)
        return Text.assemble((f"{mark} ", style), (self._fit(tree.describe_outcome()), "bold"))

    def _mark(self, state: State) -> tuple[str, str]:
        mark, plain, style = _MARKS[state]
        shown = plain if self._is_ascii else mark
        return shown[int(time.monotonic() / _FRAME_S) % len(shown)], style

    def _write(self, text: str, style: str = "", *, no_wrap: bool = False) -> Text:
        return Text(self._fit(text), style, no_wrap=no_wrap)

    def _fit(self, text: str) -> str:
        return fit_encoding(text, self._console.encoding) if self._is_ascii else text


def _fold(rows: list[Row], limit: int) -> list[Row]:
    """Fold ended spans: hide the rows of the spans inside them. Stop when at most ``limit`` rows are left.

    The deepest spans are folded first. Roots and open spans are never folded, so more than ``limit`` rows may be left.
    """
    ended = [row for row in rows if row.span.state.is_ended and len(row.guides)]
    hidden: set[int] = set()
    folded: dict[int, int] = {}
    for row in sorted(ended, key=lambda row: -len(row.guides)):
        if len(rows) - len(hidden) <= limit:
            break
        below = {id(each) for each in row.span.walk() if each is not row.span}
        gone = [each for each in rows if id(each.span) in below and id(each.span) not in hidden]
        hidden.update(id(each.span) for each in gone)
        if gone:
            folded[id(row.span)] = len(gone) + sum(folded.pop(id(each.span), 0) for each in gone)
    return [Row(row.span, row.guides, folded.get(id(row.span), 0)) for row in rows if id(row.span) not in hidden]


def _take_last(entries: Sequence[Entry], limit: int) -> list[tuple[Entry, str]]:
    """Return the last entries, each with its text. Their texts have at most ``limit`` characters in total.

    If the text of the first returned entry is too long, its beginning is cut off.
    """
    taken: list[tuple[Entry, str]] = []
    for entry in reversed(entries):
        taken.append((entry, entry.text[-limit:]))
        limit -= len(taken[-1][1])
        if limit <= 0:
            break
    return taken[::-1]


def _to_ascii(guides: str) -> str:
    return guides.replace("└", "`").replace("├", "|").replace("│", "|")
