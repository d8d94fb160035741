"""``coalesce``: fewer and larger chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from math import inf
from typing import Any, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import SerialDisposable
from reactivex.typing import RelativeTime

from rxflow._streaming import Owned
from rxflow.operators._core import (
    Characters,
    Voices,
    check_positive,
    create_timed,
    set_timer,
    shape_text,
    through,
    to_seconds,
)

T = TypeVar("T")


def coalesce(
    *, seconds: RelativeTime | None = None, characters: int | None = None, scheduler: SchedulerBase | None = None
) -> Callable[[Observable[T]], Observable[T]]:
    """Join the text of a call into fewer, larger chunks (like ``buffer_with_time_or_count``).

    Text is gathered until ``seconds`` (a number or a timedelta) have passed since the first piece, or until there are
    ``characters`` characters. Give ``seconds``, ``characters`` or both. The gathered text is emitted as one item, with
    the labels of the last chunk. The gathered text is never split, so it may be longer than ``characters``. The last
    character is gathered only when the next text arrives, because an accent or the rest of an emoji may follow.

    The order within a call stays. All text is emitted before any other item of its call, before the call ends, and
    before the source completes or fails. The operator works on chunks and on strings. The texts of different calls are
    not joined. ::

        source                    --a-b-c-d----e--|
        coalesce(characters=3)    --------abc-----(de)|
        coalesce(seconds=5)       ---------abc----(de)|      (units: s; a is gathered when b arrives, at 4)

    Example::

        flow.observe().pipe(ops.coalesce(seconds=0.05)).subscribe(send_to_browser)

    Raises:
        RuntimeError: as the stream's error: ``seconds`` is given, but no event loop was running at the subscription,
            and no scheduler was given.
        TypeError: neither ``seconds`` nor ``characters`` is given, or one of them has a wrong type.
        ValueError: ``seconds`` or ``characters`` is not above 0, or is infinite.
    """
    if seconds is None and characters is None:
        raise TypeError("coalesce needs seconds=… or characters=…, for example coalesce(seconds=0.05)")
    if characters is not None:
        check_positive(characters, "coalesce(characters)", "characters")
    max_characters = inf if characters is None else characters
    if seconds is None:
        return shape_text(lambda: _Gatherer(max_characters))
    limit = timedelta(seconds=to_seconds(seconds, "coalesce(seconds)"))

    def operator(source: Observable[Any]) -> Observable[Any]:
        def subscribe(
            observer: ObserverBase[Any], clock: SchedulerBase, subscribed: SchedulerBase | None
        ) -> DisposableBase:
            voices = _TimedVoices(limit, max_characters, clock, observer)
            return Owned(voices.timer, voices.subscribe_to(source, subscribed))

        return create_timed("coalesce(seconds=…)", scheduler, subscribe)

    return through(operator)


class _TimedVoices(Voices):
    """The voices of one subscription, with a timer that emits gathered text. At most one timer is pending."""

    def __init__(
        self, limit: timedelta, max_characters: float, scheduler: SchedulerBase, observer: ObserverBase[Any]
    ) -> None:
        super().__init__(lambda: _Gatherer(max_characters, self._note_begin), observer)
        self.timer = SerialDisposable()
        self._limit = limit
        self._scheduler = scheduler
        self._is_waiting = False

    def _note_begin(self) -> datetime:
        """Return the present time, and start the timer if none is pending. Called when a voice begins to gather."""
        if not self._is_waiting:
            self._wait(self._limit)
        return self._scheduler.now

    def _wait(self, time: timedelta) -> None:
        self._is_waiting = True
        set_timer(self.timer, self._scheduler, time, self._check)

    def _check(self, scheduler: SchedulerBase, state: object = None) -> None:
        """Emit each text that was gathered for at least ``_limit``, and set the timer for the other texts."""
        now = self._scheduler.now
        rests: list[timedelta] = []
        self._is_waiting = False
        for voice in self.voices:
            shaper = voice.shaper
            if not isinstance(shaper, _Gatherer) or shaper.since is None:
                continue
            rest = self._limit - (now - shaper.since)
            if rest > timedelta():
                rests.append(rest)
            else:
                self.emit_pieces(voice, shaper.release())
        if rests and not self._is_waiting:
            self._wait(min(rests))


def _skip_time() -> None:
    """Return None instead of a time, because no time is needed without ``seconds``."""


class _Gatherer:
    """Gathers the text of one voice, except for the last character, which an accent may follow."""

    def __init__(self, max_characters: float, note_begin: Callable[[], datetime | None] = _skip_time) -> None:
        self.since: datetime | None = None
        self._max_characters = max_characters
        self._note_begin = note_begin
        self._characters = Characters()
        self._pieces: list[str] = []
        self._length = 0

    def feed(self, text: str) -> Sequence[str]:
        for piece in self._characters.feed(text):
            if not self._pieces:
                self.since = self._note_begin()
            self._pieces.append(piece)
            self._length += len(piece)
        return self.release() if self._length >= self._max_characters else ()

    def release(self) -> Sequence[str]:
        pieces, self._pieces, self._length, self.since = self._pieces, [], 0, None
        return ("".join(pieces),) if pieces else ()

    def flush(self) -> Sequence[str]:
        self._pieces.extend(self._characters.flush())
        return self.release()
