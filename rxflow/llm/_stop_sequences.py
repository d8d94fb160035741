"""Cuts answers at stop sequences, because some models ignore them, and some include them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import SingleAssignmentDisposable

from rxflow.llm.source import Delta, Ending, ReasoningDelta, Request
from rxflow.types import UsageMetrics
from rxflow.types.usage import estimate_usage


class StopSequences:
    """Cuts a text that arrives in pieces before the first complete stop sequence.

    Text is held back only if it may be the beginning of a sequence. The result does not depend on how the text is split
    into pieces.
    """

    def __init__(self, sequences: Sequence[str]) -> None:
        self.is_met = False
        self._sequences = sequences
        self._held = ""

    def feed(self, piece: str) -> str:
        """Add the next piece. Return the text that certainly belongs to the answer."""
        text = self._held + piece
        found = [(at + len(each), at) for each in self._sequences if (at := text.find(each)) >= 0]
        if found:
            self.is_met = True
            self._held = ""
            return text[: min(found)[1]]
        end = len(text) - max((count_overlap(text, each) for each in self._sequences), default=0)
        self._held = text[end:]
        return text[:end]

    def flush(self) -> str:
        """Return the text that was held back, because the answer has ended."""
        held, self._held = self._held, ""
        return held


def read_stop(stop: Any) -> list[str]:
    """Return the stop sequences as a list.

    Raises:
        TypeError: ``stop`` is not a string or a list of strings.
        ValueError: a sequence is empty, which would end every answer at its beginning.
    """
    given: Any = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(given, list | tuple) or not all(isinstance(each, str) for each in cast(list[Any], given)):
        raise TypeError(f"stop must be a string or a list of strings; got {stop!r}")
    sequences = list(cast(Sequence[str], given))
    if "" in sequences:
        raise ValueError(f"a stop sequence is empty: {stop!r}; leave it out")
    return sequences


def cut_at_stop(deltas: Observable[Delta], request: Request) -> Observable[Delta]:
    """End an answer before the first stop sequence of ``request``, and close the connection. ::

        deltas    "Thought"--"\\nObs"--"ervation:"--" never"--E|
        result    "Thought"-----------E|             (E: Ending, stop=["\\nObservation:"])

    A model that supports the sequences ends there by itself, and reports its usage. The usage of an answer that is cut
    here is an estimate.
    """
    sequences = read_stop({**request.hints, **request.parameters}.get("stop"))
    if not sequences:
        return deltas

    def subscribe(observer: ObserverBase[Delta], scheduler: SchedulerBase | None = None) -> DisposableBase:
        stop = StopSequences(sequences)
        running = SingleAssignmentDisposable()
        shown: list[str] = []

        def emit(text: str) -> None:
            if text:
                shown.append(text)
                observer.on_next(text)

        def end_if_met() -> None:
            if stop.is_met:
                running.dispose()
                observer.on_next(Ending("stop", estimate_usage(request.messages, shown) + _ONE_REQUEST))
                observer.on_completed()

        def on_next(delta: Delta) -> None:
            if stop.is_met:
                return
            if isinstance(delta, str):
                emit(stop.feed(delta))
                end_if_met()
                return
            if isinstance(delta, ReasoningDelta):
                shown.append(delta.content)
            else:
                emit(stop.flush())
            observer.on_next(delta)

        def on_error(error: Exception) -> None:
            if not stop.is_met:
                emit(stop.flush())
                observer.on_error(error)

        def on_completed() -> None:
            if not stop.is_met:
                emit(stop.flush())
                observer.on_completed()

        running.disposable = deltas.subscribe(on_next, on_error, on_completed, scheduler=scheduler)
        return running

    return Observable(subscribe)


_ONE_REQUEST = UsageMetrics(successful_requests=1)


def count_overlap(text: str, marker: str) -> int:
    """Return how many characters at the end of ``text`` may be the beginning of ``marker``."""
    return next((n for n in range(min(len(text), len(marker) - 1), 0, -1) if text.endswith(marker[:n])), 0)
