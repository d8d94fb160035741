"""The spans that are open in a sequence of events, for code that ends the sequence before they are closed."""

from __future__ import annotations

from collections.abc import Callable

from rxflow.types import Cancelled, Event, Failed, Finished, Started
from rxflow.types.events import FlowPaused


class OpenSpans:
    """Follows events; a span is open from its ``…Started`` to its end."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[str, Started] = {}

    def follow(self, item: object) -> None:
        """Note the next item. Those that are not events open and close nothing."""
        if isinstance(item, Started):
            self._open[item.origin.span_id] = item
        elif isinstance(item, Finished | Failed | Cancelled | FlowPaused):
            self._open.pop(item.origin.span_id, None)

    def close(self, describe: Callable[[Started], Event]) -> list[Event]:
        """The events that close what is open, innermost first; ``describe`` makes them."""
        closing = [describe(started) for started in reversed(self._open.values())]
        self._open.clear()
        return closing
