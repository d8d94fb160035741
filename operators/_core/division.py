"""Keyed lanes: one stream taken apart by whose its items are."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from reactivex import Observable
from reactivex.abc import DisposableBase, ObserverBase, SchedulerBase
from reactivex.disposable import CompositeDisposable, Disposable, RefCountDisposable, SingleAssignmentDisposable

from rxflow.operators._core.labels import Label
from rxflow.operators._core.lift import divide
from rxflow.types.chunks import StreamChunk
from rxflow.types.events import Happened
from rxflow.types.lanes import Lane

T = TypeVar("T")


def divided(label: Label) -> Callable[[Observable[T]], Observable[Lane[T]]]:
    """An operator that makes a lane of all items with the same ``label``; those without one are in no lane.

    A lane begins with its first item, and is handed out before it. It completes after the event that ends what it
    is of, and when the source ends, with its error. The next item of that name begins another one. ::

        source     --a1--b1--a2--{a ends}--a3--|
        a          --a1------a2--|
        b          ------b1--------------------|
        a          ------------------------a3--|
        result     --a---b-----------------a---|

    A lane keeps its items until its reader comes, and hands them on from then. It has one reader. The source is
    disposed when the result is, and no lane is being read.
    """

    def division(source: Observable[Any]) -> Observable[Lane[Any]]:
        def subscribe(observer: ObserverBase[Lane[Any]], scheduler: SchedulerBase | None = None) -> DisposableBase:
            lanes = _Lanes(label, observer)
            lanes.running.disposable = source.subscribe(
                lanes.on_next, lanes.on_error, lanes.on_completed, scheduler=scheduler
            )
            return lanes.in_use

        return Observable(subscribe)

    return divide(division)


class _Lanes:
    """The lanes of one subscription."""

    def __init__(self, label: Label, observer: ObserverBase[Lane[Any]]) -> None:
        self.running = SingleAssignmentDisposable()
        self.in_use = RefCountDisposable(CompositeDisposable(self.running, Disposable(self._abandon)))
        self._label = label
        self._key_of = label.of
        self._observer = observer
        self._open: dict[str, _Items] = {}
        self._is_over = False

    def on_next(self, item: object) -> None:
        key = self._key_of(item)
        if not key or self._is_over:
            return
        items = self._open.get(key)
        if items is None:
            if self.in_use.is_primary_disposed:  # nobody would hear of another lane
                return
            items = self._open[key] = _Items(self.in_use)
            self._observer.on_next(Lane(key, Observable(items.subscribe)))
        try:
            items.on_next(item)
            if not isinstance(item, StreamChunk):
                self._heed(key, items, item)
        except Exception as error:  # noqa: BLE001 - a reader's: past this point it would end up in the producer
            self.running.dispose()
            self.on_error(error)

    def _heed(self, key: str, items: _Items, item: object) -> None:
        """An event may begin or end what the lane is of. Two of one name, at once, are in one lane to the end."""
        if not isinstance(item, Happened):
            return
        if isinstance(item, self._label.begins):
            items.spans.add(item.origin.span_id)
        elif isinstance(item, self._label.ends):
            items.spans.discard(item.origin.span_id)
            if not items.spans and self._open.get(key) is items:
                del self._open[key]
                items.end(_complete)

    def on_error(self, error: Exception) -> None:
        def fail(observer: ObserverBase[Any]) -> None:
            try:
                observer.on_error(error)
            except Exception as raised:
                if raised is not error:  # a reader without an on_error of its own raises what it is told
                    raise

        self._end(fail)

    def on_completed(self) -> None:
        self._end(_complete)

    def _end(self, tell: Callable[[ObserverBase[Any]], None]) -> None:
        """Tell every lane, then the observer of the lanes, also where one of them raises."""
        if self._is_over:
            return
        self._is_over = True
        lanes, self._open = self._open, {}
        try:
            for items in lanes.values():
                items.end(tell)
        finally:
            tell(self._observer)

    def _abandon(self) -> None:
        """Nobody reads any more: whoever comes now is told so."""
        self._is_over = True
        lanes, self._open = self._open, {}
        for items in lanes.values():
            items.end(_refuse_late)


class _Items:
    """What one lane holds: kept until its reader comes, then handed on."""

    __slots__ = ("_end", "_in_use", "_is_taken", "_kept", "_reader", "spans")

    def __init__(self, in_use: RefCountDisposable) -> None:
        self.spans: set[str] = set()
        self._in_use = in_use
        self._kept: deque[object] | None = deque()
        self._reader: ObserverBase[Any] | None = None
        self._is_taken = False
        self._end: Callable[[ObserverBase[Any]], None] | None = None

    def on_next(self, item: object) -> None:
        if self._reader is not None:
            self._reader.on_next(item)
        elif self._kept is not None:
            self._kept.append(item)

    def end(self, tell: Callable[[ObserverBase[Any]], None]) -> None:
        reader, self._reader = self._reader, None
        self._end = tell
        if reader is not None:
            tell(reader)

    def subscribe(self, reader: ObserverBase[Any], scheduler: SchedulerBase | None = None) -> DisposableBase:
        if self._is_taken:
            reader.on_error(RuntimeError("a lane has one reader, and had it: share it with reactivex's ops.share()"))
            return Disposable()
        self._is_taken = True
        subscription = CompositeDisposable(Disposable(self._leave), self._in_use.disposable)
        while self._kept:  # what comes meanwhile is put behind
            reader.on_next(self._kept.popleft())
        self._kept = None
        if self._end is not None:
            self._end(reader)
        else:
            self._reader = reader
        return subscription

    def _leave(self) -> None:
        self._reader = self._kept = None


def _complete(observer: ObserverBase[Any]) -> None:
    observer.on_completed()


def _refuse_late(observer: ObserverBase[Any]) -> None:
    observer.on_error(RuntimeError("this lane was read too late: its stream had been disposed"))
