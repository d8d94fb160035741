"""Attempts: which one a stream is in, and what of it has been shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeAlias, cast

from rxflow.types.chunks import Origin, StreamChunk
from rxflow.types.events import Happened, ReasoningChunk, Retracted, Started

ErrorFilter: TypeAlias = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]
"""Some errors: by class, by classes, or by a function."""

_NOWHERE = Origin()


class Attempts:
    """Labels the items of successive attempts so that no two share a number.

    The first keeps the numbers that its chunks have (from a guardrail's retries); each later one begins above the
    highest that was seen.
    """

    def __init__(self) -> None:
        self._base = 0
        self._highest = -1
        self._origin: Origin | None = None
        self._spans: dict[str, None] = {}  # where this attempt has spoken, in order
        self._renumbered: tuple[Origin, Origin] = (_NOWHERE, _NOWHERE)

    @property
    def has_shown(self) -> bool:
        """This attempt has said something."""
        return self._highest >= self._base

    def label(self, item: Any) -> Any:
        """The next item, with its number."""
        if isinstance(item, StreamChunk):
            attempt = self._base + item.attempt
            if attempt > self._highest:
                self._highest = attempt
            self._spans[item.span_id] = None
            return item.with_attempt(attempt) if self._base else item
        if isinstance(item, Happened):
            return self._event(item)
        if self._highest < self._base:
            self._highest = self._base
        self._spans[""] = None
        return item

    def retracted(self, error: BaseException) -> Retracted:
        """Take back what this attempt has shown."""
        return Retracted(
            origin=self._origin or _NOWHERE,
            attempts=tuple(range(self._base, self._highest + 1)),
            error=error,
            span_ids=() if "" in self._spans else tuple(self._spans),
        )

    def begin_next(self) -> None:
        """What comes from now on is another attempt."""
        self._base = self._highest + 1
        self._origin = None
        self._spans = {}

    def _event(self, event: Happened) -> Happened:
        if self._origin is None:
            # A run begins with its own bracket. Bare chunks say nothing of what they are all a part of.
            self._origin = event.origin if isinstance(event, Started) else _NOWHERE
        if isinstance(event, ReasoningChunk):
            self._highest = max(self._highest, self._base + event.origin.attempt)
            self._spans[event.origin.span_id] = None
        if not self._base:
            return event
        if isinstance(event, Retracted):  # of a part of this one
            event = replace(event, attempts=tuple(self._base + number for number in event.attempts))
        return replace(event, origin=self._placed(event.origin))

    def _placed(self, origin: Origin) -> Origin:
        before, after = self._renumbered
        if origin is not before:
            after = replace(origin, attempt=self._base + origin.attempt)
            self._renumbered = (origin, after)
        return after


def error_filter(given: ErrorFilter, what: str) -> Callable[[BaseException], bool]:
    """A function that says which errors are meant. A cancellation, KeyboardInterrupt and SystemExit never are.

    Raises:
        TypeError: ``given`` is none of what it may be.
    """
    if isinstance(given, type | tuple):
        kinds = cast("tuple[type[Exception], ...]", given if isinstance(given, tuple) else (given,))
        if not all(
            isinstance(kind, type) and issubclass(kind, Exception) for kind in cast("tuple[object, ...]", kinds)
        ):
            raise TypeError(f"{what} takes exception classes, or a function of the error; got {given!r}")
        return lambda error: isinstance(error, kinds)
    if not callable(given):
        raise TypeError(f"{what} takes exception classes, or a function of the error; got {given!r}")
    return lambda error: isinstance(error, Exception) and bool(given(error))
