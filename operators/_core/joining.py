"""How another stream becomes a part of a run: ``fallback_to``, ``race``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from reactivex import Observable

from rxflow.operators._core.lift import OfRun, everything
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import Happened

Join: TypeAlias = Callable[[Observable[Any]], Observable[Any]]


def join_for(source: Observable[Any]) -> Join:
    """What makes another stream fit ``source``: nothing, unless that is a run."""
    return as_events if isinstance(source, OfRun) else everything


def as_events(other: Observable[Any]) -> Observable[Any]:
    """``other`` as events: all those of a run, whatever was selected from them; strings as chunks of no place.

    Operators that come later then see its calls end too. Items of any other kind end the stream with a TypeError: a
    selection of chunks would let them vanish.
    """
    if isinstance(other, OfRun):
        return other.reselect(lambda _: everything)
    return other.map(_as_event)


def _as_event(item: object) -> object:
    if isinstance(item, StreamChunk | Happened):
        return item
    if isinstance(item, str):
        return StreamChunk(content=item)
    raise TypeError(f"a run can be joined by chunks, events and strings; got {item!r}: map it to one of these first")
