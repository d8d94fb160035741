"""The spans of a run, as the rows of a tree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from rxflow.types import UsageMetrics


class State(Enum):
    """Whether a span waits, is open or has ended, and how it ended."""

    WAITING = "waiting"
    RUNNING = "running"
    ASKING = "asking"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def is_ended(self) -> bool:
        """Whether the span has ended."""
        return self in (State.DONE, State.FAILED, State.STOPPED)


@dataclass(slots=True, eq=False)
class Span:
    """One span of the run, as a row of the tree.

    Times are in seconds since the epoch. ``agent`` is the role of the agent that works on a task. ``note`` is a short
    text after the label, such as an error. ``runs`` counts how often a method has started.
    """

    kind: str
    label: str
    agent: str = ""
    state: State = State.RUNNING
    parent: Span | None = None
    span_id: str = ""
    note: str = ""
    started_at: float = 0.0
    ended_at: float | None = None
    runs: int = 1
    usage: UsageMetrics = field(default_factory=UsageMetrics)
    children: list[Span] = field(default_factory=list["Span"])

    def measure(self, now: float) -> float:
        """Return the seconds from the start of the span to its end, or to ``now`` while it is open."""
        return max(0.0, (now if self.ended_at is None else self.ended_at) - self.started_at)

    def walk(self) -> Iterator[Span]:
        """Yield this span and all spans below it."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the tree.

    ``guides`` draw the branches of the tree, in front of the label. ``folded`` is the number of hidden rows below this
    row.
    """

    span: Span
    guides: str
    folded: int = 0


def list_rows(roots: Sequence[Span]) -> Iterator[Row]:
    """Yield the rows of the spans that are shown, from top to bottom."""

    def walk(span: Span, guides: str, below: str) -> Iterator[Row]:
        yield Row(span, guides)
        children = list(_list_children(span))
        for number, child in enumerate(children, 1):
            is_last = number == len(children)
            yield from walk(child, below + ("└ " if is_last else "├ "), below + ("  " if is_last else "│ "))

    for root in roots:
        yield from walk(root, "", "")


def _list_children(span: Span) -> Iterator[Span]:
    """Yield the children to show.

    Some rows would be redundant: a crew that is the only child of a method, the agents of a task, and the LLM calls of
    an agent. Each of these spans is replaced by its own children.
    """
    for child in span.children:
        is_hidden = (
            (child.kind == "crew" and span.kind == "method" and len(span.children) == 1)
            or (child.kind == "agent" and span.kind == "task")
            or (child.kind == "llm" and span.kind == "agent")
        )
        if is_hidden:
            yield from _list_children(child)
        else:
            yield child
