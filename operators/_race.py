"""``race``: keeps the fastest of several streams."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from copy import copy
from functools import partial
from itertools import count
from typing import Any, TypeVar, cast

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow._streaming import Border, EventStream, Holder, Owned, current_border, stopping
from rxflow.operators._core import Adding, OpenSpans, create_join, is_content, through

U = TypeVar("U")

_MAX_HELD_EVENTS = 256
"""The greatest number of events that are held for each source until the race is decided.

A run usually has a handful of events before its first chunk. If there are more, the oldest are dropped.
"""

_LOST = "another source of the race was faster"
"""The ``reason`` in the events that end the spans of the losing sources."""


def race(*others: Observable[U]) -> Adding[U]:
    """Subscribe to the source and to ``others`` at the same time (like ``amb``).

    The first stream to emit a chunk wins, and the other streams are disposed.

    The connections of the losers are closed before the winner's first chunk is emitted. Reasoning counts as a chunk. So
    does an item that is not an event of rxflow. All other events are held until one stream wins, but only the latest
    256 of each stream. A stream that completes or fails without a chunk drops out. The last remaining stream wins, even
    if it fails later. If the winner fails, its error gets notes with the errors of the streams that dropped out. Until
    one stream wins, a cancellation, a KeyboardInterrupt or a SystemExit of any stream ends the race at once. ::

        source          -----a--b--|
        other           ---x----y--z--|
        race(other)     ---x----y--z--|
        source          ^--!               (subscribed at ^, disposed at !)

    If the source is a run, ``others`` are subscribed on the run's loop, and belong to the same method or task as the
    source. Strings from ``others`` become chunks, and the selection of the source also applies to the winner. Later
    operators receive the events of the winner, and the events with which the losers began and ended. For example,
    ``LLMCancelled`` has the cost of a stopped call.

    Example::

        here.observe(question).pipe(ops.race(there.observe(question)))

    Raises:
        TypeError: one of ``others`` is not an Observable.
    """
    for other in others:
        if not isinstance(other, Observable):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"race takes Observables; got {other!r}")

    def apply(source: Observable[Any]) -> Observable[Any]:
        join = create_join(source)

        def operator(first: Observable[Any]) -> Observable[Any]:
            def subscribe(observer: ObserverBase[Any], subscribed: SchedulerBase | None = None) -> DisposableBase:
                border = current_border()
                race = _Race(observer, border, is_in_run=isinstance(source, EventStream))
                return race.start([first, *(join(other, border) for other in others)], subscribed)

            return Observable(subscribe)

        return source.pipe(through(operator))

    return cast("Adding[U]", apply)


class _Race:
    """One subscription to all sources of the race."""

    def __init__(self, observer: ObserverBase[Any], border: Border | None, *, is_in_run: bool) -> None:
        self.is_in_run = is_in_run
        self.arrivals = count()
        self.winner: _Runner | None = None
        self._border = border
        self._is_holding = False
        self._observer = observer
        self._runners: list[_Runner] = []
        self._running: list[_Runner] = []
        self._errors: list[BaseException] = []

    def start(self, sources: Sequence[Observable[Any]], scheduler: SchedulerBase | None) -> DisposableBase:
        """Subscribe to all sources. Return a disposable that stops them."""
        runners = self._runners = [_Runner(self, self._observer) for _ in sources]
        self._running = list(runners)
        if self._border is not None:
            self._border.holds += 1
            self._is_holding = True
        if len(runners) == 1:
            self.declare_winner(runners[0])
        for source, runner in zip(sources, runners, strict=True):
            if runner in self._running:
                runner.subscription.hold(
                    source.subscribe(runner.on_next, runner.on_error, runner.on_completed, scheduler=scheduler)
                )
        return Owned(*(runner.subscription for runner in runners))

    def admit(self, item: object) -> object:
        """Return the item with its ``seq``. Held items have no ``seq``, because they may be dropped."""
        return item if self._border is None else self._border.admit(item)

    def declare_winner(self, runner: _Runner) -> None:
        """End the race: ``runner`` has won.

        Emit the held events that :meth:`_Runner.take_held` returns for each source. Then dispose the losers, and close
        their spans.
        """
        self.winner = runner
        self._let_go()
        runners, self._runners = self._runners, []
        held = sorted((number, each, item) for each in runners for number, item in each.take_held())
        spans = OpenSpans()
        for _, each, item in held:
            if each is runner:
                self._observer.on_next(self.admit(item))
            else:  # a copy: admit() sets ``seq``, and the border closes spans whose start has one
                self._observer.on_next(self.admit(copy(item)))
                spans.follow(item)
        with stopping(_LOST):  # the border of the surrounding run uses this reason for the losers' spans
            for other in self._running:
                if other is not runner:
                    other.subscription.dispose()
        self._running = [runner]
        if self._border is not None:
            for event in spans.close(partial(self._border.describe_stopped, reason=_LOST)):
                self._observer.on_next(self.admit(event))

    def drop_out(self, runner: _Runner, error: BaseException | None) -> None:
        """Remove a source that ended without a chunk. If only one source is left, it wins."""
        self._running.remove(runner)
        if error is not None:
            self._errors.append(error)
        if len(self._running) == 1:
            self.declare_winner(self._running[0])

    def fail(self, error: Exception) -> None:
        """Pass on the error of the winner, with notes about the errors of the other sources."""
        for other in self._errors:
            error.add_note(f"race: another source failed before with {other!r}")
        self._observer.on_error(error)

    def abort(self, error: Exception) -> None:
        """End the race with a cancellation, a KeyboardInterrupt or a SystemExit.

        ``error`` is annotated as Exception because RxPY annotates all errors so.
        """
        for runner in self._running:
            runner.subscription.dispose()
        self._running = []
        self._let_go()
        self._observer.on_error(error)

    def _let_go(self) -> None:
        if self._border is not None and self._is_holding:
            self._border.holds -= 1
        self._is_holding = False


class _Runner:
    """One source of a race."""

    __slots__ = ("_emit", "_held", "_observer", "_race", "subscription")

    def __init__(self, race: _Race, observer: ObserverBase[Any]) -> None:
        self.subscription = Holder()
        self._held: deque[tuple[int, object]] = deque(maxlen=_MAX_HELD_EVENTS)
        self._race = race
        self._observer = observer
        self._emit = observer.on_next

    def take_held(self) -> Sequence[tuple[int, object]]:
        """Remove and return the held events, each with its position in the order of arrival.

        The events of a loser are returned only if the race is in a run, and if none of these events can have been
        dropped. Outside of a run, each source may be a run of its own, and the events of two runs must not be mixed.
        """
        held, self._held = self._held, deque()
        is_shown = self._race.winner is self or (self._race.is_in_run and len(held) < _MAX_HELD_EVENTS)
        return list(held) if is_shown else ()

    def on_next(self, item: object) -> None:
        if self._race.winner is not self:
            if self._race.winner is not None:
                return
            if not is_content(item):
                self._held.append((next(self._race.arrivals), item))
                return
            self._race.declare_winner(self)
            item = self._race.admit(item)
        self._emit(item)

    def on_error(self, error: Exception) -> None:
        if self._race.winner is self:
            self._race.fail(error)
        elif isinstance(cast(BaseException, error), Exception):
            self._race.drop_out(self, error)
        else:
            self._race.abort(error)

    def on_completed(self) -> None:
        if self._race.winner is self:
            self._observer.on_completed()
        else:
            self._race.drop_out(self, None)
