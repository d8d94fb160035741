"""``interleave_fairly``: emits the bursts of concurrent calls in turns."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import SerialDisposable

from rxflow._streaming import Holder, Owned
from rxflow.operators._core import create_timed, get_span_id, is_content, through

T = TypeVar("T")


def interleave_fairly(*, scheduler: SchedulerBase | None = None) -> Callable[[Observable[T]], Observable[T]]:
    """Merge concurrent LLM calls chunk by chunk instead of burst by burst (like ``merge``, but in turns).

    Providers send in bursts, for example thirty chunks of one call and then thirty chunks of another call. The chunks
    that arrive in one step of the event loop are gathered. In the next step they are emitted, one chunk of each call in
    turn. The order within a call stays. If an event arrives that is neither a chunk nor reasoning, such as the end of a
    call, all gathered chunks are emitted at once, and then the event. Before an error or the completion, all gathered
    chunks are also emitted at once. ::

        source                 --(a1 a2 a3 b1 b2)--|
        interleave_fairly()    --(a1 b1 a2 b2 a3)--|

    The operator never waits for a call that has no chunks. It delays a chunk by at most one step of the loop.

    Example::

        flow.observe().pipe(ops.interleave_fairly()).subscribe(show_side_by_side)

    Raises:
        RuntimeError: as the stream's error: no event loop was running at the subscription, and no scheduler was given.
    """

    def operator(source: Observable[Any]) -> Observable[Any]:
        def subscribe(
            observer: ObserverBase[Any], clock: SchedulerBase, subscribed: SchedulerBase | None
        ) -> DisposableBase:
            bursts = _Bursts(observer, clock)
            bursts.running.hold(
                source.subscribe(bursts.on_next, bursts.on_error, bursts.on_completed, scheduler=subscribed)
            )
            return Owned(bursts.pending, bursts.running)

        return create_timed("interleave_fairly", scheduler, subscribe)

    return through(operator)


class _Bursts:
    """The chunks that one subscription gathers in one step of the loop."""

    def __init__(self, observer: ObserverBase[Any], clock: SchedulerBase) -> None:
        self.running = Holder()
        self.pending = SerialDisposable()
        self._observer = observer
        self._emit = observer.on_next
        self._clock = clock
        self._calls: dict[str, deque[Any]] = {}
        self._is_scheduled = False

    def on_next(self, item: Any) -> None:
        if not is_content(item):
            self._release()
            self._emit(item)
            return
        span_id = get_span_id(item)
        gathered = self._calls.get(span_id)
        if gathered is None:
            self._calls[span_id] = deque((item,))
        else:
            gathered.append(item)
        if not self._is_scheduled:
            self._is_scheduled = True
            self.pending.disposable = self._clock.schedule(self._on_next_step)

    def on_error(self, error: Exception) -> None:
        self._release()
        self.pending.dispose()
        self._observer.on_error(error)

    def on_completed(self) -> None:
        self._release()
        self.pending.dispose()
        self._observer.on_completed()

    def _on_next_step(self, *_: object) -> None:
        self._is_scheduled = False
        self._release()

    def _release(self) -> None:
        while self._calls:
            for span_id in list(self._calls):
                if self.running.is_disposed:
                    self._calls.clear()
                    return
                gathered = self._calls.get(span_id)
                if gathered is None:
                    continue  # the observer's work on another chunk has caused an event, which released these chunks
                item = gathered.popleft()
                if not gathered:
                    del self._calls[span_id]
                self._emit(item)
