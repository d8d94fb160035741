"""Instants of virtual time: sums without the noise of floating point, and an order among equal ones."""

from __future__ import annotations

_DIGITS = 9  # nanoseconds, for a hundred days


class Instant(float):
    """Seconds. What is added or subtracted comes out to the nanosecond: 0.1 + 0.2 is 0.3.

    Deadlines are sums of ``loop.time()`` and a delay. With the noise, two that are due at once would be a trifle apart,
    and a test that asks for 0.3 would be told 0.30000000000000004.
    """

    __slots__ = ()

    def __add__(self, other: float, /) -> Instant:
        return Instant(round(float(self) + other, _DIGITS))

    __radd__ = __add__

    def __sub__(self, other: float, /) -> Instant:
        return Instant(round(float(self) - other, _DIGITS))

    def __rsub__(self, other: float, /) -> Instant:
        return Instant(round(float(other) - float(self), _DIGITS))

    @property
    def seconds(self) -> float:
        """A plain float, and without the noise that someone else's sum may have brought in."""
        return round(float(self), _DIGITS)

    @classmethod
    def at(cls, seconds: float) -> Instant:
        """The instant that is meant by ``seconds``, which may carry noise."""
        return cls(round(seconds, _DIGITS))


class Due(float):
    """When a timer is due: of two at one instant the one that was made first comes first.

    asyncio keeps its timers on a heap, which forgets their order where they compare equal.
    """

    __slots__ = ("_number",)

    def __new__(cls, seconds: float, number: int) -> Due:
        self = super().__new__(cls, seconds)
        self._number = number
        return self

    _number: int

    def __lt__(self, other: float, /) -> bool:
        if isinstance(other, Due) and float(self) == float(other):
            return self._number < other._number
        return float(self) < float(other)
