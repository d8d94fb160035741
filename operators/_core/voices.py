"""Voices: what several calls say at the same time is shaped apart, so that no word is made of two speakers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import SingleAssignmentDisposable

from rxflow.operators._core.characters import joined
from rxflow.operators._core.lift import through
from rxflow.operators._core.places import namespace_of
from rxflow.operators._core.texts import place_of, speaker_of, text_of, with_text
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import LLMStarted, MethodFailed, MethodFinished, ReasoningChunk, Retracted

T = TypeVar("T")

Key: TypeAlias = tuple[str, object]
"""A place of the run, and what is said there: answer and reasoning of one call are two voices."""


class Shaper(Protocol):
    """Cuts what one voice says anew."""

    def feed(self, text: str) -> Sequence[str]:
        """Take the next text, give the pieces that are ready."""
        ...

    def flush(self) -> Sequence[str]:
        """The voice has ended: give what is left."""
        ...


class Voice:
    """What one call says: the shaper of its text, and the last item."""

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
    """An operator that sends the text of each voice through a shaper of its own; all else passes, in its place.

    A voice ends with its LLM call, as a run's events tell, and at the latest with the flow's method around it, which
    may cut off a call or hand on bare chunks. Where no event has told of the call, it ends when the same agent goes on
    with the same task in another one, else with the stream. What is left of it comes then, before whatever ended it. An
    exception of a shaper ends the stream, and disposes its source. ::

        source          --wo--rld-he--llo|        (two voices: "world", "hello")
        words           ------wor--------(hello)|
    """

    def operator(source: Observable[Any]) -> Observable[Any]:
        def subscribe(observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
            voices = Voices(make, observer)
            voices.subscription.disposable = source.subscribe(
                voices.on_next, voices.on_error, voices.on_completed, scheduler=scheduler
            )
            return voices.subscription

        return Observable(subscribe)

    return through(operator)


class Voices:
    """The voices of one subscription. Operators that read other text, or end their voices later, override a step."""

    def __init__(self, make: Callable[[], Shaper], observer: ObserverBase[Any]) -> None:
        self.subscription = SingleAssignmentDisposable()
        self.voices: dict[Key, Voice] = {}
        self._make = make
        self._observer = observer
        self._emit = observer.on_next
        self._told_of: set[str] = set()
        """The places of calls whose end is going to be told, too."""

    def on_next(self, item: object) -> None:
        text = self.text_of(item)
        if text is None:
            if isinstance(item, LLMStarted):
                self._told_of.add(place_of(item))
            if not self.voices or self._end(self.ended_by(item)):
                self._emit(item)
            return
        key = self.key_of(item)
        voice = self.voices.get(key) or self._begin(key, item)
        if voice is None:
            return
        voice.last = item
        try:
            pieces = voice.feed(text)
        except Exception as error:  # noqa: BLE001 - it is the stream's terminal
            self.fail(error)
            return
        for piece in pieces:
            self._emit(item if piece == text else self.with_text(item, piece))

    def on_error(self, error: Exception) -> None:
        if self._end(list(self.voices)):
            self._observer.on_error(error)

    def on_completed(self) -> None:
        if self._end(list(self.voices)):
            self._observer.on_completed()

    def text_of(self, item: object) -> str | None:
        """What is shaped of an item; None where it passes."""
        return text_of(item)

    def with_text(self, item: object, text: str) -> object:
        """The item that says a piece."""
        return with_text(item, text)

    def key_of(self, item: object) -> Key:
        """Whose voice an item is that has text."""
        return place_of(item), type(item)

    def ended_by(self, item: object) -> list[Key]:
        """The voices that an item without text ends."""
        if isinstance(item, Retracted):  # what is void must not be joined with what comes instead
            return [key for key, voice in self.voices.items() if is_void(voice.last, item)]
        if isinstance(item, MethodFinished | MethodFailed):
            around = item.origin.namespace
            return [key for key, voice in self.voices.items() if namespace_of(voice.last)[: len(around)] == around]
        place = place_of(item)
        return [key for key in self.voices if key[0] == place]

    def left_for(self, key: Key, voice: Voice) -> list[Key]:
        """The voices that a new one ends: those of its place, and where no events tell it, those of its speaker."""
        speaker = None if key[0] in self._told_of else voice.speaker
        left = {
            other[0]
            for other, its in self.voices.items()
            if speaker is not None and its.speaker == speaker and other[0] not in self._told_of
        }
        return [other for other in self.voices if other[0] == key[0] or other[0] in left]

    def give(self, voice: Voice, pieces: Sequence[str]) -> None:
        """Emit pieces of a voice as what it said last."""
        for piece in pieces:
            self._emit(self.with_text(voice.last, piece))

    def fail(self, error: Exception) -> None:
        """End the stream and the source."""
        self.subscription.dispose()
        self.voices.clear()
        self._observer.on_error(error)

    def _begin(self, key: Key, item: object) -> Voice | None:
        """A new voice; those that its speaker has left are over. None where that failed, and so ended the stream."""
        voice = Voice(self._make(), item)
        if not self._end(self.left_for(key, voice)):
            return None
        self.voices[key] = voice
        return voice

    def _end(self, keys: Sequence[Key]) -> bool:
        """Give what is left of some voices; False where that failed, and so ended the stream."""
        for key in keys:
            voice = self.voices.pop(key, None)
            if voice is None:
                continue  # the observer made it end while it was given what another had left
            try:
                pieces = voice.flush()
            except Exception as error:  # noqa: BLE001 - it is the stream's terminal
                self.fail(error)
                return False
            self.give(voice, pieces)
        return True


def is_void(item: object, retracted: Retracted) -> bool:
    """An item that was taken back; items that are not rxflow's have no number, so all of them were."""
    return not isinstance(item, StreamChunk | ReasoningChunk) or retracted.covers(item)
