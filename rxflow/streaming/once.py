"""Something that can be taken once, whichever thread comes first."""

from __future__ import annotations


class Once:
    """Of two threads that ``take()`` at once, one gets True. No lock: ``pop()`` of a list is atomic."""

    __slots__ = ("_token",)

    def __init__(self) -> None:
        self._token = [True]

    def take(self) -> bool:
        """True for the first who asks."""
        try:
            return self._token.pop()
        except IndexError:
            return False

    def give_back(self) -> None:
        """It can be taken again. For whoever has taken it."""
        self._token.append(True)

    @property
    def is_taken(self) -> bool:
        """Somebody has it."""
        return not self._token
