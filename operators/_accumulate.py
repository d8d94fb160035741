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
    """Emit each item with the whole text of its call so far (like ``scan``), for displays that replace their content.

    The answer and the reasoning of a call are separate texts. A tool call does not reset the text. The operator works
    on chunks and on strings. Items without text pass unchanged. The last character is held, because an accent or the
    rest of an emoji may follow. The held character is emitted with the next text. If another item of the call comes
    before that text, or the call or the source ends, the held character is emitted first.

    Each item has its own copy of the text so far. For an answer of 100,000 characters, the copies take almost no time.
    For a million characters in small chunks, the copies take seconds. A reader that keeps all items keeps all copies.
    To get fewer copies, put ``coalesce`` before this operator. ::

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
