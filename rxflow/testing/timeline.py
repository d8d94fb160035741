"""What a marble diagram says: which signal comes at which instant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

Ms: TypeAlias = int | float
"""An instant or a length of time in milliseconds; an int where it is whole."""


class MarbleError(Exception):
    """What ``#`` stands for where a diagram is given no error of its own."""


@dataclass(frozen=True, slots=True)
class Next:
    """An item."""

    value: Any


@dataclass(frozen=True, slots=True, eq=False)
class Failed:
    """The error that ends a stream; equal to one of the same type with the same message."""

    error: BaseException

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Failed) and type(other.error) is type(self.error) and str(other.error) == str(self.error)
        )

    def __hash__(self) -> int:
        return hash((type(self.error), str(self.error)))


@dataclass(frozen=True, slots=True)
class Completed:
    """The end of a stream that did not fail."""


Signal: TypeAlias = Next | Failed | Completed


@dataclass(frozen=True, slots=True)
class Moment:
    """A signal and its instant."""

    time: Ms
    signal: Signal


@dataclass(frozen=True, slots=True)
class Timeline:
    """Signals in the order in which they come."""

    moments: tuple[Moment, ...] = ()

    @classmethod
    def of(cls, moments: Iterable[tuple[Ms, Signal]]) -> Timeline:
        """Made of pairs: an instant, and what comes then."""
        return cls(tuple(Moment(time, signal) for time, signal in moments))

    def __iter__(self) -> Iterator[Moment]:
        return iter(self.moments)

    def __len__(self) -> int:
        return len(self.moments)

    @property
    def end(self) -> Ms:
        """The instant of its last signal; 0 where there is none."""
        return self.moments[-1].time if self.moments else 0

    @property
    def has_terminal(self) -> bool:
        """It completes or fails."""
        return bool(self.moments) and not isinstance(self.moments[-1].signal, Next)


@dataclass(frozen=True, slots=True)
class Span:
    """A subscription: from when to when; ``end`` is None where nothing ended it."""

    start: Ms
    end: Ms | None = None


def tidy(milliseconds: Ms) -> Ms:
    """Without the noise of floating point: to the nanosecond, and an int where it is whole."""
    rounded = round(float(milliseconds), 6)
    return int(rounded) if rounded.is_integer() else rounded
