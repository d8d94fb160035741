"""Lanes: calls that speak at the same time are shaped each by itself, so that no word is made of two speakers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import SingleAssignmentDisposable

from rxflow.operators._core.lift import through
from rxflow.operators._core.texts import place_of, text_of, with_text
from rxflow.types.chunks import StreamChunk

T = TypeVar("T")

_Key: TypeAlias = tuple[str, type[Any]]
"""A place of the run, and what is said there: answer and reasoning of one call do not mix."""


class Shaper(Protocol):
    """Cuts the text of one lane anew."""

    def feed(self, text: str) -> Sequence[str]:
        """Take the next text, give the pieces that are ready."""
        ...

    def flush(self) -> Sequence[str]:
        """The lane has ended: give what is left."""
        ...


class _Lane:
    __slots__ = ("feed", "flush", "last", "speaker")

    def __init__(self, shaper: Shaper, first: object) -> None:
        self.feed = shaper.feed
        self.flush = shaper.flush
        self.last = first
        self.speaker = _speaker_of(first)


def shaped(make: Callable[[], Shaper]) -> Callable[[Observable[T]], Observable[T]]:
    """An operator that sends the text of each lane through a shaper of its own; all else passes, in its place.

    A lane ends with its LLM call, which a run's events tell. In a stream of bare chunks it ends when the same agent
    goes on with the same task in another call, else with the stream. What is left of it comes then, before whatever
    ended it. An exception of a shaper ends the stream, and disposes its source. ::

        source          --wo--rld-he--llo|        (two lanes: "world", "hello")
        words           ------wor--------(hello)|
    """

    def operator(source: Observable[Any]) -> Observable[Any]:
        def subscribe(observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
            lanes = _Lanes(make, observer)
            lanes.subscription.disposable = source.subscribe(
                lanes.on_next, lanes.on_error, lanes.on_completed, scheduler=scheduler
            )
            return lanes.subscription

        return Observable(subscribe)

    return through(operator)


class _Lanes:
    """The lanes of one subscription."""

    def __init__(self, make: Callable[[], Shaper], observer: ObserverBase[Any]) -> None:
        self.subscription = SingleAssignmentDisposable()
        self._make = make
        self._observer = observer
        self._emit = observer.on_next
        self._lanes: dict[_Key, _Lane] = {}

    def on_next(self, item: object) -> None:
        text = text_of(item)
        if text is None:
            if self._lanes:
                self._end_at(place_of(item))
            self._emit(item)
            return
        key: _Key = (place_of(item), type(item))
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._begin(key, item)
        lane.last = item
        try:
            pieces = lane.feed(text)
        except Exception as error:  # noqa: BLE001 - it is the stream's terminal
            self._fail(error)
            return
        for piece in pieces:
            self._emit(item if piece == text else with_text(item, piece))

    def on_error(self, error: Exception) -> None:
        if self._end(list(self._lanes)):
            self._observer.on_error(error)

    def on_completed(self) -> None:
        if self._end(list(self._lanes)):
            self._observer.on_completed()

    def _begin(self, key: _Key, item: object) -> _Lane:
        """A new lane; those that its speaker has left are over."""
        lane = _Lane(self._make(), item)
        left = [
            other
            for other, its in self._lanes.items()
            if other[0] == key[0] or (its.speaker is not None and its.speaker == lane.speaker)
        ]
        self._end(left)
        self._lanes[key] = lane
        return lane

    def _end_at(self, place: str) -> None:
        self._end([key for key in self._lanes if key[0] == place])

    def _end(self, keys: Sequence[_Key]) -> bool:
        """Give what is left of some lanes; False where that failed, and so ended the stream."""
        for key in keys:
            lane = self._lanes.pop(key)
            try:
                pieces = lane.flush()
            except Exception as error:  # noqa: BLE001 - it is the stream's terminal
                self._fail(error)
                return False
            for piece in pieces:
                self._emit(with_text(lane.last, piece))
        return True

    def _fail(self, error: Exception) -> None:
        self.subscription.dispose()
        self._lanes.clear()
        self._observer.on_error(error)


def _speaker_of(item: object) -> tuple[str, str] | None:
    """Who speaks in one call at a time: an agent on a task. None where the item does not say."""
    return (item.task_id, item.agent_id) if isinstance(item, StreamChunk) and item.task_id else None
