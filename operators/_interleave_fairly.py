"""``interleave_fairly``: bursts of several speakers, in turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import CompositeDisposable, SerialDisposable, SingleAssignmentDisposable

from rxflow.operators._core.clock import timed
from rxflow.operators._core.lift import through
from rxflow.operators._core.texts import is_said, place_of

T = TypeVar("T")


def interleave_fairly(scheduler: SchedulerBase | None = None) -> Callable[[Observable[T]], Observable[T]]:
    """Let LLM calls that speak at the same time take turns, chunk by chunk, instead of burst after burst.

    Providers send in bursts: thirty chunks of one call, then thirty of another. What arrives in one step of the event
    loop is gathered, and passed on in the next step, one item of each call after the other. The order within a call
    stays. An event (a call or a task has ended, a tool begins) is passed on at once, after all that was gathered before
    it. Errors and completion, too, come after it. ::

        source                 --(a1 a2 a3 b1 b2)--|
        interleave_fairly()    --(a1 b1 a2 b2 a3)--|

    It never waits for a call that has nothing to say, and costs one step of the loop.

    Example::

        flow.observe().pipe(ops.interleave_fairly()).subscribe(show_side_by_side)

    Raises:
        RuntimeError: as the stream's error: no event loop runs here, and no scheduler was given.
    """

    def operator(source: Observable[Any]) -> Observable[Any]:
        def subscribe(
            observer: ObserverBase[Any], clock: SchedulerBase, subscribed: SchedulerBase | None
        ) -> DisposableBase:
            turns = _Turns(observer, clock)
            turns.running.disposable = source.subscribe(
                turns.on_next, turns.on_error, turns.on_completed, scheduler=subscribed
            )
            return CompositeDisposable(turns.running, turns.pending)

        return timed("interleave_fairly", scheduler, subscribe)

    return through(operator)


class _Turns:
    """What one subscription has gathered."""

    def __init__(self, observer: ObserverBase[Any], clock: SchedulerBase) -> None:
        self.running = SingleAssignmentDisposable()
        self.pending = SerialDisposable()
        self._observer = observer
        self._emit = observer.on_next
        self._clock = clock
        self._calls: dict[str, deque[Any]] = {}
        self._is_scheduled = False

    def on_next(self, item: Any) -> None:
        if not is_said(item):
            self._pass_on()
            self._emit(item)
            return
        place = place_of(item)
        gathered = self._calls.get(place)
        if gathered is None:
            self._calls[place] = deque((item,))
        else:
            gathered.append(item)
        if not self._is_scheduled:
            self._is_scheduled = True
            self.pending.disposable = self._clock.schedule(self._on_turn)

    def on_error(self, error: Exception) -> None:
        self._pass_on()
        self.pending.dispose()
        self._observer.on_error(error)

    def on_completed(self) -> None:
        self._pass_on()
        self.pending.dispose()
        self._observer.on_completed()

    def _on_turn(self, *_: object) -> None:
        self._is_scheduled = False
        self._pass_on()

    def _pass_on(self) -> None:
        while self._calls:
            for place in list(self._calls):
                if self.running.is_disposed:
                    self._calls.clear()
                    return
                gathered = self._calls.get(place)
                if gathered is None:
                    continue  # the observer made an event happen, which has passed it on already
                item = gathered.popleft()
                if not gathered:
                    del self._calls[place]
                self._emit(item)
