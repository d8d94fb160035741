"""The spans of a run as rows of a tree: their names, their states, and which of them are shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum

from rxflow.types import UsageMetrics


class State(Enum):
    """Whether a span is open, and how it has ended."""

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
    """A part of the run.

    Times are in seconds since the epoch. ``agent`` is who carries out a task; ``runs`` counts how often a method began.
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
        """Seconds from its beginning to its end, or until ``now``."""
        return max(0.0, (now if self.ended_at is None else self.ended_at) - self.started_at)

    def walk(self) -> Iterator[Span]:
        """This span and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the tree; ``guides`` are the branches in front of it."""

    span: Span
    guides: str
    folded: int = 0


def list_rows(roots: Sequence[Span]) -> Iterator[Row]:
    """The spans that have a line of their own, from top to bottom."""

    def walk(span: Span, guides: str, below: str) -> Iterator[Row]:
        yield Row(span, guides)
        children = list(_list_children(span))
        for number, child in enumerate(children, 1):
            is_last = number == len(children)
            yield from walk(child, below + ("└ " if is_last else "├ "), below + ("  " if is_last else "│ "))

    for root in roots:
        yield from walk(root, "", "")


def _list_children(span: Span) -> Iterator[Span]:
    """The children to show. A crew that is all of its method, a task's own agent and an agent's calls are left out."""
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
