"""Which spans are open in a sequence of events, for code that ends the sequence before their ends have come."""

from __future__ import annotations

from collections.abc import Callable

from rxflow.types import Cancelled, Event, Failed, Finished, FlowPaused, Started


class OpenSpans:
    """Tracks the open spans: a span is open from its ``…Started`` event to its end."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[str, Started] = {}

    def follow(self, item: object) -> None:
        """Note the next item. Items that are not events are ignored."""
        if isinstance(item, Started):
            self._open[item.origin.span_id] = item
        elif isinstance(item, Finished | Failed | Cancelled | FlowPaused):
            self._open.pop(item.origin.span_id, None)

    def close(self, describe: Callable[[Started], Event]) -> list[Event]:
        """Return events that close all open spans, innermost first; ``describe`` creates them."""
        closing = [describe(started) for started in reversed(self._open.values())]
        self._open.clear()
        return closing
