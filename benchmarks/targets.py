"""What a figure must reach, and whether it does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A bound for a figure: from below if more is better, otherwise from above."""

    bound: float
    is_lower: bool

    def is_reached(self, figure: float) -> bool:
        """Whether ``figure`` keeps to the bound."""
        return figure >= self.bound if self.is_lower else figure <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.is_lower else '≤'} {self.bound:,g}"


def at_least(bound: float) -> Target:
    """More is better."""
    return Target(bound, is_lower=True)


def at_most(bound: float) -> Target:
    """Less is better."""
    return Target(bound, is_lower=False)


def verdict(target: Target | None, figure: float) -> str:
    """Two columns of a table, of 10 and 9 characters: the target, and whether it is reached."""
    if target is None:
        return " " * 19
    return f"{target!s:>10}{'yes' if target.is_reached(figure) else 'NO':>9}"
