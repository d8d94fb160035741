"""Lanes: calls that speak at the same time are shaped each by itself, so that no word is made of two speakers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import SingleAssignmentDisposable

from rxflow.operators._core.characters import joined
from rxflow.operators._core.lift import through
from rxflow.operators._core.texts import place_of, speaker_of, text_of, with_text
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import Happened, ReasoningChunk, Retracted

T = TypeVar("T")

Key: TypeAlias = tuple[str, object]
"""A place of the run, and what is said there: answer and reasoning of one call do not mix."""


class Shaper(Protocol):
    """Cuts the text of one lane anew."""

    def feed(self, text: str) -> Sequence[str]:
        """Take the next text, give the pieces that are ready."""
        ...

    def flush(self) -> Sequence[str]:
        """The lane has ended: give what is left."""
        ...


class Lane:
    """One call, the shaper of its text, and the last item that it said."""

    __slots__ = ("_half", "last", "shaper", "speaker")

    def __init__(self, shaper: Shaper, first: object) -> None:
        self.last = first
        self.speaker = speaker_of(first)
        self.shaper = shaper
        self._half = ""

    def feed(self, text: str) -> Sequence[str]:
        """The pieces that are ready once ``text`` has come."""
        if not text.isascii() or self._half:
            text, self._half = joined(self._half + text)
        return self.shaper.feed(text)

    def flush(self) -> Sequence[str]:
        """What is left."""
        if not self._half:
            return self.shaper.flush()
        half, self._half = self._half, ""
        return [*self.shaper.feed(half), *self.shaper.flush()]


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
            lanes = Lanes(make, observer)
            lanes.subscription.disposable = source.subscribe(
                lanes.on_next, lanes.on_error, lanes.on_completed, scheduler=scheduler
            )
            return lanes.subscription

        return Observable(subscribe)

    return through(operator)


class Lanes:
    """The lanes of one subscription. Operators that read other text, or end their lanes later, override a step."""

    def __init__(self, make: Callable[[], Shaper], observer: ObserverBase[Any]) -> None:
        self.subscription = SingleAssignmentDisposable()
        self.lanes: dict[Key, Lane] = {}
        self._make = make
        self._observer = observer
        self._emit = observer.on_next
        self._hears_of_ends = False

    def on_next(self, item: object) -> None:
        text = self.text_of(item)
        if text is None:
            self._hears_of_ends = self._hears_of_ends or isinstance(item, Happened)
            if not self.lanes or self._end(self.ended_by(item)):
                self._emit(item)
            return
        key = self.key_of(item)
        lane = self.lanes.get(key) or self._begin(key, item)
        if lane is None:
            return
        lane.last = item
        try:
            pieces = lane.feed(text)
        except Exception as error:  # noqa: BLE001 - it is the stream's terminal
            self.fail(error)
            return
        for piece in pieces:
            self._emit(item if piece == text else self.with_text(item, piece))

    def on_error(self, error: Exception) -> None:
        if self._end(list(self.lanes)):
            self._observer.on_error(error)

    def on_completed(self) -> None:
        if self._end(list(self.lanes)):
            self._observer.on_completed()

    def text_of(self, item: object) -> str | None:
        """What is shaped of an item; None where it passes."""
        return text_of(item)

    def with_text(self, item: object, text: str) -> object:
        """The item that says a piece."""
        return with_text(item, text)

    def key_of(self, item: object) -> Key:
        """The lane of an item that has text."""
        return place_of(item), type(item)

    def ended_by(self, item: object) -> list[Key]:
        """The lanes that an item without text ends."""
        if isinstance(item, Retracted):  # what is void must not be joined with what comes instead
            return [key for key, lane in self.lanes.items() if is_void(lane.last, item)]
        place = place_of(item)
        return [key for key in self.lanes if key[0] == place]

    def left_for(self, key: Key, lane: Lane) -> list[Key]:
        """The lanes that a new one ends: those of its place, and where no events tell it, those of its speaker."""
        speaker = None if self._hears_of_ends else lane.speaker
        return [
            other
            for other, its in self.lanes.items()
            if other[0] == key[0] or (speaker is not None and its.speaker == speaker)
        ]

    def give(self, lane: Lane, pieces: Sequence[str]) -> None:
        """Emit pieces of a lane as what it said last."""
        for piece in pieces:
            self._emit(self.with_text(lane.last, piece))

    def fail(self, error: Exception) -> None:
        """End the stream and the source."""
        self.subscription.dispose()
        self.lanes.clear()
        self._observer.on_error(error)

    def _begin(self, key: Key, item: object) -> Lane | None:
        """A new lane; those that its speaker has left are over. None where that failed, and so ended the stream."""
        lane = Lane(self._make(), item)
        if not self._end(self.left_for(key, lane)):
            return None
        self.lanes[key] = lane
        return lane

    def _end(self, keys: Sequence[Key]) -> bool:
        """Give what is left of some lanes; False where that failed, and so ended the stream."""
        for key in keys:
            lane = self.lanes.pop(key)
            try:
                pieces = lane.flush()
            except Exception as error:  # noqa: BLE001 - it is the stream's terminal
                self.fail(error)
                return False
            self.give(lane, pieces)
        return True


def is_void(item: object, retracted: Retracted) -> bool:
    """An item that was taken back; items that are not rxflow's have no number, so all of them were."""
    return not isinstance(item, StreamChunk | ReasoningChunk) or retracted.covers(item)
