"""``accumulate``: the whole text of a call so far."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase

from rxflow.operators._core import (
    CallTracker,
    Characters,
    OpenCall,
    get_span_id,
    get_text,
    replace_text,
    shape_text,
    through,
)

T = TypeVar("T")


def accumulate() -> Callable[[Observable[T]], Observable[T]]:
    """Let each item carry the whole text of its call so far (like ``scan``), for displays that replace their content.

    Each call has a text of its own, and its reasoning has another one. Works on chunks and on strings; items without
    text pass unchanged. The last character of a chunk is held until more text arrives, the call ends or the source
    fails, because an accent or the rest of an emoji may follow. If a tool call interrupts the text, the text continues
    after it.

    Each item is a copy of the text so far. That costs almost nothing for an answer of 100,000 characters, but seconds
    for one of a million in small chunks. A reader that keeps all items keeps all copies. ``coalesce`` before this
    operator reduces the cost. ::

        source          --he---llo----|
        accumulate()    --h----hell---(hello)|

    Example::

        flow.observe().pipe(ops.coalesce(seconds=0.05), ops.accumulate()).subscribe(show_instead)
    """

    def apply(source: Observable[T]) -> Observable[T]:
        return through(_accumulate_text)(shape_text(Characters)(source))

    return apply


class _Text(OpenCall):
    __slots__ = ("so_far",)
    so_far: str


def _accumulate_text(source: Observable[Any]) -> Observable[Any]:
    def subscribe(observer: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
        emit = observer.on_next
        texts: CallTracker[_Text] = CallTracker()

        def on_next(item: object) -> None:
            text = get_text(item)
            if text is None:
                for ended in texts.find_ended(item):
                    texts.remove(ended)
                emit(item)
                return
            key = (get_span_id(item), type(item))
            call = texts.get(key)
            if call is None:
                call = texts.add(_Text(item, key))
                call.so_far = text
            else:
                call.item = item
                call.so_far += text
            emit(replace_text(item, call.so_far))

        return source.subscribe(on_next, observer.on_error, observer.on_completed, scheduler=scheduler)

    return Observable(subscribe)
