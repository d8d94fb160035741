"""What work belongs to: its run, the labels of its chunks, and the context that it runs in."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextvars import Context, copy_context
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

from reactivex.disposable import CompositeDisposable

from rxflow.types.chunks import Origin
from rxflow.types.events import LLMFailed, LLMFinished
from rxflow.types.usage import UsageMetrics


def _count() -> Iterator[int]:
    return itertools.count()


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One subscription: the loop on whose thread all its signals are emitted, and its count of chunks."""

    loop: asyncio.AbstractEventLoop
    id: str = field(default_factory=lambda: str(uuid4()))
    seq: Iterator[int] = field(default_factory=_count)
    spans: Iterator[int] = field(default_factory=_count)
    tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    leftovers: CompositeDisposable = field(default_factory=CompositeDisposable)
    """Calls that somebody still awaits although their leaf has ended. They stop if the run is disposed."""

    def elsewhere(self, loop: asyncio.AbstractEventLoop) -> Run:
        """The same run, for a part of it that lives on another loop."""
        return replace(self, loop=loop, tasks=set(), leftovers=CompositeDisposable())


class UsageLedger:
    """The usage of the LLM calls of a flow, a crew or an agent, as far as they have ended. ``around`` has them too.

    A call notes itself, as one that is stopped cannot emit an event any more.
    """

    __slots__ = ("_around", "_entries")

    def __init__(self, around: UsageLedger | None = None) -> None:
        self._around = around
        self._entries: list[UsageMetrics] = []

    def note(self, usage: UsageMetrics, *, is_shown: bool = False) -> None:
        """Add one call. From any thread: a run can be stopped from any.

        ``is_shown`` says that an event shows the call. Those around see that event too, and are not told.
        """
        self._entries.append(usage)
        if self._around is not None and not is_shown:
            self._around.note(usage)

    @property
    def total(self) -> UsageMetrics:
        """The sum so far."""
        return sum(list(self._entries), UsageMetrics())


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """The run and the labels that code belongs to.

    Handed down as an argument: Rx subscribes a successor inside its predecessor's completion, where a context variable
    would still hold the scope of the predecessor.
    """

    run: Run
    origin: Origin = field(default_factory=Origin)
    context: Context = field(default_factory=copy_context)
    ledger: UsageLedger = field(default_factory=UsageLedger)

    def within(self, *names: str, **labels: Any) -> Scope:
        """A span inside this one: ``names`` extend the namespace, ``labels`` replace fields of the origin."""
        origin = replace(
            self.origin,
            namespace=(*self.origin.namespace, *names),
            span_id=f"{self.run.id}/{next(self.run.spans)}",
            parent_span_id=self.origin.span_id,
            **labels,
        )
        return replace(self, origin=origin)

    def metered(self) -> Scope:
        """The same with a ledger of its own."""
        return replace(self, ledger=UsageLedger(around=self.ledger))

    def note_shown(self, event: LLMFinished | LLMFailed) -> None:
        """Note a call that an event shows. Those of this run have noted themselves; a recording's have not."""
        if not event.origin.span_id.startswith(f"{self.run.id}/"):
            self.ledger.note(event.usage, is_shown=True)

    def unnumbered(self) -> Scope:
        """The same for chunks that nobody is shown: they must leave no holes in the count of the others."""
        return replace(self, run=replace(self.run, seq=_count()))
