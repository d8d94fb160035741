"""The scope of code: its run, the labels of its events, and its context.

This module also has the Observables and subscriptions that connect the parts of a run.
"""

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
from rxflow._loops import dispose_safely, running_loop
from rxflow.types import InputRequested, LLMCancelled, LLMFailed, LLMFinished, Origin, UsageMetrics

if TYPE_CHECKING:
    from rxflow._streaming.journal import Journal, Step


T = TypeVar("T")

Start: TypeAlias = Callable[[ObserverBase[T], SchedulerBase | None], DisposableBase]


class RunPart(Observable[T], Generic[T]):
    """An Observable that keeps Rx's contract without RxPY's help.

    The contract: there is at most one terminal, and no signal comes after the terminal or after disposal.
    """

    def __init__(self, start: Start[T]) -> None:
        super().__init__(start)
        self.start = start


def connect(source: Observable[T], observer: ObserverBase[T], scheduler: SchedulerBase | None = None) -> DisposableBase:
    """Subscribe ``observer`` to ``source``. The observer must be one of rxflow's own, and must not raise errors.

    If ``source`` is a :class:`RunPart`, RxPY's own layer around the observer is left out.
    """
    if not isinstance(source, RunPart):
        return source.subscribe(observer, scheduler=scheduler)
    try:
        return source.start(observer, scheduler)
    except Exception as error:  # noqa: BLE001 - as in RxPY, the error ends the stream
        observer.on_error(error)
        return Holder()


class Holder(DisposableBase):
    """Holds one subscription, which may be set later. ``dispose`` may be called from any thread.

    An error of a dispose action is reported, so code that disposes and then gives its terminal always gives it.
    No lock is needed. :meth:`hold` first stores the subscription, then reads ``is_disposed``. :meth:`dispose` first
    sets ``is_disposed``, then reads the subscription. So if both methods run at once, at least one of them disposes the
    subscription. If both do, the second disposal has no effect.
    """

    __slots__ = ("_held", "is_disposed")

    def __init__(self) -> None:
        self.is_disposed = False
        self._held: DisposableBase | None = None

    def hold(self, subscription: DisposableBase) -> None:
        """Dispose ``subscription`` together with this object, or now if this object is disposed already."""
        self._held = subscription
        if self.is_disposed:
            self._release()

    def dispose(self) -> None:
        self.is_disposed = True
        self._release()

    def _release(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            dispose_safely(held)


class Owned(DisposableBase):
    """Objects that are disposed together with their owner. ``dispose`` may be called from any thread.

    The objects are disposed in order. If one of them raises, the error is reported, and the rest is still disposed.
    No lock is needed, for the same reason as in :class:`Holder`.
    """

    __slots__ = ("_items", "is_disposed")

    def __init__(self, *items: DisposableBase) -> None:
        self.is_disposed = False
        self._items = list(items)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left to dispose."""
        return not self._items

    def add(self, item: DisposableBase) -> None:
        """Dispose ``item`` when this object is disposed, or now if this object is disposed already."""
        self._items.append(item)
        if self.is_disposed:
            self.dispose()

    def remove(self, item: DisposableBase) -> None:
        """Remove ``item``, and dispose it now."""
        self.forget(item)
        item.dispose()

    def forget(self, item: DisposableBase) -> None:
        """Remove ``item``, which has ended, without disposing it."""
        with suppress(ValueError):  # dispose() has already removed the item
            self._items.remove(item)

    def dispose(self) -> None:
        self.is_disposed = True
        while self._items:
            try:
                item = self._items.pop(0)
            except IndexError:  # another thread has taken the last item
                return
            dispose_safely(item)


class Cleanup(DisposableBase):
    """Calls ``action`` once, when this object is disposed for the first time, in the disposing thread."""

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
"""What an answerer returns if it has no answer. The next answerer is then asked."""


class Answerer:
    """Answers questions of a run; see :mod:`rxflow._streaming.questions`."""

    def expect(self, request: InputRequested) -> None:
        """Prepare for a question. This is called before the question is shown.

        People may answer as soon as they see the question, even before :meth:`find_answer` is called.
        """

    async def find_answer(self, request: InputRequested) -> Any:
        """Return the answer. Return UNANSWERED to leave the question to the next answerer."""
        return UNANSWERED

    def forget(self, request: InputRequested) -> None:
        """Forget a question that was answered, or that nobody waits for any more."""


class EventClock:
    """The time for the events of a run.

    One read from a provider's connection may bring many chunks. All these chunks get the time of the read. Giving a
    chunk its number and its time would take twice as long if the clock were read for each chunk.
    """

    __slots__ = ("read_at", "time")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.time = wall_clock(loop)
        self.read_at = 0.0
        """While the deltas of one read are emitted: the time of the read. 0 at any other moment."""

    def now(self) -> float:
        """Return the time for the next event, in seconds since the epoch."""
        return self.read_at or self.time()


def _count() -> Iterator[int]:
    return itertools.count()


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One run, or a part of it that lives on another loop (see :meth:`elsewhere`).

    All signals are emitted on ``loop``. ``spans`` yields the numbers of new spans. ``tasks`` holds the leaves' tasks.
    """

    loop: asyncio.AbstractEventLoop
    id: str = field(default_factory=lambda: str(uuid4()))
    spans: Iterator[int] = field(default_factory=_count)
    first_seq: int = 0
    """The ``seq`` of the run's first event. It is above 0 if the run was resumed."""
    tasks: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    leftovers: Owned = field(default_factory=Owned)
    """Nested Observables that outlive the leaf that started them. Disposing the run stops these Observables."""
    connections: Owned = field(default_factory=Owned)
    """The open connections to providers.

    When the last reader of a run leaves, ``rxflow.runs`` closes the connections before it stops the rest of the run.
    """
    journal: Journal | None = None
    """What the run had done before the resumption; None if the run was not resumed."""
    flush: Callable[[], Awaitable[None]] = _flush_nothing
    """Waits until all events so far are in the run's log. Returns at once if the run has no log."""

    calls: dict[str, Callable[[str], LLMCancelled]] = field(default_factory=dict[str, "Callable[[str], LLMCancelled]"])
    """The LLM calls that have not ended. The keys are the ids of the calls' spans.

    Each value is a function that gets the reason of a cancellation, and returns the LLMCancelled event of the call.
    """

    watchers: list[StopWatcher] = field(default_factory=list["StopWatcher"])
    """The objects whose :meth:`~StopWatcher.note_stopped` is called when a leaf is stopped before the run ends."""

    clock: EventClock = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "clock", EventClock(self.loop))  # a plain assignment would raise, as Run is frozen

    def elsewhere(self, loop: asyncio.AbstractEventLoop) -> Run:
        """Return a copy of this object for a part of the run that lives on ``loop``."""
        return replace(self, loop=loop, tasks=set(), leftovers=Owned())

    def note_stopped(self, span_id: str) -> None:
        """Inform the watchers that the leaf of this span was disposed, and give the reason (see :func:`stopping`).

        May be called from any thread.
        """
        reason = next((reason for reason, holds in reversed(_stop_reasons.get()) if holds()), DEFAULT_STOP_REASON)
        for watcher in tuple(self.watchers):
            watcher.note_stopped(span_id, reason)


class StopWatcher(Protocol):
    """An object that is informed when a leaf is stopped. A :class:`rxflow._streaming.border.Passage` is one."""

    def note_stopped(self, span_id: str, reason: str) -> None:
        """Note that a leaf was disposed while its span was open. May be called from any thread."""


DEFAULT_STOP_REASON = "stopped"
_stop_reasons: ContextVar[tuple[tuple[str, Callable[[], bool]], ...]] = ContextVar("rxflow_stop_reasons", default=())


@contextmanager
def stopping(reason: str, holds: Callable[[], bool] = lambda: True) -> Generator[None]:
    """Set the reason for leaves that are stopped in the ``with`` block while ``holds()`` is True.

    If blocks are nested, the innermost block with a true ``holds()`` gives the reason.
    """
    token = _stop_reasons.set((*_stop_reasons.get(), (reason, holds)))
    try:
        yield
    finally:
        with suppress(ValueError):  # the context differs if a coroutine is closed after its loop has ended
            _stop_reasons.reset(token)


class UsageLedger:
    """The usage of all ended LLM calls of a flow, a crew or an agent.

    ``around`` is the ledger of the surrounding flow, crew or agent. That ledger counts the same calls too. Each call
    adds its usage directly to a ledger, because a stopped call cannot emit an event with its usage any more.
    """

    __slots__ = ("_around", "_costs", "_entries")

    def __init__(self, around: UsageLedger | None = None) -> None:
        self._around = around
        self._entries: list[UsageMetrics] = []
        self._costs: list[float | None] = []

    def note(self, usage: UsageMetrics, cost: float | None, *, is_shown: bool = False) -> None:
        """Add the usage of one call. May be called from any thread, because any thread may stop a run.

        ``is_shown`` is True if the usage comes from an event. The surrounding flows, crews and agents see the same
        event, and add the usage themselves. So this ledger does not pass the usage on to ``around``.
        """
        self._entries.append(usage)
        # Leave out calls that never reached the provider. Their cost is None, which would make the total unknown.
        if cost is not None or usage.is_reported or usage.successful_requests:
            self._costs.append(cost)
        if self._around is not None and not is_shown:
            self._around.note(usage, cost)

    @property
    def total(self) -> UsageMetrics:
        """The usage of all calls so far."""
        return sum(list(self._entries), UsageMetrics())

    @property
    def cost(self) -> float | None:
        """The cost of all calls that reached a provider, in US dollars; None if any of these costs is unknown."""
        costs = list(self._costs)
        return None if None in costs else sum(cost for cost in costs if cost is not None)


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """The run and the labels that code belongs to.

    The scope is passed as an argument, because a context variable would hold the wrong scope. When an Observable
    completes, Rx subscribes to the next one in the same call. The variable would still hold the scope of the completed
    Observable.
    """

    run: Run
    origin: Origin = field(default_factory=Origin)
    context: Context = field(default_factory=copy_context)
    ledger: UsageLedger = field(default_factory=UsageLedger)
    answerers: tuple[Answerer, ...] = ()
    """The answerers for the questions that code in this scope asks. The innermost answerer is asked first."""
    step: Step = ()
    """In a resumed run: the step (flow or method call) that the code belongs to. In any other run: empty."""
    is_logged: bool = False
    """Whether a surrounding flow, crew or agent is verbose, and thus already logs the events of this scope."""

    @property
    def is_outermost(self) -> bool:
        """Whether this scope is outside of all spans of the run."""
        return not self.origin.span_id

    def with_answerer(self, answerer: Answerer) -> Scope:
        """Return a copy of the scope in which ``answerer`` is asked before all others."""
        return replace(self, answerers=(answerer, *self.answerers))

    @classmethod
    def of_new_run(cls, run: Run, context: Context, parent_run_id: str = "") -> Scope:
        """Return the outermost scope of ``run``."""
        return cls(run, Origin(run_id=run.id, parent_run_id=parent_run_id), context)

    def of_private_run(self) -> Scope:
        """Return a copy of the scope for a separate run with its own id. The run of this scope is the parent."""
        own = replace(self.origin, run_id=str(uuid4()), parent_run_id=self.origin.run_id)
        return replace(self, origin=own, is_logged=False)

    def within(self, *names: str, **labels: Any) -> Scope:
        """Return the scope of a new span inside the span of this scope.

        ``names`` extend the namespace. ``labels`` replace fields of the origin.
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

    def mark_logged(self) -> Scope:
        """Return a copy of the scope for code inside a verbose flow, crew or agent."""
        return replace(self, is_logged=True)

    def with_own_ledger(self) -> Scope:
        """Return a copy of the scope with a new ledger. The ledger of this scope also counts the calls of the copy."""
        return replace(self, ledger=UsageLedger(around=self.ledger))

    def note_shown(self, event: LLMFinished | LLMFailed | LLMCancelled) -> None:
        """If the call of ``event`` is not a call of this run, add the usage in ``event`` to the ledger.

        Calls of this run add their usage themselves. Other calls do not, for example calls in a recording.
        """
        if not event.origin.span_id.startswith(f"{self.run.id}/"):
            self.ledger.note(event.usage, event.cost, is_shown=True)


class RunHandle(Holder):
    """Holds a started run. ``dispose`` stops the run at once. It may be called from any thread, and more than once.

    ``home`` is the loop of the subscriber or of the surrounding run, if the run lives on that loop. ``home`` is None if
    a loop thread was chosen for the run, or if the run needs no loop.
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
        """The loop thread that was chosen for this run; None if none was chosen."""
        return None

    def dispose(self) -> None:
        super().dispose()
        if self.run is not None and not self.has_ended:
            self.run.leftovers.dispose()

    def why_it_stands_still(self) -> str | None:
        """Return the reason why no more events can come, if the run has lost its loop. Otherwise return None."""
        if self.is_inherited:
            return f"its run lives in the process {self._process}, of which this one is a fork"
        if self.home is not None and self.home.is_closed():
            return "its event loop was closed"
        return None

    def join(self, timeout: float) -> None:
        """Wait up to ``timeout`` seconds until nothing of the run is left, but not if no loop thread was chosen."""

    def pause(self) -> _hooks.Pause | None:
        """Return an object that reports one wait of this thread to the run's loop; None if the loop need not know.

        Only loops that count threads need to know: see :func:`rxflow._hooks.thread_count`.
        """
        if self.home is None or self.home is running_loop():
            return None
        count = _hooks.thread_count(self.home)
        return count.pause() if count is not None else None


at_home: weakref.WeakSet[RunHandle] = weakref.WeakSet()
"""The handles of all runs that have a ``home``."""
