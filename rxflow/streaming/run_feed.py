"""What fills a log while readers pull: a run, whose events are logged and shown in the run around it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from rxflow.loops import call_soon, running_loop
from rxflow.streaming.emitter import Emitter
from rxflow.streaming.feed import SubscribedFeed
from rxflow.streaming.launch import RunObservable, start
from rxflow.streaming.log import Log
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import CrewFinished, Event, FlowFinished, LLMFinished, TaskFinished

E = TypeVar("E", bound=Event)
Item = TypeVar("Item")


class RunFeed(SubscribedFeed[Item, Event, RunObservable], Generic[Item, E]):
    """Logs what ``select`` makes of a run's events, and keeps the last that ended it."""

    def __init__(
        self, log: Log[Item], source: RunObservable, finished: type[E], select: Callable[[Event], Item | None]
    ) -> None:
        super().__init__(log, source)
        self.finished: E | None = None
        self._finished_type = finished
        self._select = select
        self._to_show: deque[Event] | None = None  # most runs are inside no other, and an empty deque takes 760 bytes

    @property
    def result(self) -> Any:
        ended = self.finished
        if isinstance(ended, LLMFinished):
            return ended.text
        return ended.result if isinstance(ended, FlowFinished | CrewFinished | TaskFinished) else None

    def pull(self, position: int) -> None:
        super().pull(position)
        if self._to_show and self._place is not None and running_loop() is self._place.run.loop:
            self._show_waiting()  # this wait blocked the loop that was to do it

    def _subscribe(self, source: RunObservable, place: Emitter | None, *, blocking: bool) -> None:
        start(source.build, self, place=place, blocking=blocking, is_read=True, hold=self._hold)

    def on_next(self, value: Event) -> None:
        if self._log.is_ended:
            return
        try:
            item = self._select(value)
        except Exception as error:
            self._end(error)  # readers wait for nothing more; whoever emits hears of it too
            raise
        if item is not None:
            self._log.append(item)
        if not isinstance(value, StreamChunk) and isinstance(value, self._finished_type):
            self.finished = value
        if self._place is not None:
            self._show(self._place, value)

    def _show(self, place: Emitter, event: Event) -> None:
        """What runs inside another run appears in its stream too."""
        if running_loop() is place.run.loop:
            place.on_next(event)
        else:
            if self._to_show is None:
                self._to_show = deque()
            self._to_show.append(event)
            if len(self._to_show) == 1:
                call_soon(place.run.loop, self._show_waiting)

    def _show_waiting(self) -> None:
        while self._to_show and self._place is not None:
            self._place.on_next(self._to_show.popleft())
