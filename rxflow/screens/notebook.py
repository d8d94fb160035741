"""Shows a run in a notebook, below the cell: the spans, speakers, time, tokens and cost of the run.

::

    from rxflow.screens import notebook

    result = notebook.show(flow, {"topic": "tides"})

The display is updated while the run goes on. It is plain HTML without scripts, so it needs no notebook extension and is
saved with the notebook. Interrupting the cell stops the run.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from reactivex import Observable

from rxflow import _lazy, operators as ops
from rxflow._streaming import EventStream, PipelineOutput
from rxflow._text import draw_card, escape, show_lines
from rxflow.screens._lanes import Entry, Kind, Lane, show_error, show_seconds
from rxflow.screens._run_tree import RunTree
from rxflow.screens._sources import HasEvents, read_events, read_methods
from rxflow.screens._spans import Row, State, list_rows
from rxflow.types import Event

with _lazy.extra("notebook"):
    from IPython.display import HTML, display  # pyright: ignore[reportUnknownVariableType]

__all__ = ["show"]

REFRESH_S = 0.1
MAX_LANE_CHARS = 1500
"""How many characters of each speaker's text are shown, at most. Of a longer text, only the end is shown."""

_MARKS = {
    State.WAITING: "○",
    State.RUNNING: "●",
    State.ASKING: "?",
    State.PAUSED: "‖",
    State.DONE: "✓",
    State.FAILED: "✗",
    State.STOPPED: "⊘",
}
_STYLES = {
    Kind.TEXT: "",
    Kind.THOUGHT: "opacity:.6;font-style:italic",
    Kind.CALL: "font-family:monospace",
    Kind.RESULT: "font-family:monospace;opacity:.8",
    Kind.FAILURE: "font-family:monospace;opacity:.8",
}
_PREFIXES = {Kind.CALL: "→ ", Kind.RESULT: "← ", Kind.FAILURE: "← ✗ "}


def show(source: HasEvents | Observable[Event], inputs: Mapping[str, Any] | None = None) -> Any:
    """Run ``source``, show it below the cell while it runs, and return its result.

    Interrupting the cell stops the run, including its connections to providers. What was shown stays in the notebook.

    Args:
        source: a flow, a crew, or an Observable of events.
        inputs: the inputs of the flow or crew.

    Raises:
        TypeError: ``source`` is not an Observable and has no ``events()``. Also raised if ``source`` is an Observable
            and ``inputs`` are given.
        Exception: the run's own error, after the error was shown.
    """
    tree = RunTree(read_methods(source))
    events = read_events(source, inputs)
    if isinstance(events, EventStream):
        # Without heartbeats, the last events before a silence would be drawn only when the silence ends.
        events = events.pipe(ops.heartbeat(2 * REFRESH_S))
    place: Any = display(HTML(draw_run(tree)), display_id=True)  # type: ignore[no-untyped-call]

    def draw() -> None:
        if place is not None:  # it is None outside a notebook, for example in a script made from a notebook
            place.update(HTML(draw_run(tree)))  # type: ignore[no-untyped-call]

    drawn_at = time.monotonic()
    try:
        with PipelineOutput(events) as output:
            for event in output:
                tree.add(event)
                if time.monotonic() - drawn_at >= REFRESH_S:
                    draw()
                    drawn_at = time.monotonic()
    except Exception as error:
        tree.fail(error)
        raise
    except BaseException:
        tree.stop()
        raise
    else:
        tree.complete()
    finally:
        draw()
    return tree.result


def draw_run(tree: RunTree) -> str:
    """Return the run as HTML. The texts of models and users are escaped."""
    rows = "".join(_draw_row(tree, row) for row in list_rows(tree.roots))
    lanes = "".join(map(_draw_lane, tree.lanes))
    error = f"<b>{escape(show_error(tree.error))}</b>" if tree.error is not None else ""
    title = tree.roots[0].label if tree.roots else "Run"
    return draw_card(
        title, tree.describe_outcome(), f"<table style='border-collapse:collapse'>{rows}</table>", lanes, error
    )


def _draw_row(tree: RunTree, row: Row) -> str:
    span = row.span
    seconds = "" if span.state is State.WAITING else show_seconds(span.measure(tree.now))
    agent = f"{span.agent} · " if span.agent else ""
    rounds = f" ×{span.runs}" if span.runs > 1 else ""
    text = f"{_MARKS[span.state]} <span style='opacity:.7'>{escape(agent)}</span>{escape(span.label + rounds)}"
    return (
        f"<tr title='{span.state.value}'><td style='text-align:left;padding:0 1em 0 {0.7 * len(row.guides):.1f}em'>"
        f"{text} <i style='opacity:.7'>{escape(span.note)}</i></td><td style='text-align:right'>{seconds}</td></tr>"
    )


def _draw_lane(lane: Lane) -> str:
    parts = "".join(_draw_entries(lane))
    topic = f" <span style='opacity:.7'>{escape(lane.topic)}</span>" if lane.topic else ""
    style = "border-left:3px solid rgba(128,128,128,.5);padding-left:.6em;margin:.4em 0"
    return f"<div style='{style}'><b>{escape(lane.speaker)}</b>{topic}{parts}</div>"


def _draw_entries(lane: Lane) -> Iterator[str]:
    left = MAX_LANE_CHARS
    shown: list[tuple[Entry, str]] = []
    for entry in reversed(lane.entries):
        if left <= 0:
            break
        shown.append((entry, entry.text[-left:]))
        left -= len(shown[-1][1])
    for entry, text in reversed(shown):
        tag = "del" if entry.is_void else "span"
        said = escape(_PREFIXES.get(entry.kind, "") + show_lines(text).strip("\n"))
        style = f"white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:plaintext;{_STYLES[entry.kind]}"
        yield f"<div dir='auto' style='{style}'><{tag}>{said}</{tag}></div>"
