"""What work belongs to: its run, the handle that stops it, the labels of its chunks, and the context it runs in."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import weakref
from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from rxflow import _hooks
from rxflow._loops import running_loop
from rxflow._streaming.subscriptions import Holder, Owned
from rxflow.types import InputRequested, LLMCancelled, LLMFailed, LLMFinished, Origin, UsageMetrics

if TYPE_CHECKING:
    from rxflow._streaming.journal import Journal, Step


async def _flush_nothing() -> None:
    """There is no log."""


UNANSWERED = object()
"""What an answerer returns that leaves a question to the next one."""


class Answerer:
    """Answers questions of a run; see :mod:`rxflow._streaming.questions`."""

    def expect(self, request: InputRequested) -> None:
        """A question is going to be shown. Whoever sees it may answer at once, before it is this one's turn."""

    async def find_answer(self, request: InputRequested) -> Any:
        """The answer; UNANSWERED leaves the question to the next one."""
        return UNANSWERED

    def forget(self, request: InputRequested) -> None:
        """The question has its answer, or nobody waits for one any more."""


def _count() -> Iterator[int]:
    return itertools.count()


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One subscription: the loop that emits all its signals, and the number of its spans."""

    loop: asyncio.AbstractEventLoop
    id: str = field(default_factory=lambda: str(uuid4()))
    spans: Iterator[int] = field(default_factory=_count)
    first_seq: int = 0
    """The ``seq`` of its first event; above 0 if the run goes on after an interruption."""
    tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    leftovers: Owned = field(default_factory=Owned)
    """Calls that somebody still awaits although their leaf has ended. They stop if the run is disposed."""
    journal: Journal | None = None
    """What the run has done before, if it is one that goes on."""
    flush: Callable[[], Awaitable[None]] = _flush_nothing
    """Waits until what was emitted so far is in the run's log, if it has one."""

    calls: dict[str, Callable[[str], LLMCancelled]] = field(default_factory=dict[str, "Callable[[str], LLMCancelled]"])
    """For each LLM call whose end was not seen, by its span: a function of the reason that makes the closing event."""

    watchers: dict[StopWatcher, None] = field(default_factory=dict["StopWatcher", None])
    """Who hears of leaves that are stopped while the run lives."""

    def elsewhere(self, loop: asyncio.AbstractEventLoop) -> Run:
        """A copy of the run for a part of it that lives on another loop."""
        return replace(self, loop=loop, tasks=set(), leftovers=Owned())

    def note_stopped(self, span_id: str) -> None:
        """The leaf of this span was disposed. From any thread; :func:`stopping` says why."""
        reason = next((reason for reason, holds in reversed(_stop_reasons.get()) if holds()), DEFAULT_STOP_REASON)
        for watcher in tuple(self.watchers):
            watcher.note_stopped(span_id, reason)


class StopWatcher(Protocol):
    """Hears of leaves that were stopped; see :class:`rxflow._streaming.border.Passage`."""

    def note_stopped(self, span_id: str, reason: str) -> None:
        """A leaf was disposed while its span was open. From any thread."""


DEFAULT_STOP_REASON = "stopped"
_stop_reasons: ContextVar[tuple[tuple[str, Callable[[], bool]], ...]] = ContextVar("rxflow_stop_reasons", default=())


@contextmanager
def stopping(reason: str, holds: Callable[[], bool] = lambda: True) -> Generator[None]:
    """What the body disposes is stopped for ``reason``, if that holds then."""
    token = _stop_reasons.set((*_stop_reasons.get(), (reason, holds)))
    try:
        yield
    finally:
        with suppress(ValueError):  # a coroutine whose loop was closed is unwound in another context
            _stop_reasons.reset(token)


class UsageLedger:
    """The usage of the LLM calls of a flow, a crew or an agent, as far as they have ended. ``around`` has them too.

    A call notes itself, as one that is stopped cannot emit an event any more.
    """

    __slots__ = ("_around", "_costs", "_entries")

    def __init__(self, around: UsageLedger | None = None) -> None:
        self._around = around
        self._entries: list[UsageMetrics] = []
        self._costs: list[float | None] = []

    def note(self, usage: UsageMetrics, cost: float | None, *, is_shown: bool = False) -> None:
        """Add one call. From any thread: a run can be stopped from any.

        ``is_shown`` says that an event shows the call. Those around see that event too, and are not told.
        """
        self._entries.append(usage)
        if cost is not None or usage.is_reported or usage.successful_requests:  # else it never reached the provider
            self._costs.append(cost)
        if self._around is not None and not is_shown:
            self._around.note(usage, cost)

    @property
    def total(self) -> UsageMetrics:
        """The sum so far."""
        return sum(list(self._entries), UsageMetrics())

    @property
    def cost(self) -> float | None:
        """The sum of the costs so far, in US dollars; None if that of a call is not known."""
        costs = list(self._costs)
        return None if None in costs else sum(cost for cost in costs if cost is not None)


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
    answerers: tuple[Answerer, ...] = ()
    """Who is asked, in this order, what a person has to say; innermost first."""
    step: Step = ()
    """The call of a method in which it stands, in a run that goes on."""

    @property
    def is_outermost(self) -> bool:
        """No span of the run is around it."""
        return not self.origin.span_id

    def answered_by(self, answerer: Answerer) -> Scope:
        """A copy of the scope in which ``answerer`` is asked before all others."""
        return replace(self, answerers=(answerer, *self.answerers))

    @classmethod
    def of_new_run(cls, run: Run, context: Context, parent_run_id: str = "") -> Scope:
        """The outermost scope of ``run``."""
        return cls(run, Origin(run_id=run.id, parent_run_id=parent_run_id), context)

    def of_private_run(self) -> Scope:
        """A copy of the scope for events that are not a part of the run: they count as a run of their own."""
        own = replace(self.origin, run_id=str(uuid4()), parent_run_id=self.origin.run_id)
        return replace(self, origin=own)

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

    def at_step(self, step: Step) -> Scope:
        """A copy of the scope for another step of a run that goes on."""
        return self if step == self.step else replace(self, step=step)

    def metered(self) -> Scope:
        """A copy of the scope with a ledger of its own."""
        return replace(self, ledger=UsageLedger(around=self.ledger))

    def note_shown(self, event: LLMFinished | LLMFailed | LLMCancelled) -> None:
        """Note a call that an event shows. Those of this run have noted themselves; a recording's have not."""
        if not event.origin.span_id.startswith(f"{self.run.id}/"):
            self.ledger.note(event.usage, event.cost, is_shown=True)


class RunHandle(Holder):
    """Holds a started run. ``dispose`` stops it: from any thread, at once, any number of times.

    ``home`` is the loop on which it lives beside other code; None if it has a thread of its own.
    """

    def __init__(self, run: Run | None = None, home: AbstractEventLoop | None = None) -> None:
        super().__init__()
        self.run = run
        self.home = home
        self.has_ended = False
        self._process = os.getpid()
        if home is not None:
            at_home.add(self)
        if _hooks.on_start is not None:
            _hooks.on_start(self)

    @property
    def is_inherited(self) -> bool:
        """Whether this process is a fork of the one in which the run lives."""
        return self._process != os.getpid()

    @property
    def thread(self) -> threading.Thread | None:
        """The thread of its loop, if that is not the program's own."""
        return None

    def dispose(self) -> None:
        super().dispose()
        if self.run is not None and not self.has_ended:
            self.run.leftovers.dispose()

    def why_it_stands_still(self) -> str | None:
        """Why nothing more will come, if the run has lost its loop; else None."""
        if self.is_inherited:
            return f"its run lives in the process {self._process}, of which this one is a fork"
        if self.home is not None and self.home.is_closed():
            return "its event loop was closed"
        return None

    def join(self, timeout: float) -> None:
        """Wait until nothing of the run is left, at most ``timeout`` s. Returns at once without a thread of its own."""

    def pause(self) -> _hooks.Pause | None:
        """A wait of this thread for the run, if the run's loop counts waits; else None."""
        if self.home is None or self.home is running_loop():
            return None
        count = _hooks.thread_count(self.home)
        return count.pause() if count is not None else None


at_home: weakref.WeakSet[RunHandle] = weakref.WeakSet()
"""The runs that live on loops of the program."""
