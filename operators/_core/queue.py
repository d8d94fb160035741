"""Items that wait: a queue for each call, so that a slow call does not hold up the others."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from rxflow.operators._core.items import get_span_id, is_content


@dataclass(slots=True)
class Section:
    """A queue for each call that streams at the same time, and the events that follow when all of them are empty.

    ``sizes`` is for operators that count what waits in each queue.
    """

    queues: dict[str, deque[object]] = field(default_factory=dict[str, deque[object]])
    sizes: dict[str, int] = field(default_factory=dict[str, int])
    events: list[object] = field(default_factory=list[object])


class CallQueues:
    """The order in which waiting items may leave.

    The output of a call, and events about it, keep their order within the call. Other events (a task has finished, a
    method begins) wait for all items before them, and all items behind them wait for those events. ::

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
        """The section whose items may leave."""
        return self._sections[0]

    def add(self, item: object) -> Section:
        """Put an item behind all that it must not overtake."""
        span_id = get_span_id(item)
        last = self._sections[-1] if self._sections else None
        if not is_content(item) and last is not None and (last.events or span_id not in last.queues):
            last.events.append(item)
            return last
        if last is None or last.events:
            last = Section()
            self._sections.append(last)
        last.queues.setdefault(span_id, deque()).append(item)
        return last

    def end_queue(self, span_id: str) -> None:
        """Remove an empty queue of the first section."""
        del self.first.queues[span_id]

    def end_section(self) -> list[object]:
        """Remove the first section, whose queues are empty; return its events."""
        return self._sections.popleft().events

    def clear(self) -> None:
        """Drop all that waits."""
        self._sections.clear()
