"""``stop_at``: ends the stream at a given text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow._streaming import stopping
from rxflow.operators._core import Characters, Voices, get_text, through
from rxflow.types import ReasoningChunk

T = TypeVar("T")


def stop_at(text: str, *, inclusive: bool = False) -> Callable[[Observable[T]], Observable[T]]:
    """Complete when an answer contains ``text`` (like ``take_until``), even across chunk boundaries.

    The source is then disposed. The answer is emitted up to ``text``, or including ``text`` if ``inclusive`` is True.
    A part of the answer is held back while it may be the beginning of ``text``. The last character is always held back,
    because an accent or the rest of an emoji may follow. Only answers are searched, each call separately. Reasoning and
    the arguments of tool calls are not searched. The whole stream ends, with all calls in it. To end only one call,
    apply this operator to the stream of that call. ::

        source             --he---llo ST---OP---more
        stop_at("STOP")    --h----ello-----( |)          (the last character before "STOP" is a space)

    Example::

        llm.observe("Count to ten").pipe(ops.stop_at("five")).subscribe(show)

    Raises:
        TypeError: ``text`` is not a string.
        ValueError: ``text`` is empty.
    """
    if not isinstance(cast(object, text), str):
        raise TypeError(f"stop_at(text) is not a string: {text!r}")
    if not text:
        raise ValueError("stop_at(text) is empty; give the text to stop at")

    def operator(source: Observable[Any]) -> Observable[Any]:
        def subscribe(observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
            return _StoppingVoices(text, inclusive, observer).subscribe_to(source, scheduler)

        return Observable(subscribe)

    return through(operator)


class _StoppingVoices(Voices):
    """Voices that all end when one of them contains the text."""

    def __init__(self, text: str, inclusive: bool, observer: ObserverBase[Any]) -> None:
        super().__init__(lambda: _Searcher(text, inclusive, self._note_found), observer)
        self._is_found = False

    def on_next(self, item: object) -> None:
        if self._is_found:
            return
        super().on_next(item)
        self._complete_if_found()

    def on_error(self, error: Exception) -> None:
        if not self._is_found:
            super().on_error(error)

    def on_completed(self) -> None:
        if not self._is_found:
            super().on_completed()

    def get_text(self, item: object) -> str | None:
        return None if isinstance(item, ReasoningChunk) else get_text(item)

    def _complete_if_found(self) -> None:
        if self._is_found:
            super().on_completed()

    def _note_found(self) -> None:
        self._is_found = True
        with stopping("the text to stop at was found"):
            self.subscription.dispose()


class _Searcher:
    """Searches for a text in one voice."""

    def __init__(self, wanted: str, inclusive: bool, note_found: Callable[[], None]) -> None:
        self._wanted = wanted
        self._shown = len(wanted) if inclusive else 0
        self._note_found = note_found
        self._held = ""
        self._characters = Characters()

    def feed(self, text: str) -> Sequence[str]:
        held = self._held + text
        index = held.find(self._wanted)
        if index < 0:
            cut = self._find_possible_start(held)
            self._held = held[cut:]
            return self._characters.feed(held[:cut])
        self._held = held[: index + self._shown]
        self._note_found()
        return self.flush()

    def flush(self) -> Sequence[str]:
        rest = "".join((*self._characters.feed(self._held), *self._characters.flush()))
        self._held = ""
        return (rest,) if rest else ()

    def _find_possible_start(self, text: str) -> int:
        """Return the first index from which the rest of ``text`` is a beginning of the wanted text.

        If there is no such index, return the length of ``text``.
        """
        wanted = self._wanted
        index = text.find(wanted[0], max(0, len(text) - len(wanted) + 1))
        while index >= 0 and not wanted.startswith(text[index:]):
            index = text.find(wanted[0], index + 1)
        return len(text) if index < 0 else index
