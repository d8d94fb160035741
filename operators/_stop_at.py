"""``stop_at``: the end, once something has been said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow.operators._core.characters import Characters
from rxflow.operators._core.lift import through
from rxflow.operators._core.texts import text_of
from rxflow.operators._core.voices import Voices
from rxflow.types.events import ReasoningChunk

T = TypeVar("T")


def stop_at(text: str, *, inclusive: bool = False) -> Callable[[Observable[T]], Observable[T]]:
    """End the stream once an answer has said ``text``, in whatever chunks, and close the connection at once.

    What came before it is emitted, and so is ``text`` itself where it is ``inclusive``. Only what may be the beginning
    of ``text`` is held back, and the last character, which may go on. Answers are looked at, not reasoning nor the
    arguments of tools; each call by itself. It ends the whole stream, and so all calls that run in it: to end one call
    only, put it on that call. ::

        source             --he---llo ST---OP---more
        stop_at("STOP")    ------h-----ello (|)          (units: one character; the last one waits)

    Example::

        llm.observe("Count to ten").pipe(ops.stop_at("five")).subscribe(show)

    Raises:
        TypeError: ``text`` is no string.
        ValueError: ``text`` is empty.
    """
    if not isinstance(cast(object, text), str):
        raise TypeError(f"stop_at(text) is the text to stop at; got {text!r}")
    if not text:
        raise ValueError("stop_at(text) is empty; give the text to stop at")

    def operator(source: Observable[Any]) -> Observable[Any]:
        def subscribe(observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
            voices = _UntilSaid(text, inclusive, observer)
            voices.subscription.disposable = source.subscribe(
                voices.on_next, voices.on_error, voices.on_completed, scheduler=scheduler
            )
            return voices.subscription

        return Observable(subscribe)

    return through(operator)


class _UntilSaid(Voices):
    """Voices that all end when one of them has said a text."""

    def __init__(self, text: str, inclusive: bool, observer: ObserverBase[Any]) -> None:
        super().__init__(lambda: _Searching(text, inclusive, self._found), observer)
        self._is_said = False

    def on_next(self, item: object) -> None:
        if self._is_said:
            return
        super().on_next(item)
        self._end_if_said()

    def on_error(self, error: Exception) -> None:
        if not self._is_said:
            super().on_error(error)

    def on_completed(self) -> None:
        if not self._is_said:
            super().on_completed()

    def text_of(self, item: object) -> str | None:
        return None if isinstance(item, ReasoningChunk) else text_of(item)

    def _end_if_said(self) -> None:
        if self._is_said:
            super().on_completed()

    def _found(self) -> None:
        self._is_said = True
        self.subscription.dispose()


class _Searching:
    """Looks for a text in what one voice says."""

    def __init__(self, wanted: str, inclusive: bool, found: Callable[[], None]) -> None:
        self._wanted = wanted
        self._shown = len(wanted) if inclusive else 0
        self._found = found
        self._held = ""
        self._characters = Characters()

    def feed(self, text: str) -> Sequence[str]:
        held = self._held + text
        place = held.find(self._wanted)
        if place < 0:
            cut = self._perhaps_from(held)
            self._held = held[cut:]
            return self._characters.feed(held[:cut])
        self._held = held[: place + self._shown]
        self._found()
        return self.flush()

    def flush(self) -> Sequence[str]:
        rest = "".join((*self._characters.feed(self._held), *self._characters.flush()))
        self._held = ""
        return (rest,) if rest else ()

    def _perhaps_from(self, text: str) -> int:
        """Where the wanted text may have begun; else the end."""
        wanted = self._wanted
        place = text.find(wanted[0], max(0, len(text) - len(wanted) + 1))
        while place >= 0 and not wanted.startswith(text[place:]):
            place = text.find(wanted[0], place + 1)
        return len(text) if place < 0 else place
