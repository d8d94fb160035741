"""``accumulate``: the whole text so far."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow.operators._core.characters import Characters
from rxflow.operators._core.lift import through
from rxflow.operators._core.texts import place_of, text_of, with_text
from rxflow.operators._core.voices import Key, is_void, shaped
from rxflow.types.events import Failed, Finished, Retracted

T = TypeVar("T")


def accumulate() -> Callable[[Observable[T]], Observable[T]]:
    """Let each item carry the whole text of its call so far, for displays that replace what they show.

    Each call has a text of its own, and so has its reasoning. Works on chunks and on strings; what carries no text
    passes. The last character of a chunk comes with the next one, as it may go on (an accent, a part of an emoji), or
    when the call ends; also where the source fails. Where a tool call interrupts the text, it goes on behind it.

    Each item is a copy of the text so far. That costs next to nothing in an answer of 100,000 characters, but seconds
    in one of a million in small chunks; and whoever keeps all items keeps all copies. ``coalesce`` before this
    helps. ::

        source          --he---llo----|
        accumulate()    --h----hell---(hello)|

    Example::

        flow.observe().pipe(ops.coalesce(seconds=0.05), ops.accumulate()).subscribe(show_instead)
    """

    def apply(source: Observable[T]) -> Observable[T]:
        return through(_accumulated)(shaped(Characters)(source))

    return apply


def _accumulated(source: Observable[Any]) -> Observable[Any]:
    def subscribe(observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
        emit = observer.on_next
        so_far: dict[Key, object] = {}

        def on_next(item: object) -> None:
            text = text_of(item)
            if text is not None:
                key: Key = (place_of(item), type(item))
                before = text_of(so_far.get(key)) or ""
                whole = so_far[key] = with_text(item, before + text)
                emit(whole)
                return
            if isinstance(item, Finished | Failed | Retracted):
                place = place_of(item)
                for its, last in list(so_far.items()):
                    if is_void(last, item) if isinstance(item, Retracted) else its[0] == place:
                        del so_far[its]
            emit(item)

        return source.subscribe(on_next, observer.on_error, observer.on_completed, scheduler=scheduler)

    return Observable(subscribe)
