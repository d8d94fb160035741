"""The scope of work: its run, the labels of its events, its context, and the subscriptions between parts of a run."""

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
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar
from uuid import uuid4

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow import _hooks
from rxflow._hooks import wall_clock
from rxflow._loops import running_loop
from rxflow.types import InputRequested, LLMCancelled, LLMFailed, LLMFinished, Origin, UsageMetrics

if TYPE_CHECKING:
    from rxflow._streaming.journal import Journal, Step


T = TypeVar("T")

Start: TypeAlias = Callable[[ObserverBase[T], SchedulerBase | None], DisposableBase]


class RunPart(Observable[T], Generic[T]):
    """An Observable that keeps Rx's contract by itself: one terminal event, and nothing after it or after disposal."""

    def __init__(self, start: Start[T]) -> None:
        super().__init__(start)
        self.start = start


def connect(source: Observable[T], observer: ObserverBase[T], scheduler: SchedulerBase | None = None) -> DisposableBase:
    """Subscribe one of rxflow's own observers, which raises no errors into ``source``."""
    if not isinstance(source, RunPart):
        return source.subscribe(observer, scheduler=scheduler)
    try:
        return source.start(observer, scheduler)
    except Exception as error:  # noqa: BLE001 - as in RxPY, the error ends the stream
        observer.on_error(error)
        return Holder()


class Holder(DisposableBase):
    """Holds one subscription, which may be set after its start. ``dispose`` may be called from any thread.

    No lock is needed: the setter stores the subscription before it reads the flag, and ``dispose`` does the reverse, so
    one of the two sees the other. If both do, the subscription is disposed twice; the second time has no effect.
    """

    __slots__ = ("_held", "is_disposed")

    def __init__(self) -> None:
        self.is_disposed = False
        self._held: DisposableBase | None = None

    def hold(self, subscription: DisposableBase) -> None:
        """Dispose ``subscription`` together with this object, or now if this object was disposed before."""
        self._held = subscription
        if self.is_disposed:
            self._release()

    def dispose(self) -> None:
        self.is_disposed = True
        self._release()

    def _release(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.dispose()


class Owned(DisposableBase):
    """Objects that are disposed together with their owner: from any thread, without a lock, as in :class:`Holder`."""

    __slots__ = ("_items", "is_disposed")

    def __init__(self) -> None:
        self.is_disposed = False
        self._items: list[DisposableBase] = []

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left to dispose."""
        return not self._items

    def add(self, item: DisposableBase) -> None:
        """Dispose ``item`` together with the others, or now if they were disposed already."""
        self._items.append(item)
        if self.is_disposed:
            self.dispose()

    def remove(self, item: DisposableBase) -> None:
        """Dispose ``item`` now, and forget it."""
        self.forget(item)
        item.dispose()

    def forget(self, item: DisposableBase) -> None:
        """Do not dispose ``item`` with the others, because it is over."""
        with suppress(ValueError):  # it was disposed with the others
            self._items.remove(item)

    def dispose(self) -> None:
        self.is_disposed = True
        while self._items:
            try:
                item = self._items.pop(0)
            except IndexError:  # another thread was faster
                return
            item.dispose()


class Cleanup(DisposableBase):
    """Calls ``action`` once, when it is first disposed, in whichever thread."""

    __slots__ = ("_actions",)

    def __init__(self, action: Callable[[], object]) -> None:
        self._actions = [action]

    def dispose(self) -> None:
        try:
            action = self._actions.pop()
        except IndexError:
            return
        action()


async def _flush_nothing() -> None:
    """Do nothing, because there is no log."""


UNANSWERED = object()
"""Returned by an answerer to leave a question to the next one."""


class Answerer:
    """Answers questions of a run; see :mod:`rxflow._streaming.questions`."""

    def expect(self, request: InputRequested) -> None:
        """Prepare for a question that is going to be shown.

        People may answer at once, before this answerer is asked.
        """

    async def find_answer(self, request: InputRequested) -> Any:
        """Return the answer; UNANSWERED leaves the question to the next answerer."""
        return UNANSWERED

    def forget(self, request: InputRequested) -> None:
        """Forget a question that was answered, or that nobody waits for any more."""


class EventClock:
    """The time for the events of a run.

    One read from a provider may have many chunks. They get the time of the read, because a look at the clock for each
    chunk would take as long as the rest of its numbering.
    """

    __slots__ = ("read_at", "time")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.time = wall_clock(loop)
        self.read_at = 0.0
        """The time of the read whose deltas are being emitted. 0 at any other moment."""

    def now(self) -> float:
        """Return the time for the next event, in seconds since the epoch."""
        return self.read_at or self.time()


def _count() -> Iterator[int]:
    return itertools.count()


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One subscription: the loop that emits all its signals, and the count of its spans."""

    loop: asyncio.AbstractEventLoop
    id: str = field(default_factory=lambda: str(uuid4()))
    spans: Iterator[int] = field(default_factory=_count)
    first_seq: int = 0
    """The ``seq`` of its first event; above 0 if the run was resumed."""
    tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    leftovers: Owned = field(default_factory=Owned)
    """Calls that some code still awaits although their leaf has ended. Disposing the run stops them."""
    connections: Owned = field(default_factory=Owned)
    """The open reads from providers. If nobody reads the run, they are closed before the rest of it is stopped."""
    journal: Journal | None = None
    """The record of the run before it was resumed; None if it was not resumed."""
    flush: Callable[[], Awaitable[None]] = _flush_nothing
    """Waits until everything emitted so far is in the run's log, if it has one."""

    calls: dict[str, Callable[[str], LLMCancelled]] = field(default_factory=dict[str, "Callable[[str], LLMCancelled]"])
    """By span, for each LLM call that has not ended: a function that returns its closing event for a given reason."""

    watchers: list[StopWatcher] = field(default_factory=list["StopWatcher"])
    """The watchers that must be told when a leaf is stopped while the run lives."""

    clock: EventClock = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "clock", EventClock(self.loop))  # frozen for all other code

    def elsewhere(self, loop: asyncio.AbstractEventLoop) -> Run:
        """Return a copy of the run for a part of it that lives on another loop."""
        return replace(self, loop=loop, tasks=set(), leftovers=Owned())

    def note_stopped(self, span_id: str) -> None:
        """Tell the watchers that the leaf of this span was disposed, and why (see :func:`stopping`).

        May be called from any thread.
        """
        reason = next((reason for reason, holds in reversed(_stop_reasons.get()) if holds()), DEFAULT_STOP_REASON)
        for watcher in tuple(self.watchers):
            watcher.note_stopped(span_id, reason)


class StopWatcher(Protocol):
    """Is told about leaves that were stopped; see :class:`rxflow._streaming.border.Passage`."""

    def note_stopped(self, span_id: str, reason: str) -> None:
        """Note that a leaf was disposed while its span was open. May be called from any thread."""


DEFAULT_STOP_REASON = "stopped"
_stop_reasons: ContextVar[tuple[tuple[str, Callable[[], bool]], ...]] = ContextVar("rxflow_stop_reasons", default=())


@contextmanager
def stopping(reason: str, holds: Callable[[], bool] = lambda: True) -> Generator[None]:
    """Give ``reason`` as the cause of each stop in the ``with`` block for which ``holds()`` is True at that moment."""
    token = _stop_reasons.set((*_stop_reasons.get(), (reason, holds)))
    try:
        yield
    finally:
        with suppress(ValueError):  # a coroutine whose loop was closed ends in another context
            _stop_reasons.reset(token)


class UsageLedger:
    """The usage of the finished LLM calls of a flow, a crew or an agent.

    The surrounding ledger, ``around``, counts these calls too.

    A call adds itself, because a stopped call cannot emit an event any more.
    """

    __slots__ = ("_around", "_costs", "_entries")

    def __init__(self, around: UsageLedger | None = None) -> None:
        self._around = around
        self._entries: list[UsageMetrics] = []
        self._costs: list[float | None] = []

    def note(self, usage: UsageMetrics, cost: float | None, *, is_shown: bool = False) -> None:
        """Add one call. May be called from any thread, because a run can be stopped from any.

        ``is_shown`` says that an event shows the call. Surrounding ledgers get that event too, so they are not told
        again.
        """
        self._entries.append(usage)
        # a call that never reached the provider has no cost, not even an unknown one
        if cost is not None or usage.is_reported or usage.successful_requests:
            self._costs.append(cost)
        if self._around is not None and not is_shown:
            self._around.note(usage, cost)

    @property
    def total(self) -> UsageMetrics:
        """The sum so far."""
        return sum(list(self._entries), UsageMetrics())

    @property
    def cost(self) -> float | None:
        """The sum of the costs so far, in US dollars; None if the cost of one call is unknown."""
        costs = list(self._costs)
        return None if None in costs else sum(cost for cost in costs if cost is not None)


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """The run and the labels that code belongs to.

    The scope is passed as an argument, because Rx subscribes a successor while its predecessor completes. A context
    variable would still hold the predecessor's scope then.
    """

    run: Run
    origin: Origin = field(default_factory=Origin)
    context: Context = field(default_factory=copy_context)
    ledger: UsageLedger = field(default_factory=UsageLedger)
    answerers: tuple[Answerer, ...] = ()
    """Who is asked a question for people, in this order; innermost first."""
    step: Step = ()
    """The call of a method to which the code belongs, in a resumed run."""
    is_logged: bool = False
    """Whether an outer flow or crew is verbose, and already logs the events here."""

    @property
    def is_outermost(self) -> bool:
        """Whether no span of the run surrounds it."""
        return not self.origin.span_id

    def answered_by(self, answerer: Answerer) -> Scope:
        """Return a copy of the scope in which ``answerer`` is asked before all others."""
        return replace(self, answerers=(answerer, *self.answerers))

    @classmethod
    def of_new_run(cls, run: Run, context: Context, parent_run_id: str = "") -> Scope:
        """Return the outermost scope of ``run``."""
        return cls(run, Origin(run_id=run.id, parent_run_id=parent_run_id), context)

    def of_private_run(self) -> Scope:
        """Return a copy of the scope for events that are not a part of the run; they count as a separate run."""
        own = replace(self.origin, run_id=str(uuid4()), parent_run_id=self.origin.run_id)
        return replace(self, origin=own, is_logged=False)

    def within(self, *names: str, **labels: Any) -> Scope:
        """Return the scope of a span inside this one.

        ``names`` extend the namespace; ``labels`` replace fields of the origin.
        """
        origin = replace(
            self.origin,
            namespace=(*self.origin.namespace, *names),
            span_id=f"{self.run.id}/{next(self.run.spans)}",
            parent_span_id=self.origin.span_id,
            **labels,
        )
        return replace(self, origin=origin)

    def at_step(self, step: Step) -> Scope:
        """Return a copy of the scope for another step of a resumed run."""
        return self if step == self.step else replace(self, step=step)

    def logged(self) -> Scope:
        """Return a copy of the scope for the parts of a verbose flow or crew."""
        return replace(self, is_logged=True)

    def metered(self) -> Scope:
        """Return a copy of the scope with a ledger of its own."""
        return replace(self, ledger=UsageLedger(around=self.ledger))

    def note_shown(self, event: LLMFinished | LLMFailed | LLMCancelled) -> None:
        """Note a call that an event shows. Calls of this run have noted themselves; calls of a recording have not."""
        if not event.origin.span_id.startswith(f"{self.run.id}/"):
            self.ledger.note(event.usage, event.cost, is_shown=True)


class RunHandle(Holder):
    """Holds a started run. ``dispose`` stops the run: from any thread, at once, any number of times.

    ``home`` is the loop on which the run lives together with other code; None if the run has a thread of its own.
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
        """The thread of the run's loop; None if the loop is the program's own."""
        return None

    def dispose(self) -> None:
        super().dispose()
        if self.run is not None and not self.has_ended:
            self.run.leftovers.dispose()

    def why_it_stands_still(self) -> str | None:
        """Return why nothing more will come, if the run has lost its loop; otherwise None."""
        if self.is_inherited:
            return f"its run lives in the process {self._process}, of which this one is a fork"
        if self.home is not None and self.home.is_closed():
            return "its event loop was closed"
        return None

    def join(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds until nothing of the run is left.

        Without a thread of its own, return at once.
        """

    def pause(self) -> _hooks.Pause | None:
        """Return a wait of this thread for the run, if the run's loop counts waits; otherwise None."""
        if self.home is None or self.home is running_loop():
            return None
        count = _hooks.thread_count(self.home)
        return count.pause() if count is not None else None


at_home: weakref.WeakSet[RunHandle] = weakref.WeakSet()
"""The runs that live on the program's own loops."""
