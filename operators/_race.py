"""``race``: several streams, and the first to speak is heard."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, TypeVar, cast

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import CompositeDisposable, SingleAssignmentDisposable

from rxflow.operators._core.joining import join_for
from rxflow.operators._core.lift import Adding, through
from rxflow.operators._core.texts import is_said

U = TypeVar("U")

_HELD = 256
"""Events that are kept of each source before its first word. A run has a handful; of more, the latest count."""


def race(*others: Observable[U]) -> Adding[U]:
    """Start this stream and ``others`` side by side; the first to say something wins, the rest is disposed.

    The losers' connections close at that moment, before the winner's first chunk is passed on. Saying something is
    what ends the wait of ``first_chunk_timeout``: a chunk, a piece of reasoning, an item that is not rxflow's. Events
    about a run are held until it wins. A stream that ends or fails without a word drops out; the last one left has
    won, whatever becomes of it, and an error of it gets a note of the others'. A cancellation, KeyboardInterrupt and
    SystemExit end the race. ::

        source          -----a--b--|
        other           ---x----y--z--|
        race(other)     ---x----y--z--|
        source          ^--!

    ``others`` are subscribed on the run's loop, and belong to what the source belongs to. Behind a run, all that
    happens in the winner is seen by later operators, of it is shown what is shown of the source, and strings come as
    chunks.

    Example::

        here.observe(question).pipe(ops.race(there.observe(question)))

    Raises:
        TypeError: one of ``others`` is no Observable.
    """
    for other in others:
        if not isinstance(other, Observable):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"race takes Observables; got {other!r}")

    def apply(source: Observable[Any]) -> Observable[Any]:
        join = join_for(source)

        def operator(first: Observable[Any]) -> Observable[Any]:
            def subscribe(observer: ObserverBase[Any], subscribed: SchedulerBase | None = None) -> DisposableBase:
                return _Race(observer).between([first, *map(join, others)], subscribed)

            return Observable(subscribe)

        return source.pipe(through(operator))

    return cast("Adding[U]", apply)


class _Race:
    """One subscription."""

    def __init__(self, observer: ObserverBase[Any]) -> None:
        self.winner: _Runner | None = None
        self._observer = observer
        self._running: list[_Runner] = []
        self._errors: list[BaseException] = []

    def between(self, sources: Sequence[Observable[Any]], scheduler: SchedulerBase | None) -> DisposableBase:
        """Let them start; the disposable stops all."""
        runners = [_Runner(self, self._observer) for _ in sources]
        self._running = list(runners)
        if len(runners) == 1:
            self.won_by(runners[0])
        for source, runner in zip(sources, runners, strict=True):
            if runner in self._running:
                runner.subscription.disposable = source.subscribe(
                    runner.on_next, runner.on_error, runner.on_completed, scheduler=scheduler
                )
        return CompositeDisposable(*(runner.subscription for runner in runners))

    def won_by(self, runner: _Runner) -> None:
        """Stop the others."""
        self.winner = runner
        for other in self._running:
            if other is not runner:
                other.subscription.dispose()
                other.held.clear()
        self._running = [runner]

    def left_by(self, runner: _Runner, error: BaseException | None) -> None:
        """One has ended without a word, and it was not the last."""
        self._running.remove(runner)
        runner.held.clear()
        if error is not None:
            self._errors.append(error)
        if len(self._running) == 1:
            (last,) = self._running
            self.won_by(last)
            last.release()

    def failed(self, error: Exception) -> None:
        """The winner has."""
        for other in self._errors:
            error.add_note(f"race: a source that had dropped out failed with {other!r}")
        self._observer.on_error(error)

    def stopped(self, error: Exception) -> None:
        """The race is off."""
        for runner in self._running:
            runner.subscription.dispose()
        self._running = []
        self._observer.on_error(error)


class _Runner:
    """One source of a race."""

    __slots__ = ("_emit", "_observer", "_race", "held", "subscription")

    def __init__(self, race: _Race, observer: ObserverBase[Any]) -> None:
        self.held: deque[object] = deque(maxlen=_HELD)
        self.subscription = SingleAssignmentDisposable()
        self._race = race
        self._observer = observer
        self._emit = observer.on_next

    def release(self) -> None:
        """Pass on what was held."""
        while self.held:
            self._emit(self.held.popleft())

    def on_next(self, item: object) -> None:
        if self._race.winner is not self:
            if self._race.winner is not None:
                return
            if not is_said(item):
                self.held.append(item)
                return
            self._race.won_by(self)
            self.release()
        self._emit(item)

    def on_error(self, error: Exception) -> None:
        if self._race.winner is self:
            self._race.failed(error)
        elif isinstance(cast(BaseException, error), Exception):
            self._race.left_by(self, error)
        else:
            self._race.stopped(error)

    def on_completed(self) -> None:
        if self._race.winner is self:
            self._observer.on_completed()
        else:
            self._race.left_by(self, None)
