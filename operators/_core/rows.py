"""Items that wait for their turn: call by call, so that one that is slow holds up no other."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from rxflow.operators._core.texts import is_said, place_of


@dataclass(slots=True)
class Section:
    """Calls that speak side by side, each in a row of its own, and the events that come when all of it is out.

    ``sizes`` is for those who count what waits in each row.
    """

    rows: dict[str, deque[object]] = field(default_factory=dict[str, deque[object]])
    sizes: dict[str, int] = field(default_factory=dict[str, int])
    events: list[object] = field(default_factory=list[object])


class Rows:
    """The order in which items come out where some have to wait.

    What a call says, and events about it, keep their order within the call. Other events (a task has finished, a method
    begins) wait for all that came before them, and what comes after them waits for them. ::

        added       a1  b1  a2  E  a3        (two calls, and an event of neither)
        sections    [a: a1 a2, b: b1] E  [a: a3]
    """

    def __init__(self) -> None:
        self._sections: deque[Section] = deque()

    def __bool__(self) -> bool:
        return bool(self._sections)

    def __iter__(self) -> Iterator[Section]:
        return iter(self._sections)

    @property
    def first(self) -> Section:
        """The one whose turn it is."""
        return self._sections[0]

    def add(self, item: object) -> Section:
        """Let an item wait behind all that it must not overtake."""
        place = place_of(item)
        last = self._sections[-1] if self._sections else None
        if not is_said(item) and last is not None and (last.events or place not in last.rows):
            last.events.append(item)
            return last
        if last is None or last.events:
            last = Section()
            self._sections.append(last)
        last.rows.setdefault(place, deque()).append(item)
        return last

    def end_row(self, place: str) -> None:
        """All of a row of the first section is out."""
        del self.first.rows[place]

    def end_section(self) -> list[object]:
        """All rows of the first section are out: here are its events."""
        return self._sections.popleft().events

    def clear(self) -> None:
        """Forget all that waits."""
        self._sections.clear()
