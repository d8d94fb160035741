"""The lease shows that the worker of a run is alive.

A worker renews its lease three times per lease period. The times are compared on one clock only: the monotonic clock
that all processes of a machine share (``time.monotonic``), or the Redis server's clock.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

LEASE_S = 5.0
"""The default length of a lease. A dead worker is noticed after at most twice this time."""


@dataclass(frozen=True, slots=True)
class Lease:
    """How long a worker counts as alive after a renewal."""

    seconds: float = LEASE_S

    def __post_init__(self) -> None:
        if not (self.seconds > 0 and math.isfinite(self.seconds)):
            raise ValueError(f"lease must be a number of seconds (or a timedelta) above 0: {self.seconds!r}")

    @property
    def renewal_s(self) -> float:
        """Seconds between two renewals. One renewal may be late or fail before the lease lapses."""
        return self.seconds / 3

    def until(self) -> float:
        """Return the time at which a lease that is renewed now will lapse."""
        return time.monotonic() + self.seconds


def has_lapsed(until: float, seconds: float, ago: float = 0) -> bool:
    """Return whether a lease of ``seconds`` that ends at ``until`` lapsed at least ``ago`` seconds ago.

    The clock begins anew when the machine restarts. So if a lease ends later than one that is renewed now, it was
    renewed before the last restart, and has lapsed too.
    """
    now = time.monotonic()
    return until <= now - ago or (until > now + seconds and now >= ago)
