"""Calls read one by one: what a model says in one call belongs together, whoever else speaks at the same time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError
from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import SingleAssignmentDisposable

from rxflow.operators._core.lift import select
from rxflow.operators._core.texts import place_of, speaker_of
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import Failed, Finished, Happened, LLMStarted, ReasoningChunk, Retracted

U = TypeVar("U")
U_co = TypeVar("U_co", covariant=True)


class Reader(Protocol[U_co]):
    """Reads what is said in one call."""

    def feed(self, item: object) -> Sequence[U_co]:
        """Take the next item, give what it makes complete."""
        ...

    def finish(self) -> Sequence[U_co]:
        """The call has ended well: give what is left. ValidationError where it does not fit."""
        ...


def call_by_call(make: Callable[[], Reader[U]]) -> Callable[[Observable[Any]], Observable[U]]:
    """An operator that reads each call with a reader of its own, and gives what the readers give.

    A call ends as in ``shaped``. One that fails is not finished: what it said is void. What does not fit is an error
    only at the end of the stream, as until then the same agent may have been asked again, and have answered better;
    any other exception of a reader ends the stream at once, and disposes its source. ::

        source          --a--b--a--{a finished}--b|
        call_by_call    -----------A--------------B|
    """

    def selection(source: Observable[Any]) -> Observable[U]:
        def subscribe(observer: ObserverBase[U], scheduler: SchedulerBase | None = None) -> DisposableBase:
            calls = _Calls(make, observer)
            calls.subscription.disposable = source.subscribe(
                calls.on_next, observer.on_error, calls.on_completed, scheduler=scheduler
            )
            return calls.subscription

        return Observable(subscribe)

    return select(selection)


class _Call:
    __slots__ = ("feed", "finish", "first", "speaker")

    def __init__(self, reader: Reader[Any], first: object, place: str) -> None:
        self.feed = reader.feed
        self.finish = reader.finish
        self.first = first
        self.speaker: object = speaker_of(first) or place

    def is_void_by(self, event: Retracted) -> bool:
        """What it said is taken back."""
        return not isinstance(self.first, StreamChunk) or event.covers(self.first)


class _Calls:
    """The calls of one subscription."""

    def __init__(self, make: Callable[[], Reader[Any]], observer: ObserverBase[Any]) -> None:
        self.subscription = SingleAssignmentDisposable()
        self._make = make
        self._observer = observer
        self._emit = observer.on_next
        self._calls: dict[str, _Call] = {}
        self._told_of: set[str] = set()
        """The places of calls whose end is going to be told, too."""
        self._misfits: list[tuple[_Call, ValidationError]] = []

    def on_next(self, item: object) -> None:
        place = place_of(item)
        call = self._calls.get(place)
        if isinstance(item, Happened):
            if call is None or not isinstance(item, ReasoningChunk):
                self._heed(place, item)
                return
        elif call is None:
            call = self._begin(place, item)
            if call is None:
                return
        try:
            values = call.feed(item)
        except Exception as error:  # noqa: BLE001 - it is the stream's terminal
            self._fail(error)
            return
        for value in values:
            self._emit(value)

    def _heed(self, place: str, event: Happened) -> None:
        """An event may end a call, or take back what was said in some."""
        if isinstance(event, LLMStarted):
            self._told_of.add(place)
        elif isinstance(event, Finished):
            self._finish(place)
        elif isinstance(event, Failed):
            self._calls.pop(place, None)
        elif isinstance(event, Retracted):
            self._calls = {key: call for key, call in self._calls.items() if not call.is_void_by(event)}
            self._misfits = [misfit for misfit in self._misfits if not misfit[0].is_void_by(event)]

    def on_completed(self) -> None:
        if not all(self._finish(place) for place in list(self._calls)):
            return
        if self._misfits:
            self._observer.on_error(self._misfits[0][1])
        else:
            self._observer.on_completed()

    def _begin(self, place: str, item: object) -> _Call | None:
        """A new call; its speaker has ended the one before. None where that failed, and so ended the stream."""
        call = _Call(self._make(), item, place)
        left = [] if place in self._told_of else self._left_by(call.speaker)
        if not all(self._finish(each) for each in left):
            return None
        self._calls[place] = call
        return call

    def _left_by(self, speaker: object) -> list[str]:
        """The calls that a speaker has ended by beginning another one, as no event is going to tell."""
        return [key for key, its in self._calls.items() if its.speaker == speaker and key not in self._told_of]

    def _finish(self, place: str) -> bool:
        """Give what is left of a call; False where that failed, and so ended the stream."""
        call = self._calls.pop(place, None)
        if call is None:
            return True
        self._misfits = [misfit for misfit in self._misfits if misfit[0].speaker != call.speaker]
        try:
            values = call.finish()
        except ValidationError as error:
            self._misfits.append((call, error))
            return True
        except Exception as error:  # noqa: BLE001 - it is the stream's terminal
            self._fail(error)
            return False
        for value in values:
            self._emit(value)
        return True

    def _fail(self, error: Exception) -> None:
        self.subscription.dispose()
        self._calls.clear()
        self._observer.on_error(error)
