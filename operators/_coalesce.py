"""``coalesce``: fewer and larger chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import CompositeDisposable, SerialDisposable

from rxflow.operators._core.arguments import positive
from rxflow.operators._core.characters import Characters
from rxflow.operators._core.clock import timed
from rxflow.operators._core.lift import through
from rxflow.operators._core.voices import Voices, shaped

T = TypeVar("T")


def coalesce(
    *, seconds: float | None = None, characters: int | None = None, scheduler: SchedulerBase | None = None
) -> Callable[[Observable[T]], Observable[T]]:
    """Gather the text of a call until ``seconds`` have passed since the first of it, or it has so many ``characters``.

    Give one of the two, or both. What is gathered comes as one item, with the labels of the last; it is never cut, so
    it may be longer than ``characters``. Tool calls and events stay where they are: what was gathered before comes
    before them, and so it does before the end of the call, and the end or error of the source. The last character waits
    for the next text, as it may go on (an accent, a part of an emoji). Works on chunks and on strings. Each call is
    shaped by itself. ::

        source                      --a-b-c-d----e--|
        coalesce(characters=3)      --------abc-----(de)|
        coalesce(seconds=5 - -)     -------ab-----cd(e)|      (the last character waits)

    Example::

        flow.observe().pipe(ops.coalesce(seconds=0.05)).subscribe(send_to_browser)

    Raises:
        RuntimeError: as the stream's error: ``seconds`` is given, and there is no clock, as no event loop runs here and
            no scheduler was given.
        TypeError: neither is given, or one is no number.
        ValueError: one is not above 0.
    """
    if seconds is None and characters is None:
        raise TypeError("coalesce needs seconds=… or characters=…, for example coalesce(seconds=0.05)")
    if characters is not None:
        positive(characters, "coalesce(characters)", "characters")
    enough = float("inf") if characters is None else characters
    if seconds is None:
        return shaped(lambda: _Gathered(enough))
    limit = timedelta(seconds=positive(seconds, "coalesce(seconds)", "seconds"))

    def operator(source: Observable[Any]) -> Observable[Any]:
        def subscribe(
            observer: ObserverBase[Any], clock: SchedulerBase, subscribed: SchedulerBase | None
        ) -> DisposableBase:
            voices = _TimedVoices(limit, enough, clock, observer)
            voices.subscription.disposable = source.subscribe(
                voices.on_next, voices.on_error, voices.on_completed, scheduler=subscribed
            )
            return CompositeDisposable(voices.timer, voices.subscription)

        return timed("coalesce(seconds=…)", scheduler, subscribe)

    return through(operator)


class _TimedVoices(Voices):
    """Voices that give what they gathered when its time has come. One timer is pending at most."""

    def __init__(self, limit: timedelta, enough: float, scheduler: SchedulerBase, observer: ObserverBase[Any]) -> None:
        super().__init__(lambda: _Gathered(enough, self._begun), observer)
        self.timer = SerialDisposable()
        self._limit = limit
        self._scheduler = scheduler
        self._is_waiting = False

    def _begun(self) -> datetime:
        """A voice has begun to gather."""
        if not self._is_waiting:
            self._wait(self._limit)
        return self._scheduler.now

    def _wait(self, time: timedelta) -> None:
        self._is_waiting = True
        self.timer.disposable = self._scheduler.schedule_relative(time, self._look)

    def _look(self, scheduler: SchedulerBase, state: object = None) -> None:
        """Give what has been gathered for long enough, and wait for the next; what came early may be gone by now."""
        now = self._scheduler.now
        rests: list[timedelta] = []
        self._is_waiting = False
        for voice in list(self.voices.values()):
            gathered = voice.shaper
            if not isinstance(gathered, _Gathered) or gathered.since is None:
                continue
            rest = self._limit - (now - gathered.since)
            if rest > timedelta():
                rests.append(rest)
            else:
                self.give(voice, gathered.release())
        if rests and not self._is_waiting:
            self._wait(min(rests))


def _untimed() -> None:
    """Nobody asks since when."""


class _Gathered:
    """What is gathered of one voice, but for the character that may go on."""

    def __init__(self, enough: float, begun: Callable[[], datetime | None] = _untimed) -> None:
        self.since: datetime | None = None
        self._enough = enough
        self._begun = begun
        self._characters = Characters()
        self._pieces: list[str] = []
        self._length = 0

    def feed(self, text: str) -> Sequence[str]:
        for piece in self._characters.feed(text):
            if not self._pieces:
                self.since = self._begun()
            self._pieces.append(piece)
            self._length += len(piece)
        return self.release() if self._length >= self._enough else ()

    def release(self) -> Sequence[str]:
        pieces, self._pieces, self._length, self.since = self._pieces, [], 0, None
        return ("".join(pieces),) if pieces else ()

    def flush(self) -> Sequence[str]:
        self._pieces.extend(self._characters.flush())
        return self.release()
