"""The lease that shows that a run's worker lives.

A worker renews it every third of its time. It counts by the clock that all processes of a machine share
(``time.monotonic``), or by the server's own (Redis), never by the wall clocks of two machines.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

LEASE_S = 5.0
"""A dead worker is noticed after at most twice this time."""


@dataclass(frozen=True, slots=True)
class Lease:
    """How long a worker counts as alive after a renewal."""

    seconds: float = LEASE_S

    def __post_init__(self) -> None:
        if not (self.seconds > 0 and math.isfinite(self.seconds)):
            raise ValueError(f"lease must be a number of seconds (or a timedelta) above 0: {self.seconds!r}")

    @property
    def renewal_s(self) -> float:
        """Seconds between two renewals: one may come late or fail."""
        return self.seconds / 3

    def until(self) -> float:
        """The time at which a lease that is renewed now lapses."""
        return time.monotonic() + self.seconds


def has_lapsed(until: float, seconds: float) -> bool:
    """A lease of so many seconds has lapsed. One that ends later than it can was taken before the machine started."""
    now = time.monotonic()
    return not now < until <= now + seconds
