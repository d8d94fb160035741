"""Bounds on time, and what exceeds them."""


class TooLate(AssertionError):
    """Something took longer than it may.

    On a shared machine that can be the machine's doing, so these failures alone are given two more tries (see
    ``--only-rerun`` in pyproject.toml): what is really too slow is so three times.
    """


def assert_within(seconds: float, limit: float) -> None:
    """Raise TooLate where ``seconds`` exceed ``limit``."""
    if seconds > limit:
        raise TooLate(f"it took {seconds * 1000:.0f} ms, and may take {limit * 1000:.0f}")
