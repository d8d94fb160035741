"""What a test has set up and must have used by its end: scripts that are played, probes that are let go.

The pytest plugin collects these during a test, and asks them when it is over. Outside of a test nobody asks.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Literal, Protocol, TypeAlias

After: TypeAlias = Literal["test", "fixtures"]
"""When to ask: as soon as the test function has returned, or when its fixtures have been torn down too."""


class Due(Protocol):
    """Knows at the end whether all is in order."""

    def complaint(self) -> str | None:
        """What is not in order, in a sentence; None where all is."""
        ...


class Dues:
    """All that is to be asked after one test."""

    def __init__(self) -> None:
        self._all: list[tuple[After, Due]] = []

    def add(self, due: Due, after: After) -> None:
        """One more."""
        self._all.append((after, due))

    def complaints(self, after: After) -> Iterator[str]:
        """What is not in order."""
        for when, due in self._all:
            complaint = due.complaint() if when == after else None
            if complaint is not None:
                yield complaint


_current: Dues | None = None


def collect(due: Due, *, after: After) -> None:
    """Have ``due`` asked at the end of the test that runs now, if any does."""
    if _current is not None:
        _current.add(due, after)


@contextmanager
def collecting() -> Generator[Dues]:
    """What is made inside is collected. One inside another, as with pytester, has its own."""
    global _current
    before, _current = _current, Dues()
    try:
        yield _current
    finally:
        _current = before
